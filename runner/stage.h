// The loop, drawn once, with every point at which hooks run.
//
//   Setup                           once per runner, when all is built
//   BeforeRun                       each Train(), Val(), Test()
//   AfterLoadCheckpoint             before anything of it is applied
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
//   BeforeSaveCheckpoint            when the hooks of the point at which a hook
//   AfterSaveCheckpoint             asked for it have all run; the latter when
//                                   the checkpoint is safely on the disk
//   OnError                         instead of the rest up to AfterRun, if
//                                   anything failed or the run was interrupted
//
// In an iteration-based loop validation stands between two iterations.

#ifndef GRAPNEL_RUNNER_STAGE_H_
#define GRAPNEL_RUNNER_STAGE_H_

#include <cstdint>

namespace grapnel {

// In the order of parity.md 1.1, then what MMEngine lacks.
enum class Stage : int {
  kBeforeRun,
  kAfterLoadCheckpoint,
  kBeforeTrain,
  kBeforeTrainEpoch,
  kBeforeTrainIter,
  kAfterTrainIter,
  kAfterTrainEpoch,
  kBeforeVal,
  kBeforeValEpoch,
  kBeforeValIter,
  kAfterValIter,
  kAfterValEpoch,
  kAfterVal,
  kBeforeSaveCheckpoint,
  kAfterTrain,
  kBeforeTest,
  kBeforeTestEpoch,
  kBeforeTestIter,
  kAfterTestIter,
  kAfterTestEpoch,
  kAfterTest,
  kAfterRun,
  kSetup,
  kBeforeOptimizerStep,
  kAfterOptimizerStep,
  kAfterSaveCheckpoint,
  kBeforeExport,
  kAfterExport,
  kOnError,
};

inline constexpr int kNumStages = static_cast<int>(Stage::kOnError) + 1;

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
