#include "executors/engine/scheduler.h"

#include <algorithm>

namespace flowmesh::engine {

bool KvCapacity::Reserve(SequenceState& sequence, int64_t tokens) {
  const int64_t missing =
      BlocksFor(tokens, block_tokens_) - static_cast<int64_t>(sequence.blocks.size());
  if (missing > allocator_.num_free()) return false;
  for (int64_t i = 0; i < missing; ++i) sequence.blocks.push_back(*allocator_.Allocate());
  return true;
}

int64_t TokenBudget::Take(int64_t wanted) {
  const int64_t taken = std::min(wanted, left_);
  left_ -= taken;
  return taken;
}

void Scheduler::PreemptYoungest() {
  SequenceState* youngest = running_.back();
  running_.pop_back();
  youngest->blocks.clear();
  youngest->computed = 0;
  waiting_.push_front(youngest);
  ++num_preemptions_;
}

bool Scheduler::MakeRoom(SequenceState* sequence, int64_t end) {
  while (!capacity_.Reserve(*sequence, end)) {
    const bool gives_way = running_.back() == sequence;
    PreemptYoungest();
    if (gives_way) return false;
  }
  return true;
}

void Scheduler::Admit(TokenBudget& budget, std::vector<Chunk>& chunks) {
  while (!waiting_.empty() && !budget.is_spent() &&
         static_cast<int64_t>(running_.size()) < options_.max_sequences) {
    SequenceState* sequence = waiting_.front();
    if (!capacity_.Fits(sequence->length())) return;
    waiting_.pop_front();
    running_.push_back(sequence);
    // All at once, so that whoever comes next does not count on the same blocks.
    capacity_.Reserve(*sequence, sequence->length());
    chunks.push_back({sequence, 0, budget.Take(sequence->length())});
  }
}

std::vector<Chunk> Scheduler::Next() {
  std::vector<Chunk> chunks;
  TokenBudget budget(options_.max_batch_tokens);
  // Only sequences behind the current one are ever preempted for it, so chunks stay valid.
  for (size_t i = 0; i < running_.size() && !budget.is_spent(); ++i) {
    SequenceState* sequence = running_[i];
    const int64_t count = budget.Take(sequence->pending());
    if (!MakeRoom(sequence, sequence->computed + count)) break;
    chunks.push_back({sequence, sequence->computed, count});
  }
  Admit(budget, chunks);
  return chunks;
}

void Scheduler::Finish(SequenceState* sequence) {
  sequence->blocks.clear();
  running_.erase(std::find(running_.begin(), running_.end(), sequence));
}

}  // namespace flowmesh::engine
