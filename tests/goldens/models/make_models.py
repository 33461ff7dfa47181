"""Small random checkpoints of every decoder family with the numbers that Transformers computes from them.

    python make_models.py [--only NAME] [--gemma PATH_OF_GEMMA_3_270M.gguf]

writes beside itself, per family, a Hugging Face folder (config, weights, tokenizer) and
    cases.json             {"prompts": [[ids], ...]}
    logits.safetensors     "<i>.fp32", "<i>.bf16": logits [tokens, vocab] of prompt i in both dtypes
    greedy.json            {"cases": [{"prompt": [ids], "output": [ids]}]}: 100 greedy continuations in fp32,
                           EOS (2) included where it came; every step's two best logits differ by MIN_MARGIN
and in gguf/ the same models as (quantised) GGUF files, their logits by Transformers from the weights that
the `gguf` package dequantises, and blocks.safetensors: "<type>.raw" bytes and "<type>.values" of them.
"""

import argparse
import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB, HIDDEN, EOS = 320, 64, 2
MIN_MARGIN = 1e-3
CASES, NEW_TOKENS = 100, 24
torch.set_num_threads(2)

COMMON = dict(vocab_size=VOCAB, bos_token_id=1, eos_token_id=EOS, pad_token_id=0, max_position_embeddings=256)
DECODER = dict(COMMON, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
               num_key_value_heads=2)
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
MULTIMODAL = "gemma3"

# name: (config, dtype of the stored weights)
FAMILIES = {
    "llama": (transformers.LlamaConfig(**DECODER | dict(intermediate_size=256), rope_theta=500000.0,
                                       rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True), torch.bfloat16),
    "llama_biased": (transformers.LlamaConfig(**DECODER | dict(num_hidden_layers=2, max_position_embeddings=16), head_dim=24,
                                              attention_bias=True, mlp_bias=True,
                                              rope_scaling=dict(rope_type="dynamic", factor=2.0)), torch.float32),
    "mistral": (transformers.MistralConfig(**DECODER, sliding_window=7), torch.float16),
    "qwen2": (transformers.Qwen2Config(**DECODER, tie_word_embeddings=True, use_sliding_window=False,
                                       sliding_window=5, rope_theta=1e6), torch.bfloat16),
    "qwen2_window": (transformers.Qwen2Config(**DECODER, use_sliding_window=True, sliding_window=5,
                                              max_window_layers=1), torch.bfloat16),
    "qwen3": (transformers.Qwen3Config(**DECODER, head_dim=32, rope_theta=1e6), torch.bfloat16),
    "gemma2": (transformers.Gemma2Config(**DECODER, head_dim=16, query_pre_attn_scalar=24, sliding_window=9,
                                         attn_logit_softcapping=5.0, final_logit_softcapping=8.0), torch.bfloat16),
    "gemma3_text": (transformers.Gemma3TextConfig(
        **DECODER | dict(num_hidden_layers=6, intermediate_size=256, num_key_value_heads=1), head_dim=32, query_pre_attn_scalar=32,
        sliding_window=9, rope_local_base_freq=10000.0, rope_theta=1e6,
        rope_scaling=dict(rope_type="linear", factor=8.0)), torch.bfloat16),
    "gpt2": (transformers.GPT2Config(**{k: v for k, v in COMMON.items() if k != "max_position_embeddings"}, n_positions=128,
                                     n_embd=HIDDEN, n_layer=3, n_head=4), torch.float32),
}
SHARDED = {"qwen3"}
GREEDY = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2"]


