#include "executors/model/parameters.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::model {
namespace {

int64_t Product(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status CheckShapes(const ParameterList& list, const WeightSource& source) {
  for (const Parameter& parameter : list.all()) {
    for (const StoredName& part : parameter.parts) {
      const auto shape = source.ShapeOf(part);
      if (!shape) {
        return absl::InvalidArgumentError(
            absl::StrCat(source.Location(), ": tensor ", source.DisplayName(part), " is missing"));
      }
      if (*shape != part.shape) {
        return absl::InvalidArgumentError(
            absl::StrCat(source.Location(), ": tensor ", source.DisplayName(part),
                         ": expected shape ", ShapeText(part.shape), ", got ", ShapeText(*shape)));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t Parameter::numel() const { return Product(shape); }

int64_t ParameterList::numel() const {
  int64_t sum = 0;
  for (const Parameter& parameter : parameters_) sum += parameter.numel();
  return sum;
}

ParameterScope ParameterScope::operator/(const std::string& name) const {
  return ParameterScope(list_, prefix_.empty() ? name : absl::StrCat(prefix_, ".", name));
}

void ParameterScope::Add(at::Tensor* tensor, const std::string& name, std::vector<int64_t> shape,
                         Split split, bool transposed) const {
  const StoredName stored = {(*this / name).prefix_, shape, transposed};
  list_->Add({tensor, {stored}, std::move(shape), split});
}

void ParameterScope::AddNorm(at::Tensor* tensor, const std::string& name, int64_t width) const {
  const StoredName stored = {(*this / name).prefix_, {width}};
  list_->Add({.tensor = tensor, .parts = {stored}, .shape = {width}, .is_norm = true});
}

void ParameterScope::AddStack(at::Tensor* tensor, const std::string& name,
                              const std::vector<std::string>& parts,
                              const std::vector<int64_t>& rows, std::vector<int64_t> rest,
                              Split split) const {
  Parameter parameter = {tensor, {}, {0}, split};
  parameter.shape.insert(parameter.shape.end(), rest.begin(), rest.end());
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<int64_t> shape = {rows[i]};
    shape.insert(shape.end(), rest.begin(), rest.end());
    parameter.parts.push_back({(*this / parts[i] / name).prefix_, std::move(shape)});
    parameter.shape[0] += rows[i];
  }
  list_->Add(std::move(parameter));
}

absl::Status LoadParameters(const ParameterList& list, const WeightSource& source,
                            const Precision& precision, at::Device device,
                            const std::function<void(uint64_t, uint64_t)>& progress) {
  RETURN_IF_ERROR(CheckShapes(list, source));
  uint64_t total = 0, done = 0;
  for (const Parameter& parameter : list.all()) {
    total += static_cast<uint64_t>(parameter.numel()) * c10::elementSize(precision.Of(parameter));
  }
  for (const Parameter& parameter : list.all()) {
    const at::ScalarType dtype = precision.Of(parameter);
    at::Tensor tensor = at::empty(parameter.shape, at::TensorOptions(dtype).device(device));
    int64_t row = 0;
    for (const StoredName& part : parameter.parts) {
      const at::Tensor rows = tensor.narrow(0, row, part.shape[0]);
      if (device.is_cpu()) {
        source.Read(part, rows);
      } else {
        const at::Tensor staged = at::empty(part.shape, at::TensorOptions(dtype));
        source.Read(part, staged);
        rows.copy_(staged);
      }
      row += part.shape[0];
      done += rows.nbytes();
      if (progress) progress(done, total);
    }
    *parameter.tensor = std::move(tensor);
  }
  return absl::OkStatus();
}

void WarnOfUnused(const std::vector<const ParameterList*>& lists, const WeightSource& source,
                  std::vector<std::string>* warnings) {
  std::vector<StoredName> used;
  for (const ParameterList* list : lists) {
    for (const Parameter& parameter : list->all()) {
      used.insert(used.end(), parameter.parts.begin(), parameter.parts.end());
    }
  }
  std::vector<std::string> unused = source.Unused(used);
  if (unused.empty()) return;
  constexpr size_t kNamed = 5;
  const size_t count = unused.size();
  unused.resize(std::min(count, kNamed));
  warnings->push_back(absl::StrCat(source.Location(), ": ", count,
                                   " unexpected tensors, not used: ", absl::StrJoin(unused, ", "),
                                   count > kNamed ? ", ..." : ""));
}

}  // namespace flowmesh::model
