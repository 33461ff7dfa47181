#include "executors/model/checkpoint.h"

namespace flowmesh::model {

absl::StatusOr<text::GgufVocabulary> ReadTokenizerVocabulary(const Checkpoint& checkpoint) {
  const GgufFile* own = checkpoint.gguf.get();
  if (own != nullptr && own->path() == checkpoint.tokenizer) return ReadGgufVocabulary(*own);
  ASSIGN_OR_RETURN(const auto other, GgufFile::Open(checkpoint.tokenizer));
  return ReadGgufVocabulary(*other);
}

absl::StatusOr<std::unique_ptr<text::Tokenizer>> LoadTokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.tokenizer.extension() != ".gguf") {
    return text::LoadTokenizerFromFolder(checkpoint.tokenizer);
  }
  ASSIGN_OR_RETURN(text::GgufVocabulary vocabulary, ReadTokenizerVocabulary(checkpoint));
  auto tokenizer = text::MakeGgufTokenizer(std::move(vocabulary));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), checkpoint.tokenizer.string());
  return tokenizer;
}

absl::StatusOr<LoadedModel> LoadModel(const std::filesystem::path& path,
                                      const LoadOptions& options) {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(path));
  return LoadModel(checkpoint, options, nullptr);
}

absl::StatusOr<LoadedModel> LoadModel(const Checkpoint& checkpoint, const LoadOptions& options,
                                      const std::function<absl::Status(Decoder&)>& prepare) {
  LoadedModel loaded;
  loaded.path = checkpoint.path;
  ASSIGN_OR_RETURN(loaded.tokenizer, LoadTokenizer(checkpoint));
  ASSIGN_OR_RETURN(std::unique_ptr<Decoder> model,
                   LoadDecoder(checkpoint, options, &loaded.warnings));
  if (loaded.tokenizer->eos_id()) model->AddEosIds({*loaded.tokenizer->eos_id()});
  if (prepare) RETURN_IF_ERROR(prepare(*model));
  loaded.model = std::move(model);
  return loaded;
}

}  // namespace flowmesh::model
