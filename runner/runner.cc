#include "grapnel/runner/runner.h"

#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "ATen/Context.h"
#include "ATen/Parallel.h"
#include "ATen/Version.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/log_thread.h"
#include "grapnel/loggers/record_writer.h"
#include "grapnel/loggers/text_run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/configured_hooks.h"
#include "grapnel/runner/hook_list.h"
#include "grapnel/runner/log_processor.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/train_plan.h"
#include "grapnel/runner/version.h"

namespace grapnel {
namespace {

using ::grapnel::data::v1::DataLoaderConfig;
using ::grapnel::io::v1::Progress;
using ::grapnel::runner::v1::RunnerConfig;

// Where a status carries its ErrorOrigin.
constexpr char kOriginUrl[] = "grapnel.dev/error_origin";

absl::Status WithOrigin(absl::Status status, ErrorOrigin origin) {
  if (!status.ok()) {
    status.SetPayload(kOriginUrl,
                      absl::Cord(absl::StrCat(static_cast<int>(origin))));
  }
  return status;
}

absl::Status Required(bool set, absl::string_view field,
                      absl::string_view why) {
  if (set) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": must be set ", why));
}

absl::StatusOr<RunLog::Level> ParseLogLevel(const std::string& level) {
  if (level.empty() || level == "INFO") return RunLog::Level::kInfo;
  if (level == "DEBUG") return RunLog::Level::kDebug;
  if (level == "WARNING") return RunLog::Level::kWarning;
  if (level == "ERROR") return RunLog::Level::kError;
  return absl::InvalidArgumentError(absl::StrCat(
      "log_level: must be DEBUG, INFO, WARNING or ERROR, is \"", level, "\""));
}

// Parts that only make sense together, and values of the top level.
absl::Status CheckConfig(const RunnerConfig& config,
                         const RunnerOptions& options) {
  const bool optimizer =
      config.has_optim_wrapper() || options.optimizer != nullptr;
  const bool any_train =
      config.has_train_dataloader() || config.has_train_cfg() || optimizer;
  if (any_train) {
    constexpr char kWhy[] =
        "along with the others of train_dataloader, train_cfg and "
        "optim_wrapper";
    GRAPNEL_RETURN_IF_ERROR(
        Required(config.has_train_dataloader(), "train_dataloader", kWhy));
    GRAPNEL_RETURN_IF_ERROR(
        Required(config.has_train_cfg(), "train_cfg", kWhy));
    GRAPNEL_RETURN_IF_ERROR(Required(optimizer, "optim_wrapper", kWhy));
  }
  if (config.param_scheduler_size() > 0) {
    GRAPNEL_RETURN_IF_ERROR(
        Required(optimizer, "optim_wrapper", "for param_scheduler"));
  }
  const bool val_metrics =
      config.val_evaluator_size() > 0 || !options.val_metrics.empty();
  const bool test_metrics =
      config.test_evaluator_size() > 0 || !options.test_metrics.empty();
  GRAPNEL_RETURN_IF_ERROR(Required(config.has_val_dataloader() || !val_metrics,
                                   "val_dataloader", "for val_evaluator"));
  GRAPNEL_RETURN_IF_ERROR(Required(val_metrics || !config.has_val_dataloader(),
                                   "val_evaluator", "for val_dataloader"));
  GRAPNEL_RETURN_IF_ERROR(
      Required(config.has_test_dataloader() || !test_metrics, "test_dataloader",
               "for test_evaluator"));
  GRAPNEL_RETURN_IF_ERROR(
      Required(test_metrics || !config.has_test_dataloader(), "test_evaluator",
               "for test_dataloader"));
  if ((options.train_dataset != nullptr && !config.has_train_dataloader()) ||
      (options.val_dataset != nullptr && !config.has_val_dataloader()) ||
      (options.test_dataset != nullptr && !config.has_test_dataloader())) {
    return absl::InvalidArgumentError(
        "a dataset given in code needs its train_, val_ or test_dataloader "
        "set");
  }
  if (config.has_launcher() && config.launcher() != "none") {
    return absl::InvalidArgumentError(absl::StrCat(
        "launcher: must be \"none\", is \"", config.launcher(), "\""));
  }
  GRAPNEL_RETURN_IF_ERROR(ParseLogLevel(config.log_level()).status());
  if (config.randomness().has_seed() && config.randomness().seed() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "randomness: seed: must be >= 0, is ", config.randomness().seed()));
  }
  if (config.auto_scale_lr().enable() &&
      config.auto_scale_lr().base_batch_size() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("auto_scale_lr: base_batch_size: must be >= 1, is ",
                     config.auto_scale_lr().base_batch_size()));
  }
  if (config.has_model() == (options.model != nullptr)) {
    return absl::InvalidArgumentError(
        options.model == nullptr
            ? "model: must be set"
            : "model: must be unset: there is one given in code");
  }
  return absl::OkStatus();
}

// Tells whether two points of a run are the same.
std::string ProgressKey(const Progress& progress) {
  return absl::StrCat(progress.epoch(), "/", progress.iter_in_epoch(), "/",
                      progress.iter(), "/", progress.validation_pending());
}

std::string NewUuid() {
  std::random_device device;
  std::string uuid(16, '\0');
  for (char& byte : uuid) byte = static_cast<char>(device() & 0xFF);
  return uuid;
}

int64_t DrawSeed() {
  std::random_device device;
  return static_cast<int64_t>(device() & 0x7FFFFFFF);
}

// Restores what a call may change of LibTorch's process-wide settings.
class DeterminismGuard {
 public:
  explicit DeterminismGuard(bool deterministic)
      : previous_(at::globalContext().deterministicAlgorithms()),
        previous_warn_only_(
            at::globalContext().deterministicAlgorithmsWarnOnly()) {
    if (deterministic) {
      at::globalContext().setDeterministicAlgorithms(true, false);
    }
  }
  DeterminismGuard(const DeterminismGuard&) = delete;
  DeterminismGuard& operator=(const DeterminismGuard&) = delete;
  ~DeterminismGuard() {
    at::globalContext().setDeterministicAlgorithms(previous_,
                                                   previous_warn_only_);
  }

 private:
  const bool previous_;
  const bool previous_warn_only_;
};

// The mount points of an evaluation, of one mode.
struct EvalPoints {
  Mode mode;
  Stage before, before_epoch, before_iter, after_iter, after_epoch, after;
  absl::Status (Hook::*call_before)(RunContext&);
  absl::Status (Hook::*call_before_epoch)(RunContext&);
  absl::Status (Hook::*call_before_iter)(RunContext&, const IterInfo&);
  absl::Status (Hook::*call_after_iter)(RunContext&, const IterInfo&,
                                        const Predictions&);
  absl::Status (Hook::*call_after_epoch)(RunContext&, const Metrics&);
  absl::Status (Hook::*call_after)(RunContext&);
};

