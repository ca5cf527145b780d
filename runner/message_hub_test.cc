#include "grapnel/runner/message_hub.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/_neg_view_ops.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/mode.h"
#include "grapnel/tests/golden/golden_report.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::nlohmann::json;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsNull;
using ::testing::NotNull;
using ::testing::Pointee;
using ::testing::Pointwise;
using ::testing::TestWithParam;
using ::testing::ValuesIn;
using State = runner::v1::MessageHubState;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

at::Tensor Number(double value, at::ScalarType dtype) {
  return ops::full({}, value, at::TensorOptions().dtype(dtype));
}

// A dtype that C++ lacks goes the way that a tensor on a device goes: it is
// kept and becomes a number with others.
at::Tensor Kept(double value) { return Number(value, at::kFloat8_e5m2); }

double FromJson(const json& value) {
  return value.is_string() ? kNaN : value.get<double>();
}

json GoldenHistory(const std::string& name) {
  std::ifstream file("tests/golden/log_history.json");
  const json golden = json::parse(file);
  for (const json& test_case : golden["cases"]) {
    if (test_case["name"] == name) return test_case;
  }
  ADD_FAILURE() << "no case " << name;
  return json();
}

// "mean3 after 5", and what a history says.
using Statistic = std::pair<std::string, double>;

// Of a pair of statistics. The last digits depend on the order of a sum.
MATCHER(AreNearlyTheSame, "are nearly the same") {
  const auto& [ours, golden] = arg;
  if (ours.first != golden.first) return false;
  if (std::isnan(golden.second)) return std::isnan(ours.second);
  return std::fabs(ours.second - golden.second) <=
         1e-12 * std::fabs(golden.second);
}

constexpr char kGoldenFile[] = "log_history.json";

// Where ours says something else than MMEngine's.
std::string DifferenceOf(const std::string& name) {
  if (name == "zero_window_is_global") {
    return "c26: a window is >= 1; GlobalMean and the like are what MMEngine's "
           "window of 0 is";
  }
  if (name == "nan_poison") {
    return "the statistics of all leave NaNs out, upstream's stay NaN for ever";
  }
  if (name == "max_length_4") {
    return "a history of ours has no end: what MMEngine's of 4 entries says, "
           "ours says of a window of 4";
  }
  return "";
}

// Adds what MMEngine's history got, and compares what both say after each.
class GoldenHistoryTest : public TestWithParam<std::string> {};

TEST_P(GoldenHistoryTest, StatisticsAreMmengines) {
  const json golden = GoldenHistory(GetParam());
  const int64_t max_length =
      golden["args"].value("max_length", HistoryBuffer::kMaxWindow);
  const bool bounded = golden["args"].contains("max_length");
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  ASSERT_EQ(golden["pairs"].size(), golden["rows"].size());
  ASSERT_FALSE(golden["rows"].empty());
  std::vector<Statistic> all, expected;
  for (size_t i = 0; i < golden["pairs"].size(); ++i) {
    SCOPED_TRACE(absl::StrCat("after ", i + 1));
    const json& pair = golden["pairs"][i];
    history.Add(FromJson(pair[0]), pair[1].get<int64_t>());
    for (const auto& [key, value] : golden["rows"][i].items()) {
      SCOPED_TRACE(key);
      const size_t digits = key.find_first_of("0123456789");
      const std::string statistic = key.substr(0, digits);
      int64_t window = 0;
      double theirs = FromJson(value);
      absl::StatusOr<double> ours = kNaN;
      if (key == "current") {
        ours = history.Current();
      } else if (key == "length") {
        ours = static_cast<double>(std::min(history.num_entries(), max_length));
      } else if (key == "global_mean" && GetParam() == "nan_poison") {
        // The means of 1, of 1 and 3, and of 1, 3 and 5.
        constexpr double kWithoutNaN[] = {1, 1, 2, 3};
        theirs = kWithoutNaN[i];
        ours = history.GlobalMean();
      } else if (key == "global_mean") {
        ours = bounded ? history.Mean(max_length) : history.GlobalMean();
      } else if (!absl::SimpleAtoi(key.substr(digits), &window)) {
        ADD_FAILURE() << "unknown";
      } else if (window == 0) {
        ours = statistic == "mean"  ? history.GlobalMean()
               : statistic == "max" ? history.GlobalMax()
                                    : history.GlobalMin();
        EXPECT_THAT(history.Mean(0),
                    StatusIs(absl::StatusCode::kInvalidArgument, _));
      } else {
        window = std::min(window, max_length);
        ours = statistic == "mean"  ? history.Mean(window)
               : statistic == "max" ? history.Max(window)
                                    : history.Min(window);
      }
      ASSERT_THAT(ours, IsOk());
      const std::string name = absl::StrCat(key, " after ", i + 1);
      all.emplace_back(name, *ours);
      expected.emplace_back(name, theirs);
    }
  }
  EXPECT_GOLDEN(
      GoldenCase(kGoldenFile, "cases/" + GetParam(), DifferenceOf(GetParam())),
      all, Pointwise(AreNearlyTheSame(), expected));
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenHistoryTest,
                         ValuesIn<std::string>({"unit_counts", "counts",
                                                "zero_window_is_global",
                                                "max_length_4", "nan_poison"}),
                         [](const auto& info) { return info.param; });

