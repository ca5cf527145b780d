#include "grapnel/io/pickle_reader.h"

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/pickle_tree.h"
#include "grapnel/io/pth_builder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using pickled::Dict;
using pickled::Float;
using pickled::Global;
using pickled::Int;
using pickled::List;
using pickled::Pickle;
using pickled::Text;
using pickled::Tuple;
using testing::_;
using testing::HasSubstr;

constexpr size_t kMemory = 1 << 20;

// Keeps every name and call as it is.
class Recorder final : public PickleObjects {
 public:
  explicit Recorder(PickleTree& tree) : tree_(tree) {}

  absl::StatusOr<PickleId> Global(absl::string_view module,
                                  absl::string_view name) override {
    const auto type = tree_.Intern(absl::StrCat(module, ".", name));
    if (!type.ok()) return type.status();
    return tree_.AddNamed(PickleKind::kGlobal, *type, 0);
  }
  absl::StatusOr<PickleId> Call(PickleId callable,
                                PickleId arguments) override {
    return tree_.AddOpaque(tree_.type(callable), arguments);
  }
  absl::StatusOr<PickleId> Persistent(PickleId id) override {
    return tree_.AddOpaque(0, id);
  }
  absl::Status SetState(PickleId object, PickleId state) override {
    if (tree_.kind(object) != PickleKind::kOpaque) {
      return absl::InvalidArgumentError("state of no object");
    }
    tree_.SetState(object, state);
    return absl::OkStatus();
  }

 private:
  PickleTree& tree_;
};

// What a pickle was read to, or why not.
struct Outcome {
  explicit Outcome(absl::string_view bytes, size_t max_memory = kMemory) {
    tree.source = std::string(bytes);
    Recorder recorder(tree);
    auto read = ReadPickle(tree, recorder, max_memory, &end);
    status = read.status();
    if (!status.ok()) return;
    root = *read;
    status = tree.Finish(root, /*allow_names=*/true);
  }

  PickleTree tree;
  PickleId root = 0;
  size_t end = 0;
  absl::Status status;
};

// The value in Python's notation.
std::string Print(const PickleTree& tree, PickleId id) {
  const auto items = [&] {
    std::string text;
    for (const PickleId child : tree.children(id)) {
      absl::StrAppend(&text, text.empty() ? "" : " ", Print(tree, child));
    }
    return text;
  };
  switch (tree.kind(id)) {
    case PickleKind::kNone:
      return "None";
    case PickleKind::kBool:
      return tree.bool_value(id) ? "True" : "False";
    case PickleKind::kInt:
      return absl::StrCat(tree.int_value(id));
    case PickleKind::kBigInt:
      return absl::StrCat("int of ", tree.text(id).size());
    case PickleKind::kFloat:
      return absl::StrCat(tree.float_value(id), "f");
    case PickleKind::kString:
      return absl::StrCat("'", tree.text(id), "'");
    case PickleKind::kBytes:
      return absl::StrCat("b'", tree.text(id), "'");
    case PickleKind::kTuple:
      return absl::StrCat("(", items(), ")");
    case PickleKind::kList:
      return absl::StrCat("[", items(), "]");
    case PickleKind::kDict:
      return absl::StrCat("{", items(), "}");
    case PickleKind::kOpaque:
      return absl::StrCat(tree.type_name(id), "<", items(), ">");
    case PickleKind::kGlobal:
      return std::string(tree.type_name(id));
    default:
      return "?";
  }
}

struct ValueCase {
  const char* name;
  std::string pickle;  // Without PROTO and STOP.
  const char* printed;
};

class PickleReaderValueTest : public testing::TestWithParam<ValueCase> {};

TEST_P(PickleReaderValueTest, IsRead) {
  const std::string bytes = Pickle(GetParam().pickle);
  const Outcome outcome(absl::StrCat(bytes, "what is behind"));
  ASSERT_THAT(outcome.status, IsOk());
  EXPECT_EQ(Print(outcome.tree, outcome.root), GetParam().printed);
  EXPECT_EQ(outcome.end, bytes.size());
}

