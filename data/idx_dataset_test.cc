#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

// An IDX file: the magic number's last two bytes, dimensions, elements.
std::string Idx(uint8_t type, const std::vector<uint32_t>& dims,
                const std::string& elements) {
  std::string file("\0\0", 2);
  file += static_cast<char>(type);
  file += static_cast<char>(dims.size());
  for (const uint32_t dim : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      file += static_cast<char>(dim >> shift);
    }
  }
  return file + elements;
}

// `n` different bytes.
std::string Bytes(int n) {
  std::string bytes;
  for (int i = 0; i < n; ++i) bytes += static_cast<char>(i);
  return bytes;
}

class IdxDatasetTest : public testing::Test {
 protected:
  IdxDatasetTest() {
    EXPECT_THAT(env_.CreateDir("/data"), IsOk());
    Write("images", Idx(0x08, {3, 2, 4}, Bytes(24)));
    Write("labels", Idx(0x08, {3}, std::string("\x05\x00\xff", 3)));
  }

  void Write(const std::string& name, const std::string& content) {
    EXPECT_THAT(io::WriteFileAtomically(env_, "/data/" + name, content),
                IsOk());
  }

  absl::StatusOr<std::unique_ptr<Dataset>> Create(
      const std::string& fields = "images: 'images' labels: 'labels'") {
    data::v1::DatasetConfig config;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
        absl::StrCat("idx {", fields, "}"), &config));
    DatasetOptions options;
    options.base_dir = "/data";
    options.env = &env_;
    return DatasetRegistry::Create(config, options);
  }

  io::MemEnv env_;
};

TEST_F(IdxDatasetTest, GivesScaledImagesWithAChannelAndLabels) {
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  EXPECT_EQ((*dataset)->size(), 3);
  for (int64_t i = 0; i < 3; ++i) {
    Sample sample;
    ASSERT_THAT((*dataset)->Get(i, &sample), IsOk());
    ASSERT_EQ(sample.input.sizes(), at::IntArrayRef({1, 2, 4}));
    ASSERT_EQ(sample.input.scalar_type(), at::kFloat);
    for (int64_t j = 0; j < 8; ++j) {
      EXPECT_EQ(sample.input.const_data_ptr<float>()[j],
                static_cast<float>((8 * i + j) / 255.0));
    }
    EXPECT_EQ(sample.target.scalar_type(), at::kLong);
    EXPECT_EQ(sample.target.dim(), 0);
    EXPECT_EQ(sample.target.item<int64_t>(), (std::vector{5, 0, 255})[i]);
  }
}

TEST_F(IdxDatasetTest, ScaleReplacesTheDefault) {
  const auto dataset =
      Create("images: 'images' labels: 'labels' scale: -0.0625");
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  ASSERT_THAT((*dataset)->Get(1, &sample), IsOk());
  EXPECT_EQ(sample.input.const_data_ptr<float>()[0], -0.5f);
}

TEST_F(IdxDatasetTest, FourDimensionsHaveTheirOwnChannels) {
  Write("images", Idx(0x08, {3, 2, 2, 2}, Bytes(24)));
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  ASSERT_THAT((*dataset)->Get(0, &sample), IsOk());
  EXPECT_EQ(sample.input.sizes(), at::IntArrayRef({2, 2, 2}));
}

TEST_F(IdxDatasetTest, BatchesAreStackedSamples) {
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  Batch batch;
  ASSERT_TRUE((*dataset)->GetBatch({2, 0, 2, 1}, &batch));
  std::vector<at::Tensor> inputs, targets;
  for (const int64_t i : {2, 0, 2, 1}) {
    Sample sample;
    ASSERT_THAT((*dataset)->Get(i, &sample), IsOk());
    inputs.push_back(sample.input);
    targets.push_back(sample.target);
  }
  EXPECT_TRUE(ops::equal(batch.inputs, ops::stack(inputs)));
  EXPECT_TRUE(ops::equal(batch.targets, ops::stack(targets)));
}

TEST_F(IdxDatasetTest, NumClassesMayEqualTheLargestLabelPlusOne) {
  EXPECT_THAT(Create("images: 'images' labels: 'labels' num_classes: 256"),
              IsOk());
}

TEST_F(IdxDatasetTest, Row135LabelBeyondNumClassesIsNamed) {
  EXPECT_THAT(
      Create("images: 'images' labels: 'labels' num_classes: 10"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("labels: /data/labels:"), HasSubstr("sample 2"),
                     HasSubstr("10"), HasSubstr("is 255"))));
}

TEST_F(IdxDatasetTest, AbsolutePathsStayAsTheyAre) {
  EXPECT_THAT(Create("images: '/data/images' labels: '/data/labels'"), IsOk());
}

struct BadConfig {
  std::string field;
  std::string config;
};

TEST_F(IdxDatasetTest, BadConfigNamesTheField) {
  const std::string paths = "images: 'images' labels: 'labels' ";
  for (const auto& [field, config] : std::vector<BadConfig>{
           {"images", "labels: 'labels'"},
           {"labels", "images: 'images'"},
           {"scale", paths + "scale: 0"},
           {"scale", paths + "scale: nan"},
           {"scale", paths + "scale: inf"},
           {"scale", paths + "scale: 1e39"},
           {"scale", paths + "scale: -3e38"},
           {"scale", paths + "scale: 1e-60"},
           {"num_classes", paths + "num_classes: 0"},
       }) {
    EXPECT_THAT(Create(config), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr(field + ":")))
        << config;
  }
}