def random_model(config, dtype, seed):
    """Weights large enough that attention and MLP decide the next token, rounded to the stored dtype."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    centre = 0.0 if config.model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in ("model.norm.weight", "transformer.ln_f.weight") and config.tie_word_embeddings:
                p.copy_(torch.randn_like(p) + centre - 1)  # else a tied head makes every token repeat itself
            elif "norm" in name or "ln_" in name:
                p.copy_(torch.randn_like(p) * 0.2 + (centre if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(torch.randn_like(p) * 0.3)
            elif "embed_tokens" in name or "wte" in name or "wpe" in name:
                p.copy_(torch.randn_like(p) * (0.3 if centre else 0.06))
            else:
                fan_in = p.shape[0] if config.model_type == "gpt2" and "lm_head" not in name else p.shape[1]
                p.copy_(torch.randn_like(p) * 2.0 / math.sqrt(fan_in))
            p.copy_(p.to(dtype).float())
    model.tie_weights()
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=[EOS], pad_token_id=0)
    return model


def save_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = ["the quick brown fox jumps over the lazy dog", "a model of the world in a small file", "hello there, other one"]
    tokenizer.train_from_iterator(text * 4, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                   "unk_token": "<unk>"}, f)
    return tokenizer


def prompts_for(name, count, longest, seed):
    rng = np.random.default_rng([seed, len(name)])
    return [rng.integers(3, VOCAB, size=int(n)).tolist() for n in rng.integers(1, longest + 1, size=count)]


@torch.no_grad()
def logits_of(model, prompt):
    model(torch.tensor([prompt[:1]]))  # a short sequence takes dynamic rope back to its start
    return model(torch.tensor([prompt])).logits[0].float().contiguous()


def in_bfloat16(model):
    """A copy as from_pretrained(dtype=bfloat16) makes it: .to() would round the rotary frequencies as well."""
    copy = transformers.AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16, attn_implementation="eager").eval()
    copy.load_state_dict(model.state_dict())
    return copy


def save_logits(model, folder, prompts, bf16=True):
    tensors = {}
    for i, prompt in enumerate(prompts):
        tensors[f"{i}.fp32"] = logits_of(model, prompt)
    if bf16:
        rounded = in_bfloat16(model)
        for i, prompt in enumerate(prompts):
            tensors[f"{i}.bf16"] = logits_of(rounded, prompt).to(torch.bfloat16)
    save_file(tensors, os.path.join(folder, "logits.safetensors"))
    with open(os.path.join(folder, "cases.json"), "w") as f:
        json.dump({"prompts": prompts}, f)


@torch.no_grad()
def save_greedy(model, folder, name):
    cases, margin, repeats = [], math.inf, 0
    for prompt in prompts_for(name, 4 * CASES, 40, 11):
        out = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True,
                             return_dict_in_generate=True, attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
        best = torch.stack([step[0].topk(2).values for step in out.logits])
        case_margin = (best[:, 0] - best[:, 1]).min().item()
        if case_margin < MIN_MARGIN:
            continue
        margin = min(margin, case_margin)
        tokens = out.sequences[0, len(prompt):].tolist()
        repeats += sum(a == b for a, b in zip(tokens, tokens[1:]))
        cases.append({"prompt": prompt, "output": tokens})
        if len(cases) == CASES:
            break
    assert len(cases) == CASES, (name, len(cases))
    with open(os.path.join(folder, "greedy.json"), "w") as f:
        f.write('{"min_margin": %g, "cases": [\n%s\n]}\n' % (margin, ",\n".join(json.dumps(c) for c in cases)))
    total = sum(len(c["output"]) for c in cases)
    distinct = len({t for c in cases for t in c["output"]})
    ended = sum(c["output"][-1] == EOS for c in cases)
    print(f"{name}: margin {margin:.2g}, {total} tokens, {distinct} distinct, {repeats / total:.0%} repeats, {ended} ended by EOS")


def make_folder(name):
    config, dtype = FAMILIES[name]
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    save_tokenizer(folder)
    model = random_model(config, dtype, seed=len(name))
    model.to(dtype).save_pretrained(folder, max_shard_size="100KB" if name in SHARDED else "5GB")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    save_logits(model, folder, [p for p in prompts_for(name, 2, 12, 5)] + prompts_for(name, 1, 40, 7) + [list(range(3, 35))])
    if name in GREEDY:
        save_greedy(model, folder, name)
    return model


def make_multimodal():
    """gemma3: two layers below `language_model.`, settings in `text_config`, a tensor of the image part beside."""
    text = transformers.Gemma3TextConfig(**DECODER | dict(num_hidden_layers=2), head_dim=16, query_pre_attn_scalar=16,
                                         sliding_window=6, layer_types=["sliding_attention", "full_attention"])
    model = random_model(text, torch.bfloat16, seed=3)
    folder = os.path.join(HERE, MULTIMODAL)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    save_tokenizer(folder)
    save_logits(model, folder, prompts_for(MULTIMODAL, 2, 20, 5))
    tensors = {"language_model." + k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    tensors["vision_tower.vision_model.embeddings.patch_embedding.bias"] = torch.zeros(4, dtype=torch.bfloat16)
    tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = torch.zeros(4, dtype=torch.bfloat16)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
                   "eos_token_id": [EOS, 7], "text_config": json.loads(text.to_json_string(use_diff=False)),
                   "vision_config": {"model_type": "siglip_vision_model"}}, f, indent=1)


# ---- GGUF ----

def ggml_quantize(weights, kind):
    """K-quants by ggml's own reference code; the `gguf` package cannot write them."""
    lib = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))
    function = getattr(lib, f"quantize_row_{kind.name.lower().replace('_k', '_K')}_ref")
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    source = np.ascontiguousarray(weights, dtype=np.float32)
    result = np.empty((source.shape[0], source.shape[1] // block * size), dtype=np.uint8)
    function(source.ctypes.data, result.ctypes.data, source.size)
    return result


def quantize(weights, kind):
    if kind.name.endswith("_K"):
        return ggml_quantize(weights, kind)
    return gguf.quants.quantize(weights, kind)


T = gguf.GGMLQuantizationType
NAMES = {  # Transformers' names inside a layer -> GGUF
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_1": "attn_norm", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down"}
GEMMA_NAMES = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
               "post_feedforward_layernorm": "post_ffw_norm"}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight",
       "transformer.wte.weight": "token_embd.weight", "transformer.wpe.weight": "position_embd.weight",
       "transformer.ln_f.weight": "output_norm.weight", "transformer.ln_f.bias": "output_norm.bias"}
