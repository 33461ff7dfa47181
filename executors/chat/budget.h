// What rendering one template may cost: a template comes from a stranger's model.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace flowmesh::chat {

class Budget {
 public:
  // A step of evaluation, or `bytes` of text or of list that are made or looked through.
  // ResourceExhausted: there is no more.
  absl::Status Charge(int64_t bytes = 0) {
    left_ -= 64 + bytes;
    if (left_ >= 0) return absl::OkStatus();
    return absl::ResourceExhaustedError("the template makes too many steps or too much text");
  }

 private:
  int64_t left_ = int64_t{1} << 28;  // about four million steps; a second or two
};

}  // namespace flowmesh::chat
