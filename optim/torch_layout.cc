#include "grapnel/optim/torch_layout.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/map.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/pth_numbers.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/optimizer_state.h"

namespace grapnel {
namespace {

using ::google::protobuf::Map;
using ::grapnel::io::NumberIn;
using ::grapnel::io::PthValue;
using ::grapnel::io::PthWriter;
using ::grapnel::optim::v1::LossScaleConfig;
using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;

using Options = Map<std::string, double>;
using Kind = PthValue::Kind;

constexpr char kStep[] = "step";
constexpr char kInitial[] = "initial_";
constexpr char kMomentum[] = "momentum";
constexpr char kBeta1[] = "beta1";
constexpr char kBaseSettings[] = "base_param_settings";
constexpr char kLossScaler[] = "loss_scaler";

bool HasBetas(absl::string_view type) {
  return type == "Adam" || type == "AdamW";
}

// What no schedule moves, and so no state knows.
struct Flags {
  bool nesterov = false;
  bool maximize = false;
  bool amsgrad = false;
  bool fused = false;
};

// All false of an optimizer that was made in code.
Flags FlagsOf(const OptimWrapperConfig& config) {
  const auto& optimizer = config.optimizer();
  if (optimizer.has_sgd()) {
    return {optimizer.sgd().nesterov(), optimizer.sgd().maximize(), false,
            true};
  }
  if (optimizer.has_adam()) {
    return {false, optimizer.adam().maximize(), optimizer.adam().amsgrad(),
            true};
  }
  return {false, optimizer.adamw().maximize(), optimizer.adamw().amsgrad(),
          optimizer.has_adamw()};
}

// ---- Writing ----

void WriteNumber(absl::string_view name, double value, PthWriter* writer) {
  writer->String(name);
  writer->Float(value);
}

void WriteBool(absl::string_view name, bool value, PthWriter* writer) {
  writer->String(name);
  writer->Bool(value);
}

void WriteNone(absl::string_view name, PthWriter* writer) {
  writer->String(name);
  writer->None();
}

double OptionOr(const Options& options, const char* name, double otherwise) {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

using SlotsByParam =
    absl::flat_hash_map<std::string,
                        std::vector<std::pair<std::string, at::Tensor>>>;

SlotsByParam ByParam(const TensorMap& slots) {
  SlotsByParam by_param;
  for (const NamedTensor& slot : slots) {
    const size_t slash = slot.name.rfind('/');
    if (slash == std::string::npos) continue;
    by_param[slot.name.substr(0, slash)].emplace_back(
        slot.name.substr(slash + 1), slot.tensor);
  }
  return by_param;
}

bool AnySlot(const SlotsByParam& slots, absl::string_view name) {
  for (const auto& [param, own] : slots) {
    for (const auto& [slot, tensor] : own) {
      if (slot == name) return true;
    }
  }
  return false;
}

// Writes one optimizer's state_dict.
class TorchOptimizerWriter {
 public:
  TorchOptimizerWriter(const OptimWrapperState& state, const TensorMap& slots,
                       const OptimWrapperConfig& config,
                       const TorchGroups& groups, PthWriter* writer)
      : state_(state),
        type_(state.optimizer().type()),
        slots_(ByParam(slots)),
        flags_(FlagsOf(config)),
        config_(config),
        groups_(groups),
        writer_(*writer) {
    // Of an optimizer that was made in code no configuration says so.
    flags_.amsgrad = flags_.amsgrad || AnySlot(slots_, "max_exp_avg_sq");
  }

  absl::Status Write() {
    if (!HasBetas(type_) && type_ != "SGD" && type_ != "RMSprop" &&
        type_ != "Adagrad") {
      return absl::InvalidArgumentError(absl::StrCat(
          "optimizer ", type_, ": what it is in Python isn't known"));
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<KnownGroup> known,
                             KnownGroups());
    writer_.BeginDict();
    writer_.String("state");
    GRAPNEL_RETURN_IF_ERROR(WriteSlots());
    writer_.String("param_groups");
    writer_.BeginList();
    int64_t number = 0;
    for (size_t i = 0; i < known.size(); ++i) {
      writer_.BeginDict();
      WriteOptions(*known[i].options, known[i].param);
      writer_.String("params");
      writer_.BeginList();
      for (size_t k = 0; k < groups_.groups[i].size(); ++k) {
        writer_.Int(number++);
      }
      writer_.End();
      writer_.End();
    }
    writer_.End();
    if (known.size() > 1) {
      writer_.String(kBaseSettings);
      writer_.BeginDict();
      writer_.String("params");
      writer_.Tensor(ops::zeros({1}));
      WriteOptions(state_.base_options().empty() ? *known.front().options
                                                 : state_.base_options(),
                   "");
      writer_.End();
    }
    if (state_.has_loss_scale()) WriteLossScale();
    writer_.End();
    return absl::OkStatus();
  }

 private:
  struct KnownGroup {
    const Options* options;
    std::string param;  // One that is trained.
  };

  absl::StatusOr<std::vector<KnownGroup>> KnownGroups() const {
    const auto by_param = GroupsByParam(state_.optimizer());
    std::vector<KnownGroup> all;
    for (const std::vector<std::string>& params : groups_.groups) {
      const auto trained = std::find_if(
          params.begin(), params.end(),
          [&](const std::string& param) { return by_param.contains(param); });
      if (trained == params.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("groups[", all.size(),
                         "]: the optimizer knows none of its parameters"));
      }
      all.push_back({&by_param.at(*trained)->options(), *trained});
    }
    return all;
  }

  absl::Status WriteSlots() {
    writer_.BeginDict();
    int64_t number = 0;
    for (const std::vector<std::string>& params : groups_.groups) {
      for (const std::string& param : params) {
        const auto own = slots_.find(param);
        if (own != slots_.end()) {
          writer_.Int(number);
          writer_.BeginDict();
          for (const auto& [slot, tensor] : own->second) {
            writer_.String(slot);
            at::Tensor value = tensor;
            if (slot == kStep) {
              GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
                value = tensor.to(at::kCPU, at::kFloat).reshape({});
                return absl::OkStatus();
              }));
            }
            writer_.Tensor(value);
          }
          writer_.End();
        }
        ++number;
      }
    }
    writer_.End();
    return absl::OkStatus();
  }

  // `param`: one of the group that is trained, "" for the base group.
  void WriteOptions(const Options& options, const std::string& param) {
    WriteNumber("lr", OptionOr(options, "lr", 0), &writer_);
    if (HasBetas(type_)) {
      writer_.String("betas");
      writer_.BeginTuple();
      writer_.Float(OptionOr(options, kBeta1, 0.9));
      writer_.Float(OptionOr(options, "beta2", 0.999));
      writer_.End();
    } else if (type_ != "Adagrad") {
      WriteNumber(kMomentum, OptionOr(options, kMomentum, 0), &writer_);
    }
    if (type_ == "SGD") {
      WriteNumber("dampening", OptionOr(options, "dampening", 0), &writer_);
    } else {
      WriteNumber("eps", OptionOr(options, "eps", 1e-8), &writer_);
    }
    WriteNumber("weight_decay", OptionOr(options, "weight_decay", 0), &writer_);
    if (type_ == "SGD") WriteBool("nesterov", flags_.nesterov, &writer_);
    if (type_ == "RMSprop") {
      WriteNumber("alpha", OptionOr(options, "alpha", 0.99), &writer_);
      WriteBool("centered", AnySlot(slots_, "grad_avg"), &writer_);
    }
    if (type_ == "Adagrad") {
      WriteNumber("lr_decay", OptionOr(options, "lr_decay", 0), &writer_);
      WriteNumber("initial_accumulator_value", 0, &writer_);
    }
    if (HasBetas(type_)) WriteBool("amsgrad", flags_.amsgrad, &writer_);
    WriteBool("maximize", flags_.maximize, &writer_);
    WriteNone("foreach", &writer_);
    if (HasBetas(type_) || type_ == "RMSprop") {
      WriteBool("capturable", false, &writer_);
    }
    WriteBool("differentiable", false, &writer_);
    // Ours are the fused kernels; others round otherwise.
    if (flags_.fused) {
      WriteBool("fused", true, &writer_);
    } else if (type_ != "RMSprop") {
      WriteNone("fused", &writer_);
    }
    if (HasBetas(type_)) {
      WriteBool("decoupled_weight_decay", type_ == "AdamW", &writer_);
    }
    for (const auto& [option, values] : groups_.initial) {
      // MMEngine's schedules of a momentum keep it beside the betas.
      if (option == kMomentum && HasBetas(type_)) {
        WriteNumber(kMomentum, OptionOr(options, kBeta1, 0.9), &writer_);
      }
      const auto value = values.find(param);
      if (value == values.end()) continue;
      WriteNumber(absl::StrCat(kInitial, option), value->second, &writer_);
    }
    for (const auto& [name, values] : groups_.kept) {
      const auto value = values.find(param);
      if (value != values.end()) WriteNumber(name, value->second, &writer_);
    }
  }

  void WriteLossScale() {
    const LossScaleConfig& config = config_.amp().loss_scale();
    writer_.String(kLossScaler);
    writer_.BeginDict();
    WriteNumber("scale", state_.loss_scale().scale(), &writer_);
    const bool fixed = config.has_dynamic() && !config.dynamic();
    WriteNumber("growth_factor",
                fixed                        ? 1.0
                : config.has_growth_factor() ? config.growth_factor()
                                             : 2.0,
                &writer_);
    WriteNumber("backoff_factor",
                fixed                         ? 1.0
                : config.has_backoff_factor() ? config.backoff_factor()
                                              : 0.5,
                &writer_);
    writer_.String("growth_interval");
    writer_.Int(config.has_growth_interval() ? config.growth_interval() : 2000);
    writer_.String("_growth_tracker");
    writer_.Int(state_.loss_scale().good_steps());
    writer_.End();
  }

  const OptimWrapperState& state_;
  const std::string type_;
  const SlotsByParam slots_;
  Flags flags_;
  const OptimWrapperConfig& config_;
  const TorchGroups& groups_;
  PthWriter& writer_;
};