TEST(GoldenHubTest, IntegersBecomeDoubles) {
  const json golden =
      json::parse(std::ifstream("tests/golden/log_history.json"));
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  // The last value and its type.
  static_assert(
      std::is_same_v<decltype(history.Current()), absl::StatusOr<double>>);
  const auto current = [&history] {
    return json::array({history.Current().value(), "float64"});
  };
  json all = json::array();
  for (const json& value : golden["int_into_empty_buffer"]) {
    history.Add(value[0].get<double>());
    all.push_back(current());
  }
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "int_into_empty_buffer/*"), all,
                Eq(golden["int_into_empty_buffer"]));
  EXPECT_GOLDEN(
      GoldenCase(kGoldenFile, "int_into_int_buffer/*",
                 "no history of ours holds integers: all are doubles"),
      current(),
      Eq(json::array({golden["int_into_int_buffer"][0], "float64"})));
}

// What a history takes. Counts and windows are given in braces, which let no
// conversion lose anything; without them C++ cuts a fraction off.
template <typename T, typename = void>
constexpr bool kIsAValue = false;
template <typename T>
constexpr bool
    kIsAValue<T, std::void_t<decltype(std::declval<HistoryBuffer&>().Add(
                     std::declval<T>()))>> = true;
template <typename T, typename = void>
constexpr bool kIsACount = false;
template <typename T>
constexpr bool
    kIsACount<T, std::void_t<decltype(std::declval<HistoryBuffer&>().Add(
                     1.0, {std::declval<T>()}))>> = true;
template <typename T, typename = void>
constexpr bool kIsAWindow = false;
template <typename T>
constexpr bool
    kIsAWindow<T, std::void_t<decltype(std::declval<HistoryBuffer&>().Mean(
                      {std::declval<T>()}))>> = true;
static_assert(kIsAValue<double> && kIsAValue<at::Tensor> &&
              kIsACount<int64_t> && kIsAWindow<int64_t>);

TEST(GoldenHubTest, Errors) {
  const json golden =
      json::parse(std::ifstream("tests/golden/log_history.json"));
  // The fifth, an unknown statistic, is the log processor's.
  ASSERT_EQ(golden["errors"].size(), 5u);
  ASSERT_EQ(golden["hub_errors"].size(), 4u);
  MessageHub hub;
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "errors/0"),
                hub.Scalar("train/a").Current(),
                StatusIs(absl::StatusCode::kFailedPrecondition, _));
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "errors/1",
                           "the compiler's to refuse: it is a type error"),
                kIsAValue<std::string>, Eq(false));
  const std::string fraction =
      "no error: as C++ does it, a fraction is cut off, but for one in braces, "
      "which the compiler refuses";
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "errors/2", fraction),
                kIsAWindow<double>, Eq(false));
  // Only a stored history can have values and counts of two lengths.
  State state;
  State::History* scalar = state.add_scalars();
  scalar->set_name("train/a");
  scalar->set_capacity(10);
  scalar->set_num_entries(2);
  scalar->mutable_total();
  scalar->add_values(1);
  scalar->add_values(2);
  scalar->add_counts(1);
  EXPECT_GOLDEN(
      GoldenCase(kGoldenFile, "errors/3"), hub.LoadState(state),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("2 values, 1 counts")));

  hub.SetInfo("a", int64_t{1});
  hub.SetInfo("a", int64_t{2}, /*resumable=*/false);
  state.Clear();
  hub.SaveState(&state);
  EXPECT_GOLDEN(
      GoldenCase(kGoldenFile, "hub_errors/0",
                 "no error: the last call decides whether it is saved"),
      state.infos().count("a"), Eq(0u));
  HistoryBuffer& vector = hub.Scalar("train/vector");
  vector.Add(ops::full({2}, 1.0));
  EXPECT_GOLDEN(
      GoldenCase(kGoldenFile, "hub_errors/1",
                 "asking for the value is the error, not adding it"),
      vector.Current(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has 2")));
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "hub_errors/2", fraction),
                kIsACount<double>, Eq(false));
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "hub_errors/3", "no error: it is null"),
                hub.FindScalar("train/zz"), IsNull());
  ASSERT_TRUE(golden["get_missing_info"].is_null());
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "get_missing_info"), hub.FindInfo("zz"),
                IsNull());
}

