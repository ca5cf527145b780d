#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/thread.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/tools/verify_resume/resume_trace.h"
#include "grapnel/tools/verify_resume/resume_trace_hook.pb.h"

namespace grapnel {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

void AddTensor(const at::Tensor& tensor, io::Xxh3Hasher64* hasher) {
  if (!tensor.defined()) return;
  const at::Tensor host = tensor.detach().cpu().contiguous();
  hasher->Update(absl::string_view(
      static_cast<const char*>(host.const_data_ptr()), host.nbytes()));
}

std::string Hex(const io::Xxh3Hasher64& hasher) {
  return absl::StrFormat("%016x", hasher.Digest());
}

std::string DigestOf(const std::vector<NamedTensor>& tensors) {
  io::Xxh3Hasher64 hasher;
  for (const NamedTensor& tensor : tensors) AddTensor(tensor.tensor, &hasher);
  return Hex(hasher);
}

std::string Number(double value) { return absl::StrFormat("%.17g", value); }

void AddBatch(const Batch& batch, Fields* fields) {
  io::Xxh3Hasher64 indices;
  indices.Update(
      absl::string_view(reinterpret_cast<const char*>(batch.indices.data()),
                        batch.indices.size() * sizeof(int64_t)));
  fields->emplace_back(trace_field::kIndices, Hex(indices));
  io::Xxh3Hasher64 tensors;
  AddTensor(batch.inputs, &tensors);
  AddTensor(batch.targets, &tensors);
  for (const NamedTensor& extra : batch.extras) {
    AddTensor(extra.tensor, &tensors);
  }
  fields->emplace_back(trace_field::kBatch, Hex(tensors));
}

void AddOptions(OptimWrapper& optim, Fields* fields) {
  for (const auto& [name, value] : optim.logged_lrs()) {
    fields->emplace_back(absl::StrCat(trace_field::kOption, name),
                         Number(*value));
  }
  io::Xxh3Hasher64 hasher;
  ParamGroups& groups = optim.scheduled_groups();
  for (int group = 0; group < groups.num_groups(); ++group) {
    for (const char* name :
         {"lr", "weight_decay", "momentum", "beta2", "eps", "dampening"}) {
      const double* const value = groups.option(group, name);
      if (value != nullptr) hasher.Update(absl::StrCat(Number(*value), " "));
    }
  }
  fields->emplace_back(trace_field::kOptions, Hex(hasher));
}

void AddLogVars(const LogVars& log_vars, Fields* fields) {
  for (const NamedTensor& var : log_vars) {
    std::string value;
    if (var.tensor.numel() == 1) {
      value = Number(var.tensor.item().toDouble());
    } else {
      io::Xxh3Hasher64 hasher;
      AddTensor(var.tensor, &hasher);
      value = Hex(hasher);
    }
    fields->emplace_back(absl::StrCat(trace_field::kLog, var.name), value);
  }
}

void AddModel(const Model& model, Fields* fields) {
  fields->emplace_back(trace_field::kWeights, DigestOf(model.parameters()));
  fields->emplace_back(trace_field::kBuffers, DigestOf(model.buffers()));
}

void AddGenerators(RunContext& run, Fields* fields) {
  io::Xxh3Hasher64 hasher;
  for (at::Generator generator : {run.generator(), run.device_generator()}) {
    if (!generator.defined()) continue;
    std::lock_guard<std::mutex> lock(generator.mutex());
    AddTensor(generator.get_state(), &hasher);
  }
  fields->emplace_back(trace_field::kGenerator, Hex(hasher));
}

absl::Status AddDefaultGenerator(Fields* fields) {
  GRAPNEL_ASSIGN_OR_RETURN(const at::Tensor state, DefaultGeneratorState());
  fields->emplace_back(trace_field::kDefaultGenerator, DigestOf({{"", state}}));
  return absl::OkStatus();
}

// Of a process's trace, which the thread that kills it writes, too.
class TraceFile {
 public:
  explicit TraceFile(std::unique_ptr<io::WritableFile> file)
      : file_(std::move(file)) {}

  absl::Status Append(absl::string_view line) {
    std::lock_guard<std::mutex> lock(mutex_);
    return AppendLocked(line);
  }

  // Without that line nobody could tell it from a SIGKILL of the system's.
  void Kill(const TraceEvent& event) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (AppendLocked(FormatTraceEvent(event)).ok()) kill(getpid(), SIGKILL);
  }

 private:
  absl::Status AppendLocked(absl::string_view line) {
    GRAPNEL_RETURN_IF_ERROR(file_->Append(line));
    // The system keeps it when this process is killed.
    return file_->Flush();
  }

  std::mutex mutex_;
  const std::unique_ptr<io::WritableFile> file_;
};

// Acts behind all others, so it sees what they have done.
class ResumeTraceHook final : public Hook {
 public:
  using Config = tools::v1::ResumeTraceHookConfig;

  static absl::StatusOr<std::unique_ptr<ResumeTraceHook>> Create(
      const Config&) {
    auto hook = absl::WrapUnique(new ResumeTraceHook());
    const char* const kill = std::getenv(kKillVariable);
    if (kill != nullptr) {
      hook->kill_ = ParseKillPoint(kill);
      if (!hook->kill_.has_value()) {
        return absl::InvalidArgumentError(
            absl::StrCat(kKillVariable, ": is no kill point: \"", kill, "\""));
      }
    }
    return hook;
  }

