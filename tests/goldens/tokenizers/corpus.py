"""The corpus that every tokenizer golden is made of: a fixed list of about 2,200 short texts.

Deterministic: the same list on every machine. Besides written texts there are seeded random mixtures
of everything that tokenizers treat specially.
"""

import random

PROSE = [
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say we've DONE it; he'd can't won't SHE'S I'VE they'RE'nt 'tis",
    "Hello, world! How are you today? (Fine, thanks -- and you?)",
    "It was the best of times, it was the worst of times, it was the age of wisdom...",
    "Don't do not DO NOT do n't . , ! ? ' s 've 're 'm",
    "Prices: $1,234.56, 99% off, #1 @home & away, 3.14159e-10, 0xDEADBEEF, 1/2 + 3*4 = 12.5",
    "1 12 123 1234 12345 123456 1234567 1234567890 12345678901234567890",
    "What is the largest planet in the Solar System? Answer: Jupiter.",
    "An e-mail to john.doe@example.com about https://example.com/a?b=c&d=%20#frag",
    "Mr. Smith's well-known state-of-the-art co-operation (re-)examined",
    "UPPER lower MiXeD camelCase snake_case kebab-case SCREAMING_SNAKE",
    "The capital of France is Paris. The capital of Germany is Berlin.",
    "to be or not to be that is the question whether it is nobler in the mind to suffer",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "hahahahahahahahahaha ohohohoh zzzzzzzz -------- ======== ........ ********",
]

LATIN = [
    "Zażółć gęślą jaźń", "Größe, Straße, Äpfel, Öl, Übung", "L'été où naître fût un rêve, ça va",
    "El niño comió piñata en el año nuevo", "İstanbul'da ışık ĞÜŞİÖÇ ğüşıöç", "naïve façade coöperate résumé",
    "Příliš žluťoučký kůň úpěl ďábelské ódy", "Vænn, øl og blåbær på Ærø", "ẞ ß ŒUVRE œuvre ﬁ ﬂ ﬀ ﬃ ŉ ǆ",
    "Ða þorn wynn ƿ ȝ ſ long-ſ 'ſ", "Tiếng Việt có nhiều dấu thanh: ằ ẵ ặ ộ ợ ữ", "Ｆｕｌｌｗｉｄｔｈ　ＡＢＣ１２３！？",
]

COMBINING = [
    "e\u0301 e\u0301e\u0301 a\u0308 o\u0308 u\u0308 n\u0303 c\u0327", "Å A\u030a \u212b \u00c5", "q\u0307\u0323 q\u0323\u0307 \u1e69 s\u0323\u0307",
    "Z\u0351\u036b\u0343\u036a\u0302a\u0346\u0310l\u0363\u036fg\u0300\u0301o\u0302\u0303", "\u0301 \u0308 lone marks \u0301", "क्षि ज्ञ त्र श्री",
    "한국어 \u1112\u1161\u11ab\u1100\u116e\u11a8", "가\u11a8 각 \u1100\u1161\u11a8", "\u0958 \u0915\u093c \u0344 \u0374 \u1f71 \u03ac",
    "\u2126 \u03a9 \u212a K \u2460 \u00bd \u00b2 \u2075 \ufb01 \u3300 \u32ff", "te\u0301st caf\u00e9 cafe\u0301", "o\u0302\u0301 \u1ed1 \u00f4\u0301",
]

CJK = [
    "你好，世界！今天天气怎么样？", "我爱北京天安门，天安门上太阳升。", "日本語のテキスト、カタカナとひらがな。", "東京タワーに登りました😀",
    "안녕하세요 세계! 오늘 날씨가 좋네요.", "中文English混合123文本", "「引用」『二重』【括弧】（全角）", "𠀀𠀁𪚥 rare 𫝀 㐀 﨑 凞",
    "繁體中文與简体中文", "ｶﾀｶﾅ ﾊﾟﾋﾟﾌﾟ", "一二三四五六七八九十百千万億", "々〆〇ヶ〜…‥※★☆",
]

RTL = [
    "مرحبا بالعالم! كيف حالك اليوم؟", "שלום עולם, מה שלומך היום?", "السلام عليكم ١٢٣٤٥ و 12345", "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ",
    "שָׁלוֹם עֲלֵיכֶם", "mixed עברית and العربية text", "\u202bembedded\u202c \u200fmark\u200e \u2067iso\u2069", "فارسی: می‌خواهم گچپژ",
    "ابجد\u0640\u0640\u0640هوز", "אבג\u05be\u05d3",
]

