// Averages through whole runs, in MMEngine's numbers: golden/ema_hook.json, and
// the cases of golden/edge.json that are about averages.
//
// Files differ by design (c11): MMEngine's "state_dict" of a file holds the
// averaged weights and its "ema_state_dict" the raw ones; ours are sections
// that mean what they are called. What is read back from them follows.

#include "grapnel/hooks/ema/ema_hook.h"

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/TensorOperators.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tests/golden/golden_report.h"
#include "grapnel/tests/golden/golden_run.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Pointwise;

constexpr char kFile[] = "ema_hook.json";
constexpr char kSections[] =
    "c11: sections model (raw) and ema (averaged), not exchanged";

// w = [1, 2], with gradient i * [1, -1/2] for batch i; "run" counts training
// steps.
class EmaModel final : public Model {
 public:
  EmaModel()
      : start_(ops::tensor({1.0, 2.0}, at::kDouble)),
        gradient_(ops::tensor({1.0, -0.5}, at::kDouble)) {
    parameters_.push_back(
        {"w", ops::tensor({1.0, 2.0}, at::kDouble).set_requires_grad(true)});
    buffers_.push_back({"run", ops::zeros({1}, at::kDouble)});
  }

  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    losses->Add("loss", (batch.inputs.select(0, 0) *
                         ((parameters_[0].tensor - start_) * gradient_))
                            .sum());
    buffers_[0].tensor.add_(1);
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = batch.inputs;
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  const at::Tensor start_, gradient_;
  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

// Numbers in the golden file's form.
Json Numbers(const at::Tensor& tensor) {
  Json numbers = Json::array();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    numbers.push_back(tensor.flatten()[i].item<double>());
  }
  return numbers;
}

// Writes down what the golden rows hold. Acts after the EMA hook.
class Rows : public Hook {
 public:
  explicit Rows(EMAHook* ema) : ema_(ema) {}

  absl::string_view name() const override { return "rows"; }
  absl::Status BeforeTrain(RunContext& run) override {
    return Note(run, "before_train");
  }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override {
    return info.batch_idx == 0 ? Note(run, "before_train_iter")
                               : absl::OkStatus();
  }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    return Note(run, "after_train_iter");
  }
  absl::Status BeforeValIter(RunContext& run, const IterInfo&) override {
    return Note(run, "before_val_iter");
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    return Note(run, "after_val_epoch");
  }

  Json rows = Json::array();

 private:
  absl::Status Note(RunContext& run, const char* at) {
    Json row;
    row["at"] = at;
    row["epoch"] = run.epoch();
    row["iter"] = run.iter();
    row["w"] = Numbers(run.model().parameters()[0].tensor);
    if (run.optim_wrapper() != nullptr) {
      row["lr"] = Json::array(
          {*run.optim_wrapper()->scheduled_groups().option(0, "lr")});
    }
    if (ema_ != nullptr) {
      const auto average = ema_->AveragedWeights();
      if (!average.ok()) return average.status();
      row["ema_w"] = Numbers(*average->Find("w"));
      row["steps"] = ema_->steps();
      row["run"] = Numbers(run.model().buffers()[0].tensor);
      row["ema_run"] = Numbers(*average->Find("run"));
    }
    rows.push_back(std::move(row));
    return absl::OkStatus();
  }

  EMAHook* const ema_;
};

EMAHook::Config EmaConfig(const Json& args) {
  EMAHook::Config config;
  for (const auto& [name, value] : args.items()) {
    if (name == "momentum")
      config.set_momentum(value);
    else if (name == "interval")
      config.set_interval(value);
    else if (name == "update_buffers")
      config.set_update_buffers(value);
    else if (name == "begin_iter")
      config.set_begin_iter(value);
    else if (name == "begin_epoch")
      config.set_begin_epoch(value);
    else if (name == "strict_load")
      config.set_strict_load(value);
    else if (value == "StochasticWeightAverage")
      config.mutable_ema_type()->mutable_stochastic_weight_average();
    else
      ADD_FAILURE() << name;
  }
  return config;
}

// One run of a case.
struct Phase {
  Phase(const Json& config, io::Env* env) {
    RunnerOptions options;
    options.env = env;
    options.clock = &clock;
    options.log = &log;
    options.model = std::make_unique<EmaModel>();
    if (config.contains("ema")) {
      auto hook = EMAHook::Create(EmaConfig(config["ema"]));
      EXPECT_THAT(hook, IsOk());
      ema = hook->get();
      options.hooks.push_back(Schedule(*std::move(hook)));
    }
    auto observer = std::make_unique<Rows>(ema);
    rows = observer.get();
    options.hooks.push_back(Schedule(std::move(observer)));
    auto created = CreateGoldenRunner(config, std::move(options));
    EXPECT_THAT(created, IsOk());
    if (created.ok()) runner = *std::move(created);
  }

