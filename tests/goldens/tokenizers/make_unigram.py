#!/usr/bin/env python3
"""Makes the goldens of Unigram tokenizers, in the forms that make_tokenizers.py describes.

    pip install -r requirements.txt
    python make_unigram.py

The rules of SentencePiece's nmt_nfkc (240 KB when compiled) are cut to those whose characters occur in
the corpus, and compiled again. The trainer orders pieces of equal scores anew in each run.
"""

import base64
import functools
import io
import json
import os
import random
import struct
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import make_unicode_tables
from make_tokenizers import BYTES, CORPUS, FLAGGED, dump, write_family


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


@functools.cache
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


def trained(tokenizer, vocab_size, special_tokens, unk_token="<unk>"):
    """The document of `tokenizer` with a vocabulary that begins with `special_tokens`, none of them added."""
    # Other characters stay unknown.
    latin = [text for text in CORPUS if max(text, default="") < "\u0250" and len(text) < 400]
    tokenizer.train_from_iterator(latin, trainers.UnigramTrainer(
        vocab_size=vocab_size, show_progress=False, special_tokens=special_tokens, unk_token=unk_token))
    document = json.loads(tokenizer.to_str())
    # The corpus spells special tokens: they would be pieces twice. Scores of few digits tie now and then.
    vocab = {}
    for text, score in document["model"]["vocab"]:
        vocab.setdefault(text, round(score, 1))
    document["model"].update(vocab=[[text, score] for text, score in vocab.items()], unk_id=special_tokens.index(unk_token))
    document["added_tokens"] = []
    return document


def xlm_roberta():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(corpus_charsmap("nmt_nfkc")), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    document = trained(tokenizer, 700, ["<s>", "<pad>", "</s>", "<unk>"])
    pieces = [piece for piece in document["model"]["vocab"] if piece[0] != "<mask>"]
    document["model"]["vocab"] = pieces + [["<mask>", 0.0]]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512, "bos_token": "<s>", "eos_token": "</s>",
        "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}, {
        "model_type": "xlm-roberta"}


def albert():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
        normalizers.Lowercase(), normalizers.Precompiled(corpus_charsmap("nmt_nfkc")), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer.from_str(json.dumps(trained(tokenizer, 400, special)))
    tokenizer.add_special_tokens(special[:4] + [AddedToken("[MASK]", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "AlbertTokenizer", "model_max_length": 512, "do_lower_case": True, "remove_space": True,
        "keep_accents": False, "bos_token": "[CLS]", "eos_token": "[SEP]", "sep_token": "[SEP]", "cls_token": "[CLS]",
        "unk_token": "<unk>", "pad_token": "<pad>",
        "mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False,
                       "single_word": False}}, {"model_type": "albert"}


def t5():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(corpus_charsmap("nmt_nfkc"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    extra = [f"<extra_id_{i}>" for i in range(8)]
    document = trained(tokenizer, 400, special)
    document["model"]["vocab"] += [[token, 0.0] for token in reversed(extra)]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(special + extra)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    document = json.loads(tokenizer.to_str())
    # The form that the files of the first T5 models have.
    metaspace = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
    document["pre_tokenizer"]["pretokenizers"][1] = metaspace
    document["decoder"] = metaspace
    del document["model"]["byte_fallback"]
    return document, {
        "tokenizer_class": "T5Tokenizer", "model_max_length": 512, "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>", "extra_ids": len(extra), "additional_special_tokens": extra}, {"model_type": "t5"}


def nmt():
    """Normalizers of the library itself in the place of SentencePiece's charsmap."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer.from_str(json.dumps(trained(tokenizer, 400, special)))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(FLAGGED)
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>"}, {}


def unigram_bytes():
    """Characters without a piece are bytes."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    document = trained(tokenizer, 700, special + BYTES)
    document["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return json.loads(tokenizer.to_str()), {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>"}, {}


def write_normalized():
    """normalized.json: what normalizers make of characters that are newer than some of their tables."""
    rng = random.Random(4)
    new = sorted(make_unicode_tables.later_than_normal_forms(make_unicode_tables.Utf8proc()))
    marks = [chr(code) for code in (0x301, 0x323, 0x334, 0x345, 0x1DFA, 0x1AC0)]
    upper = [chr(code) for code in (0x1C89, 0xA7CB, 0xA7CE, 0xA7DC, 0x10D50, 0x10D65, 0x16EA0, 0x16EB8, 0x130, 0x1E9E)]
    apart = [chr(code) for code in (0xAD, 0x61C, 0x200B, 0x2065, 0xFFF0, 0xFFF8, 0x13430, 0xE0001, 0xE00B8)]
    rule = base64.b64encode(make_unicode_tables.charsmap("\u0343".encode()[0], "b")).decode()
    mixed = lambda *kinds: ["".join(rng.choice(rng.choice(kinds)) for _ in range(8)) for _ in range(30)]
    result = []
    for normalizer, texts in [
            *(({"type": form}, mixed(new, new, marks, "eao")) for form in ("NFC", "NFD", "NFKC", "NFKD")),
            ({"type": "Lowercase"}, mixed(upper, "Ab")),
            ({"type": "Precompiled", "precompiled_charsmap": rule}, mixed(apart, ["\u0343", "\u0328"], "e"))]:
        document = {"version": "1.0", "added_tokens": [], "normalizer": normalizer, "model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}}
        own = Tokenizer.from_str(json.dumps(document)).normalizer
        result.append({"normalizer": normalizer, "texts": [[text, own.normalize_str(text)] for text in texts]})
    dump(result, "normalized.json")


if __name__ == "__main__":
    write_normalized()
    write_family("xlm_roberta", *xlm_roberta())
    for first, family in enumerate([albert, t5, nmt, unigram_bytes]):
        write_family(family.__name__, *family(), first=first, step=4)
