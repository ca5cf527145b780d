// Which checkpoints are written and deleted, and what a run goes on from:
// golden/checkpoint_epoch.json, checkpoint_iter.json, checkpoint_resume.json,
// checkpoint_args.json and what edge.json says of checkpoints.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/data/sample.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.h"
#include "grapnel/hooks/early_stopping/early_stopping_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/metric_rule.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_run.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

// "+epoch_1" for one that was written, "-epoch_1" for one that was deleted.
using Operations = std::vector<std::string>;

std::string Stem(const std::string& file) {
  return std::string(absl::StripSuffix(file, ".pth"));
}

// -------------------------------------------------- what the golden file says

Operations GoldenOperations(const Json& phase) {
  Operations operations;
  for (const Json& operation : phase["ops"]) {
    operations.push_back(absl::StrCat(operation[0] == "write" ? "+" : "-",
                                      Stem(operation[1].get<std::string>())));
  }
  return operations;
}

// A best one that is written: "+best_acc_epoch_5".
bool IsBestWrite(const std::string& operation) {
  return absl::StartsWith(operation, "+best_");
}

// c4: a new best does not force a regular save. Those are the writes of a
// regular checkpoint, perhaps with a deletion that makes room for it, that come
// behind a best one of the same epoch or iteration.
Operations WithoutForced(const Operations& golden,
                         std::set<std::string>* forced) {
  Operations ours;
  std::string best;
  for (const std::string& operation : golden) {
    if (IsBestWrite(operation)) best = operation;
    if (operation[0] == '+' && !IsBestWrite(operation) &&
        absl::EndsWith(best, absl::StrCat("_", operation.substr(1)))) {
      forced->insert(operation.substr(1));
      continue;
    }
    ours.push_back(operation);
  }
  return ours;
}

// c2: what is to go goes after the new one is written, and not at all if the
// new one has its name.
Operations WriteFirst(const Operations& golden) {
  Operations ours = golden;
  for (size_t i = 0; i + 1 < ours.size(); ++i) {
    if (ours[i][0] == '+' || ours[i + 1][0] == '-') continue;
    if (ours[i].substr(1) == ours[i + 1].substr(1)) {
      ours.erase(ours.begin() + static_cast<ptrdiff_t>(i));
    } else {
      std::swap(ours[i], ours[i + 1]);
      ++i;
    }
  }
  return ours;
}

// ------------------------------------------------------ where ours is special

// Differences that the rules above and many cases share; all are in
// docs/from_mmengine.md, section 3.
constexpr char kWriteFirst[] = "c2: written first, then deleted";
constexpr char kNotForced[] = "c4: a new best forces no regular save";
constexpr char kBestIsWhole[] = "c5: the best ones have the optimizer too";

struct Outcome {
  std::string operations;
  int64_t epoch;
  int64_t iter;
};

struct Difference {
  std::string why;                   // Besides those above.
  std::map<size_t, Outcome> phases;  // Those that no rule above gives.
};

const std::map<std::string, Difference>& Differences() {
  static const auto& kDifferences = *new std::map<std::string, Difference>{
      {"best_forced_save_enters_rotation",
       {"no forced save takes a place in the rotation",
        {{0,
          {"+best_acc_epoch_1 +epoch_2 +best_acc_epoch_2 -best_acc_epoch_1 "
           "+best_acc_epoch_3 -best_acc_epoch_2 +epoch_4 +best_acc_epoch_5 "
           "-best_acc_epoch_3 +epoch_6 -epoch_2",
           6, 24}}}}},
      {"published_unset_best_slot",
       {"c6: the metric that never improved is skipped",
        {{0,
          {"+epoch_1 +best_acc_epoch_1 +epoch_2 +epoch_2-<sha8> "
           "+best_acc_epoch_1-<sha8>",
           2, 8}}}}},
      {"resume_from_older",
       {"the best of the newer run, 0.4, is known and not beaten",
        {{1, {"+epoch_4", 4, 16}}}}},
      {"resume_one_to_two_indicators",
       {"the best of before, 0.9, is known and not beaten",
        {{1, {"+epoch_3 +best_loss_epoch_3", 3, 12}}}}},
      {"resume_keep_after_unlimited",
       {"those of before the limit count too",
        {{1,
          {"-epoch_1 +epoch_4 -epoch_2 +epoch_5 -epoch_3 +epoch_6 -epoch_4", 6,
           24}}}}},
      {"resume_dangling_pointer",
       {"c20: goes on from epoch_1", {{1, {"+epoch_2 +epoch_3", 3, 12}}}}},
      {"iter_ckpt_epoch_loop_mid",
       {"c12: goes on inside the epoch", {{1, {"+iter_9 +iter_12", 3, 12}}}}},
      {"iter_ckpt_epoch_loop_boundary",
       {"c12: the epoch that is done isn't done again",
        {{1, {"+iter_8 +iter_12", 3, 12}}}}},
      {"early_stop_no_last",
       {"c19: the stop is saved", {{0, {"+epoch_3", 3, 12}}}}},
  };
  return kDifferences;
}

