// What all schedulers that count steps in a window have in common: all but the
// formula.

#ifndef GRAPNEL_OPTIM_SCHEDULERS_WINDOWED_SCHEDULER_H_
#define GRAPNEL_OPTIM_SCHEDULERS_WINDOWED_SCHEDULER_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"

namespace grapnel {

// When a scheduler acts, in its steps, and on what.
class SchedulerWindow {
 public:
  // The end of a window that never closes.
  static constexpr int64_t kOpen = std::numeric_limits<int64_t>::max();

  // Reads the fields begin, end, by_epoch, convert_to_iter_based and param_name
  // that all schedulers' configs have, and writes what they come to, defaults
  // filled in and epochs converted, back to `*config`.
  //   kInvalidArgument: naming the field.
  template <typename Config>
  static absl::StatusOr<SchedulerWindow> Create(Config* config,
                                                const RunLength& length);

  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  bool by_epoch() const { return by_epoch_; }
  const std::string& param_name() const { return param_name_; }

  // N of parity.md: the last step's number. kInvalidArgument, saying that
  // `end` is needed, if the window is open.
  absl::StatusOr<int64_t> LastStep() const;

  // `steps` >= 1 of the field `field`, such as t_max, in the scheduler's steps.
  absl::StatusOr<int64_t> Convert(absl::string_view field, int64_t steps) const;

 private:
  absl::Status Resolve(bool has_end, bool convert, const RunLength& length);

  int64_t begin_ = 0;
  int64_t end_ = 0;
  bool by_epoch_ = true;
  int64_t scale_ =
      1;  // Steps a configured unit: an epoch's length if converted.
  std::string param_name_;
};

// Counts, writes to the groups, saves and loads. A family of schedulers derives
// from it, says its formula, and is one file; linear.cc is the one to imitate.
class WindowedScheduler : public ParamScheduler {
 public:
  const std::string& param_name() const final { return window_.param_name(); }
  bool by_epoch() const final { return window_.by_epoch(); }
  void Apply() final;
  void Step() final;
  int64_t num_steps() const final {
    return global_step_ < 0 ? 0 : global_step_;
  }
  absl::Status SaveState(optim::v1::ParamSchedulerState* state) const final;
  absl::Status LoadState(const optim::v1::ParamSchedulerState& state) final;
  bool settings_changed() const final { return settings_changed_; }

 protected:
  // `settings`: the config with defaults filled in. `groups` outlives this.
  WindowedScheduler(SchedulerWindow window,
                    const google::protobuf::Message& settings);

  // Finds the option in all groups; call it once, before anything else.
  absl::Status Bind(ParamGroups& groups);

  // The value of `group` at step `t` >= 0 of the window; its value so far is
  // `value`, the one before any schedule `base`.
  virtual double Next(int64_t t, int group, double value,
                      double base) const = 0;

 private:
  void Advance();

  const SchedulerWindow window_;
  const std::string type_;
  const std::unique_ptr<const google::protobuf::Message> settings_;
  std::vector<double*> values_;  // One a group.
  std::vector<double> base_values_;
  int64_t global_step_ = -1;
  int64_t last_step_ = -1;
  bool settings_changed_ = false;
};

template <typename Config>
absl::StatusOr<SchedulerWindow> SchedulerWindow::Create(
    Config* config, const RunLength& length) {
  SchedulerWindow window;
  window.begin_ = config->begin();
  window.end_ = config->end();
  window.by_epoch_ = !config->has_by_epoch() || config->by_epoch();
  window.param_name_ = config->has_param_name() ? config->param_name() : "lr";
  GRAPNEL_RETURN_IF_ERROR(window.Resolve(
      config->has_end(), config->convert_to_iter_based(), length));
  config->set_begin(window.begin_);
  if (window.end_ != kOpen) config->set_end(window.end_);
  config->set_by_epoch(window.by_epoch_);
  config->clear_convert_to_iter_based();
  config->set_param_name(window.param_name_);
  return window;
}

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_SCHEDULERS_WINDOWED_SCHEDULER_H_
