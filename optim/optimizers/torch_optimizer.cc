#include "grapnel/optim/optimizers/torch_optimizer.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <typeinfo>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "c10/util/Type.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/optimizers/optimizer_state.h"
#include "torch/optim/adagrad.h"
#include "torch/optim/adam.h"
#include "torch/optim/adamw.h"
#include "torch/optim/lbfgs.h"
#include "torch/optim/optimizer.h"
#include "torch/optim/rmsprop.h"
#include "torch/optim/sgd.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;
using ::torch::optim::OptimizerOptions;
using ::torch::optim::OptimizerParamState;

// A slot of a parameter's state, where it lies.
struct SlotRef {
  const char* name;
  at::Tensor* tensor;
};

struct StateRef {
  int64_t* step = nullptr;  // Null if it has none.
  std::vector<SlotRef> slots;
};

// What has to be known of a type of optimizer to reach into it.
struct Kind {
  const char* name;
  std::vector<OptionRef> (*options)(OptimizerOptions&);
  std::unique_ptr<OptimizerParamState> (*make_state)();
  // The slots that a state has if it was made under these options.
  StateRef (*state)(OptimizerParamState&, const OptimizerOptions&);
};

template <typename Options>
std::vector<OptionRef> AdamOptionRefs(OptimizerOptions& base) {
  auto& options = static_cast<Options&>(base);
  return {{"lr", &options.lr()},
          {"beta1", &std::get<0>(options.betas())},
          {"beta2", &std::get<1>(options.betas())},
          {"weight_decay", &options.weight_decay()},
          {"eps", &options.eps()}};
}

template <typename Options, typename State>
StateRef AdamStateRef(OptimizerParamState& base,
                      const OptimizerOptions& options) {
  auto& state = static_cast<State&>(base);
  StateRef ref = {
      &state.step(),
      {{"exp_avg", &state.exp_avg()}, {"exp_avg_sq", &state.exp_avg_sq()}}};
  if (static_cast<const Options&>(options).amsgrad()) {
    ref.slots.push_back({"max_exp_avg_sq", &state.max_exp_avg_sq()});
  }
  return ref;
}

template <typename State>
std::unique_ptr<OptimizerParamState> MakeState() {
  return std::make_unique<State>();
}

std::vector<OptionRef> SgdOptionRefs(OptimizerOptions& base) {
  auto& options = static_cast<torch::optim::SGDOptions&>(base);
  std::vector<OptionRef> refs = {{"lr", &options.lr()},
                                 {"weight_decay", &options.weight_decay()}};
  // As our own SGD's: nothing schedules a momentum that isn't there.
  if (options.momentum() > 0) {
    refs.push_back({"momentum", &options.momentum()});
    refs.push_back({"dampening", &options.dampening()});
  }
  return refs;
}

StateRef SgdStateRef(OptimizerParamState& base,
                     const OptimizerOptions& options) {
  auto& state = static_cast<torch::optim::SGDParamState&>(base);
  if (static_cast<const torch::optim::SGDOptions&>(options).momentum() == 0) {
    return {};
  }
  return {nullptr, {{"momentum_buffer", &state.momentum_buffer()}}};
}

std::vector<OptionRef> RmspropOptionRefs(OptimizerOptions& base) {
  auto& options = static_cast<torch::optim::RMSpropOptions&>(base);
  std::vector<OptionRef> refs = {{"lr", &options.lr()},
                                 {"alpha", &options.alpha()},
                                 {"eps", &options.eps()},
                                 {"weight_decay", &options.weight_decay()}};
  if (options.momentum() > 0) {
    refs.push_back({"momentum", &options.momentum()});
  }
  return refs;
}

StateRef RmspropStateRef(OptimizerParamState& base,
                         const OptimizerOptions& base_options) {
  auto& state = static_cast<torch::optim::RMSpropParamState&>(base);
  const auto& options =
      static_cast<const torch::optim::RMSpropOptions&>(base_options);
  StateRef ref = {&state.step(), {{"square_avg", &state.square_avg()}}};
  if (options.momentum() > 0) {
    ref.slots.push_back({"momentum_buffer", &state.momentum_buffer()});
  }
  if (options.centered()) ref.slots.push_back({"grad_avg", &state.grad_avg()});
  return ref;
}

