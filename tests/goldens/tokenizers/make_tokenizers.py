#!/usr/bin/env python3
"""Makes the tokenizer goldens: small trained tokenizers of each family and what the reference
libraries answer for the corpus.

    pip install -r requirements.txt
    python make_tokenizers.py [--gemma-gguf gemma-3-270m-q4_k_m.gguf]

Written beside this script:
  corpus.json                the texts
  <family>/tokenizer.json    with tokenizer_config.json and config.json: a model folder
  <family>/golden.json       ids and decoded texts by tokenizers and transformers
  components.json            every normalizer, pre-tokenizer and decoder by itself
  gguf_<kind>.json           a GGUF vocabulary with the ids of llama.cpp
  gemma_gguf.json            ids of llama.cpp with the full Gemma 3 vocabulary (needs the file)

A golden.json holds, for the texts in order: `ids` without special tokens; `before` and `after`, what
special tokens put around them (the same for every text, which is checked here); `decoded`, the text
of the ids where it differs from the input, else null; `random`: [ids, text, text without special
tokens] of random ids. One with a `step` answers for the texts `first`, `first` + `step`, ... alone.
"""

import argparse
import json
import os
import random
import tempfile

os.environ.setdefault("USE_TORCH", "0")

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import corpus as corpus_module

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = corpus_module.corpus()
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

# Added tokens with every kind of flag; each tokenizer gets some.
FLAGGED = [
    AddedToken("<lstrip>", lstrip=True, normalized=False),
    AddedToken("<rstrip>", rstrip=True, normalized=False),
    AddedToken("<both>", lstrip=True, rstrip=True, special=True),
    AddedToken("<word>", single_word=True),
    AddedToken("solo", single_word=True, normalized=True),
    AddedToken("NormToken", normalized=True),
    AddedToken("RawToken", normalized=False),
    AddedToken("<a>", special=True),
    AddedToken("<b>", special=False),
    AddedToken("<long_token", special=False, normalized=False),
    AddedToken("<long_token_with_parts>", special=False, normalized=False),
]