# Types of the weight matrices, by turns; rows of 64 take the first list, rows of 256 the second.
SMALL, LARGE = [T.Q8_0, T.Q4_0, T.Q5_0, T.F16, T.BF16, T.Q5_0], [T.Q4_K, T.Q6_K, T.Q5_K]


def gguf_name(name, gemma):
    if name in TOP:
        return TOP[name]
    parts = name.split(".")
    stem = ".".join(parts[3:-1])
    return f"blk.{parts[2]}.{(NAMES | GEMMA_NAMES if gemma else NAMES)[stem]}.{parts[-1]}"


def permute(w, heads):
    """Rows in the order of interleaved rotation, as convert_hf_to_gguf.py does for `llama`."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def add_vocabulary(writer, arch, folder):
    if arch in ("llama", "gemma3", "gemma2"):
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        types = [2, 3, 3] + [6] * 256
        pieces = ["\u2581", "e", "t", "a", "o", "h", "th", "the", "\u2581the", "he", "in", "\u2581a", "er", "re", "on", "l", "d", "r"]
        pieces += [f"\u2581w{i}" for i in range(VOCAB - len(tokens) - len(pieces))]
        scores = [0.0] * len(tokens) + [-float(i) for i in range(len(pieces))]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens + pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(types + [1] * len(pieces))
    else:
        with open(os.path.join(folder, "tokenizer.json")) as f:
            bpe = json.load(f)["model"]
        tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
        tokens += [f"<unused{i}>" for i in range(VOCAB - len(tokens))]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2" if arch.startswith("qwen") else "gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if i < 3 else 1 for i in range(len(tokens))])
        writer.add_token_merges([" ".join(m) for m in bpe["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS)


def add_settings(writer, arch, c):
    get = lambda *names: next(getattr(c, n) for n in names if hasattr(c, n))
    writer.add_context_length(get("n_positions", "max_position_embeddings"))
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(get("n_layer", "num_hidden_layers"))
    writer.add_feed_forward_length(4 * HIDDEN if arch == "gpt2" else c.intermediate_size)
    writer.add_head_count(get("n_head", "num_attention_heads"))
    if arch == "gpt2":
        return writer.add_layer_norm_eps(c.layer_norm_epsilon)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    if arch in ("qwen3", "gemma2", "gemma3"):
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if arch.startswith("gemma"):
        writer.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == "gemma3" and c.rope_scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(c.rope_scaling["factor"])
    if arch == "llama":
        writer.add_rope_dimension_count(c.head_dim)
        writer.add_vocab_size(VOCAB)
        writer.add_tensor("rope_freqs.weight", llama3_factors(c))


def llama3_factors(c):
    """The divisors of the rotary frequencies, as convert_hf_to_gguf.py stores them."""
    s, factors = c.rope_scaling, []
    old, low, high = s["original_max_position_embeddings"], s["low_freq_factor"], s["high_freq_factor"]
    for i in range(0, c.head_dim, 2):
        wavelength = 2 * math.pi * c.rope_theta ** (i / c.head_dim)
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(s["factor"])
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / s["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def make_gguf(arch, family):
    """The family's checkpoint as a GGUF file of mixed types, and logits from what the file holds."""
    folder = os.path.join(HERE, family)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    c, gemma = model.config, arch.startswith("gemma")
    if gemma:  # what the file does not hold
        c.query_pre_attn_scalar = c.head_dim
        for layer in model.model.layers:
            layer.self_attn.scaling = c.head_dim ** -0.5
    path = os.path.join(HERE, "gguf", arch + ".gguf")
    writer = gguf.GGUFWriter(path, arch)
    add_settings(writer, arch, c)
    add_vocabulary(writer, arch, folder)
    tied = "lm_head.weight" if c.tie_word_embeddings else None
    turns = {64: 0, 256: 0}
    state = model.state_dict()
    for name, tensor in state.items():
        if name == tied:
            continue
        w = tensor.numpy().copy()
        heads = {"q_proj": c.num_attention_heads, "k_proj": getattr(c, "num_key_value_heads", 0)}.get(name.split(".")[-2], 0)
        transposed = arch == "gpt2" and "c_" in name and w.ndim == 2
        w = w.T.copy() if transposed else w
        if arch == "llama" and heads:
            w = permute(w, heads)
        if gemma and "norm" in name:
            w = w + 1
        kind = T.F32
        if w.ndim == 2 and w.shape[1] in turns and "wpe" not in name:
            kinds = SMALL if w.shape[1] == 64 else LARGE
            kind = kinds[turns[w.shape[1]] % len(kinds)]
            turns[w.shape[1]] += 1
        data = w.astype(np.float32) if kind == T.F32 else quantize(w.astype(np.float32), kind)
        writer.add_tensor(gguf_name(name, gemma), data, raw_dtype=None if kind == T.F32 else kind)
        w = gguf.quants.dequantize(data, kind) if kind != T.F32 else data
        if arch == "llama" and heads:
            w = unpermute(w, heads)
        if gemma and "norm" in name:
            w = w - 1
        state[name] = torch.from_numpy(np.ascontiguousarray(w.T if transposed else w))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    state.pop("lm_head.weight") if tied else None
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    target = os.path.join(HERE, "gguf", arch)
    os.makedirs(target, exist_ok=True)
    prompts = [[1] + p for p in prompts_for(arch, 3, 30, 9)]
    save_logits(model, target, prompts, bf16=False)
    check_with_llama_cpp(arch, path, model, prompts)


