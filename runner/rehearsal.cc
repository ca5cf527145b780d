#include "grapnel/runner/rehearsal.h"

#include <sys/resource.h>

#include <memory>
#include <set>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"
#include "grapnel/io/overlay_env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/models/shape.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using Report = RehearsalReport;

constexpr char kName[] = "rehearsal";  // The hook's that looks on.
constexpr int kMostIterations = 20;
constexpr absl::Duration kEnough = absl::Seconds(1);

// Keeps what a user should know.
class WarningLog : public RunLog {
 public:
  void Write(Level level, absl::string_view message) override {
    if (level == Level::kWarning) Warning(message);
  }
  void Warning(absl::string_view message) override {
    // No checkpoint has it.
    if (absl::StrContains(message, absl::StrCat("hook \"", kName, "\"")))
      return;
    if (seen_.emplace(message).second) warnings.emplace_back(message);
  }
  absl::Status Flush() override { return absl::OkStatus(); }

  std::vector<std::string> warnings;

 private:
  std::set<std::string> seen_;
};

Report::Tensor Describe(const at::Tensor& tensor) {
  Report::Tensor described;
  if (!tensor.defined()) return described;
  described.shape = ShapeString(tensor.sizes());
  described.dtype = c10::toString(tensor.scalar_type());
  described.numel = tensor.numel();
  described.trained = tensor.requires_grad();
  return described;
}

std::vector<Report::Tensor> DescribeAll(const std::vector<NamedTensor>& tensors,
                                        int64_t* bytes) {
  std::vector<Report::Tensor> described;
  for (const NamedTensor& tensor : tensors) {
    described.push_back(Describe(tensor.tensor));
    described.back().name = tensor.name;
    *bytes += static_cast<int64_t>(tensor.tensor.nbytes());
  }
  return described;
}

// Looks on, behind all other hooks, and ends a call of the runner when it has
// seen enough.
class Watch : public Hook {
 public:
  explicit Watch(Report* report) : report_(*report) {}

  absl::string_view name() const override { return kName; }
  Priority priority() const override { return Priority::kLowest; }

  void Begin(Report::Part* part) {
    part_ = part;
    enough_ = false;
    data_ = absl::ZeroDuration();
  }
  // It has ended the call, whose status is no error then.
  bool enough() const { return enough_; }

  absl::Status BeforeIter(RunContext& run, Mode, const IterInfo&) override {
    began_ = Now(run);
    if (part_->iterations == 0) first_ = began_;
    return absl::OkStatus();
  }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override {
    Look(run, info, at::Tensor());
    if (part_->iterations == 1) {
      GRAPNEL_RETURN_IF_ERROR(LookAtFirst(run, log_vars));
    }
    return part_->iterations >= kMostIterations || ended_ - first_ >= kEnough
               ? Enough()
               : absl::OkStatus();
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                            const Predictions& predictions) override {
    if (run.training()) return absl::OkStatus();
    Look(run, info, predictions.outputs);
    return Enough();
  }
  absl::Status AfterTestIter(RunContext& run, const IterInfo& info,
                             const Predictions& predictions) override {
    return AfterValIter(run, info, predictions);
  }

  // What comes next in training is long, or large.
  absl::Status AfterTrainEpoch(RunContext&) override { return AfterAny(); }
  absl::Status BeforeVal(RunContext& run) override {
    return run.training() ? AfterAny() : absl::OkStatus();
  }
  absl::Status BeforeSaveCheckpoint(RunContext&,
                                    io::CheckpointContents&) override {
    return AfterAny();
  }

 private:
  // A run may resume before any of these.
  absl::Status AfterAny() {
    return part_->iterations > 0 ? Enough() : absl::OkStatus();
  }

  static absl::Duration Now(RunContext& run) {
    return absl::Nanoseconds(run.clock().NowNanos());
  }

  void Look(RunContext& run, const IterInfo& info, const at::Tensor& outputs) {
    const absl::Duration now = Now(run);
    if (++part_->iterations == 1) {
      part_->inputs = Describe(info.batch->inputs);
      part_->targets = Describe(info.batch->targets);
      part_->outputs = Describe(outputs);
      part_->iteration = now - began_;
      after_first_ = now;
    } else {
      const int n = part_->iterations - 1;
      data_ += began_ - ended_;
      part_->iteration = (now - after_first_) / n;
      part_->waited = data_ / n;
    }
    ended_ = now;
  }