  at::Tensor w() { return runner->context().model().parameters()[0].tensor; }
  Json average() { return Numbers(*ema->AveragedWeights()->Find("w")); }

  FakeClock clock{absl::Milliseconds(250)};
  MemoryRunLog log;
  EMAHook* ema = nullptr;
  Rows* rows = nullptr;
  std::unique_ptr<Runner> runner;
};

Json EmaCase(const std::string& name) {
  const Json golden = ReadGoldenCase("ema_hook", name);
  EXPECT_FALSE(golden.is_null()) << name;
  return golden;
}

// The rows of a phase, as ours are.
Json ExpectedRows(const Json& phase) {
  Json rows = phase["rows"];
  for (Json& row : rows) {
    // MMEngine's average holds the model's own weights then; AveragedWeights
    // are the averaged ones, which the model has.
    if (row["at"] == "before_val_iter" && row.contains("ema_w")) {
      row["ema_w"] = row["w"];
      row["ema_run"] = row["run"];
    }
  }
  return rows;
}

// What there is to compare of a case, by what it is.
using Parts = std::map<std::string, Json>;

// Adds what one of our files holds: "epoch_1.pth: model: w".
void AddFile(io::Env& env, const std::string& file, Parts* parts) {
  const std::string name = file.substr(0, file.rfind('.'));
  SCOPED_TRACE(file);
  const auto contents = io::ReadCheckpoint(env, absl::StrCat("/run/", name));
  ASSERT_THAT(contents, IsOk());
  for (const char* const section : {"model", "ema"}) {
    const TensorMap* tensors = contents->FindSection(section);
    ASSERT_NE(tensors, nullptr) << section;
    for (const NamedTensor& tensor : *tensors) {
      (*parts)[absl::StrCat(file, ": ", section, ": ", tensor.name)] =
          Numbers(tensor.tensor);
    }
  }
  const auto state = ReadRunState(*contents);
  ASSERT_THAT(state, IsOk());
  for (const auto& hook : state->hooks()) {
    if (hook.name() != "ema") continue;
    hooks::v1::EMAHookState ema;
    ASSERT_TRUE(hook.state().UnpackTo(&ema));
    (*parts)[absl::StrCat(file, ": steps")] = ema.steps();
  }
}

// The same of the file that MMEngine wrote.
void AddGoldenFile(const std::string& file, const Json& contents,
                   Parts* parts) {
  for (const auto& [section, golden, prefix] :
       {std::tuple("model", "ema_state_dict", "module."),
        std::tuple("ema", "state_dict", "")}) {
    for (const char* const name : {"w", "run"}) {
      (*parts)[absl::StrCat(file, ": ", section, ": ", name)] =
          contents[golden][absl::StrCat(prefix, name)];
    }
  }
  (*parts)[absl::StrCat(file, ": steps")] = contents["ema_state_dict"]["steps"];
}

// Cases whose runs are MMEngine's, number for number; files by section.
TEST(EmaGoldenTest, RunsAreMMEngines) {
  int cases = 0;
  for (const char* const name :
       {"default_epoch", "begin_iter3", "begin_epoch2",
        "interval2_update_buffers", "resume", "uninterrupted_3",
        "resume_without_ema_in_ckpt", "swa"}) {
    SCOPED_TRACE(name);
    const Json golden = EmaCase(name);
    const auto env = std::make_unique<io::MemEnv>();
    Parts parts, expected;
    for (const Json& phase : golden["phases"]) {
      Phase run(phase["config"], env.get());
      ASSERT_NE(run.runner, nullptr);
      ASSERT_THAT(run.runner->Train(), IsOk());
      const std::string rows =
          absl::StrCat("phase ", expected.size(), ": rows");
      parts[rows] = run.rows->rows;
      expected[rows] = ExpectedRows(phase);
    }
    ASSERT_FALSE(golden["inspect"].empty());
    for (const auto& [file, contents] : golden["inspect"].items()) {
      AddFile(*env, file, &parts);
      AddGoldenFile(file, contents, &expected);
    }
    EXPECT_GOLDEN(GoldenCase(kFile, absl::StrCat("cases/", name), kSections),
                  parts, Pointwise(Eq(), expected));
    ++cases;
  }
  EXPECT_EQ(cases, 8);
}

