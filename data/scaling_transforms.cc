// input * factor + offset, for all or by channel.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/float32.h"
#include "grapnel/data/float_image.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"
#include "grapnel/data/transform.pb.h"

namespace grapnel {
namespace {

// Takes float32 and float64, which stay, and uint8, which becomes float32; any
// shape.
class ScaleTransform final : public Transform {
 public:
  using Config = data::v1::ScaleConfig;

  static absl::StatusOr<std::unique_ptr<ScaleTransform>> Create(
      const Config& config) {
    if (!config.has_factor()) {
      return absl::InvalidArgumentError("factor: must be set");
    }
    GRAPNEL_RETURN_IF_ERROR(CheckFloat32("factor", config.factor()));
    GRAPNEL_RETURN_IF_ERROR(CheckFloat32("offset", config.offset()));
    return absl::WrapUnique(
        new ScaleTransform(config.factor(), config.offset()));
  }

  absl::Status Apply(SampleRng& rng, Sample* sample) const override {
    GRAPNEL_RETURN_IF_ERROR(WithContext(CheckPlain(sample->input), "input"));
    return CatchAsStatus([&] {
      const at::Tensor input = Dense(sample->input);
      switch (input.scalar_type()) {
        case at::kFloat:
          sample->input = Scaled<float, float>(input, at::kFloat);
          return absl::OkStatus();
        case at::kDouble:
          sample->input = Scaled<double, double>(input, at::kDouble);
          return absl::OkStatus();
        case at::kByte:
          sample->input = Scaled<uint8_t, float>(input, at::kFloat);
          return absl::OkStatus();
        default:
          return absl::InvalidArgumentError(
              absl::StrCat("input: must be float32, float64 or uint8, is ",
                           Describe(input)));
      }
    });
  }

 private:
  ScaleTransform(double factor, double offset)
      : factor_(factor), offset_(offset) {}

  template <typename From, typename To>
  at::Tensor Scaled(const at::Tensor& input, at::ScalarType dtype) const {
    at::Tensor output = NewTensor(input.sizes(), dtype);
    const From* from = input.const_data_ptr<From>();
    To* to = output.mutable_data_ptr<To>();
    const To factor = static_cast<To>(factor_);
    const To offset = static_cast<To>(offset_);
    for (int64_t i = 0, n = input.numel(); i < n; ++i) {
      to[i] = static_cast<To>(from[i]) * factor + offset;
    }
    return output;
  }

  const double factor_;
  const double offset_;
};

GRAPNEL_REGISTER(TransformRegistry, ScaleTransform);

class NormalizeTransform final : public Transform {
 public:
  using Config = data::v1::NormalizeConfig;

  static absl::StatusOr<std::unique_ptr<NormalizeTransform>> Create(
      const Config& config);

  absl::Status Apply(SampleRng& rng, Sample* sample) const override;

 private:
  explicit NormalizeTransform(const Config& config)
      : mean_(config.mean().begin(), config.mean().end()),
        std_(config.std().begin(), config.std().end()) {}

  // One for all channels, or one a channel.
  const std::vector<float> mean_;
  const std::vector<float> std_;
};

absl::StatusOr<std::unique_ptr<NormalizeTransform>> NormalizeTransform::Create(
    const Config& config) {
  if (config.mean().empty()) {
    return absl::InvalidArgumentError("mean: must be set");
  }
  if (config.std_size() != config.mean_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("std: must have as many values as mean, ",
                     config.mean_size(), ", has ", config.std_size()));
  }
  for (int i = 0; i < config.mean_size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckFloat32(absl::StrCat("mean[", i, "]"), config.mean(i)));
    GRAPNEL_RETURN_IF_ERROR(
        CheckFloat32(absl::StrCat("std[", i, "]"), config.std(i)));
    if (config.std(i) <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("std[", i, "]: must be > 0, is ", config.std(i)));
    }
  }
  return absl::WrapUnique(new NormalizeTransform(config));
}

absl::Status NormalizeTransform::Apply(SampleRng& rng, Sample* sample) const {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor input, FloatImage(*sample));
  const int64_t channels = input.size(0);
  if (mean_.size() != 1 && static_cast<int64_t>(mean_.size()) != channels) {
    return absl::InvalidArgumentError(
        absl::StrCat("input: must have ", mean_.size(),
                     " channels, one for each mean, is ", Describe(input)));
  }
  return CatchAsStatus([&] {
    at::Tensor output = NewTensor(input.sizes(), at::kFloat);
    const int64_t pixels = input.size(1) * input.size(2);
    const float* from = input.const_data_ptr<float>();
    float* to = output.mutable_data_ptr<float>();
    for (int64_t c = 0; c < channels; ++c) {
      const size_t i = mean_.size() == 1 ? 0 : c;
      for (int64_t p = 0; p < pixels; ++p) {
        *to++ = (*from++ - mean_[i]) / std_[i];
      }
    }
    sample->input = std::move(output);
    return absl::OkStatus();
  });
}

GRAPNEL_REGISTER(TransformRegistry, NormalizeTransform);

}  // namespace
}  // namespace grapnel
