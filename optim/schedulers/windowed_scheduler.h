// What all schedulers that act in a window of steps have in common: all but the
// formula.

#ifndef GRAPNEL_OPTIM_SCHEDULERS_WINDOWED_SCHEDULER_H_
#define GRAPNEL_OPTIM_SCHEDULERS_WINDOWED_SCHEDULER_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/message.h"
#include "google/protobuf/repeated_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"

namespace grapnel::optim::v1 {
class ParamSchedulerState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// When a scheduler acts, in its steps, and on what.
class SchedulerWindow {
 public:
  // The end of a window that never closes.
  static constexpr int64_t kOpen = StepRange::kOpen;

  // What a config says of the window, defaults filled in.
  struct Fields {
    int64_t begin = 0;
    std::optional<int64_t> end;  // Unset: the run's.
    bool by_epoch = true;
    bool convert_to_iter_based = false;
    std::string param_name = "lr";
  };

  // kInvalidArgument, naming the field. One without an end that would begin at
  // or behind the run's end has one step and contains none.
  static absl::StatusOr<SchedulerWindow> Create(Fields fields,
                                                const RunLength& length);

  // Reads the fields begin, end, by_epoch, convert_to_iter_based and param_name
  // of `*config`, and writes what they come to, defaults filled in and epochs
  // converted, back to it.
  template <typename Config>
  static absl::StatusOr<SchedulerWindow> Create(Config* config,
                                                const RunLength& length);

  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  bool by_epoch() const { return by_epoch_; }
  bool converted() const { return converted_; }
  const std::string& param_name() const { return param_name_; }
  bool Contains(int64_t step) const {
    return step >= begin_ && step < end_ + extra_steps_ && reached_;
  }

  // False if it lies behind the run.
  bool reached() const { return reached_; }

  // The step `end` is in it too.
  void AddStep() { extra_steps_ = 1; }

  // N of param_scheduler.proto: the last step's number. kInvalidArgument,
  // saying that `end` is needed, if the window is open.
  absl::StatusOr<int64_t> LastStep() const;

  // `steps` of the field `field`, such as t_max, in the scheduler's steps. They
  // must be >= `least`.
  absl::StatusOr<int64_t> Convert(absl::string_view field, int64_t steps,
                                  int64_t least = 1) const;

 private:
  SchedulerWindow() = default;

  int64_t begin_ = 0;
  int64_t end_ = 0;
  bool by_epoch_ = true;
  bool converted_ = false;
  bool reached_ = true;
  int64_t extra_steps_ = 0;
  int64_t scale_ = 1;  // Steps of a configured unit: an epoch, if converted.
  std::string param_name_;
};

// Counts, writes to the groups, saves, loads and rewinds. A family of
// schedulers derives from it, says its formula, and is one file; linear.cc is
// the one to imitate, reduce_on_plateau.cc for one that follows a metric.
class WindowedScheduler : public ParamScheduler {
 public:
  const std::string& param_name() const final { return window_.param_name(); }
  bool by_epoch() const final { return window_.by_epoch(); }
  bool converted() const final { return window_.converted(); }
  StepRange range() const final { return {window_.begin(), window_.end()}; }
  absl::Span<double* const> values() const final { return values_; }
  void Apply() final;
  void Step() final;
  int64_t num_steps() const final {
    return global_step_ < 0 ? 0 : global_step_;
  }
  using ParamScheduler::StepMetric;
  void StepMetric(double value, int64_t iter) final;
  absl::Status SaveState(optim::v1::ParamSchedulerState* state) const final;
  absl::Status LoadState(const optim::v1::ParamSchedulerState& state) final;
  absl::Status Rewind(absl::Span<const double> base_values) final;
  void RedoMetricSteps(int64_t iters) final;

 protected:
  // `settings`: the config with defaults filled in.
  WindowedScheduler(SchedulerWindow window,
                    const google::protobuf::Message& settings);

  // Finds the option in all groups; call it once, before anything else.
  // `groups` outlives this.
  absl::Status Bind(ParamGroups& groups);

  // Called before the Nexts of step `t`, for what they have in common, such as
  // a cosine.
  virtual void Prepare(int64_t t) {}

  // The value of `group` at step `t` >= 0 of the window; its value so far is
  // `value`, the one before any schedule `base`. With a monitor: its value once
  // Observe said so, by the settings alone, since a replay has no metrics.
  virtual double Next(int64_t t, int group, double value,
                      double base) const = 0;

  // With a monitor: takes its value. True if the option is to be moved.
  virtual bool Observe(double metric) { return false; }

  // What the family has besides counters. LoadExtra changes nothing on an
  // error.
  virtual void SaveExtra(optim::v1::ParamSchedulerState* state) const {}
  virtual absl::Status LoadExtra(const optim::v1::ParamSchedulerState& state) {
    return absl::OkStatus();
  }

 private:
  void Advance();
  bool Move();  // True if a value changed.

  const SchedulerWindow window_;
  const std::string type_;
  const std::string settings_;   // As text.
  std::vector<double*> values_;  // One a group.
  std::vector<double> base_values_;
  int64_t global_step_ = -1;
  int64_t last_step_ = -1;  // With a monitor: of the metrics in the window.

  // The global steps, and the iterations, at which a metric moved the option,
  // and, in a replay, how many of them are done again.
  std::vector<int64_t> moved_at_;
  std::vector<int64_t> moved_at_iter_;  // -1: not known.
  size_t redone_ = 0;
};

// The numbers, one a group, of a repeated field that holds one for all groups,
// or one a group. A base group may be left out: it has the last.
//   kInvalidArgument: another count, naming the field.
absl::StatusOr<std::vector<double>> ValuesByGroup(
    absl::string_view field,
    const google::protobuf::RepeatedField<double>& values,
    const ParamGroups& groups);

// kInvalidArgument, naming the field, unless it is set, or one of `choices`.
absl::Status CheckSet(bool is_set, absl::string_view field);
absl::Status CheckOneOf(absl::string_view field, absl::string_view value,
                        std::initializer_list<absl::string_view> choices);

template <typename Config>
absl::StatusOr<SchedulerWindow> SchedulerWindow::Create(
    Config* config, const RunLength& length) {
  Fields fields;
  fields.begin = config->begin();
  if (config->has_end()) fields.end = config->end();
  if (config->has_by_epoch()) fields.by_epoch = config->by_epoch();
  fields.convert_to_iter_based = config->convert_to_iter_based();
  if (config->has_param_name()) fields.param_name = config->param_name();
  GRAPNEL_ASSIGN_OR_RETURN(SchedulerWindow window,
                           Create(std::move(fields), length));
  config->set_begin(window.begin_);
  if (window.end_ != kOpen && window.reached_) config->set_end(window.end_);
  config->set_by_epoch(window.by_epoch_);
  config->clear_convert_to_iter_based();
  config->set_param_name(window.param_name_);
  return window;
}

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_SCHEDULERS_WINDOWED_SCHEDULER_H_
