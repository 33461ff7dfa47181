"""Small random sequence classifiers and encoders with the numbers that Transformers computes from them.

    python make_encoders.py

writes beside itself, per model, a Hugging Face folder and
    cases.json          {"labels": [names], "cases": [{"text", "ids", "logits"}]} (a bare encoder has no logits),
                        "ids" with special tokens, each text by itself; "scores": settings of a reward model
                        (TASKS.md 3.7) and what they make of the texts, cut to max_length, all in one batch
    hidden.safetensors  "<i>": the last hidden states [tokens, hidden] of case i (encoders only)
and clean_up.json, what Transformers' clean-up of decoded text does.
"""

import json
import math
import os
import re
import shutil
import string

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 40
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
WORDS = ["the quick brown fox jumps over the lazy dog", "a model of the world in a small file",
         "good answers are short and kind", "bad answers are long, rude and wrong!"]
TEXTS = ["good dog", "a rude answer, and wrong!", "The Caf\u00e9 of the world\u2026", "", "fox " * 60, "a <pad> dog"]
SCORES = [dict(type="classification"), dict(type="sentiment"), dict(type="sentiment", scale=-0.5, max_length=7),
          dict(type="classification", positive_label="1"), dict(type="sentiment", positive_label="1", scale=2.0)]
transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(2)


def wordpiece(folder):
    """Characters, words and a few endings: what WordPieceTrainer finds differs from run to run."""
    words = sorted({w for line in WORDS for w in re.findall(r"\w+", line)})
    characters = [c for c in string.ascii_lowercase + string.digits + string.punctuation]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters + ["##" + c for c in characters]
    vocabulary += [w for w in words if len(w) > 1] + ["##er", "##ing", "##ed", "caf", "##est"]
    os.makedirs(folder)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(vocabulary) + "\n")
    return transformers.BertTokenizerFast(os.path.join(folder, "vocab.txt"), model_max_length=LIMIT)


def byte_level(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(WORDS * 4, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return transformers.RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT)


def unigram(folder):
    """As the multilingual encoders have it: words behind a mark, with scores by their length, and single characters."""
    words = sorted({w for line in WORDS for w in re.findall(r"\w+", line)})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.5)]
    pieces += [(c, -6.0) for c in string.ascii_letters + ",.!\u00e9"]
    pieces += [("\u2581" + w, -4.0 - 0.25 * len(w)) for w in words if len(w) > 1] + [("er", -5.0), ("ud", -5.5), ("f\u00e9", -7.0)]
    tokenizer = Tokenizer(models.Unigram(pieces + [("<mask>", 0.0)], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return transformers.XLMRobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT)


def decoder_tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(os.path.join(HERE, "..", "models", "llama"))


def labelled(names):
    return dict(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})


DECODER = dict(vocab_size=320, bos_token_id=1, eos_token_id=2, pad_token_id=0)
MODELS = {
    "bert": (wordpiece, transformers.BertForSequenceClassification, lambda n: transformers.BertConfig(
        vocab_size=n, max_position_embeddings=LIMIT, type_vocab_size=2, layer_norm_eps=1e-5,
        **SIZES, **labelled(["Very NEGATIVE", "neutral", "Positive"]))),
    "roberta": (byte_level, transformers.RobertaForSequenceClassification, lambda n: transformers.RobertaConfig(
        vocab_size=n, max_position_embeddings=LIMIT + 2, type_vocab_size=1, **SIZES)),  # LABEL_0, LABEL_1
    "distilbert": (wordpiece, transformers.DistilBertForSequenceClassification, lambda n: transformers.DistilBertConfig(
        vocab_size=n, max_position_embeddings=LIMIT, dim=32, n_layers=2, n_heads=4, hidden_dim=48,
        **labelled(["negative", "positive"]))),
    "bert_bare": (wordpiece, transformers.BertModel, lambda n: transformers.BertConfig(
        vocab_size=n, max_position_embeddings=LIMIT, **SIZES | dict(num_hidden_layers=1))),
    "xlm_roberta": (unigram, transformers.XLMRobertaModel, lambda n: transformers.XLMRobertaConfig(
        vocab_size=n, max_position_embeddings=LIMIT + 2, type_vocab_size=1, **SIZES)),
    "llama": (decoder_tokenizer, transformers.LlamaForSequenceClassification, lambda n: transformers.LlamaConfig(
        **DECODER, num_key_value_heads=2, **SIZES, **labelled(["LABEL_0"]))),
    "gpt2": (decoder_tokenizer, transformers.GPT2ForSequenceClassification, lambda n: transformers.GPT2Config(
        **DECODER, n_positions=64, n_embd=32, n_layer=2, n_head=4, **labelled(["bad", "positive", "other"]))),
}


