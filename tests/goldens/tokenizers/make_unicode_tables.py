#!/usr/bin/env python3
"""Writes executors/text/unicode_tables.inc: the character classes that HF tokenizers uses.

Several of its Unicode crates are years apart from each other (and from Debian's utf8proc and
Oniguruma), so ids equal the reference only with its own tables. Each class is read off the library's
behaviour, code point by code point. Normal forms and lower case are utf8proc's; tables hold the
characters whose are different in the library, found with the utf8proc that the product links to.

    python make_unicode_tables.py ../../../executors/text/unicode_tables.inc
"""

import ctypes
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
    """A precompiled_charsmap with the one rule that what begins with the byte `source` becomes `target`."""
    units = [0] * 256
    units[0] = 1 << 10  # the root's children are at 1 ^ byte
    child = 1 ^ source
    units[child] = source | 1 << 8 | 1 << 10  # has a leaf at child ^ 1
    units[child ^ 1] = 1 << 31  # the replacement at 0
    return struct.pack("<257I", 1024, *units) + target.encode() + b"\0"


class Utf8proc:
    def __init__(self):
        self.functions = ctypes.CDLL("libutf8proc.so.2")
        self.free = ctypes.CDLL(None).free
        self.free.argtypes = [ctypes.c_void_p]

    def normalize(self, form, text):
        call = getattr(self.functions, "utf8proc_" + form)
        call.restype = ctypes.c_void_p
        made = call(text.encode())
        try:
            return ctypes.string_at(made).decode()
        finally:
            self.free(made)

    def lower(self, char):
        return chr(self.functions.utf8proc_tolower(ord(char)))


def later_than_normal_forms(utf8proc):
    """The characters to which utf8proc does something that the reference does not know of."""
    forms = {form: getattr(normalizers, form)().normalize_str for form in ("NFC", "NFD", "NFKC", "NFKD")}

    def moves(nfd, char):
        """Whether it is ordered among marks: of the class 1 and of the highest, 240."""
        plain = nfd(char)
        return nfd("a" + char + "\u0334") != "a" + plain + "\u0334" or nfd("a\u0345" + char) != "a\u0345" + plain

    found = set()
    for char in map(chr, filter(lambda code: not 0xD800 <= code <= 0xDFFF, range(1, 0x110000))):
        decomposed = utf8proc.normalize("NFD", char)
        if (all(utf8proc.normalize(form, char) == own(char) for form, own in forms.items()) and
                moves(lambda text: utf8proc.normalize("NFD", text), char) == moves(forms["NFD"], char)):
            continue
        assert all(own(char) == char for own in forms.values()) and not moves(forms["NFD"], char), hex(ord(char))
        found.add(char)
        if len(decomposed) > 1 and utf8proc.normalize("NFC", decomposed) == char:
            found.add(decomposed[-1])  # else it would be composed with what is before it
    return found


def later_lower_case(utf8proc):
    """Runs [first, last, lower case of the first] of the characters whose lower case is different."""
    lower = normalizers.Lowercase().normalize_str
    runs = []
    for code in filter(lambda code: not 0xD800 <= code <= 0xDFFF, range(0x80, 0x110000)):
        own = lower(chr(code))
        if own == utf8proc.lower(chr(code)) or len(own) != 1:
            continue
        if runs and runs[-1][1] == code - 1 and ord(own) - runs[-1][2] == code - runs[-1][0]:
            runs[-1][1] = code
        else:
            runs.append([code, code, ord(own)])
    return runs


def write(out, struct_name, name, rows):
    items = ["{" + ", ".join(f"0x{value:x}" for value in row) + "}" for row in rows]
    out.write(f"\nconstexpr {struct_name} {name}[] = {{\n")
    for i in range(0, len(items), 6):
        out.write("    " + ", ".join(items[i:i + 6]) + ",\n")
    out.write("};\n")


def main():
    utf8proc = Utf8proc()
    later = later_than_normal_forms(utf8proc)
    nfd = normalizers.NFD()
    clean = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    accents = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    marks = normalizers.StripAccents()
    clusters = normalizers.Precompiled(charsmap(ord("a"), "b"))
    mark_clusters = normalizers.Precompiled(charsmap("\u0343".encode()[0], "b"))
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
        # The marks after it are a short cluster of their own, so that the second goes for the first's rule.
        "kGraphemeControl": lambda char: char > "\x7f" and mark_clusters.normalize_str(char + "\u0343\u0328") == char + "b",
        "kLaterThanNormalForms": lambda char: char in later,
        "kRegexLetter": matches(r"\p{L}"),
        "kRegexNumber": matches(r"\p{N}"),
    }
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write("// Written by tests/goldens/tokenizers/make_unicode_tables.py; not edited by hand.\n"
                  "// Inclusive ranges of code points, rising.\n// clang-format off\n")
        for name, predicate in tables.items():
            write(out, "CodePointRange", name, ranges(predicate))
        write(out, "LowerCaseRun", "kLaterLowerCase", later_lower_case(utf8proc))
        out.write("// clang-format on\n")


if __name__ == "__main__":
    main()
