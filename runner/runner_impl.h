// The one kind of Runner there is: its state, and the RunContext that hooks
// see. It is set up in runner_setup.cc, loads and writes checkpoints in
// runner_checkpoints.cc, and trains and evaluates in runner.cc.

#ifndef GRAPNEL_RUNNER_RUNNER_IMPL_H_
#define GRAPNEL_RUNNER_RUNNER_IMPL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/pausing_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/stream_loader.h"
#include "grapnel/data/stream_position.pb.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/loggers/log_thread.h"
#include "grapnel/loggers/record_writer.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/runner/border_desk.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/hook_list.h"
#include "grapnel/runner/load_options.h"
#include "grapnel/runner/log_processor.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/predictor.h"
#include "grapnel/runner/predictor_parts.h"
#include "grapnel/runner/rank_agreement.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_generators.h"
#include "grapnel/runner/run_lock.h"
#include "grapnel/runner/run_progress.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/stage.h"
#include "grapnel/runner/torch_loan.h"
#include "grapnel/runner/train_plan.h"
#include "grapnel/runner/validation_snapshot.h"

namespace grapnel::data::v1 {
class DataLoaderConfig;
}  // namespace grapnel::data::v1

namespace grapnel::optim::v1 {
class ClipGradConfig;
class ParamSchedulerConfig;
}  // namespace grapnel::optim::v1

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

struct EvalPoints;  // The mount points of an evaluation, in runner.cc.

// A checkpoint that was asked for, and one on its way to the disk.
struct WaitingSave {
  int64_t id = 0;
  SaveRequest request;
};
struct CapturedSave {
  std::string dir;
  SavedCheckpoint checkpoint;
  io::CheckpointContents contents;
  std::string progress_key;  // Of the point of the run that it is of.
};

// Threads as Runner says.
class RunnerImpl final : public Runner, private RunContext, StepObserver {
 public:
  explicit RunnerImpl(RunnerOptions options);
  ~RunnerImpl() override;

  // Before anything else, and if it fails nothing else.
  absl::Status Init(const runner::v1::RunnerConfig& config);