TEST(EmaGoldenTest, LoadFromStartsWithTheTrainedWeightsAndANewAverage) {
  const Json golden = EmaCase("load_from_resets");
  const auto env = std::make_unique<io::MemEnv>();
  {
    Phase run(golden["phases"][0]["config"], env.get());
    ASSERT_THAT(run.runner->Train(), IsOk());
    EXPECT_EQ(run.rows->rows, ExpectedRows(golden["phases"][0]));
  }
  Phase run(golden["phases"][1]["config"], env.get());
  ASSERT_THAT(run.runner->Train(), IsOk());
  // MMEngine starts both from .969, the average in its state_dict.
  const Json& start = run.rows->rows[0];
  EXPECT_EQ(start["w"], golden["phases"][0]["rows"].back()["w"]);
  EXPECT_EQ(start["steps"], 0);
  EXPECT_EQ(start["run"], golden["phases"][1]["rows"][0]["run"]);
  const Json& last = run.rows->rows.back();
  EXPECT_EQ(last["steps"], golden["phases"][1]["rows"].back()["steps"]);
  // The same steps from another start: .94 - .01, then .93 - .02.
  EXPECT_NEAR(last["w"][0].get<double>(), 0.91, 1e-15);
  EXPECT_NEAR(last["ema_w"][0].get<double>(), 0.925, 1e-15);
  EXPECT_GOLDEN(
      GoldenCase(kFile, "cases/load_from_resets",
                 "c11: model is the raw weights; the average restarts there"),
      start["ema_w"], Eq(golden["phases"][0]["rows"].back()["w"]));
}

TEST(EmaGoldenTest, ResumeWithoutTheHookGoesOnWithTheTrainedWeights) {
  const Json golden = EmaCase("resume_hook_removed");
  const auto env = std::make_unique<io::MemEnv>();
  {
    Phase run(golden["phases"][0]["config"], env.get());
    ASSERT_THAT(run.runner->Train(), IsOk());
    EXPECT_EQ(run.rows->rows, ExpectedRows(golden["phases"][0]));
  }
  Phase run(golden["phases"][1]["config"], env.get());
  ASSERT_THAT(run.runner->Train(), IsOk());
  // MMEngine goes on from the average, .985: .975, .955. The hook's being there
  // must not change what is trained: as in the case "resume".
  Json expected = Json::array();
  const Json uninterrupted = EmaCase("uninterrupted_3");
  for (Json row : uninterrupted["phases"][0]["rows"]) {
    for (const char* key : {"ema_w", "steps", "run", "ema_run"}) row.erase(key);
    if (row["iter"] >= 2 && row["iter"] < 4 &&
        (row["at"] == "after_train_iter" || row["iter"] == 2)) {
      expected.push_back(row);
    }
  }
  Json& rows = run.rows->rows;
  ASSERT_EQ(rows.size(), 4);
  EXPECT_EQ(rows[0]["at"], "before_train");
  EXPECT_EQ(rows[0]["w"], expected[0]["w"]);
  rows.erase(rows.begin());
  EXPECT_GOLDEN(GoldenCase(kFile, "cases/resume_hook_removed",
                           "c11: goes on with the weights that were trained"),
                rows, Eq(expected));
}

TEST(EmaGoldenTest, AResumeIsOneHoweverItIsAskedFor) {
  const Json golden = EmaCase("resume_method_without_flag");
  const auto env = std::make_unique<io::MemEnv>();
  {
    Phase run(golden["phases"][0]["config"], env.get());
    ASSERT_THAT(run.runner->Train(), IsOk());
    EXPECT_EQ(run.rows->rows, ExpectedRows(golden["phases"][0]));
  }
  // Ours has no second way: a resume from a path is load_from with resume.
  Json config = golden["phases"][1]["config"];
  config["load_from"] = config["resume_method"];
  config["resume"] = true;
  Phase run(config, env.get());
  ASSERT_THAT(run.runner->Train(), IsOk());
  // The trained weights, the average and its steps come back; MMEngine has .969
  // twice, and 0.
  const Json& last = golden["phases"][0]["rows"].back();
  Parts restored, expected;
  for (const char* const key : {"w", "ema_w", "steps", "run", "ema_run"}) {
    restored[key] = run.rows->rows[0][key];
    expected[key] = last[key];
  }
  EXPECT_GOLDEN(
      GoldenCase(kFile, "cases/resume_method_without_flag",
                 "c9: a resume restores the average, its steps and the raw "
                 "weights"),
      restored, Eq(expected));
}

TEST(EmaGoldenTest, BeginningAfterTheEndIsRefused) {
  const Json golden = EmaCase("begin_iter_too_late");
  const auto env = std::make_unique<io::MemEnv>();
  Phase run(golden["phases"][0]["config"], env.get());
  EXPECT_GOLDEN(
      GoldenCase(kFile, "cases/begin_iter_too_late"), run.runner->Train(),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("hook \"ema\": BeforeTrain: begin_iter: must "
                         "be at most the run's 2 iterations, is 3")));
  EXPECT_EQ(run.rows->rows.size(), 0);
}

