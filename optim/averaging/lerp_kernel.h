// The arithmetic of averages, over many tensors in one pass.

#ifndef GRAPNEL_OPTIM_AVERAGING_LERP_KERNEL_H_
#define GRAPNEL_OPTIM_AVERAGING_LERP_KERNEL_H_

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
#include "grapnel/optim/averaging/mixture.h"

namespace grapnel {

struct LerpCoefficients;

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
// A source may be given another storage, as torch::nn::Module::to() and
// set_data() do: it is seen at the next Mix. Thread-compatible.
class LerpKernel {
 public:
  // kInvalidArgument, naming the tensor, if a pair isn't as above.
  static absl::StatusOr<LerpKernel> Create(std::vector<AveragedTensor> pairs);

  // average += weight * (source - average), for all pairs.
  absl::Status Mix(const Mixture& mixture);

  const std::vector<AveragedTensor>& pairs() const { return pairs_; }

 private:
  using Loop = void (*)(char* average, const char* source, int64_t n,
                        const LerpCoefficients& coefficients);

  // A pair for our loops. No larger than it must be: all are read in each pass.
  struct Entry {
    char* average;
    const char* source;
    Loop loop;
    int64_t end;  // Elements of all entries up to this one's last.

    // The source, and what it had its numbers in when `source` was taken.
    const c10::TensorImpl* tensor;
    const c10::StorageImpl* storage;
  };

  // Pairs of one CUDA device and type, for one call of an operator.
  struct Group {
    std::vector<at::Tensor> averages, sources;
  };

  explicit LerpKernel(std::vector<AveragedTensor> pairs)
      : pairs_(std::move(pairs)) {}

  static Loop FindLoop(const AveragedTensor& pair);

  // Sorts the pairs by who averages them. After an error planned_ is false.
  absl::Status Plan();
  bool SourcesMoved() const;
  void MixRange(int64_t begin, int64_t end,
                const LerpCoefficients& coefficients) const;

  std::vector<AveragedTensor> pairs_;
  bool planned_ = false;
  std::vector<Entry> entries_;
  std::vector<size_t> entry_pairs_;     // Of each entry: which pair.
  std::vector<c10::Storage> storages_;  // Keeps `source` of each entry valid.
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
