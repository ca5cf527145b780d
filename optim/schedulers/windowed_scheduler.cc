#include "grapnel/optim/schedulers/windowed_scheduler.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/check_field.h"

namespace grapnel {
namespace {

using ::google::protobuf::Message;
using ::google::protobuf::TextFormat;
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

absl::Status CheckFinite(absl::string_view field,
                         const google::protobuf::RepeatedField<double>& values,
                         size_t num_groups) {
  if (values.size() != static_cast<int>(num_groups)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": the state has ", values.size(),
                     ", the optimizer has ", num_groups, " groups"));
  }
  for (const double value : values) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(value), field, "finite", value));
  }
  return absl::OkStatus();
}

std::unique_ptr<const Message> Copy(const Message& message) {
  std::unique_ptr<Message> copy(message.New());
  copy->CopyFrom(message);
  return copy;
}

std::string Print(const Message& message) {
  TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(message, &text);
  return text;
}

// Whether `text` is `message`, whichever version of protobuf printed it.
bool Says(const std::string& text, const Message& message) {
  // Without one, protobuf writes to stderr.
  class : public google::protobuf::io::ErrorCollector {
    void AddError(int /*line*/, int /*column*/,
                  const std::string& /*message*/) override {}
  } silent;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&silent);
  std::unique_ptr<Message> parsed(message.New());
  return parser.ParseFromString(text, parsed.get()) &&
         google::protobuf::util::MessageDifferencer::Equals(*parsed, message);
}

}  // namespace

absl::Status SchedulerWindow::Resolve(bool has_end, bool convert,
                                      const RunLength& length) {
  GRAPNEL_RETURN_IF_ERROR(CheckField(begin_ >= 0, "begin", ">= 0", begin_));
  if (param_name_.empty()) {
    return absl::InvalidArgumentError("param_name: must not be empty");
  }
  if (convert) {
    if (!by_epoch_) {
      return absl::InvalidArgumentError(
          "convert_to_iter_based: needs by_epoch, which is false");
    }
    if (length.epoch_length < 1) {
      return absl::InvalidArgumentError(
          "convert_to_iter_based: needs a run whose epochs have a known "
          "length");
    }
    scale_ = length.epoch_length;
    by_epoch_ = false;
    GRAPNEL_RETURN_IF_ERROR(MultiplyField("begin", scale_, &begin_));
    if (has_end) {
      GRAPNEL_RETURN_IF_ERROR(MultiplyField("end", scale_, &end_));
    }
  }
  if (has_end) {
    if (end_ <= begin_) {
      return absl::InvalidArgumentError(
          absl::StrCat("end: must be > begin, which is ", begin_ / scale_,
                       ", is ", end_ / scale_));
    }
    return absl::OkStatus();
  }

  end_ = kOpen;
  if (by_epoch_ && length.max_epochs >= 0) {
    end_ = length.max_epochs;
  } else if (convert && length.max_epochs >= 0) {
    end_ = length.max_epochs;
    GRAPNEL_RETURN_IF_ERROR(MultiplyField("end", scale_, &end_));
  } else if (!by_epoch_ && length.max_iters >= 0) {
    end_ = length.max_iters;
  }
  if (end_ <= begin_) {
    return absl::InvalidArgumentError(
        absl::StrCat("begin: must be < the run's end, which is ", end_,
                     by_epoch_ ? " epochs" : " iterations", ", is ", begin_));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SchedulerWindow::LastStep() const {
  if (end_ == kOpen) {
    return absl::InvalidArgumentError(
        "end: must be set, since the run's length isn't known");
  }
  return end_ - begin_ - 1;
}

absl::StatusOr<int64_t> SchedulerWindow::Convert(absl::string_view field,
                                                 int64_t steps) const {
  GRAPNEL_RETURN_IF_ERROR(CheckField(steps >= 1, field, ">= 1", steps));
  GRAPNEL_RETURN_IF_ERROR(MultiplyField(field, scale_, &steps));
  return steps;
}

WindowedScheduler::WindowedScheduler(SchedulerWindow window,
                                     const google::protobuf::Message& settings)
    : window_(std::move(window)),
      type_(settings.GetDescriptor()->full_name()),
      settings_(Copy(settings)) {}

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

void WindowedScheduler::Advance() {
  ++global_step_;
  if (global_step_ < window_.begin() || global_step_ >= window_.end()) return;
  ++last_step_;
  for (size_t i = 0; i < values_.size(); ++i) {
    *values_[i] =
        Next(last_step_, static_cast<int>(i), *values_[i], base_values_[i]);
  }
}

absl::Status WindowedScheduler::SaveState(ParamSchedulerState* state) const {
  state->set_type(type_);
  state->set_param_name(window_.param_name());
  state->set_global_step(global_step_);
  state->set_last_step(last_step_);
  for (const double value : base_values_) state->add_base_values(value);
  state->set_settings(Print(*settings_));
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
  GRAPNEL_RETURN_IF_ERROR(
      CheckFinite("base_values", state.base_values(), values_.size()));
  global_step_ = state.global_step();
  last_step_ = state.last_step();
  base_values_.assign(state.base_values().begin(), state.base_values().end());
  settings_changed_ = !Says(state.settings(), *settings_);
  return absl::OkStatus();
}

}  // namespace grapnel
