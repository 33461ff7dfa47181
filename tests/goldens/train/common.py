"""What the parts share: the small models, the order of rows, sums over parameters, files."""

import json
import math
import os

import datasets
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "models")
SEED, EOS = 42, 2
torch.set_num_threads(2)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
datasets.disable_progress_bars()


def model_path(family):
    return os.path.join(MODELS, family)


def load_model(family, dtype=torch.float32, attention="eager"):
    """In training mode, yet without dropout; no cache."""
    config = transformers.AutoConfig.from_pretrained(model_path(family))
    config.use_cache = False
    for key in ["attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout"]:
        if hasattr(config, key):
            setattr(config, key, 0.0)
    return transformers.AutoModelForCausalLM.from_pretrained(
        model_path(family), config=config, dtype=dtype, attn_implementation=attention).train()


@torch.no_grad()
def load_for_autocast(family):
    """For trainings with bf16=True. Embeddings begin as bfloat16 has them, in which ours are looked up; attention is
    fused, where it can be: the eager one rounds its softmax to bfloat16."""
    model = load_model(family, attention="eager" if family == "gemma2" else "sdpa")  # a cap on scores is never fused
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.copy_(module.weight.bfloat16())
    return model


@torch.no_grad()
def nudged(model):
    """Each weight moved by about its last bit: what comes out otherwise is the noise of rounding."""
    generator = torch.Generator().manual_seed(5)
    for p in model.parameters():
        p.mul_(1 + 6e-8 * torch.randn(p.shape, generator=generator))
    return model


def load_tokenizer(family):
    """The pad token, which none of them has, is the EOS."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path(family))
    assert tokenizer.eos_token_id == EOS and tokenizer.pad_token is None
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def row_order(rows, epoch, seed=SEED):
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


class EpochSampler(torch.utils.data.Sampler):
    """The order of TASKS.md 4.3; each pass over the data is the next epoch."""

    def __init__(self, rows):
        self.rows, self.epoch = rows, 0

    def __len__(self):
        return self.rows

    def __iter__(self):
        order = row_order(self.rows, self.epoch)
        self.epoch += 1
        return iter(order)


class Recorded:
    """For a Trainer: rows in our order, and exact losses (its log rounds them to four digits)."""

    def _get_train_sampler(self, train_dataset=None):
        self.sampler = EpochSampler(len(self.train_dataset))
        self.steps, self.window = [], []
        return self.sampler

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.window.append(loss.item())
        return loss

    def log(self, logs, start_time=None):
        super().log(logs, start_time)  # adds TRL's metrics
        if "loss" in logs:
            exact = sum(self.window)
            assert abs(exact - logs["loss"]) < 1e-4, (exact, logs["loss"])
            self.steps.append(dict(loss=exact, **{k: v for k, v in logs.items() if k != "loss"}))
            self.window = []


def batches(rows, batch_size, epochs):
    """Of each epoch the batches of row numbers, the short last one kept."""
    for epoch in range(epochs):
        order = row_order(rows, epoch)
        yield [order[i:i + batch_size] for i in range(0, rows, batch_size)]


def windows(rows, batch_size, accumulation, epochs):
    """One list of batches per optimiser step."""
    for of_epoch in batches(rows, batch_size, epochs):
        for i in range(0, len(of_epoch), accumulation):
            yield of_epoch[i:i + accumulation]


def linear_rate(learning_rate, step, total):
    return learning_rate * (total - step) / total


def difference(a, b):
    """The largest difference of the steps' losses."""
    return max(abs(x["loss"] - y["loss"]) for x, y in zip(a, b, strict=True))


def token_loss_sum(logits, ids, first_target=1):
    """Sum of the losses of the targets from place `first_target` on. logits: [tokens, vocab]."""
    return torch.nn.functional.cross_entropy(
        logits[first_target - 1:-1].float(), ids[first_target:], reduction="sum")


def named_parameters(model):
    """Transformers' names, a tied one once."""
    return {name: p for name, p in model.named_parameters()}


def totals(parameters):
    """{name: {"sum", "norm"}} in double precision."""
    return {name: {"sum": p.detach().double().sum().item(), "norm": p.detach().double().norm().item()}
            for name, p in parameters.items()}


def check_finite(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            check_finite(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            check_finite(item, f"{path}[{i}]")
    elif isinstance(value, float):
        assert math.isfinite(value), path


def save_json(path, value):
    """A line for each key, and for each entry of a list of maps."""
    check_finite(value)
    os.makedirs(os.path.dirname(path), exist_ok=True)

    def text(item):
        if isinstance(item, list) and item and isinstance(item[0], (dict, list, str)):
            return "[\n  %s\n ]" % ",\n  ".join(json.dumps(i, ensure_ascii=False) for i in item)
        if isinstance(item, dict) and item and all(isinstance(i, dict) for i in item.values()):
            return "{\n  %s\n }" % ",\n  ".join(f"{json.dumps(k)}: {json.dumps(i)}" for k, i in item.items())
        return json.dumps(item, ensure_ascii=False)

    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n %s\n}\n" % ",\n ".join(f"{json.dumps(k)}: {text(i)}" for k, i in value.items()))
