#include "grapnel/hooks/logger/logger_hook.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/device_allocator.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/record_json.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/out_dir.h"

namespace grapnel {
namespace {

using Config = LoggerHook::Config;

constexpr int64_t kDefaultInterval = 10;
constexpr int64_t kDefaultIntervalExpName = 1000;

// For the log processor: the most MB in use since it was last noted.
absl::Status NoteMemory(RunContext& run) {
  constexpr int64_t kMb = 1024 * 1024;
  if (run.device().is_cpu()) return absl::OkStatus();
  return CatchAsStatus([&] {
    const std::optional<int64_t> peak = TakePeakBytes(run.device());
    if (peak.has_value()) {
      run.message_hub().SetInfo("memory", *peak / kMb, /*resumable=*/false);
    }
    return absl::OkStatus();
  });
}

Config WithDefaults(Config config) {
  if (!config.has_interval()) config.set_interval(kDefaultInterval);
  if (!config.has_ignore_last()) config.set_ignore_last(true);
  if (!config.has_interval_exp_name()) {
    config.set_interval_exp_name(kDefaultIntervalExpName);
  }
  if (config.out_suffix().empty()) {
    for (const char* const suffix : {".json", ".log", ".textproto"}) {
      config.add_out_suffix(suffix);
    }
  }
  if (!config.has_keep_local()) config.set_keep_local(true);
  if (!config.has_progress_bar()) config.set_progress_bar(true);
  return config;
}

// What `config` says before defaults are filled in.
absl::Status ValidateOutDir(const Config& config) {
  if (config.has_out_dir()) {
    if (config.out_dir().empty()) {
      return absl::InvalidArgumentError("out_dir: must not be empty");
    }
  } else if (!config.out_suffix().empty()) {
    return absl::InvalidArgumentError("out_suffix: needs out_dir");
  } else if (config.has_keep_local()) {
    return absl::InvalidArgumentError("keep_local: needs out_dir");
  }
  for (int i = 0; i < config.out_suffix_size(); ++i) {
    if (!absl::StrContains(config.out_suffix(i), '/')) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("out_suffix[", i, "]: must not contain \"/\", is \"",
                     config.out_suffix(i), "\""));
  }
  return absl::OkStatus();
}

absl::Status Validate(const Config& config) {
  if (config.interval() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("interval: must be >= 1, is ", config.interval()));
  }
  if (config.interval_exp_name() < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "interval_exp_name: must be >= 1, is ", config.interval_exp_name()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoggerHook>> LoggerHook::Create(
    const Config& config) {
  GRAPNEL_RETURN_IF_ERROR(ValidateOutDir(config));
  const Config complete = WithDefaults(config);
  GRAPNEL_RETURN_IF_ERROR(Validate(complete));
  return absl::WrapUnique(new LoggerHook(complete));
}

LoggerHook::LoggerHook(const Config& config) : config_(config) {}

absl::Status LoggerHook::Setup(RunContext& run) {
  if (config_.has_out_dir() && run.is_master()) {
    // What can't be written there is better known now than after the training.
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(run.env().CreateDir(OutDir(run)), "out_dir"));
  }
  if (config_.progress_bar() && run.log().StatusColumns() > 0) {
    bar_.emplace(run.log(), run.clock());
  }
  return absl::OkStatus();
}

absl::Status LoggerHook::AfterRun(RunContext& run) {
  if (bar_) bar_->End();
  if (!config_.has_out_dir() || !run.is_master()) return absl::OkStatus();
  // Its own failure has been reported.
  run.log().Flush().IgnoreError();
  return WithContext(CopyFiles(run, ""), "out_dir");
}

std::string LoggerHook::OutDir(RunContext& run) const {
  return RunFolderIn(config_.out_dir(), run.base_dir(), run.work_dir());
}

absl::Status LoggerHook::CopyFiles(RunContext& run, const std::string& dir) {
  io::Env& env = run.env();
  const std::string from_dir = io::JoinPath(run.log_dir(), dir);
  const std::string to_dir = io::JoinPath(OutDir(run), dir);
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           env.ListDir(from_dir));
  for (const std::string& name : names) {
    const std::string from = io::JoinPath(from_dir, name);
    if (env.IsDirectory(from)) {
      GRAPNEL_RETURN_IF_ERROR(CopyFiles(run, io::JoinPath(dir, name)));
      continue;
    }
    const auto& suffixes = config_.out_suffix();
    if (std::none_of(suffixes.begin(), suffixes.end(),
                     [&name](const std::string& suffix) {
                       return absl::EndsWith(name, suffix);
                     })) {
      continue;
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::string content,
                             io::ReadFile(env, from));
    GRAPNEL_RETURN_IF_ERROR(env.CreateDir(to_dir));
    GRAPNEL_RETURN_IF_ERROR(
        io::WriteFileAtomically(env, io::JoinPath(to_dir, name), content));
    if (!config_.keep_local()) GRAPNEL_RETURN_IF_ERROR(env.DeleteFile(from));
  }
  return absl::OkStatus();
}