  absl::string_view name() const override { return "verify_resume_trace"; }
  Priority priority() const override { return Priority::kLowest; }

  absl::Status Setup(RunContext& run) override {
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<io::WritableFile> file,
        run.env().NewAppendableFile(io::JoinPath(run.work_dir(), kTraceFile)));
    file_ = std::make_shared<TraceFile>(std::move(file));
    // The process before this one may have ended within a line.
    GRAPNEL_RETURN_IF_ERROR(file_->Append("\n"));
    return Write(run, trace::kStart, 0, 0);
  }

  absl::Status BeforeTrain(RunContext& run) override {
    return Write(run, trace::kTrain, run.iter(), 0, AddDefaultGenerator);
  }

  absl::Status BeforeTrainIter(RunContext& run, const IterInfo& info) override {
    steps_ = 0;
    return Write(run, trace::kBeforeIter, run.iter() + 1, 0,
                 [&](Fields* fields) -> absl::Status {
                   AddBatch(*info.batch, fields);
                   AddOptions(*run.optim_wrapper(), fields);
                   AddModel(run.model(), fields);
                   AddGenerators(run, fields);
                   return AddDefaultGenerator(fields);
                 });
  }

  absl::Status AfterOptimizerStep(RunContext& run, const StepResult&) override {
    return Write(run, trace::kStep, run.iter() + 1, steps_++,
                 [&](Fields* fields) {
                   AddLogVars(run.log_vars(), fields);
                   AddOptions(*run.optim_wrapper(), fields);
                   AddModel(run.model(), fields);
                   return absl::OkStatus();
                 });
  }

  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars& log_vars) override {
    return Write(run, trace::kAfterIter, run.iter() + 1, 0,
                 [&](Fields* fields) {
                   AddLogVars(log_vars, fields);
                   AddModel(run.model(), fields);
                   AddGenerators(run, fields);
                   return AddDefaultGenerator(fields);
                 });
  }

  absl::Status BeforeValEpoch(RunContext& run) override {
    if (!run.training()) return absl::OkStatus();
    return Write(run, trace::kBeforeVal, run.iter(), 0, [&](Fields* fields) {
      AddModel(run.model(), fields);
      return AddDefaultGenerator(fields);
    });
  }

  absl::Status BeforeValIter(RunContext& run, const IterInfo& info) override {
    if (!run.training()) return absl::OkStatus();
    return Write(run, trace::kValBatch, run.iter(), info.batch_idx,
                 [&](Fields* fields) {
                   AddBatch(*info.batch, fields);
                   return AddDefaultGenerator(fields);
                 });
  }

  absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                            const Predictions&) override {
    if (!run.training()) return absl::OkStatus();
    return Write(run, trace::kValStep, run.iter(), info.batch_idx,
                 AddDefaultGenerator);
  }

  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override {
    if (!run.training()) return absl::OkStatus();
    return Write(run, trace::kAfterVal, run.iter(), 0, [&](Fields* fields) {
      for (const auto& [name, value] : metrics) {
        // A text is shown and not plotted.
        const std::optional<double> number = AsNumber(value);
        if (number.has_value()) {
          fields->emplace_back(absl::StrCat(trace_field::kMetric, name),
                               Number(*number));
        }
      }
      return AddDefaultGenerator(fields);
    });
  }

  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents& contents) override {
    // run.iter() may not count the iteration yet that is saved.
    saved_iter_ = contents.manifest().progress().iter();
    return Write(run, trace::kBeforeSave, saved_iter_, saves_);
  }
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint&) override {
    return Write(run, trace::kAfterSave, saved_iter_, saves_++);
  }

 private:
  ResumeTraceHook() = default;

  absl::Status Write(RunContext& run, const char* kind, int64_t iter,
                     int64_t index) {
    return Write(run, kind, iter, index,
                 [](Fields*) { return absl::OkStatus(); });
  }

  template <typename F>
  absl::Status Write(RunContext& run, const char* kind, int64_t iter,
                     int64_t index, F add_fields) {
    TraceEvent event;
    event.kind = kind;
    event.iter = iter;
    event.index = index;
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return add_fields(&event.fields); }));
    event.nanos = run.clock().NowNanos();
    GRAPNEL_RETURN_IF_ERROR(file_->Append(FormatTraceEvent(event)));
    if (kill_.has_value() && kill_->kind == kind && kill_->iter == iter &&
        (kill_->index < 0 || kill_->index == index)) {
      const absl::Duration delay = kill_->delay;
      kill_.reset();
      TraceEvent end;
      end.kind = trace::kKill;
      end.iter = iter;
      // It may outlive this hook.
      GRAPNEL_ASSIGN_OR_RETURN(std::thread thread,
                               StartThread("kill", [delay, end, file = file_] {
                                 absl::SleepFor(delay);
                                 file->Kill(end);
                               }));
      thread.detach();
    }
    return absl::OkStatus();
  }

  std::shared_ptr<TraceFile> file_;
  std::optional<KillPoint> kill_;
  int64_t steps_ = 0;  // Of this iteration.
  int64_t saves_ = 0;  // Of this process.
  int64_t saved_iter_ = 0;
};

GRAPNEL_REGISTER_HOOK(ResumeTraceHook);

}  // namespace
}  // namespace grapnel
