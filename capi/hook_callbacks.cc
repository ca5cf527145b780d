#include "grapnel/capi/hook_callbacks.h"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/run.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/stage.h"

namespace grapnel::capi {
namespace {

// ------------------------------------------------------------------- stages

struct StageRow {
  Stage stage;
  grapnel_stage c_stage;
  const char* c_name;
};

constexpr StageRow kStages[] = {
#define GRAPNEL_ROW(stage, name) \
  { Stage::k##stage, GRAPNEL_##name, #name }
    GRAPNEL_ROW(Setup, SETUP),
    GRAPNEL_ROW(BeforeRun, BEFORE_RUN),
    GRAPNEL_ROW(AfterLoadCheckpoint, AFTER_LOAD_CHECKPOINT),
    GRAPNEL_ROW(AfterRestore, AFTER_RESTORE),
    GRAPNEL_ROW(BeforeTrain, BEFORE_TRAIN),
    GRAPNEL_ROW(BeforeTrainEpoch, BEFORE_TRAIN_EPOCH),
    GRAPNEL_ROW(BeforeTrainIter, BEFORE_TRAIN_ITER),
    GRAPNEL_ROW(BeforeOptimizerStep, BEFORE_OPTIMIZER_STEP),
    GRAPNEL_ROW(AfterOptimizerStep, AFTER_OPTIMIZER_STEP),
    GRAPNEL_ROW(AfterTrainIter, AFTER_TRAIN_ITER),
    GRAPNEL_ROW(AfterTrainEpoch, AFTER_TRAIN_EPOCH),
    GRAPNEL_ROW(BeforeVal, BEFORE_VAL),
    GRAPNEL_ROW(BeforeValEpoch, BEFORE_VAL_EPOCH),
    GRAPNEL_ROW(BeforeValIter, BEFORE_VAL_ITER),
    GRAPNEL_ROW(AfterValIter, AFTER_VAL_ITER),
    GRAPNEL_ROW(AfterValEpoch, AFTER_VAL_EPOCH),
    GRAPNEL_ROW(AfterVal, AFTER_VAL),
    GRAPNEL_ROW(BeforeTest, BEFORE_TEST),
    GRAPNEL_ROW(BeforeTestEpoch, BEFORE_TEST_EPOCH),
    GRAPNEL_ROW(BeforeTestIter, BEFORE_TEST_ITER),
    GRAPNEL_ROW(AfterTestIter, AFTER_TEST_ITER),
    GRAPNEL_ROW(AfterTestEpoch, AFTER_TEST_EPOCH),
    GRAPNEL_ROW(AfterTest, AFTER_TEST),
    GRAPNEL_ROW(BeforeSaveCheckpoint, BEFORE_SAVE_CHECKPOINT),
    GRAPNEL_ROW(AfterSaveCheckpoint, AFTER_SAVE_CHECKPOINT),
    GRAPNEL_ROW(BeforeExport, BEFORE_EXPORT),
    GRAPNEL_ROW(AfterExport, AFTER_EXPORT),
    GRAPNEL_ROW(AfterTrain, AFTER_TRAIN),
    GRAPNEL_ROW(OnError, ON_ERROR),
    GRAPNEL_ROW(AfterRun, AFTER_RUN),
#undef GRAPNEL_ROW
};

// By Stage.
constexpr const char* kSnakeNames[] = {
#define GRAPNEL_SNAKE_NAME(point, snake_name, generic) snake_name,
    GRAPNEL_FOR_EACH_STAGE(GRAPNEL_SNAKE_NAME)
#undef GRAPNEL_SNAKE_NAME
};

// "AFTER_VAL" and "after_val".
constexpr bool IsSameName(const char* upper, const char* lower) {
  for (; *upper != '\0' && *lower != '\0'; ++upper, ++lower) {
    const bool letter = *upper >= 'A' && *upper <= 'Z';
    if ((letter ? static_cast<char>(*upper - 'A' + 'a') : *upper) != *lower) {
      return false;
    }
  }
  return *upper == *lower;
}

constexpr bool HasEachStageOnce() {
  bool seen[kNumStages] = {};
  bool c_seen[kNumStages] = {};
  for (const StageRow& row : kStages) {
    const int stage = static_cast<int>(row.stage);
    if (row.c_stage < 0 || row.c_stage >= kNumStages || seen[stage] ||
        c_seen[row.c_stage] || !IsSameName(row.c_name, kSnakeNames[stage])) {
      return false;
    }
    seen[stage] = true;
    c_seen[row.c_stage] = true;
  }
  return std::size(kStages) == kNumStages;
}
static_assert(HasEachStageOnce(),
              "grapnel.h must name every stage of runner/stage.h");

constexpr uint64_t BitOf(grapnel_stage stage) { return uint64_t{1} << stage; }

// -------------------------------------------------------------------- a hook

class CHook final : public Hook {
 public:
  CHook(std::string name, const grapnel_hook_callbacks& callbacks,
        void* user_data)
      : name_(std::move(name)), callbacks_(callbacks, user_data) {}

  LentData* lent() { return callbacks_.lent(); }

  absl::string_view name() const override { return name_; }
  Priority priority() const override {
    return static_cast<Priority>(callbacks_->priority);
  }

  absl::Status SaveState(std::string* bytes) override {
    if (callbacks_->save_state == nullptr) return absl::OkStatus();
    return capi::SaveState(callbacks_, bytes);
  }
  absl::Status LoadState(const std::string& bytes) override {
    if (callbacks_->load_state == nullptr) return absl::OkStatus();
    return capi::LoadState(callbacks_, bytes);
  }

  // The points without more than the run.
#define GRAPNEL_POINT(point, stage)              \
  absl::Status point(RunContext& run) override { \
    return Call(GRAPNEL_##stage, run, AtHand()); \
  }
  GRAPNEL_POINT(Setup, SETUP)
  GRAPNEL_POINT(BeforeRun, BEFORE_RUN)
  GRAPNEL_POINT(AfterRun, AFTER_RUN)
  GRAPNEL_POINT(BeforeTrain, BEFORE_TRAIN)
  GRAPNEL_POINT(AfterTrain, AFTER_TRAIN)
  GRAPNEL_POINT(BeforeTrainEpoch, BEFORE_TRAIN_EPOCH)
  GRAPNEL_POINT(AfterTrainEpoch, AFTER_TRAIN_EPOCH)
  GRAPNEL_POINT(BeforeOptimizerStep, BEFORE_OPTIMIZER_STEP)
  GRAPNEL_POINT(BeforeVal, BEFORE_VAL)
  GRAPNEL_POINT(AfterVal, AFTER_VAL)
  GRAPNEL_POINT(BeforeValEpoch, BEFORE_VAL_EPOCH)
  GRAPNEL_POINT(BeforeTest, BEFORE_TEST)
  GRAPNEL_POINT(AfterTest, AFTER_TEST)
  GRAPNEL_POINT(BeforeTestEpoch, BEFORE_TEST_EPOCH)
  GRAPNEL_POINT(BeforeExport, BEFORE_EXPORT)
  GRAPNEL_POINT(AfterExport, AFTER_EXPORT)
#undef GRAPNEL_POINT

  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& iter) override {
    return Call(GRAPNEL_BEFORE_TRAIN_ITER, run, At(iter));
  }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& iter,
                              const LogVars& log_vars) override {
    AtHand at_hand = At(iter);
    at_hand.log_vars = &log_vars;
    return Call(GRAPNEL_AFTER_TRAIN_ITER, run, at_hand);
  }
  absl::Status BeforeValIter(RunContext& run, const IterInfo& iter) override {
    return Call(GRAPNEL_BEFORE_VAL_ITER, run, At(iter));
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo& iter,
                            const Predictions& predictions) override {
    return Call(GRAPNEL_AFTER_VAL_ITER, run, At(iter, predictions));
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override {
    return Call(GRAPNEL_AFTER_VAL_EPOCH, run, At(metrics));
  }
  absl::Status BeforeTestIter(RunContext& run, const IterInfo& iter) override {
    return Call(GRAPNEL_BEFORE_TEST_ITER, run, At(iter));
  }
  absl::Status AfterTestIter(RunContext& run, const IterInfo& iter,
                             const Predictions& predictions) override {
    return Call(GRAPNEL_AFTER_TEST_ITER, run, At(iter, predictions));
  }
  absl::Status AfterTestEpoch(RunContext& run,
                              const Metrics& metrics) override {
    return Call(GRAPNEL_AFTER_TEST_EPOCH, run, At(metrics));
  }
  absl::Status AfterOptimizerStep(RunContext& run, const StepResult&) override {
    return Call(GRAPNEL_AFTER_OPTIMIZER_STEP, run, AtHand());
  }
  absl::Status AfterLoadCheckpoint(RunContext& run,
                                   io::CheckpointContents&) override {
    return Call(GRAPNEL_AFTER_LOAD_CHECKPOINT, run, AtHand());
  }
  absl::Status AfterRestore(RunContext& run,
                            const io::CheckpointContents&) override {
    return Call(GRAPNEL_AFTER_RESTORE, run, AtHand());
  }
  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents&) override {
    return Call(GRAPNEL_BEFORE_SAVE_CHECKPOINT, run, AtHand());
  }
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint& saved) override {
    AtHand at_hand;
    at_hand.saved_path = &saved.path;
    return Call(GRAPNEL_AFTER_SAVE_CHECKPOINT, run, at_hand);
  }
  void OnError(RunContext& run, const absl::Status& error) override {
    AtHand at_hand;
    at_hand.error = &error;
    const absl::Status status = Call(GRAPNEL_ON_ERROR, run, at_hand);
    if (status.ok()) return;
    run.log().Error(
        absl::StrCat("hook \"", name_, "\": OnError: ", status.message()));
  }

