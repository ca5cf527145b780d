// The lines and records of whole runs: golden/log_lines.json.

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_run.h"
#include "gtest/gtest.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::testing::Pointwise;

// Where ours differ, by case: texts of the golden file and what stands in their
// place, in lines and in records (docs/from_mmengine.md, section 3).
struct Difference {
  std::string rule;
  std::vector<std::pair<std::string, std::string>> in_lines;
  std::vector<std::pair<std::string, std::string>> in_records;
};

const std::map<std::string, Difference>& Differences() {
  static const auto& differences = *new std::map<std::string, Difference>{
      {"epoch_int2",
       {"c17: validation is never smoothed",
        {{"acc: 0.7500  loss: 2.0000", "acc: 0.7500  loss: 1.0000"}},
        {{"\"acc\": 0.75, \"loss\": 2.0", "\"acc\": 0.75, \"loss\": 1.0"}}}},
      {"val_loss_is_smoothed",
       {"c17: validation is never smoothed",
        {{"val_loss: 6.0000", "val_loss: 4.0000"},
         {"val_loss: 4.6667", "val_loss: 2.0000"},
         {"val_loss: 3.5000", "val_loss: 0.0000"}},
        {{"\"val_loss\": 6.0", "\"val_loss\": 4.0"},
         {"\"val_loss\": 4.666666666666667", "\"val_loss\": 2.0"},
         {"\"val_loss\": 3.5", "\"val_loss\": 0.0"}}}},
      {"iter_int3",
       {"c22: the last iteration is logged",
        {{"Iter(val) [2/2]    acc: 0.7500",
          "Iter(train) [8/8]  lr: 1.0000e-02  eta: 0:00:00  time: 0.5000  "
          "data_time: 0.2500  loss: -0.2656  aux: 1.0000\n"
          "Iter(val) [2/2]    acc: 0.7500"}},
        {{"{\"acc\": 0.75",
          "{\"lr\": 0.01, \"data_time\": 0.25, \"loss\": -0.265625, "
          "\"aux\": 1.0, \"time\": 0.5, \"iter\": 8, \"step\": 8}\n"
          "{\"acc\": 0.75"}}}},
      {"many_epochs_alignment",
       {"a mean of -29.21875, half-way, is a bit less there: another order of "
        "the sum",
        {{"loss: -29.2187", "loss: -29.2188"}},
        {}}},
      {"best_and_ckpt_lines",
       {"checkpoints are directories, without .pth; c23: a direction that was "
        "taken from a name is logged; so is what is removed",
        {{"Exp name: <exp>",
          "save_best: by its name, greater values of \"acc\" are better; set "
          "rule to be sure\nExp name: <exp>"},
         {"best_acc_epoch_1.pth", "best_acc_epoch_1"},
         {"best_acc_epoch_2.pth.",
          "best_acc_epoch_2.\nThe previous best checkpoint best_acc_epoch_1 is "
          "removed"}},
        {}}},
      {"iter_default_epoch_axis",
       {"c21: metrics of an iteration-based loop have its iteration as step",
        {},
        {{"{\"acc\": 0.5, \"data_time\": 0.25, \"time\": 0.5, \"step\": 0}",
          "{\"acc\": 0.5, \"data_time\": 0.25, \"time\": 0.5, \"step\": 2}"},
         {"{\"acc\": 0.75, \"data_time\": 0.25, \"time\": 0.5, \"step\": 0}",
          "{\"acc\": 0.75, \"data_time\": 0.25, \"time\": 0.5, \"step\": "
          "4}"}}}},
  };
  return differences;
}

// Replaces, and fails if there was nothing to replace.
void Apply(const std::vector<std::pair<std::string, std::string>>& changes,
           std::string* text) {
  for (const auto& [from, to] : changes) {
    const size_t at = text->find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text->replace(at, from.size(), to);
  }
}

// A number whose last digits depend on the order of a sum is compared as a
// number.
bool AreSameRecord(const std::string& ours, const std::string& golden) {
  const Json a = Json::parse(ours, nullptr, /*allow_exceptions=*/false);
  const Json b = Json::parse(golden, nullptr, /*allow_exceptions=*/false);
  if (!a.is_object() || !b.is_object() || a.size() != b.size()) return false;
  auto other = b.begin();
  for (auto it = a.begin(); it != a.end(); ++it, ++other) {
    if (it.key() != other.key() ||
        it->is_number_float() != other->is_number_float() ||
        !(std::fabs(it->get<double>() - other->get<double>()) <= 1e-12)) {
      return false;
    }
  }
  return true;
}

