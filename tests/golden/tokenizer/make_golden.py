#!/usr/bin/env python3
"""Makes the tokenizers of this folder and what the tokenizers package (0.23.3) encodes and decodes with them.

  make_golden.py             writes NAME.json and NAME.txt for each tokenizer, beside this script
  make_golden.py --diff N EXE   compares N random texts a tokenizer with `EXE NAME.json`, which reads texts (a line each, escaped) and prints ids

A line of NAME.txt is, separated by tabs: `E`, a text, its ids, its ids with special tokens, the text that they decode to without special tokens (`?`: not
the one that graft is to give); or `D`, ids, the text that they decode to. Bytes other than printable ASCII are written \\xNN, and so is the backslash.
"""
import json
import pathlib
import random
import subprocess
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The pattern of GPT-4o: other categories, a group that is optional.
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])

PROSE = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind: it's asleep. They'll wake it, we've been told.",
    "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer the slings and arrows of outrageous fortune.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Heizölrückstoßabdämpfung ist ein langes Wort.",
    "Portez ce vieux whisky au juge blond qui fume; où était-ce déjà, à Noël, l'été dernier, chez l'ouvrier naïf?",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío; ¿añoraba a su querido cachorro? ¡Sí!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Широкая электрификация южных губерний.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Τάχιστη αλώπηξ βαφής ψημένη γη, δρασκελίζει υπέρ νωθρού κυνός.",
    "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。我們在學習如何訓練語言模型，這是一個例子。机器学习很有趣。",
    "いろはにほへと ちりぬるを わかよたれそ つねならむ。カタカナとひらがなと漢字が混ざった文です。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 한국어 문장입니다.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق. السلام عليكم",
    "दीवारबंद जयपुर ऐसी दुनिया है जहां लोग क्षण में मिलते हैं। नमस्ते, आप कैसे हैं?",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน จงฝ่าฟันพัฒนาวิชาการ",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שלום עולם",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇫🇷 ❤️ 😀😃😄 1️⃣ ☕ — “quotes” … ½ ² № ™ € £ ¥",
    "int main(int argc, char** argv) {\n  for (int i = 0; i < argc; ++i) {\n    std::printf(\"%d: %s\\n\", i, argv[i]);\n  }\n  return 0;\n}\n",
    "def encode(self, text):\n    \"\"\"Returns ids.\"\"\"\n    if not text:\n\treturn []\n    return [self.vocab[t] for t in text.split()]\n",
    "<html><body class=\"a b\"><p>Hello &amp; goodbye</p></body></html>\nhttps://example.org/a/b?c=d&e=f#g user@example.org",
    "3.14159 2,718,281 1e-10 0xFF 2024-02-29T23:59:59Z 10000000000 +1 (555) 010-9999 100%",
]
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]


def corpus():
    words = " ".join(PROSE).split()
    draw = random.Random(1)
    return PROSE * 3 + [" ".join(draw.choice(words) for _ in range(12)) for _ in range(120)]


