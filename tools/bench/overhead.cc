// What the runner and its hooks cost, against bare loops in the same process.
//
//   bazel run //tools/bench:overhead [-- BLOCKS]
//
// Blocks of iterations of the runner and of the bare loops take turns, so that
// what disturbs the machine disturbs all. Ratios are medians over the blocks;
// without an A/A ratio, of the bare loop to itself, near 1 they are no result,
// and no goal is printed.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tools/bench/iterations.h"
#include "grapnel/tools/bench/measure.h"
#include "torch/torch.h"

// ------------------------------------------------- counting heap allocations

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

extern "C" void* __libc_malloc(size_t size);
extern "C" void* __libc_calloc(size_t n, size_t size);
extern "C" void* __libc_realloc(void* p, size_t size);
extern "C" void* __libc_memalign(size_t alignment, size_t size);

extern "C" void* malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
extern "C" void* calloc(size_t n, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(n, size);
}
extern "C" void* realloc(void* p, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(p, size);
}
extern "C" int posix_memalign(void** p, size_t alignment, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  *p = __libc_memalign(alignment, size);
  return *p == nullptr ? ENOMEM : 0;
}

namespace grapnel {
namespace {

// ---------------------------------------------------------------- a real step

// Lets the bare loops run between two blocks of the runner's iterations.
class Interleave : public Hook {
 public:
  Interleave(int block, int blocks)
      : block_(block),
        blocks_(blocks),
        fused_(FusedLoop()),
        fused_again_(FusedLoop()),
        libtorch_(LibTorchLoop()) {}

  absl::string_view name() const override { return "interleave"; }
  Priority priority() const override { return Priority::kLowest; }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (++done_ < block_) return absl::OkStatus();
    const double end = Now();
    if (warm_) {
      runner.push_back((end - start_) / block_);
    }
    const auto time = [&](BareLoop& loop, std::vector<double>* times) {
      const double begin = Now();
      loop.Run(block_);
      if (warm_) times->push_back((Now() - begin) / block_);
    };
    time(*fused_, &fused);
    time(*libtorch_, &libtorch);
    time(*fused_again_, &fused_again);
    if (static_cast<int>(runner.size()) == blocks_) run.RequestStop("done");
    warm_ = true;
    done_ = 0;
    start_ = Now();
    return absl::OkStatus();
  }

  std::vector<double> runner, fused, fused_again, libtorch;

