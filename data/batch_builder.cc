#include "grapnel/data/batch_builder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/collate.h"
#include "grapnel/data/data.pb.h"

namespace grapnel {
namespace {

// What a dataset or a transform says must not be taken for the epoch's end.
absl::Status NotOutOfRange(absl::Status status) {
  return status.code() == absl::StatusCode::kOutOfRange
             ? absl::InternalError(status.message())
             : status;
}

}  // namespace

std::string DatasetFieldName(const data::v1::DataLoaderConfig& config) {
  const std::string kind = KindName(config.dataset());
  return kind.empty() ? "dataset" : absl::StrCat("dataset: ", kind);
}

absl::StatusOr<BatchBuilder> BatchBuilder::Create(
    const data::v1::DataLoaderConfig& config, std::unique_ptr<Dataset> dataset,
    int64_t seed) {
  BatchBuilder builder;
  builder.dataset_ = std::move(dataset);
  builder.dataset_name_ = DatasetFieldName(config);
  GRAPNEL_RETURN_IF_ERROR(WithContext(CatchAsStatus([&] {
                                        builder.dataset_size_ =
                                            builder.dataset_->size();
                                        return absl::OkStatus();
                                      }),
                                      "dataset"));
  if (builder.dataset_size_ < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dataset: must have at least one sample, has ", builder.dataset_size_));
  }
  GRAPNEL_ASSIGN_OR_RETURN(builder.transforms_,
                           TransformChain::Create(config, seed));
  return builder;
}

absl::StatusOr<std::vector<int64_t>> BatchBuilder::InputShape() const {
  const c10::NoGradGuard no_grad;
  Sample sample;
  GRAPNEL_RETURN_IF_ERROR(
      NotOutOfRange(BuildSample(/*pass=*/0, /*index=*/0, &sample)));
  if (!sample.input.defined()) {
    return absl::InvalidArgumentError("sample 0: input: must be defined");
  }
  return sample.input.sizes().vec();
}

absl::StatusOr<std::vector<std::string>> BatchBuilder::Warnings() const {
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(WithContext(CatchAsStatus([&] {
                                        warnings = dataset_->warnings();
                                        return absl::OkStatus();
                                      }),
                                      "dataset"));
  for (std::string& warning : warnings) {
    warning = absl::StrCat(dataset_name_, ": ", warning);
  }
  return warnings;
}

absl::Status BatchBuilder::Build(std::vector<int64_t> indices,
                                 absl::FunctionRef<int64_t(size_t)> pass_of,
                                 const std::atomic<bool>* cancelled,
                                 const PinnedMemory& memory,
                                 Batch* batch) const {
  const c10::NoGradGuard no_grad;
  return NotOutOfRange(CatchAsStatus([&] {
    if (transforms_.empty()) {
      Batch whole;
      bool given = false;
      const absl::Status status = CatchAsStatus([&] {
        const PinnedMemoryScope scope(memory);
        given = dataset_->GetBatch(indices, &whole);
        return absl::OkStatus();
      });
      if (!status.ok()) return WithContext(status, "dataset");
      if (given) {
        whole.indices = std::move(indices);
        *batch = std::move(whole);
        return absl::OkStatus();
      }
    }

    std::vector<Sample> samples(indices.size());
    for (size_t i = 0; i < indices.size(); ++i) {
      if (cancelled != nullptr && *cancelled) {
        return absl::CancelledError("not needed any more");
      }
      GRAPNEL_RETURN_IF_ERROR(BuildSample(pass_of(i), indices[i], &samples[i]));
    }
    const PinnedMemoryScope scope(memory);
    return Collate(samples, std::move(indices), batch);
  }));
}

absl::Status BatchBuilder::BuildSample(int64_t pass, int64_t index,
                                       Sample* sample) const {
  absl::Status status =
      CatchAsStatus([&] { return dataset_->Get(index, sample); });
  if (!status.ok()) {
    return WithContext(std::move(status),
                       absl::StrCat("dataset: sample ", index));
  }
  return transforms_.Apply(pass, index, sample);
}

}  // namespace grapnel
