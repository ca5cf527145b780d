// Making a Runner: everything that can be wrong in a config is looked at here.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "c10/core/DeviceGuard.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/device.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/base/version.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/stream_loader.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/weights.h"
#include "grapnel/loggers/log_thread.h"
#include "grapnel/loggers/record_writer.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/loggers/text_run_log.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/border_desk.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/config_json.h"
#include "grapnel/runner/config_paths.h"
#include "grapnel/runner/config_text.h"
#include "grapnel/runner/configured_hooks.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/load_options.h"
#include "grapnel/runner/log_processor.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/out_dir.h"
#include "grapnel/runner/rank_agreement.h"
#include "grapnel/runner/rank_exchange.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_folders.h"
#include "grapnel/runner/run_generators.h"
#include "grapnel/runner/run_lock.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/torch_loan.h"
#include "grapnel/runner/train_plan.h"
#include "runner/runner_impl.h"

namespace grapnel {
namespace {

using ::grapnel::data::v1::DataLoaderConfig;
using ::grapnel::runner::v1::RunnerConfig;

// What LibTorch asks for before cuBLAS is deterministic.
constexpr char kCublasWorkspace[] = "CUBLAS_WORKSPACE_CONFIG";

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
  if (options.train_stream != nullptr) {
    if (options.train_dataset != nullptr) {
      return absl::InvalidArgumentError(
          "train_stream: must not be given along with train_dataset");
    }
    if (config.has_train_cfg() &&
        (!config.train_cfg().has_by_epoch() || config.train_cfg().by_epoch())) {
      return absl::InvalidArgumentError(
          "train_cfg: by_epoch: must be false with a stream, of which nobody "
          "knows how long an epoch is");
    }
  }
  if (((options.train_dataset != nullptr || options.train_stream != nullptr) &&
       !config.has_train_dataloader()) ||
      (options.val_dataset != nullptr && !config.has_val_dataloader()) ||
      (options.test_dataset != nullptr && !config.has_test_dataloader())) {
    return absl::InvalidArgumentError(
        "a dataset given in code needs its train_, val_ or test_dataloader "
        "set");
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
  if (options.loss != nullptr && options.model != nullptr) {
    return absl::InvalidArgumentError(
        "a loss given in code is for a model from config: the one given in "
        "code has its own");
  }
  return absl::OkStatus();
}

// Or no checkpoint could be written.
absl::Status CheckTensorNames(const Model& model) {
  for (const auto* list : {&model.parameters(), &model.buffers()}) {
    for (const NamedTensor& tensor : *list) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(CheckUtf8(tensor.name), "model: a tensor's name"));
    }
  }
  return absl::OkStatus();
}

// The caller's log on a rank that isn't the first: what all ranks have to say,
// that one says; but an error is one's own.
class ErrorsAlone final : public RunLog {
 public:
  explicit ErrorsAlone(RunLog* log) : log_(*log) {}

  void Write(Level level, absl::string_view message) override {
    if (level >= Level::kError) log_.Write(level, message);
  }
  void Warning(absl::string_view) override {}
  absl::Status Flush() override { return log_.Flush(); }

 private:
  RunLog& log_;
};

// Batch norm's backward pass mixes what the ranks' losses are multiplied by,
// and all ranks do it; by samples each multiplies by its own weight, and leaves
// a batch out where that is 0.
absl::Status CheckSyncBatchNorm(const optim::v1::OptimWrapperConfig& config) {
  const auto by_samples = [](const auto& one) {
    return one.accumulate_by() == optim::v1::OptimWrapperConfig::SAMPLES;
  };
  const auto& several = config.optimizers();
  if (!by_samples(config) &&
      std::none_of(several.begin(), several.end(), by_samples)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "distributed: sync_batch_norm: can't be with accumulate_by: SAMPLES");
}

// The first thing in which a rank isn't like another one; "" if they are alike.
std::string DifferenceOf(const runner::v1::RankIdentity& first,
                         const runner::v1::RankIdentity& other) {
  if (first.version() != other.version()) {
    return absl::StrCat("it is Grapnel ", other.version(), " and not ",
                        first.version());
  }
  if (first.libtorch_version() != other.libtorch_version()) {
    return absl::StrCat("it has LibTorch ", other.libtorch_version(),
                        " and not ", first.libtorch_version());
  }
  if (first.config() == other.config()) return "";
  const std::vector<absl::string_view> a = absl::StrSplit(first.config(), '\n');
  const std::vector<absl::string_view> b = absl::StrSplit(other.config(), '\n');
  size_t line = 0;
  while (line < a.size() && line < b.size() && a[line] == b[line]) ++line;
  const auto text = [line](const std::vector<absl::string_view>& lines) {
    return line < lines.size() ? absl::StripAsciiWhitespace(lines[line]) : "";
  };
  return absl::StrCat("its configuration has \"", text(b), "\" and not \"",
                      text(a), "\"");
}

absl::Status CheckBatchSize(const Model& model, int64_t batch_size) {
  if (batch_size > 1) return absl::OkStatus();
  const std::string why = model.NeedsTwoSamples();
  if (why.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("train_dataloader: batch_size: must be >= 2 for this "
                   "model, is 1: ",
                   why));
}

