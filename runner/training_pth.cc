#include "grapnel/runner/training_pth.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
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
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "c10/core/Device.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/any_message.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_numbers.h"
#include "grapnel/io/python_layouts.h"
#include "grapnel/models/shape.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/optim/torch_layout.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/load_options.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_generators.h"
#include "grapnel/runner/run_start.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;
using ::google::protobuf::Reflection;
using ::google::protobuf::util::MessageDifferencer;
using ::grapnel::io::NumberIn;
using ::grapnel::io::NumbersIn;
using ::grapnel::io::PthValue;
using ::grapnel::optim::v1::OptimizerState;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::grapnel::optim::v1::ParamSchedulerState;
using ::grapnel::runner::v1::MessageHubState;
using ::grapnel::runner::v1::RunnerConfig;
using ::grapnel::runner::v1::RunState;

using Kind = PthValue::Kind;

// What stands for infinity in MMEngine.
constexpr double kMMEngineInfinity = 1e9;

// The trained weights, where Lightning's WeightAveraging has put the averaged
// ones in their place.
constexpr char kLightningTrained[] = "current_model_state";

// Entries of a history that are kept: more than any usual window.
constexpr int64_t kKeptEntries = 1000;

std::optional<PthValue> FindAny(
    const PthValue& dict, std::initializer_list<absl::string_view> names) {
  for (const absl::string_view name : names) {
    const std::optional<PthValue> found = dict.Find(name);
    if (found.has_value() && found->kind() != Kind::kNone) return found;
  }
  return std::nullopt;
}

std::optional<double> NumberAt(const PthValue& dict, absl::string_view name) {
  const std::optional<PthValue> value = dict.Find(name);
  return value.has_value() ? NumberIn(*value) : std::nullopt;
}

// A whole number >= 0 under the first of these names that has one.
std::optional<int64_t> CountAt(const PthValue& dict,
                               std::initializer_list<absl::string_view> names) {
  for (const absl::string_view name : names) {
    const std::optional<double> number = NumberAt(dict, name);
    if (!number.has_value() || !(*number >= 0 && *number < 0x1p53) ||
        std::floor(*number) != *number) {
      continue;
    }
    return static_cast<int64_t>(*number);
  }
  return std::nullopt;
}

// 0 for what no counter is.
int64_t ToInt(double number) {
  return std::abs(number) < 0x1p53 ? static_cast<int64_t>(number) : 0;
}

bool IsStateDict(const PthValue& value) {
  if (value.kind() != Kind::kDict) return false;
  for (int64_t i = 0; i < value.size(); ++i) {
    if (value.key(i).kind() == Kind::kString &&
        value.value(i).kind() == Kind::kTensor) {
      return true;
    }
  }
  return false;
}

// Whether these are weights of a torch.optim.swa_utils.AveragedModel, or of
// MMEngine's.
bool IsAverage(const PthValue& value) {
  return IsStateDict(value) && (value.Find("n_averaged").has_value() ||
                                value.Find("module.n_averaged").has_value() ||
                                value.Find("steps").has_value());
}

bool IsStatistic(absl::string_view name) {
  return absl::EndsWith(name, "running_mean") ||
         absl::EndsWith(name, "running_var") ||
         absl::EndsWith(name, "num_batches_tracked");
}

// The state of an object of another package: its attributes.
std::optional<PthValue> AttributesOf(const PthValue& object) {
  if (object.kind() != Kind::kOpaque || object.size() < 2 ||
      object.item(1).kind() != Kind::kDict) {
    return std::nullopt;
  }
  return object.item(1);
}

// ---- Schedules ----

// A field that only schedules of a kind have there, as a state_dict calls it.
absl::string_view TellingField(absl::string_view type) {
  constexpr std::pair<absl::string_view, absl::string_view> kFields[] = {
      {".LinearSchedulerConfig", "start_factor"},
      {".CosineAnnealingSchedulerConfig", "T_max"},
      {".ConstantSchedulerConfig", "factor"},
      {".StepSchedulerConfig", "step_size"},
      {".MultiStepSchedulerConfig", "milestones"},
      {".ExponentialSchedulerConfig", "gamma"},
      {".CosineRestartSchedulerConfig", "periods"},
      {".PolySchedulerConfig", "power"},
      {".OneCycleSchedulerConfig", "div_factor"},
      {".ReduceOnPlateauSchedulerConfig", "patience"}};
  for (const auto& [kind, field] : kFields) {
    if (absl::EndsWith(type, kind)) return field;
  }
  return "";
}

// Whether the state_dict may be of a schedule of that kind.
bool IsOfKind(const PthValue& dict, absl::string_view type) {
  const absl::string_view telling = TellingField(type);
  if (telling.empty() || !dict.Find(telling).has_value()) return false;
  // What others have too.
  if (telling == "factor") return !dict.Find("patience").has_value();
  if (telling == "gamma") {
    return !dict.Find("step_size").has_value() &&
           !dict.Find("milestones").has_value();
  }
  return true;
}

// Those of a Counter, each as often as it counts; of a list as they are.
std::optional<std::vector<double>> MilestonesIn(const PthValue& value) {
  PthValue counts = value;
  if (value.kind() == Kind::kOpaque) {
    if (value.size() < 1 || value.item(0).size() < 1) return std::nullopt;
    counts = value.item(0).item(0);
  }
  if (counts.kind() != Kind::kDict) return NumbersIn(value);
  std::vector<double> milestones;
  for (int64_t i = 0; i < counts.size(); ++i) {
    const std::optional<double> milestone = NumberIn(counts.key(i));
    const std::optional<double> count = NumberIn(counts.value(i));
    if (!milestone.has_value() || !count.has_value() ||
        !(*count >= 0 && *count <= 1000)) {
      return std::nullopt;
    }
    milestones.insert(milestones.end(), static_cast<size_t>(*count),
                      *milestone);
  }
  std::sort(milestones.begin(), milestones.end());
  return milestones;
}

// Whether both say the same, where one number may stand for all groups.
bool SameValues(std::vector<double> ours, std::vector<double> theirs) {
  if (theirs.size() > ours.size() && ours.size() == 1) {
    ours.resize(theirs.size(), ours.front());
  }
  return ours == theirs;
}

