// Any bytes as a tokenizer.json: an error, or a tokenizer whose ids are all its own and whose
// decoded text is UTF-8.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/strings.h"
#include "executors/text/hf_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto document = flowmesh::text::ParseTokenizerDocument(bytes);
  if (!document.ok()) return 0;
  const auto made = flowmesh::text::HfTokenizer::Make(*std::move(document), {});
  if (!made.ok()) return 0;
  const flowmesh::text::Tokenizer& tokenizer = **made;
  // What the file itself says, and a little of everything.
  for (const std::string text : {std::string(bytes.substr(0, 200)),
                                 std::string("Hello, wörld! 123\n\t 你好 e\u0301 <s>\0ab", 38)}) {
    const std::vector<flowmesh::text::TokenId> ids = tokenizer.Encode(text, true);
    for (const auto id : ids) (void)tokenizer.IsSpecial(id);
    if (!flowmesh::IsValidUtf8(tokenizer.Decode(ids, false))) std::abort();
    flowmesh::text::IncrementalDecoder decoder(&tokenizer, {});
    for (const auto id : ids) {
      if (!flowmesh::IsValidUtf8(decoder.Append(id))) std::abort();
    }
  }
  return 0;
}
