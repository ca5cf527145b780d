// The loop, drawn once, with every point at which hooks run.
//
//   Setup                           once per runner, when all is built
//   BeforeRun                       each Train(), Val(), Test()
//   AfterLoadCheckpoint             before anything of it is applied
//   AfterRestore                    when all of it is
//   BeforeTrain
//     BeforeTrainEpoch              iteration-based: once, round the whole run
//       BeforeTrainIter
//         [ Model::TrainStep: forward, losses, backward ]
//         BeforeOptimizerStep       if this iteration steps
//           [ clip, step ]
//         AfterOptimizerStep
//       AfterTrainIter              iter() still counts this one as not done
//     AfterTrainEpoch               epoch() likewise; iter() has moved on
//     BeforeVal                     if validation is due
//       BeforeValEpoch
//         BeforeValIter             from here to AfterValIter the model is in
//         AfterValIter              evaluation mode and autograd is off
//       AfterValEpoch               with the metrics
//     AfterVal
//   AfterTrain
//   AfterRun                        however the call ends, if BeforeRun came
//
//   BeforeTest ... AfterTest        as validation
//   BeforeExport, AfterExport       round the writing of the model's own file
//
//   BeforeSaveCheckpoint            when all hooks of the point where one asked
//   AfterSaveCheckpoint             for it have run; the latter when
//                                   the checkpoint is safely on the disk
//   OnError                         instead of the rest up to AfterRun, if
//                                   anything failed or the run was interrupted;
//                                   before AfterTrain, if it was stopped at
//                                   once
//
// In an iteration-based loop validation stands between two iterations.

#ifndef GRAPNEL_RUNNER_STAGE_H_
#define GRAPNEL_RUNNER_STAGE_H_

#include <cstdint>

namespace grapnel {

// Every mount point: the function of Hook, its name as MMEngine spells it, and
// the generic point that it calls unless a hook overrides it, or itself again.
// Enum, names, masks and what calls the hooks (points::, in hook.h) come from
// here. In the order of MMEngine's table, then what it lacks.
#define GRAPNEL_FOR_EACH_STAGE(V)                                         \
  V(BeforeRun, "before_run", BeforeRun)                                   \
  V(AfterLoadCheckpoint, "after_load_checkpoint", AfterLoadCheckpoint)    \
  V(BeforeTrain, "before_train", BeforeTrain)                             \
  V(BeforeTrainEpoch, "before_train_epoch", BeforeEpoch)                  \
  V(BeforeTrainIter, "before_train_iter", BeforeIter)                     \
  V(AfterTrainIter, "after_train_iter", AfterIter)                        \
  V(AfterTrainEpoch, "after_train_epoch", AfterEpoch)                     \
  V(BeforeVal, "before_val", BeforeVal)                                   \
  V(BeforeValEpoch, "before_val_epoch", BeforeEpoch)                      \
  V(BeforeValIter, "before_val_iter", BeforeIter)                         \
  V(AfterValIter, "after_val_iter", AfterIter)                            \
  V(AfterValEpoch, "after_val_epoch", AfterEpoch)                         \
  V(AfterVal, "after_val", AfterVal)                                      \
  V(BeforeSaveCheckpoint, "before_save_checkpoint", BeforeSaveCheckpoint) \
  V(AfterTrain, "after_train", AfterTrain)                                \
  V(BeforeTest, "before_test", BeforeTest)                                \
  V(BeforeTestEpoch, "before_test_epoch", BeforeEpoch)                    \
  V(BeforeTestIter, "before_test_iter", BeforeIter)                       \
  V(AfterTestIter, "after_test_iter", AfterIter)                          \
  V(AfterTestEpoch, "after_test_epoch", AfterEpoch)                       \
  V(AfterTest, "after_test", AfterTest)                                   \
  V(AfterRun, "after_run", AfterRun)                                      \
  V(Setup, "setup", Setup)                                                \
  V(BeforeOptimizerStep, "before_optimizer_step", BeforeOptimizerStep)    \
  V(AfterOptimizerStep, "after_optimizer_step", AfterOptimizerStep)       \
  V(AfterRestore, "after_restore", AfterRestore)                          \
  V(AfterSaveCheckpoint, "after_save_checkpoint", AfterSaveCheckpoint)    \
  V(BeforeExport, "before_export", BeforeExport)                          \
  V(AfterExport, "after_export", AfterExport)                             \
  V(OnError, "on_error", OnError)

enum class Stage : int {
#define GRAPNEL_STAGE_VALUE(point, snake_name, generic) k##point,
  GRAPNEL_FOR_EACH_STAGE(GRAPNEL_STAGE_VALUE)
#undef GRAPNEL_STAGE_VALUE
};

#define GRAPNEL_COUNT_STAGE(point, snake_name, generic) +1
inline constexpr int kNumStages = 0 GRAPNEL_FOR_EACH_STAGE(GRAPNEL_COUNT_STAGE);
#undef GRAPNEL_COUNT_STAGE

// "AfterTrainIter".
const char* StageName(Stage stage);

// "after_train_iter", as MMEngine spells it.
const char* StageSnakeName(Stage stage);

// A set of stages.
class StageMask {
 public:
  constexpr StageMask() = default;
  static constexpr StageMask All() {
    StageMask mask;
    mask.bits_ = (uint32_t{1} << kNumStages) - 1;
    return mask;
  }

  constexpr void Add(Stage stage) { bits_ |= Bit(stage); }
  constexpr bool Has(Stage stage) const { return (bits_ & Bit(stage)) != 0; }
  constexpr bool operator==(StageMask other) const {
    return bits_ == other.bits_;
  }

 private:
  static constexpr uint32_t Bit(Stage stage) {
    return uint32_t{1} << static_cast<int>(stage);
  }
  uint32_t bits_ = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_STAGE_H_
