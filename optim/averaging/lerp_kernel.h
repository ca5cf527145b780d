// The arithmetic of averages, over many tensors in one pass.

#ifndef GRAPNEL_OPTIM_AVERAGING_LERP_KERNEL_H_
#define GRAPNEL_OPTIM_AVERAGING_LERP_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Storage.h"
#include "c10/core/TensorImpl.h"
#include "grapnel/cuda/multi_tensor_lerp.h"
#include "grapnel/optim/averaging/lerp_loops.h"
#include "grapnel/optim/averaging/mixture.h"

namespace grapnel {

// An average and the tensor that it is the average of: same shape, floating or
// complex; device, type and strides may differ.
struct AveragedTensor {
  std::string name;
  at::Tensor average;
  at::Tensor source;
};

// A list of pairs, made once, and a pass over them that costs what their bytes
// cost: no allocation, no call of an operator for each tensor, and LibTorch's
// threads where there is enough to do.
//
// That holds for dense tensors on the CPU of float32, float64, float16 and
// bfloat16, where both sides have the same strides, in any mix of types.
// Float32 and float64 have the bits of at::lerp_, or of at::add_, at the
// process's CPU capability; a half type is computed in float32 and rounded
// once. On a CUDA device such tensors are one launch, where //cuda is built in,
// with the bits that they have on a CPU. Other pairs go through LibTorch's
// operators, those of a CUDA device in groups.
//
// A source may get other memory, as by torch::nn::Module::to() and set_data():
// that is seen at the next Mix. A change of its strides alone is not.
// Thread-compatible.
class LerpKernel {
 public:
  // kInvalidArgument, naming the tensor, if a pair isn't as above.
  static absl::StatusOr<LerpKernel> Create(std::vector<AveragedTensor> pairs);

  // average += weight * (source - average), for all pairs. kInvalidArgument,
  // naming the tensor, if a source has got another shape.
  absl::Status Mix(const Mixture& mixture);

  const std::vector<AveragedTensor>& pairs() const { return pairs_; }

 private:
  // Spans that one loop takes: those of two types.
  struct Run {
    LerpLoop loop;
    size_t end;  // After its last span; its first is the last run's end.
  };

  // A source, and where its numbers were when the plan was made. The storage is
  // held, so that no other can come to lie there.
  struct Watched {
    const c10::TensorImpl* tensor;
    c10::Storage storage;
    const void* data;
  };

  // Pairs of one CUDA device and type, for one call of an operator.
  struct Group {
    std::vector<at::Tensor> averages, sources;
  };

  explicit LerpKernel(std::vector<AveragedTensor> pairs)
      : pairs_(std::move(pairs)) {}

  // Sorts the pairs by who averages them. After an error planned_ is false.
  absl::Status Plan();
  bool SourcesMoved() const;
  size_t FirstSpanFrom(int64_t element) const;
  void MixSpans(size_t begin, size_t end,
                const LerpCoefficients& coefficients) const;

  std::vector<AveragedTensor> pairs_;
  bool planned_ = false;

  // For our loops, sorted by types, and cut so that threads can share them. No
  // larger than they must be: spans_ and watched_ are read in each pass.
  std::vector<LerpSpan> spans_;
  std::vector<Run> runs_;
  std::vector<int64_t> starts_;  // Elements before each span.
  int64_t num_elements_ = 0;
  std::vector<Watched> watched_;

  std::vector<std::unique_ptr<MultiTensorLerp>> launches_;  // One a device.
  std::vector<Group> groups_;
  std::vector<size_t> others_;
};

// Averages tensors of one CUDA device, the averages of one type, the sources of
// one type, with operators of LibTorch: those that MultiTensorLerp doesn't
// take.
void MixCudaGroup(std::vector<at::Tensor>& averages,
                  const std::vector<at::Tensor>& sources,
                  const Mixture& mixture);

// Exchanges the bytes of two dense CPU tensors of one type, shape and strides.
void ExchangeBytes(const at::Tensor& a, const at::Tensor& b);

// True if ExchangeBytes takes them.
bool Exchangeable(const at::Tensor& a, const at::Tensor& b);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_AVERAGING_LERP_KERNEL_H_
