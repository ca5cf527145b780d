// A training by the C API is the one that C++ does: the same bits, and the same
// events with the same things at hand, by one call, by steps and by a mixture.

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/sample.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/history_buffer.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/stage.h"
#include "grapnel/tests/capi/runs/digits_train.h"
#include "grapnel/tests/capi/runs/text.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kDataDir[] = "examples/digits";

std::string String(const text& from) {
  return from.data == nullptr ? "" : std::string(from.data, from.size);
}

void NoteMetrics(const Metrics& metrics, text* trace) {
  for (const auto& [name, value] : metrics) {
    if (const auto number = AsNumber(value)) {
      digits_note_number(trace, name.c_str(), *number);
    }
  }
}

// digits_train.c's hook.
class Tracer final : public Hook {
 public:
  explicit Tracer(text* trace) : trace_(trace) {}

  absl::string_view name() const override { return "tracer"; }
  Priority priority() const override { return Priority::kLowest; }

  absl::Status SaveState(std::string* bytes) override {
    bytes->assign(reinterpret_cast<const char*>(&events_), sizeof(events_));
    return absl::OkStatus();
  }
  absl::Status LoadState(const std::string& bytes) override {
    GRAPNEL_RET_CHECK(bytes.size() == sizeof(events_));
    std::memcpy(&events_, bytes.data(), bytes.size());
    digits_note_number(trace_, "loaded", static_cast<double>(events_));
    return absl::OkStatus();
  }

#define GRAPNEL_POINT(point)                     \
  absl::Status point(RunContext& run) override { \
    Note(Stage::k##point, run);                  \
    return absl::OkStatus();                     \
  }
  GRAPNEL_POINT(Setup)
  GRAPNEL_POINT(BeforeRun)
  GRAPNEL_POINT(BeforeTrain)
  GRAPNEL_POINT(AfterTrain)
  GRAPNEL_POINT(BeforeTrainEpoch)
  GRAPNEL_POINT(BeforeOptimizerStep)
  GRAPNEL_POINT(BeforeVal)
  GRAPNEL_POINT(AfterVal)
  GRAPNEL_POINT(BeforeValEpoch)
  GRAPNEL_POINT(BeforeTest)
  GRAPNEL_POINT(AfterTest)
  GRAPNEL_POINT(BeforeTestEpoch)
  GRAPNEL_POINT(BeforeExport)
  GRAPNEL_POINT(AfterExport)
#undef GRAPNEL_POINT

  absl::Status AfterRun(RunContext& run) override {
    Note(Stage::kAfterRun, run);
    run.log().Info("the tracer is done");
    return absl::OkStatus();
  }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    Note(Stage::kAfterTrainEpoch, run);
    if (run.epoch() + 1 != 2) return absl::OkStatus();
    SaveRequest request;
    request.name = digits_extra_save;
    return run.Save(std::move(request));
  }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& iter) override {
    return NoteBatch(Stage::kBeforeTrainIter, run, iter);
  }
  absl::Status BeforeValIter(RunContext& run, const IterInfo& iter) override {
    return NoteBatch(Stage::kBeforeValIter, run, iter);
  }
  absl::Status BeforeTestIter(RunContext& run, const IterInfo& iter) override {
    Note(Stage::kBeforeTestIter, run, &iter);
    return absl::OkStatus();
  }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& iter,
                              const LogVars& log_vars) override {
    Note(Stage::kAfterTrainIter, run, &iter);
    for (const NamedTensor& value : log_vars) {
      digits_note_number(trace_, value.name.c_str(),
                         value.tensor.item<double>());
    }
    const HistoryBuffer* const losses =
        run.message_hub().FindScalar("train/loss");
    GRAPNEL_RET_CHECK(losses != nullptr);
    GRAPNEL_ASSIGN_OR_RETURN(const double loss, losses->Current());
    digits_note_number(trace_, "train/loss", loss);
    run.message_hub().Scalar("train/twice").Add(2 * loss);
    return absl::OkStatus();
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo& iter,
                            const Predictions& predictions) override {
    Note(Stage::kAfterValIter, run, &iter);
    digits_note_number(trace_, "logit",
                       predictions.outputs[0][0].item<double>());
    return absl::OkStatus();
  }
  absl::Status AfterTestIter(RunContext& run, const IterInfo& iter,
                             const Predictions&) override {
    Note(Stage::kAfterTestIter, run, &iter);
    return absl::OkStatus();
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override {
    Note(Stage::kAfterValEpoch, run);
    NoteMetrics(metrics, trace_);
    return absl::OkStatus();
  }
  absl::Status AfterTestEpoch(RunContext& run, const Metrics&) override {
    Note(Stage::kAfterTestEpoch, run);
    return absl::OkStatus();
  }
  absl::Status AfterOptimizerStep(RunContext& run, const StepResult&) override {
    Note(Stage::kAfterOptimizerStep, run);
    for (const NamedTensor& parameter : run.model().parameters()) {
      if (parameter.name != "1.bias") continue;
      digits_note_number(trace_, "bias", parameter.tensor[0].item<double>());
    }
    return absl::OkStatus();
  }
  absl::Status AfterLoadCheckpoint(RunContext& run,
                                   io::CheckpointContents&) override {
    Note(Stage::kAfterLoadCheckpoint, run);
    return absl::OkStatus();
  }
  absl::Status AfterRestore(RunContext& run,
                            const io::CheckpointContents&) override {
    Note(Stage::kAfterRestore, run);
    return absl::OkStatus();
  }
  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents&) override {
    Note(Stage::kBeforeSaveCheckpoint, run);
    return absl::OkStatus();
  }
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint& saved) override {
    Note(Stage::kAfterSaveCheckpoint, run);
    digits_note_text(trace_, "saved", saved.name.c_str());
    return absl::OkStatus();
  }
  void OnError(RunContext& run, const absl::Status& error) override {
    Note(Stage::kOnError, run);
    digits_note_text(trace_, "error", std::string(error.message()).c_str());
  }

 private:
  void Note(Stage stage, RunContext& run, const IterInfo* iter = nullptr) {
    digits_event event;
    event.stage = StageSnakeName(stage);
    event.epoch = run.epoch();
    event.iter = run.iter();
    event.max_epochs = run.max_epochs();
    event.max_iters = run.max_iters();
    event.mode = static_cast<int>(run.mode());
    event.training = run.training() ? 1 : 0;
    event.batch_idx = iter == nullptr ? -1 : iter->batch_idx;
    event.num_batches = iter == nullptr ? -1 : iter->num_batches;
    digits_note(trace_, &event);
    ++events_;
  }

  absl::Status NoteBatch(Stage stage, RunContext& run, const IterInfo& iter) {
    Note(stage, run, &iter);
    const at::Tensor& inputs = iter.batch->inputs;
    const float* const pixels = inputs.const_data_ptr<float>();
    double sum = 0;
    for (int64_t i = 0; i < inputs.numel(); ++i) sum += pixels[i];
    digits_note_number(trace_, "size", static_cast<double>(inputs.size(0)));
    digits_note_number(trace_, "pixels", sum);
    digits_note_number(trace_, "label", iter.batch->targets[0].item<double>());
    return absl::OkStatus();
  }

  text* const trace_;
  int64_t events_ = 0;
};