def dump(value, *path):
    path = os.path.join(HERE, *path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


def byte_level_bpe(vocab_size, special_tokens, **parts):
    tokenizer = Tokenizer(models.BPE())
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special_tokens, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece_bpe(vocab_size, special_tokens):
    """A vocabulary as SentencePiece makes it: special tokens, byte tokens, pieces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    # Only common characters get a piece; the others need bytes.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special_tokens + BYTES, show_progress=False, limit_alphabet=300)
    tokenizer.train_from_iterator(CORPUS, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] not in BYTES]
    return document


def gpt2():
    tokenizer = byte_level_bpe(1200, ["<|endoftext|>"], pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens(FLAGGED)
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "add_bos_token": True}, {"model_type": "gpt2"}


def llama3():
    tokenizer = byte_level_bpe(1200, [], pre_tokenizer=pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    document = json.loads(tokenizer.to_str())
    vocab = document["model"]["vocab"]
    # Words that no merge reaches, for ignore_merges.
    for word in ["Ġlargest", "Ġplanet", "hahahahahahahahahaha", "Ġstruct", "éª", "camelCase"]:
        vocab.setdefault(word, len(vocab))
    document["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072, "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>", "add_eos_token": True}, {"model_type": "llama"}


def qwen2():
    tokenizer = byte_level_bpe(1200, [], normalizer=normalizers.NFC(), pre_tokenizer=pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<|tool|>"] + FLAGGED)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    document = json.loads(tokenizer.to_str())
    decoder = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in document["added_tokens"]}
    # What tokenizer_config.json says of a token goes before tokenizer.json.
    changed = decoder[str(tokenizer.token_to_id("<b>"))]
    changed["lstrip"] = changed["special"] = True
    decoder[str(tokenizer.get_vocab_size())] = {
        "content": "<bos>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False, "special": False}
    return document, {
        "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 32768, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "add_prefix_space": False, "add_bos_token": False,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "added_tokens_decoder": decoder,
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}, {"model_type": "qwen2"}


def llama2():
    document = sentencepiece_bpe(1500, ["<unk>", "<s>", "</s>"])
    document["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    document["pre_tokenizer"] = document["post_processor"] = None
    document["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    # The older form of merges.
    document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    return document, {"tokenizer_class": "LlamaTokenizer", "model_max_length": 1000000000000000019884624838656,
                      "clean_up_tokenization_spaces": False}, {"model_type": "llama"}


def mistral():
    document = sentencepiece_bpe(1500, ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    document["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens(FLAGGED)
    # add_bos_token and add_eos_token replace this template.
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> <s> $A", pair="$A $B", special_tokens=[("<s>", 1)])
    return json.loads(tokenizer.to_str()), {
        "add_bos_token": False, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": False, "rstrip": False, "normalized": False,
                      "single_word": False}, "legacy": False}, {"model_type": "mistral"}


def gemma():
    document = sentencepiece_bpe(1500, ["<pad>", "<eos>", "<bos>", "<unk>"])
    document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    document["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    document["post_processor"] = None
    document["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    tokenizer.add_tokens([AddedToken("\n" * n, normalized=False) for n in range(1, 5)] + [AddedToken("▁" * n) for n in range(2, 6)])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "model_max_length": 1000000000000000019884624838656}, {"model_type": "gemma3_text"}


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=1800, limit_alphabet=500, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}, {"model_type": "bert"}


def bert_cased():
    document, config, model = bert()
    document["added_tokens"] = [{**token, "lstrip": token["content"] == "[MASK]"} for token in document["added_tokens"]]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens(FLAGGED)
    # do_lower_case and strip_accents go before the normalizer of tokenizer.json.
    return json.loads(tokenizer.to_str()), {**config, "do_lower_case": False, "strip_accents": False}, model


def random_ids(rng, size, special, runs):
    """Runs of ids from the whole vocabulary, byte tokens and special ones often among them."""
    lists = []
    for _ in range(runs):
        low = rng.choice([0, 0, max(0, size - 40)])
        high = rng.choice([size, min(size, 270), min(size, 270)]) if low == 0 else size
        ids = [rng.randrange(low, high) for _ in range(rng.randint(1, 10))]
        if special and rng.random() < 0.3:
            ids.insert(rng.randrange(len(ids) + 1), rng.choice(special))
        lists.append(ids)
    return lists


def golden(encode, encode_with, decode, size, special, texts=CORPUS, runs=200):
    ids = [encode(text) for text in texts]
    edges = None
    for text, plain in zip(texts, ids):
        full = encode_with(text)
        if edges is None:
            start = next(i for i in range(len(full) - len(plain) + 1) if full[i:i + len(plain)] == plain)
            edges = (full[:start], full[start + len(plain):])
        assert full == edges[0] + plain + edges[1], text
    decoded = [decode(plain, False) for plain in ids]
    rng = random.Random(1)
    return {"before": edges[0], "after": edges[1], "ids": ids,
            "decoded": [None if back == text else back for text, back in zip(texts, decoded)],
            "random": [[run, decode(run, False), decode(run, True)] for run in random_ids(rng, size, special, runs)]}


def write_family(name, document, config, model, first=0, step=1):
    """With a `step` the golden is of the texts first, first + step, ... and of fewer random ids."""
    dump(document, name, "tokenizer.json")
    dump(config, name, "tokenizer_config.json")
    dump(model, name, "config.json")
    from transformers import AutoTokenizer
    reference = AutoTokenizer.from_pretrained(os.path.join(HERE, name))
    raw = Tokenizer.from_file(os.path.join(HERE, name, "tokenizer.json"))
    texts = CORPUS[first::step]
    result = golden(
        lambda text: reference.encode(text, add_special_tokens=False), reference.encode,
        lambda ids, skip: reference.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False),
        len(reference), reference.all_special_ids, texts, 200 // step)
    same = sum(raw.encode(text, add_special_tokens=False).ids == ids for text, ids in zip(texts, result["ids"]))
    if step > 1:
        result.update(first=first, step=step)
    result["special"] = {role: getattr(reference, role + "_token_id") for role in ("bos", "eos", "unk", "pad")}
    result["vocab_size"] = len(reference)
    dump(result, name, "golden.json")
    print(f"{name}: {len(texts)} texts, {same} the same by tokenizers alone, {sum(map(len, result['ids']))} ids, "
          f"before {result['before']}, after {result['after']}, {type(reference).__name__}")
    return reference


def check_conversions(gpt2_reference, bert_reference):
    """The fallback files vocab.json + merges.txt and vocab.txt give the same ids in Transformers."""
    from transformers import BertTokenizerFast, GPT2TokenizerFast
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(HERE, "gpt2", "tokenizer.json"), encoding="utf-8") as file:
            model = json.load(file)["model"]
        with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as out:
            json.dump(model["vocab"], out)
        with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as out:
            out.write("#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in model["merges"]))
        plain = GPT2TokenizerFast.from_pretrained(folder)
        ids = [plain.encode(text) for text in CORPUS]
        with open(os.path.join(HERE, "bert", "tokenizer.json"), encoding="utf-8") as file:
            vocab = json.load(file)["model"]["vocab"]
        with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as out:
            out.write("".join(token + "\n" for token in sorted(vocab, key=vocab.get)))
        words = BertTokenizerFast(os.path.join(folder, "vocab.txt"))
        bert_ids = [words.encode(text) for text in CORPUS]
        dump({"gpt2": ids[:400], "bert": bert_ids[:400]}, "fallback.json")
        same = sum(plain == full for plain, full in zip(bert_ids, map(bert_reference.encode, CORPUS)))
        print(f"fallback: bert {same} of {len(CORPUS)} as with tokenizer.json")


NORMALIZERS = {
    "NFC": {"type": "NFC"}, "NFD": {"type": "NFD"}, "NFKC": {"type": "NFKC"}, "NFKD": {"type": "NFKD"},
    "Lowercase": {"type": "Lowercase"}, "StripAccents": {"type": "StripAccents"},
    "NFD+StripAccents": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]},
    "Strip": {"type": "Strip", "strip_left": True, "strip_right": True},
    "StripLeft": {"type": "Strip", "strip_left": True, "strip_right": False},
    "StripRight": {"type": "Strip", "strip_left": False, "strip_right": True},
    "ReplaceString": {"type": "Replace", "pattern": {"String": "e"}, "content": "[E]"},
    "ReplaceRegex": {"type": "Replace", "pattern": {"Regex": "\\s+|\\d"}, "content": "_"},
    "Prepend": {"type": "Prepend", "prepend": "▁▁"},
    "Bert": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    "BertPlain": {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": True, "strip_accents": False, "lowercase": True},
    "BertClean": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False, "strip_accents": True, "lowercase": False},
    "ByteLevel": {"type": "ByteLevel"},
}
PRE_TOKENIZERS = {
    "ByteLevel": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "ByteLevelPlain": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False},
    **{f"Split{behavior}": {"type": "Split", "pattern": {"Regex": "[aeiou]+| |\\d"}, "behavior": behavior, "invert": False}
       for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]},
    "SplitInverted": {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}"}, "behavior": "Removed", "invert": True},
    "SplitString": {"type": "Split", "pattern": {"String": "."}, "behavior": "MergedWithPrevious", "invert": False},
    "SplitEmpty": {"type": "Split", "pattern": {"Regex": "x*"}, "behavior": "Isolated", "invert": False},
    "Digits": {"type": "Digits", "individual_digits": False}, "DigitsEach": {"type": "Digits", "individual_digits": True},
    "Punctuation": {"type": "Punctuation", "behavior": "Isolated"},
    "PunctuationNext": {"type": "Punctuation", "behavior": "MergedWithNext"},
    "Whitespace": {"type": "Whitespace"}, "WhitespaceSplit": {"type": "WhitespaceSplit"},
    "MetaspaceAlways": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "MetaspaceFirst": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    "MetaspaceNever": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": True},
    "Bert": {"type": "BertPreTokenizer"},
    "CharDelimiterSplit": {"type": "CharDelimiterSplit", "delimiter": "e"}, "CharDelimiterSplitWide": {"type": "CharDelimiterSplit", "delimiter": "的"},
    "FixedLength": {"type": "FixedLength", "length": 5},
    "Sequence": {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]},
}
DECODERS = {
    "none": None, "ByteLevel": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "WordPiece": {"type": "WordPiece", "prefix": "##", "cleanup": True}, "WordPieceRaw": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    "Metaspace": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "MetaspaceNever": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    "Replace": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    "ReplaceRegex": {"type": "Replace", "pattern": {"Regex": "[a-c]+"}, "content": "<>"},
    "ByteFallback": {"type": "ByteFallback"}, "Fuse": {"type": "Fuse"}, "Strip": {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    # The reference panics on tokens that are shorter than what it strips.
    "StripEnd": {"type": "Strip", "content": " ", "start": 0, "stop": 1}, "BPE": {"type": "BPEDecoder", "suffix": "</w>"},
    "CTC": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    "CTCRaw": {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": False},
    "Llama": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
}
DECODED_TOKENS = [
    "a", "b", "cab", "##ing", "##", "##s", "▁", "▁▁", "▁hello", "world</w>", "un</w>", "Ġthe", "Ġ", "Ċ", "Ã©", "Ã", "©", "ð", "Ł", "ĺ", "Ģ", "<0x41>", "<0xE4>",
    "<0xBD>", "<0xA0>", "<0x0a>", "<0xZZ>", "<0x4>", ".", "?", "!", ",", "'", "n't", "'m", "do not", "'s", "'ve", "'re", "你", "é", "  x  ", " ", "😀", "x y",
    "<pad>", "|", "x<pad>", " .|",
]


def component_document(vocab, normalizer, pre_tokenizer):
    """Character tokens, with ## inside a word: the ids show where words begin."""
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None,
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": "##",
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocab, "merges": []}}