// Errors that are errors in ours too.
const std::map<std::string, std::string>& Errors() {
  static const auto& kErrors = *new std::map<std::string, std::string>{
      {"best_auto_uninferable", "the name \"FID\" doesn't tell"},
      {"best_missing_metric", "no metric \"acc\", there are mIoU"},
      {"crash_mid_epoch", "simulated crash"},
      {"crash_iter_loop", "simulated crash"},
      {"iter_ckpt_epoch_loop_mid", "simulated crash"},
      {"iter_ckpt_epoch_loop_boundary", "simulated crash"},
  };
  return kErrors;
}

// ------------------------------------------------------------- what ours does

class Crash : public Hook {
 public:
  explicit Crash(int64_t after) : after_(after) {}
  absl::string_view name() const override { return "crash"; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (run.iter() + 1 < after_) return absl::OkStatus();
    return absl::AbortedError("simulated crash");
  }

 private:
  const int64_t after_;
};

// "epoch_2-<sha8>" for "epoch_2-0123abcd".
std::string WithoutDigest(std::string name) {
  if (name.size() < 9 || name[name.size() - 9] != '-') return name;
  for (size_t i = name.size() - 8; i < name.size(); ++i) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(name[i]))) return name;
  }
  return name.replace(name.size() - 8, 8, "<sha8>");
}

// A checkpoint is written when it gets its name, and deleted when it loses it.
Operations CheckpointOperations(const io::FaultInjectionEnv& env) {
  Operations operations;
  std::set<std::string> made;  // Directories: what is renamed may be a file.
  for (const std::string& line : env.operations()) {
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, "mkdir ")) made.emplace(rest);
    if (!absl::ConsumePrefix(&rest, "rename ")) continue;
    const std::vector<std::string> paths = absl::StrSplit(rest, " -> ");
    const std::string from = io::Basename(paths[0]);
    const std::string to = io::Basename(paths[1]);
    if (absl::StartsWith(to, ".trash-")) {
      operations.push_back(absl::StrCat("-", WithoutDigest(from)));
    } else if (absl::StartsWith(from, ".tmp-") && made.count(paths[0]) > 0) {
      operations.push_back(absl::StrCat("+", WithoutDigest(to)));
    }
  }
  return operations;
}

// The config of a golden run in the form that CreateGoldenRunner takes.
Json RunConfig(const Json& phase) {
  Json config = phase["config"];
  config["n_train"] = phase["n_train"];
  if (!config.contains("metrics")) return config;
  config["n_val"] = 1;
  if (config.contains("metric_pos")) {
    config["metrics"].erase(
        config["metrics"].begin(),
        config["metrics"].begin() + config["metric_pos"].get<int>());
  }
  for (Json& values : config["metrics"]) {
    for (Json& value : values) {
      // "nan", or null, which ours does not have.
      if (!value.is_number()) value = std::nan("");
    }
  }
  return config;
}

absl::StatusOr<std::unique_ptr<Runner>> CreateRunner(const Json& config,
                                                     RunnerOptions options) {
  if (config.contains("crash_after_iter")) {
    options.hooks.push_back(Schedule(
        std::make_unique<Crash>(config["crash_after_iter"].get<int64_t>())));
  }
  if (config.contains("hooks")) {
    const Json& stopping = config["hooks"][0];
    hooks::v1::EarlyStoppingHookConfig hook_config;
    hook_config.set_monitor(stopping["monitor"]);
    hook_config.set_patience(stopping["patience"]);
    hook_config.set_min_delta(stopping["min_delta"]);
    GRAPNEL_ASSIGN_OR_RETURN(auto hook, EarlyStoppingHook::Create(hook_config));
    options.hooks.push_back(Schedule(std::move(hook)));
  }
  return CreateGoldenRunner(config, std::move(options));
}

