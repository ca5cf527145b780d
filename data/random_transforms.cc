// Flips, crops and affine maps, drawn again for each sample.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/float_image.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"
#include "grapnel/data/transform.pb.h"

namespace grapnel {
namespace {

absl::Status CheckRange(absl::string_view name, double value, double max) {
  return CheckField(value >= 0 && value <= max, name,
                    absl::StrCat("in 0..", max), value);
}

// Draws one number, whatever `p` is.
class RandomFlipTransform final : public Transform {
 public:
  using Config = data::v1::RandomFlipConfig;

  static absl::StatusOr<std::unique_ptr<RandomFlipTransform>> Create(
      const Config& config) {
    const double p = config.has_p() ? config.p() : 0.5;
    GRAPNEL_RETURN_IF_ERROR(CheckRange("p", p, 1));
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
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(config.height() >= 1, "height", ">= 1", config.height()));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(config.width() >= 1, "width", ">= 1", config.width()));
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(config.padding() >= 0, "padding", ">= 0", config.padding()));
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

constexpr double kRadians = 3.14159265358979323846 / 180;

// Where an output pixel comes from: x = xx * X + xy * Y + x0, and so for y.
struct Affine {
  double xx, xy, x0;
  double yx, yy, y0;
};

// With x to the right, y down, c the image's centre, ((W-1)/2, (H-1)/2), and
// a, k the angles of rotation and shear, a pixel at p goes to
//
//   c + t + s * K * R * (p - c),   R = | cos a  -sin a |   K = | 1  tan k |
//                                      | sin a   cos a |       | 0    1   |
//
// that is: rotated (a > 0 turns clockwise as seen), sheared, scaled, shifted.
// An output pixel takes the value at its origin, bilinear between the four
// pixels around; what lies outside the image counts as 0.
//
// Draws a, t's x, t's y, s and k, always all five.
class RandomAffineTransform final : public Transform {
 public:
  using Config = data::v1::RandomAffineConfig;

  static absl::StatusOr<std::unique_ptr<RandomAffineTransform>> Create(
      const Config& config);

  absl::Status Apply(SampleRng& rng, Sample* sample) const override;

 private:
  explicit RandomAffineTransform(const Config& config)
      : degrees_(config.degrees()),
        translate_(config.translate()),
        scale_min_(ScaleMin(config)),
        scale_max_(ScaleMax(config)),
        shear_(config.shear()) {}

  static double ScaleMin(const Config& config) {
    return config.has_scale_min() ? config.scale_min() : 1;
  }
  static double ScaleMax(const Config& config) {
    return config.has_scale_max() ? config.scale_max() : 1;
  }

  Affine Draw(SampleRng& rng, int64_t height, int64_t width) const;

  const double degrees_;
  const double translate_;
  const double scale_min_;
  const double scale_max_;
  const double shear_;
};

absl::Status CheckScale(absl::string_view name, double value) {
  return CheckField(std::isfinite(value) && value > 0, name, "finite and > 0",
                    value);
}

absl::StatusOr<std::unique_ptr<RandomAffineTransform>>
RandomAffineTransform::Create(const Config& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckRange("degrees", config.degrees(), 180));
  GRAPNEL_RETURN_IF_ERROR(CheckRange("translate", config.translate(), 1));
  GRAPNEL_RETURN_IF_ERROR(CheckScale("scale_min", ScaleMin(config)));
  GRAPNEL_RETURN_IF_ERROR(CheckScale("scale_max", ScaleMax(config)));
  if (ScaleMin(config) > ScaleMax(config)) {
    return absl::InvalidArgumentError(
        absl::StrCat("scale_min: must be <= scale_max, ", ScaleMax(config),
                     ", is ", ScaleMin(config)));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckRange("shear", config.shear(), 89));
  return absl::WrapUnique(new RandomAffineTransform(config));
}

Affine RandomAffineTransform::Draw(SampleRng& rng, int64_t height,
                                   int64_t width) const {
  const double angle = rng.Uniform(-degrees_, degrees_) * kRadians;
  const double tx = rng.Uniform(-translate_, translate_) * width;
  const double ty = rng.Uniform(-translate_, translate_) * height;
  const double scale = rng.Uniform(scale_min_, scale_max_);
  const double shear = std::tan(rng.Uniform(-shear_, shear_) * kRadians);

  // (R^-1 K^-1 / s) (P - c - t) + c.
  const double cosine = std::cos(angle);
  const double sine = std::sin(angle);
  Affine affine;
  affine.xx = cosine / scale;
  affine.xy = (sine - shear * cosine) / scale;
  affine.yx = -sine / scale;
  affine.yy = (cosine + shear * sine) / scale;
  const double cx = (width - 1) / 2.0;
  const double cy = (height - 1) / 2.0;
  affine.x0 = cx - affine.xx * (cx + tx) - affine.xy * (cy + ty);
  affine.y0 = cy - affine.yx * (cx + tx) - affine.yy * (cy + ty);
  return affine;
}

// Of a channel, at (x, y), both > -1 and less than the side.
float Interpolate(const float* channel, int64_t height, int64_t width, double x,
                  double y) {
  const int64_t left = static_cast<int64_t>(std::floor(x));
  const int64_t top = static_cast<int64_t>(std::floor(y));
  const float wx = static_cast<float>(x - left);
  const float wy = static_cast<float>(y - top);
  const auto row = [&](int64_t line) {
    if (line < 0 || line >= height) return 0.0f;
    const float* pixels = channel + line * width;
    return (left < 0 ? 0.0f : pixels[left] * (1 - wx)) +
           (left + 1 >= width ? 0.0f : pixels[left + 1] * wx);
  };
  return row(top) * (1 - wy) + row(top + 1) * wy;
}

absl::Status RandomAffineTransform::Apply(SampleRng& rng,
                                          Sample* sample) const {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor input, FloatImage(*sample));
  const int64_t height = input.size(1);
  const int64_t width = input.size(2);
  const Affine affine = Draw(rng, height, width);
  return CatchAsStatus([&] {
    at::Tensor output = NewTensor(input.sizes(), at::kFloat);
    const float* from = input.const_data_ptr<float>();
    float* to = output.mutable_data_ptr<float>();
    for (int64_t c = 0; c < input.size(0); ++c) {
      const float* channel = from + c * height * width;
      for (int64_t row = 0; row < height; ++row) {
        for (int64_t column = 0; column < width; ++column) {
          const double x = affine.xx * column + affine.xy * row + affine.x0;
          const double y = affine.yx * column + affine.yy * row + affine.y0;
          const bool inside = x > -1 && x < width && y > -1 && y < height;
          *to++ = inside ? Interpolate(channel, height, width, x, y) : 0.0f;
        }
      }
    }
    sample->input = std::move(output);
    return absl::OkStatus();
  });
}

GRAPNEL_REGISTER(TransformRegistry, RandomAffineTransform);

}  // namespace
}  // namespace grapnel