constexpr EvalPoints kValPoints = {Mode::kVal,
                                   Stage::kBeforeVal,
                                   Stage::kBeforeValEpoch,
                                   Stage::kBeforeValIter,
                                   Stage::kAfterValIter,
                                   Stage::kAfterValEpoch,
                                   Stage::kAfterVal,
                                   &Hook::BeforeVal,
                                   &Hook::BeforeValEpoch,
                                   &Hook::BeforeValIter,
                                   &Hook::AfterValIter,
                                   &Hook::AfterValEpoch,
                                   &Hook::AfterVal};
constexpr EvalPoints kTestPoints = {Mode::kTest,
                                    Stage::kBeforeTest,
                                    Stage::kBeforeTestEpoch,
                                    Stage::kBeforeTestIter,
                                    Stage::kAfterTestIter,
                                    Stage::kAfterTestEpoch,
                                    Stage::kAfterTest,
                                    &Hook::BeforeTest,
                                    &Hook::BeforeTestEpoch,
                                    &Hook::BeforeTestIter,
                                    &Hook::AfterTestIter,
                                    &Hook::AfterTestEpoch,
                                    &Hook::AfterTest};

class RunnerImpl final : public Runner, private RunContext, StepObserver {
 public:
  explicit RunnerImpl(RunnerOptions options) : options_(std::move(options)) {}

  absl::Status Init(const RunnerConfig& config);

  absl::Status Train() override;
  absl::StatusOr<Metrics> Val() override;
  absl::StatusOr<Metrics> Test() override;
  absl::Status Export(const std::string& path) override;

  RunContext& context() override { return *this; }
  std::vector<std::string> HookNames() const override {
    std::vector<std::string> names;
    for (const ScheduledHook& scheduled : hooks_.hooks()) {
      names.emplace_back(scheduled.hook->name());
    }
    return names;
  }
  std::string StageTable() const override { return hooks_.Table(); }

  // RunContext.
  int64_t epoch() const override { return progress_.epoch(); }
  int64_t iter() const override { return progress_.iter(); }
  int64_t updates() const override { return progress_.updates(); }
  int64_t max_epochs() const override { return progress_.max_epochs(); }
  int64_t max_iters() const override { return progress_.max_iters(); }
  bool by_epoch() const override {
    return !config_.train_cfg().has_by_epoch() ||
           config_.train_cfg().by_epoch();
  }
  Mode mode() const override { return mode_; }
  bool training() const override { return training_; }
  Model& model() override { return *model_; }
  const LogVars& log_vars() const override { return log_vars_; }
  ProcessGroup& process_group() override {
    return options_.process_group != nullptr ? *options_.process_group
                                             : single_process_;
  }
  OptimWrapper* optim_wrapper() override { return optim_wrapper_.get(); }
  absl::Span<const std::unique_ptr<ParamScheduler>> param_schedulers()
      override {
    return schedulers_;
  }
  const std::string& resumed_from() const override { return resumed_from_; }
  DataLoader* dataloader(Mode mode) override {
    return loaders_[static_cast<int>(mode)].get();
  }
  void SetSamplerEpoch(int64_t epoch) override { sampler_epoch_ = epoch; }
  MessageHub& message_hub() override { return hub_; }
  LogProcessor& log_processor() override { return *log_processor_; }
  RunLog& log() override { return *log_; }
  void WriteRecord(const Record& record) override {
    LogLater([this, record] { records_->Write(record); });
  }
  void LogLater(std::function<void()> work) override {
    if (options_.log_in_background) {
      log_thread_.Post(std::move(work));
    } else {
      work();
    }
  }
  const Clock& clock() const override { return *clock_; }
  io::Env& env() override { return *env_; }
  const std::string& base_dir() const override { return options_.base_dir; }
  const std::string& work_dir() const override { return work_dir_; }
  const std::string& log_dir() const override { return log_dir_; }
  const std::string& timestamp() const override { return timestamp_; }
  const std::string& experiment_name() const override {
    return experiment_name_;
  }
  int64_t seed() const override { return seed_; }
  const std::string& config_text() const override { return config_text_; }
  absl::Status Save(SaveRequest request) override;
  void RequestStop(absl::string_view reason) override;
  const std::string& stop_reason() const override { return stop_reason_; }

  // StepObserver.
  absl::Status BeforeOptimizerStep() override;
  absl::Status AfterOptimizerStep(const StepResult& result) override;

 private:
  absl::Status InitDirectories();
  absl::Status InitLogs();
  absl::Status InitSeed();
  absl::Status FindCheckpoint();
  // The newest that can be read whole; none is OK, with checkpoint_path_ "".
  absl::Status ReadLatestCheckpoint();
  absl::Status InitLoaders();
  absl::StatusOr<std::unique_ptr<DataLoader>> CreateLoader(
      const DataLoaderConfig& config, std::unique_ptr<Dataset> dataset);
  absl::Status InitModel();
  absl::Status InitOptimizer();
  // Histories and schedulers of one of the optimizers; `name` is "" if it is
  // the only one.
  absl::Status InitOneOptimizer(const std::string& name, ParamGroups& groups);
  absl::Status AddScheduler(const optim::v1::ParamSchedulerConfig& config,
                            ParamGroups& groups, absl::string_view field);

  // Runs `body` between BeforeRun and AfterRun, after the one-time set-up;
  // tells the hooks if it fails.
  template <typename F>
  absl::Status Run(Mode mode, F&& body);
  // kFailedPrecondition, also in the log, as what fails in a run is.
  absl::Status Refuse(absl::string_view why);
  absl::Status Load();
  absl::Status Resume();
  absl::Status LoadWeights();
  absl::Status CheckDataPosition(const runner::v1::DataPosition& saved,
                                 const Progress& progress);

  absl::Status TrainEpochs();
  absl::Status TrainIters();
  absl::Status TrainIter(const IterInfo& info);

  // Counts the iteration that has just been done.
  void Advance(Progress* progress) const;

  absl::Status ValidateIfPending();
  absl::StatusOr<Metrics> Evaluate(const EvalPoints& points);

  // Calls the hooks of a point at which they may ask for checkpoints.
  template <typename... A>
  absl::Status CallAllowingSaves(A&&... args) {
    saves_allowed_ = true;
    absl::Status status = hooks_.Call(std::forward<A>(args)...);
    saves_allowed_ = false;
    return status;
  }

  absl::Status SetTraining(bool training) {
    return CatchAsStatus([&] {
      model_->SetTraining(training);
      return absl::OkStatus();
    });
  }

  bool interrupt_requested() const {
    return options_.interrupt != nullptr &&
           options_.interrupt->load(std::memory_order_relaxed) != 0;
  }
  // Tells the hooks and saves, if anything was done since the last checkpoint.
  absl::Status StopInterrupted();

  // Writes what hooks asked for at the point that has just ended; `next` is
  // where a resumed run goes on.
  absl::Status FlushSaves(const Progress& next) {
    if (save_requests_.empty()) return absl::OkStatus();
    return WriteRequestedCheckpoints(next);
  }
  absl::Status WriteRequestedCheckpoints(const Progress& next);
  absl::Status WriteCheckpoint(const SaveRequest& request,
                               const Progress& next);
  runner::v1::DataPosition CurrentDataPosition();

