// A host program: runners are made, trained, failed, interrupted and destroyed
// in random order, some at once and some within each other, and the process is
// as if they had never been there.

#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <clocale>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/Parallel.h"
#include "ATen/autocast_mode.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/GradMode.h"
#include "c10/core/InferenceMode.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

constexpr int64_t kDefaultRuns = 100;

int64_t FromEnvironment(const char* name, int64_t value) {
  const char* const text = std::getenv(name);
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) {
    ADD_FAILURE() << name << ": is no number: " << text;
  }
  return value;
}

// ------------------------------------------------------- a process's state

std::vector<std::string> Names(const char* dir) {
  std::vector<std::string> names;
  DIR* const stream = opendir(dir);
  if (stream == nullptr) return names;
  while (const dirent* entry = readdir(stream)) names.push_back(entry->d_name);
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

std::string Hex(const void* bytes, size_t size) {
  return std::to_string(std::hash<std::string>()(
      std::string(static_cast<const char*>(bytes), size)));
}

// A line for each thing that a guest might leave otherwise.
std::vector<std::string> ProcessState() {
  std::vector<std::string> state;
  const auto add = [&state](const std::string& name, const auto& value) {
    state.push_back(absl::StrCat(name, ": ", value));
  };
  sigset_t mask, pending;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  sigpending(&pending);
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) != 0) continue;
    add(absl::StrCat("signal ", signal),
        absl::StrCat(reinterpret_cast<uintptr_t>(action.sa_handler), " ",
                     action.sa_flags, " ", sigismember(&mask, signal), " ",
                     sigismember(&pending, signal)));
  }
  add("handlers",
      absl::StrCat(reinterpret_cast<uintptr_t>(std::get_terminate()), " ",
                   reinterpret_cast<uintptr_t>(std::get_new_handler())));
  add("threads", Names("/proc/self/task").size());
  add("open files", absl::StrJoin(Names("/proc/self/fd"), " "));
  fenv_t environment;
  fegetenv(&environment);
  // Not the flags of what has happened: of how numbers are made.
  add("floating point", absl::StrCat(fegetround(), " ", fegetexcept(), " ",
                                     environment.__control_word & 0x0f3f, " ",
                                     environment.__mxcsr & ~0x3fu));
  const at::Tensor generator = at::detail::getDefaultCPUGenerator().get_state();
  add("generator", Hex(generator.const_data_ptr(), generator.nbytes()));
  const at::Context& context = at::globalContext();
  add("deterministic",
      absl::StrCat(context.deterministicAlgorithms(), " ",
                   context.deterministicAlgorithmsWarnOnly(), " ",
                   context.deterministicFillUninitializedMemory()));
  add("autograd", absl::StrCat(c10::GradMode::is_enabled(), " ",
                               c10::InferenceMode::is_enabled()));
  add("autocast", absl::StrCat(at::autocast::is_autocast_enabled(at::kCPU), " ",
                               at::autocast::is_autocast_cache_enabled()));
  add("torch threads", at::get_num_threads());
  char* const dir = getcwd(nullptr, 0);
  add("current directory", std::string(dir));
  free(dir);
  const mode_t file_mask = umask(0);
  umask(file_mask);
  add("umask", file_mask);
  add("locale", std::string(std::setlocale(LC_ALL, nullptr)));
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    variables.push_back(*variable);
  }
  add("environment", Hex(absl::StrJoin(variables, "\n").data(),
                         absl::StrJoin(variables, "\n").size()));
  return state;
}

// What comes to stderr while it lives.
class CapturedStderr {
 public:
  CapturedStderr()
      : path_(testing::TempDir() + "/host_stderr"), before_(dup(2)) {
    const int file = open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    EXPECT_GE(file, 0);
    dup2(file, 2);
    close(file);
  }
  ~CapturedStderr() { Restore(); }

  std::string Restore() {
    if (before_ < 0) return "";
    dup2(before_, 2);
    close(std::exchange(before_, -1));
    return io::ReadFile(io::Env::Posix(), path_).value_or("can't be read");
  }

 private:
  const std::string path_;
  int before_;
};

// ------------------------------------------------------------------ the runs

