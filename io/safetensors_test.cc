#include "grapnel/io/safetensors.h"

#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::HasSubstr;

// `n` elements whose bytes count up, 0 and 1 for BOOL.
at::Tensor Counting(c10::ScalarType type, int64_t n) {
  const int64_t size = static_cast<int64_t>(c10::elementSize(type));
  at::Tensor bytes = ops::arange(n * size, at::kByte);
  if (type == at::kBool) bytes = bytes.bitwise_and(1);
  return bytes.view(type);
}

std::string Bytes(const at::Tensor& tensor) {
  const at::Tensor plain = tensor.contiguous();
  return std::string(static_cast<const char*>(plain.const_data_ptr()),
                     plain.nbytes());
}

TensorMap MapOf(std::vector<NamedTensor> tensors) {
  TensorMap map;
  for (NamedTensor& named : tensors) {
    EXPECT_THAT(map.Add(named.name, named.tensor), IsOk());
  }
  return map;
}

// A file with this header text, and data.
std::string File(absl::string_view header, absl::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(uint64_t{header.size()} >> 8 * i);
  }
  return absl::StrCat(bytes, header, data);
}

void Put(Env& env, const std::string& path, absl::string_view bytes) {
  ASSERT_THAT(WriteFileAtomically(env, path, bytes), IsOk());
}

struct DtypeCase {
  const char* name;
  c10::ScalarType type;
};

class SafetensorsDtypeTest : public testing::TestWithParam<DtypeCase> {};

