#include "grapnel/optim/schedulers/scheduler_replay.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
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

// All that concerns one option of one optimizer.
struct Option {
  std::string optimizer;
  std::string name;
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
        option.name == state.param_name()) {
      return option;
    }
  }
  options->push_back({state.optimizer(), state.param_name(), {}, {}});
  return options->back();
}

absl::StatusOr<std::vector<Option>> GroupByOption(
    absl::Span<const std::unique_ptr<ParamScheduler>> schedulers,
    const RepeatedPtrField<ParamSchedulerState>& states) {
  std::vector<Option> options;
  absl::flat_hash_map<std::string, int> next_scheduler, next_state;
  for (const auto& scheduler : schedulers) {
    ParamSchedulerState state;
    GRAPNEL_RETURN_IF_ERROR(scheduler->SaveState(&state));
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
  // Without one, protobuf writes to stderr.
  class : public google::protobuf::io::ErrorCollector {
    void AddError(int /*line*/, int /*column*/,
                  const std::string& /*message*/) override {}
  } silent;
  const Descriptor* type =
      DescriptorPool::generated_pool()->FindMessageTypeByName(state.type());
  if (type == nullptr) return nullptr;
  std::unique_ptr<Message> settings(
      MessageFactory::generated_factory()->GetPrototype(type)->New());
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&silent);
  if (!parser.ParseFromString(state.settings(), settings.get())) return nullptr;
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

absl::Status Load(const Option& option, const Current& current,
                  const ParamSchedulerState& state) {
  return WithContext(current.scheduler->LoadState(state),
                     FieldName(option, current.index));
}

// Gives schedulers with a monitor the states that there are of their type.
absl::Status LoadWhatMetricsTaught(const Option& option) {
  std::vector<bool> used(option.states.size());
  for (const Current& current : option.schedulers) {
    if (current.scheduler->monitor() == nullptr) continue;
    for (size_t i = 0; i < option.states.size(); ++i) {
      const ParamSchedulerState& state = *option.states[i].state;
      if (used[i] || state.type() != current.state.type()) continue;
      used[i] = true;
      GRAPNEL_RETURN_IF_ERROR(Load(option, current, state));
      break;
    }
  }
  return absl::OkStatus();
}

absl::Status Replay(const Option& option, const ResumePoint& point) {
  GRAPNEL_RETURN_IF_ERROR(LoadWhatMetricsTaught(option));
  // Without a state the config is all that tells the values before any
  // schedule: the optimizer's may have been moved.
  const ParamSchedulerState& first = option.states.empty()
                                         ? option.schedulers[0].state
                                         : *option.states[0].state;
  std::vector<ParamScheduler*> by_iter, by_epoch, by_metric;
  for (const Current& current : option.schedulers) {
    ParamScheduler* scheduler = current.scheduler;
    GRAPNEL_RETURN_IF_ERROR(WithContext(scheduler->Rewind(first.base_values()),
                                        FieldName(option, current.index)));
    (scheduler->by_epoch() ? by_epoch : by_iter).push_back(scheduler);
    if (scheduler->monitor() != nullptr) by_metric.push_back(scheduler);
  }
  for (const Current& current : option.schedulers) current.scheduler->Apply();
  for (ParamScheduler* scheduler : by_metric) scheduler->RedoMetricSteps();

  int64_t epochs = 0;
  const auto end_epoch = [&] {
    for (ParamScheduler* scheduler : by_epoch) scheduler->Step();
    for (ParamScheduler* scheduler : by_metric) scheduler->RedoMetricSteps();
    ++epochs;
  };
  int64_t left_of_epoch = point.epoch_length;
  for (int64_t i = 0; i < point.iters; ++i) {
    for (ParamScheduler* scheduler : by_iter) scheduler->Step();
    if (--left_of_epoch == 0) {
      if (epochs < point.epochs) end_epoch();
      left_of_epoch = point.epoch_length;
    }
  }
  while (epochs < point.epochs) end_epoch();
  return absl::OkStatus();
}

// Where the states are. That can be elsewhere than the loop was: in one that
// counts iterations, steps of epochs are taken at its very end.
ResumePoint PointOf(const RepeatedPtrField<ParamSchedulerState>& states,
                    ResumePoint point) {
  int64_t epochs = -1;
  int64_t iters = -1;
  for (const ParamSchedulerState& state : states) {
    int64_t& steps = state.by_epoch() ? epochs : iters;
    steps = std::max(steps, state.global_step());
  }
  if (epochs >= 0) point.epochs = epochs;
  if (iters >= 0) point.iters = iters;
  return point;
}

}  // namespace

absl::Status RestoreSchedulers(
    absl::Span<const std::unique_ptr<ParamScheduler>> schedulers,
    const RepeatedPtrField<ParamSchedulerState>& states,
    const ResumePoint& point, std::vector<std::string>* warnings) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<Option> options,
                           GroupByOption(schedulers, states));
  const ResumePoint where = PointOf(states, point);
  std::vector<std::string> replayed, changes;
  for (const Option& option : options) {
    if (option.schedulers.empty()) {
      warnings->push_back(absl::StrCat(
          "param_scheduler: none is left of the ", option.states.size(),
          " that moved ", FullName(option), ", which stays as it is"));
      continue;
    }
    const size_t num_changes = changes.size();
    CompareSchedulers(option, &changes);
    const bool changed = changes.size() > num_changes;
    if (changed) replayed.push_back(FullName(option));
    if (changed || !point.options_restored) {
      GRAPNEL_RETURN_IF_ERROR(Replay(option, where));
      continue;
    }
    for (size_t i = 0; i < option.schedulers.size(); ++i) {
      const Current& current = option.schedulers[i];
      GRAPNEL_RETURN_IF_ERROR(Load(option, current, *option.states[i].state));
      current.scheduler->Apply();  // For a state from before Apply.
    }
  }
  if (!changes.empty()) {
    warnings->push_back(absl::StrCat(
        absl::StrJoin(changes, "; "), ": replayed ",
        absl::StrJoin(replayed, ", "), " with the new settings, to epoch ",
        where.epochs, ", iteration ", where.iters));
  }
  return absl::OkStatus();
}

}  // namespace grapnel
