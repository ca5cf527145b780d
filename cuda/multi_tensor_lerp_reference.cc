#include "grapnel/cuda/multi_tensor_lerp_reference.h"

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/cuda/lerp_plan.h"

namespace grapnel {
namespace {

template <typename Dst, typename Src>
void Lerp(const LerpPair& pair, double weight, LerpForm form) {
  using Math = std::conditional_t<std::is_same_v<Dst, double> ||
                                      std::is_same_v<Src, double>,
                                  double, float>;
  auto* dst = static_cast<Dst*>(pair.dst.mutable_data_ptr());
  const auto* src = static_cast<const Src*>(pair.src.const_data_ptr());
  const auto w = static_cast<Math>(weight);
  for (int64_t i = 0; i < pair.dst.numel(); ++i) {
    const auto start = static_cast<Math>(dst[i]);
    const auto end = static_cast<Math>(src[i]);
    const Math moved = form == LerpForm::kAdd || std::abs(w) < Math(0.5)
                           ? std::fma(w, end - start, start)
                           : std::fma(w - Math(1), end - start, end);
    dst[i] = static_cast<Dst>(moved);
  }
}

template <typename Dst>
void LerpTo(const LerpPair& pair, double weight, LerpForm form) {
  switch (pair.src.scalar_type()) {
    case at::kDouble:
      return Lerp<Dst, double>(pair, weight, form);
    case at::kHalf:
      return Lerp<Dst, at::Half>(pair, weight, form);
    case at::kBFloat16:
      return Lerp<Dst, at::BFloat16>(pair, weight, form);
    default:
      return Lerp<Dst, float>(pair, weight, form);
  }
}

}  // namespace

absl::Status ReferenceLerp(absl::Span<const LerpPair> pairs, double weight,
                           LerpForm form) {
  if (!pairs.empty() && pairs[0].dst.defined() && !pairs[0].dst.is_cpu()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pairs: must be on the CPU, are on ", pairs[0].dst.device().str()));
  }
  GRAPNEL_RETURN_IF_ERROR(PlanLerp(pairs).status());
  for (const LerpPair& pair : pairs) {
    switch (pair.dst.scalar_type()) {
      case at::kDouble:
        LerpTo<double>(pair, weight, form);
        break;
      case at::kHalf:
        LerpTo<at::Half>(pair, weight, form);
        break;
      case at::kBFloat16:
        LerpTo<at::BFloat16>(pair, weight, form);
        break;
      default:
        LerpTo<float>(pair, weight, form);
    }
  }
  return absl::OkStatus();
}

}  // namespace grapnel