TEST(GoldenHubTest, WhatIsSaved) {
  const json golden = json::parse(
      std::ifstream("tests/golden/log_history.json"))["hub_state_dict"];
  const json& flags = golden["resumed_keys"];
  MessageHub hub;
  hub.Scalar("a").Add(1);
  hub.Scalar("lr").Add(1);
  for (const char* const name : {"i", "secret"}) {
    hub.SetInfo(name, int64_t{1}, flags[name].get<bool>());
  }
  State state;
  hub.SaveState(&state);
  std::vector<std::string> scalars, infos;
  for (const auto& scalar : state.scalars()) scalars.push_back(scalar.name());
  for (const auto& info : state.infos()) infos.push_back(info.first);
  EXPECT_EQ(infos, golden["runtime_info"].get<std::vector<std::string>>());
  EXPECT_EQ(golden["log_scalars"], json({"a"}));
  EXPECT_EQ(flags["lr"], false);
  EXPECT_GOLDEN(GoldenCase(kGoldenFile, "hub_state_dict",
                           "scalars have no flag: all are saved, \"lr\" too"),
                scalars, ElementsAre("a", "lr"));
}

TEST(HistoryBufferTest, WithoutEntriesThereIsNothingToSay) {
  MessageHub hub;
  const HistoryBuffer& history = hub.Scalar("train/x");
  for (const auto& value :
       {history.Current(), history.Mean(1), history.Max(1), history.Min(1),
        history.GlobalMean(), history.GlobalMax(), history.GlobalMin(),
        history.EpochMean(), history.EpochMax(), history.EpochMin()}) {
    EXPECT_THAT(value, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("train/x: has no entries")));
  }
}

TEST(HistoryBufferTest, AWindowIsAtLeastOne) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.Add(1);
  for (const int64_t window : {int64_t{0}, int64_t{-1}}) {
    for (const auto& value :
         {history.Mean(window), history.Max(window), history.Min(window)}) {
      EXPECT_THAT(value, StatusIs(absl::StatusCode::kInvalidArgument,
                                  absl::StrCat("train/x: window: must be >= 1,"
                                               " is ",
                                               window)));
    }
  }
}

TEST(HistoryBufferTest, AWindowThatReachesOverLostEntriesIsAnError) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  for (int i = 1; i <= 10; ++i) history.Add(i);
  EXPECT_EQ(history.Mean(1000).value(), 5.5);  // All there are.
  history.Add(11);
  EXPECT_EQ(history.Mean(10).value(), 6.5);
  EXPECT_THAT(history.Mean(11), StatusIs(absl::StatusCode::kOutOfRange,
                                         HasSubstr("only the last 10")));
  EXPECT_EQ(history.GlobalMean().value(), 6);
  EXPECT_EQ(history.GlobalMin().value(), 1);
}

TEST(HistoryBufferTest, ARingThatGrowsKeepsItsEntries) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  for (int i = 1; i <= 13; ++i) history.Add(i);
  history.KeepAtLeast(12);
  history.KeepAtLeast(3);  // Never shrinks.
  EXPECT_EQ(history.Mean(10).value(), 8.5);
  EXPECT_EQ(history.Mean(11).value(), 8.5);  // What there is of it.
  for (int i = 14; i <= 30; ++i) history.Add(i);
  EXPECT_EQ(history.Mean(12).value(), 24.5);
  EXPECT_EQ(history.Min(12).value(), 19);
}

TEST(HistoryBufferTest, HubsWindowIsForAllHistories) {
  MessageHub hub;
  HistoryBuffer& early = hub.Scalar("train/early");
  hub.KeepAtLeast(20);
  HistoryBuffer& late = hub.Scalar("train/late");
  for (int i = 1; i <= 25; ++i) {
    early.Add(i);
    late.Add(i);
  }
  EXPECT_EQ(early.Mean(20).value(), 15.5);
  EXPECT_EQ(late.Mean(20).value(), 15.5);
}

TEST(HistoryBufferTest, LongWindowsAreSummedExactly) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.KeepAtLeast(100000);
  for (int i = 0; i < 100000; ++i) history.Add(0.1);
  // One after the other: 0.10000000000018848.
  EXPECT_NEAR(history.Mean(100000).value(), 0.1, 1e-15);
}

