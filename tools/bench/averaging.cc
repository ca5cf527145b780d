// What an averaged model costs.
//
//   bazel run //tools/bench:averaging [-- BLOCKS [THREADS]]
//
// Everything is measured by turns in one process, so that what disturbs the
// machine disturbs all. Figures are medians; without an A/A ratio, of a thing
// to itself, near 1 they are no result, and no goal is printed.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/ema/ema_hook.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/averaging/lerp_kernel.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tools/bench/iterations.h"
#include "grapnel/tools/bench/measure.h"
#include "torch/torch.h"

namespace grapnel {
namespace {

constexpr double kMomentum = 0.0002;

LerpKernel NewKernel(const std::vector<torch::Tensor>& averages,
                     const std::vector<torch::Tensor>& sources) {
  std::vector<AveragedTensor> pairs;
  for (size_t i = 0; i < averages.size(); ++i) {
    pairs.push_back({absl::StrCat(i), averages[i], sources[i]});
  }
  return Value(LerpKernel::Create(std::move(pairs)));
}

// 434 tensors of 98 M elements in all, as a vision transformer of that size
// has them: large matrices, and small vectors between.
std::vector<int64_t> LargeModel() {
  std::vector<int64_t> sizes;
  int64_t total = 0;
  for (int i = 0; i < 433; ++i) {
    const int64_t size = i % 3 == 0 ? 768 : i % 3 == 1 ? 300000 : 376000;
    sizes.push_back(size);
    total += size;
  }
  sizes.push_back(98000000 - total);
  return sizes;
}

// The tensors lie in the flat ones: where memory lies makes more of a
// difference than anything else here, 15 % either way. Those of their own are
// another figure.
void MeasureLarge(int blocks) {
  const torch::NoGradGuard no_grad;
  const std::vector<int64_t> sizes = LargeModel();
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  const torch::Tensor average = torch::randn({total});
  const torch::Tensor source = torch::randn({total});
  const std::vector<torch::Tensor> averages = average.split_with_sizes(sizes);
  const std::vector<torch::Tensor> sources = source.split_with_sizes(sizes);
  std::vector<torch::Tensor> own_averages, own_sources;
  for (const int64_t size : sizes) own_sources.push_back(torch::randn({size}));
  for (const int64_t size : sizes) own_averages.push_back(torch::randn({size}));
  LerpKernel kernel = NewKernel(averages, sources);
  LerpKernel own = NewKernel(own_averages, own_sources);
  const auto flat = [&] { average.lerp_(source, kMomentum); };
  const auto times = TakeTurns(
      blocks, 1,
      {flat, [&] { Check(kernel.Mix({kMomentum})); }, flat,
       [&] { Check(own.Mix({kMomentum})); },
       [&] { at::_foreach_lerp_(own_averages, own_sources, kMomentum); }});
  const double a_a = MedianRatio(times[2], times[0]);
  printf("%.0f M parameters in %zu tensors, %d threads, %d blocks\n",
         static_cast<double>(total) / 1e6, sizes.size(), at::get_num_threads(),
         blocks);
  printf("  flat lerp_               %8.2f ms   %.1f GB/s\n",
         Median(times[0]) * 1e3,
         static_cast<double>(total) * 12e-9 / Median(times[0]));
  printf("  EMA update               %8.2f ms\n", Median(times[1]) * 1e3);
  printf("  A/A  lerp_ / lerp_                    %.4f%s\n", a_a,
         NoResult(a_a));
  printf("  (a)  EMA update / lerp_               %.4f%s\n",
         MedianRatio(times[1], times[0]), Goal(a_a, "   (at most 1.05)"));
  printf("  tensors of their own: EMA update %.2f ms, foreach_lerp_ %.2f ms\n",
         Median(times[3]) * 1e3, Median(times[4]) * 1e3);
}

void MeasureSmall(int blocks) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> averages, sources;
  for (int i = 0; i < 1000; ++i) {
    averages.push_back(torch::randn({64}));
    sources.push_back(torch::randn({64}));
  }
  LerpKernel kernel = NewKernel(averages, sources);
  const auto update = [&] { Check(kernel.Mix({kMomentum})); };
  const auto times = TakeTurns(
      blocks, 200, {update, update, [&] {
                      at::_foreach_lerp_(averages, sources, kMomentum);
                    }});
  const double a_a = MedianRatio(times[1], times[0]);
  printf("1000 tensors of 64\n");
  printf("  (b)  EMA update          %8.2f us%s   (A/A %.4f)%s\n",
         Median(times[0]) * 1e6, Goal(a_a, "   (at most 8)"), a_a,
         NoResult(a_a));
  printf("       foreach_lerp_       %8.2f us\n", Median(times[2]) * 1e6);
}

// -------------------------------------------------------- in an iteration

// Block by block, by turns: nothing, an EMA hook, nothing, and in its place the
// bare update of an average of the same weights. As a whole, since either costs
// the next iteration the caches, too.
class Alternate : public Hook {
 public:
  enum Kind { kOff, kHook, kOffAgain, kUpdate, kNumKinds };