def word_level(places):
    """Whole words as tokens, the commonest."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False))
    document = json.loads(tokenizer.to_str()) | {"added_tokens": []}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    return {"pre_tokenizer": document["pre_tokenizer"], "model": document["model"],
            "ids": [tokenizer.encode(CORPUS[place]).ids for place in places]}


def write_components():
    rng = random.Random(3)
    places = sorted(rng.sample(range(len(CORPUS)), 110))
    cases = ([("normalizer", name, spec, None) for name, spec in NORMALIZERS.items()] +
             [("pre_tokenizer", name, None, spec) for name, spec in PRE_TOKENIZERS.items()])
    characters = set()
    for _, _, normalizer, pre_tokenizer in cases:
        tokenizer = Tokenizer.from_str(json.dumps(component_document({"<unk>": 0}, normalizer, pre_tokenizer)))
        for place in places:
            text = CORPUS[place]
            if tokenizer.normalizer is not None:
                text = tokenizer.normalizer.normalize_str(text)
            if tokenizer.pre_tokenizer is not None:
                text = "".join(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
            characters.update(text)
    vocab = {"<unk>": 0}
    for character in sorted(characters):
        vocab[character] = len(vocab)
    for character in sorted(characters):
        vocab["##" + character] = len(vocab)
    result = {"vocab": sorted(vocab, key=vocab.get), "texts": places, "cases": []}
    for kind, name, normalizer, pre_tokenizer in cases:
        tokenizer = Tokenizer.from_str(json.dumps(component_document(vocab, normalizer, pre_tokenizer)))
        result["cases"].append({"name": f"{kind} {name}", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
                                "ids": [tokenizer.encode(CORPUS[place]).ids for place in places]})
    result["word_level"] = word_level(places)
    runs = [[rng.randrange(len(DECODED_TOKENS)) for _ in range(rng.randint(1, 7))] for _ in range(80)]
    runs += [run + run[-1:] + [place] + run[-1:] for run in runs[:20] for place in [DECODED_TOKENS.index("<pad>")]]
    result["decoded_tokens"] = DECODED_TOKENS
    result["decoded_runs"] = runs
    result["decoders"] = []
    for name, spec in DECODERS.items():
        document = component_document({token: i for i, token in enumerate(DECODED_TOKENS)}, None, None)
        document["decoder"] = spec
        document["model"]["unk_token"] = None
        tokenizer = Tokenizer.from_str(json.dumps(document))
        result["decoders"].append({"name": name, "decoder": spec, "texts": [tokenizer.decode(run) for run in runs]})
    dump(result, "components.json")
    print(f"components: {len(cases)} of {len(places)} texts, {len(DECODERS)} decoders of {len(runs)} runs")


class LlamaCpp:
    """llama.cpp's tokenizer of a GGUF file."""

    def __init__(self, path):
        import llama_cpp
        self.api = llama_cpp
        self.model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model._model.model)

    def encode(self, text, special=False):
        return self.model.tokenize(text.encode("utf-8"), add_bos=special, special=True)

    def piece(self, token, special):
        import ctypes
        buffer = ctypes.create_string_buffer(512)
        size = self.api.llama_token_to_piece(self.vocab, token, buffer, 512, 0, special)
        return buffer.raw[:size]

    def decoder(self, strip_space):
        def decode(ids, skip):
            pieces = [self.piece(token, not skip) for token in ids]
            control = [self.piece(token, False) == b"" and self.piece(token, True) != b"" for token in ids]
            for i, is_control in enumerate(control):
                if not is_control:
                    if strip_space and pieces[i].startswith(b" "):
                        pieces[i] = pieces[i][1:]
                    break
            return b"".join(pieces).decode("utf-8", "replace")
        return decode