TEST(HistoryBufferTest, InfinitiesAreValuesOfAWindow) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.Add(kInf);
  history.Add(1);
  EXPECT_EQ(history.Mean(2).value(), kInf);
  EXPECT_EQ(history.Min(2).value(), 1);
  history.Add(-kInf);
  EXPECT_TRUE(std::isnan(history.Mean(3).value()));
  EXPECT_EQ(history.Min(3).value(), -kInf);
}

TEST(HistoryBufferTest, OneNaNDoesNotSpoilWhatIsOfAll) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.Add(kNaN);
  EXPECT_TRUE(std::isnan(history.GlobalMean().value()));
  EXPECT_TRUE(std::isnan(history.EpochMax().value()));
  for (const double value : {1.0, kInf, 4.0}) history.Add(value);
  EXPECT_EQ(history.GlobalMean().value(), 2.5);
  EXPECT_EQ(history.GlobalMin().value(), 1);
  EXPECT_EQ(history.GlobalMax().value(), 4);
  EXPECT_EQ(history.EpochMean().value(), 2.5);
  // A window has it as long as it reaches back to it.
  EXPECT_TRUE(std::isnan(history.Max(4).value()));
  EXPECT_EQ(history.Max(1).value(), 4);
}

// Of a checkpoint from before they were left out.
TEST(HistoryBufferTest, StatisticsThatWereSpoiledBeginAgain) {
  MessageHub hub;
  hub.Scalar("train/x").Add(3);
  State state;
  hub.SaveState(&state);
  state.mutable_scalars(0)->mutable_total()->set_sum(kNaN);
  MessageHub loaded;
  ASSERT_THAT(loaded.LoadState(state), IsOk());
  loaded.Scalar("train/x").Add(5);
  EXPECT_EQ(loaded.Scalar("train/x").GlobalMean().value(), 5);
}

TEST(HistoryBufferTest, AnEpochsStatisticsStartOver) {
  MessageHub hub;
  HistoryBuffer& loss = hub.Scalar("train/loss");
  HistoryBuffer& val = hub.Scalar("val/loss");
  for (int i = 1; i <= 20; ++i) loss.Add(i);
  val.Add(7);
  EXPECT_EQ(loss.EpochMean().value(), 10.5);  // Longer than the ring.
  hub.BeginEpoch(Mode::kTrain);
  EXPECT_EQ(loss.num_epoch_entries(), 0);
  EXPECT_THAT(loss.EpochMean(),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  EXPECT_EQ(loss.Mean(2).value(), 19.5);
  EXPECT_EQ(val.EpochMean().value(), 7);
  loss.Add(5);
  loss.Add(4);
  EXPECT_EQ(loss.num_epoch_entries(), 2);
  EXPECT_EQ(loss.EpochMean().value(), 4.5);
  EXPECT_EQ(loss.EpochMax().value(), 5);
  EXPECT_EQ(loss.EpochMin().value(), 4);
  EXPECT_EQ(loss.GlobalMax().value(), 20);
}

// "value/x" is none of validation's (MMEngine's prefix test takes it).
TEST(MessageHubTest, AModeIsItsNameAndASlash) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("value/x");
  history.Add(1);
  hub.BeginEpoch(Mode::kVal);
  EXPECT_EQ(history.num_epoch_entries(), 1);
}

struct DtypeCase {
  std::string name;
  at::ScalarType dtype;
  double value;
};

class HistoryBufferDtypeTest : public TestWithParam<DtypeCase> {};

TEST_P(HistoryBufferDtypeTest, ATensorIsItsNumber) {
  const auto& [name, dtype, value] = GetParam();
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.Add(Number(value, dtype));
  history.Add(Number(value, dtype).reshape({1, 1}), 2);
  EXPECT_EQ(history.Current().value(), value);
  EXPECT_EQ(history.Mean(2).value(), 2 * value / 3);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, HistoryBufferDtypeTest,
                         ValuesIn<DtypeCase>({{"Double", at::kDouble, 0.1},
                                              {"Float", at::kFloat, 0.1f},
                                              {"Half", at::kHalf, -0.125},
                                              {"BFloat16", at::kBFloat16, 1024},
                                              {"Float8", at::kFloat8_e5m2,
                                               -0.5},
                                              {"Long", at::kLong, 1ll << 40},
                                              {"Int", at::kInt, -70000},
                                              {"Short", at::kShort, -300},
                                              {"Char", at::kChar, -7},
                                              {"Byte", at::kByte, 200},
                                              {"Bool", at::kBool, 1}}),
                         [](const auto& info) { return info.param.name; });

