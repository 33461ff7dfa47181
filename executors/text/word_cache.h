// A bounded memory of encoded words: the few thousand words that make up most text are looked up,
// not merged again.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/strings.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

// Thread-safe.
class WordCache {
 public:
  // Appends the ids of `word` to `ids` when it is known.
  bool Append(std::string_view word, std::vector<TokenId>& ids) const {
    if (word.size() > kLongestWord) return false;
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = words_.find(ToAbsl(word));
    if (found == words_.end()) return false;
    ids.insert(ids.end(), found->second.begin(), found->second.end());
    return true;
  }

  // Starts afresh when full, so that it follows a change of subject.
  void Put(std::string_view word, std::vector<TokenId> ids) {
    if (word.size() > kLongestWord) return;
    absl::MutexLock lock(&mutex_);
    if (words_.size() >= kMostWords) words_.clear();
    words_.emplace(std::string(word), std::move(ids));
  }

 private:
  static constexpr size_t kLongestWord = 256;  // bytes
  static constexpr size_t kMostWords = 16384;

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::vector<TokenId>> words_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace flowmesh::text
