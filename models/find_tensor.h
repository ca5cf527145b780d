// A model's tensor, by its name.

#ifndef GRAPNEL_MODELS_FIND_TENSOR_H_
#define GRAPNEL_MODELS_FIND_TENSOR_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/models/model.h"

namespace grapnel {

// The model's parameter or buffer of that name; it shares its storage.
// kNotFound, with a suggestion, if there is none.
absl::StatusOr<NamedTensor> FindTensor(const Model& model,
                                       absl::string_view name);

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_FIND_TENSOR_H_
