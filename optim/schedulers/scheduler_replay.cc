#include "grapnel/optim/schedulers/scheduler_replay.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/any_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/optim/param_scheduler.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;
using ::google::protobuf::RepeatedPtrField;
using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::ParamSchedulerConfig;
using ::grapnel::optim::v1::ParamSchedulerState;

// A scheduler, and what it would save: its settings and base values.
struct Current {
  int index;  // Among those of its optimizer, as in the config.
  ParamScheduler* scheduler;
  ParamSchedulerState state;
};

struct Saved {
  int index;
  const ParamSchedulerState* state;
};

// All that concerns one option of one optimizer. Two names may be of one:
// "momentum" is "beta1" where there are betas.
struct Option {
  std::string optimizer;
  std::string name;
  std::vector<std::string> aliases;  // The name among them.
  std::vector<Current> schedulers;
  std::vector<Saved> states;
};

std::string FullName(const Option& option) {
  return option.optimizer.empty()
             ? option.name
             : absl::StrCat(option.optimizer, ".", option.name);
}

std::string FieldName(const Option& option, int index) {
  return absl::StrCat(option.optimizer, option.optimizer.empty() ? "" : ": ",
                      "param_scheduler[", index, "]");
}

Option& FindOption(const ParamSchedulerState& state,
                   std::vector<Option>* options) {
  for (Option& option : *options) {
    if (option.optimizer == state.optimizer() &&
        std::find(option.aliases.begin(), option.aliases.end(),
                  state.param_name()) != option.aliases.end()) {
      return option;
    }
  }
  options->push_back(
      {state.optimizer(), state.param_name(), {state.param_name()}, {}, {}});
  return options->back();
}

// Adds another name of an option that is there, if this scheduler's is one.
void FindAlias(const ParamScheduler& scheduler, const std::string& name,
               std::vector<Option>* options) {
  const auto values = scheduler.values();
  if (values.empty()) return;
  for (Option& option : *options) {
    const auto others = option.schedulers[0].scheduler->values();
    if (!others.empty() && others[0] == values[0] &&
        std::find(option.aliases.begin(), option.aliases.end(), name) ==
            option.aliases.end()) {
      option.aliases.push_back(name);
    }
  }
}

absl::StatusOr<std::vector<Option>> GroupByOption(
    absl::Span<const std::unique_ptr<ParamScheduler>> schedulers,
    const RepeatedPtrField<ParamSchedulerState>& states) {
  std::vector<Option> options;
  absl::flat_hash_map<std::string, int> next_scheduler, next_state;
  for (const auto& scheduler : schedulers) {
    ParamSchedulerState state;
    GRAPNEL_RETURN_IF_ERROR(scheduler->SaveState(&state));
    FindAlias(*scheduler, state.param_name(), &options);
    FindOption(state, &options)
        .schedulers.push_back({next_scheduler[state.optimizer()]++,
                               scheduler.get(), std::move(state)});
  }
  for (const ParamSchedulerState& state : states) {
    FindOption(state, &options)
        .states.push_back({next_state[state.optimizer()]++, &state});
  }
  return options;
}

// ---- What differs ----

// As configs call it: "multi_step", or the type of one that isn't ours.
std::string KindName(const std::string& type) {
  const Descriptor& config = *ParamSchedulerConfig::descriptor();
  for (int i = 0; i < config.field_count(); ++i) {
    if (config.field(i)->message_type()->full_name() == type) {
      return config.field(i)->name();
    }
  }
  return type;
}

// The settings in `state`; null if their type isn't linked in or they are of
// another version.
std::unique_ptr<Message> ParseSettings(const ParamSchedulerState& state) {
  const Descriptor* const type = FindMessageType(state.type());
  if (type == nullptr) return nullptr;
  std::unique_ptr<Message> settings(
      MessageFactory::generated_factory()->GetPrototype(type)->New());
  if (!ParseTextProto(state.settings(), settings.get()).ok()) return nullptr;
  return settings;
}

// "0.5", "[30, 60]", "unset". Numbers have all the digits that tell them apart.
std::string PrintField(const Message& message, const FieldDescriptor* field) {
  TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  if (!field->is_repeated()) {
    if (!message.GetReflection()->HasField(message, field)) return "unset";
    printer.PrintFieldValueToString(message, field, -1, &text);
    return text;
  }
  std::vector<std::string> values;
  for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) {
    printer.PrintFieldValueToString(message, field, i, &text);
    values.push_back(text);
  }
  return absl::StrCat("[", absl::StrJoin(values, ", "), "]");
}

