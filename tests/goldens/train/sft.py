"""Full fine-tuning of 40 short texts.

sft/texts.json    {"texts": [...]}: the rows of every case
sft/<case>.json   "made_by"; "model": a folder of ../models; "training": fields of spec.training
                  (TASKS.md 3.3, 3.4), all else at its default; "steps": one entry per optimiser step:
                  loss, grad_norm (before clipping), learning_rate, mean_token_accuracy, num_tokens,
                  epoch, and TRL's entropy; "parameters": sum and L2 norm of each after the last step;
                  "noise": the largest difference of a step's loss from that of the same run whose weights
                  began a rounding error apart (bf16: from the run in double precision)

Packed documents that do not see each other, and bfloat16 weights with a float32 master copy, are
not TRL's: those cases come from the plain loop below, which is checked against TRL on `llama`.
"""

import math
import os
import tempfile

import torch
import trl
from accelerate.state import AcceleratorState
from datasets import Dataset

from common import (EOS, HERE, Recorded, difference, linear_rate, load_model, load_tokenizer, named_parameters, nudged,
                    save_json, token_loss_sum, totals, windows)
from texts import short_texts

BASE = dict(batch_size=2, gradient_accumulation_steps=1, learning_rate=1e-3, max_seq_length=32)
TRL_CASES = {
    "llama": ("llama", dict(num_train_epochs=2.5)),
    "gpt2": ("gpt2", dict(num_train_epochs=2.5)),
    "gemma3_text": ("gemma3_text", dict(num_train_epochs=2.5)),
    "qwen3": ("qwen3", dict(num_train_epochs=2.5)),
    "accumulation_warmup_cosine": ("llama", dict(gradient_accumulation_steps=3, warmup_steps=5, max_steps=20,
                                                 lr_scheduler_type="cosine")),
    "weight_decay": ("llama", dict(weight_decay=0.1, max_steps=20)),
    "max_grad_norm": ("llama", dict(max_grad_norm=0.1, max_steps=20)),
    # Adam all but ignores a factor on every gradient: here some steps are clipped, others not.
    "max_grad_norm_15": ("llama", dict(max_grad_norm=15.0, max_steps=20)),
    "short_last_batch": ("llama", dict(batch_size=16, num_train_epochs=4.0)),
    "epochs_1_5": ("llama", dict(batch_size=3, num_train_epochs=1.5)),
}
NAMES = {"batch_size": "per_device_train_batch_size", "max_seq_length": "max_length"}


class Trainer(Recorded, trl.SFTTrainer):
    pass


def trl_config(training, out, cls=trl.SFTConfig):
    # Of which a process has one, with the precision of its first training.
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    return cls(output_dir=out, use_cpu=True, fp16=False, gradient_checkpointing=False, logging_steps=1,
               save_strategy="no", report_to="none", disable_tqdm=True, optim="adamw_torch", seed=42,
               **({"bf16": False} | {NAMES.get(k, k): v for k, v in training.items()}))


def run_trl(model, family, training, texts):
    trainer = Trainer(model=model, args=trl_config(training, os.path.join(tempfile.gettempdir(), "sft")),
                      train_dataset=Dataset.from_dict({"text": texts}), processing_class=load_tokenizer(family))
    trainer.train()
    return trainer


def encode(family, texts, max_length):
    """TASKS.md 4.4, points 1 and 2."""
    tokenizer = load_tokenizer(family)
    ended = [t if t.endswith(tokenizer.eos_token) else t + tokenizer.eos_token for t in texts]
    return [ids[:max_length] for ids in tokenizer(ended)["input_ids"]]


def pack(rows, length):
    """TASKS.md 4.4, point 5: rows of documents."""
    packed = []
    for start in range(0, len(rows), 1000):
        bins = []  # [documents, space, time of the last change]
        for now, ids in enumerate(sorted(rows[start:start + 1000], key=len, reverse=True)):
            fitting = [b for b in bins if b[1] >= len(ids)]
            best = min(fitting, key=lambda b: (b[1], b[2]), default=None)
            if best is None:
                bins.append(best := [[], length, now])
            best[0].append(ids)
            best[1:] = [best[1] - len(ids), now]
        packed += [documents for documents, _, _ in bins]
    return packed