// Or training would fail within an epoch, after all that was done in it.
absl::Status CheckSmallestBatch(const Model& model, const DataLoader& loader,
                                const RunProgress& progress) {
  const int64_t left = progress.max_iters() - progress.iter();
  if (left == 0) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(CheckBatchSize(model, loader.batch_size()));
  if (loader.infinite()) return absl::OkStatus();
  // Of the epoch under way, which may be shared out otherwise, and of those
  // behind it, if they come.
  const int64_t behind = progress.place().samples;
  const int64_t left_now = progress.batches_left();
  const bool now = left_now > 0 && left >= left_now &&
                   loader.SplitBehind(behind).last_batch_size == 1;
  const bool later = left - left_now >= loader.num_batches() &&
                     loader.SplitBehind(0).last_batch_size == 1;
  if (!now && !later) return absl::OkStatus();
  const std::string why = model.NeedsTwoSamples();
  if (why.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "train_dataloader: drop_last: must be true for this model with "
      "batch_size ",
      loader.batch_size(), " and ",
      now && behind > 0
          ? absl::StrCat("what is left of an epoch behind ", behind, " of ")
          : "a dataset of ",
      loader.dataset().size(), now && behind > 0 ? " samples" : "",
      ", whose last batch has one sample: ", why));
}

// Those of an optimizer that was made in code needn't be the model's.
absl::Status CheckParamNames(OptimWrapper& optim_wrapper) {
  const Optimizer* const optimizer = optim_wrapper.optimizer();
  for (int i = 0; optimizer != nullptr && i < optimizer->num_groups(); ++i) {
    for (const NamedTensor& param : optimizer->params(i)) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(CheckUtf8(param.name), "optimizer: a parameter's name"));
    }
  }
  return absl::OkStatus();
}

// Those of `params` that the optimizer has, in their order.
std::vector<NamedTensor> OfOptimizer(const std::vector<NamedTensor>& params,
                                     const Optimizer& optimizer) {
  absl::flat_hash_set<absl::string_view> names;
  for (int i = 0; i < optimizer.num_groups(); ++i) {
    for (const NamedTensor& param : optimizer.params(i)) {
      names.insert(param.name);
    }
  }
  std::vector<NamedTensor> own;
  for (const NamedTensor& param : params) {
    if (names.contains(param.name)) own.push_back(param);
  }
  return own;
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

// kInvalidArgument if there are weights alone at `path`; what else may be wrong
// the reader finds.
absl::Status CheckCanGoOnFrom(io::Env& env, const std::string& path) {
  const auto source = io::FindWeights(env, path);
  if (!source.ok() || source->format == io::WeightsFormat::kCheckpoint) {
    return absl::OkStatus();
  }
  constexpr absl::string_view kBeginWith =
      "which a run can begin with (load_from, without resume) but not go on "
      "from";
  return absl::InvalidArgumentError(
      source->format == io::WeightsFormat::kPth
          ? absl::StrCat(path, ": is a file of torch.save, ", kBeginWith,
                         ": `grapnel ckpt import` makes a checkpoint of a "
                         "training's")
          : absl::StrCat(path, ": holds weights alone, ", kBeginWith));
}

}  // namespace

RunnerImpl::RunnerImpl(RunnerOptions options)
    : options_(std::move(options)), config_(std::make_unique<RunnerConfig>()) {}

RunnerImpl::~RunnerImpl() {
  desk_->Close();
  log_thread_.Drain();  // What waits to be logged uses all that is here.
}

absl::Status RunnerImpl::Init(const RunnerConfig& config) {
  const TorchThreadScope thread;
  *config_ = config;
  env_ = options_.env != nullptr ? options_.env : &io::Env::Posix();
  clock_ = options_.clock != nullptr ? options_.clock : &Clock::System();
  run_clock_.set_base(clock_);
  if (options_.process_group == nullptr) {
    GRAPNEL_RETURN_IF_ERROR(InitRanks());
  }
  num_ranks_ = process_group().world_size();
  GRAPNEL_RETURN_IF_ERROR(OnAllRanks([this] { return InitConfig(); }));
  GRAPNEL_RETURN_IF_ERROR(CheckRanks());
  GRAPNEL_RETURN_IF_ERROR(OnAllRanks([this] { return InitDevice(); }));
  const c10::OptionalDeviceGuard current_device(ToGuard(device_));
  GRAPNEL_RETURN_IF_ERROR(OnAllRanks([this] { return InitUntilCheckpoint(); }));
  GRAPNEL_RETURN_IF_ERROR(ShareStart());
  std::vector<std::string> left_out;
  GRAPNEL_RETURN_IF_ERROR(
      OnAllRanks([this, &left_out] { return InitRun(&left_out); }));
  if (plan_ && num_ranks() > 1) GRAPNEL_RETURN_IF_ERROR(InitGradientReducers());
  GRAPNEL_RETURN_IF_ERROR(OnAllRanks([this] { return InitFiles(); }));
  for (const std::string& warning : start_warnings_) log_->Warning(warning);
  for (const std::string& slot : left_out) {
    log_->Info(absl::StrCat("default hook \"", slot,
                            "\" isn't linked in and is left out"));
  }
  log_->Flush().IgnoreError();  // It has reported what went wrong by itself.
  if (lock_ != nullptr) lock_->Keep();
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitRanks() {
  const std::string& launcher = config_->launcher();
  if (launcher.empty() || launcher == "none") return absl::OkStatus();
  const JoinRanks join = RegisteredJoinRanks();
  if (join == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("launcher: \"", launcher,
                     "\" isn't linked in: depend on //runner:launchers"));
  }
  GRAPNEL_ASSIGN_OR_RETURN(JoinedRanks joined,
                           join(*config_, options_.interrupt));
  own_group_ = std::move(joined.group);
  options_.process_group = own_group_.get();
  options_.make_gradient_reducer = std::move(joined.make_gradient_reducer);
  return absl::OkStatus();
}