  RunnerOptions options_;
  RunnerConfig config_;
  io::Env* env_ = nullptr;
  const Clock* clock_ = nullptr;
  RunLog* log_ = nullptr;
  std::unique_ptr<RunLog> own_log_;
  std::unique_ptr<ThreadedRunLog> threaded_log_;
  std::unique_ptr<RecordWriter> records_;

  std::string work_dir_, log_dir_, timestamp_, experiment_name_, config_text_;
  int64_t seed_ = 0;
  std::string run_uuid_, parent_uuid_;

  std::optional<TrainPlan> plan_;           // Unset if the run doesn't train.
  std::unique_ptr<DataLoader> loaders_[3];  // By Mode.
  std::unique_ptr<Evaluator> evaluators_[3];
  std::unique_ptr<Model> model_;
  SingleProcessGroup single_process_;
  Autocast autocast_;  // Of evaluation; the training step's is the wrapper's.
  std::unique_ptr<OptimWrapper> optim_wrapper_;
  std::vector<std::unique_ptr<ParamScheduler>> schedulers_;
  MessageHub hub_;
  // What an optimizer's steps give to log, in the order of the optimizers.
  struct StepHistories {
    HistoryBuffer* grad_norm = nullptr;
    HistoryBuffer* loss_scale = nullptr;  // Null without loss scaling.
  };
  std::vector<StepHistories> step_histories_;
  std::unique_ptr<LogProcessor> log_processor_;
  HookList hooks_;

  std::string checkpoint_path_;        // To load from; "" for none.
  io::CheckpointContents checkpoint_;  // What is there, until it is loaded.
  bool resume_ = false;  // The whole state of it, not weights alone.
  std::vector<std::string> start_warnings_;  // From before there was a log.
  bool set_up_ = false;
  bool loaded_ = false;
  absl::Status broken_;  // Why set-up or loading failed: nothing can be run.
  std::string resumed_from_;

  Progress progress_;
  int64_t sampler_epoch_ = 0;
  Mode mode_ = Mode::kTrain;
  bool training_ = false;
  std::string stop_reason_;
  bool interrupted_ = false;  // This call of Train was.
  bool saves_allowed_ = false;
  std::vector<SaveRequest> save_requests_;
  std::string last_saved_;  // ProgressKey of the newest checkpoint.
  std::map<std::string, double> latest_metrics_;

  // Kept across iterations, so that none allocates them anew.
  Batch batch_;
  LogVars log_vars_;
  Predictions predictions_;

  // Last, to end first: what it is given uses all of the above.
  LogThread log_thread_;
};

// ------------------------------------------------------------------- set-up