// ---- Reading ----

struct FileGroup {
  PthValue value;
  std::vector<int64_t> numbers;
  std::vector<std::string> names;  // "param_names", if there are any.
};

absl::StatusOr<std::vector<FileGroup>> ReadGroups(const PthValue& optimizer) {
  const std::optional<PthValue> list = optimizer.Find("param_groups");
  if (!list.has_value() || list->kind() != Kind::kList || list->size() == 0) {
    return absl::InvalidArgumentError(
        "there is no list \"param_groups\": it is no state_dict of an "
        "optimizer");
  }
  std::vector<FileGroup> groups;
  absl::flat_hash_set<int64_t> seen;
  for (int64_t i = 0; i < list->size(); ++i) {
    FileGroup group = {list->item(i), {}, {}};
    const std::optional<PthValue> params = group.value.Find("params");
    if (!params.has_value() || params->kind() != Kind::kList) {
      return absl::InvalidArgumentError(
          absl::StrCat("param_groups[", i, "]: has no list \"params\""));
    }
    for (int64_t k = 0; k < params->size(); ++k) {
      const PthValue number = params->item(k);
      if (number.kind() != Kind::kInt ||
          !seen.insert(number.int_value()).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("param_groups[", i, "]: params[", k,
                         "]: must be a number that no other one has"));
      }
      group.numbers.push_back(number.int_value());
    }
    const std::optional<PthValue> names = group.value.Find("param_names");
    if (names.has_value() && names->size() == params->size()) {
      for (int64_t k = 0; k < names->size(); ++k) {
        if (names->item(k).kind() != Kind::kString) break;
        group.names.emplace_back(names->item(k).string_value());
      }
      if (group.names.size() != group.numbers.size()) group.names.clear();
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

std::string SizesText(const std::vector<FileGroup>& groups) {
  return absl::StrJoin(groups, ", ",
                       [](std::string* out, const FileGroup& group) {
                         absl::StrAppend(out, group.numbers.size());
                       });
}

// Which parameter each number stands for, by our names: "" for one that isn't
// here.
class Assignment {
 public:
  // The number of a parameter, and its group; nothing for one that the file
  // doesn't have.
  struct Place {
    int64_t number;
    const FileGroup* group;
  };

  static absl::StatusOr<Assignment> Create(
      const std::vector<FileGroup>& groups,
      const std::vector<TorchParam>& params, const OptimizerState& ours) {
    Assignment assignment;
    if (std::all_of(groups.begin(), groups.end(), [](const FileGroup& group) {
          return group.names.size() == group.numbers.size();
        })) {
      assignment.AssignByName(groups, params);
      return assignment;
    }
    const auto known = GroupsByParam(ours);
    std::vector<std::string> all, trained;
    for (const TorchParam& param : params) {
      all.push_back(param.name);
      if (known.contains(param.name)) trained.push_back(param.name);
    }
    size_t size = 0;
    bool single = true;
    for (const FileGroup& group : groups) {
      size += group.numbers.size();
      single = single && group.numbers.size() == 1;
    }
    if (size != all.size() && size != trained.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "it is of ", size, " parameters; the file's model has ", all.size(),
          ", of which ", trained.size(), " are trained here"));
    }
    if (groups.size() == 1 || single) {
      assignment.AssignInOrder(groups, size == all.size() ? all : trained);
      return assignment;
    }
    // Python's groups are the user's: their order is the file's only within.
    std::vector<std::string> in_groups;
    bool alike = static_cast<int>(groups.size()) == ours.groups_size();
    for (int i = 0; alike && i < ours.groups_size(); ++i) {
      const size_t before = in_groups.size();
      for (const std::string& name : trained) {
        if (known.at(name) == &ours.groups(i)) in_groups.push_back(name);
      }
      alike = in_groups.size() - before == groups[i].numbers.size();
    }
    if (!alike) {
      return absl::InvalidArgumentError(absl::StrCat(
          "it has groups of ", SizesText(groups),
          " parameters, and nobody can tell which those are: here groups are "
          "others (optim_wrapper.paramwise_cfg), and the file doesn't name "
          "them (param_names, of an optimizer made of "
          "model.named_parameters())"));
    }
    assignment.AssignInOrder(groups, in_groups);
    return assignment;
  }

  const Place* Find(absl::string_view name) const {
    const auto found = places_.find(name);
    return found == places_.end() ? nullptr : &found->second;
  }

 private:
  void AssignByName(const std::vector<FileGroup>& groups,
                    const std::vector<TorchParam>& params) {
    absl::flat_hash_map<absl::string_view, absl::string_view> ours;
    for (const TorchParam& param : params) ours[param.there] = param.name;
    for (const FileGroup& group : groups) {
      for (size_t k = 0; k < group.numbers.size(); ++k) {
        const auto name = ours.find(group.names[k]);
        if (name == ours.end() || name->second.empty()) continue;
        places_[name->second] = {group.numbers[k], &group};
      }
    }
  }

  void AssignInOrder(const std::vector<FileGroup>& groups,
                     const std::vector<std::string>& names) {
    size_t next = 0;
    for (const FileGroup& group : groups) {
      for (const int64_t number : group.numbers) {
        const std::string& name = names[next++];
        if (!name.empty()) places_[name] = {number, &group};
      }
    }
  }

  absl::flat_hash_map<std::string, Place> places_;
};

