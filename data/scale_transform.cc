#include <cstdint>
#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/float32.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"

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

}  // namespace
}  // namespace grapnel
