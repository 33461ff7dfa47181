#include "executors/tasks/rag_generation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/engine/engine.h"

namespace flowmesh::tasks {
namespace {

constexpr char kInstructions[] =
    "Answer the question from the passages below alone, and name the numbers of those that you "
    "used in brackets, such as [1]. Say so if they do not hold the answer.";

std::string TextOf(const Json& payload) {
  const Json& text = Field(&payload, "")["text"].json();
  return text.is_string() ? text.get<std::string>() : DumpJson(payload);
}

std::string HeadOf(const GenerationSpec& spec) { return absl::StrCat(spec.instructions, "\n\n"); }

std::string PassageOf(const Json& query, size_t i) {
  return absl::StrCat("[", i + 1, "] ", TextOf(query["items"][i]["payload"]), "\n\n");
}

std::string TailOf(const Json& query) {
  return absl::StrCat("Question: ", query["query"].get<std::string>(), "\nAnswer:");
}

std::string PromptOf(const GenerationSpec& spec, const Json& query, size_t passages) {
  std::string prompt = HeadOf(spec);
  for (size_t i = 0; i < passages; ++i) absl::StrAppend(&prompt, PassageOf(query, i));
  return absl::StrCat(prompt, TailOf(query));
}

// How many of the passages fit into so many tokens if each part is tokenised by itself: their sum
// is hardly another than that of the whole, which is too long to be tokenised for each of them.
size_t AboutFitting(const GenerationSpec& spec, const Json& query, const text::Tokenizer& tokenizer,
                    int64_t room) {
  const auto count = [&](const std::string& text, bool is_first) {
    return static_cast<int64_t>(tokenizer.Encode(text, is_first).size());
  };
  int64_t tokens = count(HeadOf(spec), true) + count(TailOf(query), false);
  size_t passages = 0;
  for (; passages < query["items"].size(); ++passages) {
    tokens += count(PassageOf(query, passages), false);
    if (tokens > room) break;
  }
  return passages;
}

// The prompt with as many passages as leave room for the answer.
struct Prompt {
  engine::GenerationRequest request;
  size_t passages = 0;
};

absl::StatusOr<Prompt> MakePrompt(const GenerationSpec& spec, const Json& query,
                                  const text::Tokenizer& tokenizer, int64_t limit,
                                  const TaskContext& context) {
  const size_t all = query["items"].size();
  const auto index = query["index"].get<uint64_t>();
  Prompt prompt{.request = {.params = spec.params, .item_index = index}};
  const int64_t room = limit - std::min(spec.params.max_tokens, limit / 2);
  const auto encode = [&](size_t passages) {
    return tokenizer.Encode(PromptOf(spec, query, passages), true);
  };
  const auto fits = [room](const auto& ids) { return static_cast<int64_t>(ids.size()) <= room; };
  prompt.passages = AboutFitting(spec, query, tokenizer, room);
  prompt.request.prompt_ids = encode(prompt.passages);
  while (!fits(prompt.request.prompt_ids)) {
    if (prompt.passages == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("spec.generation: query ", index, " and the instructions have ",
                       prompt.request.prompt_ids.size(), " tokens, the model has room for ", room));
    }
    prompt.request.prompt_ids = encode(--prompt.passages);
  }
  while (prompt.passages < all) {
    auto more = encode(prompt.passages + 1);
    if (!fits(more)) break;
    prompt.request.prompt_ids = std::move(more);
    ++prompt.passages;
  }
  if (prompt.passages < all) {
    context.on_log(LogLevel::kWarning,
                   absl::StrCat("query ", index, ": only ", prompt.passages, " of ", all,
                                " passages fit the model's ", limit, " tokens"));
  }
  return prompt;
}

}  // namespace

absl::StatusOr<GenerationSpec> ReadGeneration(const Field& block) {
  RETURN_IF_ERROR(block.CheckMap());
  GenerationSpec spec;
  ASSIGN_OR_RETURN(spec.model.identifier, block["model"].NonEmptyString());
  ASSIGN_OR_RETURN(spec.model.revision, block["revision"].StringOr("main"));
  ASSIGN_OR_RETURN(spec.instructions, block["instructions"].StringOr(kInstructions));
  ASSIGN_OR_RETURN(spec.params.max_tokens, block["max_tokens"].IntOr(256, 1));
  ASSIGN_OR_RETURN(spec.params.temperature, block["temperature"].NumberOr(0));
  if (spec.params.temperature < 0) return block["temperature"].Expected("a number of at least 0");
  ASSIGN_OR_RETURN(const int64_t seed, block["seed"].IntOr(0));
  spec.params.seed = static_cast<uint64_t>(seed);
  // A base model would go on with a question of its own.
  spec.params.stop = {"\nQuestion:"};
  return spec;
}

std::vector<int64_t> CitedNumbers(const std::string& answer, int64_t passages) {
  std::vector<int64_t> numbers;
  for (size_t open = answer.find('['); open != std::string::npos;
       open = answer.find('[', open + 1)) {
    const size_t close = answer.find(']', open);
    if (close == std::string::npos) break;
    // One or several: [1], [1, 3].
    for (const std::string& part : SplitTrimmed(answer.substr(open + 1, close - open - 1), ',')) {
      int64_t number = 0;
      if (!absl::SimpleAtoi(part, &number) || number < 1 || number > passages) continue;
      if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) {
        numbers.push_back(number);
      }
    }
  }
  return numbers;
}

Json CitationsOf(const std::string& answer, const Json& items, size_t passages) {
  Json citations = Json::array();
  for (const int64_t number : CitedNumbers(answer, static_cast<int64_t>(passages))) {
    const Json& item = items[static_cast<size_t>(number - 1)];
    Json citation = {{"number", number}, {"id", item["id"]}};
    const Field source = Field(&item, "")["payload"]["source"];
    if (source.present()) citation["source"] = source.json();
    citations.push_back(std::move(citation));
  }
  return citations;
}

absl::Status Generator::Answer(const GenerationSpec& spec, at::Device device,
                               const std::vector<Json*>& queries, const TaskContext& context,
                               const EnvLookup& env) {
  RETURN_IF_ERROR(model_.Load(spec.model, "spec.generation.model", device, context, env));
  model::LoadedModel& loaded = model_.loaded();
  const auto engine = engine::Engine::Create(&loaded, {});
  std::vector<engine::GenerationRequest> requests;
  std::vector<size_t> passages;  // of each
  for (const Json* query : queries) {
    if (context.is_stopped()) return absl::CancelledError("stopped");
    ASSIGN_OR_RETURN(Prompt prompt,
                     MakePrompt(spec, *query, *loaded.tokenizer, engine->max_model_len(), context));
    requests.push_back(std::move(prompt.request));
    passages.push_back(prompt.passages);
  }
  ASSIGN_OR_RETURN(const std::vector<engine::Completion> completions,
                   engine->Generate(requests, [&](const engine::GenerationProgress& progress) {
                     context.on_progress({.stage = "generating",
                                          .done = progress.finished,
                                          .total = progress.total,
                                          .unit = "items"});
                     return !context.is_stopped();
                   }));
  for (size_t i = 0; i < queries.size(); ++i) {
    const std::string answer(Trim(completions[i].text));
    (*queries[i])["answer"] = answer;
    (*queries[i])["citations"] = CitationsOf(answer, (*queries[i])["items"], passages[i]);
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::tasks