std::optional<double> NumberAt(const PthValue& dict, absl::string_view key) {
  const std::optional<PthValue> value = dict.Find(key);
  return value.has_value() ? NumberIn(*value) : std::nullopt;
}

// The option that ours of that name is in a group there.
std::optional<double> OptionThere(const PthValue& group,
                                  absl::string_view name) {
  if (name != kBeta1 && name != "beta2") return NumberAt(group, name);
  const std::optional<PthValue> betas = group.Find("betas");
  if (!betas.has_value() || betas->size() != 2) return std::nullopt;
  return NumberIn(betas->item(name == kBeta1 ? 0 : 1));
}

std::optional<double> InitialThere(const PthValue& group,
                                   absl::string_view name) {
  return NumberAt(
      group,
      absl::StrCat(kInitial,
                   name == kBeta1 ? absl::string_view(kMomentum) : name));
}

// Whether a OneCycleLR has put the cycle's first value where what was
// configured is else.
bool HasCycle(const PthValue& group) {
  return group.Find("max_lr").has_value() && group.Find("min_lr").has_value();
}

// What a group there has of the options that `names` has; an error names one
// that is missing. `*configured`: before, what is configured here.
absl::Status ReadOptions(const PthValue& group, const Options& names,
                         bool lr_has_moved, Options* options,
                         Options* configured) {
  for (const auto& [name, ours] : names) {
    const std::optional<double> value = OptionThere(group, name);
    if (!value.has_value()) {
      // A momentum of 0 is none, in some places.
      if (name == kMomentum || name == "dampening") {
        (*options)[name] = (*configured)[name] = 0;
        continue;
      }
      return absl::InvalidArgumentError(
          absl::StrCat("a group has no option \"", name,
                       "\": it is of another kind of optimizer"));
    }
    (*options)[name] = *value;
    const std::optional<double> initial = InitialThere(group, name);
    if (name == "lr" && configured->contains(name) &&
        (HasCycle(group) || (lr_has_moved && !initial.has_value()))) {
      continue;
    }
    (*configured)[name] = initial.value_or(*value);
  }
  return absl::OkStatus();
}

