"""What sentence-transformers computes with the small encoders of ../encoders in every layout that is read.

    python make_embeddings.py

writes cases.json beside itself: {"texts", "cases": [{"name", "encoder": a folder of ../encoders, "files": {path: JSON or,
for tensors, {name: {"shape", "data"}}}, "embeddings": [[..]]}]}. A case's folder is the encoder with those files added.
"""

import json
import os
import shutil
import tempfile

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

HERE = os.path.dirname(os.path.abspath(__file__))
MODULE = "sentence_transformers.models."
TEXTS = ["good dog", "a rude answer, and wrong!", "  The Café of the world…\n", "", "fox " * 60, "a <pad> dog",
         "\u3000GOOD answers are short and kind\u3000", "the quick brown fox jumps over the lazy dog", "bad", "kind"]


def modules(*names):
    return [{"idx": i, "name": str(i), "path": path, "type": MODULE + kind} for i, (kind, path) in enumerate(names)]


def pooling(**modes):
    config = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False}
    return config | {"pooling_mode_" + mode: True for mode in modes}


def dense(width, out, activation, seed):
    torch.manual_seed(seed)
    tensors = {"linear.weight": torch.randn(out, width) / 4, "linear.bias": torch.randn(out) / 4}
    return ({"in_features": width, "out_features": out, "bias": True, "activation_function": activation},
            {name: {"shape": list(t.shape), "data": t.flatten().tolist()} for name, t in tensors.items()})


DENSE = dense(64, 5, "torch.nn.modules.activation.Tanh", seed=1)
TWO, POOL = ("Transformer", ""), ("Pooling", "1_Pooling")
CASES = {
    "mean_normalised": ("bert_bare", {
        "modules.json": modules(TWO, POOL, ("Normalize", "2_Normalize")),
        "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": False},
        "1_Pooling/config.json": pooling(mean_tokens=True)}),
    "cls_lower_case": ("roberta", {
        "modules.json": modules(TWO, POOL),
        "sentence_bert_config.json": {"max_seq_length": None, "do_lower_case": True},
        "1_Pooling/config.json": pooling(cls_token=True)}),
    "max_and_mean_dense": ("distilbert", {
        "modules.json": modules(TWO, POOL, ("Dense", "2_Dense"), ("Normalize", "3_Normalize")),
        "1_Pooling/config.json": pooling(max_tokens=True, mean_tokens=True),
        "2_Dense/config.json": DENSE[0], "2_Dense/model.safetensors": DENSE[1]}),
    "weighted_and_others": ("bert", {
        "modules.json": modules(TWO, POOL),
        "1_Pooling/config.json": pooling(weightedmean_tokens=True, mean_sqrt_len_tokens=True, lasttoken=True)}),
    "multilingual": ("xlm_roberta", {
        "modules.json": modules(TWO, POOL),
        "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
        "1_Pooling/config.json": pooling(mean_tokens=True)}),
}


def main():
    cases = []
    for name, (encoder, files) in CASES.items():
        with tempfile.TemporaryDirectory() as work:
            folder = os.path.join(work, "model")
            shutil.copytree(os.path.join(HERE, "..", "encoders", encoder), folder)
            for path, content in files.items():
                path = os.path.join(folder, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if path.endswith(".safetensors"):
                    save_file({k: torch.tensor(v["data"]).reshape(v["shape"]) for k, v in content.items()}, path)
                else:
                    with open(path, "w", encoding="utf-8") as f:
                        json.dump(content, f)
            model = SentenceTransformer(folder, device="cpu")
            model.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # segment types are all 0
            vectors = model.encode(TEXTS, convert_to_numpy=True)
        embeddings = [[float(f"{x:.8g}") for x in row] for row in vectors.tolist()]
        cases.append({"name": name, "encoder": encoder, "files": files, "embeddings": embeddings})
        print(name, vectors.shape, model.max_seq_length)
    with open(os.path.join(HERE, "cases.json"), "w", encoding="utf-8") as f:
        json.dump({"texts": TEXTS, "cases": cases}, f, separators=(",", ":"))


if __name__ == "__main__":
    main()