def write_gguf(name, vocabulary, strip_space=False):
    """`vocabulary`: the keys of tokenizer.ggml without the prefix."""
    import gguf
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vocab.gguf")
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model(vocabulary["model"])
        writer.add_token_list(vocabulary["tokens"])
        writer.add_token_types(vocabulary["token_type"])
        if "pre" in vocabulary:
            writer.add_tokenizer_pre(vocabulary["pre"])
        if "scores" in vocabulary:
            writer.add_token_scores(vocabulary["scores"])
        if "merges" in vocabulary:
            writer.add_token_merges(vocabulary["merges"])
        for key in ("bos", "eos", "unk", "pad"):
            if f"{key}_id" in vocabulary:
                getattr(writer, f"add_{key}_token_id")(vocabulary[f"{key}_id"])
        for key, add in (("add_bos", writer.add_add_bos_token), ("add_eos", writer.add_add_eos_token),
                         ("add_space_prefix", writer.add_add_space_prefix)):
            if key in vocabulary:
                add(vocabulary[key])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        reference = LlamaCpp(path)
        result = golden(reference.encode, lambda text: reference.encode(text, True), reference.decoder(strip_space),
                        len(vocabulary["tokens"]), [])
    dump({"vocabulary": vocabulary, **result}, f"gguf_{name}.json")
    print(f"gguf {name}: {len(CORPUS)} texts, {sum(map(len, result['ids']))} ids, before {result['before']}, after {result['after']}")


