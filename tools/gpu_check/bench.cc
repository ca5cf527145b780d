// What check.py measures of ours on a machine's device. What it prints are
// lines of JSON.
//
//   bench device DEVICE
//       Which device that is, and if LibTorch's CUDA library is loaded.
//   bench iterations DEVICE CONFIG
//       The runner's, on demand: first how many parameters the model has; then
//       for each number that a line of stdin has, as many iterations, and the
//       seconds that one took.
//   bench memory DEVICE SIZE
//       A copy, averages and AdamW on 98 M parameters times SIZE, 0 to 1:
//       seconds of a call, and the bytes that it has to read and write. An A/A
//       ratio is of it to itself.

#include <dlfcn.h>
#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/Device.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "grapnel/base/device.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/env.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/averaging/lerp_kernel.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/bench/measure.h"

namespace grapnel {
namespace {

constexpr double kMomentum = 0.0002;
constexpr int kBlocks = 21;

// Waits until the device has done all that it was given.
void Synchronize(c10::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

// The device that `name` is, with its number.
c10::Device DeviceNamed(const char* name) {
  const c10::Device device = Value(FindDevice(name));
  if (device.is_cpu() || device.has_index()) return device;
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

// ------------------------------------------------------------------ iterations

class CountsParameters : public Hook {
 public:
  absl::string_view name() const override { return "counts_parameters"; }
  absl::Status Setup(RunContext& run) override {
    int64_t total = 0;
    for (const NamedTensor& parameter : run.model().parameters()) {
      total += parameter.tensor.numel();
      device = parameter.tensor.device();
    }
    count = total;
    return absl::OkStatus();
  }

  int64_t count = 0;
  c10::Device device = at::kCPU;
};

void Iterations(const char* device_name, const std::string& path) {
  const c10::Device device = DeviceNamed(device_name);
  runner::v1::RunnerConfig config =
      Value(LoadRunnerConfig(io::Env::Posix(), path));
  config.set_device(device_name);
  const std::string folder = path.substr(0, path.rfind('/'));
  RunnerOptions options;
  options.base_dir = folder;
  options.terminal_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
  auto hook = std::make_unique<CountsParameters>();
  const CountsParameters& model = *hook;
  options.hooks.push_back(Schedule(std::move(hook)));
  const auto runner =
      Value(Runner::Create(std::move(config), std::move(options)));
  Value(runner->Step());
  if (model.device.type() != device.type()) {
    Check(absl::FailedPreconditionError(absl::StrCat(
        "the model is on ", model.device.str(), ", not on ", device.str())));
  }
  std::printf("{\"parameters\": %lld}\n", static_cast<long long>(model.count));
  std::fflush(stdout);
  for (int iterations = 0;
       std::scanf("%d", &iterations) == 1 && iterations > 0;) {
    Synchronize(device);
    const double begin = Now();
    for (int i = 0; i < iterations; ++i) Value(runner->Step());
    Synchronize(device);
    std::printf("%.9f\n", (Now() - begin) / iterations);
    std::fflush(stdout);
  }
}

// ---------------------------------------------------------------------- memory

// As many tensors as a vision transformer of 98 M parameters has, large
// matrices, and small vectors between.
std::vector<int64_t> SizesOfModel(double size) {
  std::vector<int64_t> sizes;
  for (int i = 0; i < 434; ++i) {
    const int64_t whole = i % 3 == 0 ? 768 : i % 3 == 1 ? 300000 : 376000;
    sizes.push_back(i % 3 == 0 ? whole : static_cast<int64_t>(whole * size));
  }
  return sizes;
}

int64_t SumOf(const std::vector<int64_t>& sizes) {
  int64_t sum = 0;
  for (const int64_t size : sizes) sum += size;
  return sum;
}

std::vector<at::Tensor> Filled(const std::vector<int64_t>& sizes, double value,
                               c10::Device device) {
  std::vector<at::Tensor> tensors;
  for (const int64_t size : sizes) {
    tensors.push_back(ops::full({size}, value, device));
  }
  return tensors;
}

class Memory {
 public:
  Memory(c10::Device device, double size) : device_(device), size_(size) {}

  void Run() {
    Copy();
    Average("ema_large", SizesOfModel(size_), 10);
    Average("ema_small", std::vector<int64_t>(1000, 64), 200);
    AdamW();
  }

 private:
  // `calls` calls, and the wait until they are done.
  std::function<void()> Block(std::function<void()> function, int calls) {
    return [this, function = std::move(function), calls] {
      for (int i = 0; i < calls; ++i) function();
      Synchronize(device_);
    };
  }

  // `other` may be null.
  void Print(const char* name, double bytes, int calls,
             const std::function<void()>& function,
             const std::function<void()>& other = nullptr) {
    std::vector<std::function<void()>> turns = {Block(function, calls),
                                                Block(function, calls)};
    if (other != nullptr) turns.push_back(Block(other, calls));
    const auto times = TakeTurns(kBlocks, 1, turns);
    std::printf(
        "{\"name\": \"%s\", \"seconds\": %.9f, \"bytes\": %.0f, \"a_a\": %.4f",
        name, Median(times[0]) / calls, bytes, MedianRatio(times[1], times[0]));
    if (other != nullptr) {
      std::printf(", \"other_seconds\": %.9f, \"other_over_ours\": %.4f",
                  Median(times[2]) / calls, MedianRatio(times[2], times[0]));
    }
    std::printf("}\n");
    std::fflush(stdout);
  }

  void Copy() {
    const int64_t n = SumOf(SizesOfModel(size_)) * 2;
    const at::Tensor from = ops::full({n}, 0.5, device_);
    const at::Tensor to = ops::zeros({n}, device_);
    Print("copy", 8.0 * static_cast<double>(n), 10, [&] { to.copy_(from); });
  }

  void Average(const char* name, const std::vector<int64_t>& sizes, int calls) {
    std::vector<at::Tensor> averages = Filled(sizes, 0.25, device_);
    const std::vector<at::Tensor> sources = Filled(sizes, 0.5, device_);
    std::vector<AveragedTensor> pairs;
    for (size_t i = 0; i < averages.size(); ++i) {
      pairs.push_back({absl::StrCat(i), averages[i], sources[i]});
    }
    LerpKernel kernel = Value(LerpKernel::Create(std::move(pairs)));
    Print(
        name, 12.0 * static_cast<double>(SumOf(sizes)), calls,
        [&] { Check(kernel.Mix({kMomentum})); },
        [&] { ops::foreach_lerp_(averages, sources, kMomentum); });
  }

  // Reads weights, gradients and two moments, writes all but the gradients.
  void AdamW() {
    const std::vector<int64_t> sizes = SizesOfModel(size_);
    std::vector<ParamGroup> groups(1);
    for (at::Tensor& weight : Filled(sizes, 0.25, device_)) {
      weight.mutable_grad() = ops::full({weight.numel()}, 0.5, device_);
      weight.set_requires_grad(true);
      groups[0].params.push_back(
          {absl::StrCat(groups[0].params.size()), weight});
    }
    const auto optimizer = Value(
        OptimizerRegistry::Create(optim::v1::AdamWConfig(), std::move(groups)));
    Print("adamw", 28.0 * static_cast<double>(SumOf(sizes)), 10,
          [&] { Check(optimizer->Step()); });
  }

  const c10::Device device_;
  const double size_;
};

int Main(int argc, char** argv) {
  at::set_num_threads(1);
  const absl::string_view what = argc > 1 ? argv[1] : "";
  if (what == "device" && argc == 3) {
    std::printf("{\"device\": \"%s\", \"torch_cuda\": %s}\n",
                DeviceNamed(argv[2]).str().c_str(),
                dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD) != nullptr
                    ? "true"
                    : "false");
  } else if (what == "iterations" && argc == 4) {
    Iterations(argv[2], argv[3]);
  } else if (what == "memory" && argc == 4) {
    Memory(DeviceNamed(argv[2]), std::atof(argv[3])).Run();
  } else {
    std::fputs("usage: bench device|iterations|memory DEVICE ...\n", stderr);
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) { return grapnel::Main(argc, argv); }
