// Numbers in files of torch.save, NumPy's among them.

#ifndef GRAPNEL_IO_PTH_NUMBERS_H_
#define GRAPNEL_IO_PTH_NUMBERS_H_

#include <optional>
#include <vector>

#include "grapnel/io/pth.h"

namespace grapnel {
namespace io {

// The number that `value` is: an int, float or bool, a tensor of one real
// number, or one of NumPy's, which is kOpaque. Nothing for another.
std::optional<double> NumberIn(const PthValue& value);

// Those of a list or a tuple of such, or of NumPy's array of one dimension:
// float64, float32, int64 or int32, little-endian. Nothing for another.
std::optional<std::vector<double>> NumbersIn(const PthValue& value);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PTH_NUMBERS_H_
