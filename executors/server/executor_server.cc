#include "executors/server/executor_server.h"

#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "common/rpc/server.h"
#include "common/strings.h"
#include "executors/launch/rank_host.h"
#include "executors/server/devices.h"
#include "executors/server/metrics.h"
#include "executors/server/service.h"

namespace flowmesh::executor {
namespace {

constexpr int kMaxThreads = 128;       // one per call in progress; more calls are refused
constexpr char kHideTheRest[] = "-1";  // in CUDA_VISIBLE_DEVICES
constexpr absl::Duration kDescribeTimeout = absl::Seconds(60);

class ServerImpl final : public ExecutorServer {
 public:
  explicit ServerImpl(const ExecutorConfig& config) : config_(config), metrics_(FLOWMESH_VERSION) {}
  ~ServerImpl() override { Stop(); }

  absl::Status Start();
  void Stop() override;
  std::string target() const override { return server_->target(); }

 private:
  absl::Status FindDevices();
  absl::Status AskRank();
  v1::ExecutorDescription Description() const;
  v1::Telemetry Telemetry() const;

  const ExecutorConfig config_;
  std::unique_ptr<Nvml> nvml_;  // null without a driver
  v1::DeviceGroup devices_;
  std::unique_ptr<TaskTypes> types_;
  ExecutorMetrics metrics_;
  std::unique_ptr<RankHost> host_;
  std::unique_ptr<ExecutorCore> core_;
  std::thread runner_;  // starts ranks and runs tasks, as long as this lives
  std::unique_ptr<ExecutorService> service_;
  std::unique_ptr<RpcServer> server_;
};

absl::Status ServerImpl::Start() {
  RETURN_IF_ERROR(FindDevices());
  RETURN_IF_ERROR(AskRank());

  RankHostOptions host;
  host.command = {config_.rank_bin.string()};
  host.has_gpus = devices_.gpus_size() > 0;
  host.visible_devices = VisibleDevicesOf(devices_);
  host.threads = config_.threads;
  host.node = config_.node;
  host_ = std::make_unique<RankHost>(std::move(host), Clock::Real());
  ExecutorCoreOptions core;
  core.progress_timeout = config_.progress_timeout;
  core.idle_release = config_.idle_release;
  core.on_end = [this](const std::string& type, const std::string& outcome,
                       absl::Duration duration) { metrics_.CountTask(type, outcome, duration); };
  core_ = std::make_unique<ExecutorCore>(std::move(core), *types_, *host_, Clock::Real());
  service_ =
      std::make_unique<ExecutorService>(*core_, Description(), [this] { return Telemetry(); });
  ASSIGN_OR_RETURN(server_, RpcServer::Start({.variable = "EXECUTOR_LISTEN",
                                              .listen = config_.listen,
                                              .service_name = v1::Executor::service_full_name(),
                                              .max_threads = kMaxThreads},
                                             *service_));
  runner_ = std::thread([this] {
    while (core_->RunNext()) {
    }
    host_->Release();
  });
  if (config_.metrics_listen) {
    RETURN_IF_ERROR(metrics_.Serve(*config_.metrics_listen,
                                   {.busy = [this] { return !core_->running_task_id().empty(); },
                                    .ranks = [this] { return host_->ranks(); },
                                    .rank_starts = [this] { return host_->rank_starts(); },
                                    .rank_deaths = [this] { return host_->rank_deaths(); },
                                    .telemetry = [this] { return Telemetry(); }}));
  }
  return absl::OkStatus();
}

absl::Status ServerImpl::FindDevices() {
  std::vector<GpuInfo> all;
  absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open();
  if (nvml.ok()) {
    nvml_ = *std::move(nvml);
    all = nvml_->Gpus();
  } else if (!absl::IsNotFound(nvml.status())) {
    LogWarning("no GPU is used: {}", Message(nvml.status()));
  }
  const std::vector<GpuInfo> visible = VisibleGpus(all, config_.visible_devices);
  const std::vector<std::string> named = SplitTrimmed(config_.visible_devices.value_or(""), ',');
  if (nvml_ && visible.size() < named.size() && named[visible.size()] != kHideTheRest) {
    LogWarning(
        "CUDA_VISIBLE_DEVICES: expected places below {} or UUIDs, got \"{}\", which ends the list",
        all.size(), named[visible.size()]);
  }
  ASSIGN_OR_RETURN(const std::vector<GpuInfo> gpus, SelectGpus(visible, config_.devices));
  devices_ = ToProto(gpus, nvml_.get(), config_.threads);
  return absl::OkStatus();
}

// Finds out what can run here, so that Describe tells the truth.
absl::Status ServerImpl::AskRank() {
  const bool has_gpus = devices_.gpus_size() > 0;
  const absl::StatusOr<RankDescription> rank =
      DescribeRank(config_.rank_bin, has_gpus, VisibleDevicesOf(devices_), kDescribeTimeout);
  if (!rank.ok()) {
    LogWarning("only echo can run: {}", Message(rank.status()));
    types_ = std::make_unique<TaskTypes>(std::vector<std::string>{}, Message(rank.status()));
    return absl::OkStatus();
  }
  types_ = std::make_unique<TaskTypes>(rank->task_types, kNotBuilt);
  if (has_gpus && !rank->cuda) {
    if (ToLower(config_.devices) != "auto") {
      return absl::FailedPreconditionError(
          absl::StrCat("EXECUTOR_DEVICES: the rank program cannot use GPUs: ", rank->cuda_problem));
    }
    LogWarning("{} GPUs are visible but the rank program cannot use them ({}): the CPU is used",
               devices_.gpus_size(), rank->cuda_problem);
    devices_ = ToProto({}, /*nvml=*/nullptr, config_.threads);
  }
  return absl::OkStatus();
}

v1::ExecutorDescription ServerImpl::Description() const {
  v1::ExecutorDescription description;
  description.set_name(config_.name);
  description.set_version(FLOWMESH_VERSION);
  description.set_instance_id(RandomHex(16));
  for (const std::string& type : types_->runnable()) description.add_runnable_task_types(type);
  for (const auto& [type, reason] : types_->unrunnable()) {
    v1::UnrunnableTaskType& out = *description.add_unrunnable_task_types();
    out.set_task_type(type);
    out.set_reason(reason);
  }
  *description.mutable_devices() = devices_;
  return description;
}

v1::Telemetry ServerImpl::Telemetry() const {
  v1::Telemetry telemetry = ReadTelemetry(devices_, nvml_.get());
  telemetry.set_rank_resident_bytes(host_->ResidentBytes());
  return telemetry;
}

void ServerImpl::Stop() {
  if (server_) server_->SetServing(false);
  if (core_) core_->Stop();
  // The running task ends first, so that its stream carries the end to whoever reads it.
  if (runner_.joinable()) runner_.join();
  metrics_.StopServing();
  if (server_) server_->Shutdown();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExecutorServer>> ExecutorServer::Start(
    const ExecutorConfig& config) {
  auto server = std::make_unique<ServerImpl>(config);
  RETURN_IF_ERROR(server->Start());
  LogInfo("executor {} {} listens on {}", config.name, FLOWMESH_VERSION, server->target());
  return server;
}

}  // namespace flowmesh::executor
