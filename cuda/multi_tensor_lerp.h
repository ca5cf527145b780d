// The update of an averaged model that lies on a CUDA device: all its tensors
// in one launch.

#ifndef GRAPNEL_CUDA_MULTI_TENSOR_LERP_H_
#define GRAPNEL_CUDA_MULTI_TENSOR_LERP_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/cuda/lerp_pair.h"

namespace grapnel {

// A prepared list of pairs. What the kernel has to know about them lies on the
// device from Create() on: an update allocates nothing, copies nothing to the
// device and doesn't wait for it.
//
//   GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<MultiTensorLerp> lerp,
//                            MultiTensorLerp::Create(pairs));
//   for (;;) {
//     ...
//     GRAPNEL_RETURN_IF_ERROR(lerp->Update(0.001));
//   }
//
// Thread-compatible.
class MultiTensorLerp {
 public:
  // Whether this program has the kernel: //cuda was built with --config=cuda.
  static bool IsBuiltIn();

  // Whether Create() takes such a pair: the kernel is built in, and the pair is
  // as Create() says.
  static bool Takes(const LerpPair& pair);

  // Holds on to the tensors. May wait for the device.
  //
  // kUnimplemented if the kernel isn't built in; kInvalidArgument as PlanLerp
  // (lerp_plan.h) says, or if the tensors are not on a CUDA device.
  static absl::StatusOr<std::unique_ptr<MultiTensorLerp>> Create(
      std::vector<LerpPair> pairs);

  virtual ~MultiTensorLerp() = default;

  MultiTensorLerp(const MultiTensorLerp&) = delete;
  MultiTensorLerp& operator=(const MultiTensorLerp&) = delete;

  // Moves each `dst` towards its `src`, with the bits of ReferenceLerp
  // (multi_tensor_lerp_reference.h): float32 arithmetic, float64 if either
  // tensor is float64, and one rounding to the type of `dst` at the end. One
  // launch for each combination of types that occurs. Autograd is not told: no
  // `dst` may be part of a graph.
  //
  // Runs on the current stream of the tensors' device and leaves the current
  // device as it was. As after any kernel, code that uses the tensors on
  // another stream waits for this one.
  //
  // Where a tensor has got other memory since Create() (set_data, Module::to)
  // the list is prepared again first, at the cost and with the errors of
  // Create().
  //
  // kInvalidArgument if `weight` is not finite. Errors of the kernel itself
  // come, as CUDA's do, with a later call.
  virtual absl::Status Update(double weight,
                              LerpForm form = LerpForm::kLerp) = 0;

 protected:
  MultiTensorLerp() = default;
};

}  // namespace grapnel

#endif  // GRAPNEL_CUDA_MULTI_TENSOR_LERP_H_
