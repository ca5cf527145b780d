#include "grapnel/optim/schedulers/windowed_scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/check_field.h"
#include "grapnel/optim/param_scheduler.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::RepeatedField;
using ::grapnel::optim::v1::ParamSchedulerState;

absl::Status MultiplyField(absl::string_view field, int64_t factor,
                           int64_t* value) {
  if (__builtin_mul_overflow(*value, factor, value)) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": is too large to be given in iterations, an epoch has ",
        factor));
  }
  return absl::OkStatus();
}

absl::Status CheckBaseValues(absl::Span<const double> values,
                             size_t num_groups) {
  if (values.size() != num_groups) {
    return absl::InvalidArgumentError(
        absl::StrCat("base_values: the state has ", values.size(),
                     ", the optimizer has ", num_groups, " groups"));
  }
  for (const double value : values) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(value), "base_values", "finite", value));
  }
  return absl::OkStatus();
}

// They never decrease, and none is in the future.
absl::Status CheckMovedAt(const RepeatedField<int64_t>& steps,
                          int64_t global_step) {
  int64_t last = 0;
  for (const int64_t step : steps) {
    if (step < last || step > global_step) {
      return absl::InvalidArgumentError(
          absl::StrCat("moved_at: must be in order and in [0, global_step], "
                       "has ",
                       step, " after ", last));
    }
    last = step;
  }
  return absl::OkStatus();
}

std::string Print(const google::protobuf::Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(message, &text);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace

absl::StatusOr<SchedulerWindow> SchedulerWindow::Create(
    Fields fields, const RunLength& length) {
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(fields.begin >= 0, "begin", ">= 0", fields.begin));
  if (fields.param_name.empty()) {
    return absl::InvalidArgumentError("param_name: must not be empty");
  }
  SchedulerWindow window;
  window.begin_ = fields.begin;
  window.by_epoch_ = fields.by_epoch;
  window.param_name_ = std::move(fields.param_name);
  if (fields.convert_to_iter_based) {
    if (!fields.by_epoch) {
      return absl::InvalidArgumentError(
          "convert_to_iter_based: needs by_epoch, which is false");
    }
    if (length.epoch_length < 1) {
      return absl::InvalidArgumentError(
          "convert_to_iter_based: needs a run whose epochs have a known "
          "length");
    }
    window.scale_ = length.epoch_length;
    window.by_epoch_ = false;
    window.converted_ = true;
    GRAPNEL_RETURN_IF_ERROR(
        MultiplyField("begin", window.scale_, &window.begin_));
  }
  if (fields.end.has_value()) {
    if (*fields.end <= fields.begin) {
      return absl::InvalidArgumentError(
          absl::StrCat("end: must be > begin, which is ", fields.begin, ", is ",
                       *fields.end));
    }
    window.end_ = *fields.end;
    GRAPNEL_RETURN_IF_ERROR(MultiplyField("end", window.scale_, &window.end_));
    return window;
  }

  window.end_ = kOpen;
  if (fields.by_epoch && length.max_epochs >= 0) {
    window.end_ = length.max_epochs;
    GRAPNEL_RETURN_IF_ERROR(MultiplyField("end", window.scale_, &window.end_));
  } else if (!window.by_epoch_ && length.max_iters >= 0) {
    window.end_ = length.max_iters;
  }
  if (window.end_ <= window.begin_) {
    window.end_ = window.begin_ + 1;
    window.reached_ = false;
  }
  return window;
}

absl::StatusOr<int64_t> SchedulerWindow::LastStep() const {
  if (end_ == kOpen) {
    return absl::InvalidArgumentError(
        "end: must be set, since the run's length isn't known");
  }
  return end_ - begin_ - 1;
}

absl::StatusOr<int64_t> SchedulerWindow::Convert(absl::string_view field,
                                                 int64_t steps,
                                                 int64_t least) const {
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(steps >= least, field, absl::StrCat(">= ", least), steps));
  GRAPNEL_RETURN_IF_ERROR(MultiplyField(field, scale_, &steps));
  return steps;
}

WindowedScheduler::WindowedScheduler(SchedulerWindow window,
                                     const google::protobuf::Message& settings)
    : window_(std::move(window)),
      type_(settings.GetDescriptor()->full_name()),
      settings_(Print(settings)) {}

absl::Status WindowedScheduler::Bind(ParamGroups& groups) {
  for (int i = 0; i < groups.num_groups(); ++i) {
    double* value = groups.option(i, window_.param_name());
    if (value == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("param_name: the optimizer has no option \"",
                       window_.param_name(), "\""));
    }
    values_.push_back(value);
    base_values_.push_back(*value);
  }
  return absl::OkStatus();
}

void WindowedScheduler::Apply() {
  if (global_step_ < 0) Advance();
}

void WindowedScheduler::Step() { Advance(); }

