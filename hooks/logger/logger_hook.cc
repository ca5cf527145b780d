#include "grapnel/hooks/logger/logger_hook.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/record_json.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

using Config = LoggerHook::Config;

constexpr int64_t kDefaultInterval = 10;
constexpr int64_t kDefaultIntervalExpName = 1000;

Config WithDefaults(Config config) {
  if (!config.has_interval()) config.set_interval(kDefaultInterval);
  if (!config.has_ignore_last()) config.set_ignore_last(true);
  if (!config.has_interval_exp_name()) {
    config.set_interval_exp_name(kDefaultIntervalExpName);
  }
  return config;
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
  const Config complete = WithDefaults(config);
  GRAPNEL_RETURN_IF_ERROR(Validate(complete));
  return absl::WrapUnique(new LoggerHook(complete));
}

LoggerHook::LoggerHook(const Config& config) : config_(config) {}

absl::Status LoggerHook::AfterTrainIter(RunContext& run, const IterInfo& info,
                                        const LogVars&) {
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
  const std::string path =
      io::JoinPath(run.log_dir(), absl::StrCat(run.timestamp(), ".json"));
  return io::WriteFileAtomically(run.env(), path,
                                 absl::StrCat(RecordToJson(record_), "\n"));
}

absl::Status LoggerHook::LogEvaluationIter(RunContext& run, Mode mode,
                                           const IterInfo& info) {
  if (!EveryN(info.batch_idx + 1, config_.interval())) return absl::OkStatus();
  return LogIter(run, mode, info);
}

absl::Status LoggerHook::LogIter(RunContext& run, Mode mode,
                                 const IterInfo& info) {
  IterNumbers numbers;
  GRAPNEL_RETURN_IF_ERROR(run.log_processor().ReadIter(
      mode, Position(run, info), run.message_hub(), &numbers));
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
