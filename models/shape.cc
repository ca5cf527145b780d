#include "grapnel/models/shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace grapnel {

std::string ShapeString(at::IntArrayRef shape) {
  return absl::StrCat("(", absl::StrJoin(shape, ", "),
                      shape.size() == 1 ? ",)" : ")");
}

}  // namespace grapnel
