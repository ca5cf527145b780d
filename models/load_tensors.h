// Weights into a model, whatever kind of model it is.

#ifndef GRAPNEL_MODELS_LOAD_TENSORS_H_
#define GRAPNEL_MODELS_LOAD_TENSORS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel {

// Copies `tensors` into those of `into`, a model's parameters and buffers, by
// name. Checks all before it copies any: after an error the model is as it was.
// Floating types convert to each other; a tensor doesn't fit if its shape
// differs, or if its numbers are of a type that the model's can't hold: complex
// ones for real, floating ones for integers, integers for narrower ones.
//
// With `strict` the names must be the same on both sides, and all must fit:
// kInvalidArgument lists what doesn't, shortened. Else the rest is left, and
// listed in `*report`, if not null, in lines "missing: <name>", which the model
// alone has, "mismatched: <name>: ...", and "unexpected: <name>". Tensors of
// which the model can take none are kInvalidArgument even so.
//
// Example:
//
//   torch::nn::Linear net(3, 2);
//   TensorMap tensors;  // From io::ReadWeights, for example.
//   GRAPNEL_RETURN_IF_ERROR(tensors.Add("weight", torch::ones({2, 3})));
//   std::vector<std::string> report;
//   GRAPNEL_RETURN_IF_ERROR(LoadTensors(tensors, /*strict=*/false,
//                                       NamedParameters(*net), &report));
//   GRAPNEL_RET_CHECK(torch::equal(net->weight, torch::ones({2, 3})));
//   GRAPNEL_RET_CHECK(report.size() == 1 && report[0] == "missing: bias");
absl::Status LoadTensors(const TensorMap& tensors, bool strict,
                         const std::vector<NamedTensor>& into,
                         std::vector<std::string>* report);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LOAD_TENSORS_H_