// Appends "<name>: <field>: <old> -> <new>" for every field.
void CompareSettings(const std::string& name, const ParamSchedulerState& before,
                     const ParamSchedulerState& now,
                     std::vector<std::string>* changes) {
  if (before.settings() == now.settings()) return;
  const std::unique_ptr<Message> old_settings = ParseSettings(before);
  const std::unique_ptr<Message> new_settings = ParseSettings(now);
  if (old_settings == nullptr || new_settings == nullptr) {
    changes->push_back(absl::StrCat(name, ": settings: \"", before.settings(),
                                    "\" -> \"", now.settings(), "\""));
    return;
  }
  const Descriptor& type = *old_settings->GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const std::string old_text = PrintField(*old_settings, type.field(i));
    const std::string new_text = PrintField(*new_settings, type.field(i));
    if (old_text == new_text) continue;
    changes->push_back(absl::StrCat(name, ": ", type.field(i)->name(), ": ",
                                    old_text, " -> ", new_text));
  }
}

void CompareSchedulers(const Option& option,
                       std::vector<std::string>* changes) {
  for (size_t i = 0; i < option.schedulers.size(); ++i) {
    const ParamSchedulerState& now = option.schedulers[i].state;
    const std::string name = FieldName(option, option.schedulers[i].index);
    const std::string kind = KindName(now.type());
    if (i >= option.states.size()) {
      changes->push_back(absl::StrCat(name, ": none -> ", kind));
      continue;
    }
    const ParamSchedulerState& before = *option.states[i].state;
    if (before.type() != now.type()) {
      changes->push_back(
          absl::StrCat(name, ": ", KindName(before.type()), " -> ", kind));
      continue;
    }
    CompareSettings(absl::StrCat(name, ": ", kind), before, now, changes);
  }
  for (size_t i = option.schedulers.size(); i < option.states.size(); ++i) {
    const Saved& saved = option.states[i];
    changes->push_back(absl::StrCat(
        FieldName(option, saved.index),
        " of before: ", KindName(saved.state->type()), " -> none"));
  }
}

// ---- The replay ----

// The base values are those that it was made with, if groups are others now:
// which group was which is nothing that a state knows.
absl::Status Load(const Option& option, const Current& current,
                  const ParamSchedulerState& state,
                  const RestoredOptions& options) {
  ParamSchedulerState own = state;
  if (!options.same_groups) {
    *own.mutable_base_values() = current.state.base_values();
  }
  return WithContext(current.scheduler->LoadState(own),
                     FieldName(option, current.index));
}

// Gives schedulers with a monitor the states that there are of their type.
absl::Status LoadWhatMetricsTaught(const Option& option,
                                   const RestoredOptions& options) {
  std::vector<bool> used(option.states.size());
  for (const Current& current : option.schedulers) {
    if (current.scheduler->monitor() == nullptr) continue;
    for (size_t i = 0; i < option.states.size(); ++i) {
      const ParamSchedulerState& state = *option.states[i].state;
      if (used[i] || state.type() != current.state.type()) continue;
      used[i] = true;
      GRAPNEL_RETURN_IF_ERROR(Load(option, current, state, options));
      break;
    }
  }
  return absl::OkStatus();
}

// Steps the schedulers of one option as the loop did.
class Replayer {
 public:
  explicit Replayer(const Option& option) {
    for (const Current& current : option.schedulers) {
      ParamScheduler* const scheduler = current.scheduler;
      (scheduler->by_epoch() ? by_epoch_ : by_iter_).push_back(scheduler);
      if (scheduler->monitor() != nullptr) by_metric_.push_back(scheduler);
    }
  }

  void Begin() { RedoMetricSteps(); }

  // To where so many iterations, and steps of converted schedules, are done.
  // Where an epoch had another length, one of the two runs out first.
  void Advance(int64_t iters, int64_t converted) {
    while (iters_ < iters || converted_ < converted) {
      for (ParamScheduler* scheduler : by_iter_) {
        if (scheduler->converted() ? converted_ < converted : iters_ < iters) {
          scheduler->Step();
        }
      }
      if (iters_ < iters) ++iters_;
      if (converted_ < converted) ++converted_;
      RedoMetricSteps();
    }
  }

  void EndEpoch() {
    for (ParamScheduler* scheduler : by_epoch_) scheduler->Step();
    RedoMetricSteps();
    ++epochs_;
  }