// The name in /run/last_checkpoint, "" if there is none.
std::string LastCheckpoint(io::Env& env) {
  const auto path = io::ReadFile(env, "/run/last_checkpoint");
  return path.ok() ? io::Basename(*path) : "";
}

// Ours makes a validation that was due at a checkpoint before it goes on from
// there. It then gives what it gave in the phase before; of metrics that were
// not asked for there, NaN. True if there is one.
bool AddDueValidation(const Json& before, io::Env& disk, Json* config) {
  if (!config->contains("resume") || !config->contains("metrics")) return false;
  const std::string name = config->contains("load_from")
                               ? Stem((*config)["load_from"])
                               : LastCheckpoint(disk);
  const auto manifest = io::ReadManifest(disk, absl::StrCat("/run/", name));
  EXPECT_THAT(manifest, IsOk());
  const io::v1::Progress& progress = manifest->progress();
  if (!progress.validation_pending()) return false;
  Json values = (*config)["metrics"][0];
  for (Json& value : values) value = std::nan("");
  values.update(before["metrics"][progress.epoch() - 1]);
  (*config)["metrics"].insert((*config)["metrics"].begin(), values);
  return true;
}

struct Result {
  absl::Status status;
  Operations operations;
  int64_t epoch = 0;
  int64_t iter = 0;
};

Result RunPhase(const Json& config, io::Env& disk) {
  if (config.contains("delete")) {
    for (const Json& file : config["delete"]) {
      const std::string name = file;
      EXPECT_THAT(
          io::DeleteRecursively(disk, absl::StrCat("/run/", Stem(name))),
          IsOk());
    }
  }
  io::FaultInjectionEnv env(disk, "/");
  const FakeClock clock;
  MemoryRunLog log;
  RunnerOptions options;
  options.env = &env;
  options.clock = &clock;
  options.log = &log;
  Result result;
  const auto runner = CreateRunner(config, std::move(options));
  result.status = runner.status();
  if (!runner.ok()) return result;
  result.status = (*runner)->Train();
  result.operations = CheckpointOperations(env);
  result.epoch = (*runner)->context().epoch();
  result.iter = (*runner)->context().iter();
  return result;
}

// A phase in a line; one that fails ends nowhere.
std::string Summary(const Operations& operations, bool fails, int64_t epoch,
                    int64_t iter, const std::string& last_checkpoint) {
  return absl::StrCat(
      absl::StrJoin(operations, " "),
      fails ? "; fails"
            : absl::StrCat("; ends at epoch ", epoch, ", iteration ", iter),
      "; last_checkpoint: ", last_checkpoint);
}

std::string NewestRegular(const Operations& operations, std::string newest) {
  for (const std::string& operation : operations) {
    if (operation[0] == '+' && !IsBestWrite(operation) &&
        !absl::StrContains(operation, "<sha8>")) {
      newest = operation.substr(1);
    }
  }
  return newest;
}

