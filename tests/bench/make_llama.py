"""Writes a Llama of random weights into the folder FOLDER: 190 million, a fifth of them in the embeddings, as in a
model of a billion.
"""
import sys

import torch
import transformers

config = transformers.LlamaConfig(
    vocab_size=51200, hidden_size=768, intermediate_size=3072, num_hidden_layers=16, num_attention_heads=12,
    num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True)
torch.manual_seed(1)
transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