absl::Status RunnerImpl::CheckRanks() {
  if (num_ranks() == 1) return absl::OkStatus();
  RunnerConfig compared = *config_;
  compared.clear_work_dir();  // The first rank's counts.
  compared.clear_device();
  runner::v1::RankIdentity mine;
  mine.set_version(kGrapnelVersion);
  mine.set_libtorch_version(kLibTorchVersion);
  mine.set_config(PrintRunnerConfig(compared));
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      GatherIfOk(process_group(), absl::OkStatus(), mine.SerializeAsString()));
  runner::v1::RankIdentity first;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    runner::v1::RankIdentity theirs;
    if (!theirs.ParseFromString(all[rank])) {
      return absl::FailedPreconditionError(absl::StrCat(
          "rank ", rank, ": is of another version than ", kGrapnelVersion));
    }
    if (rank == 0) first = theirs;
    const std::string difference = DifferenceOf(first, theirs);
    if (difference.empty()) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", rank, " isn't like rank 0: ", difference));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitUntilCheckpoint() {
  if (config_->has_train_cfg()) {
    auto plan = TrainPlan::Create(config_->train_cfg());
    if (!plan.ok()) return WithContext(plan.status(), "train_cfg");
    if (options_.for_training) plan_ = *plan;
  }
  auto log_processor =
      LogProcessor::Create(config_->log_processor(), by_epoch_);
  if (!log_processor.ok()) {
    return WithContext(log_processor.status(), "log_processor");
  }
  log_processor_ = *std::move(log_processor);
  log_processor_->Setup(hub_);
  run_uuid_ = NewUuid();
  drawn_seed_ = DrawSeed();

  // Nothing is written before everything that can be wrong was looked at, the
  // work_dir and its lock aside, which go again if something is.
  const RunFolders folders =
      FoldersOf(*config_, options_.base_dir, options_.config_name);
  work_dir_ = folders.work_dir;
  checkpoint_dir_ = folders.checkpoint_dir;
  if (!is_master()) {
    resume_ = false;
    return absl::OkStatus();
  }
  if (plan_) {
    GRAPNEL_RETURN_IF_ERROR(LockFolders());
    start_warnings_.insert(start_warnings_.end(), lock_->warnings().begin(),
                           lock_->warnings().end());
    GRAPNEL_RETURN_IF_ERROR(RemoveLeftovers());
  }
  GRAPNEL_RETURN_IF_ERROR(FindCheckpoint());
  for (const std::string& file : checkpoint_.unlisted) {
    start_warnings_.push_back(absl::StrCat(checkpoint_path_, ": ", file,
                                           " is not of this checkpoint: left"));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::ShareStart() {
  if (num_ranks() == 1) return absl::OkStatus();
  runner::v1::StartFacts facts;
  if (is_master()) {
    facts.set_seed(drawn_seed_);
    facts.set_run_uuid(run_uuid_);
    facts.set_checkpoint_path(checkpoint_path_);
    facts.set_resume(resume_);
    facts.set_work_dir(work_dir_);
    facts.set_checkpoint_dir(checkpoint_dir_);
  }
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::string shared,
      FromMaster(process_group(), facts.SerializeAsString()));
  GRAPNEL_RET_CHECK(facts.ParseFromString(shared));
  drawn_seed_ = facts.seed();
  run_uuid_ = facts.run_uuid();
  checkpoint_path_ = facts.checkpoint_path();
  resume_ = facts.resume();
  work_dir_ = facts.work_dir();
  checkpoint_dir_ = facts.checkpoint_dir();
  if (checkpoint_path_.empty()) return absl::OkStatus();
  return WithContext(ShareContents(process_group(), &checkpoint_),
                     checkpoint_path_);
}