  absl::Status LookAtFirst(RunContext& run, const LogVars& log_vars) {
    return CatchAsStatus([&] {
      for (const NamedTensor& value : log_vars) {
        report_.losses.emplace_back(value.name, value.tensor.item().toDouble());
      }
      for (const NamedTensor& parameter : run.model().parameters()) {
        const at::Tensor& gradient = parameter.tensor.grad();
        if (!gradient.defined()) continue;
        report_.gradient_bytes += static_cast<int64_t>(gradient.nbytes());
      }
      return absl::OkStatus();
    });
  }

  absl::Status Enough() {
    enough_ = true;
    return absl::CancelledError("enough was seen");
  }

  Report& report_;
  Report::Part* part_ = nullptr;
  bool enough_ = false;
  absl::Duration first_, after_first_, began_, ended_, data_;
};

class RehearsalImpl final : public Rehearsal {
 public:
  explicit RehearsalImpl(const RunnerOptions& options)
      : env_(options.env != nullptr ? *options.env : io::Env::Posix()) {}

  absl::Status Init(const runner::v1::RunnerConfig& config,
                    RunnerOptions options) {
    runner::v1::RunnerConfig alone = config;
    alone.clear_launcher();  // Nobody else is started.
    trains_ = options.for_training && config.has_train_cfg();
    auto watch = std::make_unique<Watch>(&report_);
    watch_ = watch.get();
    options.hooks.push_back(Schedule(std::move(watch)));
    options.env = &env_;
    options.log = &log_;
    options.log_in_background = false;
    options.terminal_fd = -1;
    GRAPNEL_ASSIGN_OR_RETURN(runner_,
                             Runner::Create(alone, std::move(options)));
    return absl::OkStatus();
  }

  absl::StatusOr<Report> Run() override {
    RunContext& run = runner_->context();
    if (trains_) {
      GRAPNEL_RETURN_IF_ERROR(Try(Mode::kTrain, "train_dataloader",
                                  [this] { return runner_->Train(); }));
      report_.max_epochs = run.max_epochs();
      report_.max_iters = run.max_iters();
      report_.by_epoch = run.by_epoch();
      optim::v1::OptimWrapperState state;
      TensorMap slots, gradients;
      GRAPNEL_RETURN_IF_ERROR(
          run.optim_wrapper()->SaveState(&state, &slots, &gradients));
      for (const NamedTensor& slot : slots) {
        report_.optimizer_bytes += static_cast<int64_t>(slot.tensor.nbytes());
      }
    }
    GRAPNEL_RETURN_IF_ERROR(Try(Mode::kVal, "val_dataloader",
                                [this] { return runner_->Val().status(); }));
    GRAPNEL_RETURN_IF_ERROR(Try(Mode::kTest, "test_dataloader",
                                [this] { return runner_->Test().status(); }));
    report_.parameters =
        DescribeAll(run.model().parameters(), &report_.weight_bytes);
    report_.buffers = DescribeAll(run.model().buffers(), &report_.weight_bytes);
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    report_.peak_resident_bytes = int64_t{1024} * usage.ru_maxrss;
    return report_;
  }

  const std::vector<std::string>& warnings() const override {
    return log_.warnings;
  }

 private:
  template <typename F>
  absl::Status Try(Mode mode, const char* name, F&& call) {
    DataLoader* const loader = runner_->context().dataloader(mode);
    Report::Part part;
    part.name = name;
    if (loader != nullptr) {
      part.samples = loader->dataset().size();
      part.num_batches = loader->num_batches();
    } else if (mode != Mode::kTrain) {  // There it is a stream.
      return absl::OkStatus();
    }
    watch_->Begin(&part);
    const absl::Status status = call();
    if (!status.ok() && !watch_->enough()) return status;
    report_.parts.push_back(std::move(part));
    return absl::OkStatus();
  }

  io::OverlayEnv env_;
  WarningLog log_;
  Report report_;
  bool trains_ = false;
  Watch* watch_ = nullptr;          // The runner's.
  std::unique_ptr<Runner> runner_;  // Goes before what it uses.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Rehearsal>> Rehearsal::Create(
    const runner::v1::RunnerConfig& config, RunnerOptions options) {
  auto rehearsal = std::make_unique<RehearsalImpl>(options);
  GRAPNEL_RETURN_IF_ERROR(rehearsal->Init(config, std::move(options)));
  return rehearsal;
}

}  // namespace grapnel
