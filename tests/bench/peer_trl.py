"""Training by TRL and PEFT on the rows of train_bench: its peer. Prints the same lines.

peer_trl.py MODEL.gguf sft|lora|dpo|ppo ROWS LENGTH BATCH STEPS THREADS fp32|bf16

On the CPU, or on the GPU with FLOWMESH_BENCH_DEVICE=cuda; memory is that of the device.

LENGTH: of each row, in tokens; or `8-256` (sft only): log-uniform between the two.
"""
import os
import resource
import sys
import tempfile
import time

import peft
import tokenizers
import torch
import transformers
import trl
import trl.trainer.ppo_trainer as ppo_trainer
from datasets import Dataset

from peer_transformers import load


ON_GPU = os.environ.get("FLOWMESH_BENCH_DEVICE") == "cuda"


def peak_megabytes():
    if ON_GPU:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock(transformers.TrainerCallback):
    """Times the steps after the first, and counts their tokens without padding, as `tokens_of(trainer)` says."""

    def __init__(self, tokens_of):
        self.trainer, self.tokens_of, self.steps = None, tokens_of, []

    def on_step_end(self, args, state, control, **_):
        self.steps.append((time.perf_counter(), self.tokens_of(self.trainer)))

    def tokens_per_second(self):
        (begin, before), (end, after) = self.steps[0], self.steps[-1]
        return (after - before) / (end - begin)


class PreparedDpo(trl.DPOTrainer):
    def _prepare_dataset(self, dataset, *_):  # the rows are ids already
        return dataset


def tokenizer():
    """Only for the ids of padding and end."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def row(i, length):
    return [1000 + (i * 7919 + j * 104729) % 50000 for j in range(length)]


def length_of(i, shortest, longest):
    return round(shortest * (longest / shortest) ** (i * 0.6180339887 % 1))


class ValueModel(torch.nn.Module):
    """A value head on the policy's own body, as TRL wants to see it."""

    base_model_prefix = "body"

    def __init__(self, body):
        super().__init__()
        self.body, self.score = body, torch.nn.Linear(body.config.hidden_size, 1)


class StepTimes(list):
    """The seconds at which TRL logged an update."""

    def note(self, *_, **__):
        self.append(time.perf_counter())


def ppo(path, model, rows, length, batch, updates):
    """As train_bench: answers of 32 tokens, four passes, scores that cost nothing."""
    reward_model, get_reward, times = torch.nn.Identity(), ppo_trainer.get_reward, StepTimes()

    def reward(scorer, ids, pad_token_id, context_length):
        if scorer is not reward_model:
            return get_reward(scorer, ids, pad_token_id, context_length)
        return None, torch.zeros(len(ids)), None

    ppo_trainer.get_reward = reward
    config = trl.PPOConfig(output_dir=tempfile.mkdtemp(), use_cpu=not ON_GPU, bf16=False, report_to="none", disable_tqdm=True,
                           num_sample_generations=0, save_strategy="no", optim="adamw_torch", response_length=32,
                           temperature=0.7, total_episodes=updates * batch, gradient_checkpointing=False,
                           per_device_train_batch_size=batch, num_mini_batches=1, num_ppo_epochs=4, learning_rate=1e-6)
    data = Dataset.from_dict({"input_ids": [row(i, length) for i in range(rows)]})
    reference = load(path).to(model.dtype)
    trainer = trl.PPOTrainer(args=config, processing_class=tokenizer(), model=model, ref_model=reference,
                             reward_model=reward_model, train_dataset=data, eval_dataset=data,
                             value_model=ValueModel(model.base_model).to(model.dtype))
    trainer.log = times.note
    trainer.train()
    print(f"seconds per update\t{(times[-1] - times[0]) / (len(times) - 1):.2f}")
    print(f"memory\t{peak_megabytes():.0f}")


def main():
    path, method = sys.argv[1:3]
    shortest, length = map(int, (sys.argv[4] if "-" in sys.argv[4] else f"{sys.argv[4]}-{sys.argv[4]}").split("-"))
    rows, batch, steps, threads = (int(sys.argv[i]) for i in (3, 5, 6, 7))
    bf16 = sys.argv[8] == "bf16"
    torch.set_num_threads(threads)
    model = load(path)
    if not bf16:
        model = model.float()
    model.train()
    if method == "ppo":
        ppo(path, model, rows, length, batch, steps)
        return
    common = dict(output_dir=tempfile.mkdtemp(), use_cpu=not ON_GPU, per_device_train_batch_size=batch, max_steps=steps,
                  learning_rate=1e-5, gradient_checkpointing=method != "lora", save_strategy="no", report_to="none",
                  logging_steps=steps, disable_tqdm=True, bf16=False, fp16=False)
    if method == "dpo":
        clock = Clock(lambda trainer: trainer.state.global_step * batch * 2 * length)
        data = Dataset.from_list([{
            "prompt_input_ids": row(i, length // 2), "chosen_input_ids": row(i, length)[length // 2:],
            "rejected_input_ids": row(i + rows, length - length // 2)} for i in range(rows)])
        trainer = PreparedDpo(model=model, args=trl.DPOConfig(**common), train_dataset=data, processing_class=tokenizer(),
                              callbacks=[clock])
    else:
        clock = Clock(lambda trainer: trainer._total_train_tokens)
        data = Dataset.from_list([{"input_ids": row(i, length_of(i, shortest, length))} for i in range(rows)])
        config = None
        if method == "lora":
            config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM",
                                     target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
        trainer = trl.SFTTrainer(model=model, args=trl.SFTConfig(**common, max_length=1024), train_dataset=data,
                                 processing_class=tokenizer(), peft_config=config, callbacks=[clock])
    clock.trainer = trainer
    result = trainer.train()
    print(f"tokens per second\t{clock.tokens_per_second():.1f}")
    print(f"loss\t{result.training_loss:.4f}")
    print(f"memory\t{peak_megabytes():.0f}")


if __name__ == "__main__":
    main()
