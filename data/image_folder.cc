#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/image_decoder.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace {

// Where an output pixel lies between two input pixels.
struct Tap {
  int64_t first;
  int64_t second;
  float weight;  // Of the second.
};

// Taps of all output pixels along one side, with half-pixel centres, repeating
// the border.
std::vector<Tap> Taps(int64_t from, int64_t to) {
  std::vector<Tap> taps(to);
  const double ratio = static_cast<double>(from) / static_cast<double>(to);
  for (int64_t i = 0; i < to; ++i) {
    const double at =
        std::max(0.0, (static_cast<double>(i) + 0.5) * ratio - 0.5);
    taps[i].first = std::min(static_cast<int64_t>(at), from - 1);
    taps[i].second = std::min(taps[i].first + 1, from - 1);
    taps[i].weight = static_cast<float>(at - taps[i].first);
  }
  return taps;
}

// (H, W, C) bytes to (C, height, width) in 0..1.
at::Tensor ToTensor(const Image& image, int64_t height, int64_t width) {
  at::Tensor tensor = NewTensor({image.channels, height, width}, at::kFloat);
  float* to = tensor.mutable_data_ptr<float>();
  const uint8_t* pixels = image.pixels.get();
  const int64_t channels = image.channels;
  if (height == image.height && width == image.width) {
    const int64_t n = height * width;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < n; ++i) {
        *to++ = static_cast<float>(pixels[i * channels + c]) / 255.0f;
      }
    }
    return tensor;
  }

  const std::vector<Tap> ys = Taps(image.height, height);
  const std::vector<Tap> xs = Taps(image.width, width);
  const int64_t row = image.width * channels;
  for (int64_t c = 0; c < channels; ++c) {
    for (const Tap& y : ys) {
      const uint8_t* upper = pixels + y.first * row + c;
      const uint8_t* lower = pixels + y.second * row + c;
      for (const Tap& x : xs) {
        const auto between = [&](const uint8_t* line) {
          const float left = line[x.first * channels];
          return left + x.weight * (line[x.second * channels] - left);
        };
        const float top = between(upper);
        *to++ = (top + y.weight * (between(lower) - top)) / 255.0f;
      }
    }
  }
  return tensor;
}

bool IsHidden(absl::string_view name) { return name[0] == '.'; }

bool IsImage(absl::string_view name) {
  return absl::EndsWithIgnoreCase(name, ".png") ||
         absl::EndsWithIgnoreCase(name, ".jpg") ||
         absl::EndsWithIgnoreCase(name, ".jpeg");
}

// Below a class's folder, for what is left out: a link may lead back up.
constexpr int kMaxDepth = 8;

// Kinds of files that are told apart in a warning.
constexpr size_t kMaxEndings = 8;

// Files that are no samples, by kind.
class LeftOut {
 public:
  void AddOther(absl::string_view name) {
    const size_t dot = name.rfind('.');
    const bool none = dot == absl::string_view::npos || dot + 1 == name.size();
    ++endings_[none ? "without an ending"
                    : absl::AsciiStrToLower(EscapeToUtf8(name.substr(dot)))];
  }
  void AddNested() { ++nested_; }
  void AddOutside() { ++outside_; }
  void AddUnreadable() { ++unreadable_; }

  // "3 .bmp, 1 without an ending", the most frequent first; "" for none.
  std::string Text() const {
    std::vector<std::pair<int64_t, std::string>> kinds;
    for (const auto& [ending, n] : endings_) kinds.emplace_back(-n, ending);
    std::sort(kinds.begin(), kinds.end());
    std::vector<std::string> parts;
    int64_t rest = 0;
    for (const auto& [minus_n, ending] : kinds) {
      if (parts.size() == kMaxEndings) {
        rest -= minus_n;
      } else {
        parts.push_back(absl::StrCat(-minus_n, " ", ending));
      }
    }
    if (rest > 0) parts.push_back(absl::StrCat(rest, " with other endings"));
    const auto add_images = [&](int64_t n, absl::string_view where) {
      if (n == 0) return;
      parts.push_back(absl::StrCat(n, n == 1 ? " image " : " images ", where));
    };
    add_images(nested_, "in folders within a class's");
    add_images(outside_, "outside the classes' folders");
    if (unreadable_ > 0) {
      parts.push_back(absl::StrCat(unreadable_,
                                   unreadable_ == 1 ? " folder" : " folders",
                                   " that can't be read"));
    }
    return absl::StrJoin(parts, ", ");
  }

 private:
  std::map<std::string, int64_t> endings_;
  int64_t nested_ = 0;
  int64_t outside_ = 0;
  int64_t unreadable_ = 0;
};

// Only names are kept; an image is read and decoded whenever it is asked for.
class ImageFolder final : public Dataset {
 public:
  using Config = data::v1::ImageFolderConfig;

  static absl::StatusOr<std::unique_ptr<ImageFolder>> Create(
      const Config& config, const DatasetOptions& options);

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  absl::Status Get(int64_t index, Sample* sample) const override;
  std::vector<std::string> class_names() const override { return classes_; }
  std::vector<std::string> warnings() const override {
    const std::string left_out = left_out_.Text();
    if (left_out.empty()) return {};
    return {absl::StrCat(EscapeToUtf8(root_), ": left out: ", left_out)};
  }

 private:
  struct File {
    std::string name;
    int32_t label;
  };

  ImageFolder(const Config& config, const DatasetOptions& options)
      : root_(io::JoinPath(options.base_dir, config.root())),
        channels_(config.color() == Config::GRAY ? 1 : 3),
        height_(config.height()),
        width_(config.width()),
        env_(*options.env) {}

