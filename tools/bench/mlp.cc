// Iterations of the MLP in C++, on demand: for each number that a line of stdin
// has, does as many and prints the nanoseconds that one took. languages.py lets
// programs in several languages take turns so.
//
//   mlp fused       a loop by hand, with Grapnel's SGD
//   mlp libtorch    the same with LibTorch's
//   mlp runner      Runner::Step, with a hook that does nothing

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "ATen/Parallel.h"
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

namespace grapnel {
namespace {

class DoesNothing : public Hook {
 public:
  absl::string_view name() const override { return "nothing"; }
  absl::Status AfterTrainIter(RunContext&, const IterInfo&,
                              const LogVars&) override {
    return absl::OkStatus();
  }
};

// Null if there is no such kind. `dir` is the run's, if it is one.
std::function<void(int)> Iterations(absl::string_view kind,
                                    const std::string& dir) {
  if (kind == "fused" || kind == "libtorch") {
    std::shared_ptr<BareLoop> loop =
        kind == "fused" ? FusedLoop() : LibTorchLoop();
    return [loop](int iterations) { loop->Run(iterations); };
  }
  if (kind != "runner") return nullptr;
  RunnerOptions options;
  options.model = MlpModel();
  options.train_dataset = Digits();
  options.terminal_fd = NullTerminal();
  options.hooks.push_back(Schedule(std::make_unique<DoesNothing>()));
  std::shared_ptr<Runner> runner =
      Value(Runner::Create(QuietConfig(dir, {}, kNever), std::move(options)));
  return [runner](int iterations) {
    for (int i = 0; i < iterations; ++i) Value(runner->Step());
  };
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  at::set_num_threads(1);
  char dir[] = "/tmp/grapnel_mlp_XXXXXX";
  if (mkdtemp(dir) == nullptr) return 1;
  {
    const auto run = argc == 2 ? grapnel::Iterations(argv[1], dir)
                               : std::function<void(int)>();
    if (run == nullptr) {
      std::fputs("usage: mlp fused|libtorch|runner\n", stderr);
      rmdir(dir);
      return 2;
    }
    for (int iterations = 0;
         std::scanf("%d", &iterations) == 1 && iterations > 0;) {
      const double begin = grapnel::Now();
      run(iterations);
      std::printf("%.1f\n", (grapnel::Now() - begin) / iterations * 1e9);
      std::fflush(stdout);
    }
  }
  return grapnel::io::DeleteRecursively(grapnel::io::Env::Posix(), dir).ok()
             ? 0
             : 1;
}
