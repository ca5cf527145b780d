#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/float32.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace {

constexpr uint8_t kUnsignedByte = 0x08;

// Bytes 0, 0, type of the elements, number of dimensions; then each dimension
// as 32 bits, most significant byte first; then the elements, row-major.
struct IdxFile {
  std::vector<int64_t> dims;
  std::unique_ptr<uint8_t[]> elements;
};

// Reads a file of unsigned bytes with `min_dims` to `max_dims` dimensions.
absl::StatusOr<IdxFile> ReadIdx(io::Env& env, const std::string& path,
                                int min_dims, int max_dims) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::RandomAccessFile> file,
                           env.NewRandomAccessFile(path));
  const auto error = [&path](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
  };

  std::array<uint8_t, 4> magic;
  if (file->size() < 4) {
    return error("must begin with the four bytes of IDX's magic number, has ",
                 file->size());
  }
  GRAPNEL_RETURN_IF_ERROR(
      file->Read(0, 4, reinterpret_cast<char*>(magic.data())));
  if (magic[0] == 0x1f && magic[1] == 0x8b) {
    return error("is compressed by gzip: decompress it first");
  }
  if (magic[0] != 0 || magic[1] != 0) {
    return error(absl::StrFormat(
        "is no IDX file: must begin with two zero bytes, begins with %02x %02x",
        magic[0], magic[1]));
  }
  if (magic[2] != kUnsignedByte) {
    return error(
        absl::StrFormat("elements must be unsigned bytes (type 0x08), "
                        "are of type 0x%02x",
                        magic[2]));
  }
  const int rank = magic[3];
  if (rank < min_dims || rank > max_dims) {
    return error("number of dimensions must be ", min_dims,
                 min_dims == max_dims ? "" : absl::StrCat(" or ", max_dims),
                 ", is ", rank);
  }

  const int64_t header = 4 + 4 * rank;
  std::vector<uint8_t> raw(4 * rank);
  if (file->size() < header) {
    return error("must have a header of ", header, " bytes, has ",
                 file->size());
  }
  GRAPNEL_RETURN_IF_ERROR(
      file->Read(4, 4 * rank, reinterpret_cast<char*>(raw.data())));
  IdxFile idx;
  // Dimensions of 32 bits, at most four of them: 128 bits hold any product.
  unsigned __int128 expected = 1;
  for (int i = 0; i < rank; ++i) {
    const uint8_t* b = &raw[4 * i];
    const uint32_t dim = uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 |
                         uint32_t{b[2]} << 8 | uint32_t{b[3]};
    idx.dims.push_back(dim);
    expected *= dim;
  }
  const std::string shape =
      absl::StrCat("(", absl::StrJoin(idx.dims, ", "), ")");
  if (expected == 0) return error("has no elements: its shape is ", shape);
  const int64_t bytes = file->size() - header;
  if (expected != static_cast<unsigned __int128>(bytes)) {
    return error("must have as many bytes after its header as its shape ",
                 shape, " says, has ", bytes);
  }

  idx.elements.reset(new (std::nothrow) uint8_t[bytes]);
  if (idx.elements == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": no memory for its ", bytes, " bytes"));
  }
  GRAPNEL_RETURN_IF_ERROR(
      file->Read(header, bytes, reinterpret_cast<char*>(idx.elements.get())));
  return idx;
}

// All of both files in memory, as the bytes that they are.
class IdxDataset final : public Dataset {
 public:
  using Config = data::v1::IdxDatasetConfig;

  static absl::StatusOr<std::unique_ptr<IdxDataset>> Create(
      const Config& config, const DatasetOptions& options);

  int64_t size() const override { return size_; }
  absl::Status Get(int64_t index, Sample* sample) const override;
  bool GetBatch(absl::Span<const int64_t> indices, Batch* batch) const override;

 private:
  IdxDataset(IdxFile images, IdxFile labels, double scale);

  void Scale(int64_t index, float* to) const {
    const uint8_t* from = pixels_.get() + index * image_size_;
    for (int64_t i = 0; i < image_size_; ++i) to[i] = values_[from[i]];
  }

  const int64_t size_;
  std::vector<int64_t> shape_;  // (C, H, W)
  int64_t image_size_ = 1;      // C*H*W
  const std::unique_ptr<uint8_t[]> pixels_;
  const std::unique_ptr<uint8_t[]> labels_;
  std::array<float, 256> values_;  // Of each pixel, scaled.

