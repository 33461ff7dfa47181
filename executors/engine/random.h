// A small counter-based generator: the same draws on every machine and standard library.
#pragma once

#include <cstdint>

namespace flowmesh::engine {

// SplitMix64. Copyable; not thread-safe.
class Random {
 public:
  // Every pair of seed and stream gives a sequence of its own.
  Random(uint64_t seed, uint64_t stream) : state_(Mix(Mix(seed + kStep) ^ (stream + kStep))) {}

  // Uniform in [0, 1), all 53 bits random.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd

  uint64_t Next() { return Mix(state_ += kStep); }

  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }

  uint64_t state_;
};

}  // namespace flowmesh::engine