absl::Status RunnerImpl::Init(const RunnerConfig& config) {
  config_ = config;
  env_ = options_.env != nullptr ? options_.env : &io::Env::Posix();
  clock_ = options_.clock != nullptr ? options_.clock : &Clock::System();
  GRAPNEL_RETURN_IF_ERROR(CheckConfig(config_, options_));
  if (config_.has_train_cfg()) {
    auto plan = TrainPlan::Create(config_.train_cfg());
    if (!plan.ok()) return WithContext(plan.status(), "train_cfg");
    if (options_.for_training) plan_ = *plan;
  }
  auto log_processor = LogProcessor::Create(
      config_.log_processor(), !config_.has_train_cfg() ||
                                   !config_.train_cfg().has_by_epoch() ||
                                   config_.train_cfg().by_epoch());
  if (!log_processor.ok()) {
    return WithContext(log_processor.status(), "log_processor");
  }
  log_processor_ = *std::move(log_processor);
  log_processor_->Setup(hub_);
  run_uuid_ = NewUuid();

  // Nothing is written before everything that can be wrong was looked at, the
  // work_dir aside.
  work_dir_ = io::JoinPath(
      options_.base_dir, config_.has_work_dir()
                             ? config_.work_dir()
                             : io::JoinPath("work_dirs", options_.config_name));
  GRAPNEL_RETURN_IF_ERROR(FindCheckpoint());
  GRAPNEL_RETURN_IF_ERROR(InitSeed());
  config_text_ = PrintRunnerConfig(config_);
  GRAPNEL_RETURN_IF_ERROR(InitLoaders());
  GRAPNEL_RETURN_IF_ERROR(InitModel());
  if (config_.optim_wrapper().has_amp()) {
    auto autocast =
        CreateAutocast(config_.optim_wrapper().amp(), model_->parameters());
    if (!autocast.ok()) {
      return WithContext(autocast.status(), "optim_wrapper: amp");
    }
    autocast_ = *autocast;
  }
  if (plan_) GRAPNEL_RETURN_IF_ERROR(InitOptimizer());
  std::vector<std::string> left_out;
  GRAPNEL_ASSIGN_OR_RETURN(std::vector<ScheduledHook> hooks,
                           CreateConfiguredHooks(config_, &left_out));
  for (ScheduledHook& hook : hooks) {
    GRAPNEL_RETURN_IF_ERROR(hooks_.Add(std::move(hook)));
  }
  for (ScheduledHook& hook : options_.hooks) {
    GRAPNEL_RETURN_IF_ERROR(hooks_.Add(std::move(hook)));
  }
  options_.hooks.clear();

  GRAPNEL_RETURN_IF_ERROR(InitDirectories());
  if (absl::Status status = InitLogs(); !status.ok()) {
    io::DeleteRecursively(*env_, log_dir_).IgnoreError();  // The status counts.
    return status;
  }
  // An evaluation leaves the training's as it is.
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      io::WriteFileAtomically(
          *env_,
          io::JoinPath(options_.for_training ? work_dir_ : log_dir_,
                       absl::StrCat(options_.config_name, ".textproto")),
          config_text_),
      "work_dir"));
  for (const std::string& warning : start_warnings_) log_->Warning(warning);
  for (const std::string& slot : left_out) {
    log_->Info(absl::StrCat("default hook \"", slot,
                            "\" isn't linked in and is left out"));
  }
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitDirectories() {
  GRAPNEL_RETURN_IF_ERROR(WithContext(env_->CreateDir(work_dir_), "work_dir"));
  const std::string start = absl::FormatTime(
      "%Y%m%d_%H%M%S", clock_->WallTime(), absl::LocalTimeZone());
  // Two runs may start in one second.
  for (int n = 0;; ++n) {
    timestamp_ = n == 0 ? start : absl::StrCat(start, "_", n);
    log_dir_ = io::JoinPath(work_dir_, timestamp_);
    const absl::Status status = env_->CreateNewDir(log_dir_);
    if (status.ok()) break;
    if (!absl::IsAlreadyExists(status)) return WithContext(status, "work_dir");
  }
  experiment_name_ = config_.has_experiment_name()
                         ? config_.experiment_name()
                         : absl::StrCat(options_.config_name, "_", timestamp_);
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitLogs() {
  if (options_.log != nullptr) {
    log_ = options_.log;
  } else {
    TextRunLogOptions log_options;
    GRAPNEL_ASSIGN_OR_RETURN(log_options.level,
                             ParseLogLevel(config_.log_level()));
    log_options.env = env_;
    log_options.path = io::JoinPath(log_dir_, absl::StrCat(timestamp_, ".log"));
    log_options.terminal_fd = options_.terminal_fd;
    log_options.clock = clock_;
    GRAPNEL_ASSIGN_OR_RETURN(own_log_, CreateTextRunLog(log_options));
    log_ = own_log_.get();
  }
  LogBackendOptions backend_options;
  backend_options.log_dir = log_dir_;
  backend_options.timestamp = timestamp_;
  backend_options.experiment_name = experiment_name_;
  backend_options.env = env_;
  backend_options.clock = clock_;
  auto records = RecordWriter::Create(config_.visualizer(), backend_options,
                                      config_text_, *log_);
  if (!records.ok()) return WithContext(records.status(), "visualizer");
  records_ = *std::move(records);
  if (options_.log_in_background) {
    threaded_log_ = std::make_unique<ThreadedRunLog>(*log_, log_thread_);
    log_ = threaded_log_.get();
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::FindCheckpoint() {
  resume_ = config_.resume() && options_.for_training;
  if (!config_.load_from().empty()) {
    checkpoint_path_ = io::JoinPath(options_.base_dir, config_.load_from());
    auto contents = io::ReadCheckpoint(*env_, checkpoint_path_);
    if (!contents.ok()) return WithContext(contents.status(), "load_from");
    checkpoint_ = *std::move(contents);
    return absl::OkStatus();
  }
  if (!config_.resume()) return absl::OkStatus();
  if (env_->IsDirectory(work_dir_)) {
    // A killed writer may have left the only good one under another name. Who
    // only looks leaves the folder to its writer.
    if (options_.for_training) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(io::RemoveLeftovers(*env_, work_dir_), "resume"));
    }
    GRAPNEL_RETURN_IF_ERROR(WithContext(ReadLatestCheckpoint(), "resume"));
  }
  if (!checkpoint_path_.empty()) return absl::OkStatus();
  const std::string nothing =
      absl::StrCat("resume: there is no checkpoint in ", work_dir_);
  if (!options_.for_training) return absl::NotFoundError(nothing);
  start_warnings_.push_back(absl::StrCat(nothing, ": starting anew"));
  resume_ = false;
  return absl::OkStatus();
}

absl::Status RunnerImpl::ReadLatestCheckpoint() {
  std::vector<std::string> bad, rejected;
  while (true) {
    rejected.clear();  // Each look lists all but `bad`.
    const auto latest =
        io::FindLatestCheckpoint(*env_, work_dir_, &rejected, bad);
    if (!latest.ok()) {
      if (!absl::IsNotFound(latest.status())) return latest.status();
      break;
    }
    auto contents = io::ReadCheckpoint(*env_, *latest);
    if (contents.ok()) {
      checkpoint_path_ = *latest;
      checkpoint_ = *std::move(contents);
      break;
    }
    if (!absl::IsDataLoss(contents.status())) return contents.status();
    start_warnings_.push_back(
        absl::StrCat("resume: passed over ", contents.status().message()));
    bad.push_back(*latest);
  }
  for (const std::string& line : rejected) {
    start_warnings_.push_back(absl::StrCat("resume: passed over ", line));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitSeed() {
  const bool configured = config_.randomness().has_seed();
  seed_ = configured ? config_.randomness().seed() : DrawSeed();
  if (resume_) {
    // Before anything is built with the wrong one.
    GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunState state,
                             ReadRunState(checkpoint_));
    if (configured && state.seed() != seed_) {
      start_warnings_.push_back(
          absl::StrCat("randomness: seed: the checkpoint's, ", state.seed(),
                       ", is used and not the configured ", seed_));
    }
    seed_ = state.seed();
  }
  config_.mutable_randomness()->set_seed(seed_);
  return CatchAsStatus([this] {
    at::manual_seed(static_cast<uint64_t>(seed_));
    return absl::OkStatus();
  });
}

absl::StatusOr<std::unique_ptr<DataLoader>> RunnerImpl::CreateLoader(
    const DataLoaderConfig& config, std::unique_ptr<Dataset> dataset) {
  DataLoader::Options options;
  options.base_dir = options_.base_dir;
  options.env = env_;
  options.seed = seed_;
  if (dataset == nullptr) return DataLoader::Create(config, options);
  return DataLoader::Create(config, std::move(dataset), options);
}

absl::Status RunnerImpl::InitLoaders() {
  struct Part {
    Mode mode;
    const char* name;
    bool present;
    const DataLoaderConfig& config;
    std::unique_ptr<Dataset>& dataset;
  };
  Part parts[] = {
      {Mode::kTrain, "train_dataloader", plan_.has_value(),
       config_.train_dataloader(), options_.train_dataset},
      {Mode::kVal, "val_dataloader", config_.has_val_dataloader(),
       config_.val_dataloader(), options_.val_dataset},
      {Mode::kTest, "test_dataloader", config_.has_test_dataloader(),
       config_.test_dataloader(), options_.test_dataset}};
  for (Part& part : parts) {
    if (!part.present) continue;
    auto loader = CreateLoader(part.config, std::move(part.dataset));
    if (!loader.ok()) return WithContext(loader.status(), part.name);
    if (part.mode != Mode::kTrain && (*loader)->infinite()) {
      return absl::InvalidArgumentError(absl::StrCat(
          part.name, ": sampler: type: must not be INFINITE in an evaluation"));
    }
    loaders_[static_cast<int>(part.mode)] = *std::move(loader);
  }

  if (dataloader(Mode::kVal) != nullptr) {
    auto val = Evaluator::Create(config_.val_evaluator(),
                                 std::move(options_.val_metrics));
    if (!val.ok()) return WithContext(val.status(), "val_evaluator");
    evaluators_[static_cast<int>(Mode::kVal)] = *std::move(val);
  }
  if (dataloader(Mode::kTest) != nullptr) {
    auto test = Evaluator::Create(config_.test_evaluator(),
                                  std::move(options_.test_metrics));
    if (!test.ok()) return WithContext(test.status(), "test_evaluator");
    evaluators_[static_cast<int>(Mode::kTest)] = *std::move(test);
  }
  if (plan_) {
    const int64_t length = dataloader(Mode::kTrain)->num_batches();
    if (plan_->total() > std::numeric_limits<int64_t>::max() / length) {
      return absl::InvalidArgumentError(absl::StrCat(
          "train_cfg: max_epochs: is too large, ", plan_->total()));
    }
    progress_.set_max_epochs(plan_->by_epoch() ? plan_->total() : 1);
    progress_.set_max_iters(plan_->by_epoch() ? plan_->total() * length
                                              : plan_->total());
    if (plan_->by_epoch() && dataloader(Mode::kTrain)->infinite()) {
      return absl::InvalidArgumentError(
          "train_dataloader: sampler: type: must not be INFINITE with "
          "train_cfg.by_epoch: true");
    }
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitModel() {
  if (options_.model != nullptr) {
    model_ = std::move(options_.model);
    return absl::OkStatus();
  }
  ModelOptions options;
  options.base_dir = options_.base_dir;
  for (const auto& loader : loaders_) {
    if (loader == nullptr || !options.input_shape.empty()) continue;
    GRAPNEL_ASSIGN_OR_RETURN(options.input_shape, loader->InputShape());
  }
  auto model = ModelRegistry::Create(config_.model(), options);
  if (!model.ok()) return WithContext(model.status(), "model");
  model_ = *std::move(model);
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitOptimizer() {
  auto wrapper =
      options_.optimizer != nullptr
          ? OptimWrapper::Create(config_.optim_wrapper(),
                                 std::move(options_.optimizer))
          : OptimWrapper::Create(config_.optim_wrapper(), model_->parameters());
  if (!wrapper.ok()) return WithContext(wrapper.status(), "optim_wrapper");
  optim_wrapper_ = *std::move(wrapper);
  optim_wrapper_->set_step_observer(this);

  const DataLoader& loader = *dataloader(Mode::kTrain);
  if (config_.auto_scale_lr().enable()) {
    GRAPNEL_RETURN_IF_ERROR(optim_wrapper_->ScaleLr(
        static_cast<double>(loader.batch_size()) /
        static_cast<double>(config_.auto_scale_lr().base_batch_size())));
  }
  if (optim_wrapper_->accumulative_counts() > 1) {
    for (const NamedTensor& buffer : model_->buffers()) {
      if (!absl::EndsWith(buffer.name, "running_mean")) continue;
      start_warnings_.push_back(absl::StrCat(
          "optim_wrapper: accumulative_counts is ",
          optim_wrapper_->accumulative_counts(),
          ", and the model has batch norm, whose statistics are still those of "
          "each iteration's batch"));
      break;
    }
  }
  if (config_.optim_wrapper().optimizers().empty()) {
    return InitOneOptimizer("", optim_wrapper_->scheduled_groups());
  }
  for (int i = 0; i < config_.optim_wrapper().optimizers_size(); ++i) {
    const auto& named = config_.optim_wrapper().optimizers(i);
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * one,
                             optim_wrapper_->Get(named.name()));
    const size_t first = schedulers_.size();
    GRAPNEL_RETURN_IF_ERROR(
        InitOneOptimizer(named.name(), one->scheduled_groups()));
    for (int k = 0; k < named.param_scheduler_size(); ++k) {
      GRAPNEL_RETURN_IF_ERROR(
          AddScheduler(named.param_scheduler(k), one->scheduled_groups(),
                       absl::StrCat("optim_wrapper: optimizers[", i,
                                    "]: param_scheduler[", k, "]")));
    }
    for (size_t k = first; k < schedulers_.size(); ++k) {
      schedulers_[k]->set_optimizer(named.name());
    }
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitOneOptimizer(const std::string& name,
                                          ParamGroups& groups) {
  const std::string prefix =
      name.empty() ? "train/" : absl::StrCat("train/", name, ".");
  StepHistories histories;
  histories.grad_norm = &hub_.Scalar(absl::StrCat(prefix, "grad_norm"));
  if (config_.optim_wrapper().amp().dtype() == optim::v1::AmpConfig::FLOAT16) {
    histories.loss_scale = &hub_.Scalar(absl::StrCat(prefix, "loss_scale"));
  }
  step_histories_.push_back(histories);
  for (int i = 0; i < config_.param_scheduler_size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        AddScheduler(config_.param_scheduler(i), groups,
                     absl::StrCat("param_scheduler[", i, "]")));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::AddScheduler(
    const optim::v1::ParamSchedulerConfig& config, ParamGroups& groups,
    absl::string_view field) {
  RunLength length;
  length.max_epochs = max_epochs();
  length.max_iters = max_iters();
  length.epoch_length = dataloader(Mode::kTrain)->num_batches();
  auto scheduler = ParamSchedulerRegistry::Create(config, groups, length);
  if (!scheduler.ok()) return WithContext(scheduler.status(), field);
  schedulers_.push_back(*std::move(scheduler));
  return absl::OkStatus();
}

// -------------------------------------------------------------------- a run

template <typename F>
absl::Status RunnerImpl::Run(Mode mode, F&& body) {
  GRAPNEL_RETURN_IF_ERROR(broken_);
  const DeterminismGuard determinism(config_.randomness().deterministic());
  mode_ = mode;
  interrupted_ = false;
  RunContext& run = *this;
  const auto steps = [&]() -> absl::Status {
    if (!set_up_) {
      broken_ = hooks_.Call(Stage::kSetup, &Hook::Setup, run);
      GRAPNEL_RETURN_IF_ERROR(broken_);
      set_up_ = true;
    }
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeRun, &Hook::BeforeRun, run));
    if (!loaded_) {
      broken_ = WithOrigin(Load(), ErrorOrigin::kCheckpoint);
      GRAPNEL_RETURN_IF_ERROR(broken_);
      loaded_ = true;
    }
    GRAPNEL_RETURN_IF_ERROR(body());
    return hooks_.Call(Stage::kAfterRun, &Hook::AfterRun, run);
  };
  const absl::Status status = steps();
  if (!status.ok() && !interrupted_) {
    log_->Error(status.message());
    hooks_.CallOnError(run, status);
  }
  training_ = false;
  saves_allowed_ = false;
  save_requests_.clear();
  log_->SetStatusLine("");      // Nothing is going on now.
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
  return status;
}

absl::Status RunnerImpl::Refuse(absl::string_view why) {
  log_->Error(why);
  return WithOrigin(absl::FailedPreconditionError(why), ErrorOrigin::kRequest);
}

absl::Status RunnerImpl::Load() {
  if (plan_) optim_wrapper_->InitializeCounts(0, max_iters());
  if (checkpoint_path_.empty()) {
    for (const auto& scheduler : schedulers_) scheduler->Apply();
    return absl::OkStatus();
  }
  RunContext& run = *this;
  if (resume_) resumed_from_ = checkpoint_path_;
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(Stage::kAfterLoadCheckpoint,
                                      &Hook::AfterLoadCheckpoint, run,
                                      checkpoint_));
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(resume_ ? Resume() : LoadWeights(), checkpoint_path_));
  checkpoint_ = io::CheckpointContents();  // Its memory.
  return absl::OkStatus();
}

absl::Status RunnerImpl::LoadWeights() {
  const TensorMap* weights = checkpoint_.FindSection("model");
  if (weights == nullptr) {
    return absl::InvalidArgumentError("there is no section \"model\"");
  }
  std::vector<std::string> report;
  GRAPNEL_RETURN_IF_ERROR(
      LoadModelState(*weights, /*strict=*/false, *model_, &report));
  for (const std::string& line : report) log_->Warning(line);
  for (const auto& scheduler : schedulers_) scheduler->Apply();
  log_->Info(absl::StrCat("Load checkpoint from ", checkpoint_path_));
  return absl::OkStatus();
}

absl::Status RunnerImpl::Resume() {
  GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunState state,
                           ReadRunState(checkpoint_));
  const io::v1::CheckpointManifest& manifest = checkpoint_.manifest;
  const Progress& saved = manifest.progress();
  if (saved.epoch() < 0 || saved.iter() < 0 || saved.iter_in_epoch() < 0) {
    return absl::DataLossError("progress: is negative");
  }
  GRAPNEL_RETURN_IF_ERROR(CheckDataPosition(state.data(), saved));
  if (manifest.num_threads() != at::get_num_threads() ||
      manifest.cpu_capability() != at::get_cpu_capability() ||
      manifest.libtorch_version() != kLibTorchVersion) {
    log_->Warning(absl::StrCat(
        "resume: the checkpoint was made by LibTorch ",
        manifest.libtorch_version(), " with ", manifest.num_threads(),
        " threads and ", manifest.cpu_capability(), ", this run has ",
        kLibTorchVersion, ", ", at::get_num_threads(), " and ",
        at::get_cpu_capability(), ": it will not be the same to the bit"));
  }
  std::vector<std::string> warnings;
  GRAPNEL_RETURN_IF_ERROR(RestoreRun(
      checkpoint_, state,
      {model_.get(), optim_wrapper_.get(), schedulers_, &hub_, &hooks_},
      &warnings));
  for (const std::string& warning : warnings) {
    log_->Warning(absl::StrCat("resume: ", warning));
  }
  if (saved.validation_pending() && dataloader(Mode::kVal) == nullptr) {
    log_->Warning(
        "resume: a validation was due, and this run has no val_dataloader");
  }
  const int64_t max_epochs = this->max_epochs();
  const int64_t max_iters = this->max_iters();
  progress_ = saved;
  progress_.set_max_epochs(max_epochs);
  progress_.set_max_iters(max_iters);
  // Without its state it would count from 0.
  if (!state.has_optim_wrapper()) {
    optim_wrapper_->InitializeCounts(iter(), max_iters);
  }
  if (dataloader(Mode::kVal) == nullptr) {
    progress_.set_validation_pending(false);
  }
  run_uuid_ = manifest.run_uuid();
  parent_uuid_ = manifest.checkpoint_uuid();
  last_saved_ = ProgressKey(progress_);
  for (const auto& [name, value] : manifest.metrics()) {
    latest_metrics_[name] = value;
  }
  log_->Info(absl::StrCat("resumed epoch: ", epoch(), ", iter: ", iter()));
  return absl::OkStatus();
}

runner::v1::DataPosition RunnerImpl::CurrentDataPosition() {
  const DataLoader& loader = *dataloader(Mode::kTrain);
  runner::v1::DataPosition position;
  position.set_dataset_size(loader.dataset().size());
  position.set_batch_size(loader.batch_size());
  position.set_world_size(1);
  position.set_infinite(loader.infinite());
  position.set_num_batches(loader.num_batches());
  position.set_shuffle(config_.train_dataloader().sampler().shuffle());
  position.set_by_epoch(by_epoch());
  return position;
}

absl::Status RunnerImpl::CheckDataPosition(
    const runner::v1::DataPosition& saved, const Progress& progress) {
  const runner::v1::DataPosition current = CurrentDataPosition();
  if (saved.by_epoch() != current.by_epoch() && progress.iter() > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "train_cfg: by_epoch: is ", current.by_epoch() ? "true" : "false",
        ", the checkpoint's was not: its counters would mean "
        "something else"));
  }
  if (saved.SerializeAsString() == current.SerializeAsString()) {
    return absl::OkStatus();
  }
  const auto text = [](const runner::v1::DataPosition& position) {
    return absl::StrFormat("%d samples in %d batches of %d, %s%s",
                           position.dataset_size(), position.num_batches(),
                           position.batch_size(),
                           position.shuffle() ? "shuffled" : "in order",
                           position.infinite() ? ", for ever" : "");
  };
  const std::string difference =
      absl::StrCat("train_dataloader: the checkpoint's had ", text(saved),
                   "; this one has ", text(current));
  const bool inside =
      by_epoch() ? progress.iter_in_epoch() > 0 : progress.iter() > 0;
  if (inside) {
    return absl::FailedPreconditionError(absl::StrCat(
        difference, ": the position inside the data would mean another"));
  }
  log_->Warning(absl::StrCat("resume: ", difference));
  return absl::OkStatus();
}

