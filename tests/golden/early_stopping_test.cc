// EarlyStopping's decisions, validation by validation:
// golden/early_stopping.json.

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.pb.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/tests/golden/golden_report.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::testing::Eq;
using ::testing::Pair;
using Json = nlohmann::ordered_json;

constexpr char kFile[] = "early_stopping.json";

struct Decision {
  double best = 0;
  int64_t wait = 0;
  bool stop = false;
};

bool operator==(const Decision& a, const Decision& b) {
  return a.best == b.best && a.wait == b.wait && a.stop == b.stop;
}

void PrintTo(const Decision& decision, std::ostream* out) {
  *out << "{best " << decision.best << ", wait " << decision.wait
       << (decision.stop ? ", stop}" : "}");
}

// What ours does where it differs (docs/from_mmengine.md, c18), by case.
struct Difference {
  std::string why;
  std::vector<Decision> decisions;
};

const std::map<std::string, Difference>& Differences() {
  static const auto* const differences = new std::map<std::string, Difference>{
      {"flat_zero_delta",
       {"c18: a flat metric doesn't improve",
        {{0.5, 0, false}, {0.5, 1, false}, {0.5, 2, true}, {0.5, 3, true}}}},
      {"nan_unchecked",
       {"c18: a NaN is never the best",
        {{0.5, 0, false}, {0.5, 1, false}, {0.5, 2, true}, {0.5, 3, true}}}},
  };
  return *differences;
}

// "nan" and "inf" stand in quotes.
double Number(const Json& value) {
  if (!value.is_string()) return value.get<double>();
  return value == "nan" ? std::numeric_limits<double>::quiet_NaN()
                        : std::numeric_limits<double>::infinity();
}

absl::StatusOr<std::unique_ptr<EarlyStoppingHook>> CreateHook(
    const Json& args) {
  EarlyStoppingHook::Config config;
  for (const auto& [name, value] : args.items()) {
    if (name == "monitor") {
      config.set_monitor(value.get<std::string>());
    } else if (name == "rule") {
      config.set_rule(value.get<std::string>());
    } else if (name == "min_delta") {
      config.set_min_delta(value.get<double>());
    } else if (name == "strict") {
      config.set_strict(value.get<bool>());
    } else if (name == "check_finite") {
      config.set_check_finite(value.get<bool>());
    } else if (name == "patience") {
      config.set_patience(value.get<int64_t>());
    } else if (name == "stopping_threshold") {
      config.set_stopping_threshold(value.get<double>());
    } else {
      ADD_FAILURE() << "unknown argument " << name;
    }
  }
  return EarlyStoppingHook::Create(config);
}

TEST(EarlyStoppingGoldenTest, DecidesAsMmengine) {
  std::ifstream file("tests/golden/early_stopping.json");
  ASSERT_TRUE(file.good());
  const Json golden = Json::parse(file);
  size_t cases = 0, differences = 0;
  for (const Json& c : golden["cases"]) {
    const std::string name = c["name"];
    SCOPED_TRACE(name);
    ++cases;
    const auto different = Differences().find(name);
    std::vector<Decision> expected;
    if (different != Differences().end()) {
      ++differences;
      expected = different->second.decisions;
    } else {
      for (const Json& d : c["decisions"]) {
        expected.push_back({Number(d["best"]), d["wait"], d["stop"]});
      }
    }

    const auto hook = CreateHook(c["args"]);
    FakeRunContext run;
    std::vector<Decision> decisions;
    absl::Status status = hook.status();
    for (size_t i = 0; status.ok() && i < c["metrics"].size(); ++i) {
      const Json& value = c["metrics"][i];
      Metrics metrics = {{"other", 1.0}};
      if (value != "missing") {
        metrics.push_back({c["args"]["monitor"], Number(value)});
      }
      status = (*hook)->AfterValEpoch(run, metrics);
      if (!status.ok()) break;
      const auto& state = static_cast<const hooks::v1::EarlyStoppingHookState&>(
          *(*hook)->mutable_state());
      decisions.push_back({state.best(), state.wait(), !run.stopped.empty()});
    }
    // Whether there was an error, and the decisions until then.
    EXPECT_GOLDEN(
        GoldenCase(
            kFile, "cases/" + name,
            different == Differences().end() ? "" : different->second.why),
        std::make_pair(!status.ok(), decisions),
        Pair(c.contains("raised"), Eq(expected)))
        << status;
  }
  EXPECT_EQ(cases, 17u);
  EXPECT_EQ(differences, Differences().size());
}

}  // namespace
}  // namespace grapnel
