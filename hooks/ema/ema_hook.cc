#include "grapnel/hooks/ema/ema_hook.h"

#include <variant>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/averaging/averaging_strategy.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"

namespace grapnel {
namespace {

using Config = EMAHook::Config;

constexpr char kDefaultName[] = "ema";
constexpr size_t kMaxNameLength = 60;

// Facts of the run, not saved: which average is evaluated, and whether its
// config says so.
constexpr char kEvaluated[] = "ema/evaluated";
constexpr char kEvaluatedAsAsked[] = "ema/evaluated_as_asked";

absl::Status CheckName(const std::string& name) {
  bool good = !name.empty() && name.size() <= kMaxNameLength;
  for (const char c : name) {
    good =
        good && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_');
  }
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("name: must be 1 to ", kMaxNameLength,
                   " of [a-z0-9_], is \"", name, "\""));
}

absl::StatusOr<std::unique_ptr<AveragingStrategy>> CreateStrategy(
    const Config& config) {
  if (config.has_ema_type()) {
    for (const auto& [set, field] :
         {std::pair(config.has_momentum(), "momentum"),
          std::pair(config.has_decay(), "decay")}) {
      if (set) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ": must be set in ema_type, which is there"));
      }
    }
    auto strategy = AveragingStrategyRegistry::Create(config.ema_type());
    if (!strategy.ok()) return WithContext(strategy.status(), "ema_type");
    return strategy;
  }
  optim::v1::ExponentialMovingAverageConfig ema;
  if (config.has_momentum()) ema.set_momentum(config.momentum());
  if (config.has_decay()) ema.set_decay(config.decay());
  return AveragingStrategyRegistry::Create(ema);
}

// A run that is resumed may have become shorter.
absl::Status CheckBegin(RunContext& run, const std::string& average,
                        const char* field, int64_t begin, int64_t last,
                        const char* unit) {
  if (begin <= last) return absl::OkStatus();
  const std::string message = absl::StrCat(
      field, ": must be at most the run's ", last, " ", unit, ", is ", begin);
  if (run.resumed_from().empty()) return absl::InvalidArgumentError(message);
  run.log().Warning(absl::StrCat("average \"", average, "\": ", message,
                                 ": there will be none"));
  return absl::OkStatus();
}

absl::StatusOr<AveragingOptions> CreateOptions(const Config& config) {
  optim::v1::AveragedModelConfig average;
  if (config.has_interval()) average.set_interval(config.interval());
  average.set_update_buffers(config.update_buffers());
  if (config.has_device()) average.set_device(config.device());
  if (config.has_dtype()) average.set_dtype(config.dtype());
  GRAPNEL_ASSIGN_OR_RETURN(AveragingOptions options,
                           AveragingOptions::FromConfig(average));
  GRAPNEL_ASSIGN_OR_RETURN(options.strategy, CreateStrategy(config));
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EMAHook>> EMAHook::Create(const Config& config) {
  std::string name = config.has_name() ? config.name() : kDefaultName;
  GRAPNEL_RETURN_IF_ERROR(CheckName(name));
  if (name != kDefaultName) name = absl::StrCat(kDefaultName, "_", name);
  for (const auto& [value, field] :
       {std::pair(config.begin_iter(), "begin_iter"),
        std::pair(config.begin_epoch(), "begin_epoch")}) {
    GRAPNEL_RETURN_IF_ERROR(CheckField(value >= 0, field, ">= 0", value));
  }
  if (config.begin_iter() > 0 && config.begin_epoch() > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "begin_iter: is ", config.begin_iter(), " and begin_epoch ",
        config.begin_epoch(), ": at most one may be set"));
  }
  GRAPNEL_ASSIGN_OR_RETURN(AveragingOptions options, CreateOptions(config));
  return absl::WrapUnique(
      new EMAHook(config, std::move(name), std::move(options)));
}

EMAHook::EMAHook(const Config& config, std::string name,
                 AveragingOptions options)
    : config_(config), name_(std::move(name)), options_(std::move(options)) {}

absl::Status EMAHook::Setup(RunContext& run) {
  GRAPNEL_ASSIGN_OR_RETURN(
      average_,
      AveragedModel::Create(*std::move(options_), run.model().parameters(),
                            run.model().buffers()));
  options_.reset();

  // All hooks are set up before any of them looks who it is.
  MessageHub& hub = run.message_hub();
  const bool asked = config_.has_evaluate() && config_.evaluate();
  const MessageHub::Info* const rival = hub.FindInfo(kEvaluated);
  if (asked && hub.FindInfo(kEvaluatedAsAsked) != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("evaluate: is true, and also in the hook \"",
                     std::get<std::string>(*rival), "\""));
  }
  if (asked || (rival == nullptr && !config_.has_evaluate())) {
    hub.SetInfo(kEvaluated, name_, /*resumable=*/false);
  }
  if (asked) hub.SetInfo(kEvaluatedAsAsked, true, /*resumable=*/false);
  return absl::OkStatus();
}