// Sets a field that is repeated to the file's values, unless they are its own.
void TakeRepeated(const PthValue& value, const FieldDescriptor* field,
                  Message* settings) {
  const Reflection& reflection = *settings->GetReflection();
  const bool milestones = field->name() == "milestones";
  std::optional<std::vector<double>> theirs =
      milestones ? MilestonesIn(value) : NumbersIn(value);
  if (const auto one = NumberIn(value); one.has_value()) theirs = {*one};
  if (!theirs.has_value()) return;
  std::vector<double> ours;
  const bool is_int = field->cpp_type() == FieldDescriptor::CPPTYPE_INT64;
  for (int i = 0; i < reflection.FieldSize(*settings, field); ++i) {
    ours.push_back(is_int ? static_cast<double>(reflection.GetRepeatedInt64(
                                *settings, field, i))
                          : reflection.GetRepeatedDouble(*settings, field, i));
  }
  if (milestones) std::sort(ours.begin(), ours.end());
  if (field->name() == "min_value" && ours.empty()) ours.push_back(0);
  if (SameValues(ours, *theirs)) return;
  reflection.ClearField(settings, field);
  for (const double number : *theirs) {
    if (is_int) {
      reflection.AddInt64(settings, field, ToInt(number));
    } else {
      reflection.AddDouble(settings, field, number);
    }
  }
}

// As a state_dict calls that field of a schedule's settings. `of_torch`: of
// torch.optim.lr_scheduler.
std::string NameThere(const std::string& field, bool of_torch) {
  if (field == "t_max") return "T_max";
  if (field == "min_value") return of_torch ? "min_lrs" : "min_values";
  if (field == "rule" && of_torch) return "mode";
  if (field == "threshold_rule" && of_torch) return "threshold_mode";
  return field;
}

// A plateau's rule, by the mode of torch's.
const char* RuleOfMode(absl::string_view mode) {
  return mode == "max" ? "greater" : "less";
}

// Sets a field of a schedule's settings to what the file's state_dict says.
// `run_end`: where MMEngine ended those that have no end of their own.
void TakeSetting(const PthValue& dict, bool of_torch,
                 std::optional<double> run_end, const FieldDescriptor* field,
                 Message* settings) {
  const Reflection& reflection = *settings->GetReflection();
  const std::string name = NameThere(field->name(), of_torch);
  const std::optional<PthValue> value = dict.Find(name);
  if (!value.has_value() || value->kind() == Kind::kNone) return;
  if (field->is_repeated()) return TakeRepeated(*value, field, settings);
  const std::optional<double> number = NumberIn(*value);
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      if (!number.has_value()) return;
      if (name == "end" && !reflection.HasField(*settings, field) &&
          *number >= run_end.value_or(kMMEngineInfinity)) {
        return;
      }
      if (name == "end" && *number >= kMMEngineInfinity) {
        reflection.ClearField(settings, field);
      } else {
        reflection.SetInt64(settings, field, ToInt(*number));
      }
      return;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      if (number.has_value()) reflection.SetDouble(settings, field, *number);
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (number.has_value()) reflection.SetBool(settings, field, *number != 0);
      return;
    case FieldDescriptor::CPPTYPE_STRING:
      // Of an optimizer with betas "momentum" is another name of one of them.
      if (value->kind() == Kind::kString && name != "param_name") {
        const absl::string_view text = value->string_value();
        reflection.SetString(
            settings, field,
            std::string(name == "mode" ? RuleOfMode(text) : text));
      }
      return;
    default:
      return;
  }
}

// The settings in the state, as the file has them: what it doesn't say stays.
// `of_torch`: of torch.optim.lr_scheduler, which has no windows.
absl::Status TakeSettings(const PthValue& dict, bool of_torch,
                          std::optional<double> run_end,
                          ParamSchedulerState* state) {
  const Descriptor* const type = FindMessageType(state->type());
  if (type == nullptr) return absl::OkStatus();
  const std::unique_ptr<Message> settings(
      MessageFactory::generated_factory()->GetPrototype(type)->New());
  GRAPNEL_RETURN_IF_ERROR(ParseTextProto(state->settings(), settings.get()));
  const std::unique_ptr<Message> before(settings->New());
  before->CopyFrom(*settings);
  for (int i = 0; i < type->field_count(); ++i) {
    TakeSetting(dict, of_torch, run_end, type->field(i), settings.get());
  }
  const std::optional<double> total = NumberAt(dict, "total_iters");
  const FieldDescriptor* const end = type->FindFieldByName("end");
  if (of_torch && total.has_value() && end != nullptr) {
    settings->GetReflection()->SetInt64(settings.get(), end, ToInt(*total) + 1);
  }
  if (MessageDifferencer::Equals(*before, *settings)) return absl::OkStatus();
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  printer.PrintToString(*settings, state->mutable_settings());
  return absl::OkStatus();
}

// Where the window of the settings begins and ends.
void WindowOf(const ParamSchedulerState& state, int64_t* begin, int64_t* end) {
  *begin = 0;
  *end = std::numeric_limits<int64_t>::max();
  const Descriptor* const type = FindMessageType(state.type());
  if (type == nullptr) return;
  const std::unique_ptr<Message> settings(
      MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!ParseTextProto(state.settings(), settings.get()).ok()) return;
  const Reflection& reflection = *settings->GetReflection();
  if (const auto* field = type->FindFieldByName("begin"); field != nullptr) {
    *begin = reflection.GetInt64(*settings, field);
  }
  if (const auto* field = type->FindFieldByName("end");
      field != nullptr && reflection.HasField(*settings, field)) {
    *end = reflection.GetInt64(*settings, field);
  }
}

void TakePlateau(const PthValue& dict, ParamSchedulerState* state) {
  if (!state->has_reduce_on_plateau()) return;
  auto& plateau = *state->mutable_reduce_on_plateau();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (const auto best = NumberAt(dict, "best"); best.has_value()) {
    plateau.set_best(*best >= kMMEngineInfinity    ? kInfinity
                     : *best <= -kMMEngineInfinity ? -kInfinity
                                                   : *best);
  }
  // What it is the best of, where the settings here are others.
  const auto text = [&dict](absl::string_view name) {
    const std::optional<PthValue> value = dict.Find(name);
    return value.has_value() && value->kind() == Kind::kString
               ? std::string(value->string_value())
               : std::string();
  };
  const std::string monitor = text("monitor");
  const std::string rule = text("rule");
  const std::string mode = text("mode");
  if (!monitor.empty()) plateau.set_monitor(monitor);
  if (!rule.empty()) plateau.set_rule(rule);
  if (!mode.empty()) plateau.set_rule(RuleOfMode(mode));
  plateau.set_num_bad(CountAt(dict, {"num_bad_epochs"}).value_or(0));
  plateau.set_cooldown_left(CountAt(dict, {"cooldown_counter"}).value_or(0));
}

