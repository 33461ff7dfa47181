#!/usr/bin/env python3
"""Writes executors/text/unicode_tables.inc: the character classes that HF tokenizers uses.

Several of its Unicode crates are years apart from each other (and from Debian's utf8proc and
Oniguruma), so ids equal the reference only with its own tables. Each class is read off the library's
behaviour, code point by code point.

    python make_unicode_tables.py ../../../executors/text/unicode_tables.inc
"""

import struct
import sys

from tokenizers import Regex, normalizers, pre_tokenizers


def ranges(predicate):
    """Inclusive ranges of the code points (surrogates left out) for which `predicate(char)` holds."""
    found = []
    for code in range(0x110000):
        if 0xD800 <= code <= 0xDFFF or not predicate(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def splits(pre_tokenizer, parts):
    return lambda char: len(pre_tokenizer.pre_tokenize_str("a" + char + "b")) == parts


def matches(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    # U+0001 is neither a letter nor a number.
    return lambda char: len(split.pre_tokenize_str("\x01" + char + "\x01")) == 3


def charsmap(source, target):
    """A precompiled_charsmap with the one rule that the ASCII character `source` becomes `target`."""
    units = [0] * 256
    units[0] = 1 << 10  # the root's children are at 1 ^ byte
    child = 1 ^ ord(source)
    units[child] = ord(source) | 1 << 8 | 1 << 10  # has a leaf at child ^ 1
    units[child ^ 1] = 1 << 31  # the replacement at 0
    return struct.pack("<257I", 1024, *units) + target.encode() + b"\0"


def main():
    nfd = normalizers.NFD()
    clean = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    accents = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    marks = normalizers.StripAccents()
    clusters = normalizers.Precompiled(charsmap("a", "b"))
    tables = {
        "kPunctuation": splits(pre_tokenizers.Punctuation("isolated"), 3),
        "kNumeric": splits(pre_tokenizers.Digits(True), 3),
        "kWord": splits(pre_tokenizers.Whitespace(), 1),
        "kMark": lambda char: marks.normalize_str(char) == "",
        "kNonspacingMark":
            lambda char: nfd.normalize_str(char) == char and accents.normalize_str(char) == "",
        "kBertControl": lambda char: clean.normalize_str("a" + char + "b") == "ab",
        # Within a short grapheme cluster all goes for its start's rule.
        "kGraphemeExtend": lambda char: clusters.normalize_str("a" + char) == "b",
        "kRegexLetter": matches(r"\p{L}"),
        "kRegexNumber": matches(r"\p{N}"),
    }
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write("// Written by tests/goldens/tokenizers/make_unicode_tables.py; not edited by hand.\n"
                  "// Inclusive ranges of code points, rising.\n// clang-format off\n")
        for name, predicate in tables.items():
            items = [f"{{0x{first:x}, 0x{last:x}}}" for first, last in ranges(predicate)]
            out.write(f"\nconstexpr CodePointRange {name}[] = {{\n")
            for i in range(0, len(items), 6):
                out.write("    " + ", ".join(items[i:i + 6]) + ",\n")
            out.write("};\n")
        out.write("// clang-format on\n")


if __name__ == "__main__":
    main()
