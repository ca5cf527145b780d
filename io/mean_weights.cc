#include "grapnel/io/mean_weights.h"

#include "ATen/core/Tensor.h"
#include "ATen/ops/view_as_complex_ops.h"
#include "ATen/ops/view_as_real_ops.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {
namespace {

// No sum of float32 overflows, or loses bits that count.
constexpr double kMinWeight = 1e-12;
constexpr double kMaxWeight = 1e12;

at::ScalarType SumType(at::ScalarType type) {
  return c10::isComplexType(type) ? at::kComplexDouble : at::kDouble;
}

bool HasMean(at::ScalarType type) {
  return c10::isFloatingType(type) || c10::isComplexType(type);
}

at::Tensor Plain(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.detach().resolve_conj().to(at::kCPU).to(
      dtype, /*non_blocking=*/false, /*copy=*/true);
}

// Of a complex tensor its real and imaginary parts, which have a mean each: by
// a complex weight an infinite part would become NaN, and -0.0 become 0.0.
at::Tensor Parts(const at::Tensor& tensor) {
  return tensor.is_complex() ? at::_ops::view_as_real::call(tensor) : tensor;
}

at::Tensor Quotient(const at::Tensor& sum, double divisor) {
  const at::Tensor parts = Parts(sum).div(divisor);
  return sum.is_complex() ? at::_ops::view_as_complex::call(parts) : parts;
}

}  // namespace

absl::Status WeightsMean::Begin(const TensorMap& tensors, double weight) {
  for (const NamedTensor& named : tensors) {
    if (!named.tensor.defined() || named.tensor.layout() != c10::kStrided) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", QuotedName(named.name), ": is not dense"));
    }
    Sum sum;
    sum.name = named.name;
    sum.dtype = named.tensor.scalar_type();
    sum.is_mean = HasMean(sum.dtype);
    // Not begun with zeros: -0.0 stays what it is.
    sum.value =
        Plain(named.tensor, sum.is_mean ? SumType(sum.dtype) : sum.dtype);
    if (sum.is_mean) Parts(sum.value).mul_(weight);
    sums_.push_back(std::move(sum));
  }
  return absl::OkStatus();
}

absl::Status WeightsMean::Add(const std::string& source,
                              const TensorMap& tensors, double weight) {
  if (!(weight >= kMinWeight && weight <= kMaxWeight)) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": weight: must be in [", kMinWeight, ", ",
                     kMaxWeight, "], is ", weight));
  }
  if (sums_.empty()) {
    if (tensors.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, ": has no tensors"));
    }
    first_source_ = source;
    total_weight_ = weight;
    return WithContext(CatchAsStatus([&] { return Begin(tensors, weight); }),
                       source);
  }
  const auto error = [&](absl::string_view name, absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": tensor ", QuotedName(name), ": ", what));
  };
  if (tensors.size() > sums_.size()) {
    TensorMap of_first;
    for (const Sum& sum : sums_) {
      GRAPNEL_RETURN_IF_ERROR(of_first.Add(sum.name, sum.value));
    }
    for (const NamedTensor& named : tensors) {
      if (of_first.Find(named.name) == nullptr) {
        return error(named.name, absl::StrCat("is not in ", first_source_));
      }
    }
  }
  for (Sum& sum : sums_) {
    const at::Tensor* const tensor = tensors.Find(sum.name);
    if (tensor == nullptr) {
      return error(sum.name,
                   absl::StrCat("is missing; ", first_source_, " has it"));
    }
    if (tensor->scalar_type() != sum.dtype) {
      return error(
          sum.name,
          absl::StrCat("dtype is ", c10::toString(tensor->scalar_type()),
                       ", in ", first_source_, " ", c10::toString(sum.dtype)));
    }
    if (tensor->sizes() != sum.value.sizes()) {
      return error(
          sum.name,
          absl::StrCat("shape is (", absl::StrJoin(tensor->sizes(), ", "),
                       "), in ", first_source_, " (",
                       absl::StrJoin(sum.value.sizes(), ", "), ")"));
    }
    const absl::Status added = CatchAsStatus([&] {
      if (sum.is_mean) {
        Parts(sum.value).add_(
            Parts(tensor->detach().resolve_conj().to(at::kCPU).to(
                SumType(sum.dtype))),
            weight);
      } else {
        sum.value = Plain(*tensor, sum.dtype);
      }
      return absl::OkStatus();
    });
    if (!added.ok()) {
      return WithContext(
          added, absl::StrCat(source, ": tensor ", QuotedName(sum.name)));
    }
  }
  total_weight_ += weight;
  return absl::OkStatus();
}

absl::StatusOr<TensorMap> WeightsMean::Finish() const {
  if (sums_.empty()) {
    return absl::FailedPreconditionError("no weights to average");
  }
  TensorMap mean;
  for (const Sum& sum : sums_) {
    at::Tensor value;
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        CatchAsStatus([&] {
          value = sum.is_mean ? Quotient(sum.value, total_weight_).to(sum.dtype)
                              : sum.value;
          return absl::OkStatus();
        }),
        absl::StrCat("tensor ", QuotedName(sum.name))));
    GRAPNEL_RETURN_IF_ERROR(mean.Add(sum.name, std::move(value)));
  }
  return mean;
}

std::vector<std::string> WeightsMean::taken_from_last() const {
  std::vector<std::string> names;
  for (const Sum& sum : sums_) {
    if (!sum.is_mean) names.push_back(sum.name);
  }
  return names;
}

}  // namespace io
}  // namespace grapnel