def spm_vocabulary(document):
    """A SentencePiece vocabulary with scores from the tokens of a trained tokenizer."""
    vocab = document["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    types = []
    for token in tokens:
        types.append(6 if token in BYTES else 2 if token == "<unk>" else 3 if token in ("<s>", "</s>") else 1)
    scores = [0.0 if kind != 1 else float(-i) for i, kind in enumerate(types)]
    # Equal scores, for the tie rule.
    for i in range(700, 800):
        scores[i] = scores[700]
    for token, kind in (("<start_of_turn>", 4), ("<end_of_turn>", 1), ("<|im_start|>", 3), ("<a>", 3), ("<a><b>", 4), ("<b>", 5), ("▁▁", 4),
                        ("\n\n", 4), ("<long_token", 4), ("<long_token_with_parts>", 4)):
        if token in vocab:
            types[vocab[token]] = kind
            continue
        tokens.append(token)
        types.append(kind)
        scores.append(0.0)
    return {"model": "llama", "tokens": tokens, "scores": scores, "token_type": types, "bos_id": 1, "eos_id": 2, "unk_id": 0}


def bpe_vocabulary(document):
    vocab = document["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    types = [3 if token == "<|endoftext|>" else 1 for token in tokens]
    for token, kind in (("<|im_start|>", 3), ("<|im_end|>", 3), ("<|eot_id|>", 1), ("<|tool|>", 4), ("<a>", 3), ("<both>", 4), ("Ġlargest", 1), ("camelCase", 1)):
        if token not in vocab:
            tokens.append(token)
            types.append(kind)
    merges = [" ".join(merge) for merge in document["model"]["merges"]]
    return {"model": "gpt2", "tokens": tokens, "token_type": types, "merges": merges, "bos_id": 0, "eos_id": 0}


def write_gemma(path):
    reference = LlamaCpp(path)
    result = golden(reference.encode, lambda text: reference.encode(text, True), reference.decoder(False), 262144, [2, 105, 106])
    dump(result, "gemma_gguf.json")
    print(f"gemma: {len(CORPUS)} texts, {sum(map(len, result['ids']))} ids")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gemma-gguf", help="gemma-3-270m-q4_k_m.gguf; without it gemma_gguf.json stays as it is")
    arguments = parser.parse_args()
    assert tokenizers.__version__ == "0.22.2", tokenizers.__version__
    dump(CORPUS, "corpus.json")
    families = {family.__name__: family() for family in (gpt2, llama3, qwen2, llama2, mistral, gemma, bert, bert_cased)}
    references = {name: write_family(name, *parts) for name, parts in families.items()}
    check_conversions(references["gpt2"], references["bert"])
    write_components()
    spm = spm_vocabulary(families["llama2"][0])
    write_gguf("spm", spm, strip_space=True)
    write_gguf("spm_plain", {**spm, "add_space_prefix": False, "add_bos": False, "add_eos": True})
    bpe = bpe_vocabulary(families["gpt2"][0])
    write_gguf("gpt2", {**bpe, "pre": "gpt-2"})
    write_gguf("llama_bpe", {**bpe, "pre": "llama-bpe"})
    write_gguf("qwen2", {**bpe, "pre": "qwen2", "add_bos": False, "add_eos": True})
    write_gguf("default", bpe)
    if arguments.gemma_gguf:
        write_gemma(arguments.gemma_gguf)


if __name__ == "__main__":
    main()