TEST(HistoryBufferTest, ATensorOnTheCpuIsReadWhenItComes) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  at::Tensor loss = Number(1, at::kFloat);
  history.Add(loss);
  loss.fill_(2);
  EXPECT_EQ(history.Current().value(), 1);
  EXPECT_EQ(loss.use_count(), 1);
}

// imag() of a conjugate is one: in memory it has the other sign.
TEST(HistoryBufferTest, ANegativeViewIsItsNumber) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.Add(at::_ops::_neg_view::call(Number(3, at::kFloat)));
  EXPECT_EQ(history.Current().value(), -3);
}

TEST(HistoryBufferTest, NoGraphIsKept) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  at::Tensor weight = Number(3, at::kFloat).requires_grad_();
  at::Tensor loss = weight.mul(2).to(at::kFloat8_e5m2);
  ASSERT_TRUE(loss.requires_grad());
  history.Add(loss);
  EXPECT_EQ(loss.use_count(), 1);
  EXPECT_EQ(history.Current().value(), 6);
}

// More tensors than the ring has places, numbers between them, and readers now
// and then: it is always as if everything had been a number.
TEST(HistoryBufferTest, KeptTensorsCountAsIfTheyHadBeenNumbers) {
  for (const int read_every : {1, 3, 10, 11, 1000}) {
    SCOPED_TRACE(read_every);
    MessageHub hub;
    HistoryBuffer& tensors = hub.Scalar("train/tensors");
    HistoryBuffer& numbers = hub.Scalar("train/numbers");
    for (int i = 1; i <= 57; ++i) {
      if (i == 20 || i == 41) hub.BeginEpoch(Mode::kTrain);
      const double value = i % 13 - 4 == 0 ? 0.25 : (i % 13 - 4) * 0.5;
      if (i % 7 == 3) {
        tensors.Add(value, i % 3 + 1);
      } else {
        tensors.Add(Kept(value), i % 3 + 1);
      }
      numbers.Add(value, i % 3 + 1);
      if (i % read_every != 0) continue;
      EXPECT_EQ(tensors.Mean(5).value(), numbers.Mean(5).value());
      EXPECT_EQ(tensors.Current().value(), value);
    }
    EXPECT_EQ(tensors.Mean(10).value(), numbers.Mean(10).value());
    EXPECT_EQ(tensors.Max(10).value(), numbers.Max(10).value());
    EXPECT_EQ(tensors.GlobalMean().value(), numbers.GlobalMean().value());
    EXPECT_EQ(tensors.GlobalMin().value(), numbers.GlobalMin().value());
    EXPECT_EQ(tensors.EpochMean().value(), numbers.EpochMean().value());
    EXPECT_EQ(tensors.num_epoch_entries(), 17);
  }
}

TEST(HistoryBufferTest, ARingWithKeptTensorsGrows) {
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  for (int i = 1; i <= 12; ++i) history.Add(Kept(i));
  history.KeepAtLeast(15);
  for (int i = 13; i <= 16; ++i) history.Add(Kept(i));
  EXPECT_EQ(history.Mean(14).value(), 9.5);
  EXPECT_EQ(history.GlobalMean().value(), 8.5);
}

struct BadTensorCase {
  std::string name;
  at::Tensor tensor;
  absl::StatusCode code;
  std::string message;
};

class HistoryBufferBadTensorTest : public TestWithParam<BadTensorCase> {};

TEST_P(HistoryBufferBadTensorTest, IsAnErrorOfEveryStatistic) {
  const BadTensorCase& bad = GetParam();
  MessageHub hub;
  HistoryBuffer& history = hub.Scalar("train/x");
  history.Add(1);
  history.Add(bad.tensor);
  history.Add(2);
  for (const auto& value :
       {history.Current(), history.Mean(1), history.GlobalMax()}) {
    EXPECT_THAT(value, StatusIs(bad.code, HasSubstr(bad.message)));
  }
  EXPECT_EQ(history.num_entries(), 3);
}

INSTANTIATE_TEST_SUITE_P(
    Tensors, HistoryBufferBadTensorTest,
    ValuesIn<BadTensorCase>({
        {"Undefined", at::Tensor(), absl::StatusCode::kInvalidArgument,
         "train/x: must be one real number, is an undefined tensor"},
        {"TwoElements", ops::full({2}, 1.0), absl::StatusCode::kInvalidArgument,
         "train/x: must be one real number, has 2 of dtype Float"},
        {"NoElement", ops::full({0}, 1.0), absl::StatusCode::kInvalidArgument,
         "has 0 of dtype Float"},
        {"Complex", Number(1, at::kComplexFloat),
         absl::StatusCode::kInvalidArgument, "has 1 of dtype ComplexFloat"},
        // A device that can't be read.
        {"Meta", ops::full({}, 1.0, at::TensorOptions().device(at::kMeta)),
         absl::StatusCode::kUnimplemented, "train/x: "},
    }),
    [](const auto& info) { return info.param.name; });

