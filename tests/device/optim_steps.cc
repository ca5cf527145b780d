#include "grapnel/tests/device/optim_steps.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/optim_wrapper.h"
#include "gtest/gtest.h"

namespace grapnel {

using ::grapnel::optim::v1::OptimWrapperConfig;

OptimWrapperConfig ParseOptimWrapper(const std::string& text) {
  OptimWrapperConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

std::vector<NamedTensor> MakeParams(c10::Device device,
                                    const std::vector<int64_t>& sizes) {
  std::vector<NamedTensor> params;
  for (const int64_t size : sizes) {
    const at::Tensor values =
        ops::arange(size, at::kFloat).div_(static_cast<double>(size));
    params.push_back(
        {absl::StrCat("p", size), values.to(device).requires_grad_(true)});
  }
  return params;
}

at::Tensor SquareLoss(const std::vector<NamedTensor>& params, double slope) {
  at::Tensor total;
  for (const NamedTensor& param : params) {
    const at::Tensor sum = param.tensor.square().sum().mul(slope / 2);
    total = total.defined() ? total.add(sum) : sum;
  }
  return total;
}

std::vector<at::Tensor> OnCpu(const std::vector<NamedTensor>& params) {
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& param : params) {
    tensors.push_back(param.tensor.detach().to(
        at::kCPU, param.tensor.scalar_type(), false, /*copy=*/true));
  }
  return tensors;
}

std::vector<at::Tensor> TrainedParams(c10::Device device,
                                      const std::string& config,
                                      const std::vector<double>& slopes,
                                      const std::vector<int64_t>& sizes) {
  const std::vector<NamedTensor> params = MakeParams(device, sizes);
  auto wrapper = OptimWrapper::Create(ParseOptimWrapper(config), params);
  EXPECT_THAT(wrapper, IsOk());
  (*wrapper)->InitializeCounts(0, static_cast<int64_t>(slopes.size()));
  for (const double slope : slopes) {
    EXPECT_THAT((*wrapper)->Update(SquareLoss(params, slope), 1), IsOk());
  }
  return OnCpu(params);
}

}  // namespace grapnel
