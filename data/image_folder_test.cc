#include <algorithm>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/image_encoder.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;

std::vector<float> Values(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

std::string GrayPng(int height, int width, uint8_t value) {
  return EncodePng(PngKind::kGray, height, width,
                   std::vector<uint8_t>(height * width, value));
}

class ImageFolderTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& content) {
    ASSERT_THAT(env_.CreateDir(io::Dirname("/images/" + path)), IsOk());
    ASSERT_THAT(io::WriteFileAtomically(env_, "/images/" + path, content),
                IsOk());
  }

  absl::StatusOr<std::unique_ptr<Dataset>> Create(
      const std::string& fields = "", const std::string& root = "images") {
    data::v1::DatasetConfig config;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
        absl::StrCat("image_folder { root: '", root, "' ", fields, "}"),
        &config));
    DatasetOptions options;
    options.base_dir = "/";
    options.env = &env_;
    return DatasetRegistry::Create(config, options);
  }

  io::MemEnv env_;
};

TEST_F(ImageFolderTest, ClassesAndFilesAreSortedByName) {
  Write("dog/1.png", GrayPng(2, 3, 51));
  Write("cat/b.PNG", GrayPng(2, 3, 102));
  Write("cat/a.png", GrayPng(2, 3, 153));
  Write("Zebra/x.jpeg",
        EncodeJpeg(JpegKind::kGray, 2, 3, std::vector<uint8_t>(6, 204)));
  // None of these counts.
  Write("cat/notes.txt", "a cat");
  Write("cat/.hidden.png", "not read");
  Write(".git/x.png", "not read");
  Write("top.png", "not read");

  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  EXPECT_THAT((*dataset)->class_names(), ElementsAre("Zebra", "cat", "dog"));
  ASSERT_EQ((*dataset)->size(), 4);
  const std::vector<int64_t> labels = {0, 1, 1, 2};
  const std::vector<float> values = {0.8f, 0.6f, 0.4f, 0.2f};
  for (int64_t i = 0; i < 4; ++i) {
    Sample sample;
    ASSERT_THAT((*dataset)->Get(i, &sample), IsOk());
    EXPECT_EQ(sample.target.item<int64_t>(), labels[i]);
    EXPECT_EQ(sample.input.sizes(), at::IntArrayRef({3, 2, 3}));
    EXPECT_THAT(Values(sample.input),
                Pointwise(FloatNear(1e-6f), std::vector<float>(18, values[i])));
  }
}

TEST_F(ImageFolderTest, WhatIsLeftOutIsCountedByKind) {
  Write("cat/1.png", GrayPng(1, 1, 0));
  for (const char* name :
       {"cat/a.bmp", "cat/b.BMP", "dog/c.bmp", "cat/d.webp", "dog/e.x.webp",
        "dog/README", "dog/dot.", "dog/\xe9.\xe9", "cat/more/f.png",
        "cat/more/even/g.jpg", "dog/more/h.jpeg", "dog/more/i.webp",
        "top.png"}) {
    Write(name, "not read");
  }
  Write("dog/1.png", GrayPng(1, 1, 0));
  // Nothing is said of these.
  for (const char* name : {"cat/.DS_Store", "cat/more/.j.png", ".git/k.png",
                           "cat/.cache/l.png", "labels.csv"}) {
    Write(name, "not read");
  }
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  EXPECT_EQ((*dataset)->size(), 2);
  EXPECT_THAT((*dataset)->warnings(),
              ElementsAre("/images: left out: 3 .bmp, 3 .webp, 2 without an "
                          "ending, 1 .\\xe9, 3 images in folders within a "
                          "class's, 1 image outside the classes' folders"));
}

TEST_F(ImageFolderTest, RareEndingsAreCountedTogether) {
  Write("a/1.png", GrayPng(1, 1, 0));
  for (int i = 10; i < 22; ++i) {
    Write(absl::StrCat("a/x.", i), "");
    Write(absl::StrCat("a/y.", std::min(i, 15)), "");
  }
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  EXPECT_THAT((*dataset)->warnings(),
              ElementsAre("/images: left out: 2 .10, 2 .11, 2 .12, 2 .13, "
                          "2 .14, 2 .15, 1 .16, 1 .17, 4 with other endings"));
}

TEST_F(ImageFolderTest, NothingLeftOutIsNoWarning) {
  Write("a/1.png", GrayPng(1, 1, 0));
  Write("a/.DS_Store", "");
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  EXPECT_THAT((*dataset)->warnings(), IsEmpty());
}