TEST(MessageHubTest, ScalarsAreInTheOrderOfTheirFirstEntry) {
  MessageHub hub;
  HistoryBuffer& lr = hub.Scalar("train/lr");
  HistoryBuffer& loss = hub.Scalar("train/loss");
  EXPECT_THAT(hub.scalars(), IsEmpty());
  EXPECT_THAT(hub.FindScalar("train/lr"), IsNull());
  loss.Add(1);
  lr.Add(1);
  loss.Add(2);
  EXPECT_THAT(hub.scalars(), ElementsAre(&loss, &lr));
  EXPECT_EQ(hub.FindScalar("train/lr"), &lr);
  EXPECT_EQ(&hub.Scalar("train/lr"), &lr);
  EXPECT_THAT(hub.FindScalar("train/no"), IsNull());
}

TEST(MessageHubTest, HistoriesStayWhereTheyAre) {
  MessageHub hub;
  HistoryBuffer& first = hub.Scalar("train/first");
  for (int i = 0; i < 1000; ++i) hub.Scalar(absl::StrCat("train/", i)).Add(i);
  EXPECT_EQ(&hub.Scalar("train/first"), &first);
}

TEST(MessageHubTest, FactsAreSetReplacedAndRemoved) {
  MessageHub hub;
  EXPECT_THAT(hub.FindInfo("epoch"), IsNull());
  hub.SetInfo("epoch", int64_t{3});
  hub.SetInfo("loop_stage", std::string("train"));
  const MessageHub::Info* const epoch = hub.FindInfo("epoch");
  for (int i = 0; i < 100; ++i) hub.SetInfo(absl::StrCat(i), true);
  hub.SetInfo("epoch", int64_t{4});
  EXPECT_EQ(std::get<int64_t>(*epoch), 4);
  hub.RemoveInfo("loop_stage");
  hub.RemoveInfo("loop_stage");
  EXPECT_THAT(hub.FindInfo("loop_stage"), IsNull());
}

void AddOne(MessageHub& hub, int i) {
  if (i % 5 == 0) hub.BeginEpoch(Mode::kTrain);
  hub.Scalar("train/loss").Add(std::sin(i));
  if (i > 3) hub.Scalar("train/grad_norm").Add(Kept(i % 4), i % 3 + 1);
  hub.Scalar("train/bad").Add(i == 2 ? kNaN : i == 7 ? -kInf : -0.0);
  hub.SetInfo("iter", int64_t{i});
}

State StateOf(const MessageHub& hub) {
  State state;
  hub.SaveState(&state);
  return state;
}

// Equal iff all bits are: of a NaN too.
std::string Bytes(const State& state) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    EXPECT_TRUE(state.SerializeToCodedStream(&coded));
  }
  return bytes;
}

TEST(MessageHubTest, AResumeAtEveryCutEqualsNoCut) {
  constexpr int kEntries = 27;
  MessageHub whole;
  whole.KeepAtLeast(12);
  for (int i = 0; i < kEntries; ++i) AddOne(whole, i);
  const State expected = StateOf(whole);

  for (int cut = 0; cut <= kEntries; ++cut) {
    SCOPED_TRACE(cut);
    MessageHub before;
    before.KeepAtLeast(12);
    for (int i = 0; i < cut; ++i) AddOne(before, i);
    State state;
    ASSERT_TRUE(state.ParseFromString(Bytes(StateOf(before))));
    MessageHub after;
    HistoryBuffer& loss = after.Scalar("train/loss");
    loss.KeepAtLeast(12);
    ASSERT_THAT(after.LoadState(state), IsOk());
    EXPECT_EQ(Bytes(StateOf(after)), Bytes(state));
    after.KeepAtLeast(12);
    for (int i = cut; i < kEntries; ++i) AddOne(after, i);
    EXPECT_EQ(Bytes(StateOf(after)), Bytes(expected));
    EXPECT_EQ(loss.Mean(12).value(),
              whole.FindScalar("train/loss")->Mean(12).value());
  }
}

