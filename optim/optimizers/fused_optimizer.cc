#include "grapnel/optim/optimizers/fused_optimizer.h"

#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/optim/foreach_ops.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/optimizer_state.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;

// Where a parameter stands in a step.
enum class Phase : char { kUnknown, kNoGrad, kFirstStep, kLaterStep };

struct ParamState {
  NamedTensor param;
  // Defined from the first gradient on.
  std::vector<at::Tensor> slots;
  at::Tensor step;
  bool stepped = false;  // Slots have content, and belong into a checkpoint.
};

// Parameters that a kernel may take together.
struct Bucket {
  std::vector<ParamState*> params;
  std::vector<Phase> phases;
  // Kept from step to step, and filled again if a phase changes.
  FusedBatch first;
  FusedBatch later;
};

struct Group {
  std::vector<double> options;
  std::vector<ParamState> states;
  std::vector<Bucket> buckets;
};

// Whether walking both in memory order visits the same elements.
bool SameLayout(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

absl::Status CheckParam(const at::Tensor& tensor) {
  if (!tensor.defined()) return absl::InvalidArgumentError("is undefined");
  if (!at::isFloatingType(tensor.scalar_type())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be floating, is ", c10::toString(tensor.scalar_type())));
  }
  if (!tensor.is_leaf() || !tensor.requires_grad()) {
    return absl::InvalidArgumentError(
        "must be a leaf that requires a gradient");
  }
  if (tensor.layout() != c10::kStrided ||
      !tensor.is_non_overlapping_and_dense()) {
    return absl::InvalidArgumentError(
        "must be dense: its elements overlap or have gaps between them");
  }
  return absl::OkStatus();
}

void Reserve(size_t size, size_t num_slots, bool counts_steps,
             FusedBatch* batch) {
  batch->params.reserve(size);
  batch->grads.reserve(size);
  batch->slots.resize(num_slots);
  for (std::vector<at::Tensor>& slot : batch->slots) slot.reserve(size);
  if (counts_steps) batch->steps.reserve(size);
}

void Clear(FusedBatch* batch) {
  batch->params.clear();
  batch->grads.clear();
  for (std::vector<at::Tensor>& slot : batch->slots) slot.clear();
  batch->steps.clear();
}

class FusedOptimizer final : public Optimizer {
 public:
  FusedOptimizer(FusedRule rule, std::vector<ParamGroup> groups)
      : rule_(std::move(rule)), groups_(groups.size()) {
    for (size_t i = 0; i < groups.size(); ++i) {
      Group& group = groups_[i];
      StateGroup state_group;
      for (const auto& [name, value] : rule_.options) {
        group.options.push_back(value * (name == "lr" ? groups[i].lr_mult
                                         : name == "weight_decay"
                                             ? groups[i].decay_mult
                                             : 1));
      }
      for (size_t k = 0; k < rule_.options.size(); ++k) {
        state_group.options.push_back(
            {rule_.options[k].first, &group.options[k]});
      }
      group.states.reserve(groups[i].params.size());
      for (const NamedTensor& param : groups[i].params) {
        group.states.emplace_back();
        group.states.back().param = param;
        AddToBucket(&group.states.back(), &group.buckets);
      }
      for (Bucket& bucket : group.buckets) {
        const size_t size = bucket.params.size();
        bucket.phases.assign(size, Phase::kUnknown);
        bucket.first.first_step = true;
        Reserve(size, rule_.slots.size(), rule_.counts_steps, &bucket.first);
        Reserve(size, rule_.slots.size(), rule_.counts_steps, &bucket.later);
      }
      state_group.params = std::move(groups[i].params);
      state_groups_.push_back(std::move(state_group));
    }
  }

  int num_groups() const override { return static_cast<int>(groups_.size()); }

  double* option(int group, absl::string_view name) override {
    return FindOption(state_groups_[group].options, name);
  }

  absl::string_view type() const override { return rule_.type; }

  const std::vector<NamedTensor>& params(int group) const override {
    return state_groups_[group].params;
  }

  absl::Status Step() override { return StepUnless(at::Tensor()); }

  bool can_step_unless() const override {
    const ParamState* first = nullptr;
    for (const Group& group : groups_) {
      const bool first_step_differs = rule_.first_step_differs != nullptr &&
                                      rule_.first_step_differs(group.options);
      for (const ParamState& state : group.states) {
        if (first == nullptr) first = &state;
        const c10::Device device = state.param.tensor.device();
        if (device.is_cpu() || device != first->param.tensor.device()) {
          return false;
        }
        if (first_step_differs && !state.stepped &&
            state.param.tensor.grad().defined()) {
          return false;
        }
      }
    }
    return first != nullptr;
  }

  absl::Status StepUnless(const at::Tensor& overflow) override {
    // All checks come before the first write.
    for (const Group& group : groups_) {
      for (const ParamState& state : group.states) {
        const at::Tensor& grad = state.param.tensor.grad();
        if (grad.defined() && grad.layout() != c10::kStrided) {
          return absl::InvalidArgumentError(absl::StrCat(
              "parameter \"", state.param.name, "\": its gradient is sparse, ",
              rule_.type, " takes dense ones"));
        }
      }
    }
    const c10::AutoGradMode no_grad(false);
    return CatchAsStatus([&] {
      for (Group& group : groups_) {
        for (Bucket& bucket : group.buckets) {
          Gather(&bucket);
          Apply(group, overflow, &bucket.first);
          Apply(group, overflow, &bucket.later);
          if (!bucket.first.slots_used) continue;
          for (size_t i = 0; i < bucket.params.size(); ++i) {
            if (bucket.phases[i] == Phase::kFirstStep) {
              bucket.params[i]->stepped = true;
            }
          }
        }
      }
      return absl::OkStatus();
    });
  }

  void ZeroGrad() override {
    for (Group& group : groups_) {
      for (ParamState& state : group.states) {
        if (state.param.tensor.grad().defined()) {
          state.param.tensor.mutable_grad().reset();
        }
      }
    }
  }

  absl::Status SaveState(OptimizerState* state,
                         TensorMap* tensors) const override {
    SaveGroups(rule_.type, state_groups_, state);
    for (OptimizerState::Group& group : *state->mutable_groups()) {
      if (rule_.counts_steps) group.add_slots("step");
      for (const std::string& slot : rule_.slots) group.add_slots(slot);
    }
    at::Tensor steps;
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      steps = StepsOfDevice();
      return absl::OkStatus();
    }));
    int64_t next_step = 0;
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (const ParamState& param : groups_[i].states) {
        const std::string& name = param.param.name;
        if (!param.stepped) {
          state->mutable_groups(i)->add_without_slots(name);
          continue;
        }
        if (rule_.counts_steps) {
          GRAPNEL_RETURN_IF_ERROR(
              tensors->Add(SlotName(name, "step"),
                           steps.defined() ? steps[next_step++] : param.step));
        }
        for (size_t k = 0; k < rule_.slots.size(); ++k) {
          GRAPNEL_RETURN_IF_ERROR(
              tensors->Add(SlotName(name, rule_.slots[k]), param.slots[k]));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status LoadState(const OptimizerState& state,
                         const TensorMap& tensors) override {
    struct Loaded {
      ParamState* param;
      bool stepped;
      std::vector<at::Tensor> slots;  // Undefined: begins at zero.
      double step;
    };
    GRAPNEL_ASSIGN_OR_RETURN(SlotReader reader,
                             SlotReader::Create(rule_.type, state, tensors));
    std::vector<Loaded> all;
    for (Group& group : groups_) {
      for (ParamState& param : group.states) {
        Loaded loaded = {&param, HasStepped(reader, param.param.name), {}, 0};
        if (loaded.stepped && rule_.counts_steps) {
          GRAPNEL_ASSIGN_OR_RETURN(loaded.step,
                                   reader.ReadStep(param.param.name));
        }
        for (const std::string& slot : rule_.slots) {
          if (!loaded.stepped) break;
          loaded.slots.emplace_back();
          if (!reader.Knows(param.param.name, slot)) continue;
          GRAPNEL_ASSIGN_OR_RETURN(loaded.slots.back(),
                                   reader.Read(param.param, slot));
        }
        all.push_back(std::move(loaded));
      }
    }

    const c10::AutoGradMode no_grad(false);
    return CatchAsStatus([&] {
      // Memory first: without it nothing is to have changed.
      for (Loaded& loaded : all) {
        if (loaded.stepped) MakeSlots(loaded.param);
      }
      for (Loaded& loaded : all) {
        ParamState& param = *loaded.param;
        param.stepped = loaded.stepped;
        if (!loaded.stepped) {
          param.slots.clear();
          param.step.reset();
          continue;
        }
        for (size_t k = 0; k < loaded.slots.size(); ++k) {
          if (loaded.slots[k].defined()) {
            param.slots[k].copy_(loaded.slots[k]);
          } else {
            param.slots[k].zero_();
          }
        }
        if (rule_.counts_steps) param.step.fill_(loaded.step);
      }
      LoadOptions(state, state_groups_);
      for (Group& group : groups_) {
        for (Bucket& bucket : group.buckets) {
          bucket.phases.assign(bucket.params.size(), Phase::kUnknown);
        }
      }
      return absl::OkStatus();
    });
  }

 private:
  // The step of each parameter that has one, in their order, on the CPU: in one
  // copy from a device, where each would be waited for. Undefined if they are
  // there anyway, or on several devices.
  at::Tensor StepsOfDevice() const {
    std::vector<at::Tensor> steps;
    for (const Group& group : groups_) {
      for (const ParamState& param : group.states) {
        if (!param.stepped || !rule_.counts_steps) continue;
        if (param.step.is_cpu()) return {};
        if (!steps.empty() && param.step.device() != steps.front().device()) {
          return {};
        }
        steps.push_back(param.step);
      }
    }
    return steps.empty() ? at::Tensor() : ops::stack(steps).to(at::kCPU);
  }

  // Without one slot that is known, the next step is a first one.
  bool HasStepped(const SlotReader& reader, const std::string& param) const {
    if (!reader.HasSlots(param)) return false;
    if (rule_.counts_steps || rule_.slots.empty()) return true;
    return std::any_of(
        rule_.slots.begin(), rule_.slots.end(),
        [&](const std::string& slot) { return reader.Knows(param, slot); });
  }

  static void AddToBucket(ParamState* state, std::vector<Bucket>* buckets) {
    const at::Tensor& tensor = state->param.tensor;
    for (Bucket& bucket : *buckets) {
      const at::Tensor& other = bucket.params.front()->param.tensor;
      if (other.device() == tensor.device() &&
          other.scalar_type() == tensor.scalar_type()) {
        bucket.params.push_back(state);
        return;
      }
    }
    buckets->emplace_back();
    buckets->back().params.push_back(state);
  }

  void MakeSlots(ParamState* state) const {
    const at::Tensor& tensor = state->param.tensor;
    while (state->slots.size() < rule_.slots.size()) {
      state->slots.push_back(ops::zeros_like(tensor));
    }
    if (rule_.counts_steps && !state->step.defined()) {
      state->step = ops::zeros({}, tensor.options().dtype(at::kFloat));
    }
  }

  // Makes the bucket's batches those of the gradients that there are.
  void Gather(Bucket* bucket) {
    bool changed = false;
    for (size_t i = 0; i < bucket->params.size(); ++i) {
      const ParamState& state = *bucket->params[i];
      const Phase phase = !state.param.tensor.grad().defined() ? Phase::kNoGrad
                          : state.stepped ? Phase::kLaterStep
                                          : Phase::kFirstStep;
      changed = changed || phase != bucket->phases[i];
      bucket->phases[i] = phase;
    }
    if (changed) Refill(bucket);

    size_t first = 0;
    size_t later = 0;
    for (size_t i = 0; i < bucket->params.size(); ++i) {
      if (bucket->phases[i] == Phase::kNoGrad) continue;
      const at::Tensor& tensor = bucket->params[i]->param.tensor;
      at::Tensor& grad = bucket->phases[i] == Phase::kFirstStep
                             ? bucket->first.grads[first++]
                             : bucket->later.grads[later++];
      grad = tensor.grad();
      // Autograd's gradients are laid out as the parameter. One that somebody
      // set may not be, and the kernels don't look at strides.
      if (!SameLayout(grad, tensor)) {
        grad = ops::empty_like(tensor).copy_(grad);
      }
    }
  }

  void Refill(Bucket* bucket) {
    Clear(&bucket->first);
    Clear(&bucket->later);
    for (size_t i = 0; i < bucket->params.size(); ++i) {
      if (bucket->phases[i] == Phase::kNoGrad) continue;
      ParamState& state = *bucket->params[i];
      MakeSlots(&state);
      FusedBatch& batch = bucket->phases[i] == Phase::kFirstStep
                              ? bucket->first
                              : bucket->later;
      batch.params.push_back(state.param.tensor);
      batch.grads.emplace_back();
      for (size_t k = 0; k < state.slots.size(); ++k) {
        batch.slots[k].push_back(state.slots[k]);
      }
      if (rule_.counts_steps) batch.steps.push_back(state.step);
    }
  }

  void Apply(const Group& group, const at::Tensor& overflow,
             FusedBatch* batch) {
    if (batch->params.empty()) return;
    if (rule_.counts_steps) {
      if (batch->params.front().is_cpu()) {
        // An operator call for each of hundreds of scalars costs more than the
        // whole kernel does for a small model.
        for (const at::Tensor& step : batch->steps) {
          *step.mutable_data_ptr<float>() += 1;
        }
      } else {
        ops::foreach_add_(batch->steps, 1);
      }
    }
    batch->slots_used = true;
    batch->overflow = overflow;
    rule_.apply(group.options, *batch);
    batch->overflow.reset();
    if (overflow.defined() && rule_.counts_steps) {
      const std::vector<at::Tensor> not_made(batch->steps.size(), overflow);
      ops::foreach_add_(batch->steps, not_made, -1);
    }
    // As LibTorch's operators do that write one tensor; its fused kernels
    // don't.
    for (const at::Tensor& param : batch->params) {
      param.unsafeGetTensorImpl()->bump_version();
    }
    // A second reference would keep autograd from adding in place, and the
    // memory from being reused.
    for (at::Tensor& grad : batch->grads) grad.reset();
  }

  const FusedRule rule_;
  // Never resized: options and buckets are pointed to.
  std::vector<Group> groups_;
  std::vector<StateGroup> state_groups_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Optimizer>> MakeFusedOptimizer(
    FusedRule rule, std::vector<ParamGroup> groups) {
  absl::flat_hash_set<std::string> names;
  for (const ParamGroup& group : groups) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(group.lr_mult) && group.lr_mult >= 0,
                   "lr_mult", "finite and >= 0", group.lr_mult));
    GRAPNEL_RETURN_IF_ERROR(
        CheckField(std::isfinite(group.decay_mult) && group.decay_mult >= 0,
                   "decay_mult", "finite and >= 0", group.decay_mult));
    for (const NamedTensor& param : group.params) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(CheckParam(param.tensor),
                      absl::StrCat("parameter \"", param.name, "\"")));
      if (!names.insert(param.name).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("parameter \"", param.name, "\" is there twice"));
      }
    }
  }
  return {std::make_unique<FusedOptimizer>(std::move(rule), std::move(groups))};
}

}  // namespace grapnel