LLAMA_CPP = """
import json, sys, llama_cpp, numpy as np
path, prompts, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
engine = llama_cpp.Llama(path, n_ctx=64, logits_all=True, verbose=False, n_threads=1)
scores = {}
for i, prompt in enumerate(prompts):
    engine.reset()
    engine.eval(prompt)
    scores[str(i)] = engine.scores[: len(prompt)].copy()
np.savez(out, **scores)
"""


def check_with_llama_cpp(arch, path, model, prompts):
    """The file means the same to llama.cpp: its logits are near those of Transformers."""
    with tempfile.TemporaryDirectory() as folder:  # a process of its own: torch brings another OpenMP
        out = os.path.join(folder, "scores.npz")
        if subprocess.run([sys.executable, "-c", LLAMA_CPP, path, json.dumps(prompts), out]).returncode != 0:
            return print(f"gguf/{arch}: llama.cpp does not run here, not compared")
        theirs = np.load(out)
        worst = max(np.abs(logits_of(model, p).numpy() - theirs[str(i)]).max() / theirs[str(i)].std()
                    for i, p in enumerate(prompts))
    print(f"gguf/{arch}: llama.cpp differs by at most {worst:.3f} of the logits' deviation")


def make_blocks():
    rng, tensors = np.random.default_rng(3), {}
    for kind in [T.Q8_0, T.Q4_0, T.Q5_0, T.Q4_K, T.Q5_K, T.Q6_K]:
        weights = (rng.standard_normal((3, 512)) * rng.uniform(0.01, 4, (3, 1))).astype(np.float32)
        raw = np.ascontiguousarray(quantize(weights, kind))
        tensors[f"{kind.name}.raw"] = torch.from_numpy(raw)
        tensors[f"{kind.name}.values"] = torch.from_numpy(gguf.quants.dequantize(raw, kind).astype(np.float32).copy())
    save_file(tensors, os.path.join(HERE, "gguf", "blocks.safetensors"))