TEST(MessageHubTest, BitsComeBack) {
  const uint64_t kBits[] = {0x7ff8000000000123, 0x8000000000000000, 1,
                            0x3fb999999999999a};
  MessageHub hub;
  for (const uint64_t bits : kBits) {
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    hub.Scalar("train/x").Add(value);
  }
  State state;
  ASSERT_TRUE(state.ParseFromString(Bytes(StateOf(hub))));
  MessageHub loaded;
  ASSERT_THAT(loaded.LoadState(state), IsOk());
  const State again = StateOf(loaded);
  for (int i = 0; i < 4; ++i) {
    uint64_t bits;
    const double value = again.scalars(0).values(i);
    std::memcpy(&bits, &value, sizeof(bits));
    EXPECT_EQ(bits, kBits[i]);
  }
}

TEST(MessageHubTest, AShorterRingOfAStateIsSaidOnce) {
  MessageHub before;
  for (int i = 0; i < 40; ++i) before.Scalar("train/x").Add(i);
  MessageHub hub;
  hub.KeepAtLeast(50);
  hub.Scalar("train/x");
  ASSERT_THAT(hub.LoadState(StateOf(before)), IsOk());
  EXPECT_EQ(hub.ShortWindow(), 10);
  for (int i = 0; i < 20; ++i) hub.Scalar("train/x").Add(i);
  // Gone on with as it is: the ring was as long as it is.
  MessageHub after;
  after.KeepAtLeast(50);
  after.Scalar("train/x");
  ASSERT_THAT(after.LoadState(StateOf(hub)), IsOk());
  EXPECT_EQ(after.ShortWindow(), -1);
  EXPECT_EQ(after.Scalar("train/x").Mean(50).value(),
            hub.Scalar("train/x").Mean(30).value());
}

TEST(MessageHubTest, AStateHoldsTheRingAndNothingLonger) {
  MessageHub hub;
  for (int i = 0; i < 10000; ++i) hub.Scalar("train/x").Add(i);
  EXPECT_LT(StateOf(hub).ByteSizeLong(), 250);
}

TEST(MessageHubTest, FactsOfAllKindsComeBack) {
  MessageHub hub;
  hub.SetInfo("i", int64_t{-3});
  hub.SetInfo("d", 0.1);
  hub.SetInfo("b", true);
  hub.SetInfo("s", std::string("a\nb"));
  hub.SetInfo("v", std::vector<int64_t>{1, 2});
  hub.SetInfo("e", std::vector<int64_t>{});
  hub.SetInfo("secret", std::string("x"), /*resumable=*/false);
  const State state = StateOf(hub);
  EXPECT_EQ(state.infos_size(), 6);

  MessageHub loaded;
  loaded.SetInfo("old", int64_t{1});
  loaded.SetInfo("mine", int64_t{2}, /*resumable=*/false);
  ASSERT_THAT(loaded.LoadState(state), IsOk());
  for (const char* const name : {"i", "d", "b", "s", "v", "e"}) {
    EXPECT_THAT(loaded.FindInfo(name), Pointee(*hub.FindInfo(name))) << name;
  }
  EXPECT_THAT(loaded.FindInfo("old"), IsNull());
  EXPECT_THAT(loaded.FindInfo("secret"), IsNull());
  EXPECT_THAT(loaded.FindInfo("mine"), NotNull());
}

TEST(MessageHubTest, ALoadedStateTakesThePlaceOfWhatThereWas) {
  MessageHub saved;
  saved.Scalar("train/b").Add(1);
  saved.Scalar("train/a").Add(2);
  MessageHub hub;
  HistoryBuffer& a = hub.Scalar("train/a");
  HistoryBuffer& old = hub.Scalar("train/old");
  a.Add(ops::full({2}, 1.0));
  for (int i = 0; i < 12; ++i) old.Add(Kept(i));
  ASSERT_THAT(hub.LoadState(StateOf(saved)), IsOk());
  EXPECT_THAT(hub.scalars(), ElementsAre(&hub.Scalar("train/b"), &a));
  EXPECT_EQ(a.GlobalMean().value(), 2);
  EXPECT_EQ(old.num_entries(), 0);
  old.Add(3);
  EXPECT_EQ(old.GlobalMax().value(), 3);
  EXPECT_THAT(hub.scalars(), ElementsAre(_, &a, &old));
}

struct BadStateCase {
  std::string name;
  void (*spoil)(State& state);
  std::string message;
};

class MessageHubBadStateTest : public TestWithParam<BadStateCase> {};

