// A rank's byte stream in pieces of any size: frames, an error, or a wait for more; never more
// memory than what was fed.
#include <algorithm>
#include <cstdint>

#include "executors/launch/frames.h"
#include "flowmesh/v1/rank.pb.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = 1 + data[0];
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  flowmesh::executor::FrameDecoder decoder;
  while (!bytes.empty()) {
    const size_t n = std::min(piece, bytes.size());
    decoder.Feed(bytes.substr(0, n));
    bytes.remove_prefix(n);
    while (true) {
      const auto frame = decoder.Next();
      if (!frame.ok()) return 0;
      if (!frame->has_value()) break;
      flowmesh::v1::FromRank message;
      (void)message.ParseFromString(**frame);
    }
  }
  return 0;
}
