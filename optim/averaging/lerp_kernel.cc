#include "grapnel/optim/averaging/lerp_kernel.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/cuda/lerp_pair.h"
#include "grapnel/cuda/multi_tensor_lerp.h"
#include "grapnel/optim/averaging/lerp_loops.h"
#include "grapnel/optim/foreach_ops.h"

namespace grapnel {

namespace {

// Elements that a thread is worth waking for: below, it is done before the
// others have come.
constexpr int64_t kGrain = 65536;

// The most that a span has, so that threads get about as much each.
constexpr int64_t kMaxSpan = 16384;

// Whether its bytes are its numbers, in a row.
bool IsDense(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.layout() == c10::kStrided &&
         tensor.has_storage() && tensor.is_non_overlapping_and_dense() &&
         !tensor.is_conj() && !tensor.is_neg();
}

// Whether a loop of ours can take the pair, if there is one for its types.
bool HasSpans(const AveragedTensor& pair) {
  return IsDense(pair.average) && IsDense(pair.source) &&
         pair.average.strides() == pair.source.strides();
}

// Where the storage of `tensor` lies. Without the check of data(), which would
// read one more cache line of each tensor.
const void* DataOf(const c10::TensorImpl& tensor) {
  return tensor.unsafe_storage()
      .unsafeGetStorageImpl()
      ->_mutable_data_ptr_no_checks()
      .get();
}

void AddSpans(const AveragedTensor& pair, std::vector<LerpSpan>* spans) {
  auto* average = static_cast<char*>(pair.average.mutable_data_ptr());
  const auto* source = static_cast<const char*>(pair.source.const_data_ptr());
  for (int64_t left = pair.average.numel(); left > 0; left -= kMaxSpan) {
    const int64_t n = std::min(left, kMaxSpan);
    spans->push_back({average, source, n});
    average += n * static_cast<int64_t>(pair.average.element_size());
    source += n * static_cast<int64_t>(pair.source.element_size());
  }
}

}  // namespace

void MixCudaGroup(std::vector<at::Tensor>& averages,
                  const std::vector<at::Tensor>& sources,
                  const Mixture& mixture) {
  const std::vector<at::Tensor>* converted = &sources;
  std::vector<at::Tensor> storage;
  if (averages[0].scalar_type() != sources[0].scalar_type()) {
    for (const at::Tensor& source : sources) {
      storage.push_back(source.to(averages[0].scalar_type()));
    }
    converted = &storage;
  }
  if (mixture.form == Mixture::Form::kLerp) {
    ops::foreach_lerp_(averages, *converted, mixture.weight);
  } else {
    const std::vector<at::Tensor> differences =
        ops::foreach_sub(*converted, averages);
    ops::foreach_add_(averages, differences, mixture.weight);
  }
}

bool Exchangeable(const at::Tensor& a, const at::Tensor& b) {
  return IsDense(a) && IsDense(b) && a.scalar_type() == b.scalar_type() &&
         a.sizes() == b.sizes() && a.strides() == b.strides();
}

void ExchangeBytes(const at::Tensor& a, const at::Tensor& b) {
  auto* const a_bytes = static_cast<char*>(a.mutable_data_ptr());
  auto* const b_bytes = static_cast<char*>(b.mutable_data_ptr());
  at::parallel_for(0, static_cast<int64_t>(a.nbytes()), kGrain * 4,
                   [&](int64_t begin, int64_t end) {
                     char buffer[4096];
                     while (begin < end) {
                       const size_t n =
                           std::min<int64_t>(sizeof(buffer), end - begin);
                       std::memcpy(buffer, a_bytes + begin, n);
                       std::memcpy(a_bytes + begin, b_bytes + begin, n);
                       std::memcpy(b_bytes + begin, buffer, n);
                       begin += static_cast<int64_t>(n);
                     }
                   });
}

absl::StatusOr<LerpKernel> LerpKernel::Create(
    std::vector<AveragedTensor> pairs) {
  for (const AveragedTensor& pair : pairs) {
    if (!pair.average.defined() || !pair.source.defined() ||
        !(pair.average.is_floating_point() || pair.average.is_complex())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor \"", pair.name, "\" must be floating, to be averaged"));
    }
  }
  LerpKernel kernel(std::move(pairs));
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] { return kernel.Plan(); }));
  return kernel;
}