TEST_F(IdxDatasetTest, MissingFileIsNotFound) {
  EXPECT_THAT(Create("images: 'images' labels: 'lables'"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("labels:"), HasSubstr("/data/lables"))));
}

// Empties each file as soon as it is open.
class EmptyingEnv final : public io::EnvWrapper {
 public:
  using io::EnvWrapper::EnvWrapper;

  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    auto file = target().NewRandomAccessFile(path);
    EXPECT_THAT(target().NewWritableFile(path), IsOk());
    return file;
  }
};

TEST_F(IdxDatasetTest, Row139FileThatShrinksUnderTheReaderIsDataLoss) {
  EmptyingEnv env(env_);
  data::v1::DatasetConfig config;
  config.mutable_idx()->set_images("images");
  config.mutable_idx()->set_labels("labels");
  DatasetOptions options;
  options.base_dir = "/data";
  options.env = &env;
  EXPECT_THAT(DatasetRegistry::Create(config, options),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("images: /data/images: ends at byte 0")));
}

TEST_F(IdxDatasetTest, Row139SamplesOutliveTheirFiles) {
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  Write("images", "");
  ASSERT_THAT(env_.DeleteFile("/data/labels"), IsOk());
  Sample sample;
  ASSERT_THAT((*dataset)->Get(2, &sample), IsOk());
  EXPECT_EQ(sample.input.const_data_ptr<float>()[7],
            static_cast<float>(23 / 255.0));
  EXPECT_EQ(sample.target.item<int64_t>(), 255);
}

// "Row130..." are those of a numbered list of bad inputs that all readers here
// are tested with.
struct BadFile {
  std::string name;
  std::string file;  // "images" or "labels"
  std::string content;
  std::string message;
};

void PrintTo(const BadFile& c, std::ostream* os) { *os << c.name; }

class IdxBadFileTest : public IdxDatasetTest,
                       public testing::WithParamInterface<BadFile> {};

INSTANTIATE_TEST_SUITE_P(
    , IdxBadFileTest,
    ValuesIn(std::vector<BadFile>{
        {"Empty", "images", "", "four bytes"},
        {"CutInTheMagic", "images", std::string("\0\0\x08", 3), "four bytes"},
        {"CutInTheHeader", "images", Idx(0x08, {3, 2, 4}, "").substr(0, 10),
         "header of 16 bytes, has 10"},
        {"Row130Text", "images", "hello", "no IDX file"},
        {"Row133Gzip", "images", "\x1f\x8b\x08 and so on",
         "decompress it first"},
        {"Row133GzipLabels", "labels", "\x1f\x8b\x08 and so on",
         "decompress it first"},
        {"Row130Floats", "images", Idx(0x0d, {3, 2, 4}, std::string(96, 'x')),
         "type 0x0d"},
        {"SwappedFiles", "images", Idx(0x08, {3}, "abc"),
         "number of dimensions must be 3 or 4, is 1"},
        {"ImagesAsLabels", "labels", Idx(0x08, {3, 1, 1}, "abc"),
         "number of dimensions must be 1, is 3"},
        {"NoDimensions", "images", Idx(0x08, {}, ""), "3 or 4, is 0"},
        {"ManyDimensions", "images",
         Idx(0x08, std::vector<uint32_t>(255, 1), "x"), "3 or 4, is 255"},
        {"Row131OneByteShort", "images", Idx(0x08, {3, 2, 4}, Bytes(23)),
         "(3, 2, 4) says, has 23"},
        {"Row131OneByteLong", "images", Idx(0x08, {3, 2, 4}, Bytes(25)),
         "(3, 2, 4) says, has 25"},
        {"Row138NoSamples", "images", Idx(0x08, {0, 2, 4}, ""),
         "no elements: its shape is (0, 2, 4)"},
        {"NoPixels", "images", Idx(0x08, {3, 0, 4}, ""), "no elements"},
        // The first product is 0 in 64 bits.
        {"Row132Overflow64", "images", Idx(0x08, {1u << 31, 1u << 31, 4}, ""),
         "says, has 0"},
        {"Row132Overflow128", "images", Idx(0x08, {~0u, ~0u, ~0u, ~0u}, ""),
         "says, has 0"},
        {"Row134FewerLabels", "labels", Idx(0x08, {2}, "ab"),
         "has 2 labels, but there are 3 images"},
        {"Row134MoreLabels", "labels", Idx(0x08, {4}, "abcd"),
         "has 4 labels, but there are 3 images"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(IdxBadFileTest, IsRefusedByName) {
  const BadFile& c = GetParam();
  Write(c.file, c.content);
  EXPECT_THAT(
      Create(),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr(absl::StrCat(c.file, ": /data/", c.file, ": ")),
                     HasSubstr(c.message))));
}

}  // namespace
}  // namespace grapnel
