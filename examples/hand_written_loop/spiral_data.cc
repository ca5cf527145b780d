#include "grapnel/examples/hand_written_loop/spiral_data.h"

#include <cmath>
#include <cstdint>

#include "ATen/CPUGeneratorImpl.h"
#include "torch/types.h"

namespace examples {
namespace {

constexpr int kArms = 3;
constexpr int64_t kPointsInArm = 200;

}  // namespace

SpiralData MakeSpiralData() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
  const int64_t n = kArms * kPointsInArm;
  const at::Tensor arms = torch::arange(n).remainder(kArms);
  const at::Tensor radii = torch::rand({n}, generator);
  const at::Tensor angles = radii * 4 + arms * (2 * M_PI / kArms) +
                            torch::randn({n}, generator) * 0.15;
  return {torch::stack({radii * angles.cos(), radii * angles.sin()}, 1), arms};
}

torch::nn::Sequential MakeSpiralNet() {
  torch::manual_seed(0);
  return torch::nn::Sequential(
      torch::nn::Linear(2, 64), torch::nn::BatchNorm1d(64), torch::nn::ReLU(),
      torch::nn::Dropout(0.1), torch::nn::Linear(64, 64), torch::nn::ReLU(),
      torch::nn::Linear(64, kArms));
}

}  // namespace examples
