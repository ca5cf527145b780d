#include "grapnel/io/pth.h"

#include <cctype>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth_builder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using Kind = PthValue::Kind;
using pickled::Bytes;
using pickled::Call;
using pickled::Dict;
using pickled::Float;
using pickled::Global;
using pickled::Int;
using pickled::List;
using pickled::OrderedDict;
using pickled::Pickle;
using pickled::Storage;
using pickled::TensorOf;
using pickled::Text;
using pickled::Tuple;
using testing::_;
using testing::HasSubstr;

absl::StatusOr<PthFile> ReadBytes(absl::string_view bytes,
                                  bool allow_foreign = false) {
  MemEnv env;
  const absl::Status written = WriteFileAtomically(env, "/f.pth", bytes);
  if (!written.ok()) return written;
  PthOptions options;
  options.allow_foreign = allow_foreign;
  return PthFile::Read(env, "/f.pth", options);
}

// The bytes of these numbers.
template <typename T>
std::string Raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
}

std::string Raw(const at::Tensor& tensor) {
  const at::Tensor plain = tensor.contiguous();
  return std::string(static_cast<const char*>(plain.const_data_ptr()),
                     plain.nbytes());
}

const std::string& SixFloats() {
  static const std::string* const bytes =
      new std::string(Raw<float>({0, 1, 2, 3, 4, 5}));
  return *bytes;
}

std::string SixFloatStorage() { return Storage("FloatStorage", "0", 6); }

// ------------------------------------------------------------- what is read

TEST(PthFileTest, StateDict) {
  const auto file = ReadBytes(BuildPth(
      Pickle(OrderedDict({Text("w"),
                          TensorOf(SixFloatStorage(), 0, {2, 3}, {3, 1}),
                          Text("n"), Int(7)})),
      {SixFloats()}));
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE(file->verified());
  const PthValue root = file->root();
  EXPECT_EQ(root.kind(), Kind::kDict);
  EXPECT_EQ(root.type_name(), "collections.OrderedDict");
  ASSERT_EQ(root.size(), 2);
  EXPECT_EQ(root.key(0).string_value(), "w");
  EXPECT_EQ(root.value(1).int_value(), 7);
  EXPECT_FALSE(root.Find("x").has_value());
  ASSERT_TRUE(root.Find("w").has_value());
  const at::Tensor w = root.Find("w")->tensor();
  EXPECT_EQ(root.Find("w")->type_name(), "torch.Tensor");
  EXPECT_FALSE(w.requires_grad());
  EXPECT_TRUE(ops::equal(w, ops::arange(6, at::kFloat).view({2, 3})));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(w.const_data_ptr()) % 64, 0);
}

TEST(PthFileTest, TensorsShareStorageAsInTheFile) {
  const std::string storage = SixFloatStorage();
  const auto file = ReadBytes(BuildPth(
      Pickle(List({TensorOf(storage, 0, {2, 3}, {3, 1}),
                   TensorOf(storage, 1, {2}, {3}),
                   TensorOf(Storage("FloatStorage", "1", 6), 0, {6}, {1})})),
      {SixFloats(), SixFloats()}));
  ASSERT_THAT(file, IsOk());
  const at::Tensor all = file->root().item(0).tensor();
  const at::Tensor column = file->root().item(1).tensor();
  EXPECT_TRUE(ops::equal(column, all.select(1, 1)));
  EXPECT_TRUE(column.is_alias_of(all));
  EXPECT_TRUE(file->root().item(0).tensor().is_alias_of(all));
  EXPECT_FALSE(file->root().item(2).tensor().is_alias_of(all));
}

TEST(PthFileTest, TensorsOutliveTheFile) {
  at::Tensor tensor;
  {
    const auto file = ReadBytes(BuildPth(
        Pickle(TensorOf(SixFloatStorage(), 0, {6}, {1})), {SixFloats()}));
    ASSERT_THAT(file, IsOk());
    tensor = file->root().tensor();
  }
  EXPECT_TRUE(ops::equal(tensor, ops::arange(6, at::kFloat)));
  tensor.resize_({100});  // Storages are as LibTorch's own.
  EXPECT_EQ(tensor.numel(), 100);
}

struct DtypeCase {
  const char* name;
  const char* storage;  // "" for those that lie in an untyped one.
  c10::ScalarType type;
};

class PthDtypeTest : public testing::TestWithParam<DtypeCase> {};

