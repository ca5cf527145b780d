#include "grapnel/hooks/profiler/profiler_hook.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/hooks/profiler/kineto_recorder.h"
#include "grapnel/hooks/profiler/op_table.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/host_name.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

using Config = ProfilerHook::Config;

constexpr char kSelfTime[] = "self_cpu_time_total";
constexpr char kTotalTime[] = "cpu_time_total";
constexpr char kCount[] = "count";
constexpr int64_t kDefaultRowLimit = 100;
constexpr int64_t kMaxCount = 1000000000;  // Of a schedule's.

Config WithDefaults(Config config) {
  if (!config.has_by_epoch()) config.set_by_epoch(true);
  if (!config.has_profile_times()) config.set_profile_times(1);
  if (!config.has_activity_with_cpu()) config.set_activity_with_cpu(true);
  if (config.has_log_trace()) {
    Config::LogTrace& log = *config.mutable_log_trace();
    if (!log.has_sort_by()) log.set_sort_by(kSelfTime);
    if (!log.has_row_limit()) log.set_row_limit(kDefaultRowLimit);
  }
  if (config.has_tb_trace() && !config.tb_trace().has_dir_name()) {
    config.mutable_tb_trace()->set_dir_name("tf_tracing_logs");
  }
  if (!config.has_json_trace_path() &&
      config.on_trace_ready_case() == Config::ON_TRACE_READY_NOT_SET) {
    config.set_json_trace_path("trace.json");
  }
  return config;
}

absl::Status ValidateSchedule(const Config& config) {
  const Config::Schedule& schedule = config.schedule();
  struct Count {
    const char* field;
    int64_t value;
    int64_t least;
  };
  for (const Count& count : {Count{"wait", schedule.wait(), 0},
                             Count{"warmup", schedule.warmup(), 0},
                             Count{"active", schedule.active(), 1},
                             Count{"repeat", schedule.repeat(), 0},
                             Count{"skip_first", schedule.skip_first(), 0}}) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(
        count.value >= count.least && count.value <= kMaxCount, count.field,
        absl::StrCat("in [", count.least, ", ", kMaxCount, "]"), count.value));
  }
  return absl::OkStatus();
}

// Steps that pass before the first one is recorded.
int64_t UnrecordedSteps(const Config::Schedule& schedule) {
  return schedule.skip_first() + schedule.wait() + schedule.warmup();
}

absl::Status Validate(const Config& config) {
  if (config.by_epoch()) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(config.profile_times() == 1,
                                       "profile_times", "1 with by_epoch",
                                       config.profile_times()));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.profile_times() >= 1,
                                     "profile_times", ">= 1",
                                     config.profile_times()));
  if (!config.activity_with_cpu() && !config.activity_with_cuda()) {
    return absl::InvalidArgumentError(
        "activity_with_cpu: must be on if activity_with_cuda isn't");
  }
  if (config.has_schedule()) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(ValidateSchedule(config), "schedule"));
    if (!config.by_epoch()) {
      const int64_t unrecorded = UnrecordedSteps(config.schedule());
      GRAPNEL_RETURN_IF_ERROR(CheckField(
          config.profile_times() > unrecorded, "profile_times",
          absl::StrCat("> ", unrecorded, ", which the schedule leaves out"),
          config.profile_times()));
    }
  }
  if (config.has_log_trace()) {
    const std::string& order = config.log_trace().sort_by();
    if (order != kSelfTime && order != kTotalTime && order != kCount) {
      return absl::InvalidArgumentError(absl::StrCat(
          "log_trace: sort_by: must be \"", kSelfTime, "\", \"", kTotalTime,
          "\" or \"", kCount, "\", is \"", order, "\""));
    }
    GRAPNEL_RETURN_IF_ERROR(CheckField(config.log_trace().row_limit() >= 1,
                                       "log_trace: row_limit", ">= 1",
                                       config.log_trace().row_limit()));
  }
  if (config.has_tb_trace()) {
    if (config.tb_trace().dir_name().empty()) {
      return absl::InvalidArgumentError(
          "tb_trace: dir_name: must not be empty");
    }
    if (absl::StrContains(config.tb_trace().worker_name(), '/')) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tb_trace: worker_name: must be part of a file's name, is \"",
          config.tb_trace().worker_name(), "\""));
    }
  }
  if (config.has_json_trace_path() && config.json_trace_path().empty()) {
    return absl::InvalidArgumentError("json_trace_path: must not be empty");
  }
  return absl::OkStatus();
}