// What one checkpoint holds, against what MMEngine's of that name does.
void CheckContents(const std::string& name, const Json& golden,
                   const Json& config, bool forced, io::Env& env) {
  SCOPED_TRACE(name);
  const auto read = io::ReadCheckpoint(env, absl::StrCat("/run/", name));
  if (forced && !read.ok()) return;  // c4.
  ASSERT_THAT(read, IsOk());
  const auto state = ReadRunState(*read);
  ASSERT_THAT(state, IsOk());
  const Json& keys = golden["keys"];
  const auto has = [&](const char* key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  const bool best = absl::StartsWith(name, "best_");
  // c5: the best ones are complete.
  EXPECT_EQ(read->FindSection("optimizer") != nullptr,
            best || has("optimizer"));
  EXPECT_EQ(state->has_optim_wrapper(), best || has("optimizer"));
  EXPECT_EQ(state->param_schedulers_size() > 0, has("param_schedulers"));

  int64_t epoch = golden["epoch"];
  // One epoch in an iteration loop, and it isn't counted; and what was written
  // before its epoch was counted isn't written again (c4).
  const bool by_iter =
      config["ckpt"].contains("by_epoch") && !config["ckpt"]["by_epoch"];
  if (config["train_cfg"]["by_epoch"] == false) epoch = 0;
  if (by_iter && forced) --epoch;
  EXPECT_EQ(read->manifest().progress().epoch(), epoch);
  EXPECT_EQ(read->manifest().progress().iter(), golden["iter"]);

  hooks::v1::CheckpointHookState hook;
  for (const auto& saved : state->hooks()) {
    if (saved.name() == "checkpoint") {
      ASSERT_TRUE(saved.state().UnpackTo(&hook));
    }
  }
  const Json& hub = golden["hub"];
  if (hub.contains("keep_ckpt_ids")) {
    std::vector<std::string> kept;
    for (const Json& id : hub["keep_ckpt_ids"]) {
      kept.push_back(absl::StrCat("epoch_", id.get<int>()));
    }
    // c2: the one that has to go was still there.
    ASSERT_EQ(hook.kept_size(), static_cast<int>(kept.size()) + 1);
    EXPECT_EQ(
        std::vector<std::string>(hook.kept().begin() + 1, hook.kept().end()),
        kept);
  }
  if (!best) {
    EXPECT_EQ(hook.last(), name);
  }
  if (best) {
    ASSERT_GE(hook.best_size(), 1);
    EXPECT_EQ(hook.best(0).score(), hub["best_score"].get<double>());
    EXPECT_EQ(hook.best(0).name(), name);
  }
}

class CheckpointPhasesTest : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(
    , CheckpointPhasesTest,
    testing::Values("checkpoint_epoch", "checkpoint_iter", "checkpoint_resume"),
    [](const auto& info) {
      std::string name;
      for (const absl::string_view word : absl::StrSplit(info.param, '_')) {
        absl::StrAppend(&name, std::string(1, absl::ascii_toupper(word[0])),
                        word.substr(1));
      }
      return name;
    });

TEST_P(CheckpointPhasesTest, AreMmenginesButForStatedDifferences) {
  const Json golden = ReadGolden(GetParam());
  for (const Json& c : golden["cases"]) {
    const std::string name = c["name"];
    SCOPED_TRACE(name);
    const auto difference = Differences().find(name);
    std::set<std::string> reasons;
    ASSERT_FALSE(c["phases"].empty());
    std::vector<std::string> phases, expected_phases;
    io::MemEnv disk;
    std::string newest;
    std::set<std::string> forced;
    for (size_t i = 0; i < c["phases"].size(); ++i) {
      SCOPED_TRACE(absl::StrCat("phase ", i));
      const Json& phase = c["phases"][i];
      Json config = RunConfig(phase);
      if (i > 0 &&
          AddDueValidation(c["phases"][i - 1]["config"], disk, &config)) {
        reasons.insert("the validation that was due is made first");
      }
      const Operations theirs = GoldenOperations(phase);
      const Operations unforced = WithoutForced(theirs, &forced);
      Operations expected = WriteFirst(unforced);
      if (unforced != theirs) reasons.insert(kNotForced);
      if (expected != unforced) reasons.insert(kWriteFirst);
      bool fails = phase.contains("raised");
      int64_t epoch = fails ? 0 : phase["final"]["epoch"].get<int64_t>();
      int64_t iter = fails ? 0 : phase["final"]["iter"].get<int64_t>();
      if (difference != Differences().end()) {
        const auto ours = difference->second.phases.find(i);
        if (ours != difference->second.phases.end()) {
          expected = absl::StrSplit(ours->second.operations, ' ');
          epoch = ours->second.epoch;
          iter = ours->second.iter;
          fails = false;
        }
      }

      const Result result = RunPhase(config, disk);
      if (fails) {
        ASSERT_EQ(Errors().count(name), 1u);
        EXPECT_THAT(result.status.message(), HasSubstr(Errors().at(name)));
      } else {
        EXPECT_THAT(result.status, IsOk());
      }
      newest = NewestRegular(expected, newest);
      phases.push_back(Summary(result.operations, !result.status.ok(),
                               result.epoch, result.iter,
                               LastCheckpoint(disk)));
      expected_phases.push_back(Summary(expected, fails, epoch, iter, newest));
      // And theirs, unless a difference is about it.
      if (reasons.count(kNotForced) == 0 && difference == Differences().end()) {
        const Json& last = phase["events"].back()["last_checkpoint"];
        EXPECT_EQ(newest, last.is_null()
                              ? ""
                              : Stem(io::Basename(last.get<std::string>())));
      }
    }
    if (c.contains("inspect")) {
      for (const auto& [file, contents] : c["inspect"].items()) {
        CheckContents(Stem(file), contents, c["phases"].back()["config"],
                      forced.count(Stem(file)) > 0, disk);
        if (absl::StartsWith(file, "best_")) reasons.insert(kBestIsWhole);
      }
    }
    if (difference != Differences().end()) {
      reasons.insert(difference->second.why);
    }
    if (name == "out_dir") {
      reasons.insert("last_checkpoint is relative to work_dir");
    }
    EXPECT_GOLDEN(
        GoldenCase(absl::StrCat(GetParam(), ".json"),
                   absl::StrCat("cases/", name), absl::StrJoin(reasons, "; ")),
        phases, Eq(expected_phases));
  }
}

TEST(CheckpointDifferencesTest, NoDifferenceIsStatedInVain) {
  std::set<std::string> names;
  size_t phases = 0;
  for (const char* file :
       {"checkpoint_epoch", "checkpoint_iter", "checkpoint_resume"}) {
    const Json golden = ReadGolden(file);
    for (const Json& c : golden["cases"]) {
      names.insert(c["name"]);
      phases += c["phases"].size();
    }
  }
  for (const auto& [name, difference] : Differences()) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
  for (const auto& [name, error] : Errors()) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
  EXPECT_EQ(phases, 81u);
}

// ---------------------------------------------------------------- arguments

absl::Status Make(const std::string& text) {
  hooks::v1::CheckpointHookConfig config;
  GRAPNEL_RETURN_IF_ERROR(ParseTextProto(text, &config));
  return CheckpointHook::Create(config).status();
}

TEST(CheckpointArgsTest, BadOnesAreRefusedByName) {
  struct Ours {
    std::string config;
    std::string error;  // "" if it is none.
    std::string difference;
  };
  // In the order of the golden file's.
  const std::vector<Ours> all = {
      {"save_best: { acc: 'acc' }", "Expected string", ""},
      {"save_best: ['acc']", "", "a list is the only form"},
      {"save_best: ['auto', 'acc']", "save_best: \"auto\" must be the only one",
       ""},
      {"save_best: ['a', 'a']", "save_best: must be distinct", ""},
      {"save_best: ['acc'] rule: 1", "Expected string", ""},
      {"save_best: ['acc'] rule: ['greater', 'less']",
       "rule: must be one, or one for each of save_best (1), has 2", ""},
      {"save_best: 'acc' rule: 'bigger'",
       "rule: must be \"greater\" or \"less\", is \"bigger\"", ""},
      {"save_best: 'FID'",
       "rule: must be set, \"greater\" or \"less\": the name \"FID\"", ""},
      {"save_begin: -1", "save_begin: must be >= 0, is -1", ""},
      {"published_keys: 1", "Expected string", ""},
      {"published_keys: ['a', 'a']", "published_keys: must be distinct", ""},
      {"file_client_args: { backend: 'disk' }",
       "has no field named \"file_client_args\"",
       "there is no such option; Env is the backend"},
      {"rule: ['greater', 'less']", "rule: must be one", ""},
      {"interval: '2'", "Expected integer", "the type is checked"},
  };
  const Json golden = ReadGolden("checkpoint_args");
  ASSERT_EQ(all.size(), golden["errors"].size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Ours& ours = all[i];
    SCOPED_TRACE(absl::StrCat(golden["errors"][i].dump(), " ", ours.config));
    const bool differs =
        golden["errors"][i].contains("ok") != ours.error.empty();
    EXPECT_TRUE(!differs || !ours.difference.empty());
    const GoldenCase golden_case("checkpoint_args.json",
                                 absl::StrCat("errors/", i), ours.difference);
    const absl::Status status = Make(ours.config);
    if (ours.error.empty()) {
      EXPECT_GOLDEN(golden_case, status, IsOk());
    } else {
      EXPECT_GOLDEN(
          golden_case, status,
          StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(ours.error)));
    }
  }
}

