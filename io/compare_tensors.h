// Where two maps of tensors differ, and by how much.
//
// Example:
//
//   TensorMap a, b;
//   GRAPNEL_RETURN_IF_ERROR(a.Add("w", torch::tensor({1.0, 2.0})));
//   GRAPNEL_RETURN_IF_ERROR(b.Add("w", torch::tensor({1.0, 2.5})));
//   using Differences = std::vector<io::TensorDifference>;
//   GRAPNEL_ASSIGN_OR_RETURN(const Differences differences,
//                            io::CompareTensors(a, b));
//   GRAPNEL_RET_CHECK(differences.size() == 1);
//   GRAPNEL_RET_CHECK(differences[0].num_different == 1);
//   GRAPNEL_RET_CHECK(differences[0].max_abs == 0.5);

#ifndef GRAPNEL_IO_COMPARE_TENSORS_H_
#define GRAPNEL_IO_COMPARE_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel {
namespace io {

struct TensorDifference {
  enum class Kind { kOnlyInFirst, kOnlyInSecond, kDtype, kShape, kValues };

  std::string name;
  Kind kind = Kind::kValues;

  // Of kDtype "Float", of kShape "2, 3": the first map's and the second's.
  std::string first;
  std::string second;

  // Of kValues: elements, those whose bits differ, and the largest absolute
  // difference of such two; NaN if one of them is NaN, 0 for 0.0 and -0.0.
  int64_t num_elements = 0;
  int64_t num_different = 0;
  double max_abs = 0;
};

// Empty if they are equal to the bit, whatever their order: NaN equals NaN of
// the same bits. In the order of `a`, then what only `b` has. Needs memory for
// a few MiB of elements, and for a copy of tensors that aren't contiguous or on
// the CPU. kInvalidArgument, naming it, for a tensor that isn't dense.
absl::StatusOr<std::vector<TensorDifference>> CompareTensors(
    const TensorMap& a, const TensorMap& b);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_COMPARE_TENSORS_H_