absl::Status EMAHook::BeforeRun(RunContext& run) {
  const MessageHub::Info* const evaluated =
      run.message_hub().FindInfo(kEvaluated);
  evaluated_ =
      evaluated != nullptr && std::get<std::string>(*evaluated) == name_;
  return absl::OkStatus();
}

absl::Status EMAHook::AfterRestore(RunContext& run,
                                   const io::CheckpointContents& checkpoint) {
  const bool resuming = !run.resumed_from().empty();
  const TensorMap* section = nullptr;
  // A training that only begins with those weights averages from there on.
  if (resuming || run.mode() != Mode::kTrain) {
    section = checkpoint.FindSection(name_);
    if (section == nullptr) {
      run.log().Warning(
          absl::StrCat("the checkpoint has no average \"", name_,
                       "\": ", resuming ? "it starts with" : "taking",
                       " the weights that are trained"));
    }
  }
  if (section == nullptr || !resuming) state_.clear_steps();
  average_->set_steps(state_.steps());
  if (section == nullptr) return absl::OkStatus();
  // What it lacks are the model's weights.
  GRAPNEL_RETURN_IF_ERROR(average_->CopySource());
  std::vector<std::string> report;
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(average_->Load(*section, config_.strict_load(), &report),
                  absl::StrCat("section \"", name_, "\"")));
  for (const std::string& line : report) {
    run.log().Warning(absl::StrCat("average \"", name_, "\": ", line));
  }
  is_model_ = false;
  return absl::OkStatus();
}

absl::Status EMAHook::BeforeTrain(RunContext& run) {
  GRAPNEL_RETURN_IF_ERROR(CheckBegin(run, name_, "begin_epoch",
                                     config_.begin_epoch(), run.max_epochs(),
                                     "epochs"));
  GRAPNEL_RETURN_IF_ERROR(CheckBegin(run, name_, "begin_iter",
                                     config_.begin_iter(), run.max_iters(),
                                     "iterations"));
  for (const std::string& warning : average_->warnings()) {
    run.log().Warning(absl::StrCat("average \"", name_, "\": ", warning));
  }
  if (average_->steps() > 0 && !Started(run)) {
    run.log().Warning(
        absl::StrCat("average \"", name_,
                     "\": begins later than it did when it was saved: "
                     "its ",
                     average_->steps(), " updates are dropped"));
    state_.clear_steps();
    average_->set_steps(0);
  }
  is_model_ = average_->steps() == 0;
  return absl::OkStatus();
}

bool EMAHook::Started(const RunContext& run) const {
  return config_.begin_epoch() > 0 ? run.epoch() + 1 >= config_.begin_epoch()
                                   : run.iter() + 1 >= config_.begin_iter();
}

absl::Status EMAHook::AfterTrainIter(RunContext& run, const IterInfo&,
                                     const LogVars&) {
  if (!Started(run)) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(average_->Update());
  state_.set_steps(average_->steps());
  is_model_ = false;
  return absl::OkStatus();
}

absl::Status EMAHook::Enter() {
  if (!evaluated_) return absl::OkStatus();
  // Until the average begins it is only made when it is used.
  if (is_model_) GRAPNEL_RETURN_IF_ERROR(average_->CopySource());
  GRAPNEL_ASSIGN_OR_RETURN(AverageScope scope,
                           AverageScope::Enter(average_.get()));
  scope_.emplace(std::move(scope));
  return absl::OkStatus();
}

absl::Status EMAHook::Leave() {
  if (!scope_.has_value()) return absl::OkStatus();
  const absl::Status status = scope_->Leave();
  scope_.reset();
  return status;
}

absl::Status EMAHook::BeforeSaveCheckpoint(RunContext&,
                                           io::CheckpointContents& checkpoint) {
  // The runner saves at no point where the model has other weights.
  GRAPNEL_RET_CHECK(!scope_.has_value());
  GRAPNEL_ASSIGN_OR_RETURN(TensorMap weights, AveragedWeights());
  checkpoint.sections.emplace_back(name_, std::move(weights));
  return absl::OkStatus();
}

absl::StatusOr<TensorMap> EMAHook::AveragedWeights() const {
  GRAPNEL_RET_CHECK(average_ != nullptr);
  return is_model_ && !scope_.has_value() ? average_->SourceState()
                                          : average_->State();
}

absl::Status EMAHook::evaluated_weights(TensorMap* weights) {
  if (!evaluated_) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(*weights, AveragedWeights());
  return absl::OkStatus();
}

void EMAHook::OnError(RunContext& run, const absl::Status&) {
  const absl::Status status = Leave();
  if (status.ok()) return;
  run.log().Error(absl::StrCat(
      "average \"", name_,
      "\": the model's own weights could not be put back: ", status.message()));
}

GRAPNEL_REGISTER_HOOK(EMAHook);

}  // namespace grapnel
