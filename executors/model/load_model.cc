#include "executors/model/checkpoint.h"

namespace flowmesh::model {
absl::StatusOr<std::unique_ptr<text::Tokenizer>> LoadTokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.gguf == nullptr) return text::LoadTokenizerFromFolder(checkpoint.path);
  ASSIGN_OR_RETURN(text::GgufVocabulary vocabulary, ReadGgufVocabulary(*checkpoint.gguf));
  auto tokenizer = text::MakeGgufTokenizer(std::move(vocabulary));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), checkpoint.path.string());
  return tokenizer;
}

absl::StatusOr<LoadedModel> LoadModel(const std::filesystem::path& path,
                                      const LoadOptions& options) {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(path));
  LoadedModel loaded;
  loaded.path = checkpoint.path;
  ASSIGN_OR_RETURN(loaded.tokenizer, LoadTokenizer(checkpoint));
  ASSIGN_OR_RETURN(std::unique_ptr<Decoder> model,
                   LoadDecoder(checkpoint, options, &loaded.warnings));
  if (loaded.tokenizer->eos_id()) model->AddEosIds({*loaded.tokenizer->eos_id()});
  loaded.model = std::move(model);
  return loaded;
}

}  // namespace flowmesh::model