std::vector<OptionRef> AdagradOptionRefs(OptimizerOptions& base) {
  auto& options = static_cast<torch::optim::AdagradOptions&>(base);
  return {{"lr", &options.lr()},
          {"lr_decay", &options.lr_decay()},
          {"weight_decay", &options.weight_decay()},
          {"eps", &options.eps()}};
}

StateRef AdagradStateRef(OptimizerParamState& base, const OptimizerOptions&) {
  auto& state = static_cast<torch::optim::AdagradParamState&>(base);
  return {&state.step(), {{"sum", &state.sum()}}};
}

constexpr Kind kSgd = {"SGD", SgdOptionRefs,
                       MakeState<torch::optim::SGDParamState>, SgdStateRef};
constexpr Kind kAdam = {
    "Adam", AdamOptionRefs<torch::optim::AdamOptions>,
    MakeState<torch::optim::AdamParamState>,
    AdamStateRef<torch::optim::AdamOptions, torch::optim::AdamParamState>};
constexpr Kind kAdamW = {
    "AdamW", AdamOptionRefs<torch::optim::AdamWOptions>,
    MakeState<torch::optim::AdamWParamState>,
    AdamStateRef<torch::optim::AdamWOptions, torch::optim::AdamWParamState>};
constexpr Kind kRmsprop = {"RMSprop", RmspropOptionRefs,
                           MakeState<torch::optim::RMSpropParamState>,
                           RmspropStateRef};
constexpr Kind kAdagrad = {"Adagrad", AdagradOptionRefs,
                           MakeState<torch::optim::AdagradParamState>,
                           AdagradStateRef};

// Null for a type of somebody else's, one derived from ours included.
const Kind* FindKind(const std::type_info& type) {
  if (type == typeid(torch::optim::SGD)) return &kSgd;
  if (type == typeid(torch::optim::Adam)) return &kAdam;
  if (type == typeid(torch::optim::AdamW)) return &kAdamW;
  if (type == typeid(torch::optim::RMSprop)) return &kRmsprop;
  if (type == typeid(torch::optim::Adagrad)) return &kAdagrad;
  return nullptr;
}

class TorchOptimizer final : public Optimizer {
 public:
  TorchOptimizer(std::shared_ptr<torch::optim::Optimizer> optimizer,
                 const Kind* kind, std::string type,
                 std::vector<StateGroup> groups)
      : optimizer_(std::move(optimizer)),
        kind_(kind),
        type_(std::move(type)),
        groups_(std::move(groups)) {}

  int num_groups() const override { return static_cast<int>(groups_.size()); }

  double* option(int group, absl::string_view name) override {
    return FindOption(groups_[group].options, name);
  }

  absl::string_view type() const override { return type_; }

  const std::vector<NamedTensor>& params(int group) const override {
    return groups_[group].params;
  }

  absl::Status Step() override {
    return CatchAsStatus([this] {
      optimizer_->step();
      return absl::OkStatus();
    });
  }

  void ZeroGrad() override { optimizer_->zero_grad(/*set_to_none=*/true); }

  absl::Status SaveState(OptimizerState* state,
                         TensorMap* tensors) const override {
    GRAPNEL_RETURN_IF_ERROR(CheckKnown());
    SaveGroups(type_, groups_, state);
    for (size_t i = 0; i < groups_.size(); ++i) {
      std::set<std::string> slots;
      for (const NamedTensor& param : groups_[i].params) {
        OptimizerParamState* param_state = FindState(param);
        if (param_state == nullptr) {
          state->mutable_groups(i)->add_without_slots(param.name);
          continue;
        }
        const StateRef ref = RefTo(*param_state, i);
        if (ref.step != nullptr) {
          slots.insert("step");
          // A double holds it exactly, torch.optim's float doesn't.
          GRAPNEL_RETURN_IF_ERROR(tensors->Add(
              SlotName(param.name, "step"),
              ops::scalar_tensor(static_cast<double>(*ref.step), at::kDouble)));
        }
        for (const SlotRef& slot : ref.slots) {
          slots.insert(slot.name);
          GRAPNEL_RETURN_IF_ERROR(
              tensors->Add(SlotName(param.name, slot.name), *slot.tensor));
        }
      }
      for (const std::string& slot : slots) {
        state->mutable_groups(i)->add_slots(slot);
      }
    }
    return absl::OkStatus();
  }

