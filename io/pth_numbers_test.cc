#include "grapnel/io/pth_numbers.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_builder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using pickled::Bytes;
using pickled::Call;
using pickled::Float;
using pickled::Global;
using pickled::Int;
using pickled::List;
using pickled::Text;
using pickled::Tuple;
using ::testing::ElementsAre;
using ::testing::Optional;

constexpr char kFalse[] = "\x89";
constexpr char kTrue[] = "\x88";

// As NumPy's own pickles have them.
std::string Dtype(absl::string_view type, absl::string_view order = "<") {
  return absl::StrCat(
      Call(Global("numpy", "dtype"), {Text(type), kFalse, kTrue}),
      Tuple({Int(3), Text(order), "N", "N", "N", Int(-1), Int(-1), Int(0)}),
      "b");
}

std::string Scalar(const std::string& dtype, const std::string& bytes) {
  return Call(Global("numpy._core.multiarray", "scalar"), {dtype, bytes});
}

std::string Array(const std::vector<std::string>& shape,
                  const std::string& dtype, const std::string& bytes) {
  return absl::StrCat(
      Call(Global("numpy._core.multiarray", "_reconstruct"),
           {Global("numpy", "ndarray"), Tuple({Int(0)}), Bytes("b")}),
      Tuple({Int(1), Tuple(shape), dtype, kFalse, bytes}), "b");
}

class PthNumbersTest : public ::testing::Test {
 protected:
  PthValue Read(const std::string& value) {
    EXPECT_THAT(
        WriteFileAtomically(env_, "/f", BuildPth(pickled::Pickle(value))),
        IsOk());
    PthOptions options;
    options.allow_foreign = true;
    auto file = PthFile::Read(env_, "/f", options);
    EXPECT_THAT(file, IsOk());
    files_.push_back(*std::move(file));
    return files_.back().root();
  }
  std::optional<double> Number(const std::string& value) {
    return NumberIn(Read(value));
  }
  std::optional<std::vector<double>> Numbers(const std::string& value) {
    return NumbersIn(Read(value));
  }

  MemEnv env_;
  std::vector<PthFile> files_;
};

// Numbers whose bytes are text.
const std::string kTwoInInt32("\x02\0\0\0", 4);
const std::string kTwoInDouble("\0\0\0\0\0\0\0\x40", 8);
const std::string kTwoInFloat("\0\0\0\x40", 4);

TEST_F(PthNumbersTest, ANumberIsPythonsOrNumPys) {
  EXPECT_THAT(Number(Int(3)), Optional(3));
  EXPECT_THAT(Number(Float(0.5)), Optional(0.5));
  EXPECT_THAT(Number(kTrue), Optional(1));
  EXPECT_THAT(Number(Scalar(Dtype("f8"), Bytes(kTwoInDouble))), Optional(2));
  EXPECT_THAT(Number(Scalar(Dtype("f4"), Bytes(kTwoInFloat))), Optional(2));
  EXPECT_THAT(Number(Scalar(Dtype("i4"), Bytes(kTwoInInt32))), Optional(2));
  EXPECT_EQ(Number(Text("3")), std::nullopt);
  EXPECT_EQ(Number(Scalar(Dtype("f8", ">"), Bytes(kTwoInDouble))),
            std::nullopt);
  EXPECT_EQ(Number(Scalar(Dtype("f2"), Bytes("ab"))), std::nullopt);
  EXPECT_EQ(Number(Scalar(Dtype("f8"), Text("abcdefgh"))), std::nullopt);
  // Of two, and of one and a half.
  EXPECT_EQ(Number(Scalar(Dtype("f4"), Bytes(kTwoInDouble))), std::nullopt);
  EXPECT_EQ(Number(Scalar(Dtype("f8"), Bytes(kTwoInDouble + kTwoInInt32))),
            std::nullopt);
}

TEST_F(PthNumbersTest, AnArrayHasTheBytesOfItsShape) {
  const std::string bytes = Bytes(kTwoInInt32 + kTwoInInt32);
  const std::string dtype = Dtype("i4");
  EXPECT_THAT(Numbers(List({Int(1), Float(0.5)})),
              Optional(ElementsAre(1, 0.5)));
  EXPECT_THAT(Numbers(Array({Int(2)}, dtype, bytes)),
              Optional(ElementsAre(2, 2)));
  EXPECT_THAT(Numbers(Array({Int(0)}, dtype, Bytes(""))),
              Optional(ElementsAre()));
  for (const int64_t size : {int64_t{-2}, int64_t{0}, int64_t{1}, int64_t{3},
                             (int64_t{1} << 62) + 2}) {
    EXPECT_EQ(Numbers(Array({Int(size)}, dtype, bytes)), std::nullopt) << size;
  }
  EXPECT_EQ(Numbers(Array({Text("2")}, dtype, bytes)), std::nullopt);
  EXPECT_EQ(Numbers(Array({Int(1), Int(2)}, dtype, bytes)), std::nullopt);
  EXPECT_EQ(Numbers(Array({Int(1)}, dtype, Bytes(kTwoInInt32 + "\x01"))),
            std::nullopt);
  EXPECT_EQ(Numbers(List({Text("1")})), std::nullopt);
}

}  // namespace
}  // namespace io
}  // namespace grapnel
