#include "executors/train/packing.h"

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>

namespace flowmesh::train {
namespace {

constexpr size_t kGroup = 1000;

}  // namespace

std::vector<std::vector<int64_t>> PackBestFit(std::span<const int64_t> lengths,
                                              int64_t max_length) {
  std::vector<std::vector<int64_t>> rows;
  for (size_t begin = 0; begin < lengths.size(); begin += kGroup) {
    std::vector<int64_t> order(std::min(kGroup, lengths.size() - begin));
    std::iota(order.begin(), order.end(), static_cast<int64_t>(begin));
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    // Rows by the space that they have left; the one that has had it longest is taken first.
    std::map<int64_t, std::deque<size_t>> by_space;
    for (const int64_t document : order) {
      const int64_t length = lengths[static_cast<size_t>(document)];
      auto fit = by_space.lower_bound(length);
      size_t row = rows.size();
      int64_t space = max_length;
      if (fit == by_space.end()) {
        rows.emplace_back();
      } else {
        row = fit->second.front();
        space = fit->first;
        fit->second.pop_front();
        if (fit->second.empty()) by_space.erase(fit);
      }
      rows[row].push_back(document);
      if (space > length) by_space[space - length].push_back(row);
    }
  }
  return rows;
}

}  // namespace flowmesh::train