def train(pre_tokenizer, size, special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", invert=False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    """As GPT-2's file: no model type, "" for no prefix, merges as strings, ByteLevel with its own pattern."""
    tokenizer = train(pre_tokenizers.ByteLevel(add_prefix_space=False), 1000, ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    made = json.loads(tokenizer.to_str())
    model = made["model"]
    vocab, merges = model["vocab"], [" ".join(pair) for pair in model["merges"]]
    made["model"] = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "vocab": vocab, "merges": merges}
    del made["pre_tokenizer"]["use_regex"]
    return made


def prefix():
    """A space before every text, words unbounded by a regular expression."""
    tokenizer = train(pre_tokenizers.ByteLevel(add_prefix_space=True), 600, [])
    made = json.loads(tokenizer.to_str())
    made["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
    return made


def llama3():
    """As Llama 3's file: a pattern, merges as pairs, whole words that no merges give, a template; and added tokens of every kind."""
    tokenizer = train(split(LLAMA3), 1200, [])
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([
        AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=True), AddedToken("word", single_word=True, normalized=False),
        AddedToken("straße", single_word=True, normalized=True), AddedToken("<|end", normalized=True), AddedToken("  three", normalized=False),
        AddedToken("é", normalized=False), AddedToken("<｜middle▁dot｜>", normalized=False), AddedToken("aab", normalized=False), AddedToken("aabaab!", normalized=False)])
    first = tokenizer.token_to_id(SPECIAL[0])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{SPECIAL[0]} $A {SPECIAL[1]}", pair=f"{SPECIAL[0]} $A {SPECIAL[0]} $B", special_tokens=[(SPECIAL[0], first), (SPECIAL[1], first + 1)])])
    made = json.loads(tokenizer.to_str())
    model = made["model"]
    model["ignore_merges"] = True
    # Tokens that only ignore_merges can give: their merge is gone.
    made_by = {a + b for a, b in model["merges"]}
    kept = [pair for pair in model["merges"] if len("".join(pair)) < 7 or pair[0] + pair[1] not in made_by or sum(map(ord, pair[0])) % 3]
    model["merges"] = kept
    return made


def gpt4o():
    """Another pattern, and single digits as a second one."""
    tokenizer = train(split(O200K), 800, ["<|endoftext|>"])
    made = json.loads(tokenizer.to_str())
    steps = made["pre_tokenizer"]["pretokenizers"]
    steps.insert(1, {"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False})
    return made


TOKENIZERS = {"gpt2": gpt2, "prefix": prefix, "llama3": llama3, "gpt4o": gpt4o}

EDGES = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\r\n", "\r\n\r\n  x", "\t", "\t\tx", "a", " a", "a ", "  a  ", "a\n\n\nb", "a \n b", "a  b   c    d", " " * 100, "\n" * 50, " \t \n \t x",
    "\u00a0", "a\u00a0b", "\u2003x", "\u3000漢", "\u180ex", "x\u180e y", "\u200b", "a\u200bb", "\u2028\u2029", "\x85", "a\x85b", "\x85\n", "\x1c\x1d\x1e\x1f", "\x00", "a\x00b", "\x7f", "\x01\x02\x03 \x04", "\ufeff", "\ufffd", "\U0010ffff",
    "it's IT'S It'S i'll I'LL we'Ve WE'VE they'RE 'Tis 'T 'D 'm 'M ''s '' ' s", "it\u2019s \u2019S", "'\u017f", "a'\u017fb", "x'\u017f", "'\u212a", "DON'T don't Don'T", "'re're", "o'clock rock'n'roll", "'ss '\u00df",
    "1", "12", "123", "1234", "12345", "1234567890", "1,234.5", "٣٤٥٦", "१२३४", "Ⅷ Ⅸ", "½¾", "x²³¹", "1st 2nd 3rd", "a1b2c3", "𝟘𝟙𝟚𝟛",
    "e\u0301 é \u0301", "क्षि कि", "กำ ก็", "ﷺ", "\u0600١٢", "ß ẞ", "İi̇ ıI", "ŉ ǰ", "ﬁ ﬀ ﬆ", "Ω Ω", "각 각", "n\u0303\u0303\u0303", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A",
    "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "1️⃣", "a👍b", " 👍 ", "\U0001fae8", "\u2ffc", "漢字かな交じり文", "中文，标点。", "한국어", "مرحبا، كيف", "שלום", "สวัสดี",
    "\u1c89\u1c8a", "\ua7cb", "\U0001e4d0\U0001e4f0", "\U00031350\U000323af", "\U0002ebf0", "\U00016130", "\U00010d40\U00010d50", "\u0897", "a\U000105c0b",
    "(a)", "a+b=c", "x->y::z", "!!!", "...", "…", "--", "a_b_c", "$x$", "#tag @me", "C:\\dir\\file", "{\"k\": [1, 2]}", "if(x){\r\n\treturn;\r\n}", "a/b//c\n/\n", "!\n\n?\r\n", "— – - ‐",
    "a" * 47, "a" * 48, "a" * 49, "ab" * 40, "x" * 300, "supercalifragilisticexpialidocious" * 6, "é" * 60, "漢" * 40, "the" * 30, "12" * 60, "!?" * 40, " the" * 40, "Heizölrückstoßabdämpfung" * 5,
    "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "<|endoftext|><|endoftext|>", "<|endoftext|", "<|endoftext |>",
    "<|begin_of_text|>Hello<|end_of_text|>", " <|begin_of_text|> x", "<|end_of_text", "<|end|>", "<|end_header_id|>", "<|end_header_id", "x<|end_headers",
    "a  <left>  b", "<left>", "  <left><left> \n <left>", "a <right>  b", "<right>", "<right>\u3000\u00a0x", "<right> <left>", "<right> <both> <left>", "a\u2003<left>", "\x85<both>\x85", "<both>  <both>", "é<left>", "x\u200b<left>\u200b<right>\u200b",
    "word", "a word b", "words", "sword", "word.", "(word)", "word word", "wordword", "éword", "word漢", "_word", "word_", "word\u200d", "word\u0301", "word1", "word½", "word\u24d0", "word\U0001f150", "word\u203f", "word\u2160",
    "straße", "die straße.", "straßen", "Hauptstraße", "straße<both>straße", "word<|end", "<|endword", "  three", "   three", "<right>  three", "<right>   three", "é", "café", "cafe\u0301", "<｜middle▁dot｜>x", "aab", "aabaab", "aabaab!", "aabaabaab!", "aaabaab!",
]


def random_text(draw):
    """Runs of characters of one kind, mixed with pieces that bend the patterns."""
    pieces = ["'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "12", "<|endoftext|>", "<|end_of_text|>", "<left>", "<right>", "<both>", "word", "straße", "<|end", "é", "\u0301", "'", "the", " The", "…", "\u00a0"]
    text = ""
    for _ in range(draw.randint(1, 12)):
        kind = draw.random()
        if kind < 0.3:
            text += draw.choice(pieces)
        elif kind < 0.5:
            text += draw.choice(PROSE[draw.randrange(len(PROSE))].split(" "))
        else:
            start, spread = draw.choice([(0, 0x80), (0x80, 0x780), (0x800, 0xD000 - 0x800), (0xE000, 0x2000), (0x10000, 0x4000), (0x16000, 0x2000), (0x1D000, 0x3000), (0x2B700, 0x7000), (0, 0xD800), (0xE0000, 0x200)]), 0
            low = start[0] + draw.randrange(start[1])
            text += "".join(chr(min(low + draw.randrange(6), 0xD7FF) if low < 0xD800 else low + draw.randrange(6)) for _ in range(draw.randint(1, 6)))
    return text


def every_category(draw, per_category=8):
    """Characters of each general category, alone and between letters."""
    by_category = {}
    for c in range(0x110000):
        by_category.setdefault(unicodedata.category(chr(c)), []).append(c)
    del by_category["Cs"]
    return [" ".join(draw.choice(["", "a", "1", "\n"]) + chr(draw.choice(by_category[category])) + draw.choice(["", "b", " "]) for _ in range(per_category)) for category in sorted(by_category)]


def escaped(text):
    return "".join(chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in text.encode("utf-8"))


def ids_text(ids):
    return " ".join(map(str, ids))


def write(name, made):
    path = HERE / f"{name}.json"
    path.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    assert path.stat().st_size < 100_000, (name, path.stat().st_size)
    tokenizer = Tokenizer.from_file(str(path))
    draw = random.Random(7)
    texts = EDGES + PROSE + every_category(draw) + [random_text(draw) for _ in range(60)]
    lines = []
    for text in texts:
        ids, with_special = tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.encode(text).ids
        decoded = tokenizer.decode(with_special, skip_special_tokens=True)
        known = decoded.count("\ufffd") == text.count("\ufffd")  # not so where an added token reads as if it were written in byte characters: "é" as byte 0xE9
        lines.append("\t".join(["E", escaped(text), ids_text(ids), ids_text(with_special), escaped(decoded) if known else "?"]))
    while len(lines) < len(texts) + 60:
        ids = [draw.randrange(tokenizer.get_vocab_size()) for _ in range(draw.randint(1, 5))]
        text = tokenizer.decode(ids, skip_special_tokens=False)
        if "\ufffd" not in text:  # of half a character the package decodes that, graft the half
            lines.append("\t".join(["D", ids_text(ids), escaped(text)]))
    (HERE / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{name}: {tokenizer.get_vocab_size()} tokens, {path.stat().st_size} bytes, {len(lines)} lines")


def compare(count, program):
    for name in TOKENIZERS:
        path = HERE / f"{name}.json"
        tokenizer = Tokenizer.from_file(str(path))
        draw = random.Random(99)
        texts = [random_text(draw) for _ in range(count)]
        answer = subprocess.run([program, str(path)], input="\n".join(map(escaped, texts)) + "\n", capture_output=True, text=True, check=True).stdout.split("\n")
        wrong = 0
        for text, line in zip(texts, answer, strict=False):
            ids = ids_text(tokenizer.encode(text, add_special_tokens=False).ids)
            if ids != line:
                wrong += 1
                if wrong <= 5:
                    print(f"{name}: {escaped(text)}\n  tokenizers {ids}\n  graft      {line}")
        print(f"{name}: {count} texts, {wrong} differ")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--diff"]:
        compare(int(sys.argv[2]), sys.argv[3])
    else:
        for each, make in TOKENIZERS.items():
            write(each, make())
