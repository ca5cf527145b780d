#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

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
#include "grapnel/data/float_image.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"

namespace grapnel {
namespace {

// Draws one number, whatever `p` is.
class RandomFlipTransform final : public Transform {
 public:
  using Config = data::v1::RandomFlipConfig;

  static absl::StatusOr<std::unique_ptr<RandomFlipTransform>> Create(
      const Config& config) {
    const double p = config.has_p() ? config.p() : 0.5;
    if (!(p >= 0 && p <= 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("p: must be in 0..1, is ", p));
    }
    if (!Config::Direction_IsValid(config.direction())) {
      return absl::InvalidArgumentError(
          absl::StrCat("direction: must be HORIZONTAL or VERTICAL, is ",
                       config.direction()));
    }
    return absl::WrapUnique(
        new RandomFlipTransform(p, config.direction() == Config::VERTICAL));
  }

  absl::Status Apply(SampleRng& rng, Sample* sample) const override {
    GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor input, FloatImage(*sample));
    if (rng.Uniform() >= p_) return absl::OkStatus();
    return CatchAsStatus([&] {
      at::Tensor output = NewTensor(input.sizes(), at::kFloat);
      const int64_t height = input.size(1);
      const int64_t width = input.size(2);
      const float* from = input.const_data_ptr<float>();
      float* to = output.mutable_data_ptr<float>();
      for (int64_t c = 0; c < input.size(0); ++c) {
        const float* channel = from + c * height * width;
        for (int64_t y = 0; y < height; ++y, to += width) {
          if (vertical_) {
            std::copy_n(channel + (height - 1 - y) * width, width, to);
          } else {
            const float* row = channel + y * width;
            std::reverse_copy(row, row + width, to);
          }
        }
      }
      sample->input = std::move(output);
      return absl::OkStatus();
    });
  }

 private:
  RandomFlipTransform(double p, bool vertical) : p_(p), vertical_(vertical) {}

  const double p_;
  const bool vertical_;
};

GRAPNEL_REGISTER(TransformRegistry, RandomFlipTransform);

}  // namespace
}  // namespace grapnel
