// Batch norm over the batches of many ranks.

#ifndef GRAPNEL_MODELS_SYNC_BATCH_NORM_H_
#define GRAPNEL_MODELS_SYNC_BATCH_NORM_H_

#include "ATen/core/Tensor.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

// `input`, (N, C, ...) with at least one value per channel, of a process alone
// two, normalized as batch
// norm in training does: by the mean and variance of each channel, of all
// values on all ranks of `group`. N, and what is behind C, may differ from rank
// to rank. weight, bias: (C), both or none; running_mean, running_var: (C),
// both or none, which move towards the new ones by `momentum`. All on one
// device, and those of (C) of the input's type, of a half of float32.
//
// A collective, and going backward through the result is one too if the input
// requires a gradient, which it does on all ranks or on none: LibTorch then has
// this rank's share of the input's gradient, of the sum of all ranks' losses.
// Those of weight and bias are of this rank's values, as in any other layer.
// What is sent is 2 C + 1 numbers for each rank, and backward 2 C; what comes
// of it has the same bits on all ranks. `group` outlives the graph. There is no
// second derivative.
//
// Ranks are processes. Threads of one process may be ranks on the CPU; on
// another device LibTorch goes backward on one thread for all of them, where
// they would wait for each other.
//
// Throws what LibTorch throws, and StatusException for what the group fails
// with: the message of the rank that has failed.
at::Tensor BatchNormOverRanks(const at::Tensor& input, const at::Tensor& weight,
                              const at::Tensor& bias,
                              const at::Tensor& running_mean,
                              const at::Tensor& running_var, double momentum,
                              double eps, ProcessGroup& group);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_SYNC_BATCH_NORM_H_