absl::Status RunnerImpl::InitRun(std::vector<std::string>* left_out) {
  GRAPNEL_RETURN_IF_ERROR(InitSeed());
  GRAPNEL_RETURN_IF_ERROR(DescribeConfig());
  GRAPNEL_RETURN_IF_ERROR(InitLoaders());
  if (plan_) GRAPNEL_RETURN_IF_ERROR(InitProgress());
  GRAPNEL_RETURN_IF_ERROR(InitModel());
  if (config_->optim_wrapper().has_amp()) {
    auto autocast =
        CreateAutocast(config_->optim_wrapper().amp(), model_->parameters());
    if (!autocast.ok()) {
      return WithContext(autocast.status(), "optim_wrapper: amp");
    }
    autocast_ = *autocast;
  }
  if (plan_) GRAPNEL_RETURN_IF_ERROR(InitOptimizer());
  GRAPNEL_ASSIGN_OR_RETURN(std::vector<ScheduledHook> hooks,
                           CreateConfiguredHooks(*config_, left_out));
  for (ScheduledHook& hook : hooks) {
    GRAPNEL_RETURN_IF_ERROR(hooks_.Add(std::move(hook)));
  }
  for (ScheduledHook& hook : options_.hooks) {
    GRAPNEL_RETURN_IF_ERROR(hooks_.Add(std::move(hook)));
  }
  options_.hooks.clear();
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitDevice() {
  if (!config_->has_device()) {
    // A model given in code stays where it was made.
    if (options_.model == nullptr || options_.model->parameters().empty()) {
      return absl::OkStatus();
    }
    device_ = options_.model->parameters().front().tensor.device();
    return CheckDevice();
  }
  const std::string& name = config_->device();
  auto device = FindDevice(name, process_group().local_rank());
  if (!device.ok()) return WithContext(device.status(), "device");
  device_ = *device;
  return CheckDevice();
}

absl::Status RunnerImpl::CheckDevice() const {
  if (device_.is_cuda() && deterministic_ &&
      std::getenv(kCublasWorkspace) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "randomness: deterministic: needs the environment variable ",
        kCublasWorkspace, " set, to \":4096:8\", with CUDA"));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::LockFolders() {
  std::vector<RunLock::Folder> folders = {{"work_dir", work_dir_}};
  if (!IsSamePath(checkpoint_dir_, work_dir_)) {
    folders.push_back({"out_dir", checkpoint_dir_});
  }
  RunLock::Options lock_options;
  lock_options.clock = clock_;
  lock_options.wait = options_.wait_for_lock;
  lock_options.interrupt = options_.interrupt;
  lock_options.on_wait = [this](absl::string_view message) {
    if (options_.log != nullptr) return options_.log->Warning(message);
    // The run's own is made in the folder that this waits for.
    TextRunLogOptions log_options;
    log_options.terminal_fd = options_.terminal_fd;
    log_options.clock = clock_;
    const auto log = CreateTextRunLog(log_options);
    if (log.ok()) (*log)->Warning(message);
  };
  GRAPNEL_ASSIGN_OR_RETURN(lock_, RunLock::Take(*env_, folders, lock_options));
  return absl::OkStatus();
}

absl::Status RunnerImpl::RemoveLeftovers() {
  std::vector<std::string> folders = {work_dir_};
  if (!IsSamePath(checkpoint_dir_, work_dir_)) {
    folders.push_back(checkpoint_dir_);
  }
  for (const std::string& folder : folders) {
    // A killed writer may have left the only good one under another name; what
    // can't be deleted is in nobody's way.
    std::vector<std::string> undeleted;
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        io::RemoveLeftovers(*env_, folder, &undeleted), "work_dir"));
    start_warnings_.insert(start_warnings_.end(), undeleted.begin(),
                           undeleted.end());
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitConfig() {
  // It may have been made in code.
  GRAPNEL_RETURN_IF_ERROR(CanonicalizeConfig(config_.get()));
  GRAPNEL_RETURN_IF_ERROR(JoinDefaultHookNames(config_.get()));
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(CheckUtf8(options_.config_name), "config_name"));
  // Without one, relative paths are as good as they can be.
  config_dir_ =
      io::JoinPath(env_->CurrentDir().value_or(""), options_.base_dir);
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(CheckUtf8(config_dir_), "the configuration's folder"));
  GRAPNEL_RETURN_IF_ERROR(CheckConfig(*config_, options_));
  auto rules = LoadRules::Create(config_->load_options());
  if (!rules.ok()) return WithContext(rules.status(), "load_options");
  load_rules_ = *std::move(rules);
  by_epoch_ =
      !config_->train_cfg().has_by_epoch() || config_->train_cfg().by_epoch();
  deterministic_ = config_->randomness().deterministic();
  return absl::OkStatus();
}

absl::Status RunnerImpl::DescribeConfig() {
  RunnerConfig described = *config_;
  // Relative to config_dir_, as base_dir is.
  described.set_work_dir(config_->has_work_dir()
                             ? config_->work_dir()
                             : io::JoinPath("work_dirs", options_.config_name));
  GRAPNEL_RETURN_IF_ERROR(RebasePaths(config_dir_, &described));
  if (!plan_ && config_->load_from().empty() && !checkpoint_path_.empty()) {
    // The one that was evaluated, and not whatever is the newest then.
    described.set_load_from(
        io::JoinPath(env_->CurrentDir().value_or(""), checkpoint_path_));
    described.clear_resume();
    if (described.has_load_options()) {
      described.mutable_load_options()->clear_exclude();
      described.mutable_load_options()->clear_rename();
    }
  }
  config_text_ = PrintRunnerConfig(described);
  config_fields_ = ConfigToJson(described);
  // The folder may be moved, with all that is in it.
  const std::string work_dir = described.work_dir();
  const std::string from_here = options_.for_training ? "." : "..";
  if (absl::StartsWith(work_dir, "/")) {
    GRAPNEL_RETURN_IF_ERROR(MapPaths(
        [&](const std::string& path) -> std::string {
          absl::string_view below = path;
          if (!absl::ConsumePrefix(&below, work_dir) ||
              (!below.empty() && below[0] != '/')) {
            return path;
          }
          while (absl::ConsumePrefix(&below, "/")) {
          }
          return below.empty()           ? from_here
                 : options_.for_training ? std::string(below)
                                         : io::JoinPath(from_here, below);
        },
        &described));
  }
  described.set_work_dir(from_here);
  dumped_config_text_ = PrintRunnerConfig(described);
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitFiles() {
  absl::Status made;
  if (is_master()) made = InitDirectories();
  // Where they are, for those that don't make them.
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                           GatherIfOk(process_group(), made, timestamp_));
  timestamp_ = all.front();
  log_dir_ = io::JoinPath(work_dir_, timestamp_);
  experiment_name_ = config_->has_experiment_name()
                         ? config_->experiment_name()
                         : absl::StrCat(options_.config_name, "_", timestamp_);
  if (!is_master()) return InitSilentLog();
  if (absl::Status status = InitLogs(); !status.ok()) {
    io::DeleteRecursively(*env_, log_dir_).IgnoreError();  // The status counts.
    return status;
  }
  // An evaluation leaves the training's as it is.
  return WithContext(
      io::WriteFileAtomically(
          *env_,
          io::JoinPath(options_.for_training ? work_dir_ : log_dir_,
                       absl::StrCat(options_.config_name, ".textproto")),
          dumped_config_text_),
      "work_dir");
}

