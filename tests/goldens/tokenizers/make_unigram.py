#!/usr/bin/env python3
"""Makes the goldens of Unigram tokenizers, in the forms that make_tokenizers.py describes.

    pip install -r requirements.txt
    python make_unigram.py

The rules of SentencePiece's nmt_nfkc (240 KB when compiled) are cut to those whose characters occur in
the corpus, and compiled again.
"""

import io
import json
import os
import struct
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from make_tokenizers import CORPUS, write_family


def charsmap(**normalization):
    """What SentencePiece compiles for a normalisation."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some text of a few words"] * 10), model_writer=model, vocab_size=30,
        hard_vocab_limit=False, minloglevel=2, **normalization)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def rules(compiled):
    """The rules of a charsmap: {source: target}."""
    size, = struct.unpack_from("<I", compiled)
    units = struct.unpack_from(f"<{size // 4}I", compiled, 4)
    targets = compiled[4 + size:]
    offset = lambda unit: unit >> 10 << ((unit & 1 << 9) >> 6)
    found = {}

    def walk(place, key):
        for byte in range(1, 256):
            unit = units[place ^ byte]
            if unit & (1 << 31 | 0xFF) != byte:
                continue
            child = place ^ byte ^ offset(unit)
            if unit >> 8 & 1:
                begin = units[child] & ~(1 << 31)
                found[(key + bytes([byte])).decode()] = targets[begin:targets.index(b"\0", begin)].decode()
            walk(child, key + bytes([byte]))

    walk(offset(units[0]), b"")
    return found


def corpus_charsmap(name):
    known = set("".join(CORPUS))
    kept = {source: target for source, target in rules(charsmap(normalization_rule_name=name)).items() if set(source) <= known}
    code = lambda text: " ".join(f"{ord(c):X}" for c in text)
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as tsv:
        tsv.writelines(f"{code(source)}\t{code(target)}\n" for source, target in kept.items())
        tsv.flush()
        compiled = charsmap(normalization_rule_tsv=tsv.name)
    assert rules(compiled) == kept
    return compiled


def xlm_roberta():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(corpus_charsmap("nmt_nfkc")), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    # Other characters stay unknown.
    latin = [text for text in CORPUS if max(text, default="") < "\u0250" and len(text) < 400]
    tokenizer.train_from_iterator(latin, trainers.UnigramTrainer(
        vocab_size=700, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>"))
    document = json.loads(tokenizer.to_str())
    # The corpus spells special tokens: they would be pieces twice. Scores of few digits tie now and then.
    vocab = {}
    for text, score in document["model"]["vocab"]:
        vocab.setdefault(text, round(score, 1))
    pieces = [[text, score] for text, score in vocab.items() if text != "<mask>"]
    document["model"].update(vocab=pieces + [["<mask>", 0.0]], unk_id=3)
    document["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512, "bos_token": "<s>", "eos_token": "</s>",
        "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}, {
        "model_type": "xlm-roberta"}


if __name__ == "__main__":
    write_family("xlm_roberta", *xlm_roberta())