OpOrder OrderOf(const std::string& sort_by) {
  if (sort_by == kTotalTime) return OpOrder::kTotalTime;
  if (sort_by == kCount) return OpOrder::kCount;
  return OpOrder::kSelfTime;
}

// `path` in `dir`, unless it is absolute.
std::string InDir(const std::string& dir, const std::string& path) {
  return absl::StartsWith(path, "/") ? path : io::JoinPath(dir, path);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProfilerHook>> ProfilerHook::Create(
    const Config& config) {
  const Config complete = WithDefaults(config);
  GRAPNEL_RETURN_IF_ERROR(Validate(complete));
  return absl::WrapUnique(new ProfilerHook(complete));
}

ProfilerHook::ProfilerHook(const Config& config) : config_(config) {}

ProfilerHook::~ProfilerHook() = default;

absl::Status ProfilerHook::BeforeTrain(RunContext& run) {
  if (config_.activity_with_cuda() && !at::hasCUDA()) {
    return absl::FailedPreconditionError(
        "activity_with_cuda: there is no CUDA device");
  }
  if (config_.by_epoch()) return absl::OkStatus();
  const absl::Status status =
      CheckField(config_.profile_times() <= run.max_iters(), "profile_times",
                 absl::StrCat("at most the run's ", run.max_iters()),
                 config_.profile_times());
  if (status.ok() || run.resumed_from().empty()) return status;
  // A run that is resumed may have become shorter.
  run.log().Warning(absl::StrCat("profiler: ", status.message()));
  return absl::OkStatus();
}

absl::Status ProfilerHook::BeforeTrainEpoch(RunContext& run) {
  if (done_ || recorder_ != nullptr) return absl::OkStatus();
  KinetoRecorder::Options options;
  options.cpu = config_.activity_with_cpu();
  options.cuda = config_.activity_with_cuda();
  options.record_shapes = config_.record_shapes();
  options.profile_memory = config_.profile_memory();
  options.with_stack = config_.with_stack();
  options.with_flops = config_.with_flops();
  GRAPNEL_ASSIGN_OR_RETURN(recorder_, KinetoRecorder::Create(options));
  return BeginStep(run);
}

absl::Status ProfilerHook::AfterTrainIter(RunContext& run, const IterInfo& info,
                                          const LogVars&) {
  if (recorder_ == nullptr) return absl::OkStatus();
  recorder_->EndStep();
  if (recorder_->recording()) ++recorded_;
  ++next_step_;
  // No step is begun that would be empty.
  const bool last = run.by_epoch() ? info.end_of_epoch()
                                   : run.iter() + 1 == run.max_iters() ||
                                         !run.stop_reason().empty();
  if (last || (!config_.by_epoch() && next_step_ == config_.profile_times())) {
    return Finish(run);
  }
  return BeginStep(run);
}

absl::Status ProfilerHook::AfterTrainEpoch(RunContext& run) {
  if (recorder_ == nullptr) return absl::OkStatus();
  if (next_step_ > 0) return Finish(run);
  // Of an epoch that was resumed at its end there is nothing to profile.
  recorder_.reset();
  return absl::OkStatus();
}

void ProfilerHook::OnError(RunContext& run, const absl::Status&) {
  if (recorder_ == nullptr) return;
  const absl::Status status = Finish(run);
  if (!status.ok()) {
    run.log().Warning(absl::StrCat("profiler: ", status.message()));
  }
}

ProfilerHook::Step ProfilerHook::StepAt(int64_t step) const {
  if (!config_.has_schedule()) return {Action::kRecord, 0};
  const Config::Schedule& schedule = config_.schedule();
  step -= schedule.skip_first();
  if (step < 0) return {Action::kNone, 0};
  const int64_t cycle = schedule.wait() + schedule.warmup() + schedule.active();
  const int64_t window = step / cycle;
  if (schedule.repeat() > 0 && window >= schedule.repeat()) {
    return {Action::kNone, window};
  }
  const int64_t position = step % cycle;
  if (position < schedule.wait()) return {Action::kNone, window};
  if (position < schedule.wait() + schedule.warmup()) {
    return {Action::kWarmUp, window};
  }
  return {Action::kRecord, window};
}

absl::Status ProfilerHook::BeginStep(RunContext& run) {
  const Step next = StepAt(next_step_);
  if (recorder_->recording() &&
      (next.action != Action::kRecord || next.window != current_.window)) {
    GRAPNEL_RETURN_IF_ERROR(WriteTrace(run));
  }
  current_ = next;
  if (next.action == Action::kWarmUp) return recorder_->WarmUp();
  if (next.action == Action::kRecord) {
    GRAPNEL_RETURN_IF_ERROR(recorder_->Start());
    recorder_->BeginStep(next_step_);
  }
  return absl::OkStatus();
}

absl::Status ProfilerHook::Finish(RunContext& run) {
  done_ = true;
  absl::Status status = absl::OkStatus();
  if (recorder_->recording() && recorded_ > 0) status = WriteTrace(run);
  recorder_.reset();
  if (status.ok() && written_ == 0) {
    run.log().Warning(absl::StrCat("profiler: nothing was recorded in ",
                                   next_step_, " iterations"));
  }
  return status;
}

absl::Status ProfilerHook::WriteTrace(RunContext& run) {
  GRAPNEL_ASSIGN_OR_RETURN(const auto recording, recorder_->Stop());
  recorded_ = 0;
  ++written_;
  if (config_.has_log_trace()) {
    run.log().Info(absl::StrCat(
        "Profile of ", run.experiment_name(), ":\n",
        OpTable(recording->CpuCalls(), OrderOf(config_.log_trace().sort_by()),
                config_.log_trace().row_limit())));
  }
  if (!config_.has_json_trace_path() && !config_.has_tb_trace()) {
    return absl::OkStatus();
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::string trace, recording->Trace());
  const auto write = [&](const std::string& path) -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(run.env().CreateDir(io::Dirname(path)));
    GRAPNEL_RETURN_IF_ERROR(io::WriteFileAtomically(run.env(), path, trace));
    run.log().Info(absl::StrCat("Profile written to ", path));
    return absl::OkStatus();
  };
  if (config_.has_tb_trace()) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(write(TbTracePath(run)), "tb_trace"));
  }
  if (config_.has_json_trace_path()) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(write(JsonTracePath(run)), "json_trace_path"));
  }
  return absl::OkStatus();
}

std::string ProfilerHook::TbTracePath(RunContext& run) const {
  const Config::TbTrace& tb = config_.tb_trace();
  return io::JoinPath(
      InDir(run.log_dir(), tb.dir_name()),
      absl::StrCat(
          tb.has_worker_name() ? tb.worker_name()
                               : absl::StrCat(HostName(), "_", getpid()),
          ".", absl::ToUnixNanos(run.clock().WallTime()), ".pt.trace.json"));
}

std::string ProfilerHook::JsonTracePath(RunContext& run) const {
  const std::string path = InDir(run.log_dir(), config_.json_trace_path());
  std::string more;
  if (run.process_group().world_size() > 1) {
    absl::StrAppend(&more, "_rank", run.process_group().rank());
  }
  if (written_ > 1) absl::StrAppend(&more, "_", written_);
  constexpr char kEnding[] = ".json";
  if (more.empty()) return path;
  if (!absl::EndsWith(path, kEnding)) return absl::StrCat(path, more);
  return absl::StrCat(absl::StripSuffix(path, kEnding), more, kEnding);
}

GRAPNEL_REGISTER_HOOK(ProfilerHook);

}  // namespace grapnel
