// Archives of weights, and their upload over loopback. tests/bench/run.sh measures the peers.
//
//   archive_bench generate bf16|fp32 BYTES FILE   random normal weights
//   archive_bench archive FOLDER                  seconds, bytes, memory
//   archive_bench upload BYTES                    a model of so many bytes: cut twice, then at full
//   speed
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "sidecar/archive/archiver.h"
#include "sidecar/archive/memory_watch.h"
#include "sidecar/delivery/deliverer.h"
#include "sidecar/delivery/upload_sink.h"
#include "tests/chaos/gate.h"

namespace flowmesh::sidecar {
namespace {

namespace fs = std::filesystem;
using ::flowmesh::testing::Gate;

constexpr float kSigma = 0.02F;  // as weights have it
constexpr size_t kPiece = 64 << 20;
constexpr char kModel[] = "final_model";

int Fail(std::string_view what, const absl::Status& status = absl::OkStatus()) {
  std::fprintf(stderr, "archive_bench: %s%s%s\n", std::string(what).c_str(),
               status.ok() ? "" : ": ", status.ok() ? "" : Message(status).c_str());
  return 1;
}

void Print(std::string_view name, double value) {
  std::printf("%s\t%.4g\n", std::string(name).c_str(), value);
}

double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

// bfloat16, rounded to nearest even.
uint16_t ToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename T, typename Make>
int WriteWeights(uint64_t bytes, const std::string& path, const Make& make) {
  std::vector<T> weights(kPiece / sizeof(T));
  std::ofstream file(path, std::ios::binary);
  for (uint64_t left = bytes; left > 0;) {
    for (T& weight : weights) weight = make();
    const uint64_t size = std::min<uint64_t>(left, kPiece);
    file.write(reinterpret_cast<const char*>(weights.data()), static_cast<std::streamsize>(size));
    left -= size;
  }
  return file.flush() ? 0 : Fail("cannot write " + path);
}

int Generate(std::string_view type, uint64_t bytes, const std::string& path) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, kSigma);
  if (type == "bf16") {
    return WriteWeights<uint16_t>(bytes, path, [&] { return ToBf16(normal(random)); });
  }
  if (type == "fp32") return WriteWeights<float>(bytes, path, [&] { return normal(random); });
  return Fail("expected bf16 or fp32");
}

int Archive(const std::string& folder) {
  MemoryWatch watch;
  const absl::Duration begin = Clock::Real().Monotonic();
  const absl::StatusOr<ArchiveFile> archive = MakeArchive(folder, {}, nullptr);
  const absl::Duration taken = Clock::Real().Monotonic() - begin;
  if (!archive.ok()) return Fail("cannot archive", archive.status());
  Print("seconds", absl::ToDoubleSeconds(taken));
  std::printf("bytes\t%llu\n", static_cast<unsigned long long>(archive->bytes));
  Print("memory", Megabytes(watch.MostMore()));
  return 0;
}

// Noise: its archive is as large as it is.
int WriteNoise(uint64_t bytes, const fs::path& path) {
  std::mt19937_64 random(1);
  return WriteWeights<uint64_t>(bytes, path, [&] { return random(); });
}

// Delivers the model in `dir`; fails unless it arrived whole. The last upload's rate.
absl::StatusOr<double> Deliver(const fs::path& results, int port, const UploadSink& sink,
                               const std::function<void(const DeliveryAttempt&)>& on_attempt) {
  const std::string document =
      absl::StrCat(R"({"spec":{"output":{"destination":{"type":"http","url":"http://127.0.0.1:)",
                   port, R"(/r"}}}})");
  ASSIGN_OR_RETURN(const Json parsed, ParseJson(document));
  ASSIGN_OR_RETURN(DeliveryJob job, PlanDelivery("T", "w", "", parsed, {.results_dir = results}));
  RETURN_IF_ERROR(PrepareDirectories(job));
  job.result = Json::object();
  v1::OutputFile& output = job.outputs.emplace_back();
  output.set_kind(v1::OutputFile::FINAL_MODEL);
  output.set_task_id("T");
  output.set_path((job.task.dir / kModel).string());
  double rate = 0;
  DelivererOptions options;
  options.on_attempt = [&](const DeliveryAttempt& attempt) {
    if (attempt.kind == DeliveryAttempt::Kind::kUpload) {
      rate = Megabytes(attempt.bytes) / absl::ToDoubleSeconds(attempt.duration);
    }
    if (on_attempt) on_attempt(attempt);
  };
  RETURN_IF_ERROR(Deliverer(options, Clock::Real()).Deliver(job, nullptr));
  const std::vector<UploadSink::Received> got = sink.received();
  if (got.size() < 2 || !got[got.size() - 2].is_file ||
      got[got.size() - 2].sha256 != job.result.value("final_model_archive_sha256", "")) {
    return absl::DataLossError("the archive did not arrive whole: " + DumpJson(job.result));
  }
  return rate;
}

int Upload(uint64_t bytes) {
  const TempDir temp;
  fs::create_directories(temp / "T/final_model");
  if (WriteNoise(bytes, temp / "T/final_model/model.safetensors") != 0) return 1;
  UploadSink sink;
  Gate gate({.host = "127.0.0.1", .port = sink.port()});
  int attempts = 0;
  gate.CutAfter(bytes / 3, Gate::Direction::kForward);
  MemoryWatch watch;
  const absl::StatusOr<double> cut =
      Deliver(temp.path(), gate.endpoint().port, sink, [&](const DeliveryAttempt&) {
        gate.Pass();
        if (++attempts == 1) gate.CutAfter(bytes - 1'000'000, Gate::Direction::kForward);
      });
  if (!cut.ok()) return Fail("cut twice", cut.status());
  Print("attempts", attempts - 1);  // without the result's
  Print("memory", Megabytes(watch.MostMore()));
  const absl::StatusOr<double> rate = Deliver(temp.path(), sink.port(), sink, nullptr);
  if (!rate.ok()) return Fail("at full speed", rate.status());
  Print("upload", *rate);
  return 0;
}

int Main(const std::vector<std::string>& args) {
  uint64_t bytes = 0;
  if (args.size() == 4 && args[0] == "generate" && absl::SimpleAtoi(args[2], &bytes)) {
    return Generate(args[1], bytes, args[3]);
  }
  if (args.size() == 2 && args[0] == "archive") return Archive(args[1]);
  if (args.size() == 2 && args[0] == "upload" && absl::SimpleAtoi(args[1], &bytes)) {
    return Upload(bytes);
  }
  return Fail("usage: generate bf16|fp32 BYTES FILE | archive FOLDER | upload BYTES");
}

}  // namespace
}  // namespace flowmesh::sidecar

int main(int argc, char** argv) {
  return flowmesh::sidecar::Main(std::vector<std::string>(argv + 1, argv + argc));
}