  // A scalar for each label, which samples share.
  std::array<at::Tensor, 256> targets_;
};

absl::Status Validate(const IdxDataset::Config& config) {
  if (config.images().empty()) {
    return absl::InvalidArgumentError("images: must be set");
  }
  if (config.labels().empty()) {
    return absl::InvalidArgumentError("labels: must be set");
  }
  if (config.has_scale()) {
    GRAPNEL_RETURN_IF_ERROR(CheckFloat32("scale", config.scale()));
    if (config.scale() == 0) {
      return absl::InvalidArgumentError("scale: must not be 0, is 0");
    }
    GRAPNEL_RETURN_IF_ERROR(
        CheckFloat32("scale: its product with 255", 255 * config.scale()));
  }
  if (config.has_num_classes() && config.num_classes() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_classes: must be >= 1, is ", config.num_classes()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<IdxDataset>> IdxDataset::Create(
    const Config& config, const DatasetOptions& options) {
  GRAPNEL_RET_CHECK(options.env != nullptr);
  GRAPNEL_RETURN_IF_ERROR(Validate(config));
  const std::string images_path =
      io::JoinPath(options.base_dir, config.images());
  const std::string labels_path =
      io::JoinPath(options.base_dir, config.labels());
  absl::StatusOr<IdxFile> images = ReadIdx(*options.env, images_path, 3, 4);
  GRAPNEL_RETURN_IF_ERROR(WithContext(images.status(), "images"));
  absl::StatusOr<IdxFile> labels = ReadIdx(*options.env, labels_path, 1, 1);
  GRAPNEL_RETURN_IF_ERROR(WithContext(labels.status(), "labels"));

  const int64_t n = images->dims[0];
  if (labels->dims[0] != n) {
    return absl::InvalidArgumentError(
        absl::StrCat("labels: ", labels_path, ": has ", labels->dims[0],
                     " labels, but there are ", n, " images"));
  }
  if (config.has_num_classes()) {
    for (int64_t i = 0; i < n; ++i) {
      const int label = labels->elements[i];
      if (label < config.num_classes()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("labels: ", labels_path, ": label of sample ", i,
                       " must be below num_classes, ", config.num_classes(),
                       ", is ", label));
    }
  }

  std::unique_ptr<IdxDataset> dataset;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    dataset = absl::WrapUnique(
        new IdxDataset(*std::move(images), *std::move(labels),
                       config.has_scale() ? config.scale() : 1.0 / 255));
    return absl::OkStatus();
  }));
  return dataset;
}

IdxDataset::IdxDataset(IdxFile images, IdxFile labels, double scale)
    : size_(images.dims[0]),
      shape_(images.dims.begin() + 1, images.dims.end()),
      pixels_(std::move(images.elements)),
      labels_(std::move(labels.elements)) {
  if (shape_.size() == 2) shape_.insert(shape_.begin(), 1);
  for (const int64_t dim : shape_) image_size_ *= dim;
  for (int i = 0; i < 256; ++i) {
    values_[i] = static_cast<float>(i * scale);
    targets_[i] = NewTensor({}, at::kLong);
    *targets_[i].mutable_data_ptr<int64_t>() = i;
  }
}

absl::Status IdxDataset::Get(int64_t index, Sample* sample) const {
  return CatchAsStatus([&] {
    sample->input = NewTensor(shape_, at::kFloat);
    Scale(index, sample->input.mutable_data_ptr<float>());
    sample->target = targets_[labels_[index]];
    sample->extras.clear();
    return absl::OkStatus();
  });
}

bool IdxDataset::GetBatch(absl::Span<const int64_t> indices,
                          Batch* batch) const {
  return CatchAsStatus([&] {
           const int64_t n = static_cast<int64_t>(indices.size());
           at::Tensor inputs =
               NewTensor({n, shape_[0], shape_[1], shape_[2]}, at::kFloat);
           at::Tensor targets = NewTensor({n}, at::kLong);
           float* input = inputs.mutable_data_ptr<float>();
           int64_t* target = targets.mutable_data_ptr<int64_t>();
           for (const int64_t index : indices) {
             Scale(index, input);
             input += image_size_;
             *target++ = labels_[index];
           }
           batch->inputs = std::move(inputs);
           batch->targets = std::move(targets);
           batch->extras.clear();
           return absl::OkStatus();
         })
      .ok();
}

GRAPNEL_REGISTER(DatasetRegistry, IdxDataset);

}  // namespace
}  // namespace grapnel