// What digits_train.c does, in C++; the files are read by the library.
class CppTraining {
 public:
  explicit CppTraining(std::string work_dir) : work_dir_(std::move(work_dir)) {}
  ~CppTraining() { text_clear(&trace_); }

  std::unique_ptr<Runner> New(bool resume) {
    auto config =
        ParseRunnerConfig(digits_config, ConfigFormat::kText, "config");
    EXPECT_THAT(config, IsOk());
    if (!config.ok()) return nullptr;
    config->set_work_dir(work_dir_);
    config->set_resume(resume);
    for (const auto& [loader, part] :
         {std::pair(config->mutable_train_dataloader(), "train"),
          std::pair(config->mutable_val_dataloader(), "test")}) {
      auto* const idx = loader->mutable_dataset()->mutable_idx();
      idx->set_images(absl::StrCat(kDataDir, "/", part, "-images-idx3-ubyte"));
      idx->set_labels(absl::StrCat(kDataDir, "/", part, "-labels-idx1-ubyte"));
      idx->set_scale(0.0625);
    }
    RunnerOptions options;
    options.log = &log_;
    options.hooks.push_back(Schedule(std::make_unique<Tracer>(&trace_)));
    auto runner = Runner::Create(*config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  // As the plan of digits_train.c says.
  void Train(int64_t steps = 0, bool resume = false, bool mixture = false) {
    std::unique_ptr<Runner> runner = New(false);
    ASSERT_NE(runner, nullptr);
    for (int64_t i = 0; i < steps; ++i) ASSERT_THAT(runner->Step(), IsOk());
    if (resume) {
      runner.reset();
      runner = New(true);
      ASSERT_NE(runner, nullptr);
    }
    if (mixture) {
      Validate(runner.get());
      const absl::StatusOr<bool> cut = runner->TrainUntil(absl::UnixEpoch());
      ASSERT_THAT(cut, IsOk());
      EXPECT_TRUE(*cut);
      Validate(runner.get());
      ASSERT_THAT(runner->TrainUntil(absl::InfiniteFuture()), IsOk());
    } else {
      ASSERT_THAT(runner->Train(), IsOk());
    }
    const Model& model = runner->context().model();
    for (const auto* tensors : {&model.parameters(), &model.buffers()}) {
      for (const NamedTensor& named : *tensors) {
        const auto tensor = runner->GetTensor(named.name);
        ASSERT_THAT(tensor, IsOk());
        absl::StrAppend(&weights_, named.name,
                        absl::string_view(
                            static_cast<const char*>(tensor->const_data_ptr()),
                            tensor->nbytes()));
      }
    }
    Validate(runner.get());
  }

  std::string trace() const { return String(trace_); }
  const std::string& weights() const { return weights_; }
  const std::string& metrics() const { return metrics_; }

 private:
  void Validate(Runner* runner) {
    const auto metrics = runner->Val();
    ASSERT_THAT(metrics, IsOk());
    text numbers = {nullptr, 0};
    NoteMetrics(*metrics, &numbers);
    metrics_ += String(numbers);
    text_clear(&numbers);
  }

  const std::string work_dir_;
  MemoryRunLog log_;
  text trace_ = {nullptr, 0};
  std::string weights_, metrics_;
};

struct DigitsCase {
  std::string name;
  int64_t steps;
  bool resume = false;
  bool mixture = false;
};

class DigitsTest : public ::testing::TestWithParam<DigitsCase> {
 protected:
  // Of this test's own.
  static std::string WorkDir(const std::string& what) {
    return io::JoinPath(::testing::TempDir(),
                        absl::StrCat(what, "_", GetParam().name));
  }
};

INSTANTIATE_TEST_SUITE_P(
    , DigitsTest,
    ::testing::Values(DigitsCase{"AtOnce", 0}, DigitsCase{"BySteps", -1},
                      DigitsCase{"StepsThenTheRest", 7},
                      DigitsCase{"AnEpochThenTheRest", 23},
                      DigitsCase{"Resumed", 30, /*resume=*/true},
                      DigitsCase{"Evaluated", 30, false, /*mixture=*/true},
                      DigitsCase{"EvaluatedAndResumed", 10, true, true}),
    [](const auto& info) { return info.param.name; });

TEST_P(DigitsTest, TheCTrainingIsTheCppTraining) {
  const DigitsCase& c = GetParam();
  CppTraining cpp(WorkDir("cpp"));
  // A mixture without an evaluation is the whole at once, also in what is seen.
  cpp.Train(c.resume || c.mixture ? c.steps : 0, c.resume, c.mixture);
  ASSERT_FALSE(cpp.weights().empty());
  if (c.mixture) {
    CppTraining at_once(WorkDir("at_once"));
    at_once.Train();
    EXPECT_TRUE(at_once.weights() == cpp.weights());
  }

  const std::string work_dir = WorkDir("c");
  digits_plan plan;
  plan.data_dir = kDataDir;
  plan.work_dir = work_dir.c_str();
  plan.steps = c.steps;
  plan.resume = c.resume ? 1 : 0;
  plan.mixture = c.mixture ? 1 : 0;
  digits_outcome outcome = {};
  digits_train(&plan, &outcome);

  EXPECT_THAT(String(outcome.error), IsEmpty());
  EXPECT_TRUE(String(outcome.weights) == cpp.weights());
  EXPECT_EQ(String(outcome.metrics), cpp.metrics());
  EXPECT_EQ(String(outcome.trace), cpp.trace());
  EXPECT_GT(outcome.log_lines, 0);
  // Two datasets and a hook, for each runner.
  EXPECT_EQ(outcome.destroyed, c.resume ? 6 : 3);
  EXPECT_EQ(grapnel_live_objects(), 0);
  digits_outcome_clear(&outcome);
}

TEST(DigitsTraceTest, HasWhatThereIs) {
  CppTraining cpp(io::JoinPath(::testing::TempDir(), "trace"));
  cpp.Train();
  for (const char* line :
       {"setup epoch 0 of 3 iter 0 of 69", "before_train_iter epoch 2 of 3",
        "  train/loss 0x", "  saved extra_2", "  accuracy/top1 0x",
        "after_val epoch 3 of 3 iter 69 of 69 mode 1 training 0"}) {
    EXPECT_THAT(cpp.trace(), HasSubstr(line));
  }
}

}  // namespace
}  // namespace grapnel
