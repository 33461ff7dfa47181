"""Five hundred sentences of many lengths, one a line: `rag_texts.py >FILE`. Deterministic."""

import random

SUBJECTS = ["The committee", "Our neighbour's dog", "A retired engineer", "Every winter the lake", "The new timetable",
            "Her second novel", "This small café in Łódź", "The museum's archive", "A letter from São Paulo", "Nobody"]
VERBS = ["approves", "has quietly replaced", "could not explain", "will describe in detail", "depends on",
         "was surprised by", "keeps asking about", "paid 1,250.75 euros for", "once visited", "ignores"]
OBJECTS = ["the travel budget", "a bridge of steel and glass", "three questions of leave", "the oldest map of the coast",
           "an unreadable manual", "the price of tomatoes", "electric buses", "the rules for holidays abroad",
           "quantum chemistry", "a choir of 48 voices"]
TAILS = ["before noon.", "although it rained all week!", "and nobody minded?", "in 1987 (or so they say).",
         "because the form B-12/c was lost;", "which is — frankly — odd.", "as the handbook says:"]


def sentence(rng):
    clauses = rng.choice([1, 1, 1, 2, 3, 6])
    return " ".join(" ".join([rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS), rng.choice(TAILS)])
                    for _ in range(clauses))


if __name__ == "__main__":
    generator = random.Random(7)
    for _ in range(500):
        print(sentence(generator))