absl::Status RunnerImpl::Train() {
  if (!plan_) {
    return Refuse(options_.for_training
                      ? "can't train: train_dataloader, train_cfg and "
                        "optim_wrapper are not set"
                      : "can't train: the runner was made with for_training: "
                        "false");
  }
  return Run(Mode::kTrain, [this]() -> absl::Status {
    RunContext& run = *this;
    training_ = true;
    const c10::AutoGradMode with_grad(true);
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeTrain, &Hook::BeforeTrain, run));
    GRAPNEL_RETURN_IF_ERROR(plan_->by_epoch() ? TrainEpochs() : TrainIters());
    GRAPNEL_RETURN_IF_ERROR(
        CallAllowingSaves(Stage::kAfterTrain, &Hook::AfterTrain, run));
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(progress_));
    training_ = false;
    return absl::OkStatus();
  });
}

absl::StatusOr<Metrics> RunnerImpl::Val() {
  if (dataloader(Mode::kVal) == nullptr) {
    return Refuse(
        "can't validate: val_dataloader and val_evaluator are not set");
  }
  Metrics metrics;
  GRAPNEL_RETURN_IF_ERROR(Run(Mode::kVal, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(metrics, Evaluate(kValPoints));
    return absl::OkStatus();
  }));
  return metrics;
}

