#include "executors/data/split.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/strings.h"

namespace flowmesh::data {
namespace {

absl::Status Bad(std::string_view part, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(
      "'", ToAbsl(part), "': ", ToAbsl(why),
      "; a split is written as train, train[10:20], train[:80%] or parts joined by +"));
}

struct Bound {
  std::optional<int64_t> value;
  bool percent = false;
};

absl::StatusOr<Bound> ParseBound(absl::string_view text, std::string_view part) {
  Bound bound;
  text = ToAbsl(Trim(ToStd(text)));
  if (text.empty()) return bound;
  bound.percent = absl::ConsumeSuffix(&text, "%");
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) return Bad(part, "a bound is no integer");
  if (bound.percent && std::abs(value) > 100) return Bad(part, "a percent is beyond 100");
  bound.value = value;
  return bound;
}

absl::StatusOr<SplitPart> ParsePart(std::string_view text) {
  const std::string_view part = Trim(text);
  const size_t open = part.find('[');
  SplitPart result{.name = std::string(Trim(part.substr(0, open)))};
  if (result.name.empty()) return Bad(part, "a split has no name");
  if (result.name.find_first_of("]:%") != std::string::npos) return Bad(part, "no [ before it");
  if (open == std::string_view::npos) return result;
  if (part.back() != ']') return Bad(part, "expected ] at the end");
  const std::vector<absl::string_view> bounds =
      absl::StrSplit(ToAbsl(part.substr(open + 1, part.size() - open - 2)), ':');
  if (bounds.size() != 2) return Bad(part, "expected two bounds with a colon between them");
  ASSIGN_OR_RETURN(const Bound from, ParseBound(bounds[0], part));
  ASSIGN_OR_RETURN(const Bound to, ParseBound(bounds[1], part));
  if (from.value && to.value && from.percent != to.percent) {
    return Bad(part, "both bounds need a % or neither");
  }
  result.from = from.value;
  result.to = to.value;
  result.percent = from.percent || to.percent;
  return result;
}

// numpy's SeedSequence: spreads a seed over as many words as a generator's state has.
class SeedSequence {
 public:
  explicit SeedSequence(uint64_t seed) {
    const uint32_t entropy[kPool] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                                     0, 0};
    uint32_t constant = 0x43b0d7e5;
    const auto hash = [&constant](uint32_t value) {
      value ^= constant;
      constant *= 0x931e8875;
      value *= constant;
      return value ^ (value >> 16);
    };
    for (size_t i = 0; i < kPool; ++i) pool_[i] = hash(entropy[i]);
    for (size_t from = 0; from < kPool; ++from) {
      for (size_t to = 0; to < kPool; ++to) {
        if (from == to) continue;
        const uint32_t mixed = 0xca01f9dd * pool_[to] - 0x4973f715 * hash(pool_[from]);
        pool_[to] = mixed ^ (mixed >> 16);
      }
    }
  }

  uint64_t Next() {
    const uint64_t low = NextWord();
    return low | uint64_t{NextWord()} << 32;
  }

 private:
  static constexpr size_t kPool = 4;

  uint32_t NextWord() {
    uint32_t value = pool_[next_++ % kPool] ^ constant_;
    constant_ *= 0x58f38ded;
    value *= constant_;
    return value ^ (value >> 16);
  }

  uint32_t pool_[kPool];
  uint32_t constant_ = 0x8b51f9dd;
  size_t next_ = 0;
};

// PCG64 (XSL-RR 128/64) with the draws that numpy makes of it.
class Pcg64 {
 public:
  explicit Pcg64(uint64_t seed) {
    SeedSequence words(seed);
    const uint64_t state_high = words.Next(), state_low = words.Next();
    const uint64_t stream_high = words.Next(), stream_low = words.Next();
    increment_ = Join(stream_high, stream_low) << 1 | 1;
    Step();
    state_ += Join(state_high, state_low);
    Step();
  }