  absl::Status Train() override;
  absl::Status Save(const std::string& name) override;
  absl::StatusOr<bool> Step() override;
  absl::StatusOr<bool> TrainUntil(absl::Time deadline) override;
  absl::StatusOr<Metrics> Val() override;
  absl::StatusOr<Metrics> Test() override;
  absl::Status Export(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<Predictor>> MakePredictor(
      PredictorOptions options) override;

  absl::StatusOr<at::Tensor> GetTensor(absl::string_view name) override;
  absl::Status SetTensor(absl::string_view name,
                         const at::Tensor& value) override;

  RunContext& context() override { return *this; }
  std::vector<std::string> HookNames() const override {
    std::vector<std::string> names;
    for (const ScheduledHook& scheduled : hooks_.hooks()) {
      names.emplace_back(scheduled.hook->name());
    }
    return names;
  }
  Hook* FindHook(absl::string_view name) override {
    Hook* const exact = hooks_.Find(name);
    return exact != nullptr ? exact : hooks_.Find(DefaultHookName(name));
  }
  std::string StageTable() const override { return hooks_.Table(); }

  // RunContext.
  int64_t epoch() const override { return seen_.epoch; }
  int64_t iter() const override { return seen_.iter; }
  int64_t updates() const override { return seen_.updates; }
  int64_t iter_in_epoch() const override { return seen_.iter_in_epoch; }
  int64_t max_epochs() const override { return progress_.max_epochs(); }
  int64_t max_iters() const override { return progress_.max_iters(); }
  bool by_epoch() const override { return by_epoch_; }
  Mode mode() const override { return mode_; }
  bool training() const override { return training_; }
  Model& model() override { return *model_; }
  const LogVars& log_vars() const override { return log_vars_; }
  ProcessGroup& process_group() override {
    return options_.process_group != nullptr ? *options_.process_group
                                             : single_process_;
  }
  bool is_master() override { return process_group().rank() == 0; }
  OptimWrapper* optim_wrapper() override { return optim_wrapper_.get(); }
  absl::Span<const std::unique_ptr<ParamScheduler>> param_schedulers()
      override {
    return schedulers_;
  }
  const std::string& resumed_from() const override { return resumed_from_; }
  c10::Device device() const override { return device_; }
  at::Generator generator() override { return generators_.cpu(); }
  at::Generator device_generator() override { return generators_.device(); }
  DataLoader* dataloader(Mode mode) override {
    return loaders_[static_cast<int>(mode)].get();
  }
  void SetSamplerEpoch(int64_t epoch) override { sampler_epoch_ = epoch; }
  MessageHub& message_hub() override { return hub_; }
  LogProcessor& log_processor() override { return *log_processor_; }
  RunLog& log() override { return *log_; }
  void WriteRecord(const Record& record) override {
    if (records_ == nullptr) return;  // Of a rank that writes nothing.
    LogLater([this, record] { records_->Write(record); });
  }
  void LogLater(std::function<void()> work) override {
    if (options_.log_in_background) {
      log_thread_.Post(std::move(work));
    } else {
      work();
    }
  }
  const Clock& clock() const override { return run_clock_; }
  io::Env& env() override { return *env_; }
  const std::string& base_dir() const override { return options_.base_dir; }
  const std::string& work_dir() const override { return work_dir_; }
  const std::string& checkpoint_dir() const override { return checkpoint_dir_; }
  const std::string& log_dir() const override { return log_dir_; }
  const std::string& timestamp() const override { return timestamp_; }
  const std::string& experiment_name() const override {
    return experiment_name_;
  }
  int64_t seed() const override { return seed_; }
  const std::string& config_text() const override { return config_text_; }
  absl::StatusOr<int64_t> RequestSave(SaveRequest request) override;
  void RequestStop(absl::string_view reason, StopAt at) override;
  std::string stop_reason() const override;

  // StepObserver.
  absl::Status BeforeOptimizerStep() override;
  absl::Status AfterOptimizerStep(const StepResult& result) override;

 private:
  // Does a part of Init on all ranks: if it fails on one, it has on all.
  template <typename F>
  absl::Status OnAllRanks(F&& part) {
    return AgreeOnStatus(process_group(), CatchAsStatus(std::forward<F>(part)));
  }
  int num_ranks() const { return num_ranks_; }

  // The parts of Init.
  absl::Status InitUntilCheckpoint();
  // All of the run that needs no other rank: a rank that fails here alone
  // agrees with the others on it before they wait for it elsewhere.
  absl::Status InitRun(std::vector<std::string>* left_out);
  absl::Status InitFiles();
  // What all ranks need to know of it, and whether they are of one kind.
  absl::Status InitRanks();
  absl::Status CheckRanks();
  absl::Status ShareStart();

  // Looks at the config alone; nothing else has been touched.
  absl::Status InitConfig();
  // Sets what is saved of the config, as it is resolved by then.
  absl::Status DescribeConfig();
  // Before anything in the folders is looked at.
  absl::Status LockFolders();
  // What killed runs left there.
  absl::Status RemoveLeftovers();
  absl::Status InitDirectories();
  absl::Status InitSilentLog();
  absl::Status InitLogs();
  absl::Status InitSeed();
  absl::Status FindCheckpoint();
  // The newest that can be read whole; none is OK, with checkpoint_path_ "".
  absl::Status ReadLatestCheckpoint();
  // Puts it out of the way, in a training that has the folder's lock, which
  // goes on from `good`, if not "". What to say of that; "" if it stays where
  // it is.
  std::string SetAsideIfDamaged(const io::RejectedCheckpoint& bad,
                                const std::string& good);
  absl::Status InitDevice();
  // Behind InitRun, of a training of several ranks: asks the others.
  absl::Status InitGradientReducers();
  absl::Status AddGradientReducer(const std::vector<NamedTensor>& params,
                                  const std::vector<NamedTensor>& buffers,
                                  OptimWrapper& optim_wrapper);
  absl::Status CheckDevice() const;
  absl::Status InitLoaders();
  absl::Status InitStream();
  absl::Status InitProgress();
  absl::Status ResumeProgress(const RunProgress::Plan& plan);
  // That all ranks come to an epoch's end together.
  absl::Status CheckSplit();
  // The path of the checkpoint of this run, beside the one to resume from, from
  // which it could go on with other data; the nearest one. "" if none is known.
  std::string NearestBorder() const;
  absl::StatusOr<std::unique_ptr<DataLoader>> CreateLoader(
      const data::v1::DataLoaderConfig& config,
      std::unique_ptr<Dataset> dataset);
  absl::Status InitModel();
  // That it goes with the training data, and into checkpoints.
  absl::Status CheckModel();
  absl::Status InitOptimizer();
  // Histories and schedulers of one of the optimizers; `name` is "" if it is
  // the only one.
  absl::Status InitOneOptimizer(const std::string& name,
                                const optim::v1::ClipGradConfig& clip_grad,
                                ParamGroups& groups);
  absl::Status AddScheduler(const optim::v1::ParamSchedulerConfig& config,
                            ParamGroups& groups, absl::string_view field);

  // Runs `body` between BeforeRun and AfterRun, after the one-time set-up;
  // tells the hooks if it fails.
  template <typename F>
  absl::Status Run(Mode mode, F&& body);
  // Runs `body` with LibTorch's settings as the run wants them, and its clock
  // going: each call of the runner does. kFailedPrecondition, or why, if the
  // runner is of no use any more.
  template <typename F>
  absl::Status Guarded(F&& body);
  absl::Status BeginRun();
  void EndRun(Mode mode, absl::Status* status);
  // Evaluates or exports between two steps of a training, which then goes on as
  // if nothing had been.
  template <typename F>
  absl::Status Between(Mode mode, F&& body);
  // Logs what a run failed with and tells the hooks.
  void Fail(const absl::Status& status);
  // OnError; then takes back what a validation had done that isn't over.
  void TellOfError(const absl::Status& status);
  // `*status` becomes the first error if there was none.
  void CallAfterRun(absl::Status* status);
  // Calls the hooks of a stage, also those behind one that fails; errors are
  // logged, and the first one comes back.
  template <typename F, typename... A>
  absl::Status CallAll(MountPoint<F> point, A&... args) {
    absl::Status first;
    RunContext& run = *this;
    for (size_t next = 0;;) {
      const absl::Status error = hooks_.CallFrom(&next, point, run, args...);
      if (error.ok()) return first;
      log_->Error(error.message());
      first.Update(error);
    }
  }
  // kFailedPrecondition, also in the log, as what fails in a run is.
  absl::Status Refuse(absl::string_view why);
  absl::Status Load();
  absl::Status Resume();
  // Says what can't be equal where the checkpoint is of another number of them.
  void WarnOfOtherRanks();
  // What a resumed run's optimizers gave to log and this one's don't would stay
  // at its last value in every record.
  void ForgetWhatOptimizersDoNotGive();
  absl::Status LoadWeights();
  // A step of training, or all that are left; what begins and ends it at its
  // beginning and end. Sets `*more` to false at the end.
  absl::Status Advance(bool to_the_end, bool* more);
  absl::Status AdvanceInLoop(bool to_the_end, bool* more);
  absl::Status BeginTraining();
  absl::Status EndTraining();
  // An iteration, with all that is due before and after it. Sets `*more`.
  absl::Status StepOfEpochs(bool* more);
  absl::Status BeginTrainEpoch();
  absl::Status StepOfIters(bool* more);
  absl::Status BeginTrainLoop();
  absl::Status SeekToPlace();
  absl::Status NextTrainBatch();
  absl::Status TrainIter();

  absl::Status ValidateIfPending();
  absl::StatusOr<Metrics> Evaluate(const EvalPoints& points);
  // `missing`: what it says if that isn't configured.
  absl::StatusOr<Metrics> RunEvaluation(const EvalPoints& points,
                                        absl::string_view missing);

  // What comes behind a training step, an epoch's last iteration or a
  // validation's last batch: the hooks, the count, then the checkpoints that
  // hooks have asked for. What fails there has been done, and is not done again
  // if Train() is called once more: that begins with what is left of these.
  absl::Status FinishTrainIter();
  absl::Status FinishTrainEpoch();
  absl::Status FinishValidation();
  absl::Status FinishCutStage();
  void BeginStage(Stage stage) {
    cut_stage_ = stage;
    next_hook_ = 0;
  }
  // Calls the hooks of such a stage, at which they may ask for checkpoints, or
  // those that a call before has left.
  template <typename F, typename... A>
  absl::Status CallRest(MountPoint<F> point, A&... args);

  // Calls the model, which may draw from LibTorch's default generator.
  template <typename F>
  absl::Status CallModel(F&& call) {
    if (!model_draws_from_defaults_) {
      return CatchAsStatus(std::forward<F>(call));
    }
    return CatchAsStatus([&] {
      const GeneratorLoan loan(generators_);
      return std::forward<F>(call)();
    });
  }

  absl::Status SetTraining(bool training) {
    return CatchAsStatus([&] {
      model_->SetTraining(training);
      return absl::OkStatus();
    });
  }

  // Why a call ends before the epoch or the validation that is going on.
  enum class Cut { kNone, kInterrupt, kStop, kDeadline };
  Cut CutDue() { return num_ranks() == 1 ? OwnCut() : agreed_cut_; }
  Cut OwnCut() const {
    if (options_.interrupt != nullptr &&
        options_.interrupt->load(std::memory_order_relaxed) != 0) {
      return Cut::kInterrupt;
    }
    if (!training_) return Cut::kNone;
    if (stop_.load(std::memory_order_relaxed) == StopLevel::kNow) {
      return Cut::kStop;
    }
    return deadline_.has_value() && clock_->WallTime() >= *deadline_
               ? Cut::kDeadline
               : Cut::kNone;
  }
  // Tells the hooks and saves, if anything was done since the last checkpoint.
  // kCancelled, with cut_ set, if that went well.
  absl::Status CutShort(Cut cut);

  bool stop_requested() const {
    return stop_.load(std::memory_order_acquire) != StopLevel::kNone;
  }
  bool MustStop();  // Logs why, once.

  // Of several ranks: whether one of them is to stop, which all do then in the
  // same iteration. They ask each other about once a second, and where an epoch
  // or a validation ends; in between it costs nothing.
  absl::Status AgreeOnStop() {
    const bool due = num_ranks_ > 1 &&
                     (agreement_due_ || progress_.iter() >= next_agreement_);
    return due ? AskAboutStop() : absl::OkStatus();
  }
  absl::Status AskAboutStop();
  void ForgetStop();

  // What ends a point at which hooks may ask for checkpoints: those are
  // written, as of progress_, and only then do hooks see it counted.
  absl::Status EndPoint() {
    if (!waiting_saves_.empty()) {
      GRAPNEL_RETURN_IF_ERROR(WriteWaitingSaves());
    }
    ShowProgress();
    return absl::OkStatus();
  }
  void ShowProgress() {
    seen_ = {progress_.epoch(), progress_.iter(), progress_.iter_in_epoch(),
             progress_.updates()};
  }
  static absl::Status CheckSaveName(const std::string& name);
  absl::Status WriteWaitingSaves();
  // A save in three parts. What is captured shares storage with the run, and is
  // published with nothing else of it; then the hooks are told.
  absl::Status SaveNow(const WaitingSave& waiting, bool* published);
  absl::StatusOr<CapturedSave> Capture(const WaitingSave& waiting);
  absl::Status Publish(const CapturedSave& save) const;
  absl::Status NotifyOfSave(const CapturedSave& save);
  runner::v1::DataPosition CurrentDataPosition();

  // A copy of the weights of now; null if nothing is loaded yet. False, and
  // nothing is taken, if they can't be had at that moment. Only for desk_.
  bool TakeWeights(PredictorWeights which, BorderDesk::Moment moment,
                   absl::StatusOr<std::shared_ptr<const WeightsCopy>>* taken);
  // What evaluations see in place of the model's own, and the section of it;
  // both are left empty if nothing.
  absl::Status EvaluatedWeights(TensorMap* weights, std::string* section) const;

  RunnerOptions options_;
  std::unique_ptr<RunLock> lock_;  // Let go after all that writes.
  // Checked and complete. What the loops ask for is beside it.
  std::unique_ptr<runner::v1::RunnerConfig> config_;
  bool by_epoch_ = true;
  bool deterministic_ = false;
  io::Env* env_ = nullptr;
  const Clock* clock_ = nullptr;
  PausingClock run_clock_;  // Stands still between calls.
  RunLog* log_ = nullptr;
  std::unique_ptr<RunLog> own_log_;
  std::unique_ptr<ThreadedRunLog> threaded_log_;
  std::unique_ptr<RecordWriter> records_;
  // Ends before what it writes to, and after the hooks: they may log when they
  // go.
  LogThread log_thread_;

  std::string work_dir_, checkpoint_dir_, log_dir_;
  std::string timestamp_, experiment_name_, config_text_;
  // The same as JSON, for the log backends, until they are made.
  std::vector<std::pair<std::string, std::string>> config_fields_;
  std::string config_dir_;  // base_dir, absolute where that can be told.
  // config_text_ with a work_dir relative to where it is written: the folder
  // may be moved.
  std::string dumped_config_text_;
  int64_t seed_ = 0;
  int64_t drawn_seed_ = 0;  // If none is configured.
  std::string run_uuid_, parent_uuid_;

  std::optional<TrainPlan> plan_;           // Unset if the run doesn't train.
  std::unique_ptr<DataLoader> loaders_[3];  // By Mode.
  // In place of that of kTrain; and where it is to go on, however far it is.
  std::unique_ptr<StreamLoader> stream_;
  data::v1::StreamPosition stream_position_;
  std::unique_ptr<Evaluator> evaluators_[3];
  std::unique_ptr<Model> model_;
  std::vector<int64_t> input_shape_;  // That it was made by, if from config.
  SingleProcessGroup single_process_;
  Autocast autocast_;  // Of evaluation; the training step's is the wrapper's.
  // Of several ranks: what averages gradients, of each optimizer, and if the
  // runner has joined them itself, the group.
  std::unique_ptr<ProcessGroup> own_group_;
  std::vector<std::unique_ptr<GradientReducer>> gradient_reducers_;
  std::unique_ptr<OptimWrapper> optim_wrapper_;
  std::vector<std::unique_ptr<ParamScheduler>> schedulers_;
  MessageHub hub_;
  // What an optimizer's steps give to log, in the order of the optimizers.
  struct StepHistories {
    HistoryBuffer* grad_norm = nullptr;
    bool clips = false;                   // By the norm.
    HistoryBuffer* loss_scale = nullptr;  // Null without loss scaling.
    double last_scale = 0;
  };
  std::vector<StepHistories> step_histories_;
  std::unique_ptr<LogProcessor> log_processor_;
  HookList hooks_;

  LoadRules load_rules_;
  std::string checkpoint_path_;  // To load from; "" for none.
  // What is there, until it is loaded; the state if the run resumes.
  io::CheckpointContents checkpoint_;
  runner::v1::RunState checkpoint_state_;
  bool resume_ = false;  // The whole state of it, not weights alone.
  std::vector<std::string> start_warnings_;  // From before there was a log.
  bool set_up_ = false;
  bool begun_ = false;        // BeforeRun was called, and AfterRun is due.
  bool in_training_ = false;  // From BeforeTrain to AfterTrain, also between
  bool in_epoch_ = false;  // steps; from BeforeTrainEpoch to AfterTrainEpoch.
  bool loaded_ = false;
  bool may_load_again_ = false;  // Loading failed and changed nothing.
  absl::Status broken_;  // Why set-up or loading failed: nothing can be run.
  std::string resumed_from_;

  RunProgress progress_;
  // What hooks see of it; 0 until what the run resumes from is loaded.
  struct Counters {
    int64_t epoch = 0;
    int64_t iter = 0;
    int64_t iter_in_epoch = 0;
    int64_t updates = 0;
  };
  Counters seen_;
  int64_t sampler_epoch_ = 0;
  Mode mode_ = Mode::kTrain;
  bool training_ = false;

  mutable std::mutex stop_mutex_;
  std::string stop_reason_ ABSL_GUARDED_BY(stop_mutex_);
  enum class StopLevel { kNone, kAfterEpoch, kNow };
  std::atomic<StopLevel> stop_{StopLevel::kNone};
  bool stop_logged_ = false;

  c10::Device device_ = c10::DeviceType::CPU;
  RunGenerators generators_;
  bool model_draws_from_defaults_ = false;
  // Of the validation in training that is going on.
  std::optional<ValidationSnapshot> before_validation_;
  Metrics val_metrics_;  // Of the one before.

  int64_t windows_ = 0;      // Ends of accumulation windows, stepped or not.
  absl::Status step_error_;  // Of AfterOptimizerStep in the step going on.
  // What has begun and isn't over: where the stage's hooks go on.
  std::optional<Stage> cut_stage_;
  size_t next_hook_ = 0;

  int num_ranks_ = 1;
  // Of several.
  Cut agreed_cut_ = Cut::kNone;
  int agreed_cut_rank_ = 0;  // Whose it is.
  bool agreed_stop_ = false;
  bool agreement_due_ = true;
  int64_t next_agreement_ = 0;  // Iterations.
  int64_t agreed_iter_ = 0;     // Of the last one, and when it was.
  int64_t agreed_nanos_ = 0;

  Cut cut_ = Cut::kNone;  // Of this call of Train.
  std::optional<absl::Time> deadline_;
  bool saves_allowed_ = false;
  int64_t num_saves_ = 0;  // That were asked for.
  std::vector<WaitingSave> waiting_saves_;
  std::string last_saved_;  // ProgressKey of the newest checkpoint.
  // Of the last validation, and how many iterations its weights had.
  std::map<std::string, double> latest_metrics_;
  int64_t metrics_iter_ = -1;

  // Where predictors ask for weights; they outlive the runner.
  const std::shared_ptr<BorderDesk> desk_ = std::make_shared<BorderDesk>();
  int64_t num_weight_copies_ = 0;

  // Kept across iterations, so that none allocates them again.
  Batch train_batch_;
  Batch eval_batch_;
  LogVars log_vars_;
  Predictions predictions_;
  IterInfo train_iter_ = {0, 0, &train_batch_};
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUNNER_IMPL_H_
