#include "grapnel/cuda/lerp_plan.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

std::string Shape(const at::Tensor& tensor) {
  std::string text = "[";
  for (int64_t size : tensor.sizes()) {
    absl::StrAppend(&text, text.size() > 1 ? ", " : "", size);
  }
  return text + "]";
}

absl::Status CheckTensor(const at::Tensor& tensor, const at::Device& device) {
  if (!tensor.defined()) return absl::InvalidArgumentError("is undefined");
  if (tensor.layout() != at::kStrided || !tensor.has_storage() ||
      tensor.is_neg()) {
    return absl::InvalidArgumentError("is no plain strided tensor");
  }
  switch (tensor.scalar_type()) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "has no type to average: ", c10::toString(tensor.scalar_type())));
  }
  if (tensor.device() != device) {
    return absl::InvalidArgumentError(
        absl::StrCat("is on ", tensor.device().str(), ", the first tensor on ",
                     device.str()));
  }
  if (!tensor.is_non_overlapping_and_dense()) {
    return absl::InvalidArgumentError(
        "has gaps between its elements, or elements that share memory");
  }
  return absl::OkStatus();
}

// Whether element i in memory is the same element of both. The stride of a
// dimension of size 1 says nothing.
bool SameOrder(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// `device`: of the whole list.
absl::Status CheckPair(const LerpPair& pair, const at::Device& device) {
  GRAPNEL_RETURN_IF_ERROR(WithContext(CheckTensor(pair.dst, device), "dst"));
  GRAPNEL_RETURN_IF_ERROR(WithContext(CheckTensor(pair.src, device), "src"));
  if (pair.dst.sizes() != pair.src.sizes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dst is ", Shape(pair.dst), ", src is ", Shape(pair.src)));
  }
  if (pair.dst.numel() > 0 && !SameOrder(pair.dst, pair.src)) {
    return absl::InvalidArgumentError(
        "dst and src lie in memory in different orders");
  }
  return absl::OkStatus();
}

struct Extent {
  uintptr_t begin;
  uintptr_t end;
  size_t pair;
};

Extent ExtentOf(const at::Tensor& tensor, size_t pair) {
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return {begin, begin + tensor.nbytes(), pair};
}

absl::Status CheckOverlaps(absl::Span<const LerpPair> pairs) {
  std::vector<Extent> written;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].dst.numel() > 0) {
      written.push_back(ExtentOf(pairs[i].dst, i));
    }
  }
  std::sort(written.begin(), written.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < written.size(); ++i) {
    if (written[i].begin < written[i - 1].end) {
      return absl::InvalidArgumentError(absl::StrCat(
          "pairs[", written[i].pair, "]: dst shares memory with dst of pairs[",
          written[i - 1].pair, "]"));
    }
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].src.numel() == 0) continue;
    const Extent read = ExtentOf(pairs[i].src, i);
    // The first that ends behind where `read` begins.
    const auto other = std::upper_bound(
        written.begin(), written.end(), read.begin,
        [](uintptr_t begin, const Extent& e) { return begin < e.end; });
    if (other != written.end() && other->begin < read.end) {
      return absl::InvalidArgumentError(
          absl::StrCat("pairs[", i, "]: src shares memory with dst of pairs[",
                       other->pair, "]"));
    }
  }
  return absl::OkStatus();
}

at::Device DeviceOf(const LerpPair& pair) {
  return pair.dst.defined() ? pair.dst.device() : at::Device(at::kCPU);
}

bool Aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

void AppendChunks(const LerpPair& pair, std::vector<LerpChunk>* chunks) {
  auto* dst = static_cast<char*>(pair.dst.mutable_data_ptr());
  const auto* src = static_cast<const char*>(pair.src.const_data_ptr());
  const int64_t dst_bytes = pair.dst.element_size();
  const int64_t src_bytes = pair.src.element_size();
  const int64_t vector = LerpVectorElements(static_cast<int>(dst_bytes),
                                            static_cast<int>(src_bytes));
  const bool aligned =
      Aligned(dst, vector * dst_bytes) && Aligned(src, vector * src_bytes);
  for (int64_t i = 0; i < pair.dst.numel(); i += kLerpChunkElements) {
    const int64_t count = std::min(kLerpChunkElements, pair.dst.numel() - i);
    chunks->push_back({dst + i * dst_bytes, src + i * src_bytes,
                       static_cast<uint32_t>(count), aligned});
  }
}

}  // namespace

absl::Status CheckLerpPair(const LerpPair& pair) {
  return CheckPair(pair, DeviceOf(pair));
}

absl::StatusOr<std::vector<LerpLaunch>> PlanLerp(
    absl::Span<const LerpPair> pairs) {
  std::vector<LerpLaunch> launches;
  if (pairs.empty()) return launches;
  const at::Device device = DeviceOf(pairs[0]);
  for (size_t i = 0; i < pairs.size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(CheckPair(pairs[i], device),
                                        absl::StrCat("pairs[", i, "]")));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckOverlaps(pairs));
  for (const LerpPair& pair : pairs) {
    if (pair.dst.numel() == 0) continue;
    const at::ScalarType dst_type = pair.dst.scalar_type();
    const at::ScalarType src_type = pair.src.scalar_type();
    auto launch = std::find_if(
        launches.begin(), launches.end(), [&](const LerpLaunch& l) {
          return l.dst_type == dst_type && l.src_type == src_type;
        });
    if (launch == launches.end()) {
      launch = launches.insert(launches.end(), {dst_type, src_type, {}});
    }
    AppendChunks(pair, &launch->chunks);
  }
  return launches;
}

}  // namespace grapnel