// Why the file's optimizer isn't of this type; "" if it may be.
std::string OtherKind(const PthValue& group, absl::string_view type) {
  const bool betas = group.Find("betas").has_value();
  if (betas != HasBetas(type)) {
    return betas ? "it has betas, as Adam does" : "it has no betas";
  }
  if (type == "SGD" && !group.Find("dampening").has_value()) {
    return "it has no dampening";
  }
  const std::optional<PthValue> decoupled =
      group.Find("decoupled_weight_decay");
  if (!decoupled.has_value() || !HasBetas(type)) return "";
  const bool is_adamw = NumberIn(*decoupled).value_or(0) != 0;
  return is_adamw == (type == "AdamW") ? ""
         : is_adamw                    ? "it is AdamW"
                                       : "it is Adam";
}

// The slots of a parameter, as they go into a TensorMap.
absl::Status ReadSlots(const std::string& param, const PthValue& state,
                       TensorMap* slots, std::set<std::string>* names) {
  for (int64_t i = 0; i < state.size(); ++i) {
    if (state.key(i).kind() != Kind::kString) continue;
    const std::string slot(state.key(i).string_value());
    const PthValue value = state.value(i);
    at::Tensor tensor;
    if (slot == kStep) {
      const std::optional<double> step = NumberIn(value);
      if (!step.has_value()) continue;
      tensor = ops::scalar_tensor(*step, at::kFloat);
    } else if (value.kind() == Kind::kTensor) {
      tensor = value.tensor();
    } else {
      continue;  // None, of SGD without a momentum.
    }
    names->insert(slot);
    GRAPNEL_RETURN_IF_ERROR(slots->Add(SlotName(param, slot), tensor));
  }
  return absl::OkStatus();
}

