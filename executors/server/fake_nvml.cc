// A libnvidia-ml.so.1 for tests: three GPUs, of which the last does not answer. FAKE_NVML=broken
// makes it fail to start.
#include <cstdlib>
#include <cstring>

extern "C" {

constexpr int kOk = 0, kNotSupported = 3, kLost = 15;

int nvmlInit_v2() {
  const char* mode = std::getenv("FAKE_NVML");
  return mode != nullptr && std::strcmp(mode, "broken") == 0 ? 9 : kOk;
}
int nvmlShutdown() { return kOk; }
int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = 3;
  return kOk;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
  if (index >= 2) return kLost;
  *device = reinterpret_cast<void*>(static_cast<unsigned long>(index) + 1);
  return kOk;
}
int nvmlDeviceGetName(void*, char* name, unsigned int size) {
  std::strncpy(name, "NVIDIA Test", size);
  return kOk;
}
int nvmlDeviceGetUUID(void* device, char* uuid, unsigned int size) {
  std::strncpy(uuid, device == reinterpret_cast<void*>(1) ? "GPU-aaaa-1" : "GPU-aabb-2", size);
  return kOk;
}
int nvmlDeviceGetMemoryInfo(void*, unsigned long long* memory) {
  memory[0] = 80ull << 30;
  memory[1] = 79ull << 30;
  memory[2] = 1ull << 30;
  return kOk;
}
// The second GPU has no power sensor.
int nvmlDeviceGetPowerUsage(void* device, unsigned int* milliwatts) {
  if (device != reinterpret_cast<void*>(1)) return kNotSupported;
  *milliwatts = 123500;
  return kOk;
}
int nvmlDeviceGetUtilizationRates(void*, unsigned int* percents) {
  percents[0] = 42;
  percents[1] = 7;
  return kOk;
}
int nvmlDeviceGetTemperature(void*, unsigned int, unsigned int* celsius) {
  *celsius = 55;
  return kOk;
}
int nvmlSystemGetDriverVersion(char* text, unsigned int size) {
  std::strncpy(text, "570.86.10", size);
  return kOk;
}
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 12080;
  return kOk;
}

}  // extern "C"
