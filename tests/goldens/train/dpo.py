"""DPO on 24 preferences.

dpo/preferences.json  {"preferences": [{"prompt", "chosen", "rejected"}, ...]}: the rows of every case
dpo/<case>.json       as sft/<case>.json; "steps" hold TRL's metrics: rewards/chosen, rewards/rejected,
                      rewards/accuracies, rewards/margins, logps/chosen, logps/rejected (and logits/..., the
                      mean of all logits of the answers' places)
dpo/<family>_bf16.json  the same under bfloat16 autocast, of which "noise" is the difference from float32
"""

import os
import tempfile

import trl
from datasets import Dataset

from common import (HERE, Recorded, difference, load_for_autocast, load_model, load_tokenizer, named_parameters, nudged,
                    save_json, totals)
from sft import trl_config
from texts import preferences

BASE = dict(batch_size=2, gradient_accumulation_steps=1, learning_rate=2e-4, beta=0.1, label_smoothing=0.0,
            max_prompt_length=512, max_length=1024)
CASES = {
    "llama": ("llama", dict(max_steps=50)),
    "gpt2": ("gpt2", dict(max_steps=50)),
    "label_smoothing": ("llama", dict(label_smoothing=0.1, max_steps=10)),
    # Prompts lose their start; then whole rows do, some of them all of the prompt and more.
    "cuts": ("llama", dict(max_prompt_length=9, max_length=12, max_steps=12)),
    "accumulation": ("llama", dict(gradient_accumulation_steps=5, num_train_epochs=2.0)),
}

AUTOCAST = ["gemma2", "gemma3_text", "gpt2", "llama", "qwen3"]


class Trainer(Recorded, trl.DPOTrainer):
    pass


def run(model, family, training):
    config = trl_config(training, os.path.join(tempfile.gettempdir(), "dpo"), trl.DPOConfig)
    assert config.truncation_mode == "keep_end" and config.loss_type in ("sigmoid", ["sigmoid"])
    trainer = Trainer(model=model, args=config, train_dataset=Dataset.from_list(preferences()),
                      processing_class=load_tokenizer(family))
    trainer.train()
    return trainer


def check_cuts(rows, training):
    lengths = [(len(r["prompt_input_ids"]), len(r[side + "_input_ids"])) for r in rows for side in ["chosen", "rejected"]]
    limit, prompt_limit = training["max_length"], training["max_prompt_length"]
    assert any(p == prompt_limit for p, _ in lengths) and any(p + a <= limit for p, a in lengths)
    assert any(a < limit < p + a for p, a in lengths) and any(a > limit for _, a in lengths)


def make_autocast(family):
    training = BASE | dict(max_steps=10)
    exact = run(load_for_autocast(family), family, training)
    training["bf16"] = True
    trainer = run(load_for_autocast(family), family, training)
    noise = difference(trainer.steps, exact.steps)
    save_json(os.path.join(HERE, "dpo", family + "_bf16.json"), dict(
        made_by="TRL 0.23.0 DPOTrainer", model=family, training=training, noise=noise, steps=trainer.steps))
    print(f"dpo/{family}_bf16: {trainer.steps[0]['logps/chosen']:.4f}, float32 {exact.steps[0]['logps/chosen']:.4f}, "
          f"noise {noise:.1e}")


def make():
    save_json(os.path.join(HERE, "dpo", "preferences.json"), {"preferences": preferences()})
    for case, (family, changes) in CASES.items():
        training = BASE | changes
        model = load_model(family)
        trainer = run(model, family, training)
        if case == "cuts":
            check_cuts(trainer.train_dataset, training)
        noise = difference(trainer.steps, run(nudged(load_model(family)), family, training).steps)
        save_json(os.path.join(HERE, "dpo", case + ".json"), dict(
            made_by="TRL 0.23.0 DPOTrainer", model=family, training=training, noise=noise, steps=trainer.steps,
            parameters=totals(named_parameters(model))))
        first, last = trainer.steps[0], trainer.steps[-1]
        print(f"dpo/{case}: {len(trainer.steps)} steps, loss {first['loss']:.4f} -> {last['loss']:.4f}, margins "
              f"{last['rewards/margins']:.3f}, noise {noise:.1e}")
    for family in AUTOCAST:
        make_autocast(family)
