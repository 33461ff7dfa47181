#include "executors/server/nvml.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace flowmesh::executor {
namespace {

// The few declarations of nvml.h that this needs; its ABI is stable.
using Result = int;  // nvmlReturn_t; 0 is success
using Device = void*;
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned int gpu, memory;  // percent
};
constexpr unsigned int kTemperatureOfGpu = 0;
constexpr unsigned int kTextBytes = 96;

template <typename Function>
bool Load(void* library, const char* name, Function** out) {
  *out = reinterpret_cast<Function*>(::dlsym(library, name));
  return *out != nullptr;
}

}  // namespace

struct Nvml::Functions {
  Result (*init)();
  Result (*shutdown)();
  Result (*device_count)(unsigned int*);
  Result (*device_by_index)(unsigned int, Device*);
  Result (*device_name)(Device, char*, unsigned int);
  Result (*device_uuid)(Device, char*, unsigned int);
  Result (*device_memory)(Device, Memory*);
  Result (*device_power)(Device, unsigned int* milliwatts);
  Result (*device_utilization)(Device, Utilization*);
  Result (*device_temperature)(Device, unsigned int sensor, unsigned int* celsius);
  Result (*driver_version)(char*, unsigned int);
  Result (*cuda_version)(int*);

  bool LoadFrom(void* library) {
    return Load(library, "nvmlInit_v2", &init) && Load(library, "nvmlShutdown", &shutdown) &&
           Load(library, "nvmlDeviceGetCount_v2", &device_count) &&
           Load(library, "nvmlDeviceGetHandleByIndex_v2", &device_by_index) &&
           Load(library, "nvmlDeviceGetName", &device_name) &&
           Load(library, "nvmlDeviceGetUUID", &device_uuid) &&
           Load(library, "nvmlDeviceGetMemoryInfo", &device_memory) &&
           Load(library, "nvmlDeviceGetPowerUsage", &device_power) &&
           Load(library, "nvmlDeviceGetUtilizationRates", &device_utilization) &&
           Load(library, "nvmlDeviceGetTemperature", &device_temperature) &&
           Load(library, "nvmlSystemGetDriverVersion", &driver_version) &&
           Load(library, "nvmlSystemGetCudaDriverVersion_v2", &cuda_version);
  }
};

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const char* library_name) {
  void* library = ::dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat("no ", library_name));
  auto functions = std::make_unique<Functions>();
  if (!functions->LoadFrom(library)) {
    ::dlclose(library);
    return absl::UnavailableError(absl::StrCat(library_name, " lacks functions"));
  }
  const Result result = functions->init();
  if (result != 0) {
    ::dlclose(library);
    return absl::UnavailableError(
        absl::StrCat(library_name, " does not start (nvmlInit gives ", result, ")"));
  }
  return std::unique_ptr<Nvml>(new Nvml(library, std::move(functions)));
}

Nvml::Nvml(void* library, std::unique_ptr<Functions> functions)
    : library_(library), functions_(std::move(functions)) {}

Nvml::~Nvml() {
  functions_->shutdown();
  ::dlclose(library_);
}

std::vector<GpuInfo> Nvml::Gpus() const {
  std::vector<GpuInfo> gpus;
  unsigned int count = 0;
  if (functions_->device_count(&count) != 0) return gpus;
  for (unsigned int i = 0; i < count; ++i) {
    Device device = nullptr;
    char name[kTextBytes] = {}, uuid[kTextBytes] = {};
    if (functions_->device_by_index(i, &device) != 0 ||
        functions_->device_name(device, name, kTextBytes) != 0 ||
        functions_->device_uuid(device, uuid, kTextBytes) != 0) {
      continue;  // a lost GPU must not hide the others
    }
    GpuInfo gpu{.index = static_cast<int>(i), .name = name, .uuid = uuid, .memory_total_bytes = {}};
    Memory memory{};
    if (functions_->device_memory(device, &memory) == 0) gpu.memory_total_bytes = memory.total;
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

GpuReading Nvml::Read(int index) const {
  GpuReading reading;
  Device device = nullptr;
  if (functions_->device_by_index(static_cast<unsigned int>(index), &device) != 0) return reading;
  Memory memory{};
  if (functions_->device_memory(device, &memory) == 0) {
    reading.memory_used_bytes = memory.used;
    reading.memory_total_bytes = memory.total;
  }
  unsigned int value = 0;
  if (functions_->device_power(device, &value) == 0) reading.power_watts = value / 1000.0;
  if (functions_->device_temperature(device, kTemperatureOfGpu, &value) == 0) {
    reading.temperature_celsius = value;
  }
  Utilization utilization{};
  if (functions_->device_utilization(device, &utilization) == 0) {
    reading.utilization_pct = utilization.gpu;
  }
  return reading;
}

std::string Nvml::DriverVersion() const {
  char text[kTextBytes] = {};
  return functions_->driver_version(text, kTextBytes) == 0 ? std::string(text) : std::string();
}

std::string Nvml::CudaVersion() const {
  int version = 0;  // 12080 is 12.8
  if (functions_->cuda_version(&version) != 0) return "";
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

}  // namespace flowmesh::executor
