#include "sidecar/hardware/host.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <sstream>

#include "common/files.h"

namespace flowmesh::sidecar {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

std::optional<std::string> OwnAddress() {
  char name[256] = {};
  if (::gethostname(name, sizeof(name) - 1) != 0) return std::nullopt;
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(name, nullptr, &hints, &found) != 0) return std::nullopt;
  const std::unique_ptr<addrinfo, FreeAddresses> list(found);
  char text[INET_ADDRSTRLEN] = {};
  const auto* address = reinterpret_cast<const sockaddr_in*>(list->ai_addr);
  if (::inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text)) == nullptr) return std::nullopt;
  return text;
}

Json TextOrNull(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

std::optional<uint64_t> ParseMemTotal(const std::string& meminfo) {
  std::istringstream lines(meminfo);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string key, unit;
    uint64_t kilobytes = 0;
    if (words >> key >> kilobytes >> unit && key == "MemTotal:" && unit == "kB") {
      return kilobytes * 1024;
    }
  }
  return std::nullopt;
}

HostInfo ReadHostInfo() {
  HostInfo host;
  const long cores = ::sysconf(_SC_NPROCESSORS_ONLN);
  host.logical_cores = cores > 0 ? static_cast<int>(cores) : 1;
  utsname system{};
  if (::uname(&system) == 0) host.cpu_model = system.machine;
  host.memory_total_bytes = ParseMemTotal(ReadFile("/proc/meminfo").value_or(""));
  host.ip = OwnAddress();
  return host;
}

Json HardwareJson(const HostInfo& host, const v1::DeviceGroup& devices,
                  std::optional<double> bandwidth_bytes_per_second) {
  Json gpus = Json::array();
  for (const v1::Gpu& gpu : devices.gpus()) {
    Json one = {{"index", gpu.index()}, {"name", gpu.name()}, {"uuid", gpu.uuid()}};
    if (gpu.has_memory_total_bytes()) one["memory_total_bytes"] = gpu.memory_total_bytes();
    gpus.push_back(std::move(one));
  }
  Json network = {{"ip", host.ip ? Json(*host.ip) : Json()}};
  if (bandwidth_bytes_per_second) {
    network["bandwidth_bytes_per_sec"] = *bandwidth_bytes_per_second;
  }
  const bool has_gpus = devices.gpus_size() > 0;
  return {{"cpu", {{"logical_cores", host.logical_cores}, {"model", host.cpu_model}}},
          {"memory",
           {{"total_bytes", host.memory_total_bytes ? Json(*host.memory_total_bytes) : Json()}}},
          {"gpu",
           {{"driver_version", TextOrNull(has_gpus ? devices.driver_version() : "")},
            {"cuda_version", TextOrNull(has_gpus ? devices.cuda_version() : "")},
            {"gpus", std::move(gpus)}}},
          {"network", std::move(network)}};
}

std::optional<Json> LoadAverages() {
  double loads[3] = {};
  if (::getloadavg(loads, 3) != 3) return std::nullopt;
  return Json{{"1m", loads[0]}, {"5m", loads[1]}, {"15m", loads[2]}};
}

}  // namespace flowmesh::sidecar
