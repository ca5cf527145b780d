#include "grapnel/runner/training_pth_writer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/any_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/base/version.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/torch_layout.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;
using ::google::protobuf::Reflection;
using ::grapnel::optim::v1::OneCycleSchedulerConfig;
using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::optim::v1::ParamSchedulerState;
using ::grapnel::runner::v1::MessageHubState;
using ::grapnel::runner::v1::RunState;

// The end of a window of MMEngine's that never closes.
constexpr int64_t kMMEngineOpen = 1000000000;

// Names of buffers, where nothing else tells them from parameters.
bool IsStatistic(absl::string_view name) {
  return absl::EndsWith(name, "running_mean") ||
         absl::EndsWith(name, "running_var") ||
         absl::EndsWith(name, "num_batches_tracked");
}

// One optimizer of the run, as Python is to have it.
struct OneOptimizer {
  std::string name;  // "" of the only one.
  const OptimWrapperState* state;
  OptimWrapperConfig config;
  TensorMap slots;
  TorchGroups groups;
};

class TrainingWriter {
 public:
  TrainingWriter(const io::CheckpointContents& contents,
                 const TrainingPthOptions& options,
                 std::vector<std::string>* warnings)
      : contents_(contents), options_(options), warnings_(*warnings) {}

  absl::Status Write(io::Env& env, const std::string& path) {
    model_ = contents_.FindSection("model");
    if (model_ == nullptr || contents_.FindBlob("state") == nullptr) {
      return absl::InvalidArgumentError(
          "the checkpoint is of no run: it has no model or no state");
    }
    GRAPNEL_ASSIGN_OR_RETURN(state_, ReadRunState(contents_));
    if (!options_.optimizer) state_.clear_optim_wrapper();
    auto config = ParseRunnerConfig(contents_.manifest().config(),
                                    ConfigFormat::kText, "config");
    if (config.ok()) config_ = *std::move(config);
    if (state_.has_optim_wrapper() &&
        !config_.optim_wrapper().has_optimizer() &&
        config_.optim_wrapper().optimizers().empty()) {
      warnings_.push_back(absl::StrCat(
          "what the optimizer has besides numbers that are scheduled isn't "
          "known, as nesterov and amsgrad: ",
          config.ok() ? "it was made in code" : config.status().message()));
    }
    GRAPNEL_ASSIGN_OR_RETURN(std::vector<OneOptimizer> optimizers,
                             Optimizers());
    GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::PthWriter> writer,
                             io::PthWriter::Create(env, path));
    writer_ = writer.get();
    writer_->BeginDict();
    WriteMeta();
    WriteWeights();
    if (!optimizers.empty()) {
      writer_->String("optimizer");
      GRAPNEL_RETURN_IF_ERROR(
          EachOptimizer(optimizers, [this](const OneOptimizer& optimizer) {
            return WriteTorchOptimizer(*optimizer.state, optimizer.slots,
                                       optimizer.config, optimizer.groups,
                                       writer_);
          }));
      writer_->String("param_schedulers");
      GRAPNEL_RETURN_IF_ERROR(
          EachOptimizer(optimizers, [this](const OneOptimizer& optimizer) {
            WriteSchedulers(optimizer);
            return absl::OkStatus();
          }));
    }
    WriteHub();
    writer_->End();
    WarnOfRest();
    return writer_->Finish();
  }

 private:
  template <typename F>
  absl::Status EachOptimizer(const std::vector<OneOptimizer>& optimizers,
                             F&& write) {
    if (optimizers.front().name.empty()) return write(optimizers.front());
    writer_->BeginDict();
    for (const OneOptimizer& optimizer : optimizers) {
      writer_->String(optimizer.name);
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(write(optimizer),
                      absl::StrCat("optimizer \"", optimizer.name, "\"")));
    }
    writer_->End();
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<OneOptimizer>> Optimizers() {
    std::vector<OneOptimizer> all;
    if (!state_.has_optim_wrapper()) return all;
    const OptimWrapperState& state = state_.optim_wrapper();
    const TensorMap* const found = contents_.FindSection("optimizer");
    const TensorMap none;
    const TensorMap& slots = found == nullptr ? none : *found;
    if (state.optimizers().empty()) {
      all.push_back({"", &state, config_.optim_wrapper(), slots, {}});
    }
    for (const auto& member : state.optimizers()) {
      OneOptimizer one = {member.name(), &member.state(), {}, {}, {}};
      for (const auto& named : config_.optim_wrapper().optimizers()) {
        if (named.name() != member.name()) continue;
        *one.config.mutable_optimizer() = named.optimizer();
        *one.config.mutable_paramwise_cfg() = named.paramwise_cfg();
        if (!named.has_paramwise_cfg()) one.config.clear_paramwise_cfg();
        *one.config.mutable_amp() = config_.optim_wrapper().amp();
      }
      const std::string prefix = absl::StrCat(member.name(), "/");
      for (const NamedTensor& slot : slots) {
        absl::string_view name = slot.name;
        if (!absl::ConsumePrefix(&name, prefix)) continue;
        GRAPNEL_RETURN_IF_ERROR(one.slots.Add(std::string(name), slot.tensor));
      }
      all.push_back(std::move(one));
    }
    for (OneOptimizer& one : all) MakeGroups(&one);
    return all;
  }

  void MakeGroups(OneOptimizer* one) {
    const OptimizerState& state = one->state->optimizer();
    absl::flat_hash_set<absl::string_view> trained;
    for (const OptimizerState::Group& group : state.groups()) {
      trained.insert(group.params().begin(), group.params().end());
    }
    std::vector<std::vector<std::string>>& groups = one->groups.groups;
    const bool paramwise =
        state.groups_size() > 1 || one->config.has_paramwise_cfg();
    if (options_.groups == TrainingPthOptions::Groups::kOwn) {
      for (const OptimizerState::Group& group : state.groups()) {
        groups.emplace_back(group.params().begin(), group.params().end());
      }
    } else if (paramwise) {
      for (const NamedTensor& tensor : *model_) {
        if (trained.contains(tensor.name)) groups.push_back({tensor.name});
      }
    } else if (!one->name.empty()) {
      // Of each of several the trained ones alone are known to be its own.
      groups.emplace_back(state.groups(0).params().begin(),
                          state.groups(0).params().end());
    } else {
      groups.push_back(WithFrozen(trained));
    }
    absl::flat_hash_map<absl::string_view, int> group_of;
    for (int i = 0; i < state.groups_size(); ++i) {
      for (const std::string& param : state.groups(i).params()) {
        group_of[param] = i;
      }
    }
    for (const ParamSchedulerState& scheduler : state_.param_schedulers()) {
      if (scheduler.optimizer() != one->name ||
          scheduler.base_values_size() < state.groups_size()) {
        continue;
      }
      const auto put = [&](std::map<std::string, Values>* numbers,
                           const std::string& name, auto&& value_of) {
        auto [it, is_new] = numbers->emplace(name, Values());
        if (!is_new) return;
        for (const auto& [param, group] : group_of) {
          it->second[std::string(param)] = value_of(group);
        }
        it->second[""] = value_of(scheduler.base_values_size() - 1);
      };
      if (scheduler.type() ==
          OneCycleSchedulerConfig::descriptor()->full_name()) {
        OneCycleSchedulerConfig cycle;
        if (!ParseTextProto(scheduler.settings(), &cycle).ok() ||
            cycle.eta_max().empty()) {
          continue;
        }
        const auto peak = [&](int group) {
          return cycle.eta_max(std::min(group, cycle.eta_max_size() - 1));
        };
        const auto first = [&](int group) {
          return peak(group) / cycle.div_factor();
        };
        // The optimizer has them, as the cycle reads them there.
        one->groups.initial.erase("lr");
        put(&one->groups.initial, "lr", first);
        put(&one->groups.kept, "max_lr", peak);
        put(&one->groups.kept, "min_lr",
            [&](int group) { return first(group) / cycle.final_div_factor(); });
      } else {
        put(&one->groups.initial, OptionThere(scheduler),
            [&](int group) { return scheduler.base_values(group); });
      }
    }
  }

  // MMEngine's group of all parameters. A frozen one is known by its place:
  // buffers come behind all parameters.
  std::vector<std::string> WithFrozen(
      const absl::flat_hash_set<absl::string_view>& trained) {
    std::vector<std::string> names;
    size_t last = 0;
    size_t place = 0;
    for (const NamedTensor& tensor : *model_) {
      ++place;
      if (trained.contains(tensor.name)) last = place;
    }
    place = 0;
    std::string unsure;
    for (const NamedTensor& tensor : *model_) {
      if (++place <= last) {
        names.push_back(tensor.name);
      } else if (unsure.empty() && !IsStatistic(tensor.name) &&
                 tensor.tensor.is_floating_point()) {
        unsure = tensor.name;
      }
    }
    if (!unsure.empty()) {
      warnings_.push_back(absl::StrCat(
          "optimizer: \"", unsure,
          "\" isn't trained, and is taken for a buffer: with a frozen "
          "parameter in its place Python's optimizer has one more"));
    }
    return names;
  }

  void WriteMeta() {
    const io::v1::CheckpointManifest& manifest = contents_.manifest();
    const io::v1::Progress& progress = manifest.progress();
    writer_->String("meta");
    writer_->BeginDict();
    writer_->String("epoch");
    writer_->Int(progress.epoch());
    writer_->String("iter");
    writer_->Int(progress.iter());
    writer_->String("seed");
    writer_->Int(state_.seed());
    writer_->String("grapnel_version");
    writer_->String(kGrapnelVersion);
    writer_->String("grapnel_config");
    writer_->String(manifest.config());
    writer_->End();
    if (state_.data().by_epoch() && progress.iter_in_epoch() > 0) {
      warnings_.push_back(absl::StrCat(
          "the checkpoint is from inside epoch ", progress.epoch() + 1,
          ", after ", progress.iter_in_epoch(),
          " of its iterations: MMEngine begins that epoch again"));
    }
  }

  // The section of the average that MMEngine is to have, and its updates.
  const TensorMap* Average(int64_t* steps) {
    const TensorMap* average = nullptr;
    for (const runner::v1::HookState& hook : state_.hooks()) {
      hooks::v1::EMAHookState ema;
      const TensorMap* const section = contents_.FindSection(hook.name());
      if (section == nullptr || !hook.state().UnpackTo(&ema)) continue;
      const bool evaluated =
          hook.name() == contents_.manifest().evaluated_section();
      if (average != nullptr) {
        warnings_.push_back(
            absl::StrCat("average \"", evaluated ? average_name_ : hook.name(),
                         "\": MMEngine has one, and it is left out"));
        if (!evaluated) continue;
      }
      average = section;
      average_name_ = hook.name();
      *steps = ema.steps();
    }
    return average;
  }

  void WriteWeights() {
    int64_t steps = 0;
    const TensorMap* const average = Average(&steps);
    writer_->String("state_dict");
    writer_->BeginOrderedDict();
    for (const NamedTensor& tensor : *model_) {
      const at::Tensor* const averaged =
          average == nullptr ? nullptr : average->Find(tensor.name);
      writer_->String(tensor.name);
      writer_->Tensor(averaged == nullptr ? tensor.tensor : *averaged);
    }
    writer_->End();
    if (average == nullptr) return;
    writer_->String("ema_state_dict");
    writer_->BeginOrderedDict();
    writer_->String("steps");
    writer_->Tensor(ops::scalar_tensor(steps, at::kLong));
    for (const NamedTensor& tensor : *model_) {
      writer_->String(absl::StrCat("module.", tensor.name));
      writer_->Tensor(tensor.tensor);
    }
    writer_->End();
  }

  using Values = std::map<std::string, double>;

  // The option as Python calls it.
  static std::string OptionThere(const ParamSchedulerState& scheduler) {
    return scheduler.param_name() == "beta1" ? "momentum"
                                             : scheduler.param_name();
  }

  // The settings of a schedule, with all that it is; null for one of a user's
  // that isn't linked in.
  static std::unique_ptr<Message> SettingsOf(
      const ParamSchedulerState& scheduler) {
    const Descriptor* const type = FindMessageType(scheduler.type());
    if (type == nullptr) return nullptr;
    std::unique_ptr<Message> settings(
        MessageFactory::generated_factory()->GetPrototype(type)->New());
    if (!ParseTextProto(scheduler.settings(), settings.get()).ok()) {
      return nullptr;
    }
    return settings;
  }

  void WriteSchedulers(const OneOptimizer& optimizer) {
    writer_->BeginList();
    for (const ParamSchedulerState& scheduler : state_.param_schedulers()) {
      if (scheduler.optimizer() != optimizer.name) continue;
      writer_->BeginDict();
      WriteScheduler(optimizer, scheduler);
      writer_->End();
    }
    writer_->End();
  }

  void WriteScheduler(const OneOptimizer& optimizer,
                      const ParamSchedulerState& scheduler) {
    const std::string option = OptionThere(scheduler);
    writer_->String("param_name");
    writer_->String(option);
    writer_->String("by_epoch");
    writer_->Bool(scheduler.by_epoch());
    writer_->String("last_step");
    writer_->Int(scheduler.last_step());
    writer_->String("_global_step");
    writer_->Int(scheduler.global_step());
    writer_->String("verbose");
    writer_->Bool(false);
    WriteBaseValues(optimizer, option);
    const std::unique_ptr<Message> settings = SettingsOf(scheduler);
    if (settings == nullptr) return;
    int64_t begin = 0;
    int64_t end = kMMEngineOpen;
    const Reflection& reflection = *settings->GetReflection();
    const Descriptor& type = *settings->GetDescriptor();
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor* const field = type.field(i);
      if (field->name() == "param_name" || field->name() == "by_epoch" ||
          field->name() == "convert_to_iter_based") {
        continue;
      }
      if (field->name() == "begin") {
        begin = reflection.GetInt64(*settings, field);
      } else if (field->name() == "end") {
        if (reflection.HasField(*settings, field)) {
          end = std::min(end, reflection.GetInt64(*settings, field));
        }
      } else {
        WriteSetting(*settings, field, optimizer);
      }
    }
    writer_->String("begin");
    writer_->Int(begin);
    writer_->String("end");
    writer_->Int(end);
    if (HasTotalIters(scheduler.type())) {
      writer_->String("total_iters");
      writer_->Int(end - begin - 1);
    }
    if (scheduler.has_reduce_on_plateau()) {
      const auto& plateau = scheduler.reduce_on_plateau();
      writer_->String("best");
      const double limit = static_cast<double>(kMMEngineOpen);
      writer_->Float(std::clamp(plateau.best(), -limit, limit));
      writer_->String("num_bad_epochs");
      writer_->Int(plateau.num_bad());
      writer_->String("cooldown_counter");
      writer_->Int(plateau.cooldown_left());
    }
  }

  void WriteBaseValues(const OneOptimizer& optimizer,
                       const std::string& option) {
    const auto initial = optimizer.groups.initial.find(option);
    if (initial == optimizer.groups.initial.end()) return;
    writer_->String("base_values");
    writer_->BeginList();
    for (const std::vector<std::string>& group : optimizer.groups.groups) {
      double value = 0;
      for (const std::string& param : group) {
        const auto found = initial->second.find(param);
        if (found == initial->second.end()) continue;  // A frozen one.
        value = found->second;
        break;
      }
      writer_->Float(value);
    }
    if (optimizer.groups.groups.size() > 1) {
      writer_->Float(initial->second.at(""));
    }
    writer_->End();
  }

  static bool HasTotalIters(absl::string_view type) {
    return absl::EndsWith(type, ".LinearSchedulerConfig") ||
           absl::EndsWith(type, ".ConstantSchedulerConfig") ||
           absl::EndsWith(type, ".PolySchedulerConfig");
  }

  void WriteSetting(const Message& settings, const FieldDescriptor* field,
                    const OneOptimizer& optimizer) {
    const Reflection& reflection = *settings.GetReflection();
    if (field->name() == "milestones") {
      // Python's is a Counter, and a dict is as good.
      std::map<int64_t, int64_t> counts;
      for (int i = 0; i < reflection.FieldSize(settings, field); ++i) {
        ++counts[reflection.GetRepeatedInt64(settings, field, i)];
      }
      writer_->String("milestones");
      writer_->BeginDict();
      for (const auto& [milestone, count] : counts) {
        writer_->Int(milestone);
        writer_->Int(count);
      }
      writer_->End();
      return;
    }
    if (field->name() == "min_value") {
      const int size = reflection.FieldSize(settings, field);
      // One for each group, which are others there.
      if (size > 1) return;
      const double value =
          size == 0 ? 0 : reflection.GetRepeatedDouble(settings, field, 0);
      const size_t groups = optimizer.groups.groups.size();
      writer_->String("min_values");
      writer_->BeginList();
      for (size_t i = 0; i < groups + (groups > 1 ? 1 : 0); ++i) {
        writer_->Float(value);
      }
      writer_->End();
      return;
    }
    // What MMEngine has made more of than was configured is its own to make.
    if (field->is_repeated()) return;
    const bool has = reflection.HasField(settings, field);
    writer_->String(field->name() == "t_max" ? "T_max" : field->name());
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT64:
        if (has) return writer_->Int(reflection.GetInt64(settings, field));
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        if (has) return writer_->Float(reflection.GetDouble(settings, field));
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        if (has) return writer_->Bool(reflection.GetBool(settings, field));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        if (has) return writer_->String(reflection.GetString(settings, field));
        break;
      default:
        break;
    }
    writer_->None();
  }

  void WriteHub() {
    // MMEngine resumes histories from objects of its own alone.
    writer_->String("message_hub");
    writer_->BeginDict();
    writer_->String("log_scalars");
    writer_->BeginDict();
    writer_->End();
    const std::map<std::string, MessageHubState::Info> infos(
        state_.message_hub().infos().begin(),
        state_.message_hub().infos().end());
    writer_->String("runtime_info");
    writer_->BeginDict();
    for (const auto& [name, info] : infos) {
      writer_->String(name);
      switch (info.value_case()) {
        case MessageHubState::Info::kIntValue:
          writer_->Int(info.int_value());
          break;
        case MessageHubState::Info::kDoubleValue:
          writer_->Float(info.double_value());
          break;
        case MessageHubState::Info::kBoolValue:
          writer_->Bool(info.bool_value());
          break;
        case MessageHubState::Info::kStringValue:
          writer_->String(info.string_value());
          break;
        case MessageHubState::Info::kIntsValue:
          writer_->BeginList();
          for (const int64_t value : info.ints_value().values()) {
            writer_->Int(value);
          }
          writer_->End();
          break;
        case MessageHubState::Info::VALUE_NOT_SET:
          writer_->None();
          break;
      }
    }
    writer_->End();
    writer_->String("resumed_keys");
    writer_->BeginDict();
    for (const auto& [name, info] : infos) {
      writer_->String(name);
      writer_->Bool(true);
    }
    writer_->End();
    writer_->End();
  }

  void WarnOfRest() {
    if (options_.optimizer && !state_.has_optim_wrapper()) {
      warnings_.push_back(
          "the checkpoint was saved without its optimizer, and so is the file");
    }
    const TensorMap* const gradients = contents_.FindSection("gradients");
    if (gradients != nullptr && !gradients->empty()) {
      warnings_.push_back(
          "gradients that wait for a step are left out: Python begins a new "
          "window");
    }
    warnings_.push_back(
        "where generators and the data's order stood, histories of numbers and "
        "what hooks remember are left out");
  }

  const io::CheckpointContents& contents_;
  const TrainingPthOptions& options_;
  std::vector<std::string>& warnings_;
  const TensorMap* model_ = nullptr;
  RunState state_;
  runner::v1::RunnerConfig config_;
  std::string average_name_;
  io::PthWriter* writer_ = nullptr;
};

}  // namespace

absl::Status WriteTrainingPth(io::Env& env, const std::string& path,
                              const io::CheckpointContents& contents,
                              const TrainingPthOptions& options,
                              std::vector<std::string>* warnings) {
  return TrainingWriter(contents, options, warnings).Write(env, path);
}

}  // namespace grapnel
