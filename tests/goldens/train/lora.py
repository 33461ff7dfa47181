"""LoRA fine-tuning, on the texts of sft/texts.json.

lora/<case>.json               as sft/<case>.json, with "lora": the fields of spec.lora, and "prompt"
lora/<case>/start, .../end     the adapter before and after, as PEFT saves it (A random, B zero at the start)
lora/<case>/logits.safetensors "runtime", "merged": [tokens, vocab] of "prompt" with the final adapter
lora/whole_<case>/...          the same of random adapters, with modules_to_save or of the head, that nothing has trained;
                               "prompt" is in whole.json
lora/<case>/grads.safetensors  the gradient for all that is trained, by the names of PEFT's files, with the adapter of
                               .../end: of the first texts' loss (TASKS.md 4.4), which is "grads_loss"
lora/<case>_bf16.json          the steps under bfloat16 autocast, from the case's adapter; "noise" is the difference from
                               float32
"""

import json
import os
import shutil

import peft
import torch
from safetensors.torch import load_file, save_file

import sft
from common import HERE, SEED, difference, load_for_autocast, load_model, load_tokenizer, nudged, save_json, token_loss_sum
from texts import short_texts

TRAINING = sft.BASE | dict(learning_rate=5e-3)
GRADIENT_ROWS = 4
LORA = dict(r=8, alpha=16, dropout=0.0, bias="none", use_rslora=False)
CASES = {
    "llama": ("llama", dict(target_modules=["q_proj", "v_proj"]), dict(num_train_epochs=2.5)),
    "gpt2": ("gpt2", dict(target_modules=["c_attn"]), dict(num_train_epochs=2.5)),
    "all_linear": ("gpt2", dict(target_modules="all-linear", r=4, alpha=6, bias="all", use_rslora=True), dict(max_steps=20)),
    "lora_only": ("qwen2", dict(target_modules=["q_proj", "o_proj"], r=4, alpha=8, bias="lora_only"), dict(max_steps=20)),
}


def adapted(family, settings, model):
    torch.manual_seed(SEED)
    return peft.get_peft_model(model, peft.LoraConfig(
        task_type="CAUSAL_LM", r=settings["r"], lora_alpha=settings["alpha"], lora_dropout=settings["dropout"],
        bias=settings["bias"], target_modules=settings["target_modules"], use_rslora=settings["use_rslora"],
        fan_in_fan_out=family == "gpt2"))


def save_adapter(model, folder):
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))
    path = os.path.join(folder, "adapter_config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["base_model_name_or_path"] = ""  # this machine's path is of no use to others
    config["target_modules"] = sorted(config["target_modules"])  # a set: another order in every run
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2)


def save_gradients(family, texts, max_length, folder):
    """Gives the loss. B is not zero any more at the end: at the start all gradients of A are."""
    model = peft.PeftModel.from_pretrained(load_model(family), os.path.join(folder, "end"), is_trainable=True)
    rows = [torch.tensor(ids) for ids in sft.encode(family, texts, max_length)]
    labels = sum(map(len, rows))
    loss = sum(token_loss_sum(model(ids[None]).logits[0], ids) for ids in rows) / labels
    loss.backward()
    grads = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(g.isfinite().all() and g.norm() > 0 for g in grads.values())
    save_file(grads, os.path.join(folder, "grads.safetensors"), metadata={"format": "pt"})
    return loss.item()


