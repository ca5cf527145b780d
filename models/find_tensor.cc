#include "grapnel/models/find_tensor.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/utf8.h"
#include "grapnel/models/model.h"

namespace grapnel {

absl::StatusOr<NamedTensor> FindTensor(const Model& model,
                                       absl::string_view name) {
  std::vector<std::string> names;
  for (const auto* tensors : {&model.parameters(), &model.buffers()}) {
    for (const NamedTensor& tensor : *tensors) {
      if (tensor.name == name) return tensor;
      names.push_back(tensor.name);
    }
  }
  return absl::NotFoundError(absl::StrCat("the model has no tensor \"",
                                          EscapeToUtf8(name), "\"",
                                          DidYouMean(name, names)));
}

}  // namespace grapnel
