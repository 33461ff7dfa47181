"""The small data sets: short English texts, some of them longer than the cases' limits in tokens."""

SUBJECTS = ["the quick brown fox", "a lazy dog", "the small world", "one file", "a model", "hello there", "the other one", "a fox"]
VERBS = ["jumps over", "is in", "hides from", "sees", "reads"]
OBJECTS = ["the lazy dog", "a small file", "the world", "the model of the world, again and again", "it", "42 foxes"]


def sentences(count):
    out = []
    for i in range(count):
        place = 53 * i % 240  # of the 8 * 5 * 6 sentences
        text = f"{SUBJECTS[place % 8]} {VERBS[place // 8 % 5]} {OBJECTS[place // 40]}"
        out.append(text + [".", "", "!", " \u2013 na\u00efve?"][i % 4])
    assert len(set(out)) == count
    return out


def short_texts():
    texts = sentences(40)
    texts[7] = "hello"
    texts[12] = "the dog</s>"  # has its EOS already
    texts[23] = "a"
    return texts


def preferences():
    """Prompts that share answers in part, so that the preference can be learnt."""
    chosen = ["the fox", "a world", "hello there, fox", "one small file", "the model of the world"]
    rejected = ["the dog", "a lazy dog", "no", "the other one is lazy and in the world", "hello"]
    prompts = sentences(24)
    return [{"prompt": prompts[i], "chosen": " " + chosen[i % 5], "rejected": " " + rejected[(i * 2 + i // 5) % 5]}
            for i in range(24)]
