#include "grapnel/io/compare_tensors.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstring>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {
namespace {

using Kind = TensorDifference::Kind;

constexpr int64_t kChunkElements = 1 << 18;

double Distance(double x, double y) { return std::fabs(x - y); }
double Distance(std::complex<double> x, std::complex<double> y) {
  return std::abs(x - y);
}
double Distance(int64_t x, int64_t y) {
  const uint64_t ux = static_cast<uint64_t>(x), uy = static_cast<uint64_t>(y);
  return static_cast<double>(x > y ? ux - uy : uy - ux);
}
double Distance(uint64_t x, uint64_t y) {
  return static_cast<double>(x > y ? x - y : y - x);
}

// Two runs of elements of one type, contiguous; `size` bytes each.
struct Chunk {
  at::Tensor a;
  at::Tensor b;
  size_t size;

  // Adds the elements whose bits differ to `*difference`. T: what `wide_a` and
  // `wide_b`, which have the elements' values, consist of.
  template <typename T>
  void Count(const at::Tensor& wide_a, const at::Tensor& wide_b,
             TensorDifference* difference) const {
    const char* const bits_a = static_cast<const char*>(a.const_data_ptr());
    const char* const bits_b = static_cast<const char*>(b.const_data_ptr());
    const T* const x = static_cast<const T*>(wide_a.const_data_ptr());
    const T* const y = static_cast<const T*>(wide_b.const_data_ptr());
    for (int64_t i = 0; i < a.numel(); ++i) {
      const size_t at = static_cast<size_t>(i) * size;
      if (std::memcmp(bits_a + at, bits_b + at, size) == 0) continue;
      ++difference->num_different;
      const double distance = Distance(x[i], y[i]);
      if (std::isnan(distance) || distance > difference->max_abs) {
        difference->max_abs = distance;  // And once NaN nothing is larger.
      }
    }
  }
};

void CompareChunk(const Chunk& chunk, TensorDifference* difference) {
  if (std::memcmp(chunk.a.const_data_ptr(), chunk.b.const_data_ptr(),
                  chunk.a.nbytes()) == 0) {
    return;
  }
  const c10::ScalarType type = chunk.a.scalar_type();
  const auto count = [&](auto zero, c10::ScalarType wide) {
    chunk.Count<decltype(zero)>(chunk.a.to(wide), chunk.b.to(wide), difference);
  };
  if (type == c10::ScalarType::UInt64) {
    chunk.Count<uint64_t>(chunk.a, chunk.b, difference);
  } else if (c10::isIntegralType(type, /*includeBool=*/true)) {
    count(int64_t{0}, at::kLong);
  } else if (c10::isComplexType(type)) {
    count(std::complex<double>(), at::kComplexDouble);
  } else {
    count(0.0, at::kDouble);
  }
}

absl::Status CheckDense(const NamedTensor& named) {
  if (named.tensor.defined() && named.tensor.layout() == c10::kStrided &&
      !named.tensor.is_quantized() && !named.tensor.is_nested() &&
      !named.tensor.is_meta()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "tensor ", QuotedName(named.name), ": only dense ones can be compared"));
}

at::Tensor Flat(const at::Tensor& tensor) {
  return tensor.detach()
      .to(at::kCPU)
      .resolve_conj()
      .resolve_neg()
      .contiguous()
      .view({-1});
}

// False if there is none.
bool FindDifference(const at::Tensor& a, const at::Tensor& b,
                    TensorDifference* difference) {
  if (a.scalar_type() != b.scalar_type()) {
    difference->kind = Kind::kDtype;
    difference->first = c10::toString(a.scalar_type());
    difference->second = c10::toString(b.scalar_type());
    return true;
  }
  if (a.sizes() != b.sizes()) {
    difference->kind = Kind::kShape;
    difference->first = absl::StrJoin(a.sizes(), ", ");
    difference->second = absl::StrJoin(b.sizes(), ", ");
    return true;
  }
  difference->kind = Kind::kValues;
  difference->num_elements = a.numel();
  const at::Tensor flat_a = Flat(a);
  const at::Tensor flat_b = Flat(b);
  for (int64_t at = 0; at < flat_a.numel(); at += kChunkElements) {
    const int64_t n = std::min(kChunkElements, flat_a.numel() - at);
    CompareChunk({flat_a.narrow(0, at, n), flat_b.narrow(0, at, n),
                  static_cast<size_t>(a.element_size())},
                 difference);
  }
  return difference->num_different > 0;
}

}  // namespace

absl::StatusOr<std::vector<TensorDifference>> CompareTensors(
    const TensorMap& a, const TensorMap& b) {
  std::vector<TensorDifference> differences;
  for (const NamedTensor& named : a) {
    TensorDifference difference;
    difference.name = named.name;
    const at::Tensor* const other = b.Find(named.name);
    if (other == nullptr) {
      difference.kind = Kind::kOnlyInFirst;
      differences.push_back(std::move(difference));
      continue;
    }
    GRAPNEL_RETURN_IF_ERROR(CheckDense(named));
    GRAPNEL_RETURN_IF_ERROR(CheckDense({named.name, *other}));
    bool differ = false;
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        CatchAsStatus([&] {
          differ = FindDifference(named.tensor, *other, &difference);
          return absl::OkStatus();
        }),
        QuotedName(named.name)));
    if (differ) differences.push_back(std::move(difference));
  }
  for (const NamedTensor& named : b) {
    if (a.Find(named.name) != nullptr) continue;
    TensorDifference difference;
    difference.name = named.name;
    difference.kind = Kind::kOnlyInSecond;
    differences.push_back(std::move(difference));
  }
  return differences;
}

}  // namespace io
}  // namespace grapnel
