// Any bytes as the stream of a chat endpoint, in both forms: a reply or an error, however it is
// cut.
#include <cstdint>
#include <string_view>

#include "common/sse.h"
#include "executors/agent/reply_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flowmesh;
  if (size == 0) return 0;
  const size_t piece = data[0] % 16 + 1;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  for (const bool is_completions : {true, false}) {
    const auto reader =
        is_completions ? agent::MakeCompletionsReader() : agent::MakeResponsesReader();
    SseParser parser([&](const SseEvent& event) { return reader->OnEvent(event); }, 1 << 16);
    absl::Status status;
    for (size_t at = 0; status.ok() && at < stream.size(); at += piece) {
      status = parser.Feed(stream.substr(at, piece));
    }
    if (status.ok()) (void)reader->FinishStream();
  }
  return 0;
}