  int64_t epochs() const { return epochs_; }

 private:
  void RedoMetricSteps() {
    for (ParamScheduler* scheduler : by_metric_) {
      scheduler->RedoMetricSteps(iters_);
    }
  }

  std::vector<ParamScheduler*> by_iter_, by_epoch_, by_metric_;
  int64_t iters_ = 0;
  int64_t converted_ = 0;
  int64_t epochs_ = 0;
};

void StepTo(const ResumePoint& point, int64_t converted, Replayer* replayer) {
  std::vector<ResumePoint::EpochLength> lengths = point.lengths;
  if (lengths.empty()) lengths.push_back({0, 0, point.epoch_length});
  // Converted schedules have epochs of the present length only.
  const int64_t now = lengths.back().num_batches;
  lengths.push_back({StepRange::kOpen, StepRange::kOpen, 0});
  for (size_t i = 0; i + 1 < lengths.size(); ++i) {
    const ResumePoint::EpochLength& length = lengths[i];
    const ResumePoint::EpochLength& next = lengths[i + 1];
    if (length.num_batches < 1) continue;
    int64_t end = length.iter;
    for (int64_t epoch = length.epoch; epoch < next.epoch; ++epoch) {
      end = epoch + 1 == next.epoch ? next.iter : end + length.num_batches;
      if (end > point.iters) break;
      replayer->Advance(end, std::min((epoch + 1) * now, converted));
      if (point.epoch_length > 0 && replayer->epochs() < point.epochs) {
        replayer->EndEpoch();
      }
    }
  }
  replayer->Advance(point.iters, converted);
  while (replayer->epochs() < point.epochs) replayer->EndEpoch();
}

// The step of converted schedulers: where the states are, unless that is where
// they should be by the old length of epochs; then by the new one.
int64_t ConvertedSteps(const Option& option, const ResumePoint& point) {
  for (const Saved& saved : option.states) {
    const ParamSchedulerState& state = *saved.state;
    if (!state.converted()) continue;
    return point.converted >= 0 && state.global_step() == point.saved_converted
               ? point.converted
               : state.global_step();
  }
  return std::max<int64_t>(point.converted >= 0 ? point.converted : point.iters,
                           0);
}

absl::Status Replay(const Option& option, const ResumePoint& point,
                    const RestoredOptions& options) {
  GRAPNEL_RETURN_IF_ERROR(LoadWhatMetricsTaught(option, options));
  // Else the states alone know the values before any schedule: those that the
  // schedulers were made with may have been moved. Without states the config is
  // all that tells them.
  const ParamSchedulerState* base = &option.schedulers[0].state;
  if (!options.configured_known && options.same_groups &&
      !option.states.empty()) {
    base = option.states[0].state;
  }
  for (const Current& current : option.schedulers) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(current.scheduler->Rewind(base->base_values()),
                    FieldName(option, current.index)));
  }
  for (const Current& current : option.schedulers) current.scheduler->Apply();
  Replayer replayer(option);
  replayer.Begin();
  StepTo(point, ConvertedSteps(option, point), &replayer);
  return absl::OkStatus();
}

// The option where it isn't reset, and its values.
std::vector<std::pair<double*, double>> ValuesKept(
    const Option& option, const RestoredOptions& options) {
  std::vector<std::pair<double*, double>> kept;
  for (double* const value : option.schedulers[0].scheduler->values()) {
    if (std::find(options.reset.begin(), options.reset.end(), value) ==
        options.reset.end()) {
      kept.emplace_back(value, *value);
    }
  }
  return kept;
}

// Replays an option of the same schedules for the groups where it is reset.
// OK with `*replayed` false if there are none.
absl::Status ReplayReset(const Option& option, const ResumePoint& point,
                         const RestoredOptions& options, bool* replayed) {
  const std::vector<std::pair<double*, double>> kept =
      ValuesKept(option, options);
  const size_t num_values = option.schedulers[0].scheduler->values().size();
  // One that doesn't tell where its option is may be concerned.
  *replayed =
      num_values == 0 ? !options.reset.empty() : kept.size() < num_values;
  if (!*replayed) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(Replay(option, point, options));
  for (const auto& [value, number] : kept) *value = number;
  return absl::OkStatus();
}