TEST_P(PthDtypeTest, IsReadBitForBit) {
  const c10::ScalarType type = GetParam().type;
  const auto size = static_cast<int64_t>(c10::elementSize(type));
  std::string bytes;
  for (int64_t i = 0; i < 4 * size; ++i) {
    bytes += static_cast<char>(type == at::kBool ? i & 1 : i);
  }
  const std::string storage =
      *GetParam().storage == '\0'
          ? Storage("torch.storage.UntypedStorage", "0", 4 * size)
          : Storage(GetParam().storage, "0", 4);
  const auto tensor = [&](int64_t offset, const std::vector<int64_t>& sizes,
                          const std::vector<int64_t>& strides) {
    return *GetParam().storage == '\0'
               ? TensorOf(storage, GetParam().name, offset, sizes, strides)
               : TensorOf(storage, offset, sizes, strides);
  };
  const auto file =
      ReadBytes(BuildPth(Pickle(List({tensor(0, {2, 2}, {1, 2}),
                                      tensor(3, {}, {}), tensor(4, {0}, {1})})),
                         {bytes}));
  ASSERT_THAT(file, IsOk());
  const at::Tensor transposed = file->root().item(0).tensor();
  EXPECT_EQ(transposed.scalar_type(), type);
  EXPECT_EQ(transposed.strides(), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(Raw(transposed.t()), bytes);
  const at::Tensor scalar = file->root().item(1).tensor();
  EXPECT_EQ(scalar.dim(), 0);
  EXPECT_EQ(Raw(scalar), bytes.substr(3 * size));
  EXPECT_EQ(file->root().item(2).tensor().numel(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    All, PthDtypeTest,
    testing::Values(
        DtypeCase{"float32", "FloatStorage", at::kFloat},
        DtypeCase{"float64", "DoubleStorage", at::kDouble},
        DtypeCase{"float16", "HalfStorage", at::kHalf},
        DtypeCase{"bfloat16", "BFloat16Storage", at::kBFloat16},
        DtypeCase{"int64", "LongStorage", at::kLong},
        DtypeCase{"int32", "IntStorage", at::kInt},
        DtypeCase{"int16", "ShortStorage", at::kShort},
        DtypeCase{"int8", "CharStorage", at::kChar},
        DtypeCase{"uint8", "ByteStorage", at::kByte},
        DtypeCase{"bool", "BoolStorage", at::kBool},
        DtypeCase{"complex64", "ComplexFloatStorage", at::kComplexFloat},
        DtypeCase{"complex128", "ComplexDoubleStorage", at::kComplexDouble},
        DtypeCase{"complex32", "", at::kComplexHalf},
        DtypeCase{"uint16", "", at::kUInt16},
        DtypeCase{"uint32", "", at::kUInt32},
        DtypeCase{"uint64", "", at::kUInt64},
        DtypeCase{"float8_e4m3fn", "", at::kFloat8_e4m3fn},
        DtypeCase{"float8_e4m3fnuz", "", at::kFloat8_e4m3fnuz},
        DtypeCase{"float8_e5m2", "", at::kFloat8_e5m2},
        DtypeCase{"float8_e5m2fnuz", "", at::kFloat8_e5m2fnuz},
        DtypeCase{"float8_e8m0fnu", "", at::kFloat8_e8m0fnu}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::string camel;
      bool upper = true;
      for (const char c : name) {
        if (c != '_') camel += upper ? static_cast<char>(std::toupper(c)) : c;
        upper = c == '_';
      }
      return camel;
    });

TEST(PthFileTest, BoolsThatNoTensorIsAViewOfMayBeAnything) {
  const std::string storage = Storage("BoolStorage", "0", 8);
  const std::string pickle = Pickle(List(
      {TensorOf(storage, 0, {2}, {1}), TensorOf(storage, 0, {2, 2}, {4, 1}),
       TensorOf(storage, 5, {100, 1}, {0, 3}),
       TensorOf(storage, 2, {0, 2}, {1, 1})}));
  const std::string bytes("\0\1\7\7\0\1\7\7", 8);
  for (const std::string& written :
       {BuildPth(pickle, {bytes}), BuildLegacyPth(pickle, {{"0", 8, bytes}})}) {
    const auto file = ReadBytes(written);
    ASSERT_THAT(file, IsOk());
    EXPECT_EQ(Raw(file->root().item(1).tensor()), std::string("\0\1\0\1", 4));
  }
}

TEST(PthFileTest, ParametersAndTensorsWithAttributes) {
  const std::string tensor = TensorOf(SixFloatStorage(), 0, {6}, {1});
  const std::string parameter =
      Call(Global("torch._utils", "_rebuild_parameter"),
           {tensor, "\x88", OrderedDict({})});
  const std::string attributed = Call(
      Global("torch._tensor", "_rebuild_from_type_v2"),
      {Global("torch._utils", "_rebuild_parameter"),
       Global("torch.nn.parameter", "Parameter"),
       Tuple({tensor, "\x88", OrderedDict({})}), Dict({Text("a"), Int(1)})});
  const auto file =
      ReadBytes(BuildPth(Pickle(List({parameter, attributed})), {SixFloats()}));
  ASSERT_THAT(file, IsOk());
  for (const int64_t i : {0, 1}) {
    EXPECT_TRUE(
        ops::equal(file->root().item(i).tensor(), ops::arange(6, at::kFloat)));
    EXPECT_FALSE(file->root().item(i).tensor().requires_grad());
  }
}

TEST(PthFileTest, ConjugatedAndNegatedViews) {
  const auto with_metadata = [](const char* storage, const char* key) {
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"),
        {Storage(storage, "0", 3), Int(0), Tuple({Int(3)}), Tuple({Int(1)}),
         "\x89", OrderedDict({}), Dict({Text(key), "\x88"})});
  };
  const auto file = ReadBytes(BuildPth(
      Pickle(with_metadata("ComplexFloatStorage", "conj")), {SixFloats()}));
  ASSERT_THAT(file, IsOk());
  const at::Tensor tensor = file->root().tensor();
  EXPECT_TRUE(tensor.is_conj());
  EXPECT_EQ(Raw(tensor.resolve_conj()), Raw<float>({0, -1, 2, -3, 4, -5}));
  const auto negated = ReadBytes(BuildPth(
      Pickle(with_metadata("DoubleStorage", "neg")), {Raw<double>({1, 2, 3})}));
  ASSERT_THAT(negated, IsOk());
  EXPECT_EQ(Raw(negated->root().tensor().resolve_neg()),
            Raw<double>({-1, -2, -3}));
  EXPECT_THAT(ReadBytes(BuildPth(Pickle(with_metadata("DoubleStorage", "conj")),
                                 {Raw<double>({1, 2, 3})})),
              StatusIs(Code::kInvalidArgument, HasSubstr("metadata \"conj\"")));
}

TEST(PthFileTest, PlainValues) {
  const auto file = ReadBytes(BuildPth(Pickle(List({
      Call(Global("__builtin__", "set"), {List({Int(1), Int(2), Int(1)})}),
      Bytes("\xc3\xbf"
            "a"),
      Call(Global("__builtin__", "bytes"), {}),
      Call(Global("__builtin__", "bytearray"), {Bytes("x")}),
      Call(Global("__builtin__", "complex"), {Float(1), Float(-2)}),
      Call(Global("torch", "device"), {Text("cuda"), Int(1)}),
      Global("torch", "bfloat16"),
      Call(Global("torch.serialization", "_get_layout"),
           {Text("torch.strided")}),
      Call(Global("torch", "Size"), {Tuple({Int(2), Int(3)})}),
      Call(Global("collections", "Counter"), {Dict({Int(3), Int(1)})}),
      Call(Global("collections", "defaultdict"),
           {Global("__builtin__", "dict")}),
      absl::StrCat("\x8a\x09", std::string(9, '\x01')),
      Call(Global("collections", "OrderedDict"),
           {List({List({Text("a"), Int(1)}), List({Text("b"), Int(2)})})}),
  }))));
  ASSERT_THAT(file, IsOk());
  const auto item = [&](int64_t i) { return file->root().item(i); };
  EXPECT_EQ(item(0).kind(), Kind::kSet);
  EXPECT_EQ(item(0).size(), 2);
  EXPECT_EQ(item(1).kind(), Kind::kBytes);
  EXPECT_EQ(item(1).string_value(),
            "\xff"
            "a");
  EXPECT_EQ(item(2).string_value(), "");
  EXPECT_EQ(item(3).type_name(), "bytearray");
  EXPECT_EQ(item(3).string_value(), "x");
  EXPECT_EQ(item(4).kind(), Kind::kComplex);
  EXPECT_EQ(item(4).float_value(), 1);
  EXPECT_EQ(item(4).imaginary_value(), -2);
  EXPECT_EQ(item(5).kind(), Kind::kDevice);
  EXPECT_EQ(item(5).string_value(), "cuda:1");
  EXPECT_EQ(item(6).kind(), Kind::kDtype);
  EXPECT_EQ(item(6).string_value(), "bfloat16");
  EXPECT_EQ(item(7).string_value(), "torch.strided");
  EXPECT_EQ(item(7).type_name(), "torch.layout");
  EXPECT_EQ(item(8).kind(), Kind::kTuple);
  EXPECT_EQ(item(8).type_name(), "torch.Size");
  EXPECT_EQ(item(8).item(1).int_value(), 3);
  EXPECT_EQ(item(9).type_name(), "collections.Counter");
  EXPECT_EQ(item(9).key(0).int_value(), 3);
  EXPECT_EQ(item(10).type_name(), "collections.defaultdict");
  EXPECT_EQ(item(11).kind(), Kind::kBigInt);
  EXPECT_EQ(item(11).string_value(), std::string(9, '\x01'));
  EXPECT_EQ(item(12).Find("b")->int_value(), 2);
  // Of other kinds there is nothing to be had, and nothing goes wrong.
  EXPECT_FALSE(item(0).tensor().defined());
  EXPECT_EQ(item(0).string_value(), "");
  EXPECT_EQ(item(1).int_value(), 0);
  EXPECT_EQ(item(1).size(), 0);
  EXPECT_FALSE(item(1).Find("a").has_value());
}

TEST(PthFileTest, LegacyFiles) {
  const std::string storage =
      absl::StrCat(Tuple({Text("storage"), Global("torch", "FloatStorage"),
                          Text("140"), Text("cuda:0"), Int(6), "N"}),
                   "Q");
  const std::string part = absl::StrCat(
      Tuple({Text("storage"), Global("torch", "FloatStorage"), Text("140"),
             Text("cpu"), Int(6), Tuple({Text("141"), Int(2), Int(3)})}),
      "Q");
  const std::string pickle = Pickle(List(
      {TensorOf(storage, 0, {2, 3}, {3, 1}), TensorOf(part, 1, {2}, {1})}));
  const std::string bytes = BuildLegacyPth(pickle, {{"140", 6, SixFloats()}});
  const auto file = ReadBytes(bytes);
  ASSERT_THAT(file, IsOk());
  EXPECT_FALSE(file->verified());
  const at::Tensor all = file->root().item(0).tensor();
  EXPECT_TRUE(ops::equal(all, ops::arange(6, at::kFloat).view({2, 3})));
  EXPECT_TRUE(
      ops::equal(file->root().item(1).tensor(), ops::arange(3, 5, at::kFloat)));
  EXPECT_TRUE(file->root().item(1).tensor().is_alias_of(all));
  for (size_t size = 15; size < bytes.size(); ++size) {
    EXPECT_THAT(ReadBytes(bytes.substr(0, size)), StatusIs(Code::kDataLoss, _))
        << size;
  }
  EXPECT_THAT(
      ReadBytes(absl::StrCat(bytes, "x")),
      StatusIs(Code::kDataLoss, HasSubstr("1 bytes behind the last storage")));
}

TEST(PthFileTest, LegacyFileWithALongPickle) {
  // Longer than what is tried first: read again, and once more in its size.
  std::vector<std::string> texts;
  for (int i = 0; i < 30; ++i) texts.push_back(Text(std::string(100'000, 'x')));
  texts.push_back(Bytes(std::string(100, 'y') + "\xc3\xbf"));
  texts.push_back(TensorOf(SixFloatStorage(), 0, {6}, {1}));
  const auto file =
      ReadBytes(BuildLegacyPth(Pickle(List(texts)), {{"0", 6, SixFloats()}}));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->root().item(29).string_value(), std::string(100'000, 'x'));
  EXPECT_EQ(file->root().item(30).string_value(),
            std::string(100, 'y') + "\xff");
  EXPECT_TRUE(
      ops::equal(file->root().item(31).tensor(), ops::arange(6, at::kFloat)));
}

TEST(PthFileTest, ForeignObjectsAreInert) {
  // numpy's array of two doubles, as torch.save writes it.
  const std::string array = absl::StrCat(
      Call(Global("numpy.core.multiarray", "_reconstruct"),
           {Global("numpy", "ndarray"), Tuple({Int(0)}), Bytes("b")}),
      Tuple({Int(1), Tuple({Int(2)}),
             absl::StrCat(
                 Call(Global("numpy", "dtype"), {Text("f8"), "\x89", "\x88"}),
                 Tuple({Int(3), Text("<")}), "b"),
             "\x89", Bytes("0123456789abcdef")}),
      "b");
  const std::string pickle =
      Pickle(Dict({Text("history"), array, Text("config"),
                   absl::StrCat(Global("my.config", "ConfigDict"), ")\x81",
                                Text("lr"), Float(0.1), "s"),
                   Text("type"), Global("my", "Model"), Text("storage"),
                   SixFloatStorage(), Text("called"),
                   Call(Call(Global("__builtin__", "getattr"),
                             {Global("my", "Model"), Text("make")}),
                        {})}));
  EXPECT_THAT(ReadBytes(BuildPth(pickle, {SixFloats()})),
              StatusIs(Code::kInvalidArgument,
                       HasSubstr("\"numpy.core.multiarray._reconstruct\" is "
                                 "not a type that a checkpoint may hold")));
  const auto file = ReadBytes(BuildPth(pickle, {SixFloats()}), true);
  ASSERT_THAT(file, IsOk());
  const PthValue history = *file->root().Find("history");
  EXPECT_EQ(history.kind(), Kind::kOpaque);
  EXPECT_EQ(history.type_name(), "numpy.core.multiarray._reconstruct");
  ASSERT_EQ(history.size(), 2);
  EXPECT_EQ(history.item(0).size(), 3);
  const PthValue state = history.item(1);
  EXPECT_EQ(state.item(2).type_name(), "numpy.dtype");
  EXPECT_EQ(state.item(2).item(0).item(0).string_value(), "f8");
  EXPECT_EQ(state.item(4).string_value(), "0123456789abcdef");
  const PthValue config = *file->root().Find("config");
  EXPECT_EQ(config.type_name(), "my.config.ConfigDict");
  ASSERT_EQ(config.size(), 3);
  EXPECT_EQ(config.item(1).kind(), Kind::kNone);
  EXPECT_EQ(config.item(2).Find("lr")->float_value(), 0.1);
  EXPECT_EQ(file->root().Find("type")->kind(), Kind::kOpaque);
  EXPECT_EQ(file->root().Find("type")->type_name(), "my.Model");
  EXPECT_EQ(file->root().Find("type")->size(), 0);
  EXPECT_EQ(file->root().Find("storage")->type_name(), "torch.FloatStorage");
  EXPECT_EQ(file->root().Find("called")->type_name(), "builtins.getattr");
  EXPECT_THAT(ReadBytes(BuildPth(Pickle(Call(OrderedDict({}), {}))), true),
              StatusIs(Code::kInvalidArgument,
                       HasSubstr("a collections.OrderedDict is called")));
}

// ---------------------------------------------------------- what is refused

// Row061 and the like are numbers of our list of bad inputs.
struct BadCase {
  const char* name;
  std::string file;
  Code code;
  const char* message;
};

class PthBadTest : public testing::TestWithParam<BadCase> {};

TEST_P(PthBadTest, IsRefused) {
  EXPECT_THAT(ReadBytes(GetParam().file),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
  EXPECT_THAT(ReadBytes(GetParam().file),
              StatusIs(GetParam().code, HasSubstr("/f.pth: ")));
}

// A file with one tensor of six floats.
std::string OneTensor(int64_t offset, const std::vector<int64_t>& sizes,
                      const std::vector<int64_t>& strides, int64_t count = 6) {
  return BuildPth(Pickle(TensorOf(Storage("FloatStorage", "0", count), offset,
                                  sizes, strides)),
                  {SixFloats()});
}

std::string WithRecord(const std::string& name, const std::string& data) {
  std::vector<ZipEntry> entries = PthEntries(Pickle("N"));
  for (ZipEntry& entry : entries) {
    if (entry.name == name) {
      entry.data = data;
      return BuildZip(entries);
    }
  }
  entries.push_back({name, data});
  return BuildZip(entries);
}

std::string WithoutRecord(const std::string& name) {
  std::vector<ZipEntry> entries;
  for (const ZipEntry& entry : PthEntries(Pickle("N"))) {
    if (entry.name != name) entries.push_back(entry);
  }
  return BuildZip(entries);
}

std::string Flipped(const std::string& file, absl::string_view at) {
  std::string flipped = file;
  flipped[flipped.find(at.data(), 0, at.size())] ^= 1;
  return flipped;
}

std::string Tar(bool is_ustar) {
  std::string tar = "sys_info";
  tar.resize(1024);
  if (is_ustar) tar.replace(0, 8, "anything"), tar.replace(257, 5, "ustar");
  return tar;
}

std::vector<BadCase> BadCases() {
  std::vector<BadCase> cases;
  const auto add = [&](const char* name, const std::string& file,
                       const char* message,
                       Code code = Code::kInvalidArgument) {
    cases.push_back({name, file, code, message});
  };
  constexpr int64_t kHuge = int64_t{1} << 62;
  add("Row061NumelAboveRecord", OneTensor(0, {7}, {1}, 7),
      "data/0: has 24 bytes, data.pkl says 28");
  add("Row061NumelBelowRecord", OneTensor(0, {5}, {1}, 5),
      "data/0: has 24 bytes, data.pkl says 20");
  add("Row062Numel2To40", OneTensor(0, {6}, {1}, int64_t{1} << 40),
      "storage \"0\" has 1099511627776 elements of 4 bytes, the file ");
  add("Row063NegativeNumel", OneTensor(0, {6}, {1}, -1),
      "storage \"0\" has -1 elements");
  add("Row064SizePastStorage", OneTensor(0, {7}, {1}),
      "storage \"0\": a tensor of it ends behind its 24 bytes");
  add("Row064NegativeSize", OneTensor(0, {-1}, {1}), "size -1 with stride 1");
  add("Row065OffsetPastStorage", OneTensor(6, {1}, {1}),
      "a tensor of it ends behind its 24 bytes");
  add("Row065OffsetOfEmptyPastStorage", OneTensor(7, {0}, {1}),
      "a tensor of it ends behind its 24 bytes");
  add("Row065ScalarPastStorage", OneTensor(6, {}, {}),
      "a tensor of it ends behind its 24 bytes");
  add("Row066NegativeOffset", OneTensor(-(int64_t{1} << 20), {6}, {1}),
      "offset is -1048576");
  add("Row067StrideOut", OneTensor(0, {2, 3}, {4, 1}),
      "a tensor of it ends behind its 24 bytes");
  add("Row067StrideFarOut", OneTensor(0, {2, 2}, {kHuge, kHuge}),
      "a tensor of it ends behind its 24 bytes");
  add("Row067ManyStridesFarOut",
      OneTensor(0, std::vector<int64_t>(60, 2),
                std::vector<int64_t>(60, std::numeric_limits<int64_t>::max())),
      "a tensor of it ends behind its 24 bytes");
  add("Row068NegativeStride", OneTensor(5, {6}, {-1}), "size 6 with stride -1");
  add("Row069RankMismatch", OneTensor(0, {2, 3}, {1}),
      "a tensor of it has 2 sizes and 1 strides");
  add("Row069TooManyDimensions",
      OneTensor(0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1)),
      "size has 65 dimensions, may have 64");
  add("Row070SizesOverflow", OneTensor(0, {kHuge, 4}, {0, 0}),
      "sizes overflow");
  add("Row070SizesOverflowBehindZero", OneTensor(0, {0, kHuge, 4}, {0, 0, 0}),
      "sizes overflow");
  add("Row070UnfoldsToMore", OneTensor(0, {1 << 20, 1 << 20}, {0, 0}),
      "unfolds to 4398046511104 bytes", Code::kResourceExhausted);
  add("Row074StopOnly", BuildPth(Pickle("")),
      "data.pkl: byte 2: ends with 0 values on the stack");
  add("Row075EmptyPickle", BuildPth(""), "data.pkl: byte 0: needs 1 bytes");
  add("Row076TruncatedPickle", BuildPth("\x80\x02]"),
      "data.pkl: byte 3: needs 1 bytes, there are 0");
  add("BytesBehindThePickle", BuildPth(absl::StrCat(Pickle("N"), "N")),
      "data.pkl: ends at byte 4 of 5");
  add("Row078Protocol4", BuildPth("\x80\x04N."),
      "data.pkl: byte 0: pickle protocol 4, must be 2", Code::kUnimplemented);
  add("Row078LegacyProtocol4",
      absl::StrCat(
          absl::string_view("\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\x0al\xfc"
                            "\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                            24),
          "more"),
      "is of torch.save with pickle protocol 4", Code::kUnimplemented);
  add("Row086PosixSystem",
      BuildPth(Pickle(Call(Global("posix", "system"), {Text("id")}))),
      "data.pkl: byte 2: \"posix.system\" is not a type that a checkpoint may "
      "hold");
  add("Row087Eval",
      BuildPth(Pickle(Call(Global("__builtin__", "eval"), {Text("1")}))),
      "\"builtins.eval\" is not a type");
  add("Row088TorchScriptClass",
      BuildPth(Pickle(Call(Global("__torch__", "Model"), {}))),
      "\"__torch__.Model\" is not a type");
  add("Row088WholeModule",
      BuildPth(Pickle(Global("torch.nn.modules.linear", "Linear"))),
      "\"torch.nn.modules.linear.Linear\" is not a type that a checkpoint may "
      "hold: a whole module was saved, not its state_dict");
  add("Row090TypeTag",
      BuildPth(Pickle(Call(Global("torch.jit._pickle", "restore_type_tag"),
                           {List({}), Text("List[int]")}))),
      "\"torch.jit._pickle.restore_type_tag\" is not a type");
  add("CallOfAType", BuildPth(Pickle(Call(Global("__builtin__", "dict"), {}))),
      "a builtins.dict is called");
  add("CallOfAValue", BuildPth(Pickle(Call("N", {}))), "a NoneType is called");
  add("TypeAsValue", BuildPth(Pickle(Global("torch", "FloatStorage"))),
      "data.pkl: \"torch.FloatStorage\" itself is a value");
  add("FromTypeInItself",
      BuildPth(Pickle(Call(Global("torch._tensor", "_rebuild_from_type_v2"),
                           {Global("torch._tensor", "_rebuild_from_type_v2"),
                            Global("torch", "Tensor"), Tuple({}), Dict({})}))),
      "function is \"torch._tensor._rebuild_from_type_v2\"");
  add("LayoutOfAnotherName",
      BuildPth(Pickle(
          List({Call(Global("torch.serialization", "_get_layout"),
                     {absl::StrCat(
                         Text(absl::StrCat(std::string(100, 'x'), "\xc3\xa9")),
                         absl::string_view("q\0", 2))}),
                Call(Global("_codecs", "encode"),
                     {std::string("h\0", 2), Text("latin1")})}))),
      "torch.serialization._get_layout: \"xxx");
  add("TensorOfNoArguments",
      BuildPth(Pickle(Call(Global("torch._utils", "_rebuild_tensor"), {}))),
      "called with 0 arguments, must be 4");
  add("NewerTensorOfNoArguments",
      BuildPth(Pickle(Call(Global("torch._utils", "_rebuild_tensor_v2"), {}))),
      "called with 0 arguments, must be 6 or 7");
  add("StateOfAList", BuildPth(Pickle(absl::StrCat(List({}), "}b"))),
      "gives a dict as state to a list");
  add("SparseTensor",
      BuildPth(Pickle(Global("torch._utils", "_rebuild_sparse_tensor"))),
      "a sparse tensor (torch._utils._rebuild_sparse_tensor) can't be read",
      Code::kUnimplemented);
  add("MetaTensor",
      BuildPth(
          Pickle(Global("torch._utils", "_rebuild_meta_tensor_no_storage"))),
      "a meta tensor", Code::kUnimplemented);
  add("QuantizedTensor",
      BuildPth(Pickle(Global("torch._utils", "_rebuild_qtensor"))),
      "a quantized tensor", Code::kUnimplemented);
  add("Float4Tensor",
      BuildPth(Pickle(TensorOf(Storage("torch.storage.UntypedStorage", "0", 24),
                               "float4_e2m1fn_x2", 0, {24}, {1})),
               {SixFloats()}),
      "a tensor of float4_e2m1fn_x2 can't be read", Code::kUnimplemented);
  std::vector<ZipEntry> compressed = PthEntries(Pickle("N"));
  compressed[0].method = 8;
  add("Row091Compressed", BuildZip(compressed), "is compressed",
      Code::kUnimplemented);
  add("Row098HalfAFile", OneTensor(0, {6}, {1}).substr(0, 200),
      "has no ZIP directory at its end: cut off", Code::kDataLoss);
  add("Row099RandomBytes", std::string(1000, '\x07'),
      "is not a file of torch.save");
  add("Row099Empty", "", "is not a file of torch.save");
  add("Row100VersionAbc", WithRecord("a/version", "abc"),
      "version: is \"abc\", must be a number");
  add("Row100VersionMissing", WithoutRecord("a/version"), "version: is \"\"");
  add("Row100VersionTooLarge",
      WithRecord("a/version", absl::StrCat("1", std::string(23, '0'))),
      "version: is \"1000");
  add("VersionOfTheFuture", WithRecord("a/version", "11\n"),
      "version: is 11, 10 is the newest known", Code::kUnimplemented);
  add("Row101BigEndian", WithRecord("a/byteorder", "big"),
      "byteorder: is big, little is read", Code::kUnimplemented);
  add("Row101OtherByteOrder", WithRecord("a/byteorder", "middle"),
      "byteorder: is \"middle\"");
  add("Row101LegacyBigEndian",
      absl::StrCat(BuildLegacyPth("").substr(0, 15), Pickle(Int(1001)),
                   Pickle(Dict({Text("little_endian"), "\x89"}))),
      "big-endian", Code::kUnimplemented);
  add("Row102KeyOfAPath",
      BuildPth(Pickle(TensorOf(Storage("FloatStorage", "../../etc/passwd", 6),
                               0, {6}, {1}))),
      "storage has the key \"../../etc/passwd\"");
  add("StorageMissing",
      BuildPth(Pickle(TensorOf(Storage("FloatStorage", "0", 6), 0, {6}, {1}))),
      "data/0: is missing");
  add("StorageOfTwoSizes",
      BuildPth(Pickle(List(
                   {TensorOf(SixFloatStorage(), 0, {6}, {1}),
                    TensorOf(Storage("FloatStorage", "0", 5), 0, {5}, {1})})),
               {SixFloats()}),
      "storage \"0\" has 20 bytes and 24");
  const std::string named = BuildPth(
      Pickle(Dict({Text("fc"), Dict({Text("w"), TensorOf(SixFloatStorage(), 0,
                                                         {6}, {1})})})),
      {SixFloats()});
  add("Row104FlippedBitInData", Flipped(named, SixFloats()),
      "data/0, which holds \"fc.w\": is damaged: CRC-32 is ", Code::kDataLoss);
  // What is in front of the tensor isn't copied for each of the items.
  add("FlippedBitBehindALongName",
      Flipped(BuildPth(Pickle(Dict({Text(std::string(100'000, 'x')),
                                    List(std::vector<std::string>(10'000, "N")),
                                    Text(std::string(100'000, 'y')),
                                    List({"N", TensorOf(SixFloatStorage(), 0,
                                                        {6}, {1})})})),
                       {SixFloats()}),
              SixFloats()),
      "data/0, which holds \"yyy", Code::kDataLoss);
  add("Row104FlippedBitInPickle", Flipped(named, "_rebuild_tensor_v2"),
      "data.pkl: is damaged", Code::kDataLoss);
  add("Row104FlippedBitInUnusedRecord",
      Flipped(WithRecord("a/unused", "some bytes"), "some bytes"),
      "record \"unused\": is damaged", Code::kDataLoss);
  add("ControlCharactersInADamagedRecord",
      Flipped(WithRecord("a/\x1b[2Jzz\n", "some bytes"), "some bytes"),
      "record \"?[2Jzz?\": is damaged", Code::kDataLoss);
  add("BoolOf2",
      BuildPth(Pickle(TensorOf(Storage("BoolStorage", "0", 3), 0, {3}, {1})),
               {std::string("\0\1\2", 3)}),
      "storage \"0\": element 2 of bool is 2", Code::kDataLoss);
  const std::string masks =
      Pickle(Dict({Text("mask"), TensorOf(Storage("BoolStorage", "0", 3), 1,
                                          {2, 2}, {1, 0})}));
  add("BoolOf2Named", BuildPth(masks, {std::string("\2\1\2", 3)}),
      "storage \"0\", which holds \"mask\": element 2 of bool is 2",
      Code::kDataLoss);
  add("BoolOf2InALegacyFile",
      BuildLegacyPth(masks, {{"0", 3, std::string("\2\1\2", 3)}}),
      "storage \"0\", which holds \"mask\": element 2 of bool is 2",
      Code::kDataLoss);
  add("TooManyViewsBesideABoolOf2",
      BuildPth(Pickle(List(std::vector<std::string>(
                   200, TensorOf(Storage("BoolStorage", "0", 1 << 20), 0,
                                 {(1 << 20) - 1}, {1})))),
               {std::string((1 << 20) - 1, '\1') + '\2'}),
      "too many views of a storage", Code::kResourceExhausted);
  add("BoolOf2InAnUntypedStorage",
      BuildPth(Pickle(TensorOf(Storage("torch.storage.UntypedStorage", "0", 3),
                               "bool", 0, {3}, {1})),
               {std::string("\0\1\2", 3)}),
      "storage \"0\": element 2 of bool is 2", Code::kDataLoss);
  add("Row106TorchScript", WithRecord("a/constants.pkl", Pickle(")")),
      "is a TorchScript archive", Code::kUnimplemented);
  add("Row106TorchScriptCode", WithRecord("a/code/__torch__.py", ""),
      "is a TorchScript archive", Code::kUnimplemented);
  add("Row106OtherZip", BuildZip({{"a/x.npy", "1"}}),
      "has no data.pkl: not a file of torch.save");
  add("Row106LegacyTar", Tar(true), "is a tar file, of torch before 0.1.10",
      Code::kUnimplemented);
  add("Row106OldLegacyTar", Tar(false), "is a tar file", Code::kUnimplemented);
  add("Row106LegacyVersion",
      absl::StrCat(BuildLegacyPth("").substr(0, 15), Pickle(Int(1000))),
      "version is 1000, must be 1001");
  const std::string one = Pickle(TensorOf(SixFloatStorage(), 0, {6}, {1}));
  add("Row106LegacyNumel", BuildLegacyPth(one, {{"0", 5, SixFloats()}}),
      "storage \"0\": has 5 elements, must be 6");
  add("Row106LegacyCutOff", BuildLegacyPth(one, {{"0", 6, "short"}}),
      "storage \"0\": ends behind the end of the file", Code::kDataLoss);
  add("Row106LegacyOtherKey", BuildLegacyPth(one, {{"1", 6, SixFloats()}}),
      "storage \"1\": is of no tensor");
  add("Row106LegacyWithoutStorage", BuildLegacyPth(one),
      "has 0 storages, its values 1");
  add("Row106LegacyPosixSystem",
      BuildLegacyPth(Pickle(Call(Global("posix", "system"), {Text("id")}))),
      "\"posix.system\" is not a type");
  add("Row106LegacyPartPastStorage",
      BuildLegacyPth(
          Pickle(TensorOf(
              absl::StrCat(
                  Tuple({Text("storage"), Global("torch", "FloatStorage"),
                         Text("0"), Text("cpu"), Int(6),
                         Tuple({Text("1"), Int(4), Int(3)})}),
                  "Q"),
              0, {3}, {1})),
          {{"0", 6, SixFloats()}}),
      "part of 3 elements at 4 of a storage of 6");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, PthBadTest, testing::ValuesIn(BadCases()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(PthFileTest, Row103EveryDeviceIsTheCpu) {
  for (const char* const device : {"xyz", "cuda:9", "meta", ""}) {
    const auto file = ReadBytes(BuildPth(
        Pickle(TensorOf(Storage("FloatStorage", "0", 6, device), 0, {6}, {1})),
        {SixFloats()}));
    ASSERT_THAT(file, IsOk()) << device;
    EXPECT_TRUE(file->root().tensor().is_cpu());
    EXPECT_TRUE(ops::equal(file->root().tensor(), ops::arange(6, at::kFloat)));
  }
}

TEST(PthFileTest, Row105FileWithoutCrcsIsNotVerified) {
  std::vector<ZipEntry> entries = PthEntries(
      Pickle(TensorOf(SixFloatStorage(), 0, {6}, {1})), {SixFloats()});
  for (ZipEntry& entry : entries) entry.crc32 = 0;
  const auto file = ReadBytes(BuildZip(entries));
  ASSERT_THAT(file, IsOk());
  EXPECT_FALSE(file->verified());
  EXPECT_TRUE(ops::equal(file->root().tensor(), ops::arange(6, at::kFloat)));
}

TEST(PthFileTest, Row104EveryFlippedBitOfARecordIsFound) {
  const std::string file = OneTensor(0, {2, 3}, {3, 1});
  for (const absl::string_view record :
       {absl::string_view(SixFloats()), absl::string_view("little")}) {
    const size_t begin = file.find(record.data(), 0, record.size());
    for (size_t bit = 0; bit < 8 * record.size(); ++bit) {
      std::string flipped = file;
      flipped[begin + bit / 8] ^= static_cast<char>(1 << bit % 8);
      EXPECT_THAT(ReadBytes(flipped), StatusIs(Code::kDataLoss, _)) << bit;
    }
  }
}

// Looks at all that is in a value.
void Walk(const PthValue& value) {
  EXPECT_TRUE(IsUtf8(value.type_name()));
  switch (value.kind()) {
    case Kind::kString:
    case Kind::kDtype:
    case Kind::kDevice:
      EXPECT_TRUE(IsUtf8(value.string_value()));
      break;
    case Kind::kTensor: {
      const at::Tensor tensor = value.tensor();
      if (tensor.numel() == 0) break;
      int64_t last = tensor.storage_offset();
      for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
        last += (tensor.size(dim) - 1) * tensor.stride(dim);
      }
      EXPECT_GE(tensor.storage_offset(), 0);
      EXPECT_LE((last + 1) * static_cast<int64_t>(tensor.itemsize()),
                static_cast<int64_t>(tensor.storage().nbytes()));
      EXPECT_EQ(Raw(tensor).size(), tensor.nbytes());
      break;
    }
    case Kind::kDict:
      for (int64_t i = 0; i < value.size(); ++i) {
        Walk(value.key(i));
        Walk(value.value(i));
      }
      break;
    default:
      for (int64_t i = 0; i < value.size(); ++i) Walk(value.item(i));
  }
}

// Whatever a byte becomes, the file is refused, or what it holds can be used.
TEST(PthFileTest, EveryChangedByteEndsInAStatus) {
  std::vector<ZipEntry> entries = PthEntries(
      Pickle(Dict({Text("w"), TensorOf(SixFloatStorage(), 1, {2, 2}, {2, 1})})),
      {SixFloats()});
  for (ZipEntry& entry : entries) entry.crc32 = 0;
  const std::string zip = BuildZip(entries);
  const std::string legacy =
      BuildLegacyPth(entries[0].data, {{"0", 6, SixFloats()}});
  for (const std::string& file : {zip, legacy}) {
    for (size_t at = 0; at < file.size(); ++at) {
      for (const char value : {'\0', '\x01', '\x7f', '\xff', '(', 'R', 'h'}) {
        std::string changed = file;
        changed[at] = value;
        SCOPED_TRACE(testing::Message() << "byte " << at);
        const auto read = ReadBytes(changed, true);
        EXPECT_NE(read.status().code(), Code::kInternal);
        if (read.ok()) Walk(read->root());
      }
    }
  }
}

TEST(PthFileTest, MissingFile) {
  MemEnv env;
  EXPECT_THAT(PthFile::Read(env, "/none.pth"), StatusIs(Code::kNotFound, _));
}

TEST(LooksLikePthTest, ByTheFirstBytes) {
  const auto head = [](const std::string& file) {
    return absl::string_view(file).substr(0, 16);
  };
  const std::string zip = BuildPth(Pickle("N"));
  const std::string legacy = BuildLegacyPth(Pickle("N"));
  EXPECT_TRUE(LooksLikePth(head(zip)));
  EXPECT_TRUE(LooksLikePth(head(legacy)));
  EXPECT_TRUE(LooksLikePth(absl::string_view(
      "\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\x0al\xfc\x9c", 16)));
  EXPECT_TRUE(LooksLikePth("\x80\x03\x8a\x0al\xfc\x9c\x46\xf9"));
  EXPECT_FALSE(LooksLikePth(""));
  EXPECT_FALSE(LooksLikePth("\x80"));
  EXPECT_FALSE(LooksLikePth("PK"));
  // A safetensors file whose header has 640 bytes, and a plain pickle.
  EXPECT_FALSE(LooksLikePth(absl::string_view("\x80\x02\0\0\0\0\0\0{\"", 10)));
  EXPECT_FALSE(LooksLikePth(absl::string_view("\x80\x04\0\0\0\0\0\0{\"", 10)));
  EXPECT_FALSE(LooksLikePth("\x80\x02}q\x01."));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