void WindowedScheduler::StepMetric(double value, int64_t iter) {
  if (monitor() == nullptr || !window_.Contains(global_step_)) return;
  ++last_step_;
  if (Observe(value) && Move()) {
    moved_at_.push_back(global_step_);
    moved_at_iter_.push_back(iter);
    redone_ = moved_at_.size();
  }
}

void WindowedScheduler::Advance() {
  ++global_step_;
  if (!window_.Contains(global_step_) || monitor() != nullptr) return;
  ++last_step_;
  Move();
}

bool WindowedScheduler::Move() {
  Prepare(last_step_);
  bool changed = false;
  for (size_t i = 0; i < values_.size(); ++i) {
    const double next =
        Next(last_step_, static_cast<int>(i), *values_[i], base_values_[i]);
    changed = changed || next != *values_[i];
    *values_[i] = next;
  }
  return changed;
}

absl::Status WindowedScheduler::SaveState(ParamSchedulerState* state) const {
  state->set_type(type_);
  state->set_param_name(window_.param_name());
  state->set_global_step(global_step_);
  state->set_last_step(last_step_);
  for (const double value : base_values_) state->add_base_values(value);
  state->set_settings(settings_);
  state->set_by_epoch(window_.by_epoch());
  state->set_converted(window_.converted());
  state->set_optimizer(optimizer());
  for (const int64_t step : moved_at_) state->add_moved_at(step);
  for (const int64_t iter : moved_at_iter_) state->add_moved_at_iter(iter);
  SaveExtra(state);
  return absl::OkStatus();
}

absl::Status WindowedScheduler::LoadState(const ParamSchedulerState& state) {
  if (state.type() != type_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the state is of a \"", state.type(), "\", this is a \"", type_, "\""));
  }
  if (state.param_name() != window_.param_name()) {
    return absl::InvalidArgumentError(
        absl::StrCat("param_name: is \"", state.param_name(),
                     "\" in the state, \"", window_.param_name(), "\" here"));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckField(state.global_step() >= -1, "global_step",
                                     ">= -1", state.global_step()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(state.last_step() >= -1, "last_step",
                                     ">= -1", state.last_step()));
  GRAPNEL_RETURN_IF_ERROR(CheckBaseValues(state.base_values(), values_.size()));
  GRAPNEL_RETURN_IF_ERROR(CheckMovedAt(state.moved_at(), state.global_step()));
  GRAPNEL_RETURN_IF_ERROR(LoadExtra(state));
  global_step_ = state.global_step();
  last_step_ = state.last_step();
  base_values_.assign(state.base_values().begin(), state.base_values().end());
  moved_at_.assign(state.moved_at().begin(), state.moved_at().end());
  moved_at_iter_.assign(state.moved_at_iter().begin(),
                        state.moved_at_iter().end());
  moved_at_iter_.resize(moved_at_.size(), -1);  // Of before it was kept.
  redone_ = moved_at_.size();
  return absl::OkStatus();
}

absl::Status WindowedScheduler::Rewind(absl::Span<const double> base_values) {
  GRAPNEL_RETURN_IF_ERROR(CheckBaseValues(base_values, values_.size()));
  base_values_.assign(base_values.begin(), base_values.end());
  for (size_t i = 0; i < values_.size(); ++i) *values_[i] = base_values_[i];
  global_step_ = -1;
  if (monitor() == nullptr) last_step_ = -1;
  redone_ = 0;
  return absl::OkStatus();
}

void WindowedScheduler::RedoMetricSteps(int64_t iters) {
  for (; redone_ < moved_at_.size() && moved_at_[redone_] <= global_step_ &&
         moved_at_iter_[redone_] <= iters;
       ++redone_) {
    if (window_.Contains(moved_at_[redone_])) Move();
  }
}

absl::StatusOr<std::vector<double>> ValuesByGroup(
    absl::string_view field, const RepeatedField<double>& values,
    const ParamGroups& groups) {
  const size_t num_groups = groups.num_groups();
  std::vector<double> by_group(values.begin(), values.end());
  if (by_group.size() == 1) by_group.resize(num_groups, by_group[0]);
  if (by_group.size() + 1 == num_groups && groups.has_base_group() &&
      !by_group.empty()) {
    by_group.push_back(by_group.back());
  }
  if (by_group.size() != num_groups) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": must have 1 value, or one a group, which is ",
                     num_groups - (groups.has_base_group() ? 1 : 0), ", has ",
                     values.size()));
  }
  return by_group;
}

absl::Status CheckSet(bool is_set, absl::string_view field) {
  if (is_set) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": must be set"));
}

absl::Status CheckOneOf(absl::string_view field, absl::string_view value,
                        std::initializer_list<absl::string_view> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": must be one of \"",
                   absl::StrJoin(choices, "\", \""), "\", is \"", value, "\""));
}

}  // namespace grapnel