// Where the states are. That can be elsewhere than the loop was: in one that
// counts iterations, steps of epochs are taken at its very end.
ResumePoint PointOf(const RepeatedPtrField<ParamSchedulerState>& states,
                    ResumePoint point) {
  int64_t epochs = -1;
  int64_t iters = -1;
  for (const ParamSchedulerState& state : states) {
    if (state.converted()) continue;
    int64_t& steps = state.by_epoch() ? epochs : iters;
    steps = std::max(steps, state.global_step());
  }
  if (epochs >= 0) point.epochs = epochs;
  if (iters >= 0) point.iters = iters;
  return point;
}

// Converted schedules whose epochs have another length now.
bool ClockMoved(const Option& option, const ResumePoint& point) {
  const int64_t converted = ConvertedSteps(option, point);
  for (size_t i = 0; i < option.schedulers.size(); ++i) {
    if (option.schedulers[i].scheduler->converted() &&
        option.states[i].state->global_step() != converted) {
      return true;
    }
  }
  return false;
}

// Appends those that the change of the run's length cuts short.
void FindCutShort(const Option& option, const ResumePoint& point,
                  std::vector<std::string>* cut_short) {
  for (const Current& current : option.schedulers) {
    const ParamScheduler& scheduler = *current.scheduler;
    const auto [begin, end] = scheduler.range();
    // Of a converted window both are counted in epochs of now.
    RunLength then = point.saved_length;
    then.epoch_length = point.length.epoch_length;
    const int64_t now = EndOfRun(point.length, scheduler);
    const int64_t before = EndOfRun(then, scheduler);
    if (now < 0 || before < 0 || end <= now || end > before) continue;
    if (begin >= now) continue;  // It was said that it does nothing.
    cut_short->push_back(absl::StrCat(FieldName(option, current.index),
                                      ": its end, ", end, ", lies beyond ",
                                      now));
  }
}

}  // namespace

absl::Status RestoreSchedulers(
    absl::Span<const std::unique_ptr<ParamScheduler>> schedulers,
    const RepeatedPtrField<ParamSchedulerState>& states,
    const ResumePoint& point, const RestoredOptions& options,
    std::vector<std::string>* warnings) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<Option> by_option,
                           GroupByOption(schedulers, states));
  const ResumePoint where = PointOf(states, point);
  std::vector<std::string> replayed, changes, cut_short;
  for (const Option& option : by_option) {
    if (option.schedulers.empty()) {
      warnings->push_back(absl::StrCat(
          "param_scheduler: none is left of the ", option.states.size(),
          " that moved ", FullName(option),
          ", which stays as it is unless another value is configured"));
      continue;
    }
    FindCutShort(option, where, &cut_short);
    const size_t num_changes = changes.size();
    CompareSchedulers(option, &changes);
    bool changed = changes.size() > num_changes;
    if (!changed && ClockMoved(option, where)) {
      changes.push_back(absl::StrCat(FullName(option), ": an epoch has ",
                                     where.length.epoch_length,
                                     " iterations now"));
      changed = true;
    }
    if (changed) replayed.push_back(FullName(option));
    if (changed || !point.options_restored) {
      // Without states nobody knows what metrics did, but the optimizer.
      const bool by_metric =
          std::any_of(option.schedulers.begin(), option.schedulers.end(),
                      [](const Current& current) {
                        return current.scheduler->monitor() != nullptr;
                      });
      const bool keep = by_metric && option.states.empty() &&
                        point.options_restored && options.configured_known;
      const auto kept = keep ? ValuesKept(option, options)
                             : std::vector<std::pair<double*, double>>();
      GRAPNEL_RETURN_IF_ERROR(Replay(option, where, options));
      for (const auto& [value, number] : kept) *value = number;
      continue;
    }
    bool reset = false;
    GRAPNEL_RETURN_IF_ERROR(ReplayReset(option, where, options, &reset));
    if (reset) continue;
    for (size_t i = 0; i < option.schedulers.size(); ++i) {
      const Current& current = option.schedulers[i];
      GRAPNEL_RETURN_IF_ERROR(
          Load(option, current, *option.states[i].state, options));
      current.scheduler->Apply();  // For a state from before Apply.
    }
  }
  if (!changes.empty()) {
    warnings->push_back(absl::StrCat(
        absl::StrJoin(changes, "; "), ": replayed ",
        absl::StrJoin(replayed, ", "), " with the new settings, to epoch ",
        where.epochs, ", iteration ", where.iters));
  }
  if (!cut_short.empty()) {
    warnings->push_back(
        absl::StrCat(absl::StrJoin(cut_short, "; "), ", the end of the run"));
  }
  return absl::OkStatus();
}

}  // namespace grapnel
