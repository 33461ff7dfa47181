"""Opens what the worker writes for models trained from GGUF files with Transformers, and compares.

    export FLOWMESH_KEEP_FOLDERS=$PWD/folders FLOWMESH_SOURCE_DIR=REPOSITORY
    load_model_test --gtest_filter='*GgufFolder*'; FLOWMESH_GEMMA_GGUF=FILE text_test --gtest_filter='*Export*'
    python check_gguf_folders.py folders

Models: logits against ../models/gguf/<architecture>/logits.safetensors (fp32, Transformers on the weights that
the `gguf` package dequantises). Tokenizers: ids against llama.cpp's in ../tokenizers. The result is kept in
check_gguf_folders.json.
"""

import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import HERE, save_json

GOLDENS = os.path.dirname(HERE)
TOKENIZERS = {name: f"gguf_{name}" for name in ("spm", "spm_plain", "gpt2", "llama_bpe", "qwen2", "default")} | {
    "gemma": "gemma_gguf"}


def read(*path):
    with open(os.path.join(GOLDENS, *path), encoding="utf-8") as f:
        return json.load(f)


def check_model(folder, architecture):
    # Only the eager attention knows Gemma 2's soft caps.
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
    want = load_file(os.path.join(GOLDENS, "models", "gguf", architecture, "logits.safetensors"))
    worst = 0.0
    for i, prompt in enumerate(read("models", "gguf", architecture, "cases.json")["prompts"]):
        with torch.no_grad():
            got = model.eval()(torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(got, want[f"{i}.fp32"], rtol=1e-4, atol=1e-5)
        worst = max(worst, (got - want[f"{i}.fp32"]).abs().max().item())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.generate(**tokenizer("the small world", return_tensors="pt"), max_new_tokens=2)
    return {"class": type(model).__name__, "largest_difference": worst}


def check_tokenizer(folder, golden):
    tokenizer, golden = AutoTokenizer.from_pretrained(folder), read("tokenizers", golden + ".json")
    texts = read("tokenizers", "corpus.json")
    plain = sum(tokenizer(text, add_special_tokens=False)["input_ids"] != ids for text, ids in zip(texts, golden["ids"]))
    whole = sum(tokenizer(text)["input_ids"] != golden["before"] + ids + golden["after"] for text, ids in zip(texts, golden["ids"]))
    return {"texts": len(texts), "other_ids": plain, "other_ids_with_special_tokens": whole}


def main():
    folders = sys.argv[1]
    results = {"transformers": transformers.__version__, "models": {}, "tokenizers": {}}
    for architecture in ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"):
        results["models"][architecture] = check_model(os.path.join(folders, architecture), architecture)
    for name, golden in TOKENIZERS.items():
        results["tokenizers"][name] = check_tokenizer(os.path.join(folders, "tokenizer_" + name), golden)
    print(json.dumps(results, indent=1))
    save_json(os.path.join(HERE, "check_gguf_folders.json"), results)


if __name__ == "__main__":
    main()
