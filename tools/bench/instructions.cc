// Runs the iterations whose instructions instructions.py counts, by valgrind:
//
//   valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no
//     --separate-threads=yes instructions_program WORK_DIR
//
// Each leaves a dump with its name as the trigger. Prints lines of fields with
// tabs between: what the counts depend on, and what was run.
//
//   tool   NAME   VERSION
//   run    NAME   ITERATIONS   the NAME whose count to take away, or "-"

#include <gnu/libc-version.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/Parallel.h"
#include "ATen/Version.h"
#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/stubs/common.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/averaging/lerp_kernel.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tools/bench/iterations.h"
#include "grapnel/tools/bench/measure.h"
#include "torch/headeronly/version.h"
#include "valgrind/callgrind.h"

namespace grapnel {
namespace {

// What is seen, and then formatted, is the same in every run. A look costs
// what it does, but for the time of day, whose cost in Abseil varies.
class RepeatableClock : public Clock {
 public:
  int64_t NowNanos() const override {
    Clock::System().NowNanos();
    return now_ += 1000000;
  }
  absl::Time WallTime() const override {
    return absl::FromUnixSeconds(1700000000);
  }

 private:
  mutable std::atomic<int64_t> now_{0};
};

// The MLP's iterations are few, since valgrind is slow with a fused multiply
// and add. Those of the empty model are what all intervals divide.
constexpr int kMlp = 8, kEmpty = 1600, kLogging = 200;

bool counting = false;

void Begin() {
  counting = true;
  CALLGRIND_TOGGLE_COLLECT;
}

void End(const std::string& name, int iterations,
         const std::string& base = "-") {
  CALLGRIND_TOGGLE_COLLECT;
  counting = false;
  CALLGRIND_DUMP_STATS_AT(name.c_str());
  printf("run\t%s\t%d\t%s\n", name.c_str(), iterations, base.c_str());
}

// Lets the log's thread write all there is, uncounted: whether it sleeps when
// the next line comes is otherwise chance, and waking it costs instructions.
class DrainLog : public Hook {
 public:
  absl::string_view name() const override { return "drain_log"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (counting) CALLGRIND_TOGGLE_COLLECT;
    const absl::Status status = run.log().Flush();
    if (counting) CALLGRIND_TOGGLE_COLLECT;
    return status;
  }
};

struct Training {
  std::string name;
  std::string base = "-";
  int iterations = kEmpty;
  bool mlp = false;
  bool log_in_background = true;
  // As QuietConfig's.
  std::vector<std::string> off;
  int logger_interval = kNever;
  std::string rest;
};

void Train(const std::string& work_dir, const Training& training) {
  static const auto& clock = *new RepeatableClock;
  RunnerOptions options;
  options.clock = &clock;
  options.model = training.mlp ? MlpModel() : EmptyModel();
  options.train_dataset = training.mlp ? Digits() : EmptyData();
  options.terminal_fd = NullTerminal();
  options.log_in_background = training.log_in_background;
  if (training.logger_interval != kNever) {
    options.hooks.push_back(Schedule(std::make_unique<DrainLog>()));
  }
  Window window;
  window.warm_up = training.iterations;
  window.iterations = training.iterations;
  window.begin = Begin;
  window.end = [&] { End(training.name, training.iterations, training.base); };
  TrainThrough(window,
               QuietConfig(work_dir, training.off, training.logger_interval,
                           training.rest),
               std::move(options));
}

// ------------------------------------------------------------- what is counted

// A loop by hand, around it a runner without hooks, and with the default ones.
void CountMlp(const std::string& work_dir) {
  const std::unique_ptr<BareLoop> loop = FusedLoop();
  loop->Run(kMlp);
  Begin();
  loop->Run(kMlp);
  End("mlp/bare_loop", kMlp);
  Training training;
  training.iterations = kMlp;
  training.mlp = true;
  training.name = "mlp/default_hooks";
  Train(work_dir, training);
  training.name = "mlp/runner";
  training.off = DefaultSlots();
  Train(work_dir, training);
}

// The same where the model does nothing. The default hooks also with a line of
// the log in every iteration: what the loop pays, and with the writing.
void CountEmpty(const std::string& work_dir) {
  EmptyLoop loop;
  loop.Run(kEmpty);
  Begin();
  loop.Run(kEmpty);
  End("empty/loop", kEmpty);
  Training training;
  training.base = "empty/loop";
  training.name = "empty/default_hooks";
  Train(work_dir, training);
  Training logging = training;
  logging.iterations = kLogging;
  logging.logger_interval = 1;
  logging.name = "empty/logs";
  Train(work_dir, logging);
  logging.log_in_background = false;
  logging.name = "empty/logs_at_once";
  Train(work_dir, logging);
  training.name = "empty/runner";
  training.off = DefaultSlots();
  Train(work_dir, training);
}

// Each hook alone, where its interval doesn't fire.
void CountHooks(const std::string& work_dir) {
  const std::vector<std::string> slots = DefaultSlots();
  const std::vector<AddedHook> added = AddedHooks();
  if (slots.size() + added.size() != RegisteredHookConfigs().size()) {
    Check(absl::InternalError(
        "a hook is linked that neither a default slot nor AddedHooks() in "
        "tools/bench/iterations.cc has: add its config there"));
  }
  Training training;
  training.base = "empty/runner";
  for (const std::string& slot : slots) {
    training.name = absl::StrCat("hook/", DefaultHookName(slot));
    training.off = slots;
    training.off.erase(
        std::find(training.off.begin(), training.off.end(), slot));
    if (slot == "param_scheduler") {
      training.rest =
          "param_scheduler { linear { by_epoch: false end: 1000000 } }";
    } else {
      training.rest = "";
    }
    Train(work_dir, training);
  }
  training.off = slots;
  for (const AddedHook& hook : added) {
    training.name = absl::StrCat("hook/", hook.name);
    training.rest = hook.config;
    Train(work_dir, training);
  }
}

void CountAverage() {
  constexpr int kUpdates = 100;
  std::vector<AveragedTensor> pairs;
  for (int i = 0; i < 1000; ++i) {
    pairs.push_back({absl::StrCat(i), ops::zeros({64}), ops::ones({64})});
  }
  LerpKernel kernel = Value(LerpKernel::Create(std::move(pairs)));
  const auto update = [&] {
    for (int i = 0; i < kUpdates; ++i) Check(kernel.Mix({0.0002}));
  };
  update();
  Begin();
  update();
  End("average/1000_of_64", kUpdates);
}

void PrintTools() {
#ifdef __OPTIMIZE__
  const char kOptimized[] = "";
#else
  const char kOptimized[] = ", not optimized";
#endif
#ifdef __clang__
  const char kCompiler[] = "";  // Its version says who it is.
#else
  const char kCompiler[] = "gcc ";
#endif
  printf("tool\tcompiler\t%s%s%s\n", kCompiler, __VERSION__, kOptimized);
  printf("tool\tLibTorch\t%s, %s\n", TORCH_VERSION,
         at::get_cpu_capability().c_str());
  printf("tool\tglibc\t%s\n", gnu_get_libc_version());
  printf("tool\tAbseil\t%d\n", ABSL_LTS_RELEASE_VERSION);
  printf("tool\tprotobuf\t%d\n", GOOGLE_PROTOBUF_VERSION);
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s WORK_DIR\n", argv[0]);
    return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);  // Who waits sees how far it is.
  at::set_num_threads(1);
  grapnel::PrintTools();
  CALLGRIND_START_INSTRUMENTATION;
  grapnel::CountMlp(argv[1]);
  grapnel::CountEmpty(argv[1]);
  grapnel::CountHooks(argv[1]);
  grapnel::CountAverage();
}