INSTANTIATE_TEST_SUITE_P(
    All, PickleReaderValueTest,
    testing::Values(
        ValueCase{"None", "N", "None"}, ValueCase{"True", "\x88", "True"},
        ValueCase{"False", "\x89", "False"}, ValueCase{"Int1", "K\xff", "255"},
        ValueCase{"Int2", "M\xff\xff", "65535"},
        ValueCase{"Int4", Int(-2), "-2"},
        ValueCase{"Long0", std::string("\x8a\x00", 2), "0"},
        ValueCase{"LongMinus1", "\x8a\x01\xff", "-1"},
        ValueCase{"Long5", "\x8a\x05\x01\x01\x01\x01\x01", "4311810305"},
        ValueCase{"Long8", Int(std::numeric_limits<int64_t>::min()),
                  "-9223372036854775808"},
        ValueCase{"Long9", absl::StrCat("\x8a\x09", std::string(9, '\x01')),
                  "int of 9"},
        ValueCase{"Long4Form",
                  absl::StrCat("\x8b\x01", std::string(3, '\0'), "\x07"), "7"},
        ValueCase{"Float", Float(-1.5), "-1.5f"},
        ValueCase{"Text", Text("h\xc3\xa9"), "'h\xc3\xa9'"},
        ValueCase{"OldText", "U\x02hi", "'hi'"},
        ValueCase{"OldBytes", "U\x01\xff", "b'\xff'"},
        ValueCase{"Tuples", "))\x85K\x01K\x02\x86\x87", "(() (()) (1 2))"},
        ValueCase{"MarkedTuple", Tuple({Int(1), Text("x")}), "(1 'x')"},
        ValueCase{"Lists",
                  "]K\x01"
                  "a(K\x02K\x03"
                  "e",
                  "[1 2 3]"},
        ValueCase{"Dicts", "}K\x01Ns(K\x02\x88K\x03\x89u",
                  "{1 None 2 True 3 False}"},
        ValueCase{
            "LastValueOfAKey",
            Dict({Text("a"), Int(1), Text("b"), Int(2), Text("a"), Int(3)}),
            "{'a' 3 'b' 2}"},
        ValueCase{"KeysAsPythonComparesThem",
                  Dict({"\x88", Int(1), Int(1), Int(2), Float(1), Int(3),
                        Text("1"), Int(4), "N", Int(5), Tuple({Int(1)}), Int(6),
                        Tuple({"\x88"}), Int(7)}),
                  "{True 3 '1' 4 None 5 (1) 7}"},
        ValueCase{"LargeNumbersAsKeys",
                  Dict({Int((int64_t{1} << 53) + 1), Int(1), Float(0x1p53),
                        Int(2), Int(int64_t{1} << 53), Int(3),
                        Int(std::numeric_limits<int64_t>::max()), Int(4),
                        Float(0x1p63), Int(5), Float(-0x1p63), Int(6),
                        Int(std::numeric_limits<int64_t>::min()), Int(7)}),
                  "{9007199254740993 1 9.0072e+15f 3 9223372036854775807 4 "
                  "9.22337e+18f 5 -9.22337e+18f 7}"},
        ValueCase{"ZerosAndFractionsAsKeys",
                  Dict({Float(-0.0), Int(1), Int(0), Int(2), "\x89", Int(3),
                        Float(0.5), Int(4), Float(0.5), Int(5)}),
                  "{-0f 3 0.5f 5}"},
        ValueCase{"Memo",
                  absl::StrCat("]q", std::string(1, '\0'), Text("x"),
                               "q\x01"
                               "ah\x01\x86"),
                  "(['x'] 'x')"},
        ValueCase{"LongMemo",
                  absl::StrCat("Nr", std::string(4, '\0'), "j",
                               std::string(4, '\0'), "\x86"),
                  "(None None)"},
        ValueCase{"Global", Global("a.b", "c"), "a.b.c"},
        ValueCase{
            "CallStateAndItems",
            absl::StrCat(Global("m", "C"), Tuple({Int(1)}), "\x81", Dict({}),
                         "bK\x05"
                         "aK\x06"
                         "a"),
            "m.C<(1) {} [5 6]>"},
        ValueCase{"PersistentId", absl::StrCat(Text("id"), "Q"),
                  "object<'id'>"}),
    [](const auto& info) { return std::string(info.param.name); });