def random_weights(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.copy_(torch.randn_like(p) * 0.3 + ("norm" in name.lower() or "ln_" in name) * name.endswith("weight"))
            else:
                p.copy_(torch.randn_like(p) * (0.5 if "embed" in name or "wte" in name else 1.5 / math.sqrt(p.shape[-1])))
    return model


def old_names(folder):
    """`gamma` and `beta` for the norms' tensors, as the first BERT checkpoints have them."""
    path = os.path.join(folder, "model.safetensors")
    tensors = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
               for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def logits_of(model, encoded):
    with torch.no_grad():
        return model(**encoded).logits


def score(logits, names, settings):
    """One row of TASKS.md 3.7."""
    def label(key, word):
        if key in settings:
            return int(settings[key])
        return next((i for i, name in enumerate(names) if word in name.lower()), None)
    if len(names) == 1:
        value = logits[0].item()
    elif settings["type"] == "sentiment":
        positive, negative = label("positive_label", "positive"), label("negative_label", "negative")
        value = logits.max().item() if positive is None else logits[positive].item()
        value -= 0.0 if negative is None else logits[negative].item()
    else:
        value = logits[int(settings["positive_label"])].item() if "positive_label" in settings else logits.max().item()
    return value * settings.get("scale", 1.0)


def scores_of(model, tokenizer, names, settings):
    """All texts in one padded batch; a text without a token scores 0."""
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    cut = min(settings.get("max_length", 512), tokenizer.model_max_length, model.config.max_position_embeddings)
    rows = [tokenizer(t, truncation=True, max_length=cut)["input_ids"] for t in TEXTS]
    values = [0.0] * len(rows)
    filled = [i for i, row in enumerate(rows) if row]
    width = max(map(len, rows))
    ids = torch.tensor([rows[i] + [tokenizer.pad_token_id] * (width - len(rows[i])) for i in filled])
    mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in filled])
    if hasattr(model, "score"):  # by the mask; Transformers goes by the padding's id
        with torch.no_grad():
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            logits = model.score(hidden[torch.arange(len(filled)), mask.sum(1) - 1])
    else:
        logits = logits_of(model, {"input_ids": ids, "attention_mask": mask})
    for place, row in zip(filled, logits):
        values[place] = score(row, names, settings)
    return values


def make_model(name, make_tokenizer, cls, make_config):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = make_tokenizer(folder)
    config = make_config(len(tokenizer))
    config._attn_implementation = "eager"
    model = random_weights(cls(config), seed=len(name)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if name == "distilbert":
        os.remove(os.path.join(folder, "tokenizer.json"))  # vocab.txt alone
    if name == "bert":
        old_names(folder)
    model = cls.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bare, names = cls in (transformers.BertModel, transformers.XLMRobertaModel), [model.config.id2label[i] for i in range(model.config.num_labels)]
    cases, hidden = [], {}
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=LIMIT)["input_ids"]
        case = {"text": text, "ids": ids}
        if ids and not bare:
            case["logits"] = logits_of(model, {"input_ids": torch.tensor([ids])})[0].tolist()
        if ids and make_tokenizer is not decoder_tokenizer:
            with torch.no_grad():
                states = model.base_model(torch.tensor([ids])).last_hidden_state[0]
            hidden[str(len(cases))] = states.contiguous()
        cases.append(case)
    golden = {"labels": [] if bare else names, "cases": cases}
    if not bare:
        golden["scores"] = [s | {"scores": scores_of(model, tokenizer, names, s)} for s in SCORES
                            if int(s.get("positive_label", 0)) < len(names)]
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
        json.dump(golden, f, indent=1)
    if hidden:
        save_file(hidden, os.path.join(folder, "hidden.safetensors"))
    print(name, [c.get("logits") for c in cases[:2]])


def make_clean_up():
    texts = ["it 's a dog , is n't it ?", "I 'm here . You 've a fox !", "they 're ' quoted ' .", "a  .b ,c", "no change"]
    clean = transformers.PreTrainedTokenizerBase.clean_up_tokenization
    with open(os.path.join(HERE, "clean_up.json"), "w", encoding="utf-8") as f:
        json.dump({"cases": [{"text": t, "clean": clean(t)} for t in texts]}, f, indent=1)


if __name__ == "__main__":
    for model_name, arguments in MODELS.items():
        make_model(model_name, *arguments)
    make_clean_up()