 private:
  const int block_, blocks_;
  const std::unique_ptr<BareLoop> fused_, fused_again_, libtorch_;
  int done_ = 0;
  bool warm_ = false;
  double start_ = 0;
};

void MeasureRealStep(const std::string& dir, int blocks) {
  constexpr int kBlock = 200;
  RunnerOptions options;
  options.model = MlpModel();
  options.train_dataset = Digits();
  options.terminal_fd = NullTerminal();
  auto interleave = std::make_unique<Interleave>(kBlock, blocks);
  const Interleave& measured = *interleave;
  options.hooks.push_back(Schedule(std::move(interleave)));
  const auto runner =
      Value(Runner::Create(BenchConfig(dir, ""), std::move(options)));
  Check(runner->Train());
  const double a_a = MedianRatio(measured.fused_again, measured.fused);
  printf("%s, 1 thread, %zu blocks of %d\n", kMlpText, measured.runner.size(),
         kBlock);
  printf("  bare loop, fused SGD     %8.1f us\n", Median(measured.fused) * 1e6);
  printf("  bare loop, LibTorch SGD  %8.1f us\n",
         Median(measured.libtorch) * 1e6);
  printf("  runner, six hooks        %8.1f us\n",
         Median(measured.runner) * 1e6);
  printf("  A/A  bare / bare                      %.4f%s\n", a_a,
         NoResult(a_a));
  printf("  (a)  runner / bare, same kernel       %.4f%s\n",
         MedianRatio(measured.runner, measured.fused),
         Goal(a_a, "   (at most 1.01)"));
  printf("  (b)  runner / bare, LibTorch's SGD    %.4f%s\n",
         MedianRatio(measured.runner, measured.libtorch),
         Goal(a_a, "   (at most 1.00)"));
}

// -------------------------------------------------------------- an empty step

// Of one iteration, on average.
struct Cost {
  double ns = 0;
  double allocations = 0;
};

// Runs `iterations` with the QuietConfig of the other arguments.
Cost RunEmpty(const std::string& dir, int iterations, int logger_interval,
              const std::vector<std::string>& off,
              const std::string& rest = "") {
  RunnerOptions options;
  options.model = EmptyModel();
  options.train_dataset = EmptyData();
  options.terminal_fd = NullTerminal();
  double start = 0;
  int64_t start_allocations = 0;
  Cost cost;
  Window window;
  window.iterations = iterations;
  window.begin = [&] {
    start = Now();
    start_allocations = allocations.load();
  };
  window.end = [&] {
    cost.allocations =
        static_cast<double>(allocations.load() - start_allocations) /
        iterations;
    cost.ns = (Now() - start) / iterations * 1e9;
  };
  TrainThrough(window, QuietConfig(dir, off, logger_interval, rest),
               std::move(options));
  return cost;
}

// The same loader and model in a loop written by hand.
Cost RunByHand(int iterations) {
  EmptyLoop loop;
  loop.Run(1000);
  const double start = Now();
  const int64_t start_allocations = allocations.load();
  loop.Run(iterations);
  Cost cost;
  cost.allocations =
      static_cast<double>(allocations.load() - start_allocations) / iterations;
  cost.ns = (Now() - start) / iterations * 1e9;
  return cost;
}

void MeasureEmptyStep(const std::string& dir, int blocks) {
  constexpr int kIterations = 20000;
  const std::vector<std::string> slots = DefaultSlots();
  const std::vector<AddedHook> hooks = AddedHooks();
  std::vector<double> all, none, by_hand, by_hand_again, logging;
  std::vector<std::vector<double>> without(slots.size()), with(hooks.size());
  double extra_allocations = 0;
  for (int i = 0; i < blocks; ++i) {
    const Cost with_all = RunEmpty(dir, kIterations, kNever, {});
    const Cost hand = RunByHand(kIterations);
    all.push_back(with_all.ns);
    by_hand.push_back(hand.ns);
    by_hand_again.push_back(RunByHand(kIterations).ns);
    none.push_back(RunEmpty(dir, kIterations, kNever, slots).ns);
    for (size_t s = 0; s < slots.size(); ++s) {
      without[s].push_back(RunEmpty(dir, kIterations, kNever, {slots[s]}).ns);
    }
    for (size_t h = 0; h < hooks.size(); ++h) {
      with[h].push_back(
          RunEmpty(dir, kIterations, kNever, {}, hooks[h].config).ns);
    }
    logging.push_back(RunEmpty(dir, 2000, 1, {}).ns);
    extra_allocations = std::max(
        extra_allocations, std::abs(with_all.allocations - hand.allocations));
  }
  const double a_a = MedianRatio(by_hand_again, by_hand);
  printf("empty model, %d runs of %d iterations\n", blocks, kIterations);
  printf("  loader and model in a loop by hand   %6.0f ns   (A/A %.4f)%s\n",
         Median(by_hand), a_a, NoResult(a_a));
  printf("  (c)  runner and six hooks, more than that   %.0f ns%s\n",
         Median(all) - Median(by_hand), Goal(a_a, "   (below 300)"));
  printf("       runner alone                           %.0f ns\n",
         Median(none) - Median(by_hand));
  for (size_t s = 0; s < slots.size(); ++s) {
    printf("       %-16s                       %.0f ns\n", slots[s].c_str(),
           Median(all) - Median(without[s]));
  }
  printf("  hooks that a config adds, each\n");
  for (size_t h = 0; h < hooks.size(); ++h) {
    printf("       %-18s                     %.0f ns\n", hooks[h].name.c_str(),
           Median(with[h]) - Median(all));
  }
  printf("  (d)  an iteration that logs                 %.1f us%s\n",
         (Median(logging) - Median(by_hand)) / 1000,
         Goal(a_a, "   (below 50)"));
  printf("  (e)  heap allocations an iteration more than by hand  %.4f   (0)\n",
         extra_allocations);
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const int blocks = argc > 1 ? std::max(1, atoi(argv[1])) : 31;
  at::set_num_threads(1);
  char dir[] = "/tmp/grapnel_overhead_XXXXXX";
  if (mkdtemp(dir) == nullptr) return 1;
  grapnel::MeasureRealStep(absl::StrCat(dir, "/real"), blocks);
  grapnel::MeasureEmptyStep(absl::StrCat(dir, "/empty"), blocks);
  return grapnel::io::DeleteRecursively(grapnel::io::Env::Posix(), dir).ok()
             ? 0
             : 1;
}