  // Finds classes and files, and the size of the images if it wasn't given.
  absl::Status Scan();
  absl::Status ScanClass(const std::string& name);
  // Counts what is in a folder within a class's.
  void ScanLeftOut(const std::string& path, int depth);

  std::string Path(const File& file) const {
    return io::JoinPath(io::JoinPath(root_, classes_[file.label]), file.name);
  }
  absl::StatusOr<Image> Read(const File& file) const;

  const std::string root_;
  const int channels_;
  int64_t height_;  // Of all samples.
  int64_t width_;
  bool resize_ = true;
  io::Env& env_;
  std::vector<std::string> classes_;
  std::vector<at::Tensor> targets_;  // A scalar for each class.
  std::vector<File> files_;
  LeftOut left_out_;
};

absl::Status ValidateSide(absl::string_view name, int64_t value) {
  if (value >= 1 && value <= kMaxImageSide) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": must be in 1..", kMaxImageSide, ", is ", value));
}

absl::Status Validate(const ImageFolder::Config& config) {
  if (config.root().empty()) {
    return absl::InvalidArgumentError("root: must be set");
  }
  if (!ImageFolder::Config::Color_IsValid(config.color())) {
    return absl::InvalidArgumentError(
        absl::StrCat("color: must be RGB or GRAY, is ", config.color()));
  }
  if (config.has_height() != config.has_width()) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.has_height() ? "width" : "height",
                     ": must be set, as the other side is"));
  }
  if (config.has_height()) {
    GRAPNEL_RETURN_IF_ERROR(ValidateSide("height", config.height()));
    GRAPNEL_RETURN_IF_ERROR(ValidateSide("width", config.width()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ImageFolder>> ImageFolder::Create(
    const Config& config, const DatasetOptions& options) {
  GRAPNEL_RET_CHECK(options.env != nullptr);
  GRAPNEL_RETURN_IF_ERROR(Validate(config));
  std::unique_ptr<ImageFolder> folder(new ImageFolder(config, options));
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(CatchAsStatus([&] { return folder->Scan(); }), "root"));
  return folder;
}

absl::Status ImageFolder::Scan() {
  GRAPNEL_ASSIGN_OR_RETURN(std::vector<std::string> names, env_.ListDir(root_));
  // Env sorts; the labels depend on it, so don't rely on it.
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (IsHidden(name)) continue;
    if (!env_.IsDirectory(io::JoinPath(root_, name))) {
      if (IsImage(name)) left_out_.AddOutside();
      continue;
    }
    GRAPNEL_RETURN_IF_ERROR(ScanClass(name));
  }
  if (files_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        root_, ": must have a folder of PNG or JPEG images for each class"));
  }
  if (height_ == 0) {
    GRAPNEL_ASSIGN_OR_RETURN(const Image first, Read(files_[0]));
    height_ = first.height;
    width_ = first.width;
    resize_ = false;
  }
  return absl::OkStatus();
}

absl::Status ImageFolder::ScanClass(const std::string& name) {
  const std::string path = io::JoinPath(root_, name);
  GRAPNEL_ASSIGN_OR_RETURN(std::vector<std::string> names, env_.ListDir(path));
  std::sort(names.begin(), names.end());
  const int32_t label = static_cast<int32_t>(classes_.size());
  const size_t before = files_.size();
  for (std::string& file : names) {
    if (IsHidden(file)) continue;
    const std::string file_path = io::JoinPath(path, file);
    if (!IsImage(file)) {
      if (env_.IsDirectory(file_path)) {
        ScanLeftOut(file_path, 1);
      } else {
        left_out_.AddOther(file);
      }
      continue;
    }
    files_.push_back({std::move(file), label});
  }
  if (files_.size() == before) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": must have a PNG or JPEG image, or not be there"));
  }
  classes_.push_back(name);
  targets_.push_back(NewTensor({}, at::kLong));
  *targets_.back().mutable_data_ptr<int64_t>() = label;
  return absl::OkStatus();
}

void ImageFolder::ScanLeftOut(const std::string& path, int depth) {
  const absl::StatusOr<std::vector<std::string>> names = env_.ListDir(path);
  if (!names.ok()) return left_out_.AddUnreadable();  // It isn't needed.
  for (const std::string& name : *names) {
    if (IsHidden(name)) continue;
    const std::string file_path = io::JoinPath(path, name);
    if (env_.IsDirectory(file_path)) {
      if (depth == kMaxDepth) continue;
      ScanLeftOut(file_path, depth + 1);
    } else if (IsImage(name)) {
      left_out_.AddNested();
    } else {
      left_out_.AddOther(name);
    }
  }
}

absl::StatusOr<Image> ImageFolder::Read(const File& file) const {
  const std::string path = Path(file);
  GRAPNEL_ASSIGN_OR_RETURN(const std::string bytes, io::ReadFile(env_, path));
  absl::StatusOr<Image> image = DecodeImage(bytes, channels_);
  if (!image.ok()) return WithContext(image.status(), path);
  return image;
}

absl::Status ImageFolder::Get(int64_t index, Sample* sample) const {
  const File& file = files_[index];
  GRAPNEL_ASSIGN_OR_RETURN(const Image image, Read(file));
  if (!resize_ && (image.height != height_ || image.width != width_)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Path(file), ": is ", image.height, " x ", image.width,
                     " pixels, but ", Path(files_[0]), " is ", height_, " x ",
                     width_, ": set height and width"));
  }
  return CatchAsStatus([&] {
    sample->input = ToTensor(image, height_, width_);
    sample->target = targets_[file.label];
    sample->extras.clear();
    return absl::OkStatus();
  });
}

GRAPNEL_REGISTER(DatasetRegistry, ImageFolder);

}  // namespace
}  // namespace grapnel