  absl::Status LoadState(const OptimizerState& state,
                         const TensorMap& tensors) override {
    struct Loaded {
      const NamedTensor* param;
      std::unique_ptr<OptimizerParamState> state;  // Null for none.
    };
    GRAPNEL_RETURN_IF_ERROR(CheckKnown());
    GRAPNEL_ASSIGN_OR_RETURN(const SlotReader reader,
                             SlotReader::Create(type_, state, tensors));
    const c10::AutoGradMode no_grad(false);
    std::vector<Loaded> all;
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (const NamedTensor& param : groups_[i].params) {
        all.push_back({&param, nullptr});
        if (!reader.HasSlots(param.name)) continue;
        all.back().state = kind_->make_state();
        const StateRef ref = RefTo(*all.back().state, i);
        if (ref.step != nullptr) {
          GRAPNEL_ASSIGN_OR_RETURN(const double step,
                                   reader.ReadStep(param.name));
          *ref.step = static_cast<int64_t>(step);
        }
        // A state without a slot that is known is none: the next step is a
        // first one.
        const auto known = [&](const SlotRef& slot) {
          return reader.Knows(param.name, slot.name);
        };
        if (ref.step == nullptr &&
            std::none_of(ref.slots.begin(), ref.slots.end(), known)) {
          all.back().state = nullptr;
          continue;
        }
        for (const SlotRef& slot : ref.slots) {
          if (!known(slot)) {
            *slot.tensor = ops::zeros_like(param.tensor);
            continue;
          }
          GRAPNEL_ASSIGN_OR_RETURN(at::Tensor saved,
                                   reader.Read(param, slot.name));
          GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
            *slot.tensor = saved.to(param.tensor.device(), saved.scalar_type(),
                                    /*non_blocking=*/false, /*copy=*/true);
            return absl::OkStatus();
          }));
        }
      }
    }
    for (Loaded& loaded : all) {
      void* key = loaded.param->tensor.unsafeGetTensorImpl();
      if (loaded.state == nullptr) {
        optimizer_->state().erase(key);
      } else {
        optimizer_->state()[key] = std::move(loaded.state);
      }
    }
    LoadOptions(state, groups_);
    return absl::OkStatus();
  }

 private:
  absl::Status CheckKnown() const {
    if (kind_ != nullptr) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat(
        "optimizer ", type_, ": what its state consists of isn't known"));
  }

  OptimizerParamState* FindState(const NamedTensor& param) const {
    const auto& states = optimizer_->state();
    const auto found = states.find(param.tensor.unsafeGetTensorImpl());
    return found == states.end() ? nullptr : found->second.get();
  }

  StateRef RefTo(OptimizerParamState& state, size_t group) const {
    return kind_->state(state, optimizer_->param_groups()[group].options());
  }

  const std::shared_ptr<torch::optim::Optimizer> optimizer_;
  const Kind* const kind_;
  const std::string type_;
  const std::vector<StateGroup> groups_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Optimizer>> WrapTorchOptimizer(
    std::shared_ptr<torch::optim::Optimizer> optimizer,
    std::vector<NamedTensor> params) {
  if (optimizer == nullptr) {
    return absl::InvalidArgumentError("optimizer: must not be null");
  }
  if (dynamic_cast<torch::optim::LBFGS*>(optimizer.get()) != nullptr) {
    return absl::InvalidArgumentError(
        "optimizer: LBFGS computes the loss several times a step, which needs "
        "a closure");
  }
  absl::flat_hash_map<const void*, std::string> names;
  for (const NamedTensor& param : params) {
    names.insert({param.tensor.unsafeGetTensorImpl(), param.name});
  }
  const torch::optim::Optimizer& object = *optimizer;
  const std::type_info& type = typeid(object);
  const Kind* kind = FindKind(type);
  std::vector<StateGroup> groups;
  for (torch::optim::OptimizerParamGroup& group : optimizer->param_groups()) {
    groups.emplace_back();
    for (size_t i = 0; i < group.params().size(); ++i) {
      const at::Tensor& tensor = group.params()[i];
      const auto name = names.find(tensor.unsafeGetTensorImpl());
      if (name == names.end()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "params: parameter ", i, " of group ", groups.size() - 1,
            " of the optimizer has no name there"));
      }
      groups.back().params.push_back({name->second, tensor});
    }
    if (kind != nullptr) groups.back().options = kind->options(group.options());
  }
  return {std::make_unique<TorchOptimizer>(
      std::move(optimizer), kind,
      kind != nullptr ? kind->name : c10::demangle(type.name()),
      std::move(groups))};
}

}  // namespace grapnel