def run_plain(model, packed_rows, training, isolated):
    """A row is a list of documents; `isolated`: a document's first token is not counted."""
    batch_size, per_epoch = training["batch_size"], math.ceil(len(packed_rows) / training["batch_size"])
    total = training.get("max_steps") or math.ceil(training["num_train_epochs"] * per_epoch)
    weights = list(model.parameters())
    masters = [p.detach().clone().float().requires_grad_() if p.dtype == torch.bfloat16 else p for p in weights]
    optimizer = torch.optim.AdamW(masters, lr=training["learning_rate"], weight_decay=0.0)
    steps, num_tokens = [], 0
    for step, window in zip(range(total), windows(len(packed_rows), batch_size, 1, math.ceil(total / per_epoch))):
        documents = [torch.tensor(d) for row in window[0] for d in packed_rows[row]]
        num_tokens += sum(len(d) for d in documents)
        labels = sum(len(d) - isolated for d in documents)
        loss, right = 0.0, 0
        for ids in documents:
            logits = model(ids[None]).logits[0]
            part = token_loss_sum(logits, ids) / labels
            if len(ids) > 1:
                part.backward()
            loss += part.item()
            right += (logits[:-1].argmax(-1) == ids[1:]).sum().item()
        for master, weight in zip(masters, weights):
            master.grad = weight.grad.to(master.dtype)
        norm = torch.nn.utils.clip_grad_norm_(masters, 1.0)
        rate = linear_rate(training["learning_rate"], step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, weights):
                if master is not weight:
                    weight.copy_(master)
        model.zero_grad()
        steps.append(dict(loss=loss, grad_norm=norm.item(), learning_rate=rate, num_tokens=num_tokens,
                          mean_token_accuracy=right / sum(len(d) - 1 for d in documents), epoch=(step + 1) / per_epoch))
    names = named_parameters(model)
    master_of = {id(weight): master for weight, master in zip(weights, masters)}
    return steps, {name: master_of[id(p)] for name, p in names.items()}


def save(case, **fields):
    save_json(os.path.join(HERE, "sft", case + ".json"), fields)
    steps = fields["steps"]
    print(f"sft/{case}: {len(steps)} steps, loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, "
          f"noise {fields['noise']:.1e}")


def make_trl():
    texts = short_texts()
    save_json(os.path.join(HERE, "sft", "texts.json"), {"texts": texts})
    for case, (family, changes) in TRL_CASES.items():
        training = BASE | changes
        model = load_model(family)
        trainer = run_trl(model, family, training, texts)
        other = run_trl(nudged(load_model(family)), family, training, texts)
        extra = {}
        if case == "weight_decay":
            extra["decayed"] = sorted(trainer.get_decay_parameter_names(model))
        if case == "llama":
            rows = [[ids] for ids in encode(family, texts, training["max_seq_length"])]
            plain, _ = run_plain(load_model(family), rows, training, isolated=False)
            assert difference(plain, trainer.steps) < 2e-5, difference(plain, trainer.steps)
        save(case, made_by="TRL 0.23.0 SFTTrainer", model=family, training=training,
             noise=difference(trainer.steps, other.steps), steps=trainer.steps,
             parameters=totals(named_parameters(model)), **extra)


def make_plain():
    texts, family = short_texts(), "llama"
    rows = encode(family, texts, BASE["max_seq_length"])
    training = BASE | dict(packing=True, max_steps=20)
    packed = pack(rows, training["max_seq_length"])
    assert sorted(map(len, rows)) == sorted(len(d) for row in packed for d in row) and len(packed) < len(rows)
    theirs = trl.pack_dataset(Dataset.from_dict({"input_ids": rows}), training["max_seq_length"])["seq_lengths"]
    assert [[len(d) for d in row] for row in packed] == [list(row) for row in theirs]
    steps, final = run_plain(load_model(family), packed, training, isolated=True)
    other, _ = run_plain(nudged(load_model(family)), packed, training, isolated=True)
    save("packing", made_by="plain PyTorch loop (documents isolated, which TRL cannot do here)", model=family,
         training=training, noise=difference(steps, other), steps=steps,
         packed=[[rows.index(d) for d in row] for row in packed], parameters=totals(final))

    training = BASE | dict(bf16=True, max_steps=20)
    steps, final = run_plain(load_model(family, torch.bfloat16), [[ids] for ids in rows], training, isolated=False)
    double, _ = run_plain(load_model(family, torch.float64), [[ids] for ids in rows], training, isolated=False)
    save("bf16", made_by="plain PyTorch loop (float32 master weights, which TRL has not); parameters are the masters",
         model=family, training=training, noise=difference(steps, double), steps=steps, parameters=totals(final))


def make():
    make_trl()
    make_plain()
    assert EOS in encode("llama", ["a"], 8)[0]