TEST_P(SafetensorsDtypeTest, RoundTripsBitForBit) {
  MemEnv env;
  const c10::ScalarType type = GetParam().type;
  const at::Tensor matrix = Counting(type, 12).view({3, 4});
  const TensorMap tensors = MapOf({{"matrix", matrix},
                                   {"transposed", matrix.t()},
                                   {"column", matrix.select(1, 2)},
                                   {"scalar", matrix.select(0, 1).select(0, 3)},
                                   {"empty", matrix.narrow(0, 0, 0)}});
  const auto written = WriteSafetensors(env, "/f", tensors);
  ASSERT_THAT(written, IsOk());
  const auto read = ReadSafetensors(env, "/f");
  ASSERT_THAT(read, IsOk());
  ASSERT_EQ(read->size(), tensors.size());
  for (const NamedTensor& named : tensors) {
    SCOPED_TRACE(named.name);
    const at::Tensor* const tensor = read->Find(named.name);
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->scalar_type(), type);
    EXPECT_EQ(tensor->sizes(), named.tensor.sizes());
    EXPECT_TRUE(tensor->is_contiguous());
    EXPECT_EQ(Bytes(*tensor), Bytes(named.tensor));
  }
  for (const SafetensorsEntry& entry : written->entries) {
    EXPECT_EQ(entry.dtype, GetParam().name);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SafetensorsDtypeTest,
    testing::Values(DtypeCase{"BOOL", at::kBool}, DtypeCase{"U8", at::kByte},
                    DtypeCase{"I8", at::kChar}, DtypeCase{"U16", at::kUInt16},
                    DtypeCase{"I16", at::kShort}, DtypeCase{"U32", at::kUInt32},
                    DtypeCase{"I32", at::kInt}, DtypeCase{"U64", at::kUInt64},
                    DtypeCase{"I64", at::kLong}, DtypeCase{"F16", at::kHalf},
                    DtypeCase{"BF16", at::kBFloat16},
                    DtypeCase{"F32", at::kFloat}, DtypeCase{"F64", at::kDouble},
                    DtypeCase{"F8_E4M3", at::kFloat8_e4m3fn},
                    DtypeCase{"F8_E5M2", at::kFloat8_e5m2}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsWriterTest, LaysOutByElementSizeThenName) {
  MemEnv env;
  const auto written =
      WriteSafetensors(env, "/f",
                       MapOf({{"b", ops::ones({2}, at::kInt)},
                              {"z", ops::ones({1}, at::kLong)},
                              {"a\"\\\xc3\xa9", ops::ones({1}, at::kInt)}}));
  ASSERT_THAT(written, IsOk());
  const std::string bytes = *ReadFile(env, "/f");
  const std::string text =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"z\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
      "\"a\\\"\\\\\xc3\xa9\":"
      "{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[8,12]},"
      "\"b\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[12,20]}}";
  const size_t begin = (8 + text.size() + 63) / 64 * 64;
  std::string expected =
      File(text + std::string(begin - 8 - text.size(), ' '), "");
  for (const int64_t value : {1}) {
    expected.append(reinterpret_cast<const char*>(&value), 8);
  }
  for (const int32_t value : {1, 1, 1}) {
    expected.append(reinterpret_cast<const char*>(&value), 4);
  }
  EXPECT_EQ(bytes, expected);
  EXPECT_EQ(written->num_bytes, bytes.size());
  EXPECT_EQ(written->xxh3_128, Xxh3Digest128(bytes));
  for (const SafetensorsEntry& entry : written->entries) {
    EXPECT_EQ(entry.xxh3_64, Xxh3Digest64(absl::string_view(bytes).substr(
                                 entry.file_offset, entry.num_bytes)));
  }
  const auto read = ReadSafetensors(env, "/f");
  ASSERT_THAT(read, IsOk());
  EXPECT_NE(read->Find("a\"\\\xc3\xa9"), nullptr);
}

TEST(SafetensorsWriterTest, LargeFilesBeginTheirDataAtAPage) {
  MemEnv env;
  const at::Tensor large = Counting(at::kFloat, 300'000);
  const auto written = WriteSafetensors(env, "/f", MapOf({{"x", large}}));
  ASSERT_THAT(written, IsOk());
  EXPECT_EQ(written->entries[0].file_offset, 4096);
  auto file = env.NewRandomAccessFile("/f");
  ASSERT_THAT(file, IsOk());
  SafetensorsFile as_read;
  const auto read = ReadSafetensors(**file, "/f", &as_read);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(Bytes(*read->Find("x")), Bytes(large));
  EXPECT_EQ(as_read.xxh3_128, written->xxh3_128);
  EXPECT_EQ(as_read.num_bytes, written->num_bytes);
  EXPECT_EQ(as_read.entries[0].file_offset, 4096);
}

TEST(SafetensorsWriterTest, NoTensorsAreAFileToo) {
  MemEnv env;
  ASSERT_THAT(WriteSafetensors(env, "/f", TensorMap()), IsOk());
  const auto read = ReadSafetensors(env, "/f");
  ASSERT_THAT(read, IsOk());
  EXPECT_TRUE(read->empty());
}

TEST(SafetensorsWriterTest, SharedStorageBecomesTwoTensorsOfTheirOwn) {
  MemEnv env;
  const at::Tensor base = ops::arange(4, at::kFloat);
  ASSERT_THAT(WriteSafetensors(env, "/f", MapOf({{"a", base}, {"b", base}})),
              IsOk());
  const auto read = ReadSafetensors(env, "/f");
  ASSERT_THAT(read, IsOk());
  EXPECT_TRUE(read->Find("a")->equal(base));
  EXPECT_TRUE(read->Find("b")->equal(base));
  EXPECT_NE(read->Find("a")->data_ptr(), read->Find("b")->data_ptr());
}

TEST(SafetensorsWriterTest, RefusesWhatTheFormatDoesNotHave) {
  const at::Tensor plain = ops::ones({2});
  struct Case {
    const char* what;
    std::string name;
    at::Tensor tensor;
    const char* message;
  };
  const Case cases[] = {
      {"undefined", "w", at::Tensor(), "tensor \"w\": safetensors has no"},
      {"complex", "w", ops::ones({2}, at::kComplexFloat), "ComplexFloat"},
      {"sparse", "w", ops::ones({2, 2}).to_sparse(), "sparse"},
      {"meta", "w", ops::empty({2}, at::TensorOptions(at::kMeta)),
       "without data"},
      {"empty name", "", plain, "is empty"},
      {"reserved name", "__metadata__", plain, "is reserved"},
      {"control character", "a\nb", plain, "control character"},
      {"not UTF-8", "a\xff", plain, "isn't UTF-8"},
      {"surrogate", "\xed\xa0\x80", plain, "isn't UTF-8"},
      {"overlong", "\xc0\xaf", plain, "isn't UTF-8"},
      {"dots", "a/../b", plain, "holds \"..\""},
      {"long name", std::string(4097, 'n'), plain, "more than 4096"},
  };
  for (const Case& c : cases) {
    MemEnv env;
    EXPECT_THAT(WriteSafetensors(env, "/f", MapOf({{c.name, c.tensor}})),
                StatusIs(Code::kInvalidArgument, HasSubstr(c.message)))
        << c.what;
    EXPECT_FALSE(env.FileExists("/f")) << c.what;
  }
}

TEST(SafetensorsWriterTest, AFullDiskLeavesNoFile) {
  for (const int64_t capacity : {0, 100, 3000}) {
    MemEnv env(capacity);
    EXPECT_THAT(WriteSafetensors(env, "/f", MapOf({{"x", ops::ones({1000})}})),
                StatusIs(Code::kResourceExhausted, HasSubstr("/f")));
    EXPECT_FALSE(env.FileExists("/f"));
  }
}

TEST(SafetensorsReaderTest, AcceptsWhatOthersWrite) {
  const char* const headers[] = {
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
      R"({"a":{"shape":[2],"data_offsets":[0,2],"dtype":"U8"}}   )",
      "{ \"a\" :\t{\"dtype\" : \"U8\",\r\n\"shape\": [ 2 ] , "
      "\"data_offsets\":[0, 2]} }",
      R"({"__metadata__":{"k":"\u00e9\ud83d\ude00\n"},)"
      R"("a":{"dtype":"U8","shape":[1,2,1],"data_offsets":[0,2]}})",
      R"({"__metadata__":{},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
      R"({"\u0061":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
      R"({"e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
      R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
  };
  for (const char* header : headers) {
    MemEnv env;
    Put(env, "/f", File(header, "\x01\x02"));
    const auto read = ReadSafetensors(env, "/f");
    ASSERT_THAT(read, IsOk()) << header;
    ASSERT_NE(read->Find("a"), nullptr) << header;
    EXPECT_EQ(Bytes(*read->Find("a")), "\x01\x02") << header;
  }
}

TEST(SafetensorsReaderTest, NamesOfAnyScriptSurviveEscaping) {
  MemEnv env;
  Put(env, "/f",
      File(R"({"\u00e9\u4e2d\ud83d\ude00":)"
           R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
           ""));
  const auto read = ReadSafetensors(env, "/f");
  ASSERT_THAT(read, IsOk());
  EXPECT_NE(read->Find("\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80"), nullptr);
}

// "Row012..." are those of a numbered list of bad inputs that all readers here
// are tested with; its rows 35 to 37 are in checkpoint_test.cc.
struct BadCase {
  const char* name;
  std::string bytes;
  Code code;
  const char* message;
};

// A header with one tensor "a" of these fields, and two bytes of data.
std::string One(absl::string_view fields) {
  return File(absl::StrCat("{\"a\":{", fields, "}}"), "\x01\x02");
}

constexpr char kGood[] = R"("dtype":"U8","shape":[2],"data_offsets":[0,2])";

std::string Two(absl::string_view first, absl::string_view second) {
  return File(
      absl::StrCat(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)", first,
                   R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)", second,
                   "}}"),
      "\x01\x02\x03\x04");
}