  uint64_t Next64() {
    Step();
    const uint64_t high = static_cast<uint64_t>(state_ >> 64), low = static_cast<uint64_t>(state_);
    const int turn = static_cast<int>(high >> 58);
    const uint64_t mixed = high ^ low;
    return mixed >> turn | mixed << (-turn & 63);
  }

  // Both halves of a draw, the low one first.
  uint32_t Next32() {
    if (has_half_) {
      has_half_ = false;
      return half_;
    }
    const uint64_t draw = Next64();
    has_half_ = true;
    half_ = static_cast<uint32_t>(draw >> 32);
    return static_cast<uint32_t>(draw);
  }

  // Even over 0..last, by its lowest bits: draws beyond `last` are thrown away.
  uint32_t UpTo(uint32_t last) {
    uint32_t mask = last;
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    uint32_t draw;
    do {
      draw = Next32() & mask;
    } while (draw > last);
    return draw;
  }

 private:
  __extension__ using Wide = unsigned __int128;

  static Wide Join(uint64_t high, uint64_t low) { return Wide{high} << 64 | low; }
  void Step() { state_ = state_ * Join(2549297995355413924u, 4865540595714422341u) + increment_; }

  Wide state_ = 0, increment_ = 0;
  bool has_half_ = false;
  uint32_t half_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<SplitPart>> ParseSplit(std::string_view text) {
  std::vector<SplitPart> parts;
  for (const absl::string_view piece : absl::StrSplit(ToAbsl(text), '+')) {
    ASSIGN_OR_RETURN(SplitPart part, ParsePart(ToStd(piece)));
    parts.push_back(std::move(part));
  }
  return parts;
}

Range Slice(const SplitPart& part, size_t rows) {
  const int64_t count = static_cast<int64_t>(rows);
  // A bound that rounds to 0 is the first row also when it was negative, as in `datasets`.
  const auto place = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound) return absent;
    int64_t at = *bound;
    if (part.percent) {
      at = static_cast<int64_t>(
          std::nearbyint(static_cast<double>(*bound) * static_cast<double>(rows) / 100.0));
    }
    if (at < 0) at = at < -count ? 0 : at + count;
    return std::min(at, count);
  };
  const int64_t begin = place(part.from, 0), end = place(part.to, count);
  return {.begin = static_cast<size_t>(begin), .end = static_cast<size_t>(std::max(begin, end))};
}

absl::StatusOr<Shard> ReadShard(const Field& spec) {
  const Field block = spec["shard"];
  RETURN_IF_ERROR(block.CheckMap());
  Shard shard;
  ASSIGN_OR_RETURN(shard.total, block["total"].IntOr(1));
  ASSIGN_OR_RETURN(shard.index, block["index"].IntOr(0));
  ASSIGN_OR_RETURN(shard.contiguous, block["contiguous"].BoolOr(true));
  if (shard.total <= 1) return Shard{};
  if (shard.index < 0 || shard.index >= shard.total) {
    return block["index"].Expected(absl::StrCat("an integer from 0 to ", shard.total - 1));
  }
  return shard;
}

std::vector<size_t> ShardRows(const Shard& shard, size_t rows) {
  const size_t index = static_cast<size_t>(shard.index), total = static_cast<size_t>(shard.total);
  std::vector<size_t> places;
  if (!shard.contiguous) {
    for (size_t i = index; i < rows; i += total) places.push_back(i);
    return places;
  }
  const size_t size = rows / total, rest = rows % total;
  const size_t begin = index * size + std::min(index, rest);
  const size_t end = begin + size + (index < rest ? 1 : 0);
  for (size_t i = begin; i < end; ++i) places.push_back(i);
  return places;
}

std::vector<size_t> Permutation(uint64_t seed, size_t rows) {
  std::vector<size_t> order(rows);
  for (size_t i = 0; i < rows; ++i) order[i] = i;
  Pcg64 random(seed);
  for (size_t i = rows; i-- > 1;) {
    // Rows in memory are fewer than 2^32.
    std::swap(order[i], order[random.UpTo(static_cast<uint32_t>(i))]);
  }
  return order;
}

}  // namespace flowmesh::data
