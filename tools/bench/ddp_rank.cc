// One rank of ddp.py in C++: a bare loop with the reducer. Joins where its
// environment says, as under torchrun; its argument is the model, mlp or conv.
// Reads a number of iterations from each line of stdin, does them, and prints
// the nanoseconds that one took, by the clock and of all threads' work.

#include <array>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/functional.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/tools/bench/measure.h"

namespace grapnel {
namespace {

constexpr int64_t kBatchSize = 32;

// MLP 784-128-10, or two convolutions and a linear layer.
class Net {
 public:
  explicit Net(bool conv) : conv_(conv) {
    if (conv) {
      Add("conv1", {32, 1, 3, 3});
      Add("conv2", {64, 32, 3, 3});
      Add("head", {10, 64 * 7 * 7});
    } else {
      Add("first", {128, 784});
      Add("second", {10, 128});
    }
  }

  at::Tensor Loss(const at::Tensor& x, const at::Tensor& y) const {
    at::Tensor h = x;
    if (conv_) {
      for (const int i : {0, 2}) {
        h = functional::conv2d(h, At(i), At(i + 1), {1, 1}, {1, 1}, {1, 1}, 1);
        h = functional::max_pool2d(functional::relu(h), {2, 2}, {2, 2}, {0, 0},
                                   {1, 1}, false);
      }
      h = functional::linear(h.flatten(1), At(4), At(5));
    } else {
      h = functional::relu(functional::linear(h.flatten(1), At(0), At(1)));
      h = functional::linear(h, At(2), At(3));
    }
    return functional::cross_entropy_loss(h, y, {}, /*reduction=*/1, -100, 0);
  }

  const std::vector<NamedTensor>& params() const { return params_; }

 private:
  void Add(const char* name, const std::vector<int64_t>& shape) {
    params_.push_back({absl::StrCat(name, ".weight"),
                       ops::randn(shape).mul_(0.05).requires_grad_()});
    params_.push_back(
        {absl::StrCat(name, ".bias"), ops::zeros({shape[0]}).requires_grad_()});
  }

  const at::Tensor& At(int i) const { return params_[i].tensor; }

  const bool conv_;
  std::vector<NamedTensor> params_;
};

absl::Status Iterate(const Net& net, const at::Tensor& x, const at::Tensor& y,
                     GradientReducer& reducer, Optimizer& optimizer) {
  optimizer.ZeroGrad();
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginForward(/*sync=*/true));
  const at::Tensor loss = net.Loss(x, y);
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginBackward(loss));
  loss.backward();
  GRAPNEL_RETURN_IF_ERROR(reducer.EndBackward());
  return optimizer.Step();
}

absl::Status Run(absl::string_view model) {
  at::set_num_threads(1);
  GRAPNEL_ASSIGN_OR_RETURN(const Place place, FindPlace(Launcher::kTorchrun));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<ProcessGroup> group,
                           JoinProcessGroup(place));
  const Net net(model == "conv");
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<GradientReducer> reducer,
                           CreateDdpReducer(*group, net.params(), {}, {}));
  optim::v1::OptimizerConfig config;
  config.mutable_sgd()->set_lr(0.01);
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Optimizer> optimizer,
                           OptimizerRegistry::Create(config, {{net.params()}}));
  const at::Tensor x = ops::randn({kBatchSize, 1, 28, 28});
  const at::Tensor y = ops::randint(10, {kBatchSize});
  std::array<char, 32> line;
  while (std::fgets(line.data(), line.size(), stdin) != nullptr) {
    int iterations = 0;
    if (!absl::SimpleAtoi(absl::StripSuffix(line.data(), "\n"), &iterations)) {
      return absl::InvalidArgumentError("stdin: must be lines of one number");
    }
    GRAPNEL_RETURN_IF_ERROR(group->Barrier());
    const double start = Now();
    const std::clock_t cpu = std::clock();
    for (int i = 0; i < iterations; ++i) {
      GRAPNEL_RETURN_IF_ERROR(Iterate(net, x, y, *reducer, *optimizer));
    }
    const double seconds = Now() - start;
    const double cpu_seconds =
        static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
    std::printf("%.0f %.0f\n", seconds / iterations * 1e9,
                cpu_seconds / iterations * 1e9);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const absl::Status status = grapnel::CatchAsStatus(
      [&] { return grapnel::Run(argc > 1 ? argv[1] : "mlp"); });
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