std::string Inferred(const std::string& metric, const MetricKeys& keys) {
  const auto inferred = InferMetricRule(metric, keys);
  return inferred ? std::string(MetricRuleName(inferred->rule)) : "ValueError";
}

TEST(CheckpointArgsTest, RuleIsInferredFromWholeWords) {
  // c23, by metric: golden's, then ours.
  const std::map<std::string, std::pair<std::string, std::string>> different = {
      {"bbox_mAP_50", {"greater", "ValueError"}},
      {"loss_cls", {"less", "ValueError"}},
      {"topk_loss", {"greater", "less"}},
      {"map_loss", {"greater", "less"}},
      {"macro_auc_loss", {"greater", "less"}},
      {"stop_rate", {"greater", "ValueError"}},
  };
  const Json golden = ReadGolden("checkpoint_args");
  ASSERT_FALSE(golden["inferred_rule"].empty());
  size_t differences = 0;
  Json inferred, all_expected;
  for (const auto& [metric, rule] : golden["inferred_rule"].items()) {
    std::string expected = rule;
    const auto found = different.find(metric);
    if (found != different.end()) {
      ++differences;
      EXPECT_EQ(expected, found->second.first);
      expected = found->second.second;
    }
    inferred[metric] = Inferred(metric, MetricKeys());
    all_expected[metric] = expected;
    EXPECT_EQ(Make(absl::StrCat("save_best: '", metric, "'")).ok(),
              expected != "ValueError")
        << metric;
  }
  EXPECT_EQ(differences, different.size());
  EXPECT_GOLDEN(GoldenCase("checkpoint_args.json", "inferred_rule",
                           "c23: by the whole name or its last component"),
                inferred, Eq(all_expected));

  MetricKeys keys;
  keys.greater = {"PSNR"};
  keys.less = {"FID"};
  const Json& custom = golden["inferred_rule_with_custom_keys"]["result"];
  ASSERT_FALSE(custom.empty());
  Json with_keys;
  for (const auto& [metric, rule] : custom.items()) {
    with_keys[metric] = Inferred(metric, keys);
  }
  EXPECT_GOLDEN(
      GoldenCase("checkpoint_args.json", "inferred_rule_with_custom_keys"),
      with_keys, Eq(custom));
}

