// The state of an OptimWrapper, and what torch.optim's state_dict has of it.

#ifndef GRAPNEL_OPTIM_TORCH_LAYOUT_H_
#define GRAPNEL_OPTIM_TORCH_LAYOUT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"

namespace grapnel::optim::v1 {
class OptimWrapperConfig;
class OptimWrapperState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// A parameter of a model in Python, in the order of model.parameters().
struct TorchParam {
  std::string name;   // Ours; "" if there is none here for it.
  std::string there;  // Python's.
};

// How Python's optimizer has its parameters.
struct TorchGroups {
  // By name; they are numbered in this order. One that the state doesn't know,
  // since it isn't trained, has the options of its group.
  std::vector<std::vector<std::string>> groups;

  // What schedules began with: by Python's name of the option, "lr" or
  // "momentum", and by parameter; "" for the base group.
  std::map<std::string, std::map<std::string, double>> initial;

  // Other numbers that schedules keep there, likewise: "max_lr".
  std::map<std::string, std::map<std::string, double>> kept;
};

// Writes torch.optim's state_dict of what OptimWrapper::SaveState gave for one
// optimizer: {"state": {0: {"step": ..., ...}, ...}, "param_groups": [...]},
// with all the options that it has in Python, also those that `state` doesn't
// know and `config` does, and "fused", as those are that a configuration makes:
// so the next steps are the same to the bit. As MMEngine has them also
// "base_param_settings", of several groups, and "loss_scaler". Gradients that
// wait are left out. kInvalidArgument, and nothing is written, for an optimizer
// that isn't known in Python's layout: not SGD, Adam, AdamW, RMSprop or
// Adagrad.
absl::Status WriteTorchOptimizer(const optim::v1::OptimWrapperState& state,
                                 const TensorMap& slots,
                                 const optim::v1::OptimWrapperConfig& config,
                                 const TorchGroups& groups,
                                 io::PthWriter* writer);

// The way back. `state`: what OptimWrapper::SaveState gives here before the
// first step, of one optimizer, which says whose the parameters are; gets the
// file's options, with what "initial_lr" says as the configured one, and its
// loss scale, but no counters. `slots` gets the slots. `params`: all of the
// model there.
//
// Which parameter a number stands for is told by "param_names", if the groups
// have them; else by the order of `params`, if there is one group, or one for
// each; else by that order within each group, if groups are as many and as
// large as here. The optimizer may be of all of `params`, or of those that are
// trained here.
//
// `lr_has_moved`: something that leaves no "initial_lr" has moved "lr", as
// Python's plateaus do; it is then taken to have been configured as here.
//
// `config` is of this run: what Python had otherwise, as nesterov, and no state
// knows, is said in `*warnings`; and that it had a momentum, if here is none.
//   kInvalidArgument, naming what: another kind of optimizer, or it can't be
//     told whose its state is. Nothing is changed then.
absl::Status ReadTorchOptimizer(const io::PthValue& value,
                                const std::vector<TorchParam>& params,
                                const optim::v1::OptimWrapperConfig& config,
                                bool lr_has_moved,
                                optim::v1::OptimWrapperState* state,
                                TensorMap* slots,
                                std::vector<std::string>* warnings);

}  // namespace grapnel

#endif  // GRAPNEL_OPTIM_TORCH_LAYOUT_H_
