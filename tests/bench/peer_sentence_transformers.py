"""sentence-transformers beside rag_bench: the same model, texts and threads; the best of three passes.

    peer_sentence_transformers.py MODEL TEXTS THREADS [VECTORS]

With VECTORS, which rag_bench has written, also the least cosine between its vectors and the peer's.
"""

import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer


def main(model, path, threads, vectors=None):
    torch.set_num_threads(int(threads))
    with open(path, encoding="utf-8") as f:
        texts = f.read().splitlines()
    encoder = SentenceTransformer(model, device="cpu")
    best = 0
    for _ in range(3):
        begin = time.perf_counter()
        own = encoder.encode(texts, convert_to_tensor=True)
        best = max(best, len(texts) / (time.perf_counter() - begin))
    print(f"embed\t{best:.1f}")
    if vectors:
        with open(vectors, encoding="utf-8") as f:
            ours = torch.tensor([json.loads(line) for line in f], dtype=torch.float64)
        cosines = torch.nn.functional.cosine_similarity(ours, own.double())
        print(f"least cosine\t{cosines.min().item():.7f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