OTHER_SCRIPTS = [
    "Привет, мир! Как дела? Съешь же ещё этих мягких булок", "Γειά σου Κόσμε! ΣΊΣΥΦΟΣ σίσυφος ΑΣ", "สวัสดีชาวโลก ภาษาไทยไม่เว้นวรรค", "नमस्ते दुनिया १२३ कैसे हो?",
    "ქართული ენა ႠႡႢ", "Հայերեն լեզու", "ትግርኛ አማርኛ", "தமிழ் மொழி ௧௨௩", "ᚠᚢᚦᚨᚱᚲ ᛋᛟᚹᛁᛚᛟ", "𝓗𝓮𝓵𝓵𝓸 𝕎𝕠𝕣𝕝𝕕 𝟙𝟚𝟛 🄰🅱🆎", "ⅠⅡⅢ ⅳ ⅷ Ⅻ ① ② ➂ ½ ¾ ²³ ₁₂", "༄༅། བོད་སྐད།",
    "ᏣᎳᎩ ꭰꭱ Ꙗꙗ Ⱡⱡ", "ខ្មែរ ភាសា", "\u16f0 \u0df4 \u1b7d \u2e52 \u2e43 \u166d", "𞤀𞤁𞤢𞤣 𐐀𐐨 𐓏𐓷",
]

EMOJI = [
    "😀😃😄😁", "👍🏽 👋🏿 ✌🏻", "👨‍👩‍👧‍👦 family", "🏳️‍🌈 🏴‍☠️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇫🇷🇩🇪🇯🇵🇺🇸 flags", "❤️ ❤ ♥️ ☺️", "1️⃣2️⃣3️⃣ #️⃣ *️⃣", "🧑🏻‍🤝‍🧑🏿 👩‍❤️‍💋‍👨",
    "I ❤️ NY 🗽!!! 🎉🎉🎉", "🤖💬: hello🙂world", "😵‍💫 🫠 🫶🏼 🥹", "text😀text 😀 text", "🪿 🩷 🫨 🛜", "👁️‍🗨️ 🐻‍❄️ 🧔‍♀️",
]

WHITESPACE = [
    "", " ", "  ", "   ", "    ", "\t", "\n", "\r", "\r\n", "\n\n", "\n\n\n", " \n", "\n ", " \n \n ", "\t\t\t", "a ", " a", " a ", "  a  b  ", "a\u00a0b\u2003c\u3000d\u2028e\u2029f\u0085g",
    "word" + " " * 50 + "word", " " * 100, "\n" * 40, "\t" * 30 + "x", "a\r\nb\nc\rd\n\re", "line one\nline two\r\nline three\rline four", "trailing   \n", "   \n   leading", "a\u200bb\u200cc\u200dd\ufeffe\u2060f",
    "\u180e\u1680\u2000\u2001\u200a\u202f\u205f", "end with spaces     ", "\n\n   indented\n\t\ttabs", "a \u00a0 b \u3000 c", "x\u000by\u000cz\u001ct\u001fu",
]

CONTROL = [
    "\x00", "a\x00b\x00", "\x01\x02\x03\x07\x08\x1b[31mred\x1b[0m", "\x7f\x80\x81\x9f", "del\x7fete", "\ufffd", "bad \ufffd\ufffd text", "\ufffe\uffff", "\ue000\uf8ff private \U000f0000", "\U0010ffff",
    "soft\u00adhyphen", "\u0600\u06dd\u070f format", "\u2028\u2029", "\x0b\x0c", "tag\U000e0041\U000e007f", "\u0378 unassigned \u0530",
]

CODE = [
    "def f(x):\n    return x ** 2  # square\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "SELECT * FROM users WHERE id = 42 AND name LIKE '%o''brien%';", "#include <vector>\nstd::vector<int> v{1, 2, 3};",
    "if (a && b || !c) { return a->b::c; }", "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\n\"}}", "<div class=\"x\">&nbsp;<b>text</b></div>", "$ ls -la | grep foo > /dev/null 2>&1",
    "lambda x: x[::-1] if x else None", "λ = (α + β) / γ ≠ ∞ ∑∏∫√ ≤ ≥ → ⇒", "import numpy as np\nx = np.zeros((3, 4))\n\n\nprint(x.shape)\n", "```python\nprint('hi')\n```", "    4 spaces\n        8 spaces\n\t1 tab\n  \t mixed",
    "a_b_c __init__ _x x_ ___", "C:\\Users\\name\\file.txt", "regex: ^[a-z]+(\\d{1,3})?$", "\\frac{a}{b} \\sum_{i=0}^{n} x_i", "fn main() { println!(\"{}\", 1u8 as char); }", "x=1;y=2;;;;z==3!==4===5", "//////// ******** ######## !!!!???",
]