 private:
  static AtHand At(const IterInfo& iter) {
    AtHand at_hand;
    at_hand.iter = &iter;
    return at_hand;
  }
  static AtHand At(const IterInfo& iter, const Predictions& predictions) {
    AtHand at_hand = At(iter);
    at_hand.predictions = &predictions;
    return at_hand;
  }
  static AtHand At(const Metrics& metrics) {
    AtHand at_hand;
    at_hand.metrics = &metrics;
    return at_hand;
  }

  absl::Status Call(grapnel_stage stage, RunContext& run,
                    const AtHand& at_hand) {
    run_.Begin(&run, at_hand);
    grapnel_status* const status =
        callbacks_->on_stage(callbacks_.data(), stage, &run_);
    run_.End();
    return status == nullptr ? absl::OkStatus() : FromC(status);
  }

  const std::string name_;
  Callbacks<grapnel_hook_callbacks> callbacks_;
  grapnel_run run_;
};

static_assert(OverriddenStages<CHook>() == StageMask::All(),
              "a stage that CHook doesn't pass on");

absl::Status CheckCallbacks(const grapnel_hook_callbacks& callbacks) {
  if (callbacks.stages >> kNumStages != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("callbacks: stages: there are ", kNumStages, ", is 0x",
                     absl::Hex(callbacks.stages)));
  }
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(callbacks.priority >= 0 && callbacks.priority <= 100,
                 "callbacks: priority", "in 0..100", callbacks.priority));
  if (callbacks.stages != 0) {
    GRAPNEL_RETURN_IF_ERROR(
        MustBeSet(callbacks.on_stage, "callbacks: on_stage"));
  }
  return CheckStateCallbacks(callbacks);
}

}  // namespace

absl::StatusOr<Made<ScheduledHook>> MakeHook(
    std::string name, const grapnel_hook_callbacks* callbacks,
    void* user_data) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const grapnel_hook_callbacks known,
      Callbacks<grapnel_hook_callbacks>::Read(callbacks, "callbacks"));
  GRAPNEL_RETURN_IF_ERROR(CheckCallbacks(known));
  auto hook = std::make_unique<CHook>(std::move(name), known, user_data);
  Made<ScheduledHook> made;
  made.lent = hook->lent();
  for (const StageRow& row : kStages) {
    if ((known.stages & BitOf(row.c_stage)) != 0) {
      made.product.stages.Add(row.stage);
    }
  }
  made.product.priority = known.priority;
  made.product.hook = std::move(hook);
  return made;
}

}  // namespace grapnel::capi