absl::StatusOr<Metrics> RunnerImpl::Test() {
  if (dataloader(Mode::kTest) == nullptr) {
    return Refuse("can't test: test_dataloader and test_evaluator are not set");
  }
  Metrics metrics;
  GRAPNEL_RETURN_IF_ERROR(Run(Mode::kTest, [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(metrics, Evaluate(kTestPoints));
    return absl::OkStatus();
  }));
  return metrics;
}

absl::Status RunnerImpl::Export(const std::string& path) {
  return Run(Mode::kTest, [&]() -> absl::Status {
    RunContext& run = *this;
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeExport, &Hook::BeforeExport, run));
    GRAPNEL_RETURN_IF_ERROR(
        CatchAsStatus([&] { return model_->Export(path); }));
    log_->Info(absl::StrCat("Model exported to ", path));
    return hooks_.Call(Stage::kAfterExport, &Hook::AfterExport, run);
  });
}

// -------------------------------------------------------------------- loops

absl::Status RunnerImpl::TrainEpochs() {
  RunContext& run = *this;
  DataLoader& loader = *dataloader(Mode::kTrain);
  IterInfo info;
  info.num_batches = loader.num_batches();
  info.batch = &batch_;

  GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  while (epoch() < max_epochs() && stop_reason_.empty()) {
    // An epoch that is gone on with keeps what its histories hold.
    if (progress_.iter_in_epoch() == 0) hub_.BeginEpoch(Mode::kTrain);
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(Stage::kBeforeTrainEpoch, &Hook::BeforeTrainEpoch, run));
    GRAPNEL_RETURN_IF_ERROR(SetTraining(true));
    loader.Seek(sampler_epoch_, progress_.iter_in_epoch());
    while (progress_.iter_in_epoch() < info.num_batches) {
      GRAPNEL_RETURN_IF_ERROR(
          WithOrigin(loader.Next(&batch_), ErrorOrigin::kData));
      info.batch_idx = progress_.iter_in_epoch();
      GRAPNEL_RETURN_IF_ERROR(TrainIter(info));
      if (!save_requests_.empty()) {
        Progress next = progress_;
        Advance(&next);
        GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
      }
      Advance(&progress_);
      if (interrupt_requested()) return StopInterrupted();
    }
    GRAPNEL_RETURN_IF_ERROR(CallAllowingSaves(Stage::kAfterTrainEpoch,
                                              &Hook::AfterTrainEpoch, run));
    Progress next = progress_;
    next.set_epoch(epoch() + 1);
    next.set_iter_in_epoch(0);
    next.set_validation_pending(dataloader(Mode::kVal) != nullptr &&
                                plan_->ValidationDue(next.epoch()));
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
    progress_ = next;
    GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::TrainIters() {
  RunContext& run = *this;
  DataLoader& loader = *dataloader(Mode::kTrain);
  IterInfo info;
  info.num_batches = loader.num_batches();
  info.batch = &batch_;

  if (iter() == 0) hub_.BeginEpoch(Mode::kTrain);
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(Stage::kBeforeTrainEpoch, &Hook::BeforeTrainEpoch, run));
  GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  // A finite sampler is gone through again and again, one pass an epoch of its
  // own.
  const auto seek = [&] {
    if (loader.infinite()) {
      loader.Seek(0, iter());
    } else {
      loader.Seek(sampler_epoch_ + iter() / info.num_batches,
                  iter() % info.num_batches);
    }
  };
  seek();
  while (iter() < max_iters() && stop_reason_.empty()) {
    // Validation leaves it in evaluation mode.
    if (!model_->training()) GRAPNEL_RETURN_IF_ERROR(SetTraining(true));
    absl::Status status = loader.Next(&batch_);
    if (absl::IsOutOfRange(status)) {
      seek();
      status = loader.Next(&batch_);
    }
    GRAPNEL_RETURN_IF_ERROR(WithOrigin(status, ErrorOrigin::kData));
    info.batch_idx = iter();
    GRAPNEL_RETURN_IF_ERROR(TrainIter(info));
    const bool pending =
        dataloader(Mode::kVal) != nullptr && plan_->ValidationDue(iter() + 1);
    if (!save_requests_.empty()) {
      Progress next = progress_;
      Advance(&next);
      next.set_validation_pending(pending);
      GRAPNEL_RETURN_IF_ERROR(FlushSaves(next));
    }
    Advance(&progress_);
    progress_.set_validation_pending(pending);
    if (interrupt_requested()) return StopInterrupted();
    GRAPNEL_RETURN_IF_ERROR(ValidateIfPending());
  }
  GRAPNEL_RETURN_IF_ERROR(
      CallAllowingSaves(Stage::kAfterTrainEpoch, &Hook::AfterTrainEpoch, run));
  return FlushSaves(progress_);
}

