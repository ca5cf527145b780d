// The mean of several checkpoints' weights: a "model soup", or stochastic
// weight averaging after the fact.
//
// Example:
//
//   TensorMap a, b;
//   GRAPNEL_RETURN_IF_ERROR(a.Add("w", torch::tensor({1.0, 2.0})));
//   GRAPNEL_RETURN_IF_ERROR(b.Add("w", torch::tensor({3.0, 6.0})));
//   io::WeightsMean mean;
//   GRAPNEL_RETURN_IF_ERROR(mean.Add("epoch_1", a, 1));
//   GRAPNEL_RETURN_IF_ERROR(mean.Add("epoch_2", b, 3));
//   GRAPNEL_ASSIGN_OR_RETURN(const TensorMap weights, mean.Finish());
//   GRAPNEL_RET_CHECK(
//       torch::equal(*weights.Find("w"), torch::tensor({2.5, 5.0})));

#ifndef GRAPNEL_IO_MEAN_WEIGHTS_H_
#define GRAPNEL_IO_MEAN_WEIGHTS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel {
namespace io {

// Holds one sum in double precision, whatever it is given: Add copies.
//
// Floating and complex tensors are averaged in double precision, and the mean
// is rounded to their dtype, to float16, bfloat16 and float8 by way of float32;
// that of equal float32 or shorter ones is equal to the bit.
// Others, integers and flags such as a batch norm's num_batches_tracked, have
// no mean that a model could use: they are those that were added last, as
// torch.optim.swa_utils leaves them. After an error it can only be destroyed.
// Thread-compatible.
class WeightsMean {
 public:
  // Adds `tensors`, which `source` names in messages, `weight` times, 1e-12 to
  // 1e12; what counts is its part of the sum of all. kInvalidArgument, naming
  // the first tensor, if names, dtypes or shapes are not those of the first
  // `tensors`, in any order.
  absl::Status Add(const std::string& source, const TensorMap& tensors,
                   double weight);

  // The mean, in the order and with the dtypes of the first `tensors`.
  // kFailedPrecondition if there were none.
  absl::StatusOr<TensorMap> Finish() const;

  // Those that are of the last `tensors`.
  std::vector<std::string> taken_from_last() const;

 private:
  struct Sum {
    std::string name;
    at::ScalarType dtype;
    at::Tensor value;
    bool is_mean = false;  // Else of the last.
  };

  absl::Status Begin(const TensorMap& tensors, double weight);

  std::string first_source_;
  std::vector<Sum> sums_;
  double total_weight_ = 0;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_MEAN_WEIGHTS_H_
