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

// Draws the window's top, then its left.
class RandomCropTransform final : public Transform {
 public:
  using Config = data::v1::RandomCropConfig;

  static absl::StatusOr<std::unique_ptr<RandomCropTransform>> Create(
      const Config& config);

  absl::Status Apply(SampleRng& rng, Sample* sample) const override;

 private:
  RandomCropTransform(int64_t height, int64_t width, int64_t padding)
      : height_(height), width_(width), padding_(padding) {}

  // The window whose upper left corner is (top, left) in `input`'s own
  // coordinates, which may lie outside of it.
  at::Tensor Crop(const at::Tensor& input, int64_t top, int64_t left) const;

  const int64_t height_;
  const int64_t width_;
  const int64_t padding_;
};

absl::StatusOr<std::unique_ptr<RandomCropTransform>>
RandomCropTransform::Create(const Config& config) {
  if (config.height() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("height: must be >= 1, is ", config.height()));
  }
  if (config.width() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("width: must be >= 1, is ", config.width()));
  }
  if (config.padding() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("padding: must be >= 0, is ", config.padding()));
  }
  return absl::WrapUnique(new RandomCropTransform(
      config.height(), config.width(), config.padding()));
}

absl::Status RandomCropTransform::Apply(SampleRng& rng, Sample* sample) const {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor input, FloatImage(*sample));
  const int64_t rows = input.size(1) + 2 * padding_ - height_ + 1;
  const int64_t columns = input.size(2) + 2 * padding_ - width_ + 1;
  if (rows < 1 || columns < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "input: must be at least ", height_, " x ", width_, " after padding ",
        padding_, " on each side, is ", Describe(input)));
  }
  const int64_t top = rng.Below(rows) - padding_;
  const int64_t left = rng.Below(columns) - padding_;
  return CatchAsStatus([&] {
    sample->input = Crop(input, top, left);
    return absl::OkStatus();
  });
}

at::Tensor RandomCropTransform::Crop(const at::Tensor& input, int64_t top,
                                     int64_t left) const {
  const int64_t channels = input.size(0);
  const int64_t height = input.size(1);
  const int64_t width = input.size(2);
  at::Tensor output = NewTensor({channels, height_, width_}, at::kFloat);
  const float* from = input.const_data_ptr<float>();
  float* to = output.mutable_data_ptr<float>();
  // Columns of the window that are inside the image.
  const int64_t begin = std::clamp<int64_t>(-left, 0, width_);
  const int64_t end = std::clamp<int64_t>(width - left, begin, width_);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t y = 0; y < height_; ++y, to += width_) {
      const int64_t row = top + y;
      if (row < 0 || row >= height) {
        std::fill_n(to, width_, 0.0f);
        continue;
      }
      std::fill_n(to, begin, 0.0f);
      if (begin < end) {
        std::copy_n(from + (c * height + row) * width + left + begin,
                    end - begin, to + begin);
      }
      std::fill_n(to + end, width_ - end, 0.0f);
    }
  }
  return output;
}

GRAPNEL_REGISTER(TransformRegistry, RandomCropTransform);

}  // namespace
}  // namespace grapnel