absl::Status RunnerImpl::TrainIter(const IterInfo& info) {
  RunContext& run = *this;
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(Stage::kBeforeTrainIter, &Hook::BeforeTrainIter, run, info));
  log_vars_.Clear();
  absl::Status status = CatchAsStatus([this] {
    return model_->TrainStep(batch_, *optim_wrapper_, &log_vars_);
  });
  if (!status.ok()) {
    return WithContext(status, absl::StrCat("training iteration ", iter() + 1));
  }
  return CallAllowingSaves(Stage::kAfterTrainIter, &Hook::AfterTrainIter, run,
                           info, log_vars_);
}

void RunnerImpl::Advance(Progress* progress) const {
  progress->set_iter(progress->iter() + 1);
  if (plan_->by_epoch()) {
    progress->set_iter_in_epoch(progress->iter_in_epoch() + 1);
  }
  progress->set_samples(progress->samples() + batch_.size());
}

absl::Status RunnerImpl::ValidateIfPending() {
  if (!progress_.validation_pending()) return absl::OkStatus();
  return Evaluate(kValPoints).status();
}

absl::StatusOr<Metrics> RunnerImpl::Evaluate(const EvalPoints& points) {
  RunContext& run = *this;
  DataLoader& loader = *dataloader(points.mode);
  Evaluator& evaluator = *evaluators_[static_cast<int>(points.mode)];
  const Mode outer_mode = mode_;
  // What an interrupt goes back to: the run that goes on evaluates anew.
  runner::v1::MessageHubState before;
  if (training_ && options_.interrupt != nullptr) hub_.SaveState(&before);
  mode_ = points.mode;
  hub_.BeginEpoch(points.mode);
  IterInfo info;
  info.num_batches = loader.num_batches();
  info.batch = &batch_;

  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.before, points.call_before, run));
  GRAPNEL_RETURN_IF_ERROR(
      hooks_.Call(points.before_epoch, points.call_before_epoch, run));
  GRAPNEL_RETURN_IF_ERROR(SetTraining(false));
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    evaluator.Reset();
    return absl::OkStatus();
  }));
  loader.Seek(0, 0);
  for (info.batch_idx = 0; info.batch_idx < info.num_batches;
       ++info.batch_idx) {
    GRAPNEL_RETURN_IF_ERROR(
        WithOrigin(loader.Next(&batch_), ErrorOrigin::kData));
    const c10::NoGradGuard no_grad;
    GRAPNEL_RETURN_IF_ERROR(
        hooks_.Call(points.before_iter, points.call_before_iter, run, info));
    predictions_.losses.Clear();
    absl::Status status = CatchAsStatus([this] {
      const AutocastScope autocast(autocast_);
      return model_->ValStep(batch_, &predictions_);
    });
    if (status.ok()) {
      status = CatchAsStatus(
          [&] { return evaluator.Process(predictions_, batch_); });
    }
    if (!status.ok()) {
      return WithContext(status, absl::StrCat(ModeName(points.mode), " batch ",
                                              info.batch_idx + 1));
    }
    GRAPNEL_RETURN_IF_ERROR(hooks_.Call(
        points.after_iter, points.call_after_iter, run, info, predictions_));
    if (interrupt_requested()) {
      if (training_) GRAPNEL_RETURN_IF_ERROR(hub_.LoadState(before));
      mode_ = outer_mode;
      return StopInterrupted();
    }
  }
  Metrics metrics;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(metrics, evaluator.Compute(ModeName(points.mode)));
    return absl::OkStatus();
  }));
  if (points.mode == Mode::kVal) {
    for (const auto& [name, value] : metrics) {
      if (const double* number = std::get_if<double>(&value)) {
        latest_metrics_[name] = *number;
      } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
        latest_metrics_[name] = static_cast<double>(*integer);
      }
    }
  }
  saves_allowed_ = training_;
  const absl::Status status =
      hooks_.Call(points.after_epoch, points.call_after_epoch, run, metrics);
  saves_allowed_ = false;
  GRAPNEL_RETURN_IF_ERROR(status);
  if (training_) {
    progress_.set_validation_pending(false);
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(progress_));
  }
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(points.after, points.call_after, run));
  mode_ = outer_mode;
  return metrics;
}

