// Steps of an optimizer on any device, to be compared with the CPU's.

#ifndef GRAPNEL_TESTS_DEVICE_OPTIM_STEPS_H_
#define GRAPNEL_TESTS_DEVICE_OPTIM_STEPS_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optim_wrapper.pb.h"

namespace grapnel {

// Optimizers whose steps a device takes by its fused kernels, as text for
// ParseOptimWrapper.
inline constexpr const char* kFusedOptimizers[] = {
    "optimizer { adamw { lr: 0.1 } }", "optimizer { adam { amsgrad: true } }",
    "optimizer { sgd { lr: 0.1 } }",
    "optimizer { sgd { lr: 0.1 momentum: 0.9 } }",
    "optimizer { sgd { lr: 0.1 momentum: 0.9 dampening: 0.5 } }"};

// A slope for SquareLoss that gives infinite gradients under a loss scale.
inline constexpr double kTooSteep = std::numeric_limits<float>::max();

optim::v1::OptimWrapperConfig ParseOptimWrapper(const std::string& text);

// A parameter of each size, "p<size>", with values in [0, 1) that are the same
// on every device.
std::vector<NamedTensor> MakeParams(c10::Device device,
                                    const std::vector<int64_t>& sizes = {3, 5});

// A scalar whose gradient is `slope` times the parameters.
at::Tensor SquareLoss(const std::vector<NamedTensor>& params, double slope);

// Copies of the values.
std::vector<at::Tensor> OnCpu(const std::vector<NamedTensor>& params);

// The values, on the CPU, after an Update with each of the slopes.
std::vector<at::Tensor> TrainedParams(c10::Device device,
                                      const std::string& config,
                                      const std::vector<double>& slopes,
                                      const std::vector<int64_t>& sizes = {3,
                                                                           5});

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_OPTIM_STEPS_H_