absl::Status RunnerImpl::InitSilentLog() {
  if (options_.log != nullptr) {
    own_log_ = std::make_unique<ErrorsAlone>(options_.log);
    log_ = own_log_.get();
    return absl::OkStatus();
  }
  TextRunLogOptions log_options;
  log_options.level = RunLog::Level::kError;
  log_options.terminal_fd = options_.terminal_fd;
  log_options.clock = clock_;
  GRAPNEL_ASSIGN_OR_RETURN(own_log_, CreateTextRunLog(log_options));
  log_ = own_log_.get();
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
    if (status.ok()) return absl::OkStatus();
    if (!absl::IsAlreadyExists(status)) return WithContext(status, "work_dir");
  }
}

absl::Status RunnerImpl::InitLogs() {
  if (options_.log != nullptr) {
    log_ = options_.log;
  } else {
    TextRunLogOptions log_options;
    GRAPNEL_ASSIGN_OR_RETURN(log_options.level,
                             ParseLogLevel(config_->log_level()));
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
  backend_options.config_fields = std::move(config_fields_);
  backend_options.env = env_;
  backend_options.clock = clock_;
  auto records =
      RecordWriter::Create(config_->visualizer(), backend_options, config_text_,
                           *log_, std::move(options_.log_backends));
  if (!records.ok()) return WithContext(records.status(), "visualizer");
  records_ = *std::move(records);
  if (options_.log_in_background) {
    threaded_log_ = std::make_unique<ThreadedRunLog>(*log_, log_thread_);
    log_ = threaded_log_.get();
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::FindCheckpoint() {
  // Without training there is no state to go on from: weights alone.
  resume_ = config_->resume() && plan_.has_value();
  if (!config_->load_from().empty()) {
    checkpoint_path_ = io::JoinPath(options_.base_dir, config_->load_from());
    if (resume_) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(CheckCanGoOnFrom(*env_, checkpoint_path_), "resume"));
    }
    auto contents = resume_ ? io::ReadCheckpoint(*env_, checkpoint_path_)
                            : io::ReadWeightsAndMore(*env_, checkpoint_path_);
    if (!contents.ok()) return WithContext(contents.status(), "load_from");
    checkpoint_ = *std::move(contents);
    return absl::OkStatus();
  }
  if (!config_->resume()) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(WithContext(ReadLatestCheckpoint(), "resume"));
  if (!checkpoint_path_.empty()) return absl::OkStatus();
  const std::string nothing =
      absl::StrCat("resume: there is no checkpoint in ", checkpoint_dir_);
  if (!plan_.has_value()) return absl::NotFoundError(nothing);
  start_warnings_.push_back(absl::StrCat(nothing, ": starting from scratch"));
  resume_ = false;
  return absl::OkStatus();
}

absl::Status RunnerImpl::ReadLatestCheckpoint() {
  std::vector<io::RejectedCheckpoint> rejected;
  auto latest =
      io::SearchLatestCheckpoint(*env_, work_dir_, &rejected, checkpoint_dir_);
  if (!latest.ok() && !absl::IsNotFound(latest.status())) {
    return latest.status();
  }
  const std::string good = latest.ok() ? latest->path : "";
  for (const io::RejectedCheckpoint& bad : rejected) {
    start_warnings_.push_back(absl::StrCat("resume: passed over ",
                                           bad.status.message(),
                                           SetAsideIfDamaged(bad, good)));
  }
  if (!latest.ok()) return absl::OkStatus();
  checkpoint_path_ = std::move(latest->path);
  checkpoint_ = std::move(latest->contents);
  return absl::OkStatus();
}

std::string RunnerImpl::SetAsideIfDamaged(const io::RejectedCheckpoint& bad,
                                          const std::string& good) {
  // Who only reads changes nothing, nor what is in nobody's folder, nor what
  // another run may be writing because there are no locks.
  if (lock_ == nullptr || !lock_->warnings().empty() ||
      !io::IsDamaged(*env_, bad)) {
    return "";
  }
  const std::string dir = io::Dirname(bad.path);
  if (!IsSamePath(dir, work_dir_) && !IsSamePath(dir, checkpoint_dir_)) {
    return "";
  }
  const auto set_aside = [&]() -> absl::StatusOr<std::string> {
    // First, for it tells a later search which run this is.
    if (!good.empty()) {
      GRAPNEL_RETURN_IF_ERROR(io::WriteLastCheckpoint(*env_, work_dir_, good));
    }
    return io::SetAsideCheckpoint(*env_, bad.path);
  };
  const absl::StatusOr<std::string> path = set_aside();
  if (path.ok()) {
    std::string text =
        absl::StrCat("; it is set aside as ", io::Basename(*path));
    for (const std::string& copy : io::ListCopies(*env_, *path)) {
      absl::StrAppend(&text, ", its whole copy as ", io::Basename(copy));
    }
    return text;
  }
  return absl::StrCat("; it can't be set aside: ", path.status().message());
}

absl::Status RunnerImpl::InitSeed() {
  const bool configured = config_->randomness().has_seed();
  seed_ = configured ? config_->randomness().seed() : drawn_seed_;
  if (resume_) {
    // Before anything is built with the wrong one.
    auto state = ReadRunState(checkpoint_);
    if (!state.ok() && checkpoint_.manifest().partial()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "resume: ", checkpoint_path_,
          ": has not all of a run, which can begin with its weights "
          "(load_from, without resume) but not go on from it"));
    }
    if (!state.ok()) {
      return WithContext(state.status(),
                         absl::StrCat("resume: ", checkpoint_path_));
    }
    checkpoint_state_ = *std::move(state);
    const int64_t saved = checkpoint_state_.seed();
    if (configured && saved != seed_) {
      start_warnings_.push_back(
          absl::StrCat("randomness: seed: the checkpoint's, ", saved,
                       ", is used and not the configured ", seed_));
    }
    seed_ = saved;
  }
  config_->mutable_randomness()->set_seed(seed_);
  const int64_t own = config_->randomness().diff_rank_seed()
                          ? seed_ + process_group().rank()
                          : seed_;
  auto generators = RunGenerators::Create(device_, own);
  if (!generators.ok()) return WithContext(generators.status(), "device");
  generators_ = *std::move(generators);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DataLoader>> RunnerImpl::CreateLoader(
    const DataLoaderConfig& config, std::unique_ptr<Dataset> dataset) {
  DataLoader::Options options;
  options.device = device_;
  options.rank = process_group().rank();
  options.world_size = num_ranks();
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
      {Mode::kTrain, "train_dataloader",
       plan_.has_value() && options_.train_stream == nullptr,
       config_->train_dataloader(), options_.train_dataset},
      {Mode::kVal, "val_dataloader", config_->has_val_dataloader(),
       config_->val_dataloader(), options_.val_dataset},
      {Mode::kTest, "test_dataloader", config_->has_test_dataloader(),
       config_->test_dataloader(), options_.test_dataset}};
  for (Part& part : parts) {
    if (!part.present) continue;
    DataLoaderConfig config = part.config;
    // Samples that come twice, to fill up, would be counted twice.
    if (num_ranks() > 1 && part.mode != Mode::kTrain) {
      config.mutable_sampler()->set_round_up(false);
    }
    auto loader = CreateLoader(config, std::move(part.dataset));
    if (!loader.ok()) return WithContext(loader.status(), part.name);
    auto warnings = (*loader)->Warnings();
    if (!warnings.ok()) return WithContext(warnings.status(), part.name);
    for (const std::string& warning : *warnings) {
      start_warnings_.push_back(absl::StrCat(part.name, ": ", warning));
    }
    if (part.mode != Mode::kTrain && (*loader)->infinite()) {
      return absl::InvalidArgumentError(absl::StrCat(
          part.name, ": sampler: type: must not be INFINITE in an evaluation"));
    }
    loaders_[static_cast<int>(part.mode)] = *std::move(loader);
  }
  if (plan_ && options_.train_stream != nullptr) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(InitStream(), "train_dataloader"));
  }

  if (dataloader(Mode::kVal) != nullptr) {
    auto val = Evaluator::Create(config_->val_evaluator(),
                                 std::move(options_.val_metrics));
    if (!val.ok()) return WithContext(val.status(), "val_evaluator");
    evaluators_[static_cast<int>(Mode::kVal)] = *std::move(val);
  }
  if (dataloader(Mode::kTest) != nullptr) {
    auto test = Evaluator::Create(config_->test_evaluator(),
                                  std::move(options_.test_metrics));
    if (!test.ok()) return WithContext(test.status(), "test_evaluator");
    evaluators_[static_cast<int>(Mode::kTest)] = *std::move(test);
  }
  if (num_ranks() > 1) {
    for (const auto& evaluator : evaluators_) {
      if (evaluator == nullptr) continue;
      GRAPNEL_RETURN_IF_ERROR(evaluator->CheckGather());
    }
  }
  if (plan_ && plan_->by_epoch() && dataloader(Mode::kTrain)->infinite()) {
    return absl::InvalidArgumentError(
        "train_dataloader: sampler: type: must not be INFINITE with "
        "train_cfg.by_epoch: true");
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitStream() {
  StreamLoader::Options options;
  options.device = device_;
  options.rank = process_group().rank();
  options.world_size = num_ranks();
  options.seed = seed_;
  GRAPNEL_ASSIGN_OR_RETURN(
      stream_, StreamLoader::Create(config_->train_dataloader(),
                                    std::move(options_.train_stream), options));
  return absl::OkStatus();
}

absl::Status RunnerImpl::ResumeProgress(const RunProgress::Plan& plan) {
  const runner::v1::DataPosition& saved = checkpoint_state_.data();
  auto progress = RunProgress::Resume(
      plan, checkpoint_.manifest().progress(), saved, [this](int64_t samples) {
        // All ranks come to the same place, also where CheckSplit refuses it.
        return dataloader(Mode::kTrain)->SplitBehind(samples).most_batches;
      });
  if (absl::IsFailedPrecondition(progress.status())) {
    const bool counts_alike = saved.by_epoch() == plan.by_epoch &&
                              saved.has_stream() == plan.data.has_stream();
    const std::string border = counts_alike ? NearestBorder() : "";
    return absl::FailedPreconditionError(absl::StrCat(
        "resume: ", checkpoint_path_, ": ", progress.status().message(),
        border.empty() ? "" : "; the nearest one where it may change is ",
        border));
  }
  if (absl::IsDataLoss(progress.status())) {
    return WithContext(progress.status(),
                       absl::StrCat("resume: ", checkpoint_path_));
  }
  GRAPNEL_RETURN_IF_ERROR(progress.status());
  progress_ = *std::move(progress);
  if (!progress_.data_change().empty()) {
    start_warnings_.push_back(
        absl::StrCat("resume: ", progress_.data_change()));
  }
  if (stream_ == nullptr) return absl::OkStatus();
  stream_position_ = saved.stream();
  const auto& ranks = checkpoint_state_.ranks();
  if (ranks.size() == num_ranks()) {
    stream_position_ = ranks[process_group().rank()].stream();
  }
  return WithContext(
      stream_->Seek(stream_position_),
      absl::StrCat("resume: ", checkpoint_path_, ": train_dataloader"));
}

absl::Status RunnerImpl::CheckSplit() {
  if (num_ranks() == 1 || stream_ != nullptr) return absl::OkStatus();
  const DataLoader& loader = *dataloader(Mode::kTrain);
  for (const int64_t behind : {int64_t{0}, progress_.place().samples}) {
    if (loader.SplitBehind(behind).even) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "train_dataloader: sampler: round_up: must be true where ",
        loader.dataset().size() - behind, " samples in batches of ",
        loader.batch_size(), " are not as many batches on each of ",
        num_ranks(), " ranks"));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitProgress() {
  const RunProgress::Plan plan = {plan_->by_epoch(), plan_->total(),
                                  CurrentDataPosition()};
  if (resume_) {
    GRAPNEL_RETURN_IF_ERROR(ResumeProgress(plan));
  } else {
    GRAPNEL_ASSIGN_OR_RETURN(progress_, RunProgress::Create(plan));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckSplit());
  if (dataloader(Mode::kVal) != nullptr &&
      !plan_->AnyValidation(plan_->by_epoch() ? max_epochs() : max_iters())) {
    start_warnings_.push_back(absl::StrCat(
        "train_cfg: val_begin: lies beyond the run's end, ", plan_->total(),
        plan_->by_epoch() ? " epochs" : " iterations",
        ": there will be no validation"));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::InitModel() {
  if (options_.model != nullptr) {
    model_ = std::move(options_.model);
    return CheckModel();
  }
  ModelOptions options;
  options.base_dir = options_.base_dir;
  options.env = env_;
  if (stream_ != nullptr) {
    auto shape = stream_->InputShape();
    if (!shape.ok()) return WithContext(shape.status(), "train_dataloader");
    options.input_shape = *std::move(shape);
  }
  for (const auto& loader : loaders_) {
    if (loader == nullptr || !options.input_shape.empty()) continue;
    GRAPNEL_ASSIGN_OR_RETURN(options.input_shape, loader->InputShape());
  }
  input_shape_ = options.input_shape;
  options.device = device_;
  options.generator = generators_.cpu();
  options.device_generator = generators_.device();
  if (options_.loss != nullptr) options.loss = &options_.loss;
  // For models that don't look at those.
  const GeneratorLoan loan(generators_);
  auto model = ModelRegistry::Create(config_->model(), options);
  if (!model.ok()) return WithContext(model.status(), "model");
  if (options_.loss != nullptr) {
    return absl::InvalidArgumentError(
        "model: has a loss of its own, or takes none, and there is one given "
        "in code");
  }
  model_ = *std::move(model);
  return CheckModel();
}

absl::Status RunnerImpl::CheckModel() {
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      CatchAsStatus([&] { return model_->MoveTo(device_); }), "model"));
  if (plan_ && num_ranks() > 1 && config_->distributed().sync_batch_norm()) {
    GRAPNEL_RETURN_IF_ERROR(CheckSyncBatchNorm(config_->optim_wrapper()));
    GRAPNEL_RETURN_IF_ERROR(WithContext(model_->SyncBatchNorm(process_group()),
                                        "distributed: sync_batch_norm"));
  }
  // On a device that draws from the CPU's default generator nothing else can
  // be put in its place.
  model_draws_from_defaults_ =
      !model_->has_own_generator() ||
      (!device_.is_cpu() && !generators_.device().defined());
  if (stream_ != nullptr) {
    // How many samples a pass leaves for its last batch, nobody knows.
    GRAPNEL_RETURN_IF_ERROR(CheckBatchSize(*model_, stream_->batch_size()));
  } else if (plan_) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckSmallestBatch(*model_, *dataloader(Mode::kTrain), progress_));
  }
  return CheckTensorNames(*model_);
}

