// What a runner is doing.

#ifndef GRAPNEL_RUNNER_MODE_H_
#define GRAPNEL_RUNNER_MODE_H_

namespace grapnel {

enum class Mode { kTrain = 0, kVal = 1, kTest = 2 };

// "train", "val", "test".
inline const char* ModeName(Mode mode) {
  constexpr const char* kNames[] = {"train", "val", "test"};
  return kNames[static_cast<int>(mode)];
}

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_MODE_H_