TEST(EmaGoldenTest, BadArgumentsAreRefused) {
  const Json golden = ReadGolden("ema_hook");
  int index = 0;
  for (const Json& c : golden["errors"]) {
    EXPECT_GOLDEN(GoldenCase(kFile, absl::StrCat("errors/", index)),
                  EMAHook::Create(EmaConfig(c["args"])),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr(c["args"].begin().key())))
        << c["args"];
    ++index;
  }
  EXPECT_EQ(index, 3);
}

// --------------------------------------------------------------------- edge

TEST(EmaGoldenTest, ValidationAfterTrainingUsesTheAverage) {
  const std::string name = "train() then val() on one runner with EMAHook";
  const Json edge = ReadGolden("edge");
  Json observed;
  for (const Json& c : edge["cases"]) {
    if (c["name"] == name) observed = c["observed"];
  }
  const auto env = std::make_unique<io::MemEnv>();
  Phase run(EmaCase("default_epoch")["phases"][0]["config"], env.get());
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_EQ(Numbers(run.w()), observed["raw"]);
  EXPECT_EQ(run.average(), observed["averaged"]);
  Json evaluated = Json::array();
  for (int i = 0; i < 2; ++i) {
    run.rows->rows.clear();
    ASSERT_THAT(run.runner->Val(), IsOk());
    ASSERT_EQ(run.rows->rows.size(), 2);
    evaluated.push_back(run.rows->rows[0]["w"]);
    EXPECT_EQ(run.rows->rows[1]["w"], observed["raw"]);
    EXPECT_EQ(run.rows->rows[1]["ema_w"], observed["averaged"]);
  }
  const Json& average = observed["val_inside_training"];
  EXPECT_GOLDEN(GoldenCase("edge.json", absl::StrCat("cases/", name),
                           "c1: set up once, so the average is evaluated"),
                evaluated, Eq(Json::array({average, average})));
}

// A checkpoint in /run with w = [5, 6], and with an average under `names`.
void WriteWeights(io::Env& env, const std::string& name,
                  const std::vector<std::string>& averages) {
  io::CheckpointContents contents;
  TensorMap model, average;
  ASSERT_THAT(model.Add("w", ops::tensor({5.0, 6.0}, at::kDouble)), IsOk());
  ASSERT_THAT(model.Add("run", ops::zeros({1}, at::kDouble)), IsOk());
  contents.sections.emplace_back("model", std::move(model));
  for (const std::string& tensor : averages) {
    ASSERT_THAT(average.Add(tensor, ops::tensor({7.0, 8.0}, at::kDouble)),
                IsOk());
  }
  if (!averages.empty()) {
    contents.sections.emplace_back("ema", std::move(average));
  }
  ASSERT_THAT(io::WriteCheckpoint(env, "/run", name, contents), IsOk());
}

TEST(EmaGoldenTest, WeightsAloneAreTheTrainedOnes) {
  const auto env = std::make_unique<io::MemEnv>();
  WriteWeights(*env, "weights", {});
  Json config = EmaCase("default_epoch")["phases"][0]["config"];
  config["load_from"] = "weights.pth";
  Phase run(config, env.get());
  ASSERT_THAT(run.runner->Train(), IsOk());
  EXPECT_EQ(run.rows->rows[0]["ema_w"], Json::array({5.0, 6.0}));
  EXPECT_EQ(run.rows->rows[0]["steps"], 0);
  EXPECT_GOLDEN(
      GoldenCase("edge.json", "cases/load_from a bare state_dict with EMAHook",
                 "c10: taken as the raw weights"),
      run.rows->rows[0]["w"], Eq(Json::array({5.0, 6.0})));
}

TEST(EmaGoldenTest, StrictLoadIsAboutNames) {
  const std::string name = "EMAHook strict_load with a missing key";
  const auto env = std::make_unique<io::MemEnv>();
  WriteWeights(*env, "other", {"v"});
  Json config = EmaCase("default_epoch")["phases"][0]["config"];
  config["load_from"] = "other.pth";
  std::vector<absl::Status> statuses;
  for (const bool strict : {false, true}) {
    config["ema"]["strict_load"] = strict;
    Phase run(config, env.get());
    statuses.push_back(run.runner->Val().status());
    if (!strict) {
      EXPECT_EQ(run.average(), Json::array({5.0, 6.0}));
    }
  }
  EXPECT_GOLDEN(
      GoldenCase("edge.json", absl::StrCat("cases/", name)), statuses,
      ElementsAre(IsOk(),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr("section \"ema\": the saved average is "
                                     "of another model: missing: w"))));
}

}  // namespace
}  // namespace grapnel