// Of a pair of lines, of a log or of records.
MATCHER(AreTheSame, "are the same") {
  const auto& [ours, golden] = arg;
  return ours == golden || AreSameRecord(ours, golden);
}

TEST(LogLinesTest, LinesAndRecordsAreMmengines) {
  const Json golden = ReadGolden("log_lines");
  size_t cases = 0, differences = 0;
  for (const Json& c : golden["cases"]) {
    const std::string name = c["name"];
    SCOPED_TRACE(name);
    ++cases;
    const auto env = std::make_unique<io::MemEnv>();
    const FakeClock clock(absl::Milliseconds(250));
    MemoryRunLog log;
    RunnerOptions options;
    options.env = env.get();
    options.clock = &clock;
    options.log = &log;
    const std::string call = c["config"].contains("call")
                                 ? c["config"]["call"].get<std::string>()
                                 : "train";
    // A standalone evaluation has no training loop.
    options.for_training = call == "train";
    const auto runner = CreateGoldenRunner(c["config"], std::move(options));
    ASSERT_THAT(runner, IsOk());
    if (call == "train") {
      ASSERT_THAT((*runner)->Train(), IsOk());
    } else if (call == "val") {
      ASSERT_THAT((*runner)->Val(), IsOk());
    } else {
      ASSERT_THAT((*runner)->Test(), IsOk());
    }

    std::string lines;
    for (const std::string& line : log.messages()) lines += line + "\n";
    std::string expected;
    for (const Json& line : c["log"]) {
      expected +=
          absl::StrReplaceAll(line.get<std::string>(), {{"<wd>", "/run"}}) +
          "\n";
    }
    std::string expected_records;
    if (c.contains("json_records")) {
      for (const Json& record : c["json_records"]) {
        std::string text = "{";
        for (auto it = record.begin(); it != record.end(); ++it) {
          absl::StrAppend(&text, text.size() > 1 ? ", " : "",
                          Json(it.key()).dump(), ": ", it->dump());
        }
        expected_records += text + "}\n";
      }
    }
    std::string difference;
    if (const auto it = Differences().find(name); it != Differences().end()) {
      ++differences;
      difference = it->second.rule;
      Apply(it->second.in_lines, &expected);
      Apply(it->second.in_records, &expected_records);
    }
    const GoldenCase golden_case("log_lines.json", "cases/" + name, difference);
    std::vector<std::string> all = absl::StrSplit(lines, '\n');
    std::vector<std::string> all_expected = absl::StrSplit(expected, '\n');

    const std::string log_dir = (*runner)->context().log_dir();
    const std::string timestamp = (*runner)->context().timestamp();
    if (c.contains("test_json")) {
      const auto text = io::ReadFile(
          *env, io::JoinPath(log_dir, absl::StrCat(timestamp, ".json")));
      ASSERT_THAT(text, IsOk());
      all.push_back(*text);
      all_expected.push_back(c["test_json"].dump());
      EXPECT_GOLDEN(golden_case, all, Pointwise(AreTheSame(), all_expected));
      continue;
    }
    const auto scalars =
        io::ReadFile(*env, io::JoinPath(log_dir, "vis_data/scalars.json"));
    ASSERT_THAT(scalars, IsOk());
    const std::vector<std::string> ours =
        absl::StrSplit(*scalars, '\n', absl::SkipEmpty());
    const std::vector<std::string> theirs =
        absl::StrSplit(expected_records, '\n', absl::SkipEmpty());
    ASSERT_EQ(ours.size(), theirs.size()) << *scalars;
    all.insert(all.end(), ours.begin(), ours.end());
    all_expected.insert(all_expected.end(), theirs.begin(), theirs.end());
    // To the letter, but for the mean, whose last digits depend on the order of
    // a sum.
    const RE2 mean("\"(loss|loss_all)\": [-0-9.]+");
    std::string first = ours[0];
    std::string golden_first = c["json_first_raw"];
    RE2::GlobalReplace(&first, mean, "\\1");
    RE2::GlobalReplace(&golden_first, mean, "\\1");
    EXPECT_EQ(first, golden_first);
    const auto copy = io::ReadFile(
        *env,
        io::JoinPath(log_dir, absl::StrCat("vis_data/", timestamp, ".json")));
    ASSERT_THAT(copy, IsOk());
    EXPECT_EQ(*copy, *scalars);
    EXPECT_GOLDEN(golden_case, all, Pointwise(AreTheSame(), all_expected));
  }
  EXPECT_EQ(cases, 16u);
  EXPECT_EQ(differences, Differences().size());
}

}  // namespace
}  // namespace grapnel