std::vector<BadCase> BadCases() {
  const std::string good = One(kGood);
  const std::string length_only(8, '\0');
  std::string huge = good;
  huge[7] = '\x80';
  std::string above_limit = good;
  std::memcpy(&above_limit[0], "\x01\xe1\xf5\x05\0\0\0\0", 8);  // 100000001
  std::string beyond_file = good;
  beyond_file[0] = static_cast<char>(good.size() - 8 + 1);
  const auto bad = [](const char* name, std::string bytes,
                      const char* message) {
    return BadCase{name, std::move(bytes), Code::kInvalidArgument, message};
  };
  const auto loss = [](const char* name, std::string bytes,
                       const char* message) {
    return BadCase{name, std::move(bytes), Code::kDataLoss, message};
  };
  const std::string many_dims = [] {
    std::string shape = "1";
    for (int i = 0; i < 999; ++i) shape += ",1";
    return shape;
  }();
  return {
      bad("Row001EmptyFile", "", "has 0 bytes"),
      bad("Row002SevenBytes", "1234567", "has 7 bytes"),
      bad("Row003HeaderLengthZero", length_only + "xx", "must begin with '{'"),
      bad("Row004HeaderLongerThanFile", beyond_file, "in a file of"),
      bad("Row005HeaderLengthTwoTo63", huge, "9223372036854775"),
      bad("Row006HeaderAboveLimit", above_limit, "100000001 bytes"),
      bad("Row007NotJson", File("hello, world", ""), "must begin with '{'"),
      bad("Row008NotUtf8",
          File("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[0],"
               "\"data_offsets\":[0,0]}}",
               ""),
          "header byte 2: not JSON at \"\"\\xff"),
      bad("Row009RootIsAnArray", File("[]", ""), "must begin with '{'"),
      bad("Row010NestedArrays", One("\"dtype\":" + std::string(100'000, '[')),
          "tensor \"a\": an array where a string is expected"),
      bad("NestedArraysInShape", One("\"shape\":" + std::string(100'000, '[')),
          "an array where a whole number >= 0 is expected"),
      bad("NestedObjects",
          File("{\"a\":" + std::string(100'000, '{') + "}", ""),
          "header byte 6: not JSON"),
      bad("Row011TextAfterTheObject",
          File(absl::StrCat("{\"a\":{", kGood, "}}x"), "ab"),
          "must end with '}'"),
      bad("NewlineAfterTheObject",
          File(absl::StrCat("{\"a\":{", kGood, "}}\n"), "ab"),
          "must end with '}'"),
      bad("Row012SameEntryTwice",
          File(absl::StrCat("{\"a\":{", kGood, "},\"a\":{", kGood, "}}"),
               "\x01\x02"),
          "\"a\" comes twice"),
      bad("KeyTwiceByEscape",
          File(absl::StrCat("{\"a\":{", kGood, "},\"\\u0061\":{", kGood, "}}"),
               "\x01\x02"),
          "\"a\" comes twice"),
      bad("Row013KeyTwice",
          File(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
               R"("a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
               "\x01\x02\x03\x04"),
          "\"a\" comes twice"),
      bad("FieldTwice", One(absl::StrCat(kGood, ",\"dtype\":\"U8\"")),
          "dtype comes twice"),
      bad("MetadataTwice", File(R"({"__metadata__":{},"__metadata__":{}})", ""),
          "comes twice"),
      bad("MetadataKeyTwice", File(R"({"__metadata__":{"k":"1","k":"2"}})", ""),
          "\"k\" comes twice"),
      bad("Row014Overlap", Two("[0,2]", "[1,3]"), "overlaps"),
      bad("Row015Hole", Two("[0,2]", "[3,5]"), "leaves a hole"),
      bad("HoleAtTheBeginning", Two("[1,3]", "[3,5]"), "leaves a hole"),
      loss("Row016TrailingByte", good + "x", "1 bytes behind the last tensor"),
      loss("Row017OneByteShort", good.substr(0, good.size() - 1), "cut off"),
      loss("NoData", good.substr(0, good.size() - 2), "cut off"),
      bad("Row018NegativeOffset",
          One(R"("dtype":"U8","shape":[2],"data_offsets":[-2,0])"),
          "whole number"),
      bad("Row019EndBeforeBegin",
          One(R"("dtype":"U8","shape":[2],"data_offsets":[2,0])"),
          "begin and an end"),
      bad("OneOffset", One(R"("dtype":"U8","shape":[2],"data_offsets":[2])"),
          "begin and an end"),
      bad("ThreeOffsets",
          One(R"("dtype":"U8","shape":[2],"data_offsets":[0,2,2])"),
          "begin and an end"),
      bad("Row020ShapeAndLengthDiffer",
          One(R"("dtype":"U16","shape":[2],"data_offsets":[0,2])"),
          "has 4 bytes, data_offsets say 2"),
      bad("Row021ShapeOverflows",
          One(R"("dtype":"U8","shape":[4294967296,4294967296],)"
              R"("data_offsets":[0,0])"),
          "overflows"),
      bad("Row033ShapeOverflowsBehindAZero",
          One(R"("dtype":"U8","shape":[0,4611686018427387904,4],)"
              R"("data_offsets":[0,0])"),
          "overflows"),
      bad("ShapeOverflowsByElementSize",
          One(R"("dtype":"F64","shape":[2305843009213693952],)"
              R"("data_offsets":[0,2])"),
          "overflows"),
      bad("Row022NegativeDim",
          One(R"("dtype":"U8","shape":[-2],"data_offsets":[0,2])"),
          "whole number"),
      bad("Row023FloatDim",
          One(R"("dtype":"U8","shape":[2.0],"data_offsets":[0,2])"),
          "a number with a fraction"),
      bad("ExponentDim",
          One(R"("dtype":"U8","shape":[2e0],"data_offsets":[0,2])"),
          "a number with a fraction"),
      bad("DimWithLeadingZero",
          One(R"("dtype":"U8","shape":[02],"data_offsets":[0,2])"),
          "header byte 29: not JSON"),
      bad("DimAboveInt64",
          One(R"("dtype":"U8","shape":[9223372036854775808],)"
              R"("data_offsets":[0,2])"),
          "too large"),
      bad("StringDim",
          One(R"("dtype":"U8","shape":["2"],"data_offsets":[0,2])"),
          "whole number"),
      bad("Row024UnknownDtype",
          One(R"("dtype":"F128","shape":[2],"data_offsets":[0,2])"),
          "dtype \"F128\" is unknown"),
      bad("NumberAsDtype", One(R"("dtype":1,"shape":[2],"data_offsets":[0,2])"),
          "a number where a string is expected"),
      bad("Row025NoDtype", One(R"("shape":[2],"data_offsets":[0,2])"),
          "dtype is missing"),
      bad("Row025NoShape", One(R"("dtype":"U8","data_offsets":[0,2])"),
          "shape is missing"),
      bad("Row025NoOffsets", One(R"("dtype":"U8","shape":[2])"),
          "data_offsets is missing"),
      bad("Row026NumberInMetadata", File(R"({"__metadata__":{"k":1}})", ""),
          "__metadata__: a number where a string is expected"),
      bad("NullMetadata", File(R"({"__metadata__":null})", ""),
          "__metadata__: null where an object is expected"),
      bad("Row027UnknownField", One(absl::StrCat(kGood, ",\"x\":\"y\"")),
          "unknown field \"x\""),
      bad("Row028LeadingSpace",
          File(absl::StrCat(" {\"a\":{", kGood, "}}"), "ab"),
          "must begin with '{'"),
      bad("Row028LeadingNewline",
          File(absl::StrCat("\n{\"a\":{", kGood, "}}"), "ab"),
          "must begin with '{'"),
      bad("TrailingComma", File(absl::StrCat("{\"a\":{", kGood, "},}"), "ab"),
          "header byte 53: not JSON"),
      bad("NotClosed", File(absl::StrCat("{\"a\":{", kGood, "}"), "ab"),
          "header byte 52: not JSON"),
      bad("StringNotClosed", File("{\"a", ""), "must end with '}'"),
      bad("EndsInAnEscape", File("{\"a\\", ""), "must end with '}'"),
      bad("ShortUnicodeEscape", File("{\"\\u00", ""), "must end with '}'"),
      bad("UnknownEscape", File("{\"\\x\":{}}", ""), "header byte 3: not JSON"),
      bad("LoneHighSurrogate", File("{\"\\ud83d\":{}}", ""),
          "header byte 8: not JSON"),
      bad("LoneLowSurrogate", File("{\"\\ude00\":{}}", ""),
          "header byte 7: not JSON"),
      bad("RawControlCharacter", File("{\"a\nb\":{}}", ""),
          "header byte 3: not JSON"),
      bad("Row029NulInName",
          File(absl::StrCat("{\"a\\u0000b\":{", kGood, "}}"), "ab"),
          "control character"),
      bad("Row030EmptyName", File(absl::StrCat("{\"\":{", kGood, "}}"), "ab"),
          "is empty"),
      bad("Row031NameLeavesTheDirectory",
          File(absl::StrCat("{\"../../x\":{", kGood, "}}"), "ab"),
          "holds \"..\""),
      bad("LongName",
          File(absl::StrCat("{\"", std::string(5000, 'n'), "\":{", kGood, "}}"),
               "ab"),
          "more than 4096"),
      bad("Row032Rank1000",
          One(absl::StrCat(R"("dtype":"U8","shape":[)", many_dims,
                           R"(],"data_offsets":[0,1])")),
          "more than 64"),
      loss("Row034BoolOf2",
           One(R"("dtype":"BOOL","shape":[2],"data_offsets":[0,2])"),
           "tensor \"a\": element 1 of BOOL is 2"),
      loss("Row034BoolOf7",
           File(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})",
                absl::string_view("\x07\0", 2)),
           "tensor \"a\": element 0 of BOOL is 7"),
  };
}

class SafetensorsMalformedTest : public testing::TestWithParam<BadCase> {};

TEST_P(SafetensorsMalformedTest, IsRefusedWithAReason) {
  MemEnv env;
  Put(env, "/bad", GetParam().bytes);
  EXPECT_THAT(
      ReadSafetensors(env, "/bad"),
      StatusIs(GetParam().code, testing::AllOf(testing::StartsWith("/bad: "),
                                               HasSubstr(GetParam().message))));
}

INSTANTIATE_TEST_SUITE_P(All, SafetensorsMalformedTest,
                         testing::ValuesIn(BadCases()), [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(SafetensorsReaderTest, EveryCutIsRefused) {
  MemEnv env;
  ASSERT_THAT(WriteSafetensors(env, "/f",
                               MapOf({{"a", ops::ones({3})},
                                      {"b", ops::zeros({2}, at::kBool)}})),
              IsOk());
  const std::string bytes = *ReadFile(env, "/f");
  for (size_t n = 0; n < bytes.size(); ++n) {
    Put(env, "/cut", bytes.substr(0, n));
    EXPECT_FALSE(ReadSafetensors(env, "/cut").ok()) << n << " bytes";
  }
}

TEST(SafetensorsReaderTest, ChangedHeaderBytesNeverCrash) {
  MemEnv env;
  ASSERT_THAT(WriteSafetensors(env, "/f",
                               MapOf({{"a", ops::ones({3})},
                                      {"b", ops::zeros({2}, at::kBool)}})),
              IsOk());
  const std::string bytes = *ReadFile(env, "/f");
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char c : {'\0', '"', '\\', '{', '}', '[', '9', '\xff'}) {
      std::string changed = bytes;
      changed[i] = c;
      Put(env, "/changed", changed);
      ReadSafetensors(env, "/changed").status().IgnoreError();
    }
  }
}

// Says that it is as large as its header says, whatever that is.
class BoundlessFile : public RandomAccessFile {
 public:
  BoundlessFile(std::string bytes, int64_t size)
      : bytes_(std::move(bytes)), size_(size) {}
  int64_t size() const override { return size_; }
  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    for (int64_t i = 0; i < n; ++i) {
      const size_t at = static_cast<size_t>(offset + i);
      buffer[i] = at < bytes_.size() ? bytes_[at] : '\0';
    }
    return absl::OkStatus();
  }

 private:
  const std::string bytes_;
  const int64_t size_;
};

TEST(SafetensorsReaderTest, ATensorBeyondMemoryIsResourceExhausted) {
  constexpr int64_t kSize = int64_t{1} << 60;
  const std::string bytes =
      File(absl::StrCat(R"({"huge":{"dtype":"U8","shape":[)", kSize,
                        R"(],"data_offsets":[0,)", kSize, "]}}"),
           "");
  const BoundlessFile file(bytes, kSize + static_cast<int64_t>(bytes.size()));
  EXPECT_THAT(ReadSafetensorsHeader(file, "/f"), IsOk());
  EXPECT_THAT(ReadSafetensors(file, "/f", nullptr),
              StatusIs(Code::kResourceExhausted,
                       HasSubstr("/f: tensor \"huge\": no memory for")));
}

// What goes with many small tensors may be too much too.
TEST(SafetensorsReaderTest, TooLittleMemoryToReadTensorsIsResourceExhausted) {
  class ScarceFile : public BoundlessFile {
   public:
    using BoundlessFile::BoundlessFile;
    absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
      if (offset > 0) throw std::bad_alloc();
      return BoundlessFile::Read(offset, n, buffer);
    }
  };
  const std::string bytes =
      File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1");
  const ScarceFile file(bytes, static_cast<int64_t>(bytes.size()));
  EXPECT_THAT(ReadSafetensors(file, "/f", nullptr),
              StatusIs(Code::kResourceExhausted,
                       HasSubstr("/f: tensors: out of memory")));
}

TEST(SafetensorsReaderTest, MissingFileIsNotFound) {
  MemEnv env;
  EXPECT_THAT(ReadSafetensors(env, "/none"),
              StatusIs(Code::kNotFound, HasSubstr("/none")));
  EXPECT_THAT(ReadSafetensors(env, "/"),
              StatusIs(Code::kInvalidArgument, HasSubstr("regular")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