std::string FlagText(bool flag) { return flag ? "true" : "false"; }

// What this run's optimizer, whose groups have such options, leaves out.
void CompareFlags(const PthValue& group, const OptimWrapperConfig& config,
                  const Options& options, std::vector<std::string>* warnings) {
  const double momentum = NumberAt(group, kMomentum).value_or(0);
  if (momentum != 0 && !options.contains(kMomentum) &&
      !options.contains(kBeta1)) {
    warnings->push_back(absl::StrCat("optimizer: momentum: is ", momentum,
                                     " in the file and 0 in the "
                                     "configuration, which counts"));
  }
  if (!config.has_optimizer()) return;
  const Flags flags = FlagsOf(config);
  for (const auto& [name, ours] : {std::pair("nesterov", flags.nesterov),
                                   std::pair("maximize", flags.maximize),
                                   std::pair("amsgrad", flags.amsgrad)}) {
    const std::optional<double> theirs = NumberAt(group, name);
    if (!theirs.has_value() || (*theirs != 0) == ours) continue;
    warnings->push_back(absl::StrCat("optimizer: ", name, ": is ",
                                     FlagText(*theirs != 0),
                                     " in the file and ", FlagText(ours),
                                     " in the configuration, which counts"));
  }
}

bool SameOptions(const Options& a, const Options& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, value] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second != value) return false;
  }
  return true;
}

// The part with these options; a new one if there is none.
OptimizerState::Group& PartWith(const OptimizerState::Group& like,
                                std::vector<OptimizerState::Group>* parts) {
  for (OptimizerState::Group& part : *parts) {
    if (SameOptions(part.options(), like.options()) &&
        SameOptions(part.configured(), like.configured())) {
      return part;
    }
  }
  parts->push_back(like);
  return parts->back();
}

void ReadLossScale(const PthValue& optimizer, OptimWrapperState* state) {
  if (!state->has_loss_scale()) return;
  const std::optional<PthValue> scaler = optimizer.Find(kLossScaler);
  if (!scaler.has_value()) return;
  const std::optional<double> scale = NumberAt(*scaler, "scale");
  if (!scale.has_value()) return;
  state->mutable_loss_scale()->set_scale(*scale);
  const double steps = NumberAt(*scaler, "_growth_tracker").value_or(0);
  state->mutable_loss_scale()->set_good_steps(
      steps >= 0 && steps < 0x1p53 ? static_cast<int64_t>(steps) : 0);
}

