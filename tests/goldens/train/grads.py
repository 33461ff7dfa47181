"""Gradients of every family.

grads/cases.json           {"families": {family: {"sequences": [[ids], ...], "labels": n, "loss": x}}}:
                           the loss is the sum of the token losses of all sequences, divided by
                           `labels`, which counts the first token of each too (TASKS.md 4.4). Each
                           sequence runs by itself, so dynamic rope goes by its own length.
grads/<family>.safetensors the gradient of that loss for every parameter, by Transformers' names;
                           tied weights once, by the name of the embeddings
"""

import os

import numpy as np
import torch
from safetensors.torch import save_file

from common import HERE, load_model, named_parameters, save_json, token_loss_sum

FAMILIES = ["gemma2", "gemma3_text", "gpt2", "llama", "llama_biased", "mistral", "qwen2",
            "qwen2_window", "qwen3"]
LENGTHS = [24, 5, 13]


def make():
    families = {}
    for place, family in enumerate(FAMILIES):
        model = load_model(family)
        rng = np.random.default_rng([19, place])
        sequences = [rng.integers(3, model.config.vocab_size, size=n).tolist() for n in LENGTHS]
        labels = sum(LENGTHS)
        loss = 0.0
        for ids in sequences:
            with torch.no_grad():
                model(torch.tensor([ids[:1]]))  # takes dynamic rope back to its start
            ids = torch.tensor(ids)
            part = token_loss_sum(model(ids[None]).logits[0], ids) / labels
            part.backward()
            loss += part.item()
        grads = {name: p.grad.contiguous() for name, p in named_parameters(model).items()}
        assert all(g.isfinite().all() and g.norm() > 0 for g in grads.values()), family
        os.makedirs(os.path.join(HERE, "grads"), exist_ok=True)
        save_file(grads, os.path.join(HERE, "grads", family + ".safetensors"), metadata={"format": "pt"})
        families[family] = {"sequences": sequences, "labels": labels, "loss": loss}
        print(f"grads/{family}: loss {loss:.6f}, {len(grads)} parameters")
    save_json(os.path.join(HERE, "grads", "cases.json"), {"families": families})