def make_case(case, family, lora, training):
    settings, training, texts = LORA | lora, TRAINING | training, short_texts()
    folder = os.path.join(HERE, "lora", case)
    shutil.rmtree(folder, ignore_errors=True)
    model = adapted(family, settings, load_model(family))
    save_adapter(model, os.path.join(folder, "start"))
    steps = sft.run_trl(model, family, training, texts).steps
    other = sft.run_trl(adapted(family, settings, nudged(load_model(family))), family, training, texts).steps
    save_adapter(model, os.path.join(folder, "end"))
    prompt = load_tokenizer(family)("the small world")["input_ids"]
    model.eval()
    with torch.no_grad():
        runtime = model(torch.tensor([prompt])).logits[0].contiguous()
        merged = model.merge_and_unload()(torch.tensor([prompt])).logits[0].contiguous()
    assert (runtime - merged).abs().max() < 1e-3
    save_file({"runtime": runtime, "merged": merged}, os.path.join(folder, "logits.safetensors"))
    noise = difference(steps, other)
    grads_loss = save_gradients(family, texts[:GRADIENT_ROWS], training["max_seq_length"], folder)
    save_json(folder + ".json", dict(
        made_by="TRL 0.23.0 SFTTrainer with PEFT 0.17.1", model=family, training=training, lora=settings,
        prompt=prompt, noise=noise, grads_loss=grads_loss, steps=steps))
    print(f"lora/{case}: {len(steps)} steps, loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, noise {noise:.1e}")


AUTOCAST = ["llama", "gpt2", "lora_only"]


def make_autocast(case):
    family, lora, training = CASES[case]
    settings, training = LORA | lora, TRAINING | training

    def run(**precision):
        model = adapted(family, settings, load_for_autocast(family))
        return sft.run_trl(model, family, training | precision, short_texts()).steps

    steps = run(bf16=True)
    noise = difference(steps, run())
    save_json(os.path.join(HERE, "lora", case + "_bf16.json"), dict(
        made_by="TRL 0.23.0 SFTTrainer with PEFT 0.17.1", model=family, training=training | dict(bf16=True),
        lora=settings, noise=noise, steps=steps))
    print(f"lora/{case}_bf16: {len(steps)} steps, loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, noise {noise:.1e}")


WHOLE = {  # family, target_modules, modules_to_save
    "embeddings": ("llama", ["q_proj"], ["embed_tokens"]),  # tied: the head stays as it was
    "head_of_tied": ("llama", ["q_proj"], ["lm_head"]),
    "head_and_norms": ("mistral", ["v_proj"], ["lm_head", "norm", "layers.1.self_attn.k_proj"]),
    "adapted_head": ("mistral", ["lm_head", "v_proj"], None),
    "gpt2": ("gpt2", ["c_attn"], ["h.0.attn.c_proj", "ln_f"]),
}


def make_whole(case, family, targets, whole):
    folder = os.path.join(HERE, "lora", f"whole_{case}")
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(SEED)
    model = peft.get_peft_model(load_model(family), peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=targets, modules_to_save=whole,
        fan_in_fan_out=family == "gpt2"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:  # A has values already
                p.add_(torch.randn_like(p) * (0.1 if "lora_" in name else 0.5 * p.std().nan_to_num(1.0)))
                p.copy_(p.bfloat16())  # what is stored is exact
    save_adapter(model, os.path.join(folder, "end"))
    path = os.path.join(folder, "end", "adapter_model.safetensors")
    # In few bytes, and exact: the model's own weights, which are stored beside an adapted head, are float16.
    save_file({name: t.half() if "base_layer" in name else t.bfloat16() for name, t in load_file(path).items()}, path)
    prompt = torch.tensor([load_tokenizer(family)("the small world")["input_ids"]])
    model.eval()
    with torch.no_grad():
        runtime = model(prompt).logits[0].contiguous()
        merged = model.merge_and_unload()(prompt).logits[0].contiguous()
        base = load_model(family).eval()(prompt).logits[0]
    assert (runtime - merged).abs().max() < 1e-3 < (runtime - base).abs().max()
    save_file({"runtime": runtime, "merged": merged}, os.path.join(folder, "logits.safetensors"))
    return dict(model=family, prompt=prompt[0].tolist())


def make():
    for case, arguments in CASES.items():
        make_case(case, *arguments)
    for case in AUTOCAST:
        make_autocast(case)
    save_json(os.path.join(HERE, "lora", "whole.json"), dict(
        made_by="PEFT 0.17.1", cases={case: make_whole(case, *arguments) for case, arguments in WHOLE.items()}))
