// The numbers of an optimizer that schedules may move.

#ifndef GRAPNEL_OPTIM_PARAM_GROUPS_H_
#define GRAPNEL_OPTIM_PARAM_GROUPS_H_

#include <vector>

#include "absl/strings/string_view.h"

namespace grapnel {

// Parameter groups, seen as what schedulers see of them: numeric options by
// name. Thread-compatible.
class ParamGroups {
 public:
  virtual ~ParamGroups() = default;

  virtual int num_groups() const = 0;

  // Whether the last group is an OptimWrapper's base group: it has no
  // parameters, and the values without any group's multiplier.
  virtual bool has_base_group() const { return false; }

  // Where option `name` of group `group`, 0 <= group < num_groups(), lies, or
  // null if it has none. Stays valid, and keeps its place, as long as this
  // object. Names: "lr", "weight_decay", "momentum", ... "momentum" is beta1 of
  // an optimizer that has betas and no momentum.
  virtual double* option(int group, absl::string_view name) = 0;
};

// What loading a state has made of options.
struct RestoredOptions {
  // Where those lie (ParamGroups::option) that have the value that is
  // configured now and not the saved one. Schedules of them are to be replayed.
  std::vector<const double*> reset;

  // Whether the state tells what was configured when it was saved.
  bool configured_known = false;

  // Whether groups have the parameters that they had, in the same order.
  bool same_groups = true;
};

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_PARAM_GROUPS_H_