absl::Status RunnerImpl::InitOptimizer() {
  auto wrapper = options_.optimizer != nullptr
                     ? OptimWrapper::Create(config_->optim_wrapper(),
                                            std::move(options_.optimizer))
                     : OptimWrapper::Create(config_->optim_wrapper(),
                                            model_->parameters());
  if (!wrapper.ok()) return WithContext(wrapper.status(), "optim_wrapper");
  optim_wrapper_ = *std::move(wrapper);
  optim_wrapper_->set_step_observer(this);
  if (num_ranks() > 1 && options_.make_gradient_reducer == nullptr) {
    return absl::InvalidArgumentError(
        "make_gradient_reducer: must be set for several ranks");
  }
  GRAPNEL_RETURN_IF_ERROR(CheckParamNames(*optim_wrapper_));

  if (config_->auto_scale_lr().enable()) {
    GRAPNEL_RETURN_IF_ERROR(optim_wrapper_->ScaleLr(
        static_cast<double>(config_->train_dataloader().batch_size()) *
        num_ranks() /
        static_cast<double>(config_->auto_scale_lr().base_batch_size())));
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
  if (config_->optim_wrapper().optimizers().empty()) {
    return InitOneOptimizer("", config_->optim_wrapper().clip_grad(),
                            optim_wrapper_->scheduled_groups());
  }
  for (int i = 0; i < config_->optim_wrapper().optimizers_size(); ++i) {
    const auto& named = config_->optim_wrapper().optimizers(i);
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * one,
                             optim_wrapper_->Get(named.name()));
    const size_t first = schedulers_.size();
    GRAPNEL_RETURN_IF_ERROR(InitOneOptimizer(named.name(), named.clip_grad(),
                                             one->scheduled_groups()));
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

absl::Status RunnerImpl::InitGradientReducers() {
  // What isn't optimized has no gradient to wait for.
  std::vector<NamedTensor> params;
  for (const NamedTensor& param : model_->parameters()) {
    if (param.tensor.requires_grad()) params.push_back(param);
  }
  const auto& several = config_->optim_wrapper().optimizers();
  if (several.empty()) {
    return AddGradientReducer(params, model_->buffers(), *optim_wrapper_);
  }
  for (int i = 0; i < several.size(); ++i) {
    GRAPNEL_ASSIGN_OR_RETURN(OptimWrapper * one,
                             optim_wrapper_->Get(several[i].name()));
    // No optimizer has buffers: they come with the first one's iterations.
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        AddGradientReducer(
            OfOptimizer(params, *one->optimizer()),
            i == 0 ? model_->buffers() : std::vector<NamedTensor>(), *one),
        absl::StrCat("optimizer \"", several[i].name(), "\"")));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::AddGradientReducer(
    const std::vector<NamedTensor>& params,
    const std::vector<NamedTensor>& buffers, OptimWrapper& optim_wrapper) {
  return OnAllRanks([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<GradientReducer> reducer,
        options_.make_gradient_reducer(process_group(), params, buffers));
    gradient_reducers_.push_back(std::move(reducer));
    return optim_wrapper.SetGradientReducer(gradient_reducers_.back().get());
  });
}

absl::Status RunnerImpl::InitOneOptimizer(
    const std::string& name, const optim::v1::ClipGradConfig& clip_grad,
    ParamGroups& groups) {
  const std::string prefix =
      name.empty() ? "train/" : absl::StrCat("train/", name, ".");
  StepHistories histories;
  histories.grad_norm = &hub_.Scalar(absl::StrCat(prefix, "grad_norm"));
  histories.clips = clip_grad.has_max_norm();
  if (config_->optim_wrapper().amp().dtype() == optim::v1::AmpConfig::FLOAT16) {
    histories.loss_scale = &hub_.Scalar(absl::StrCat(prefix, "loss_scale"));
  }
  step_histories_.push_back(histories);
  for (int i = 0; i < config_->param_scheduler_size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        AddScheduler(config_->param_scheduler(i), groups,
                     absl::StrCat("param_scheduler[", i, "]")));
  }
  return absl::OkStatus();
}