TEST_F(ImageFolderTest, ChannelsComeFirst) {
  Write("a/1.png", EncodePng(PngKind::kRgb, 1, 2, {255, 0, 51, 0, 255, 102}));
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  ASSERT_THAT((*dataset)->Get(0, &sample), IsOk());
  EXPECT_THAT(Values(sample.input), ElementsAre(1, 0, 0, 1, 0.2f, 0.4f));
}

TEST_F(ImageFolderTest, GrayHasOneChannel) {
  Write("a/1.png", EncodePng(PngKind::kRgb, 1, 1, {255, 255, 255}));
  const auto dataset = Create("color: GRAY");
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  ASSERT_THAT((*dataset)->Get(0, &sample), IsOk());
  EXPECT_EQ(sample.input.sizes(), at::IntArrayRef({1, 1, 1}));
  EXPECT_THAT(Values(sample.input), ElementsAre(1));
}

// As torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
TEST_F(ImageFolderTest, ResizesWithHalfPixelCentres) {
  Write("a/1.png", EncodePng(PngKind::kGray, 1, 2, {0, 255}));
  const auto wider = Create("color: GRAY height: 2 width: 4");
  ASSERT_THAT(wider, IsOk());
  Sample sample;
  ASSERT_THAT((*wider)->Get(0, &sample), IsOk());
  EXPECT_EQ(sample.input.sizes(), at::IntArrayRef({1, 2, 4}));
  EXPECT_THAT(Values(sample.input),
              ElementsAre(0, 0.25f, 0.75f, 1, 0, 0.25f, 0.75f, 1));

  Write("a/1.png", EncodePng(PngKind::kGray, 4, 1, {0, 51, 102, 255}));
  const auto lower = Create("color: GRAY height: 2 width: 1");
  ASSERT_THAT(lower, IsOk());
  ASSERT_THAT((*lower)->Get(0, &sample), IsOk());
  EXPECT_THAT(Values(sample.input), Pointwise(FloatNear(1e-6f), {0.1f, 0.7f}));
}

TEST_F(ImageFolderTest, OtherSizesNeedHeightAndWidth) {
  Write("a/1.png", GrayPng(2, 2, 0));
  Write("a/2.png", GrayPng(3, 2, 0));
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  EXPECT_THAT((*dataset)->Get(0, &sample), IsOk());
  EXPECT_THAT((*dataset)->Get(1, &sample),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("/images/a/2.png: is 3 x 2"),
                             HasSubstr("/images/a/1.png is 2 x 2"),
                             HasSubstr("set height and width"))));
  const auto resized = Create("height: 2 width: 2");
  ASSERT_THAT(resized, IsOk());
  EXPECT_THAT((*resized)->Get(1, &sample), IsOk());
}

TEST_F(ImageFolderTest, BrokenImagesAreNamed) {
  const std::string whole = GrayPng(20, 20, 9);
  Write("a/1.png", whole);
  Write("a/2.png", whole.substr(0, whole.size() - 20));
  Write("a/3.jpg", EncodeJpeg(JpegKind::kCmyk, 20, 20, {}));
  const auto dataset = Create();
  ASSERT_THAT(dataset, IsOk());
  Sample sample;
  EXPECT_THAT((*dataset)->Get(1, &sample),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("/images/a/2.png: the PNG is damaged")));
  EXPECT_THAT((*dataset)->Get(2, &sample),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("/images/a/3.jpg: is a JPEG in CMYK")));
  ASSERT_THAT(env_.DeleteFile("/images/a/1.png"), IsOk());
  EXPECT_THAT((*dataset)->Get(0, &sample),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("a/1.png")));
}

TEST_F(ImageFolderTest, MissingRootIsNotFound) {
  EXPECT_THAT(Create(),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("root:"), HasSubstr("/images"))));
}

TEST_F(ImageFolderTest, RootWithoutClassesIsAnError) {
  Write("1.png", GrayPng(1, 1, 0));
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("a folder")));
}

TEST_F(ImageFolderTest, EmptyClassIsAnError) {
  Write("a/1.png", GrayPng(1, 1, 0));
  Write("b/readme.txt", "nothing");
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("/images/b: must have")));
}

struct BadConfig {
  std::string field;
  std::string config;
};

TEST_F(ImageFolderTest, BadConfigNamesTheField) {
  Write("a/1.png", GrayPng(1, 1, 0));
  for (const auto& [field, config] : std::vector<BadConfig>{
           {"color", "color: 7"},
           {"width", "height: 3"},
           {"height", "width: 3"},
           {"height", "height: 0 width: 3"},
           {"width", "height: 3 width: 65536"},
       }) {
    EXPECT_THAT(Create(config), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr(field + ": must be")))
        << config;
  }
  EXPECT_THAT(Create("", ""), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("root: must be set")));
}

}  // namespace
}  // namespace grapnel