void LoggerHook::BeginProgress(RunContext& run, Mode mode) {
  std::string label =
      absl::StrCat(run.by_epoch() ? "Epoch(" : "Iter(", ModeName(mode), ")");
  const bool by_iter = mode == Mode::kTrain && !run.by_epoch();
  int64_t done = by_iter ? run.iter() : 0;
  // Where the data is a stream there is no loader.
  const int64_t total =
      by_iter ? run.max_iters() : run.dataloader(mode)->num_batches();
  if (run.by_epoch() && run.training()) {
    const bool train = mode == Mode::kTrain;
    absl::StrAppend(&label, " [", run.epoch() + (train ? 1 : 0), "/",
                    run.max_epochs(), "]");
    // More than 0 after a resume inside the epoch.
    if (train) done = std::min(run.iter_in_epoch(), total);
  }
  bar_->Begin(std::move(label), done, total);
}

absl::Status LoggerHook::BeforeEpoch(RunContext& run, Mode mode) {
  if (bar_) BeginProgress(run, mode);
  return absl::OkStatus();
}

absl::Status LoggerHook::AfterVal(RunContext& run) {
  // Validation was within the one loop of an iteration-based training.
  if (bar_ && run.training() && !run.by_epoch()) {
    BeginProgress(run, Mode::kTrain);
  }
  return absl::OkStatus();
}

absl::Status LoggerHook::AfterTrainIter(RunContext& run, const IterInfo& info,
                                        const LogVars&) {
  if (bar_) {
    // An epoch that was resumed with other ranks has a length of its own.
    if (run.by_epoch()) bar_->set_total(info.num_batches);
    bar_->Update(info.batch_idx + 1);
  }
  const int64_t count = run.iter() + 1;
  if (info.end_of_epoch() || EveryN(count, config_.interval_exp_name())) {
    run.log().Info(absl::StrCat("Exp name: ", run.experiment_name()));
  }
  const bool due =
      EveryN(info.batch_idx + 1, config_.interval()) ||
      (info.end_of_epoch() &&
       (!config_.ignore_last() || info.num_batches <= config_.interval())) ||
      (!run.by_epoch() && count == run.max_iters());
  if (!due) return absl::OkStatus();
  return LogIter(run, Mode::kTrain, info);
}

absl::Status LoggerHook::AfterValIter(RunContext& run, const IterInfo& info,
                                      const Predictions&) {
  return LogEvaluationIter(run, Mode::kVal, info);
}

absl::Status LoggerHook::AfterTestIter(RunContext& run, const IterInfo& info,
                                       const Predictions&) {
  return LogEvaluationIter(run, Mode::kTest, info);
}

absl::Status LoggerHook::AfterValEpoch(RunContext& run,
                                       const Metrics& metrics) {
  GRAPNEL_RETURN_IF_ERROR(LogEvaluation(run, Mode::kVal, metrics));
  run.WriteRecord(record_);
  return absl::OkStatus();
}

absl::Status LoggerHook::AfterTestEpoch(RunContext& run,
                                        const Metrics& metrics) {
  GRAPNEL_RETURN_IF_ERROR(LogEvaluation(run, Mode::kTest, metrics));
  if (!run.is_master()) return absl::OkStatus();
  const std::string path =
      io::JoinPath(run.log_dir(), absl::StrCat(run.timestamp(), ".json"));
  return io::WriteFileAtomically(run.env(), path,
                                 absl::StrCat(RecordToJson(record_), "\n"));
}

absl::Status LoggerHook::LogEvaluationIter(RunContext& run, Mode mode,
                                           const IterInfo& info) {
  if (bar_) bar_->Update(info.batch_idx + 1);
  if (!EveryN(info.batch_idx + 1, config_.interval())) return absl::OkStatus();
  return LogIter(run, mode, info);
}

absl::Status LoggerHook::LogIter(RunContext& run, Mode mode,
                                 const IterInfo& info) {
  GRAPNEL_RETURN_IF_ERROR(NoteMemory(run));
  IterNumbers numbers;
  GRAPNEL_RETURN_IF_ERROR(run.log_processor().ReadIter(
      mode, Position(run, info), run.message_hub(), &numbers));
  GRAPNEL_RETURN_IF_ERROR(
      run.log_processor().ReduceIter(run.process_group(), &numbers));
  // Turning numbers into text takes longer than reading them.
  run.LogLater([&run, numbers = std::move(numbers)] {
    std::string line;
    Record record;
    run.log_processor().FormatIter(numbers, &line, &record);
    run.log().Info(line);
    if (numbers.mode == Mode::kTrain) run.WriteRecord(record);
  });
  return absl::OkStatus();
}

absl::Status LoggerHook::LogEvaluation(RunContext& run, Mode mode,
                                       const Metrics& metrics) {
  IterInfo last;
  last.num_batches = run.dataloader(mode)->num_batches();
  last.batch_idx = last.num_batches - 1;
  GRAPNEL_RETURN_IF_ERROR(run.log_processor().FormatEpoch(
      mode, Position(run, last), metrics, run.message_hub(), &line_, &record_));
  run.log().Info(line_);
  return absl::OkStatus();
}

LogPosition LoggerHook::Position(RunContext& run, const IterInfo& info) const {
  LogPosition position;
  position.epoch = run.epoch();
  position.iter = run.iter();
  position.batch_idx = info.batch_idx;
  position.num_batches = info.num_batches;
  position.max_epochs = run.max_epochs();
  position.max_iters = run.max_iters();
  position.has_train_loop = run.training();
  position.step_by_epoch = config_.has_log_metric_by_epoch()
                               ? config_.log_metric_by_epoch()
                               : run.by_epoch();
  return position;
}

GRAPNEL_REGISTER_HOOK(LoggerHook);

}  // namespace grapnel