// ---- The whole ----

class TrainingImport {
 public:
  TrainingImport(const PthValue& file, const RunStart& start,
                 const TrainingImportOptions& options,
                 std::vector<std::string>* warnings)
      : file_(file),
        start_(start),
        options_(options),
        warnings_(*warnings),
        contents_(start.contents) {}

  absl::StatusOr<io::CheckpointContents> Import() {
    GRAPNEL_ASSIGN_OR_RETURN(state_, ReadRunState(start_.contents));
    GRAPNEL_ASSIGN_OR_RETURN(
        config_, ParseRunnerConfig(start_.contents.manifest().config(),
                                   ConfigFormat::kText, "config"));
    meta_ = file_.Find("meta");
    if (meta_.has_value() && meta_->kind() != Kind::kDict) meta_.reset();
    of_mmengine_ = meta_.has_value() && file_.Find("message_hub").has_value();
    of_lightning_ = file_.Find("pytorch-lightning_version").has_value();

    GRAPNEL_RETURN_IF_ERROR(ReadWeights());
    GRAPNEL_RETURN_IF_ERROR(ReadAverage());
    GRAPNEL_RETURN_IF_ERROR(ReadOptimizers());
    GRAPNEL_RETURN_IF_ERROR(ReadProgress());
    GRAPNEL_RETURN_IF_ERROR(ReadSchedulers());
    ReadHub();
    GRAPNEL_RETURN_IF_ERROR(ReadSeed());
    GRAPNEL_ASSIGN_OR_RETURN(std::string blob, SerializeChecked(state_));
    contents_.blobs = {{"state", std::move(blob)}};
    return std::move(contents_);
  }

 private:
  // ---- Weights ----

