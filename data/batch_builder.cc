#include "grapnel/data/batch_builder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "google/protobuf/message.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/collate.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.pb.h"

namespace grapnel {
namespace {

using data::v1::TransformConfig;

// "dataset: idx", or "dataset" if no kind is set.
std::string FieldName(absl::string_view field,
                      const google::protobuf::Message& config) {
  const std::string kind = KindName(config);
  return kind.empty() ? std::string(field) : absl::StrCat(field, ": ", kind);
}

// What a dataset or a transform says must not be taken for the epoch's end.
absl::Status NotOutOfRange(absl::Status status) {
  return status.code() == absl::StatusCode::kOutOfRange
             ? absl::InternalError(status.message())
             : status;
}

bool DependsOnPass(const TransformConfig& config) {
  return config.kind_case() != TransformConfig::kScale &&
         config.kind_case() != TransformConfig::kNormalize;
}

}  // namespace

std::string DatasetFieldName(const data::v1::DataLoaderConfig& config) {
  return FieldName("dataset", config.dataset());
}

absl::StatusOr<BatchBuilder> BatchBuilder::Create(
    const data::v1::DataLoaderConfig& config, std::unique_ptr<Dataset> dataset,
    int64_t seed) {
  BatchBuilder builder;
  builder.seed_ = seed;
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
  for (int i = 0; i < config.transforms_size(); ++i) {
    const TransformConfig& transform = config.transforms(i);
    std::string name =
        FieldName(absl::StrCat("transforms[", i, "]"), transform);
    absl::StatusOr<std::unique_ptr<Transform>> created;
    absl::Status status = CatchAsStatus([&] {
      created = TransformRegistry::Create(transform);
      return created.status();
    });
    if (!status.ok()) return WithContext(std::move(status), name);
    builder.transforms_.push_back(*std::move(created));
    builder.transform_names_.push_back(std::move(name));
    builder.depends_on_pass_ |= DependsOnPass(transform);
  }
  return builder;
}

absl::StatusOr<std::vector<int64_t>> BatchBuilder::InputShape() const {
  const c10::NoGradGuard no_grad;
  Sample sample;
  GRAPNEL_RETURN_IF_ERROR(BuildSample(/*pass=*/0, /*index=*/0, &sample));
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
                                 Batch* batch) const {
  const c10::NoGradGuard no_grad;
  return CatchAsStatus([&] {
    if (transforms_.empty()) {
      Batch whole;
      bool given = false;
      const absl::Status status = NotOutOfRange(CatchAsStatus([&] {
        given = dataset_->GetBatch(indices, &whole);
        return absl::OkStatus();
      }));
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
    return Collate(samples, std::move(indices), batch);
  });
}

absl::Status BatchBuilder::BuildSample(int64_t pass, int64_t index,
                                       Sample* sample) const {
  absl::Status status = NotOutOfRange(
      CatchAsStatus([&] { return dataset_->Get(index, sample); }));
  if (!status.ok()) {
    return WithContext(std::move(status),
                       absl::StrCat("dataset: sample ", index));
  }
  SampleRng rng(seed_, pass, index);
  for (size_t i = 0; i < transforms_.size(); ++i) {
    status = NotOutOfRange(
        CatchAsStatus([&] { return transforms_[i]->Apply(rng, sample); }));
    if (!status.ok()) {
      return WithContext(std::move(status),
                         absl::StrCat(transform_names_[i], ": sample ", index));
    }
  }
  return absl::OkStatus();
}

}  // namespace grapnel
