#include "grapnel/data/collate.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/dense_tensor.h"

namespace grapnel {
namespace {

bool Fits(const at::Tensor& tensor, const at::Tensor& first) {
  return tensor.defined() && tensor.scalar_type() == first.scalar_type() &&
         tensor.sizes() == first.sizes();
}

// Stacks tensor `get(sample)`, called `name`, of all samples.
template <typename Get>
absl::Status Stack(absl::Span<const Sample> samples,
                   absl::Span<const int64_t> indices, absl::string_view name,
                   Get get, at::Tensor* stacked) {
  const at::Tensor& first = get(samples[0]);
  if (!first.defined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("sample ", indices[0], ": ", name, ": must be defined"));
  }
  std::vector<int64_t> sizes = {static_cast<int64_t>(samples.size())};
  sizes.insert(sizes.end(), first.sizes().begin(), first.sizes().end());
  *stacked = NewTensor(sizes, first.scalar_type());
  char* to = static_cast<char*>(stacked->mutable_data_ptr());
  for (size_t i = 0; i < samples.size(); ++i) {
    const at::Tensor& tensor = get(samples[i]);
    if (!Fits(tensor, first)) {
      return absl::InvalidArgumentError(
          absl::StrCat("sample ", indices[i], ": ", name, ": is ",
                       Describe(tensor), ", but that of sample ", indices[0],
                       " in the same batch is ", Describe(first)));
    }
    const absl::Status plain = CheckPlain(tensor);
    if (!plain.ok()) {
      return WithContext(plain,
                         absl::StrCat("sample ", indices[i], ": ", name));
    }
    CopyElements(tensor, to);
    to += tensor.nbytes();
  }
  return absl::OkStatus();
}

absl::Status CheckExtras(absl::Span<const Sample> samples,
                         absl::Span<const int64_t> indices) {
  const std::vector<NamedTensor>& first = samples[0].extras;
  for (size_t i = 1; i < samples.size(); ++i) {
    const std::vector<NamedTensor>& extras = samples[i].extras;
    bool same = extras.size() == first.size();
    for (size_t j = 0; same && j < first.size(); ++j) {
      same = extras[j].name == first[j].name;
    }
    if (same) continue;
    const auto names = [](const std::vector<NamedTensor>& tensors) {
      std::string text;
      for (const NamedTensor& tensor : tensors) {
        absl::StrAppend(&text, text.empty() ? "" : ", ", tensor.name);
      }
      return absl::StrCat("(", text, ")");
    };
    return absl::InvalidArgumentError(
        absl::StrCat("sample ", indices[i], ": extras: are ", names(extras),
                     ", but those of sample ", indices[0],
                     " in the same batch are ", names(first)));
  }
  return absl::OkStatus();
}

absl::Status CollateOrThrow(absl::Span<const Sample> samples,
                            absl::Span<const int64_t> indices, Batch* batch) {
  const Sample& first = samples[0];
  GRAPNEL_RETURN_IF_ERROR(Stack(
      samples, indices, "input",
      [](const Sample& sample) -> const at::Tensor& { return sample.input; },
      &batch->inputs));

  if (first.target.defined()) {
    GRAPNEL_RETURN_IF_ERROR(Stack(
        samples, indices, "target",
        [](const Sample& sample) -> const at::Tensor& { return sample.target; },
        &batch->targets));
  } else {
    for (size_t i = 1; i < samples.size(); ++i) {
      if (!samples[i].target.defined()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("sample ", indices[i], ": target: is ",
                       Describe(samples[i].target), ", but that of sample ",
                       indices[0], " in the same batch is undefined"));
    }
  }

  GRAPNEL_RETURN_IF_ERROR(CheckExtras(samples, indices));
  for (size_t j = 0; j < first.extras.size(); ++j) {
    batch->extras.push_back({first.extras[j].name, at::Tensor()});
    GRAPNEL_RETURN_IF_ERROR(Stack(
        samples, indices, absl::StrCat("extras: ", first.extras[j].name),
        [j](const Sample& sample) -> const at::Tensor& {
          return sample.extras[j].tensor;
        },
        &batch->extras.back().tensor));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Collate(absl::Span<const Sample> samples,
                     std::vector<int64_t> indices, Batch* batch) {
  GRAPNEL_RET_CHECK(!samples.empty() && samples.size() == indices.size());
  Batch collated;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus(
      [&] { return CollateOrThrow(samples, indices, &collated); }));
  collated.indices = std::move(indices);
  *batch = std::move(collated);
  return absl::OkStatus();
}

}  // namespace grapnel