  // Those of an average's state_dict, without the prefix.
  static absl::StatusOr<TensorMap> TensorsOf(const PthValue& dict,
                                             absl::string_view prefix) {
    TensorMap tensors;
    for (int64_t i = 0; i < dict.size(); ++i) {
      if (dict.key(i).kind() != Kind::kString ||
          dict.value(i).kind() != Kind::kTensor) {
        continue;
      }
      absl::string_view name = dict.key(i).string_value();
      if (!absl::ConsumePrefix(&name, prefix) || name.empty()) continue;
      at::Tensor tensor;
      GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
        tensor = dict.value(i).tensor().detach();  // One of its own.
        return absl::OkStatus();
      }));
      GRAPNEL_RETURN_IF_ERROR(
          tensors.Add(std::string(name), std::move(tensor)));
    }
    return tensors;
  }

  // The same with load_options applied; the name that each then has, by the
  // file's, where it is taken at all.
  absl::StatusOr<TensorMap> Renamed(
      const TensorMap& there,
      absl::flat_hash_map<std::string, std::string>* names) {
    auto rules = LoadRules::Create(config_.load_options());
    if (!rules.ok()) return WithContext(rules.status(), "load_options");
    io::CheckpointContents one;
    one.sections.emplace_back("model", there);
    std::vector<std::string> unmatched;
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(rules->Apply(&one, &unmatched), "load_options"));
    absl::flat_hash_map<const void*, std::string> ours;
    for (const NamedTensor& tensor : one.sections[0].second) {
      ours[tensor.tensor.unsafeGetTensorImpl()] = tensor.name;
    }
    for (const NamedTensor& tensor : there) {
      const auto name = ours.find(tensor.tensor.unsafeGetTensorImpl());
      if (name != ours.end()) (*names)[tensor.name] = name->second;
    }
    if (names == &names_) {
      for (std::string& line : unmatched) {
        warnings_.push_back(absl::StrCat("load_options: ", line));
      }
    }
    return one.sections[0].second;
  }

  const TensorMap& Model() const {
    return *start_.contents.FindSection("model");
  }

  // What of `taken` is the model's, in its order. An error names what is
  // missing or of another shape.
  absl::StatusOr<TensorMap> OfModel(const TensorMap& taken, bool all) const {
    TensorMap own;
    std::vector<std::string> missing;
    for (const NamedTensor& tensor : Model()) {
      const at::Tensor* const theirs = taken.Find(tensor.name);
      if (theirs == nullptr) {
        missing.push_back(tensor.name);
        continue;
      }
      if (theirs->sizes() != tensor.tensor.sizes()) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor \"", tensor.name, "\": has the shape ",
                         ShapeString(theirs->sizes()), ", the model's is ",
                         ShapeString(tensor.tensor.sizes())));
      }
      GRAPNEL_RETURN_IF_ERROR(own.Add(tensor.name, *theirs));
    }
    if (!missing.empty() && all) {
      const std::string theirs = taken.empty() ? "" : taken.begin()->name;
      return absl::InvalidArgumentError(absl::StrCat(
          "the file lacks ", missing.size(), " of the model's ", Model().size(),
          " tensors, the first is \"", missing.front(),
          "\"; its own first one is \"", theirs,
          "\": load_options.rename can make names those of the model"));
    }
    return own;
  }

  absl::Status ReadWeights() {
    if (!FindAny(file_, {"state_dict", "model", "model_state_dict"})
             .has_value()) {
      return absl::InvalidArgumentError(
          IsStateDict(file_)
              ? "it holds weights alone, which a run can begin with "
                "(load_from) but not go on from"
              : "there are no weights: no \"state_dict\", \"model\" or "
                "\"model_state_dict\"");
    }
    GRAPNEL_ASSIGN_OR_RETURN(
        const io::PythonWeights weights,
        io::FindPythonWeights(file_.Find(kLightningTrained).value_or(file_)));
    TensorMap there;
    for (const NamedTensor& tensor : weights.tensors) {
      // Each one of its own, to be known by.
      GRAPNEL_RETURN_IF_ERROR(there.Add(tensor.name, tensor.tensor.detach()));
    }
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap taken, Renamed(there, &names_));
    GRAPNEL_ASSIGN_OR_RETURN(TensorMap model, OfModel(taken, /*all=*/true));
    WarnOfUnused(taken);
    FindParams(there);
    Section("model") = std::move(model);
    return absl::OkStatus();
  }

  void WarnOfUnused(const TensorMap& taken) {
    std::vector<std::string> unused;
    for (const NamedTensor& tensor : taken) {
      if (Model().Find(tensor.name) == nullptr) unused.push_back(tensor.name);
    }
    if (unused.empty()) return;
    warnings_.push_back(absl::StrCat(
        "the model has no place for ", unused.size(),
        unused.size() == 1 ? " tensor, \"" : " tensors, the first is \"",
        unused.front(), "\""));
  }

  // The parameters of the file's model, in its order: a state_dict has buffers
  // among them, and one that two modules share twice.
  void FindParams(const TensorMap& there) {
    const absl::flat_hash_set<absl::string_view> parameters(
        start_.parameters.begin(), start_.parameters.end());
    std::set<std::pair<const void*, int64_t>> seen;
    for (const NamedTensor& tensor : there) {
      const auto name = names_.find(tensor.name);
      const bool ours =
          name != names_.end() && Model().Find(name->second) != nullptr;
      if (ours ? !parameters.contains(name->second)
               : IsStatistic(tensor.name) ||
                     !tensor.tensor.is_floating_point()) {
        continue;
      }
      if (tensor.tensor.numel() > 0 && tensor.tensor.has_storage() &&
          !seen.emplace(tensor.tensor.const_data_ptr(), tensor.tensor.numel())
               .second) {
        continue;
      }
      params_.push_back({ours ? name->second : "", tensor.name});
    }
  }

  TensorMap& Section(absl::string_view name) {
    for (auto& [section, tensors] : contents_.sections) {
      if (section == name) return tensors;
    }
    contents_.sections.emplace_back(std::string(name), TensorMap());
    return contents_.sections.back().second;
  }

  // ---- The average ----

  // A state_dict of an average, and what it is called.
  std::optional<PthValue> FindAverage(std::string* name) const {
    if (const auto trained = file_.Find(kLightningTrained);
        trained.has_value() && IsStateDict(*trained)) {
      *name = "state_dict";
      return file_.Find(*name);
    }
    for (const absl::string_view known :
         {"ema_state_dict", "model_ema", "state_dict_ema", "ema", "ema_model",
          "swa_model", "swa_state_dict", "averaged_model", "avg_model"}) {
      const std::optional<PthValue> found = file_.Find(known);
      if (found.has_value() && IsStateDict(*found)) {
        *name = std::string(known);
        return found;
      }
    }
    for (int64_t i = 0; i < file_.size(); ++i) {
      if (file_.key(i).kind() == Kind::kString && IsAverage(file_.value(i))) {
        *name = std::string(file_.key(i).string_value());
        return file_.value(i);
      }
    }
    return std::nullopt;
  }

  absl::Status ReadAverage() {
    std::string name;
    const std::optional<PthValue> found = FindAverage(&name);
    if (!found.has_value()) {
      if (!start_.averages.empty()) {
        warnings_.push_back(absl::StrCat(
            "average \"", start_.averages.front(),
            "\": the file has none: it starts with the trained weights"));
      }
      return absl::OkStatus();
    }
    const bool wrapped =
        std::any_of(names_.begin(), names_.end(), [&](const auto& name_there) {
          return found->Find(absl::StrCat("module.", name_there.first))
              .has_value();
        });
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap there,
                             TensorsOf(*found, wrapped ? "module." : ""));
    absl::flat_hash_map<std::string, std::string> unused;
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap taken, Renamed(there, &unused));
    auto average = OfModel(taken, /*all=*/false);
    if (!average.ok()) return WithContext(average.status(), name);
    std::optional<int64_t> steps =
        CountAt(*found, {"steps", "n_averaged", "module.n_averaged"});
    if (const auto state = file_.Find("averaging_state");
        state.has_value() && !steps.has_value()) {
      steps = CountAt(*state, {"n_averaged"});
    }
    if (of_mmengine_ && name == "ema_state_dict") {
      GRAPNEL_ASSIGN_OR_RETURN(average, SwapAverage(*average));
    }
    if (start_.averages.empty()) {
      warnings_.push_back(absl::StrCat(
          name, ": the run has no average (EMAHook): it is left out"));
      return absl::OkStatus();
    }
    const std::string& section = start_.averages.front();
    // What an average lacks, as buffers, it has in common with the model.
    TensorMap whole;
    for (const NamedTensor& tensor : Section("model")) {
      const at::Tensor* const averaged = average->Find(tensor.name);
      GRAPNEL_RETURN_IF_ERROR(whole.Add(
          tensor.name, averaged == nullptr ? tensor.tensor : *averaged));
    }
    Section(section) = std::move(whole);
    contents_.manifest().set_evaluated_section(section);
    hooks::v1::EMAHookState hook;
    // At 0 the first update would copy the weights.
    hook.set_steps(steps.value_or(1));
    if (!steps.has_value()) {
      warnings_.push_back(absl::StrCat(
          name, ": how often it was averaged isn't known: taken as once"));
    }
    runner::v1::HookState* const state = state_.add_hooks();
    state->set_name(section);
    state->mutable_state()->PackFrom(hook);
    for (size_t i = 1; i < start_.averages.size(); ++i) {
      warnings_.push_back(absl::StrCat(
          "average \"", start_.averages[i],
          "\": the file has one average: it starts with the trained weights"));
    }
    return absl::OkStatus();
  }

  // MMEngine saves the average as the model, and the trained weights as the
  // average.
  absl::StatusOr<TensorMap> SwapAverage(const TensorMap& trained) {
    TensorMap model, average;
    for (const NamedTensor& tensor : Section("model")) {
      const at::Tensor* const own = trained.Find(tensor.name);
      GRAPNEL_RETURN_IF_ERROR(
          model.Add(tensor.name, own == nullptr ? tensor.tensor : *own));
      if (own == nullptr) continue;
      GRAPNEL_RETURN_IF_ERROR(average.Add(tensor.name, tensor.tensor));
    }
    Section("model") = std::move(model);
    return average;
  }

  // ---- The optimizer ----

  // The state_dict of the optimizer, of several that of `name`, the `index`-th.
  std::optional<PthValue> OptimizerThere(const std::string& name,
                                         int index) const {
    if (const auto list = file_.Find("optimizer_states");
        list.has_value() && list->kind() == Kind::kList) {
      if (index >= list->size()) return std::nullopt;
      return list->item(index);
    }
    const std::optional<PthValue> found =
        FindAny(file_, {"optimizer", "optimizer_state_dict", "optim",
                        "optimizer_state", "opt", "optim_state_dict"});
    if (!found.has_value() || name.empty()) return found;
    return found->Find(name);
  }

  // Of a file with several optimizers which they are; "" of one with one,
  // which is `there`.
  std::string SeveralIn(const PthValue& there) const {
    if (const auto list = file_.Find("optimizer_states");
        list.has_value() && list->kind() == Kind::kList && list->size() > 1) {
      return absl::StrCat(list->size(), " in a list");
    }
    std::vector<std::string> names;
    for (int64_t i = 0; i < there.size() && there.kind() == Kind::kDict; ++i) {
      if (there.key(i).kind() == Kind::kString &&
          there.value(i).kind() == Kind::kDict &&
          there.value(i).Find("param_groups").has_value()) {
        names.push_back(absl::StrCat("\"", there.key(i).string_value(), "\""));
      }
    }
    return absl::StrJoin(names, ", ");
  }

  absl::Status ReadOptimizers() {
    if (!state_.has_optim_wrapper()) return absl::OkStatus();
    OptimWrapperState& state = *state_.mutable_optim_wrapper();
    const bool there = OptimizerThere("", 0).has_value();
    if (!options_.optimizer || !there) {
      if (options_.optimizer) {
        warnings_.push_back(
            "the file has no optimizer, which starts from scratch");
      }
      state_.clear_optim_wrapper();
      auto& sections = contents_.sections;
      sections.erase(std::remove_if(sections.begin(), sections.end(),
                                    [](const auto& section) {
                                      return section.first == "optimizer";
                                    }),
                     sections.end());
      return absl::OkStatus();
    }
    if (state.optimizers().empty()) {
      return ReadOptimizer("", 0, config_.optim_wrapper(), &state);
    }
    for (int i = 0; i < state.optimizers_size(); ++i) {
      auto& member = *state.mutable_optimizers(i);
      OptimWrapperConfig config;
      for (const auto& named : config_.optim_wrapper().optimizers()) {
        if (named.name() == member.name()) {
          *config.mutable_optimizer() = named.optimizer();
        }
      }
      GRAPNEL_RETURN_IF_ERROR(
          ReadOptimizer(member.name(), i, config, member.mutable_state()));
    }
    return absl::OkStatus();
  }

  absl::Status ReadOptimizer(const std::string& name, int index,
                             const OptimWrapperConfig& config,
                             OptimWrapperState* state) {
    const std::string where =
        name.empty() ? "optimizer" : absl::StrCat("optimizer \"", name, "\"");
    const std::optional<PthValue> there = OptimizerThere(name, index);
    if (!there.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": is not in the file"));
    }
    if (const std::string several = SeveralIn(*there);
        name.empty() && !several.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, ": the file has several, ", several, ", and the run has one"));
    }
    TensorMap slots;
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        ReadTorchOptimizer(*there, ParamsOf(*state, name), config,
                           HasPlateauOfTorch(name), state, &slots, &warnings_),
        where));
    for (const NamedTensor& slot : slots) {
      const size_t slash = slot.name.rfind('/');
      const at::Tensor* const param = Model().Find(slot.name.substr(0, slash));
      const bool is_step = slot.name.substr(slash + 1) == "step";
      if (!is_step && param != nullptr &&
          slot.tensor.sizes() != param->sizes()) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": \"", slot.name, "\" has the shape ",
                         ShapeString(slot.tensor.sizes()), ", its parameter ",
                         ShapeString(param->sizes()),
                         ": the file's parameters are in another order"));
      }
      if (is_step) {
        steps_ = std::max(steps_, NumberOf(slot.tensor));
      }
      GRAPNEL_RETURN_IF_ERROR(Section("optimizer")
                                  .Add(name.empty()
                                           ? slot.name
                                           : absl::StrCat(name, "/", slot.name),
                                       slot.tensor));
    }
    // Lightning and loops written by hand keep the scaler elsewhere.
    const std::optional<PthValue> scaler =
        FindAny(file_, {"scaler", "grad_scaler", "MixedPrecision", "amp",
                        "scaler_state_dict"});
    if (state->has_loss_scale() && scaler.has_value()) {
      if (const auto scale = NumberAt(*scaler, "scale"); scale.has_value()) {
        state->mutable_loss_scale()->set_scale(*scale);
        state->mutable_loss_scale()->set_good_steps(
            CountAt(*scaler, {"_growth_tracker"}).value_or(0));
      }
    }
    return absl::OkStatus();
  }

  // Of several optimizers each has those that are its own here.
  std::vector<TorchParam> ParamsOf(const OptimWrapperState& state,
                                   const std::string& name) const {
    if (name.empty()) return params_;
    absl::flat_hash_set<absl::string_view> own;
    for (const OptimizerState::Group& group : state.optimizer().groups()) {
      own.insert(group.params().begin(), group.params().end());
    }
    std::vector<TorchParam> params;
    for (const TorchParam& param : params_) {
      if (own.contains(param.name)) params.push_back(param);
    }
    return params;
  }

  static int64_t NumberOf(const at::Tensor& step) {
    return static_cast<int64_t>(*step.const_data_ptr<float>());
  }

  // ---- Counters ----

  int64_t AccumulativeCounts() const {
    const OptimWrapperConfig& config = config_.optim_wrapper();
    int64_t counts = config.has_accumulative_counts()
                         ? config.accumulative_counts()
                         : int64_t{1};
    for (const auto& named : config.optimizers()) {
      counts = std::max(counts, named.accumulative_counts());
    }
    return counts;
  }

  absl::Status ReadProgress() {
    const PthValue& counters = meta_.has_value() ? *meta_ : file_;
    std::optional<int64_t> epoch = options_.epoch;
    std::optional<int64_t> iter = options_.iter;
    // Of a run by epoch the one gives the other.
    const bool is_given =
        state_.data().by_epoch() && (epoch.has_value() || iter.has_value());
    if (!epoch.has_value() && !is_given) {
      epoch = CountAt(counters, {"epoch", "epochs", "current_epoch"});
    }
    if (!iter.has_value() && !is_given) {
      iter = CountAt(counters, {"iter", "iters", "iteration", "iterations",
                                "global_step", "step", "it"});
    }
    if (of_lightning_ && !options_.iter.has_value() && iter.has_value()) {
      // It counts steps of the optimizer.
      if (__builtin_mul_overflow(*iter, AccumulativeCounts(), &*iter)) {
        return absl::InvalidArgumentError("global_step: is too large");
      }
    }
    if (!iter.has_value() && !is_given && steps_ > 0 &&
        AccumulativeCounts() == 1) {
      iter = steps_;
    }
    const int64_t n = std::max<int64_t>(state_.data().num_batches(), 1);
    io::v1::Progress& progress = *contents_.manifest().mutable_progress();
    if (!epoch.has_value() && !iter.has_value()) {
      return absl::InvalidArgumentError(
          "epoch, iter: the file says neither: how far it is must be given");
    }
    if (!iter.has_value()) {
      if (*epoch > std::numeric_limits<int64_t>::max() / n) {
        return absl::InvalidArgumentError(
            absl::StrCat("epoch: is too large, ", *epoch));
      }
      iter = *epoch * n;
      if (!options_.epoch.has_value()) {
        warnings_.push_back(absl::StrCat("epoch: ", *epoch,
                                         " are taken to be done, which are ",
                                         *iter, " iterations"));
      }
    }
    int64_t iter_in_epoch = 0;
    if (state_.data().by_epoch()) {
      GRAPNEL_RETURN_IF_ERROR(PlaceInEpoch(n, *iter, &epoch, &iter_in_epoch));
      progress.set_epoch(*epoch);
      progress.set_iter_in_epoch(iter_in_epoch);
    }
    GRAPNEL_RETURN_IF_ERROR(CheckEnd(epoch.value_or(0), *iter, iter_in_epoch));
    progress.set_iter(*iter);
    progress.set_updates(steps_ > 0 ? steps_ : *iter / AccumulativeCounts());
    int64_t samples = 0;
    const int64_t batch = state_.data().batch_size();
    if (__builtin_mul_overflow(
            state_.data().by_epoch() ? *epoch : *iter,
            state_.data().by_epoch() ? state_.data().dataset_size() : batch,
            &samples) ||
        __builtin_add_overflow(samples, iter_in_epoch * batch, &samples)) {
      return absl::InvalidArgumentError(
          absl::StrCat("iter: is too large, ", *iter));
    }
    progress.set_samples(samples);
    SetCounts(*iter);
    return absl::OkStatus();
  }

  // Where `iter` iterations are in epochs of `n`. `*epoch` is what the file
  // says, if it does: how many are done, or which it was.
  absl::Status PlaceInEpoch(int64_t n, int64_t iter,
                            std::optional<int64_t>* epoch,
                            int64_t* iter_in_epoch) {
    if (options_.epoch.has_value() && options_.iter.has_value() &&
        **epoch != iter / n) {
      return absl::InvalidArgumentError(absl::StrCat(
          "epoch, iter: ", iter, " iterations are ", iter / n, " epochs of ", n,
          ", not ", **epoch, ": one of them gives the other"));
    }
    if (!epoch->has_value()) *epoch = iter / n;
    const int64_t behind = iter - std::min(**epoch, iter / n) * n;
    if (**epoch <= iter / n && behind <= n) {
      // All batches of an epoch are its end.
      if (behind == n) ++**epoch;
      *iter_in_epoch = behind % n;
      if (*iter_in_epoch > 0) {
        warnings_.push_back(absl::StrCat(
            "it is from inside epoch ", **epoch + 1, ", which goes on with ",
            "batch ", *iter_in_epoch + 1, " of ", n, " in this run's order"));
      }
      return absl::OkStatus();
    }
    if (**epoch == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "epoch: is 0 after ", iter, " iterations, and an epoch has ", n,
          ": how many are done must be given"));
    }
    if (iter < **epoch) {
      return absl::InvalidArgumentError(
          absl::StrCat("epoch: is ", **epoch, " after ", iter, " iterations"));
    }
    warnings_.push_back(absl::StrCat("epoch: ", **epoch, " of ", iter,
                                     " iterations in all are taken to be "
                                     "done; here an epoch has ",
                                     n));
    return absl::OkStatus();
  }

  // What is given must be of this run; a file may be of a longer one.
  absl::Status CheckEnd(int64_t epoch, int64_t iter, int64_t iter_in_epoch) {
    const auto& train = config_.train_cfg();
    const bool by_epoch = state_.data().by_epoch();
    const bool beyond =
        by_epoch ? epoch > train.max_epochs() ||
                       (epoch == train.max_epochs() && iter_in_epoch > 0)
                 : iter > train.max_iters();
    if (!beyond) return absl::OkStatus();
    const std::string message =
        by_epoch ? absl::StrCat("epoch: ", epoch, " with ", iter,
                                " iterations is beyond max_epochs, ",
                                train.max_epochs())
                 : absl::StrCat("iter: ", iter, " is beyond max_iters, ",
                                train.max_iters());
    if (options_.epoch.has_value() || options_.iter.has_value()) {
      return absl::InvalidArgumentError(message);
    }
    warnings_.push_back(message);
    return absl::OkStatus();
  }

  // The optimizers' counts of iterations, between two windows.
  void SetCounts(int64_t iter) {
    if (!state_.has_optim_wrapper()) return;
    OptimWrapperState& state = *state_.mutable_optim_wrapper();
    const auto set = [iter](OptimWrapperState* one) {
      one->set_inner_count(iter);
      one->set_window_begin(iter);
      one->set_window_size(std::max<int64_t>(one->window_size(), 1));
    };
    if (state.optimizers().empty()) set(&state);
    for (auto& member : *state.mutable_optimizers()) {
      set(member.mutable_state());
    }
  }

  // ---- Schedules ----

  std::optional<PthValue> AllSchedulersThere() const {
    return FindAny(file_, {"param_schedulers", "lr_schedulers", "scheduler",
                           "lr_scheduler", "scheduler_state_dict",
                           "lr_scheduler_state_dict", "sched", "schedulers"});
  }

  // Whose schedules the file has beside those of `optimizer`: "" where one list
  // is of all, as Lightning's.
  std::string OwnerThere(const std::string& optimizer) const {
    const std::optional<PthValue> found = AllSchedulersThere();
    return found.has_value() && found->kind() == Kind::kList ? "" : optimizer;
  }

  // The state_dicts of one optimizer's schedules.
  std::vector<PthValue> SchedulersThere(const std::string& optimizer) const {
    std::optional<PthValue> found = AllSchedulersThere();
    if (found.has_value() && found->kind() == Kind::kDict &&
        !optimizer.empty() && found->Find(optimizer).has_value()) {
      found = found->Find(optimizer);
    }
    if (!found.has_value()) return {};
    if (found->kind() == Kind::kDict) {
      // Else it has those of others, by their names.
      const bool is_one = found->Find("last_epoch").has_value() ||
                          found->Find("last_step").has_value();
      return is_one ? std::vector<PthValue>{*found} : std::vector<PthValue>();
    }
    std::vector<PthValue> all;
    if (found->kind() == Kind::kList) {
      for (int64_t i = 0; i < found->size(); ++i) all.push_back(found->item(i));
    }
    return all;
  }

  bool HasPlateauOfTorch(const std::string& optimizer) const {
    const std::vector<PthValue> all = SchedulersThere(optimizer);
    return std::any_of(all.begin(), all.end(), [](const PthValue& scheduler) {
      return scheduler.Find("patience").has_value() &&
             !scheduler.Find("param_name").has_value();
    });
  }

  absl::Status ReadSchedulers() {
    const auto start = state_.param_schedulers();
    state_.clear_param_schedulers();
    absl::flat_hash_map<std::string, size_t> next;
    std::vector<std::string> unknown;
    for (int i = 0; i < start.size(); ++i) {
      ParamSchedulerState scheduler = start[i];
      const std::string owner = OwnerThere(scheduler.optimizer());
      const std::vector<PthValue> there = SchedulersThere(owner);
      const size_t index = next[owner]++;
      bool known = index < there.size();
      if (known) {
        GRAPNEL_ASSIGN_OR_RETURN(known,
                                 ReadScheduler(there[index], &scheduler));
      }
      if (known) {
        *state_.add_param_schedulers() = std::move(scheduler);
      } else {
        unknown.push_back(absl::StrCat("param_scheduler[", i, "]"));
      }
    }
    WarnOfMoreSchedulers(next);
    if (!unknown.empty()) {
      warnings_.push_back(absl::StrCat(
          absl::StrJoin(unknown, ", "),
          ": the file has none of the kind: what the option was there doesn't "
          "count, it is replayed from its beginning when the run resumes"));
    }
    return absl::OkStatus();
  }

  // Of those in the file that the run doesn't have, each optimizer's by name.
  // `taken`: how many it has.
  void WarnOfMoreSchedulers(
      const absl::flat_hash_map<std::string, size_t>& taken) {
    std::vector<std::string> optimizers = {""};
    if (const auto& members = state_.optim_wrapper().optimizers();
        !members.empty() && !OwnerThere(members[0].name()).empty()) {
      optimizers.clear();
      for (const auto& member : members) optimizers.push_back(member.name());
    }
    for (const std::string& optimizer : optimizers) {
      const std::vector<PthValue> there = SchedulersThere(optimizer);
      for (const PthValue& scheduler : there) {
        const std::optional<PthValue> cycles = scheduler.Find("cycle_momentum");
        if (!cycles.has_value() || NumberIn(*cycles).value_or(0) == 0) continue;
        warnings_.push_back(
            "a OneCycleLR moved the momentum too (cycle_momentum), which no "
            "schedule does here");
      }
      const auto found = taken.find(optimizer);
      const size_t ours = found == taken.end() ? 0 : found->second;
      if (there.size() <= ours) continue;
      warnings_.push_back(absl::StrCat(
          optimizer.empty() ? ""
                            : absl::StrCat("optimizer \"", optimizer, "\": "),
          "the file has ", there.size(),
          there.size() == 1 ? " schedule" : " schedules", ", the run ", ours,
          ": what the others moved stays where it is"));
    }
  }

  // MMEngine's, of the run there.
  std::optional<PthValue> RuntimeInfo() const {
    const std::optional<PthValue> hub = file_.Find("message_hub");
    if (!hub.has_value()) return std::nullopt;
    return hub->Find("runtime_info");
  }

  // Epochs or iterations.
  std::optional<double> RunEnd(bool by_epoch) const {
    const std::optional<PthValue> facts = RuntimeInfo();
    if (!facts.has_value()) return std::nullopt;
    return NumberAt(*facts, by_epoch ? "max_epochs" : "max_iters");
  }

  // False if the file's is of another kind, or its step can't be told.
  absl::StatusOr<bool> ReadScheduler(const PthValue& dict,
                                     ParamSchedulerState* scheduler) const {
    if (!IsOfKind(dict, scheduler->type())) return false;
    const std::optional<PthValue> option = dict.Find("param_name");
    const bool of_torch = !option.has_value();
    if (of_torch) {
      // Of the rate alone; its steps are told by nothing but their number.
      const std::optional<int64_t> step = CountAt(dict, {"last_epoch"});
      const io::v1::Progress& progress = contents_.manifest().progress();
      const int64_t done =
          scheduler->by_epoch() ? progress.epoch() : progress.iter();
      // Those of a plateau are validations.
      const bool fits =
          scheduler->has_reduce_on_plateau()
              ? step <= std::max(progress.epoch(), progress.iter())
              : step == done;
      if (scheduler->param_name() != "lr" || !step.has_value() || !fits) {
        return false;
      }
      scheduler->set_global_step(done);
    } else {
      const absl::string_view name = option->string_value();
      const bool alias =
          name == "momentum" && scheduler->param_name() == "beta1";
      const std::optional<int64_t> step = CountAt(dict, {"_global_step"});
      if ((name != scheduler->param_name() && !alias) || !step.has_value()) {
        return false;
      }
      scheduler->set_global_step(*step);
    }
    GRAPNEL_RETURN_IF_ERROR(
        TakeSettings(dict, of_torch, RunEnd(scheduler->by_epoch()), scheduler));
    if (!of_torch) {
      const std::optional<double> last = NumberAt(dict, "last_step");
      scheduler->set_last_step(ToInt(last.value_or(-1)));
    } else if (scheduler->has_reduce_on_plateau()) {
      scheduler->set_last_step(*CountAt(dict, {"last_epoch"}) - 1);
    } else {
      int64_t begin = 0;
      int64_t end = 0;
      WindowOf(*scheduler, &begin, &end);
      const int64_t last = std::min(scheduler->global_step(), end - 1);
      scheduler->set_last_step(last < begin ? -1 : last - begin);
    }
    TakePlateau(dict, scheduler);
    TakeBaseValues(scheduler);
    return true;
  }

  // Those of the optimizer, where groups are as they are here.
  void TakeBaseValues(ParamSchedulerState* scheduler) const {
    const OptimWrapperState* state = &state_.optim_wrapper();
    for (const auto& member : state->optimizers()) {
      if (member.name() == scheduler->optimizer()) state = &member.state();
    }
    std::vector<double> values;
    const auto add = [&](const auto& configured) {
      auto found = configured.find(scheduler->param_name());
      if (found == configured.end() && scheduler->param_name() == "momentum") {
        found = configured.find("beta1");
      }
      if (found != configured.end()) values.push_back(found->second);
    };
    for (const OptimizerState::Group& group : state->optimizer().groups()) {
      add(group.configured());
    }
    if (!state->base_options().empty()) add(state->base_configured());
    if (static_cast<int>(values.size()) != scheduler->base_values_size()) {
      return;
    }
    scheduler->mutable_base_values()->Assign(values.begin(), values.end());
  }

  // ---- The rest ----

  void ReadHub() {
    const std::optional<PthValue> hub = file_.Find("message_hub");
    if (!hub.has_value()) return;
    MessageHubState& state = *state_.mutable_message_hub();
    if (const auto scalars = hub->Find("log_scalars");
        scalars.has_value() && scalars->kind() == Kind::kDict) {
      for (int64_t i = 0; i < scalars->size(); ++i) {
        if (scalars->key(i).kind() != Kind::kString) continue;
        ReadHistory(scalars->key(i).string_value(), scalars->value(i), &state);
      }
    }
    const std::optional<PthValue> facts = RuntimeInfo();
    if (!facts.has_value() || facts->kind() != Kind::kDict) return;
    for (int64_t i = 0; i < facts->size(); ++i) {
      if (facts->key(i).kind() != Kind::kString) continue;
      const std::string name(facts->key(i).string_value());
      const PthValue value = facts->value(i);
      // Texts are of the run there: paths, its configuration.
      if (name.empty() || name == "seed" || name == "eta") continue;
      MessageHubState::Info info;
      if (value.kind() == Kind::kBool) {
        info.set_bool_value(value.bool_value());
      } else if (value.kind() == Kind::kInt) {
        info.set_int_value(value.int_value());
      } else if (value.kind() == Kind::kFloat) {
        info.set_double_value(value.float_value());
      } else {
        continue;
      }
      (*state.mutable_infos())[name] = std::move(info);
    }
  }

  static void ReadHistory(absl::string_view name, const PthValue& value,
                          MessageHubState* state) {
    const std::optional<PthValue> attributes = AttributesOf(value);
    if (!attributes.has_value() || name.empty()) return;
    const auto log = attributes->Find("_log_history");
    const auto count = attributes->Find("_count_history");
    if (!log.has_value() || !count.has_value()) return;
    const auto values = NumbersIn(*log);
    const auto counts = NumbersIn(*count);
    if (!values.has_value() || !counts.has_value() || values->empty() ||
        values->size() != counts->size()) {
      return;
    }
    MessageHubState::History& history = *state->add_scalars();
    history.set_name(std::string(name));
    history.set_capacity(kKeptEntries);
    history.set_num_entries(static_cast<int64_t>(values->size()));
    MessageHubState::Totals& total = *history.mutable_total();
    total.set_min(std::numeric_limits<double>::quiet_NaN());
    total.set_max(std::numeric_limits<double>::quiet_NaN());
    for (size_t i = 0; i < values->size(); ++i) {
      const double number = (*values)[i];
      const int64_t weight = std::max<int64_t>(ToInt((*counts)[i]), 1);
      if (values->size() - i <= static_cast<size_t>(kKeptEntries)) {
        history.add_values(number);
        history.add_counts(weight);
      }
      if (!std::isfinite(number)) continue;
      total.set_sum(total.sum() + number);
      total.set_sum_counts(total.sum_counts() + weight);
      total.set_min(number > total.min() ? total.min() : number);
      total.set_max(number < total.max() ? total.max() : number);
    }
  }

  absl::Status ReadSeed() {
    const std::optional<int64_t> seed = meta_.has_value()
                                            ? CountAt(*meta_, {"seed"})
                                            : CountAt(file_, {"seed"});
    if (seed.has_value()) {
      state_.set_seed(*seed);
      GRAPNEL_ASSIGN_OR_RETURN(const RunGenerators generators,
                               RunGenerators::Create(c10::kCPU, *seed));
      GRAPNEL_RETURN_IF_ERROR(generators.Save(state_.mutable_rng()));
    }
    warnings_.push_back(absl::StrCat(
        "where generators stood isn't known: what is drawn from here on, and ",
        "the data's order, are of seed ", state_.seed(),
        seed.has_value() ? ", the file's" : ", this run's",
        "; best checkpoints and what hooks remember begin anew"));
    return absl::OkStatus();
  }

  const PthValue& file_;
  const RunStart& start_;
  const TrainingImportOptions& options_;
  std::vector<std::string>& warnings_;
  io::CheckpointContents contents_;
  RunState state_;
  RunnerConfig config_;
  std::optional<PthValue> meta_;
  bool of_mmengine_ = false;
  bool of_lightning_ = false;

  // Of the model's tensors, ours by the file's.
  absl::flat_hash_map<std::string, std::string> names_;
  std::vector<TorchParam> params_;  // Of the file's model, in its order.
  int64_t steps_ = 0;               // Of the optimizer, if it counts them.
};

}  // namespace

absl::StatusOr<io::CheckpointContents> ImportTraining(
    const PthValue& file, const RunStart& start,
    const TrainingImportOptions& options, std::vector<std::string>* warnings) {
  return TrainingImport(file, start, options, warnings).Import();
}

}  // namespace grapnel
