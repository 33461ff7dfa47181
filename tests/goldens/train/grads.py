"""Gradients of every family.

grads/cases.json           {"families": {family: {"sequences": [[ids], ...], "labels": n, "loss": x}}}:
                           the loss is the sum of the token losses of all sequences, divided by
                           `labels`, which counts the first token of each too (TASKS.md 4.4). Each
                           sequence runs by itself, so dynamic rope goes by its own length.
grads/<family>.safetensors the gradient of that loss for every parameter, by Transformers' names;
                           tied weights once, by the name of the embeddings
grads/autocast.json        {"families": {family: {"log_probs": [...], "gradients": [...], "exact_log_probs",
                           "exact_gradients"}}}: of every target of those sequences, and the norm of every parameter's
                           gradient in the order of their names; under bfloat16 autocast, and in float32
"""

import os

import numpy as np
import torch
from safetensors.torch import save_file

from common import HERE, load_for_autocast, load_model, named_parameters, save_json, token_loss_sum

FAMILIES = ["gemma2", "gemma3_text", "gpt2", "llama", "llama_biased", "mistral", "qwen2",
            "qwen2_window", "qwen3"]
LENGTHS = [24, 5, 13]


def log_probs_and_gradients(family, sequences, autocast):
    model = load_for_autocast(family)
    scores = []
    for ids in map(torch.tensor, sequences):
        with torch.no_grad():
            model(ids[None, :1])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits = model(ids[None]).logits[0, :-1].float()
        scores.append(logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0])
    scores = torch.cat(scores)
    (-scores.sum() / sum(map(len, sequences))).backward()
    return scores.tolist(), [p.grad.norm().item() for _, p in sorted(named_parameters(model).items())]


def make_autocast(families):
    results = {}
    for family, case in families.items():
        scores, norms = log_probs_and_gradients(family, case["sequences"], autocast=True)
        exact_scores, exact_norms = log_probs_and_gradients(family, case["sequences"], autocast=False)
        results[family] = dict(log_probs=scores, gradients=norms, exact_log_probs=exact_scores,
                               exact_gradients=exact_norms)
        print(f"grads/autocast, {family}: rounding {np.abs(np.subtract(scores, exact_scores)).max():.1e}")
    save_json(os.path.join(HERE, "grads", "autocast.json"), {"families": results})


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
    make_autocast(families)
