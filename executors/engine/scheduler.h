// Which tokens of which sequences the next forward pass computes. Two questions kept apart: are
// there blocks for them (KvCapacity), and do they fit into the pass (TokenBudget)?
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "executors/engine/block_allocator.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::engine {

// The part of a sequence that scheduling is about. Its tokens are the prompt and what was generated
// so far; those before `computed` have their keys and values in `blocks`.
struct SequenceState {
  std::vector<text::TokenId> tokens;
  int64_t prompt_length = 0;  // of `tokens`
  int64_t computed = 0;
  std::vector<Block> blocks;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t pending() const { return length() - computed; }
};

// Tokens `begin` to `begin + count` of a sequence. Logits are wanted when they are its last.
struct Chunk {
  SequenceState* sequence = nullptr;
  int64_t begin = 0;
  int64_t count = 0;

  bool is_last() const { return begin + count == sequence->length(); }
};

// Gives sequences the blocks for their tokens. Not thread-safe.
class KvCapacity {
 public:
  KvCapacity(int64_t num_blocks, int64_t block_tokens)
      : block_tokens_(block_tokens), allocator_(num_blocks) {}

  // Whether `tokens` tokens of a sequence without blocks would fit now.
  bool Fits(int64_t tokens) const {
    return BlocksFor(tokens, block_tokens_) <= allocator_.num_free();
  }
  // Makes room for the first `tokens` tokens of `sequence`; false, and nothing changed, if there is
  // too little.
  bool Reserve(SequenceState& sequence, int64_t tokens);

 private:
  const int64_t block_tokens_;
  BlockAllocator allocator_;
};

// What one pass may still take in. Not thread-safe.
class TokenBudget {
 public:
  explicit TokenBudget(int64_t tokens) : left_(tokens) {}
  bool is_spent() const { return left_ == 0; }
  // At most `wanted`, as many as are left.
  int64_t Take(int64_t wanted);

 private:
  int64_t left_;
};

struct SchedulerOptions {
  int64_t block_tokens = 16;
  int64_t num_blocks = 0;
  int64_t max_batch_tokens = 2048;
  int64_t max_sequences = 64;
};

// First come, first served: running sequences in the order of their admission, each with all its
// pending tokens (a decoding one has one) as far as the budget goes; then waiting ones, while there
// are blocks for all their tokens. When a running one finds no block, the youngest gives up its own
// and waits at the front, to be computed anew: the oldest always gets on, so all end. Borrows the
// sequences; not thread-safe.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options)
      : options_(options), capacity_(options.num_blocks, options.block_tokens) {}

  // A sequence whose longest form fits into all the blocks together.
  void Add(SequenceState* sequence) { waiting_.push_back(sequence); }

  // The chunks of the next pass, never empty while any sequence is unfinished. The caller computes
  // all of them, sets `computed` and appends tokens before it asks again.
  std::vector<Chunk> Next();

  // Takes a running sequence out and frees its blocks.
  void Finish(SequenceState* sequence);

  bool is_idle() const { return running_.empty() && waiting_.empty(); }
  int64_t num_preemptions() const { return num_preemptions_; }

 private:
  void PreemptYoungest();
  // Whether `sequence` has room now for its tokens up to `end`, at the cost of younger ones; false
  // when it had to give way itself.
  bool MakeRoom(SequenceState* sequence, int64_t end);
  void Admit(TokenBudget& budget, std::vector<Chunk>& chunks);

  const SchedulerOptions options_;
  KvCapacity capacity_;
  std::vector<SequenceState*> running_;  // oldest first
  std::deque<SequenceState*> waiting_;
  int64_t num_preemptions_ = 0;
};

}  // namespace flowmesh::engine