constexpr char kConfig[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 4 } }
      layers { dropout { p: 0.5 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 4 }
  train_cfg { max_epochs: 2 }
  optim_wrapper { optimizer { sgd { lr: 0.1 momentum: 0.9 } } }
  val_evaluator { mse {} }
  default_hooks {
    checkpoint { interval: 1 max_keep_ckpts: 1 save_best: "mse" rule: "less" }
  }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {}
    }
  }
)pb";

// What a run is made to meet.
enum class Fate {
  kNothing,
  kError,       // Of a hook, at some point.
  kException,   // Of a hook, at some point.
  kInterrupt,   // At some iteration of training or validation.
  kStop,        // Asked for by another thread.
  kFullDisk,    // At some operation.
  kBadConfig,   // Which is refused.
  kBadWeights,  // A file to load from that is none.
  kRunInside,   // A hook has a run of its own.
  kNumFates,
};

class FateHook : public Hook {
 public:
  FateHook(int at, std::function<absl::Status(RunContext&)> act)
      : at_(at), act_(std::move(act)) {}
  absl::string_view name() const override { return "fate"; }
  absl::Status BeforeRun(RunContext& run) override { return Count(run); }
  absl::Status BeforeTrain(RunContext& run) override { return Count(run); }
  absl::Status BeforeIter(RunContext& run, Mode, const IterInfo&) override {
    return Count(run);
  }
  absl::Status AfterIter(RunContext& run, Mode, const IterInfo&) override {
    return Count(run);
  }
  absl::Status AfterOptimizerStep(RunContext& run, const StepResult&) override {
    return Count(run);
  }
  absl::Status AfterEpoch(RunContext& run, Mode) override { return Count(run); }
  absl::Status AfterTrain(RunContext& run) override { return Count(run); }
  absl::Status AfterRun(RunContext& run) override { return Count(run); }

 private:
  absl::Status Count(RunContext& run) {
    return ++calls_ == at_ ? act_(run) : absl::OkStatus();
  }

  const int at_;
  const std::function<absl::Status(RunContext&)> act_;
  int calls_ = 0;
};

class Host {
 public:
  explicit Host(uint64_t seed) : random_(seed) {}

  // One runner's life, in a folder of its own of `env`.
  void Live(io::Env& base, const std::string& work_dir, int depth) {
    const Fate fate =
        static_cast<Fate>(Below(static_cast<int>(Fate::kNumFates)));
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.set_work_dir(work_dir);
    config.mutable_randomness()->set_seed(Below(1000));
    config.mutable_randomness()->set_deterministic(Below(2) == 0);
    config.mutable_train_dataloader()->set_num_workers(Below(3));
    config.mutable_val_dataloader()->set_num_workers(Below(2));
    config.set_resume(Below(2) == 0);
    if (Below(2) == 0) {
      config.mutable_train_cfg()->Clear();
      config.mutable_train_cfg()->set_by_epoch(false);
      config.mutable_train_cfg()->set_max_iters(6);
      config.mutable_train_cfg()->set_val_interval(2);
    }
    if (Below(3) == 0) {
      config.mutable_optim_wrapper()->mutable_amp()->set_dtype(
          optim::v1::AmpConfig::BFLOAT16);
    }
    if (fate == Fate::kBadConfig) {
      config.mutable_optim_wrapper()
          ->mutable_optimizer()
          ->mutable_sgd()
          ->set_lr(-1);
    }
    if (fate == Fate::kBadWeights) {
      config.set_load_from(work_dir + "/nothing");
      config.set_resume(false);
    }

    io::FaultInjectionEnv disk(base, work_dir);
    if (fate == Fate::kFullDisk) {
      disk.FailOperation(
          Below(200), absl::ResourceExhaustedError("no space left"),
          Below(2) == 0 ? io::FaultInjectionEnv::Times::kOnce
                        : io::FaultInjectionEnv::Times::kFromThenOn);
    }
    std::atomic<int> interrupt{0};
    RunnerOptions options;
    options.env = &disk;
    options.interrupt = &interrupt;
    options.log_in_background = Below(4) != 0;
    for (auto* dataset : {&options.train_dataset, &options.val_dataset}) {
      const at::Tensor x = ops::arange(24, at::kFloat).div(24).reshape({12, 2});
      *dataset = *TensorDataset::Create(x, x.sum(1, /*keepdim=*/true));
    }
    const auto act = [&](RunContext& run) -> absl::Status {
      switch (fate) {
        case Fate::kError:
          return absl::InternalError("a hook's error");
        case Fate::kException:
          if (Below(2) == 0) throw std::bad_alloc();
          throw std::runtime_error("a hook's exception");
        case Fate::kInterrupt:
          interrupt = 1;
          break;
        case Fate::kStop:
          std::thread([&run] { run.RequestStop("a thread's wish"); }).join();
          break;
        case Fate::kRunInside:
          if (depth < 2) Live(base, work_dir + "/inside", depth + 1);
          break;
        default:
          break;
      }
      return absl::OkStatus();
    };
    options.hooks.push_back(
        Schedule(std::make_unique<FateHook>(1 + Below(40), act)));

    auto created = Runner::Create(config, std::move(options));
    ++runs_;
    if (!created.ok()) {
      ++refused_;
      return;
    }
    std::unique_ptr<Runner> runner = *std::move(created);
    for (int calls = Below(4); calls > 0; --calls) {
      absl::Status status;
      switch (Below(4)) {
        case 0:
          status = runner->Val().status();
          break;
        case 1:
          status = runner->Export("/nowhere/model.pt");
          break;
        default:
          status = runner->Train();
      }
      ++(status.ok() ? good_ : bad_);
      // What a host does between calls.
      if (Below(2) == 0) disk.StopFailing();
      interrupt = 0;
    }
  }

