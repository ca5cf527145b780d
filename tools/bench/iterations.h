// The iterations that the benchmarks measure: of an MLP on digits, and of a
// model that does nothing, where what the runner and its hooks do isn't lost
// among the work of matrices.

#ifndef GRAPNEL_TOOLS_BENCH_ITERATIONS_H_
#define GRAPNEL_TOOLS_BENCH_ITERATIONS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {

// An interval that no run comes to.
inline constexpr int kNever = 1000000000;

// What the MLP is, and its batches.
extern const char kMlpText[];

// The MLP and its data, whose numbers are random. There is one of either in a
// process, which all share: where tensors lie in memory moves an iteration by
// more than what is measured here.
std::unique_ptr<Model> MlpModel();
std::unique_ptr<Dataset> Digits();

// An iteration of the MLP as a user would write it by hand.
class BareLoop {
 public:
  virtual ~BareLoop() = default;
  virtual void Run(int iterations) = 0;
};

// Around Grapnel's SGD, which is ATen's fused kernel, and LibTorch's own.
std::unique_ptr<BareLoop> FusedLoop();
std::unique_ptr<BareLoop> LibTorchLoop();

// Does nothing, and has something to log. It has one parameter.
std::unique_ptr<Model> EmptyModel();
std::unique_ptr<Dataset> EmptyData();

// The empty model and its loader in a loop by hand.
class EmptyLoop {
 public:
  EmptyLoop();
  void Run(int iterations);

 private:
  const std::unique_ptr<DataLoader> loader_;
  const std::unique_ptr<Model> model_;
  const std::unique_ptr<OptimWrapper> optim_;
  Batch batch_;
  LogVars log_vars_;
};

// Batches of 32 and SGD, with `rest` as text.
runner::v1::RunnerConfig BenchConfig(const std::string& work_dir,
                                     const std::string& rest);

// The same over endless data and with nothing saved: the default hooks but
// those of the slots `off`, where a Logger writes every `logger_interval`
// iterations.
runner::v1::RunnerConfig QuietConfig(const std::string& work_dir,
                                     const std::vector<std::string>& off,
                                     int logger_interval,
                                     const std::string& rest = "");

// The slots of the default hooks.
std::vector<std::string> DefaultSlots();

// Hooks that a config adds, with intervals that never come, but for EMA's,
// which comes at every iteration.
struct AddedHook {
  std::string name;
  std::string config;  // Text.
};
std::vector<AddedHook> AddedHooks();

// Where lines go as a service's do, for RunnerOptions::terminal_fd.
int NullTerminal();

// Trains, and calls `begin` when `warm_up` iterations are done, so that nothing
// is made for the first time, and `end` `iterations` later. At `begin` the log
// has nothing left to write.
struct Window {
  int warm_up = 1000;
  int iterations = 0;
  std::function<void()> begin, end;
};
void TrainThrough(const Window& window, runner::v1::RunnerConfig config,
                  RunnerOptions options);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_BENCH_ITERATIONS_H_