// The base group, of which only MMEngine's files tell.
absl::Status ReadBase(const PthValue& optimizer, bool lr_has_moved,
                      OptimWrapperState* state) {
  if (state->base_options().empty()) return absl::OkStatus();
  const Options like = state->base_options();
  const std::optional<PthValue> base = optimizer.Find(kBaseSettings);
  if (base.has_value()) {
    return ReadOptions(*base, like, lr_has_moved, state->mutable_base_options(),
                       state->mutable_base_configured());
  }
  // It moves as the groups do.
  const OptimizerState::Group& first = state->optimizer().groups(0);
  for (const auto& [name, ours] : like) {
    const double configured = OptionOr(first.configured(), name.c_str(), 0);
    const double now = OptionOr(first.options(), name.c_str(), 0);
    const double base_configured =
        OptionOr(state->base_configured(), name.c_str(), ours);
    (*state->mutable_base_options())[name] =
        configured == 0 ? base_configured
                        : base_configured * (now / configured);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteTorchOptimizer(const OptimWrapperState& state,
                                 const TensorMap& slots,
                                 const OptimWrapperConfig& config,
                                 const TorchGroups& groups,
                                 io::PthWriter* writer) {
  return TorchOptimizerWriter(state, slots, config, groups, writer).Write();
}

absl::Status ReadTorchOptimizer(const PthValue& value,
                                const std::vector<TorchParam>& params,
                                const OptimWrapperConfig& config,
                                bool lr_has_moved, OptimWrapperState* state,
                                TensorMap* slots,
                                std::vector<std::string>* warnings) {
  const OptimizerState& ours = state->optimizer();
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<FileGroup> groups,
                           ReadGroups(value));
  const std::string other = OtherKind(groups.front().value, ours.type());
  if (!other.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is of another kind than the run's, which is ",
                     ours.type(), ": ", other));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const Assignment assignment,
                           Assignment::Create(groups, params, ours));
  absl::flat_hash_map<int64_t, PthValue> states;
  if (const auto dict = value.Find("state");
      dict.has_value() && dict->kind() == Kind::kDict) {
    for (int64_t i = 0; i < dict->size(); ++i) {
      if (dict->key(i).kind() != Kind::kInt) continue;
      states.emplace(dict->key(i).int_value(), dict->value(i));
    }
  }

  OptimWrapperState read = *state;
  read.mutable_optimizer()->clear_groups();
  TensorMap read_slots;
  std::set<std::string> slot_names;
  for (const OptimizerState::Group& group : ours.groups()) {
    std::vector<OptimizerState::Group> parts;
    for (const std::string& param : group.params()) {
      const Assignment::Place* const place = assignment.Find(param);
      if (place == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            "parameter \"", param, "\": the file's optimizer doesn't have it"));
      }
      OptimizerState::Group like;
      *like.mutable_configured() = group.configured();
      GRAPNEL_RETURN_IF_ERROR(ReadOptions(place->group->value, group.options(),
                                          lr_has_moved, like.mutable_options(),
                                          like.mutable_configured()));
      OptimizerState::Group& part = PartWith(like, &parts);
      part.add_params(param);
      const auto found = states.find(place->number);
      const size_t before = read_slots.size();
      if (found != states.end()) {
        GRAPNEL_RETURN_IF_ERROR(
            ReadSlots(param, found->second, &read_slots, &slot_names));
      }
      if (read_slots.size() == before) part.add_without_slots(param);
    }
    for (OptimizerState::Group& part : parts) {
      *read.mutable_optimizer()->add_groups() = std::move(part);
    }
  }
  for (OptimizerState::Group& group :
       *read.mutable_optimizer()->mutable_groups()) {
    for (const std::string& slot : slot_names) group.add_slots(slot);
  }
  GRAPNEL_RETURN_IF_ERROR(ReadBase(value, lr_has_moved, &read));
  ReadLossScale(value, &read);
  CompareFlags(groups.front().value, config, ours.groups(0).options(),
               warnings);
  *state = std::move(read);
  *slots = std::move(read_slots);
  return absl::OkStatus();
}

}  // namespace grapnel
