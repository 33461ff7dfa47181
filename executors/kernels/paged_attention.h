// Attention over keys and values that lie in blocks, on the CPU. Plain pointers, no libtorch.
#pragma once

#include <cstdint>

namespace flowmesh::kernels {

// One token's view of its sequence.
struct PagedToken {
  const int32_t* block_table = nullptr;  // blocks of its sequence, in order
  int64_t position = 0;                  // its place: it sees the places 0..position
};

struct PagedShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t block_tokens = 0;
  float scale = 1;
  int64_t window = 0;  // sees only the last `window` places, itself included; 0: all
  float soft_cap = 0;  // cap * tanh(score / cap); 0: none
};

// q, out: [tokens, heads, head_dim]; keys, values: [blocks, block_tokens, kv_heads, head_dim].
// Computes the work items begin..end-1 of tokens * kv_heads (item = token * kv_heads + kv_head).
// Arithmetic in float32; a token's result depends on nothing but its own sequence. Single-threaded:
// callers split the items.
void PagedAttentionFp32(const float* q, const float* keys, const float* values, float* out,
                        const PagedToken* tokens, const PagedShape& shape, int64_t begin,
                        int64_t end);
// The same with bfloat16 (raw bits) in memory.
void PagedAttentionBf16(const uint16_t* q, const uint16_t* keys, const uint16_t* values,
                        uint16_t* out, const PagedToken* tokens, const PagedShape& shape,
                        int64_t begin, int64_t end);

}  // namespace flowmesh::kernels
