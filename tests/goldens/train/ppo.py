"""PPO (TASKS.md 4.7) on recorded responses, with ../encoders/bert as the reward model.

ppo/value_head.safetensors  "weight" [1, hidden], "bias" [1]: the value head's start in every case
ppo/<case>.json   "model"; "training", "generation", "reward_model": fields of the spec; "prompts"; and for
                  each update, in "updates":
                    rows, queries, responses   the rows of the local batch; ids, without padding, EOS included.
                                               Sampled from the policy of that moment, but some end by an EOS
                                               put at a random place, which a random model would not do
                    scores                     of the reward model, missing_eos_penalty not taken yet
                    orders                     row order of each pass (places in the local batch)
                    ours                       statistics by the plain loop below, written from TASKS.md
                    trl                        those of TRL 0.23.0's PPOTrainer fed with the same responses, where
                                               it can be compared (one micro-batch); all but TRL_DIFFERS agree
                  "details": of the first update, a row each: logprobs, ref_logprobs, values (with the place after
                  the last, where there is one), rewards, advantages, returns
                  "parameters": sum and L2 norm of each after the last update
"""

import copy
import math
import os
import tempfile

import numpy as np
import torch
import transformers
import trl
import trl.trainer.ppo_trainer as ppo_trainer
from datasets import Dataset
from safetensors.torch import save_file

from common import (EOS, HERE, linear_rate, load_model, load_tokenizer, named_parameters, row_order, save_json, totals)
from texts import sentences

REWARD = os.path.join(HERE, "..", "encoders", "bert")
UNUSED = 0  # an id that is never sampled: TRL tells padding by an id
# TRL counts padding in these (objective/entropy: -1 for each).
TRL_DIFFERS = ["objective/entropy", "policy/entropy_avg"]
TRAINING = dict(learning_rate=1e-4, per_device_train_batch_size=4, gradient_accumulation_steps=1, num_mini_batches=1,
                ppo_epochs=4, kl_coef=0.05)
GENERATION = dict(max_new_tokens=8, temperature=0.7)
SENTIMENT = dict(type="sentiment", scale=0.5)
CASES = {
    "llama": ("llama", dict(steps=6), SENTIMENT),
    "gpt2": ("gpt2", dict(steps=6), SENTIMENT),
    "whitened": ("llama", dict(steps=3, per_device_train_batch_size=8, whiten_rewards=True, missing_eos_penalty=1.0,
                               gamma=0.9, cliprange=0.1, vf_coef=0.5), SENTIMENT),
    "mini_batches": ("llama", dict(steps=16, per_device_train_batch_size=2, gradient_accumulation_steps=4,
                                   num_mini_batches=2), SENTIMENT),
    "value_head_scores": ("llama", dict(steps=3), None),
}
DEFAULTS = dict(gamma=1.0, lam=0.95, cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, whiten_rewards=False,
                missing_eos_penalty=None)