absl::Status RunnerImpl::BeforeOptimizerStep() {
  RunContext& run = *this;
  return hooks_.Call(Stage::kBeforeOptimizerStep, &Hook::BeforeOptimizerStep,
                     run);
}

absl::Status RunnerImpl::AfterOptimizerStep(const StepResult& result) {
  if (result.stepped) progress_.set_updates(updates() + 1);
  const StepHistories& histories = step_histories_[result.optimizer];
  if (result.grad_norm.defined()) histories.grad_norm->Add(result.grad_norm);
  if (histories.loss_scale != nullptr) histories.loss_scale->Add(result.scale);
  RunContext& run = *this;
  return hooks_.Call(Stage::kAfterOptimizerStep, &Hook::AfterOptimizerStep, run,
                     result);
}

void RunnerImpl::RequestStop(absl::string_view reason) {
  if (!stop_reason_.empty()) return;
  stop_reason_ = reason.empty() ? "a hook asked for it" : std::string(reason);
  log_->Info(absl::StrCat("stopping: ", stop_reason_));
}

// -------------------------------------------------------------- checkpoints

absl::Status RunnerImpl::Save(SaveRequest request) {
  if (!saves_allowed_) {
    return absl::FailedPreconditionError(
        "a checkpoint can be asked for at AfterTrainIter, AfterTrainEpoch, "
        "AfterTrain and, in training, AfterValEpoch");
  }
  for (SaveRequest& waiting : save_requests_) {
    if (waiting.name != request.name || waiting.dir != request.dir) continue;
    waiting.update_last_checkpoint |= request.update_last_checkpoint;
    waiting.optimizer |= request.optimizer;
    waiting.param_schedulers |= request.param_schedulers;
    return absl::OkStatus();
  }
  save_requests_.push_back(std::move(request));
  return absl::OkStatus();
}

absl::Status RunnerImpl::StopInterrupted() {
  interrupted_ = true;
  const absl::Status cancelled = absl::CancelledError("interrupted");
  hooks_.CallOnError(*this, cancelled);
  if (training_ && last_saved_ != ProgressKey(progress_)) {
    SaveRequest request;
    request.name = plan_->by_epoch() && progress_.iter_in_epoch() == 0
                       ? absl::StrCat("epoch_", epoch())
                       : absl::StrCat("iter_", iter());
    log_->Info(absl::StrCat("interrupted: saving ", request.name));
    save_requests_.push_back(std::move(request));
    GRAPNEL_RETURN_IF_ERROR(FlushSaves(progress_));
  }
  return cancelled;
}

absl::Status RunnerImpl::WriteRequestedCheckpoints(const Progress& next) {
  // A hook may ask for another one while one is being written.
  for (size_t i = 0; i < save_requests_.size(); ++i) {
    const SaveRequest request = save_requests_[i];
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(WriteCheckpoint(request, next),
                    absl::StrCat("checkpoint \"", request.name, "\"")));
  }
  save_requests_.clear();
  return absl::OkStatus();
}

absl::Status RunnerImpl::WriteCheckpoint(const SaveRequest& request,
                                         const Progress& next) {
  RunParts parts = {model_.get(), optim_wrapper_.get(), schedulers_, &hub_,
                    &hooks_};
  if (!request.optimizer) parts.optim_wrapper = nullptr;
  if (!request.param_schedulers) parts.param_schedulers = {};
  GRAPNEL_ASSIGN_OR_RETURN(io::CheckpointContents contents,
                           CaptureRun(parts, seed_, CurrentDataPosition()));
  io::v1::CheckpointManifest& manifest = contents.manifest;
  *manifest.mutable_progress() = next;
  manifest.set_run_uuid(run_uuid_);
  manifest.set_parent_uuid(parent_uuid_);
  manifest.set_created_unix_nanos(absl::ToUnixNanos(clock_->WallTime()));
  manifest.set_producer(absl::StrCat("grapnel ", kGrapnelVersion));
  manifest.set_libtorch_version(kLibTorchVersion);
  manifest.set_cpu_capability(at::get_cpu_capability());
  manifest.set_num_threads(at::get_num_threads());
  manifest.set_world_size(1);
  manifest.set_config(config_text_);
  for (const auto& [name, value] : latest_metrics_) {
    (*manifest.mutable_metrics())[name] = value;
  }
  RunContext& run = *this;
  GRAPNEL_RETURN_IF_ERROR(hooks_.Call(Stage::kBeforeSaveCheckpoint,
                                      &Hook::BeforeSaveCheckpoint, run,
                                      contents));
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
  const std::string& dir = request.dir.empty() ? work_dir_ : request.dir;
  GRAPNEL_RETURN_IF_ERROR(
      io::WriteCheckpoint(*env_, dir, request.name, contents));
  SavedCheckpoint saved;
  saved.name = request.name;
  saved.path = io::JoinPath(dir, request.name);
  saved.is_last = request.update_last_checkpoint;
  if (saved.is_last) {
    GRAPNEL_RETURN_IF_ERROR(
        io::WriteLastCheckpoint(*env_, work_dir_, saved.path));
    last_saved_ = ProgressKey(next);
  }
  return hooks_.Call(Stage::kAfterSaveCheckpoint, &Hook::AfterSaveCheckpoint,
                     run, saved);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runner>> Runner::Create(
    const RunnerConfig& config, RunnerOptions options) {
  auto runner = std::make_unique<RunnerImpl>(std::move(options));
  // Of what users register, anything may throw.
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] { return runner->Init(config); }));
  return runner;
}

ErrorOrigin OriginOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kOriginUrl);
  if (!payload.has_value()) return ErrorOrigin::kOther;
  for (const ErrorOrigin origin :
       {ErrorOrigin::kRequest, ErrorOrigin::kData, ErrorOrigin::kCheckpoint}) {
    if (*payload == absl::StrCat(static_cast<int>(origin))) return origin;
  }
  return ErrorOrigin::kOther;
}

}  // namespace grapnel