  int Below(int n) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(random_() % n);
  }
  std::string Summary() const {
    return absl::StrCat(runs_.load(), " runners, ", refused_.load(),
                        " refused; ", good_.load(), " calls were OK, ",
                        bad_.load(), " failed");
  }
  int runs() const { return runs_; }
  int good() const { return good_; }
  int bad() const { return bad_; }

 private:
  std::mutex mutex_;
  std::mt19937_64 random_;
  std::atomic<int> runs_{0}, refused_{0}, good_{0}, bad_{0};
};

TEST(HostTest, TheProcessIsAsItWas) {
  const int64_t runs = FromEnvironment("GRAPNEL_RUNS", kDefaultRuns);
  const uint64_t seed =
      static_cast<uint64_t>(FromEnvironment("GRAPNEL_SEED", 1));
  Host host(seed);
  at::set_num_threads(1);  // LibTorch's own pool is none of ours.
  const std::string root = testing::TempDir() + "/host";
  io::Env& posix = io::Env::Posix();
  if (posix.FileExists(root)) {
    ASSERT_THAT(io::DeleteRecursively(posix, root), IsOk());
  }
  // What a library does once in a process is done.
  {
    io::MemEnv env;
    for (int i = 0; i < 10; ++i) Host(i).Live(env, "/first", 0);
  }
  // A host with state of its own.
  signal(SIGUSR1, [](int) {});
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  at::manual_seed(17);
  fesetround(FE_TOWARDZERO);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  const c10::NoGradGuard no_grad;

  CapturedStderr captured;
  const std::vector<std::string> before = ProcessState();
  for (int64_t round = 0; host.runs() < runs && !testing::Test::HasFailure();
       ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round, " of seed ", seed));
    if (host.Below(4) == 0) {
      // Several at once, each on a thread of its own.
      std::vector<std::thread> threads;
      for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&host, &root, i] {
          host.Live(io::Env::Posix(), absl::StrCat(root, "/thread_", i), 0);
        });
      }
      for (std::thread& thread : threads) thread.join();
    } else {
      io::MemEnv env;
      const bool on_disk = host.Below(2) == 0;
      io::Env& chosen = on_disk ? posix : env;
      const std::string dir = on_disk ? root + "/run" : "/run";
      for (int again = host.Below(3); again >= 0; --again) {
        host.Live(chosen, dir, 0);
      }
      host.Live(chosen, dir + "/last", 1);
    }
    ASSERT_EQ(ProcessState(), before);
  }
  const std::vector<std::string> after = ProcessState();
  const std::string said = captured.Restore();
  fesetround(FE_TONEAREST);
  at::globalContext().setDeterministicAlgorithms(false, false);
  EXPECT_EQ(after, before);
  EXPECT_EQ(said, "");
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed),
              host.Summary().c_str());
  EXPECT_GT(host.good(), 0);
  EXPECT_GT(host.bad(), 0);
  EXPECT_THAT(io::DeleteRecursively(posix, root), IsOk());
}

}  // namespace
}  // namespace grapnel
