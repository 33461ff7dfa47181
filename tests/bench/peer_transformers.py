"""Greedy decoding of the demo's model by Transformers in bfloat16: the peer of decode_bench.

Prints the same lines as decode_bench: name<TAB>value. The weights are the GGUF file's, dequantised.
"""
import argparse
import resource
import statistics
import time

import gguf
import numpy as np
import torch
import transformers

TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
         "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}


def stored_name(name):
    if name in TOP:
        return TOP[name]
    _, _, layer, *stem, kind = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(stem)]}.{kind}"


def load(path):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields["gemma3." + key].contents()
    head = field("attention.key_length")
    config = transformers.Gemma3TextConfig(
        vocab_size=262144, hidden_size=field("embedding_length"), intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"), num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"), head_dim=head, query_pre_attn_scalar=head,
        max_position_embeddings=field("context_length"), sliding_window=field("attention.sliding_window"),
        rope_theta=field("rope.freq_base"), rope_local_base_freq=10000.0)
    with torch.device("meta"):
        names = [n for n in transformers.Gemma3ForCausalLM(config).state_dict() if n != "lm_head.weight"]
    tensors = {t.name: t for t in reader.tensors}
    state = {}
    for name in names:
        t = tensors[stored_name(name)]
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        state[name] = torch.from_numpy(w - 1 if "norm" in name else w.copy()).to(torch.bfloat16)
    return transformers.Gemma3ForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype=torch.bfloat16).eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--prompt", required=True, help="token ids, joined by commas")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--batches", required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    model = load(args.model)
    print(f"load\t{time.perf_counter() - start:.3f}")
    prompt = [int(i) for i in args.prompt.split(",")]

    def run(batch, tokens):
        ids = torch.tensor([prompt] * batch)
        mask = torch.ones_like(ids)
        start = time.perf_counter()
        out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
        assert out.shape[1] == len(prompt) + tokens
        return batch * tokens / (time.perf_counter() - start)

    with torch.inference_mode():
        run(1, 4)
        for batch in map(int, args.batches.split(",")):
            print(f"batch {batch}\t{statistics.median(run(batch, args.tokens) for _ in range(args.runs)):.2f}", flush=True)
    print(f"memory\t{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


if __name__ == "__main__":
    main()