class RewardModel:
    def __init__(self, settings):
        self.settings = settings
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(REWARD)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(REWARD).eval()
        names = [name.lower() for name in self.model.config.id2label.values()]
        self.positive = next(i for i, name in enumerate(names) if "positive" in name)
        self.negative = next(i for i, name in enumerate(names) if "negative" in name)

    @torch.no_grad()
    def __call__(self, text):
        logits = self.model(**self.tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
        return (logits[self.positive] - logits[self.negative]).item() * self.settings["scale"]


class Run:
    """The plain loop: every row runs by itself, so there is no padding anywhere."""

    def __init__(self, family, training, reward, head):
        self.family, self.t = family, DEFAULTS | TRAINING | training
        self.policy, self.reference = load_model(family), load_model(family).eval()
        self.head = copy.deepcopy(head)
        self.tokenizer = load_tokenizer(family)
        self.reward = reward and RewardModel(reward)
        self.prompts = sentences(11)
        self.queries = [self.tokenizer(p)["input_ids"] for p in self.prompts]
        self.parameters = list(self.policy.parameters()) + list(self.head.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.t["learning_rate"], weight_decay=0.0)
        self.generator = torch.Generator().manual_seed(7)
        self.random = np.random.default_rng(7)
        self.micro = self.t["per_device_train_batch_size"]
        self.local = self.micro * self.t["gradient_accumulation_steps"]
        self.updates = math.ceil(self.t["steps"] * self.micro / self.local)
        self.divisor = GENERATION["temperature"] + 1e-7

    def batches(self):
        epoch = 0
        while True:
            order = row_order(len(self.queries), epoch)
            for i in range(0, len(order) - self.local + 1, self.local):
                yield order[i:i + self.local]
            epoch += 1

    @torch.no_grad()
    def sample(self, query):
        limit, ids = GENERATION["max_new_tokens"], list(query)
        end = int(self.random.integers(0, limit * 2))  # half of the responses get an EOS
        for place in range(limit):
            logits = self.policy(torch.tensor([ids])).logits[0, -1] / self.divisor
            logits[UNUSED] = -math.inf
            token = torch.multinomial(logits.softmax(-1), 1, generator=self.generator).item()
            ids.append(EOS if place == end else token)
            if ids[-1] == EOS:
                break
        return ids[len(query):]

    def logits(self, model, query, response):
        """Logits over the temperature that predict the response's tokens, and the hidden states behind
        them and at the response's last token. [tokens, vocab], [tokens + 1, hidden]"""
        out = model(torch.tensor([query + response]), output_hidden_states=True)
        return out.logits[0, len(query) - 1:-1] / self.divisor, out.hidden_states[-1][0, len(query) - 1:]

    def evaluate(self, query, response, longest):
        """Log-probabilities [tokens], entropies [tokens], values [min(tokens + 1, longest)]."""
        logits, hidden = self.logits(self.policy, query, response)
        logprobs = logits.log_softmax(-1)
        entropies = -(logprobs.exp() * logprobs).sum(-1)
        values = self.head(hidden)[:, 0][:longest]
        return logprobs.gather(1, torch.tensor(response)[:, None])[:, 0], entropies, values

    @torch.no_grad()
    def rollout(self, rows):
        u = {"rows": rows, "queries": [self.queries[r] for r in rows]}
        u["responses"] = [self.sample(q) for q in u["queries"]]
        self.longest = max(map(len, u["responses"]))
        d = {"logprobs": [], "ref_logprobs": [], "values": []}
        for query, response in zip(u["queries"], u["responses"]):
            logprobs, _, values = self.evaluate(query, response, self.longest)
            ref = self.logits(self.reference, query, response)[0].log_softmax(-1)
            d["logprobs"].append(logprobs)
            d["ref_logprobs"].append(ref.gather(1, torch.tensor(response)[:, None])[:, 0])
            d["values"].append(values)
        if self.reward:
            texts = [self.tokenizer.decode(r, skip_special_tokens=True, clean_up_tokenization_spaces=True).strip()
                     for r in u["responses"]]
            u["texts"], u["scores"] = texts, [self.reward(text) for text in texts]
        else:  # the value head at the last token of the response
            u["scores"] = [self.head(self.logits(self.policy, q, r)[1])[-1, 0].item()
                           for q, r in zip(u["queries"], u["responses"])]
        return u, d

    def estimate(self, u, d):
        """Points 5 to 8: final scores, and rewards, advantages, returns into d."""
        penalty = self.t["missing_eos_penalty"] or 0.0
        scores = [s - penalty * (r[-1] != EOS) for s, r in zip(u["scores"], u["responses"])]
        d["rewards"] = []
        for score, p, ref, values in zip(scores, d["logprobs"], d["ref_logprobs"], d["values"]):
            reward = torch.zeros(len(values))
            reward[:len(p)] = -self.t["kl_coef"] * (p - ref)
            reward[-1] += score
            d["rewards"].append(reward)
        if self.t["whiten_rewards"]:
            everything = torch.cat(d["rewards"])
            mean, var = everything.mean(), everything.var()
            d["rewards"] = [(r - mean) / torch.sqrt(var + 1e-8) + mean for r in d["rewards"]]
        d["advantages"], d["returns"] = [], []
        for rewards, values in zip(d["rewards"], d["values"]):
            advantages, last = torch.zeros(len(values)), 0.0
            for t in reversed(range(len(values))):
                after = values[t + 1] if t + 1 < len(values) else 0.0
                last = rewards[t] + self.t["gamma"] * after - values[t] + self.t["gamma"] * self.t["lam"] * last
                advantages[t] = last
            d["returns"].append(advantages + values)
            d["advantages"].append(advantages)
        d["advantages"] = [a[:len(p)] for a, p in zip(d["advantages"], d["logprobs"])]
        everything = torch.cat(d["advantages"])
        mean, var = everything.mean(), everything.var()
        d["advantages"] = [(a - mean) / torch.sqrt(var + 1e-8) for a in d["advantages"]]
        return scores

    def micro_batch(self, u, d, places):
        """Loss and statistics of one micro-batch."""
        new, entropies, values = zip(*(self.evaluate(u["queries"][i], u["responses"][i], self.longest) for i in places))
        pick = lambda key: torch.cat([d[key][i] for i in places])
        new, entropies, values = torch.cat(new), torch.cat(entropies), torch.cat(values)
        difference = new - pick("logprobs")
        ratio, clip = difference.exp(), self.t["cliprange"]
        plain, clamped = -pick("advantages") * ratio, -pick("advantages") * ratio.clamp(1 - clip, 1 + clip)
        policy_loss = torch.max(plain, clamped).mean()
        old, returns, clip = pick("values"), pick("returns"), self.t["cliprange_value"]
        squares = (values - returns).square()
        clamped_squares = (values.clamp(old - clip, old + clip) - returns).square()
        value_loss = 0.5 * torch.max(squares, clamped_squares).mean()
        slots = len(places) * self.longest
        statistics = {
            "policy/approxkl_avg": 0.5 * difference.square().sum() / slots,
            "policy/clipfrac_avg": (clamped > plain).float().mean(), "policy/entropy_avg": entropies.mean(),
            "loss/policy_avg": policy_loss, "loss/value_avg": value_loss,
            "val/clipfrac_avg": (clamped_squares > squares).float().mean(),
            "val/ratio": (ratio.sum() + slots - len(ratio)) / slots}
        return policy_loss + self.t["vf_coef"] * value_loss, {k: v.item() for k, v in statistics.items()}

    def optimise(self, u, d):
        mini, statistics, norms = self.local // self.t["num_mini_batches"], [], []
        u["orders"] = []
        for _ in range(self.t["ppo_epochs"]):
            order = self.random.permutation(self.local).tolist()
            u["orders"].append(order)
            for start in range(0, self.local, mini):
                parts = [order[i:min(i + self.micro, start + mini)] for i in range(start, start + mini, self.micro)]
                for places in parts:
                    loss, of_part = self.micro_batch(u, d, places)
                    (loss / len(parts)).backward()
                    statistics.append(of_part)
                norms.append(torch.nn.utils.clip_grad_norm_(self.parameters, math.inf).item())
                self.optimizer.step()
                self.optimizer.zero_grad()
        averages = {key: float(np.mean([s[key] for s in statistics])) for key in statistics[0]}
        return averages, float(np.mean(norms))

    def update(self, number, rows):
        u, d = self.rollout(rows)
        scores = self.estimate(u, d)
        rate = linear_rate(self.t["learning_rate"], number - 1, self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        averages, norm = self.optimise(u, d)
        kl = [(p - r).sum().item() for p, r in zip(d["logprobs"], d["ref_logprobs"])]
        mean = lambda values: float(np.mean(values))
        ours = {"objective/kl": mean(kl), "objective/entropy": mean([-p.sum().item() for p in d["logprobs"]]),
                "objective/non_score_reward": -self.t["kl_coef"] * mean(kl), "objective/scores": mean(scores)}
        ours["objective/rlhf_reward"] = ours["objective/non_score_reward"] + ours["objective/scores"]
        ours |= averages
        ours["loss"] = ours["loss/policy_avg"] + self.t["vf_coef"] * ours["loss/value_avg"]
        ours["val/num_eos_tokens"] = sum(r[-1] == EOS for r in u["responses"])
        ours |= {"episode": number * self.local, "learning_rate": rate, "grad_norm": norm}
        u["ours"] = ours
        return u, {key: [row.tolist() for row in rows] for key, rows in d.items()}

    def run(self):
        batches, updates, details = self.batches(), [], None
        for number in range(1, self.updates + 1):
            u, d = self.update(number, next(batches))
            details = details or d
            updates.append(u)
        return updates, details


class ValueModel(torch.nn.Module):
    """The value head on the policy's own body, as TRL wants to see it."""

    base_model_prefix = "body"

    def __init__(self, body, head):
        super().__init__()
        self.body, self.score = body, head


def left_padded(rows):
    width = max(map(len, rows))
    return torch.tensor([[UNUSED] * (width - len(row)) + row for row in rows])


def run_trl(family, training, updates, head):
    """TRL's statistics, its generation, reward model and row order replaced by what was recorded."""
    policy, current = load_model(family), iter(updates)
    tokenizer = load_tokenizer(family)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(UNUSED)
    names = {"steps": None, "ppo_epochs": "num_ppo_epochs"}
    settings = {names.get(k, k): v for k, v in (TRAINING | training).items() if names.get(k, k)}
    reward_model = torch.nn.Identity()
    state = {}

    def generate(model, queries, size, pad_token_id, config):
        state["update"] = u = next(current)
        assert queries.tolist() == left_padded(u["queries"]).tolist()
        width = max(map(len, u["responses"]))
        responses = torch.tensor([r + [UNUSED] * (width - len(r)) for r in u["responses"]])
        together = torch.cat([queries, responses], 1)
        logits = ppo_trainer.forward(model, together, pad_token_id).logits[:, queries.shape[1] - 1:-1]
        return together, logits / (GENERATION["temperature"] + 1e-7)

    get_reward = ppo_trainer.get_reward

    def reward(model, ids, pad_token_id, context_length):
        if model is not reward_model:
            return get_reward(model, ids, pad_token_id, context_length)
        return None, torch.tensor(state["update"]["scores"]), None

    with tempfile.TemporaryDirectory() as folder:
        config = trl.PPOConfig(output_dir=folder, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True,
                               num_sample_generations=0, save_strategy="no", stop_token="eos", optim="adamw_torch",
                               response_length=GENERATION["max_new_tokens"], temperature=GENERATION["temperature"],
                               total_episodes=sum(len(u["rows"]) for u in updates), gradient_checkpointing=False,
                               **settings)
        data = Dataset.from_dict({"input_ids": [[3]] * 11})
        trainer = trl.PPOTrainer(args=config, processing_class=tokenizer, model=policy, ref_model=load_model(family),
                                 reward_model=reward_model, train_dataset=data, eval_dataset=data,
                                 value_model=ValueModel(policy.base_model, copy.deepcopy(head)))
        trainer.dataloader = [{"input_ids": left_padded(u["queries"])} for u in updates]
        found = []
        trainer.log = lambda metrics, *_: found.append(
            {k: v for k, v in metrics.items() if "/" in k and k != "val/ratio_var"})
        ppo_trainer.batch_generation, ppo_trainer.get_reward = generate, reward
        trainer.train()
        ppo_trainer.get_reward = get_reward
    return found


def worst_difference(updates):
    for u in updates:  # what TRL does with padding is known exactly for this one
        padding = np.mean([max(map(len, u["responses"])) - len(r) for r in u["responses"]])
        assert abs(u["ours"]["objective/entropy"] - padding - u["trl"]["objective/entropy"]) < 1e-3
    return max(abs(u["ours"][k] - v) for u in updates for k, v in u["trl"].items() if k not in TRL_DIFFERS)


def make():
    torch.manual_seed(3)
    head = torch.nn.Linear(64, 1)
    torch.nn.init.uniform_(head.weight, -1 / 8, 1 / 8)
    torch.nn.init.uniform_(head.bias, -1 / 8, 1 / 8)
    os.makedirs(os.path.join(HERE, "ppo"), exist_ok=True)
    save_file({"weight": head.weight.detach(), "bias": head.bias.detach()},
              os.path.join(HERE, "ppo", "value_head.safetensors"))
    for case, (family, training, reward) in CASES.items():
        run = Run(family, training, reward, head)
        updates, details = run.run()
        if run.local == run.micro:
            for u, found in zip(updates, run_trl(family, training, updates, head), strict=True):
                u["trl"] = found
            worst = worst_difference(updates)
            assert worst < 1e-3, worst
        save_json(os.path.join(HERE, "ppo", case + ".json"), dict(
            made_by="plain PyTorch loop (ours), TRL 0.23.0 PPOTrainer (trl)", model=family,
            training=TRAINING | training, generation=GENERATION, reward_model=reward, prompts=run.prompts,
            updates=updates, details=details,
            parameters=totals(named_parameters(run.policy) | {"value_head." + n: p for n, p in run.head.named_parameters()})))
        compared = f"TRL differs by at most {worst:.1e}" if "trl" in updates[0] else "not compared with TRL"
        print(f"ppo/{case}: {len(updates)} updates, kl {updates[-1]['ours']['objective/kl']:.4f}, {compared}")
