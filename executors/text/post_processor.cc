#include "executors/text/post_processor.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace flowmesh::text {
namespace {

absl::StatusOr<TokenId> ReadId(const Field& field) {
  ASSIGN_OR_RETURN(const int64_t id, field.Int(0, std::numeric_limits<TokenId>::max()));
  return static_cast<TokenId>(id);
}

}  // namespace

PostProcessor::PostProcessor(std::vector<TokenId> before, std::vector<TokenId> after) {
  templates_.push_back({{false, std::move(before)}, {true, {}}, {false, std::move(after)}});
}

absl::StatusOr<PostProcessor::Template> PostProcessor::ReadTemplate(const Field& spec) {
  const Field single = spec["single"];
  RETURN_IF_ERROR(single.CheckList());
  Template parts;
  for (size_t i = 0; i < single.size(); ++i) {
    const Field piece = single[i];
    if (piece["Sequence"].present()) {
      ASSIGN_OR_RETURN(const std::string id, piece["Sequence"]["id"].String());
      if (id != "A") return piece["Sequence"]["id"].Expected("A, the only sequence of `single`");
      parts.push_back({true, {}});
      continue;
    }
    ASSIGN_OR_RETURN(const std::string name, piece["SpecialToken"]["id"].String());
    const Field ids = spec["special_tokens"][name]["ids"];
    RETURN_IF_ERROR(ids.CheckList());
    if (!ids.present()) return ids.Expected("a list of token ids");
    Part part;
    for (size_t k = 0; k < ids.size(); ++k) {
      ASSIGN_OR_RETURN(const TokenId id, ReadId(ids[k]));
      part.ids.push_back(id);
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

absl::StatusOr<PostProcessor> PostProcessor::Make(const Field& spec) {
  PostProcessor made;
  if (!spec.present()) return made;
  RETURN_IF_ERROR(spec.CheckMap());
  ASSIGN_OR_RETURN(const std::string type, spec["type"].String());
  if (type == "ByteLevel") return made;  // it only moves offsets
  if (type == "TemplateProcessing") {
    ASSIGN_OR_RETURN(Template parts, ReadTemplate(spec));
    made.templates_.push_back(std::move(parts));
    return made;
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    ASSIGN_OR_RETURN(const TokenId cls, ReadId(spec["cls"][1]));
    ASSIGN_OR_RETURN(const TokenId sep, ReadId(spec["sep"][1]));
    return PostProcessor({cls}, {sep});
  }
  if (type == "Sequence") {
    const Field steps = spec["processors"];
    RETURN_IF_ERROR(steps.CheckList());
    for (size_t i = 0; i < steps.size(); ++i) {
      ASSIGN_OR_RETURN(PostProcessor step, Make(steps[i]));
      for (Template& parts : step.templates_) made.templates_.push_back(std::move(parts));
    }
    return made;
  }
  return spec["type"].Error(absl::StrCat("the post-processor \"", type, "\" is not supported"));
}

std::vector<TokenId> PostProcessor::Apply(std::vector<TokenId> ids, bool add_special) const {
  for (const Template& parts : templates_) {
    std::vector<TokenId> out;
    out.reserve(ids.size() + parts.size());
    for (const Part& part : parts) {
      if (part.text) {
        out.insert(out.end(), ids.begin(), ids.end());
      } else if (add_special) {
        out.insert(out.end(), part.ids.begin(), part.ids.end());
      }
    }
    ids = std::move(out);
  }
  return ids;
}

}  // namespace flowmesh::text