  Alternate(std::unique_ptr<EMAHook> inner, int block, int blocks)
      : inner_(std::move(inner)), block_(block), blocks_(blocks) {}

  absl::string_view name() const override { return "alternate"; }
  absl::Status Setup(RunContext& run) override {
    std::vector<torch::Tensor> averages, sources;
    for (const auto& parameter : run.model().parameters()) {
      averages.push_back(parameter.tensor.detach().clone());
      sources.push_back(parameter.tensor);
    }
    update_.emplace(NewKernel(averages, sources));
    return inner_->Setup(run);
  }
  absl::Status BeforeTrain(RunContext& run) override {
    return inner_->BeforeTrain(run);
  }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override {
    if (kind_ == kHook) Check(inner_->AfterTrainIter(run, info, log_vars));
    if (kind_ == kUpdate) Check(update_->Mix({kMomentum}));
    if (++done_ < block_) return absl::OkStatus();
    if (warm_) times[kind_].push_back((Now() - start_) / block_);
    if (++kind_ == kNumKinds) {
      kind_ = kOff;
      warm_ = true;
      if (static_cast<int>(times[kOff].size()) == blocks_) {
        run.RequestStop("done");
      }
    }
    done_ = 0;
    start_ = Now();
    return absl::OkStatus();
  }

  // What blocks of `kind` have more than those without anything around them.
  std::vector<double> Added(Kind kind) const {
    std::vector<double> added;
    for (size_t i = 0; i < times[kind].size(); ++i) {
      added.push_back(times[kind][i] -
                      (times[kOff][i] + times[kOffAgain][i]) / 2);
    }
    return added;
  }

  std::vector<double> times[kNumKinds];  // Of an iteration.

 private:
  const std::unique_ptr<EMAHook> inner_;
  const int block_, blocks_;
  std::optional<LerpKernel> update_;
  int done_ = 0, kind_ = kOff;
  bool warm_ = false;
  double start_ = 0;
};

void MeasureIteration(const std::string& dir, int blocks) {
  constexpr int kBlock = 50;
  RunnerOptions options;
  options.model = MlpModel();
  options.train_dataset = Digits();
  options.terminal_fd = NullTerminal();
  auto alternate = std::make_unique<Alternate>(
      Value(EMAHook::Create(EMAHook::Config())), kBlock, blocks);
  const Alternate& measured = *alternate;
  options.hooks.push_back(Schedule(std::move(alternate)));
  const auto runner =
      Value(Runner::Create(BenchConfig(dir, ""), std::move(options)));
  Check(runner->Train());
  const double hook = Median(measured.Added(Alternate::kHook));
  const double update = Median(measured.Added(Alternate::kUpdate));
  const double a_a = MedianRatio(measured.times[Alternate::kOffAgain],
                                 measured.times[Alternate::kOff]);
  printf("%s, %d blocks of %d\n", kMlpText, blocks, kBlock);
  printf("  iteration without EMA    %8.2f us   (A/A %.4f)%s\n",
         Median(measured.times[Alternate::kOff]) * 1e6, a_a, NoResult(a_a));
  printf("  the update adds          %8.2f us\n", update * 1e6);
  printf("  (c)  the EMA hook adds   %8.2f us   (%+.2f us%s)\n", hook * 1e6,
         (hook - update) * 1e6, Goal(a_a, "; no more"));
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const int blocks = argc > 1 ? std::max(1, atoi(argv[1])) : 31;
  at::set_num_threads(argc > 2 ? std::max(1, atoi(argv[2])) : 1);
  char dir[] = "/tmp/grapnel_averaging_XXXXXX";
  if (mkdtemp(dir) == nullptr) return 1;
  grapnel::MeasureLarge(blocks);
  grapnel::MeasureSmall(blocks);
  grapnel::MeasureIteration(dir, 8 * blocks);
  return grapnel::io::DeleteRecursively(grapnel::io::Env::Posix(), dir).ok()
             ? 0
             : 1;
}
