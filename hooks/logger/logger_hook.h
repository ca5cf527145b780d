#ifndef GRAPNEL_HOOKS_LOGGER_LOGGER_HOOK_H_
#define GRAPNEL_HOOKS_LOGGER_LOGGER_HOOK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/logger/logger_hook.pb.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/progress_bar.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/log_processor.h"

namespace grapnel {

// Writes the run's log lines, and records of numbers to the log backends
// (docs/from_mmengine.md, section 2): of training every `interval` iterations,
// of an evaluation a line every `interval` batches and a record at its end. A
// test's metrics go to log_dir/<timestamp>.json instead. Shows a progress bar
// on a terminal, and copies the log's files to out_dir when the run is over.
class LoggerHook final : public Hook {
 public:
  using Config = hooks::v1::LoggerHookConfig;

  // kInvalidArgument, naming the field, for a config that breaks a rule stated
  // in logger_hook.proto.
  static absl::StatusOr<std::unique_ptr<LoggerHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "logger"; }

  // After the hooks that measure.
  Priority priority() const override { return Priority::kBelowNormal; }

  absl::Status Setup(RunContext& run) override;
  absl::Status AfterRun(RunContext& run) override;
  absl::Status BeforeEpoch(RunContext& run, Mode mode) override;
  absl::Status AfterTrainIter(RunContext& run, const IterInfo& info,
                              const LogVars& log_vars) override;
  absl::Status AfterVal(RunContext& run) override;
  absl::Status AfterValIter(RunContext& run, const IterInfo& info,
                            const Predictions& predictions) override;
  absl::Status AfterValEpoch(RunContext& run, const Metrics& metrics) override;
  absl::Status AfterTestIter(RunContext& run, const IterInfo& info,
                             const Predictions& predictions) override;
  absl::Status AfterTestEpoch(RunContext& run, const Metrics& metrics) override;

 private:
  explicit LoggerHook(const Config& config);

  void BeginProgress(RunContext& run, Mode mode);
  // out_dir/<last component of work_dir>.
  std::string OutDir(RunContext& run) const;
  // Copies there what is under `dir`, a folder of the log folder, "" for
  // itself.
  absl::Status CopyFiles(RunContext& run, const std::string& dir);
  LogPosition Position(RunContext& run, const IterInfo& info) const;
  absl::Status LogEvaluationIter(RunContext& run, Mode mode,
                                 const IterInfo& info);
  // The line of an iteration and, of training, the record.
  absl::Status LogIter(RunContext& run, Mode mode, const IterInfo& info);
  // The line; leaves the record in record_.
  absl::Status LogEvaluation(RunContext& run, Mode mode,
                             const Metrics& metrics);

  const Config config_;  // With defaults filled in, but log_metric_by_epoch.

  std::optional<ProgressBar> bar_;  // Unset if there is no terminal.

  // Kept from line to line for their memory.
  std::string line_;
  Record record_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_LOGGER_LOGGER_HOOK_H_
