#include "grapnel/models/layer_chain.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "c10/util/Exception.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/shape.h"

namespace grapnel {
namespace {

using ::grapnel::models::v1::LayerConfig;

absl::StatusOr<std::string> LayerName(const LayerConfig& config, int index) {
  if (!config.has_name()) return absl::StrCat(index);
  if (config.name().empty() || config.name().find('.') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("name: must not be empty nor contain \".\", is \"",
                     config.name(), "\""));
  }
  return config.name();
}

// The shape that a layer gives, from one sample of zeros. Costs a forward pass
// of one sample, and needs no formula for each kind of layer.
absl::StatusOr<std::vector<int64_t>> OutputShape(Layer& layer,
                                                 const LayerOptions& options) {
  const std::vector<int64_t>& input_shape = options.input_shape;
  std::vector<int64_t> batch_shape = {1};
  batch_shape.insert(batch_shape.end(), input_shape.begin(), input_shape.end());
  at::Tensor output;
  layer.SetTraining(false);
  const absl::Status status = CatchAsStatus([&] {
    const c10::AutoGradMode no_grad(false);
    output = layer.Forward(ops::zeros(batch_shape, options.device));
    return absl::OkStatus();
  });
  layer.SetTraining(true);
  if (!status.ok()) {
    const std::string message(status.message());
    return absl::InvalidArgumentError(
        absl::StrCat("doesn't fit the input ", ShapeString(input_shape), ": ",
                     message.substr(0, message.find('\n'))));
  }
  if (output.dim() < 1 || output.size(0) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the output must keep the batch dimension; of one sample it is ",
        ShapeString(output.sizes())));
  }
  return std::vector<int64_t>(output.sizes().begin() + 1, output.sizes().end());
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerChain>> LayerChain::Create(
    const Configs& configs, absl::string_view field,
    const LayerOptions& options) {
  if (configs.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": must have at least one layer"));
  }
  auto chain = absl::WrapUnique(new LayerChain());
  LayerOptions next = options;
  std::set<std::string> names;
  for (int i = 0; i < configs.size(); ++i) {
    const std::string kind = KindName(configs[i]);
    std::string position =
        absl::StrCat(field, "[", i, "]", kind.empty() ? "" : " ", kind);
    std::unique_ptr<Layer> layer;
    const absl::Status status = CatchAsStatus([&]() -> absl::Status {
      GRAPNEL_ASSIGN_OR_RETURN(std::string name, LayerName(configs[i], i));
      if (!names.insert(name).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("name: \"", name, "\" is the name of a layer before"));
      }
      GRAPNEL_ASSIGN_OR_RETURN(layer, LayerRegistry::Create(configs[i], next));
      GRAPNEL_ASSIGN_OR_RETURN(next.input_shape, OutputShape(*layer, next));
      next.may_overwrite_input = layer->output_may_be_overwritten();
      chain->AddTensorsOf(name, *layer);
      return absl::OkStatus();
    });
    if (!status.ok()) return WithContext(status, position);
    chain->links_.push_back({std::move(position), std::move(layer)});
  }
  chain->output_shape_ = std::move(next.input_shape);
  return chain;
}

at::Tensor LayerChain::Forward(const at::Tensor& input) {
  at::Tensor x = input;
  const Link* current = nullptr;
  try {
    for (Link& link : links_) {
      current = &link;
      x = link.layer->Forward(x);
    }
  } catch (c10::Error& e) {
    e.add_context(absl::StrCat("in ", current->position));
    throw;
  }
  return x;
}

bool LayerChain::output_may_be_overwritten() const {
  return links_.back().layer->output_may_be_overwritten();
}

bool LayerChain::has_own_generator() const {
  return std::all_of(links_.begin(), links_.end(), [](const Link& link) {
    return link.layer->has_own_generator();
  });
}

std::string LayerChain::NeedsTwoSamples() const {
  for (const Link& link : links_) {
    const std::string why = link.layer->NeedsTwoSamples();
    if (!why.empty()) return absl::StrCat(link.position, ": ", why);
  }
  return "";
}

void LayerChain::SyncBatchNorm(ProcessGroup& group) {
  for (Link& link : links_) link.layer->SyncBatchNorm(group);
}

void LayerChain::SetTraining(bool training) {
  Layer::SetTraining(training);
  for (Link& link : links_) link.layer->SetTraining(training);
}

}  // namespace grapnel
