#include "grapnel/runner/stage.h"

#include <cstddef>

namespace grapnel {
namespace {

struct Names {
  const char* camel;
  const char* snake;
};

// Indexed by Stage.
constexpr Names kNames[] = {
    {"BeforeRun", "before_run"},
    {"AfterLoadCheckpoint", "after_load_checkpoint"},
    {"BeforeTrain", "before_train"},
    {"BeforeTrainEpoch", "before_train_epoch"},
    {"BeforeTrainIter", "before_train_iter"},
    {"AfterTrainIter", "after_train_iter"},
    {"AfterTrainEpoch", "after_train_epoch"},
    {"BeforeVal", "before_val"},
    {"BeforeValEpoch", "before_val_epoch"},
    {"BeforeValIter", "before_val_iter"},
    {"AfterValIter", "after_val_iter"},
    {"AfterValEpoch", "after_val_epoch"},
    {"AfterVal", "after_val"},
    {"BeforeSaveCheckpoint", "before_save_checkpoint"},
    {"AfterTrain", "after_train"},
    {"BeforeTest", "before_test"},
    {"BeforeTestEpoch", "before_test_epoch"},
    {"BeforeTestIter", "before_test_iter"},
    {"AfterTestIter", "after_test_iter"},
    {"AfterTestEpoch", "after_test_epoch"},
    {"AfterTest", "after_test"},
    {"AfterRun", "after_run"},
    {"Setup", "setup"},
    {"BeforeOptimizerStep", "before_optimizer_step"},
    {"AfterOptimizerStep", "after_optimizer_step"},
    {"AfterSaveCheckpoint", "after_save_checkpoint"},
    {"BeforeExport", "before_export"},
    {"AfterExport", "after_export"},
    {"OnError", "on_error"},
};
static_assert(sizeof(kNames) / sizeof(kNames[0]) ==
              static_cast<size_t>(kNumStages));

}  // namespace

const char* StageName(Stage stage) {
  return kNames[static_cast<int>(stage)].camel;
}

const char* StageSnakeName(Stage stage) {
  return kNames[static_cast<int>(stage)].snake;
}

}  // namespace grapnel