TEST_P(MessageHubBadStateTest, IsRefusedAndChangesNothing) {
  MessageHub hub;
  for (int i = 0; i < 12; ++i) hub.Scalar("train/x").Add(i);
  hub.Scalar("train/y").Add(1);
  hub.SetInfo("iter", int64_t{12});
  const State before = StateOf(hub);
  State bad = before;
  GetParam().spoil(bad);
  EXPECT_THAT(hub.LoadState(bad), StatusIs(absl::StatusCode::kDataLoss,
                                           HasSubstr(GetParam().message)));
  EXPECT_EQ(Bytes(StateOf(hub)), Bytes(before));
}

INSTANTIATE_TEST_SUITE_P(
    States, MessageHubBadStateTest,
    ValuesIn<BadStateCase>({
        {"NoName", [](State& s) { s.mutable_scalars(1)->clear_name(); },
         "scalars[1] \"\": has no name"},
        {"SameName",
         [](State& s) { s.mutable_scalars(1)->set_name("train/x"); },
         "scalars[1] \"train/x\": comes twice"},
        {"NoCapacity", [](State& s) { s.mutable_scalars(0)->set_capacity(0); },
         "capacity: must be in 1..1000000, is 0"},
        {"HugeCapacity",
         [](State& s) { s.mutable_scalars(0)->set_capacity(int64_t{1} << 60); },
         "capacity: must be in 1..1000000"},
        {"MoreValuesThanPlaces",
         [](State& s) { s.mutable_scalars(0)->set_capacity(9); },
         "10 values, 10 counts, capacity 9"},
        {"MissingCount",
         [](State& s) { s.mutable_scalars(0)->mutable_counts()->RemoveLast(); },
         "10 values, 9 counts"},
        {"NoValues",
         [](State& s) {
           s.mutable_scalars(0)->clear_values();
           s.mutable_scalars(0)->clear_counts();
         },
         "0 values"},
        {"FewerEntriesThanValues",
         [](State& s) { s.mutable_scalars(0)->set_num_entries(9); },
         "and 9 entries"},
        {"EpochLongerThanRun",
         [](State& s) { s.mutable_scalars(0)->set_num_epoch_entries(13); },
         "num_epoch_entries: must be in 0..12, is 13"},
        {"NegativeEpoch",
         [](State& s) { s.mutable_scalars(0)->set_num_epoch_entries(-1); },
         "num_epoch_entries"},
        {"FactWithoutValue", [](State& s) { (*s.mutable_infos())["z"]; },
         "infos[\"z\"]: has no value"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(MessageHubTest, AScalarThatIsForgottenStartsOver) {
  MessageHub hub;
  HistoryBuffer& lr = hub.Scalar("train/lr");
  lr.Add(1.0);
  hub.Scalar("train/loss").Add(2.0);
  hub.ForgetScalar("train/lr");
  hub.ForgetScalar("train/nothing");
  EXPECT_EQ(hub.FindScalar("train/lr"), nullptr);
  ASSERT_EQ(hub.scalars().size(), 1u);
  lr.Add(3.0);
  EXPECT_EQ(hub.scalars().size(), 2u);
  EXPECT_EQ(hub.FindScalar("train/lr")->Mean(10).value_or(0), 3.0);
}

TEST(MessageHubTest, TextThatIsNotUtf8IsEscapedWhenItIsGiven) {
  MessageHub hub;
  hub.Scalar("train/caf\xe9").Add(1.0);
  hub.Scalar("train/caf\xe8").Add(2.0);
  EXPECT_EQ(hub.Scalar("train/caf\xe9").name(), "train/caf\\xe9");
  ASSERT_NE(hub.FindScalar("train/caf\xe8"), nullptr);
  EXPECT_EQ(hub.FindScalar("train/caf\xe8"), hub.FindScalar("train/caf\\xe8"));
  hub.SetInfo("k\xff", std::string("v\xfe"));
  hub.InfoSlot("slot\xfd") = std::string("v\xfc");
  hub.SetInfo("gone\xff", int64_t{1});
  hub.RemoveInfo("gone\xff");
  EXPECT_EQ(std::get<std::string>(*hub.FindInfo("k\xff")), "v\\xfe");

  State state;
  hub.SaveState(&state);
  State back;
  ASSERT_TRUE(back.ParseFromString(state.SerializeAsString()));
  EXPECT_EQ(back.infos().size(), 2u);
  EXPECT_EQ(back.infos().at("slot\\xfd").string_value(), "v\\xfc");
  MessageHub other;
  ASSERT_THAT(other.LoadState(back), IsOk());
  EXPECT_EQ(other.FindScalar("train/caf\xe8")->Current().value_or(0), 2.0);
  EXPECT_EQ(std::get<std::string>(*other.FindInfo("k\xff")), "v\\xfe");
}

}  // namespace
}  // namespace grapnel