# Names that some golden tokenizer has as special or added tokens.
ADDED = [
    "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|im_start|>", "<|im_end|>",
    "<start_of_turn>", "<end_of_turn>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "<lstrip>", "<rstrip>", "<both>", "<word>", "solo", "NormToken", "RawToken", "<0x0A>", "<0x41>", "<0xE4>", "▁", "▁the", "Ġ", "Ġthe", "##ing",
    "<|tool|>", "<|tool|", "<|im_start", "[MAS", "<a><b>", "<b>", "<long_token_with_parts>", "<long_token", "\n\n", "  ",
]

ADDED_TEXTS = [
    "<s>Hello</s>", "a<s>b", "a <s> b", "<s><s></s></s>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "[CLS] a sentence [SEP]", "the [MASK] sat", "the[MASK]sat", "the   [MASK]   sat", "a  <lstrip>  b", "a  <rstrip>  b", "a  <both>  b", "<both>  <both>", "<rstrip>  <lstrip>",
    "x <word> y", "x<word>y", "x<word> y", "é<word>é", "-<word>-", "_<word>_", "solo", "a solo b", "asolob", "solo.", "solosolo", "solo solo", "ésoloé", "(solo)", "NormToken normtoken NORMTOKEN nörmtoken", "RawToken rawtoken RAWTOKEN",
    "<a><b>", "<a> <b>", "<long_token_with_parts>", "<long_token_with_part>", "<long_token><b>", "<|tool|><|tool|>", "\u3000<lstrip>\u3000<rstrip>\u3000", "\n<both>\n", "<0x0A>", "a<0x41>b", "<|endoftext|> <|endoftext|>\n<|endoftext|>",
    "<s> leading", "trailing <s>", "  <s>  ", "▁hello▁world", "Ġhello", "▁<s>▁", "<unk> <unk>", "<pad><pad>", "</s></s> x", "[UNK][unk]", "A<bos>B<eos>C", "<rstrip> \n\t <rstrip> x", "x \n\t <lstrip><lstrip>", "e\u0301<word>", "<word>\u0301",
]


def mixtures(rng, count):
    """Random concatenations of pieces from every list above."""
    lists = [PROSE, LATIN, COMBINING, CJK, RTL, OTHER_SCRIPTS, EMOJI, WHITESPACE, CONTROL, CODE, ADDED, ADDED_TEXTS]
    weights = [4, 2, 2, 2, 2, 2, 3, 3, 1, 4, 3, 2]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 4)):
            text = rng.choice(rng.choices(lists, weights)[0])
            if len(text) > 6:
                start = rng.randrange(len(text) - 3)
                text = text[start:start + rng.randint(2, 18)]
            parts.append(text)
        texts.append(rng.choice(["", " ", "  ", "\n"]).join(parts))
    return texts


def words(rng, count):
    """Random sentences from the words of the prose, so that merges matter."""
    pool = " ".join(PROSE).split()
    return [" ".join(rng.choice(pool) for _ in range(rng.randint(1, 9))) for _ in range(count)]


def characters(rng, count):
    """Random characters of all planes, surrogates left out."""
    blocks = [(0x20, 0x7F), (0x80, 0x250), (0x250, 0x600), (0x600, 0x1000), (0x1000, 0x2000), (0x2000, 0x2C00), (0x3000, 0x3400), (0x4E00, 0x9FFF),
              (0xAC00, 0xD7A4), (0xF900, 0xFFFE), (0x10000, 0x12000), (0x1D000, 0x1F000), (0x1F300, 0x1FB00), (0x20000, 0x20100), (0x31350, 0x31400)]
    return ["".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randint(1, 6))) for _ in range(count)]


def digits_and_marks(rng, count):
    return ["".join(rng.choice("0123456789.,'- \nab$%") for _ in range(rng.randint(1, 20))) for _ in range(count)]


def spaces(rng, count):
    return ["".join(rng.choice(["a", "b.", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\r"]) for _ in range(rng.randint(1, 10))) for _ in range(count)]


def corpus():
    rng = random.Random(20251124)
    texts = PROSE + LATIN + COMBINING + CJK + RTL + OTHER_SCRIPTS + EMOJI + WHITESPACE + CONTROL + CODE + ADDED + ADDED_TEXTS
    texts += mixtures(rng, 900)
    texts += words(rng, 250)
    texts += characters(rng, 300)
    texts += digits_and_marks(rng, 200)
    texts += spaces(rng, 200)
    texts.append(" ".join(PROSE) * 3)
    return texts


if __name__ == "__main__":
    texts = corpus()
    print(len(texts), sum(map(len, texts)))