absl::Status LerpKernel::Plan() {
  planned_ = false;
  spans_.clear();
  runs_.clear();
  starts_.clear();
  num_elements_ = 0;
  watched_.clear();
  launches_.clear();
  groups_.clear();
  others_.clear();
  std::map<int, std::vector<LerpPair>> on_device;
  std::map<std::tuple<int, c10::ScalarType, c10::ScalarType>, size_t> group_of;
  std::map<std::pair<c10::ScalarType, c10::ScalarType>, std::vector<LerpSpan>>
      of_types;
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const AveragedTensor& pair = pairs_[i];
    if (pair.average.sizes() != pair.source.sizes()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor \"", pair.name, "\" has another shape than its average"));
    }
    if (pair.average.numel() == 0) continue;
    const std::pair types(pair.average.scalar_type(),
                          pair.source.scalar_type());
    if (FindLerpLoop(types.first, types.second) != nullptr && HasSpans(pair)) {
      AddSpans(pair, &of_types[types]);
      const c10::TensorImpl* const source = pair.source.unsafeGetTensorImpl();
      watched_.push_back({source, source->unsafe_storage(), DataOf(*source)});
    } else if (MultiTensorLerp::Takes({pair.average, pair.source})) {
      on_device[pair.average.device().index()].push_back(
          {pair.average, pair.source});
    } else if (pair.average.is_cuda() && pair.source.is_cuda() &&
               pair.average.device() == pair.source.device()) {
      const auto [found, added] = group_of.try_emplace(
          std::tuple(static_cast<int>(pair.average.device().index()),
                     pair.average.scalar_type(), pair.source.scalar_type()),
          groups_.size());
      if (added) groups_.emplace_back();
      Group& group = groups_[found->second];
      group.averages.push_back(pair.average);
      group.sources.push_back(pair.source);
    } else {
      others_.push_back(i);
    }
  }
  for (const auto& [types, spans] : of_types) {
    for (const LerpSpan& span : spans) {
      spans_.push_back(span);
      starts_.push_back(num_elements_);
      num_elements_ += span.n;
    }
    runs_.push_back({FindLerpLoop(types.first, types.second), spans_.size()});
  }
  for (auto& [device, pairs] : on_device) {
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<MultiTensorLerp> launch,
                             MultiTensorLerp::Create(std::move(pairs)));
    launches_.push_back(std::move(launch));
  }
  planned_ = true;
  return absl::OkStatus();
}

bool LerpKernel::SourcesMoved() const {
  bool moved = false;  // To the end, since it is almost always false.
  for (const Watched& watched : watched_) {
    moved |= DataOf(*watched.tensor) != watched.data;
  }
  return moved;
}

size_t LerpKernel::FirstSpanFrom(int64_t element) const {
  return std::lower_bound(starts_.begin(), starts_.end(), element) -
         starts_.begin();
}

void LerpKernel::MixSpans(size_t begin, size_t end,
                          const LerpCoefficients& coefficients) const {
  for (const Run& run : runs_) {
    const size_t stop = std::min(run.end, end);
    if (begin >= stop) continue;
    run.loop(spans_.data() + begin, stop - begin, coefficients);
    begin = stop;
  }
}

absl::Status LerpKernel::Mix(const Mixture& mixture) {
  return CatchAsStatus([&]() -> absl::Status {
    if (!planned_ || SourcesMoved()) GRAPNEL_RETURN_IF_ERROR(Plan());
    const LerpCoefficients coefficients(mixture);
    if (num_elements_ <= kGrain) {
      MixSpans(0, spans_.size(), coefficients);
    } else {
      at::parallel_for(
          0, num_elements_, kGrain, [&](int64_t begin, int64_t end) {
            MixSpans(FirstSpanFrom(begin), FirstSpanFrom(end), coefficients);
          });
    }
    for (const std::unique_ptr<MultiTensorLerp>& launch : launches_) {
      GRAPNEL_RETURN_IF_ERROR(
          launch->Update(mixture.weight, mixture.form == Mixture::Form::kAdd
                                             ? LerpForm::kAdd
                                             : LerpForm::kLerp));
    }
    if (groups_.empty() && others_.empty()) return absl::OkStatus();
    const c10::NoGradGuard no_grad;
    for (Group& group : groups_) {
      MixCudaGroup(group.averages, group.sources, mixture);
    }
    for (const size_t i : others_) {
      const at::Tensor& average = pairs_[i].average;
      const at::Tensor source =
          pairs_[i].source.to(average.device(), average.scalar_type());
      if (mixture.form == Mixture::Form::kLerp) {
        average.lerp_(source, mixture.weight);
      } else {
        average.add_(source.sub(average), mixture.weight);
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace grapnel