// --------------------------------------------------------------------- edges

GoldenCase Edge(const std::string& name, const std::string& difference = "") {
  return GoldenCase("edge.json", absl::StrCat("cases/", name), difference);
}

// Notes rates and data, iteration by iteration.
class Recorder : public Hook {
 public:
  absl::string_view name() const override { return "recorder"; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override {
    rates.push_back(*run.optim_wrapper()->scheduled_groups().option(0, "lr"));
    seen.push_back({run.epoch(), run.iter(), info.batch_idx,
                    info.batch->inputs[0].item<int64_t>()});
    return absl::OkStatus();
  }
  std::vector<double> rates;
  std::vector<std::vector<int64_t>> seen;
};

class CheckpointEdgeTest : public testing::Test {
 protected:
  std::unique_ptr<Runner> Create(const Json& config) {
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    auto recorder = std::make_unique<Recorder>();
    recorder_ = recorder.get();
    options.hooks.push_back(Schedule(std::move(recorder)));
    auto runner = CreateRunner(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  Json Golden(const std::string& name) { return ReadGoldenCase("edge", name); }

  std::vector<std::string> Checkpoints(const std::string& dir) {
    std::vector<std::string> names;
    const auto all = env_.ListDir(dir);
    EXPECT_THAT(all, IsOk());
    for (const std::string& name : *all) {
      if (env_.FileExists(absl::StrCat(dir, "/", name, "/manifest.pb"))) {
        names.push_back(name);
      }
    }
    return names;
  }

  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
  Recorder* recorder_ = nullptr;
};

Json TwoEpochs() { return {{"by_epoch", true}, {"max_epochs", 2}}; }

TEST_F(CheckpointEdgeTest, ValidationAloneSavesNothingAndIsNoError) {
  const std::vector<std::pair<std::string, Json>> cases = {
      {"val() alone with one save_best indicator", Json::array({"acc"})},
      {"val() alone with two save_best indicators",
       Json::array({"acc", "loss"})}};
  for (const auto& [name, indicators] : cases) {
    EXPECT_TRUE(Golden(name).contains("raised"));
    const auto runner =
        Create({{"train_cfg", TwoEpochs()},
                {"n_train", 1},
                {"n_val", 1},
                {"metrics", Json::array({{{"acc", 0.5}, {"loss", 0.5}}})},
                {"ckpt", {{"save_best", indicators}}}});
    ASSERT_THAT(runner->Val(), IsOk());
    EXPECT_GOLDEN(Edge(name, "c7: ignored outside training"),
                  Checkpoints("/run"), IsEmpty());
  }
}

TEST_F(CheckpointEdgeTest, OutDirIsJoinedOnce) {
  const std::string name = "CheckpointHook.out_dir after train() twice";
  EXPECT_EQ(Golden(name)["observed"], "out/exp/exp");
  const auto runner = Create({{"train_cfg", TwoEpochs()},
                              {"n_train", 1},
                              {"ckpt", {{"out_dir", "out"}}}});
  ASSERT_THAT(runner->Train(), IsOk());
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_FALSE(env_.FileExists("/out/run/run"));
  EXPECT_GOLDEN(Edge(name, "c3: joined once"), Checkpoints("/out/run"),
                ElementsAre("epoch_2"));
}

TEST_F(CheckpointEdgeTest, SecondTrainDoesNothing) {
  const auto runner = Create(
      {{"train_cfg", TwoEpochs()}, {"n_train", 1}, {"ckpt", Json::object()}});
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_THAT(recorder_->seen, SizeIs(2));
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_GOLDEN(Edge("train() twice on one runner"), recorder_->seen,
                SizeIs(2));
}

TEST_F(CheckpointEdgeTest, IterationLoopIsOneEpoch) {
  Json config = {{"train_cfg", {{"by_epoch", false}, {"max_iters", 4}}},
                 {"n_train", 4},
                 {"sampler", "InfiniteSampler"},
                 {"ckpt", {{"interval", 5}}}};
  ASSERT_THAT(Create(config)->Train(), IsOk());
  EXPECT_EQ(LastCheckpoint(env_), "epoch_1");
  EXPECT_GOLDEN(Edge("epoch checkpoint interval 5 in an iteration loop"),
                Checkpoints("/run"), ElementsAre("epoch_1"));

  config["train_cfg"]["max_iters"] = 8;
  config["resume"] = true;
  const auto runner = Create(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().iter(), 8);
  EXPECT_EQ(runner->context().epoch(), 0);
  EXPECT_GOLDEN(Edge("epoch checkpoint resumed in an iteration loop",
                     "the one epoch stays the first: epoch_1 is replaced"),
                Checkpoints("/run"), ElementsAre("epoch_1"));
}

TEST_F(CheckpointEdgeTest, RateGoesOnAfterTheBest) {
  const std::string name = "lr after resuming from a best file";
  EXPECT_EQ(Golden(name)["observed"]["lr"], Json::array({0.01, 0.005}));
  Json config = {
      {"train_cfg", {{"by_epoch", true}, {"max_epochs", 3}}},
      {"n_train", 1},
      {"n_val", 1},
      {"metrics",
       Json::array({{{"acc", 0.1}}, {{"acc", 0.9}}, {{"acc", 0.3}}})},
      {"sched",
       Json::array({{{"type", "StepLR"}, {"step_size", 1}, {"gamma", 0.5}}})},
      {"ckpt", {{"interval", 1}, {"save_best", "acc"}}}};
  ASSERT_THAT(Create(config)->Train(), IsOk());
  config["train_cfg"]["max_epochs"] = 4;
  config["resume"] = true;
  config["load_from"] = "best_acc_epoch_2.pth";
  const auto runner = Create(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), Golden(name)["observed"]["epoch"]);
  EXPECT_EQ(runner->context().iter(), Golden(name)["observed"]["iter"]);
  EXPECT_GOLDEN(Edge(name, "c5: the best is complete"), recorder_->rates,
                ElementsAre(0.0025, 0.00125));
}

TEST_F(CheckpointEdgeTest, GoesOnWithoutAnOptimizersState) {
  Json config = {{"train_cfg", TwoEpochs()},
                 {"n_train", 1},
                 {"ckpt", {{"interval", 1}, {"save_optimizer", false}}}};
  ASSERT_THAT(Create(config)->Train(), IsOk());
  config["train_cfg"]["max_epochs"] = 3;
  config["resume"] = true;
  const auto runner = Create(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_THAT(absl::StrJoin(log_.messages(RunLog::Level::kWarning), "\n"),
              HasSubstr("the checkpoint was saved without its optimizer"));
  EXPECT_GOLDEN(Edge("resume without optimizer"), runner->context().epoch(),
                Eq(3));
}

TEST_F(CheckpointEdgeTest, RefusesWhatIsNoStateOfARun) {
  Json config = {{"train_cfg", TwoEpochs()},
                 {"n_train", 1},
                 {"ckpt", {{"interval", 1}, {"save_last", false}}}};
  ASSERT_THAT(Create(config)->Train(), IsOk());
  auto bare = io::ReadCheckpoint(env_, "/run/epoch_1");
  ASSERT_THAT(bare, IsOk());
  bare->blobs.clear();
  ASSERT_THAT(io::WriteCheckpoint(env_, "/run", "bare", *bare), IsOk());
  const auto create = [&] {
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    options.log = &log_;
    return CreateGoldenRunner(config, std::move(options)).status();
  };
  config["load_from"] = "bare.pth";
  EXPECT_GOLDEN(Edge("load_from a bare state_dict"), create(), IsOk());
  config["resume"] = true;
  EXPECT_GOLDEN(Edge("resume without message_hub"), create(),
                StatusIs(absl::StatusCode::kDataLoss,
                         HasSubstr("resume: /run/bare: state.pb: is missing")));
  // Ours alone: a copy that was made to be passed on.
  bare->manifest().set_partial(true);
  ASSERT_THAT(io::WriteCheckpoint(env_, "/run", "part", *bare), IsOk());
  config["load_from"] = "part.pth";
  EXPECT_THAT(create(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 AllOf(StartsWith("resume: /run/part: "),
                                       HasSubstr("but not go on from it"))));
  config["load_from"] = "epoch_2.pth";
  ASSERT_THAT(env_.DeleteFile("/run/epoch_2/manifest.pb"), IsOk());
  EXPECT_GOLDEN(
      Edge("resume without meta"), create(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("manifest.pb")));
}

TEST_F(CheckpointEdgeTest, DataGoOnWhereTheyWere) {
  Json config = {{"train_cfg", {{"by_epoch", false}, {"max_iters", 6}}},
                 {"n_train", 4},
                 {"ckpt", {{"interval", 6}, {"by_epoch", false}}}};
  ASSERT_THAT(Create(config)->Train(), IsOk());
  config["train_cfg"]["max_iters"] = 10;
  config["resume"] = true;
  const auto runner = Create(config);
  ASSERT_THAT(runner->Train(), IsOk());
  const std::string name = "data order after iteration resume";
  const Json golden = Golden(name);
  std::vector<std::vector<int64_t>> expected;
  for (const Json& seen : golden["observed"]) {
    expected.push_back({0, seen[0].get<int64_t>(), seen[0].get<int64_t>(),
                        seen[1].get<int64_t>()});
  }
  EXPECT_GOLDEN(Edge(name), recorder_->seen, Eq(expected));
}

TEST_F(CheckpointEdgeTest, EpochGoesOnInItsMiddle) {
  const std::string name =
      "data order after mid-epoch resume in the epoch loop";
  EXPECT_EQ(Golden(name)["observed"]["final_iter"], 11);
  Json config = {{"train_cfg", TwoEpochs()},
                 {"n_train", 4},
                 {"ckpt", {{"interval", 3}, {"by_epoch", false}}},
                 {"crash_after_iter", 4}};
  EXPECT_THAT(Create(config)->Train(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("crash")));
  config.erase("crash_after_iter");
  config["resume"] = true;
  const auto runner = Create(config);
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().iter(), 8);
  EXPECT_GOLDEN(Edge(name, "c12: goes on at the stored position"),
                recorder_->seen,
                ElementsAre(ElementsAre(0, 3, 3, 4), ElementsAre(1, 4, 0, 1),
                            ElementsAre(1, 5, 1, 2), ElementsAre(1, 6, 2, 3),
                            ElementsAre(1, 7, 3, 4)));
}

}  // namespace
}  // namespace grapnel