absl::Status RunnerImpl::AddScheduler(
    const optim::v1::ParamSchedulerConfig& config, ParamGroups& groups,
    absl::string_view field) {
  const RunLength length = {max_epochs(), max_iters(), progress_.num_batches()};
  auto scheduler = ParamSchedulerRegistry::Create(config, groups, length);
  if (!scheduler.ok()) return WithContext(scheduler.status(), field);
  const int64_t begin = (*scheduler)->range().begin;
  const int64_t end = EndOfRun(length, **scheduler);
  // Metrics come once an epoch is over.
  if (begin >= end + ((*scheduler)->monitor() != nullptr ? 1 : 0)) {
    start_warnings_.push_back(
        absl::StrCat(field, ": begin: lies behind the run, which ends at ", end,
                     (*scheduler)->by_epoch() ? " epochs" : " iterations",
                     ", is ", begin, ": it will do nothing"));
  }
  if (config_->auto_scale_lr().enable() && config.has_one_cycle()) {
    start_warnings_.push_back(absl::StrCat(
        field,
        ": one_cycle: eta_max is the rate whatever the batch size: "
        "auto_scale_lr doesn't scale it"));
  }
  schedulers_.push_back(*std::move(scheduler));
  return absl::OkStatus();
}

}  // namespace grapnel