def make_gemma(path):
    """The real Gemma 3 270M: its best 50 logits per token, and every 1024th."""
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields["gemma3." + key].contents()
    head = field("attention.key_length")
    c = transformers.Gemma3TextConfig(
        vocab_size=262144, hidden_size=field("embedding_length"), intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"), num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"), head_dim=head, query_pre_attn_scalar=head,
        max_position_embeddings=field("context_length"), sliding_window=field("attention.sliding_window"),
        rope_theta=field("rope.freq_base"), rope_local_base_freq=10000.0)
    c._attn_implementation = "eager"
    with torch.device("meta"):
        model = transformers.Gemma3ForCausalLM(c)
    stored = {t.name: t for t in reader.tensors}
    state = {}
    for name in model.state_dict():
        if name == "lm_head.weight":
            continue
        t = stored[gguf_name(name, True)]
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        state[name] = torch.from_numpy(w - 1 if "norm" in name else w.copy())
    model = transformers.Gemma3ForCausalLM.from_pretrained(None, config=c, state_dict=state, dtype=torch.float32,
                                                           attn_implementation="eager").eval()
    prompts = [[2, 818, 5279, 529, 7001, 563], [2, 9366, 236787, 2900, 563, 506, 7488, 13401], [2] + list(range(1000, 1560, 1))]
    tensors = {}
    for i, prompt in enumerate(prompts):
        logits = logits_of(model, prompt)[-16:]
        best = logits.topk(50)
        tensors[f"{i}.best_ids"], tensors[f"{i}.best"] = best.indices.contiguous(), best.values.contiguous()
        tensors[f"{i}.every_1024th"] = logits[:, ::1024].contiguous()
    folder = os.path.join(HERE, "gemma_3_270m")
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "logits.safetensors"))
    with open(os.path.join(folder, "cases.json"), "w") as f:
        json.dump({"prompts": prompts}, f)


GGUF = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3": "gemma3_text", "gpt2": "gpt2"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    parser.add_argument("--gemma")
    args = parser.parse_args()
    chosen = lambda name: args.only is None or args.only == name
    for name in FAMILIES:
        if chosen(name):
            make_folder(name)
    if chosen(MULTIMODAL):
        make_multimodal()
    os.makedirs(os.path.join(HERE, "gguf"), exist_ok=True)
    for arch, family in GGUF.items():
        if chosen("gguf") or args.only == "gguf/" + arch:
            make_gguf(arch, family)
    if chosen("gguf"):
        make_blocks()
    if args.gemma:
        make_gemma(args.gemma)


if __name__ == "__main__":
    main()