// Row061 and the like are numbers of our list of bad inputs.
struct BadCase {
  const char* name;
  std::string bytes;
  Code code;
  const char* message;
};

class PickleReaderBadTest : public testing::TestWithParam<BadCase> {};

TEST_P(PickleReaderBadTest, IsRefused) {
  EXPECT_THAT(Outcome(GetParam().bytes).status,
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
}

// `open` n times, a value, and `close` n times.
std::string Nested(size_t n, absl::string_view open, absl::string_view close) {
  std::string bytes;
  for (size_t i = 0; i < n; ++i) absl::StrAppend(&bytes, open);
  absl::StrAppend(&bytes, "N");
  for (size_t i = 0; i < n; ++i) absl::StrAppend(&bytes, close);
  return bytes;
}

// A tuple of two of the one before, n times.
std::string Doubling(size_t n) {
  std::string bytes = absl::StrCat(")q", std::string(1, '\0'));
  for (size_t i = 0; i < n; ++i) {
    absl::StrAppend(&bytes, std::string("h") + static_cast<char>(i), "\x86q",
                    std::string(1, static_cast<char>(i + 1)));
  }
  return bytes;
}

INSTANTIATE_TEST_SUITE_P(
    All, PickleReaderBadTest,
    testing::Values(
        BadCase{"Row071SetitemsOdd", Pickle("}(K\x01u"), Code::kInvalidArgument,
                "byte 6: a key of a dict without a value"},
        BadCase{"Row072SetitemOnShortStack", Pickle("}K\x01s"),
                Code::kInvalidArgument,
                "byte 5: needs 3 values of the stack, there are 2"},
        BadCase{"Row072SetitemBelowAMark", Pickle("}(K\x01Ns"),
                Code::kInvalidArgument, "needs 3 values of the stack"},
        BadCase{"Row072SetitemOnList", Pickle("]K\x01Ns"),
                Code::kInvalidArgument, "sets an item of a list"},
        BadCase{"Row072AppendToDict",
                Pickle("}K\x01"
                       "a"),
                Code::kInvalidArgument, "appends to a dict"},
        BadCase{"Row073Dict",
                Pickle("(K\x01"
                       "d"),
                Code::kInvalidArgument, "opcode 0x64 is not one of torch.save"},
        BadCase{"Row074StopOnly", Pickle(""), Code::kInvalidArgument,
                "byte 2: ends with 0 values on the stack"},
        BadCase{"Row074TwoValues", Pickle("NN"), Code::kInvalidArgument,
                "ends with 2 values"},
        BadCase{"Row074OpenMark", Pickle("N("), Code::kInvalidArgument,
                "must be one"},
        BadCase{"Row075Empty", "", Code::kOutOfRange, "byte 0: needs 1 byte"},
        BadCase{"Row076Truncated",
                Pickle(Dict({Text("a"), Int(1)})).substr(0, 8),
                Code::kOutOfRange, "byte 4: needs 4 bytes, there are 3"},
        BadCase{"Row077NoProto", "N.", Code::kInvalidArgument,
                "no pickle begins here"},
        BadCase{"Row078Protocol9", "\x80\x09N.", Code::kInvalidArgument,
                "pickle protocol 9, must be 2"},
        BadCase{"Row078Protocol1", "\x80\x01N.", Code::kInvalidArgument,
                "pickle protocol 1, must be 2"},
        BadCase{"Row078Protocol3", "\x80\x03N.", Code::kUnimplemented,
                "pickle protocol 3, must be 2"},
        BadCase{"Row078Protocol4", "\x80\x04N.", Code::kUnimplemented,
                "pickle protocol 4, must be 2"},
        BadCase{"Row078Protocol5", "\x80\x05N.", Code::kUnimplemented,
                "pickle protocol 5, must be 2"},
        BadCase{"Row079MemoIndex",
                Pickle(absl::StrCat("Nr", std::string(3, '\0'), "\x10")),
                Code::kInvalidArgument, "memo number 268435456 after 0 others"},
        BadCase{"Row080LargestMemoIndex", Pickle("Nr\xff\xff\xff\xff"),
                Code::kInvalidArgument, "memo number 4294967295"},
        BadCase{"Row080GetWithoutPut", Pickle("h\x01"), Code::kInvalidArgument,
                "memo number 1 of 0"},
        BadCase{"Row081StringLength",
                Pickle("X\xff\xff\xff\xff"
                       "abc"),
                Code::kOutOfRange, "needs 4294967295 bytes, there are 4"},
        BadCase{"Row081LongLength",
                Pickle("\x8b\xff\xff\xff\xff"
                       "abc"),
                Code::kOutOfRange, "needs 4294967295 bytes"},
        BadCase{"Row082Tuples", Pickle(Nested(40'000, "", "\x85")),
                Code::kInvalidArgument, "nested more than 100 deep"},
        BadCase{"Row082TwoMillionTuples", Pickle(Nested(2'000'000, "", "\x85")),
                Code::kResourceExhausted, "of memory"},
        BadCase{"Row083Lists", Pickle(Nested(10'000, "]", "a")),
                Code::kInvalidArgument, "nested more than 100 deep"},
        BadCase{"Row083AMillionLists", Pickle(Nested(1'000'000, "]", "a")),
                Code::kResourceExhausted, "of memory"},
        BadCase{"Row084ListInItself",
                Pickle(absl::StrCat("]q", std::string(1, '\0'), "h",
                                    std::string(1, '\0'), "a")),
                Code::kInvalidArgument, "a list contains itself"},
        BadCase{"Row084DictInItself",
                Pickle(absl::StrCat("}q", std::string(1, '\0'), "Nh",
                                    std::string(1, '\0'), "s")),
                Code::kInvalidArgument, "a dict contains itself"},
        BadCase{"Row085BillionLaughs", Pickle(Doubling(60)),
                Code::kResourceExhausted,
                "unfolds to more than 10000000 values"},
        BadCase{
            "Row085DeepThroughTheMemo",
            Pickle(absl::StrCat(Nested(60, "", "\x85"), "q",
                                std::string(1, '\0'), "h", std::string(1, '\0'),
                                std::string(60, '\x85'), "\x86")),
            Code::kInvalidArgument, "nested more than 100 deep"},
        BadCase{"Row089LongName", Pickle(Global("m", std::string(50'000, 'x'))),
                Code::kInvalidArgument, "a name has more than 255 bytes"},
        BadCase{"NameIsNoUtf8", Pickle(Global("m", "f\xff")),
                Code::kInvalidArgument, "a name isn't UTF-8"},
        BadCase{"NameWithControlCharacter", Pickle(Global("m\x1b[2J", "f")),
                Code::kInvalidArgument, "a name holds a control character"},
        BadCase{"TextIsNoUtf8", Pickle(Text("\xff")), Code::kInvalidArgument,
                "not UTF-8 from byte 0"},
        BadCase{"CallWithoutTuple",
                Pickle(absl::StrCat(Global("m", "f"), "]R")),
                Code::kInvalidArgument, "calls with a list, must be a tuple"},
        BadCase{"KeyThatPythonRefuses", Pickle(Dict({List({}), Int(1)})),
                Code::kInvalidArgument, "a list is a key of a dict"},
        BadCase{"KeyThatPythonRefusesInATuple",
                Pickle(Dict({Tuple({List({})}), Int(1)})),
                Code::kInvalidArgument, "a tuple is a key of a dict"},
        BadCase{"NoMark", Pickle("t"), Code::kInvalidArgument,
                "there is no mark"},
        BadCase{"NothingBelowTheMark",
                Pickle("(K\x01"
                       "e"),
                Code::kInvalidArgument, "nothing is below the mark"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(PickleReaderTest, MemoryIsBounded) {
  // What each of these makes of a byte, and no more than what is allowed.
  for (const char* const opcode :
       {"N", "]", "}", ")", "(", "]Na", "}NNs", "N\x85", "K\x01"}) {
    std::string bytes = "\x80\x02";
    while (bytes.size() < 1 << 20) bytes += opcode;
    Outcome outcome(bytes, 1 << 18);
    EXPECT_THAT(outcome.status,
                StatusIs(Code::kResourceExhausted, HasSubstr("of memory")))
        << opcode;
    EXPECT_LT(outcome.tree.memory_size(), 1 << 19) << opcode;
  }
}

TEST(PickleReaderTest, NamesOfTypesCount) {
  std::vector<std::string> names;
  for (int i = 0; i < 2000; ++i) {
    names.push_back(Global("m", absl::StrCat(std::string(240, 'x'), i)));
  }
  const std::string bytes = Pickle(List(names));
  EXPECT_THAT(Outcome(bytes, 1 << 18).status,
              StatusIs(Code::kResourceExhausted, HasSubstr("of memory")));
  EXPECT_THAT(Outcome(bytes, 4 << 20).status, IsOk());
}

// Keys whose hashes were alike would take minutes.
TEST(PickleReaderTest, ManyKeysThatHardlyDifferAreFast) {
  constexpr size_t kCount = 300'000;
  const std::string nan = Float(std::numeric_limits<double>::quiet_NaN());
  const auto read = [&](const std::function<std::string(size_t)>& key) {
    std::string dict = "}(";
    for (size_t i = 0; i < kCount; ++i) dict += key(i) + "N";
    const Outcome outcome(Pickle(dict + "u"), 64 << 20);
    EXPECT_THAT(outcome.status, IsOk());
    return outcome.tree.children(outcome.root).size();
  };
  EXPECT_EQ(read([&](size_t) { return nan; }), 2 * kCount);
  EXPECT_EQ(read([&](size_t) { return Tuple({nan}); }), 2 * kCount);
  EXPECT_EQ(read([](size_t i) {
              return Int((int64_t{1} << 62) + static_cast<int64_t>(i));
            }),
            2 * kCount);
}

TEST(PickleReaderTest, TreesWithinTheLimitsAreRead) {
  EXPECT_THAT(Outcome(Pickle(Nested(100, "]", "a"))).status, IsOk());
  EXPECT_THAT(Outcome(Pickle(Nested(101, "]", "a"))).status,
              StatusIs(Code::kInvalidArgument, _));
  EXPECT_THAT(Outcome(Pickle(Doubling(20))).status, IsOk());
}

TEST(PickleReaderTest, EveryCutIsOutOfRange) {
  const std::string whole = Pickle(
      Dict({Text("a"), List({Int(1), Float(2)}), Text("b"), Global("m", "n")}));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(Outcome(absl::string_view(whole).substr(0, size)).status,
                StatusIs(Code::kOutOfRange, _))
        << size;
  }
}

TEST(PickleTreeTest, Latin1IsDecodedShortAndLong) {
  for (const size_t n : {1, 64, 65, 1000}) {
    PickleTree tree;
    std::string text;
    for (size_t i = 0; i < n; ++i)
      text +=
          "\xc3\xbf"
          "a";  // "ÿa"
    tree.source = text;
    const PickleId string =
        tree.AddSourceText(PickleKind::kString, 0, text.size());
    const auto bytes = tree.AddLatin1(0, string);
    ASSERT_THAT(bytes, IsOk());
    std::string expected;
    for (size_t i = 0; i < n; ++i)
      expected +=
          "\xff"
          "a";
    EXPECT_EQ(tree.text(*bytes), expected);
    // A text is of no use for anything else then, unless it is a short one.
    const absl::Status status = tree.Finish(string, true);
    EXPECT_EQ(status.ok(), text.size() <= 64) << n;
  }
}

TEST(PickleTreeTest, OtherCodePointsAreNoLatin1) {
  PickleTree tree;
  tree.source = "\xc4\x80";
  EXPECT_THAT(tree.AddLatin1(0, tree.AddSourceText(PickleKind::kString, 0, 2)),
              StatusIs(Code::kInvalidArgument, HasSubstr("isn't Latin-1")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
