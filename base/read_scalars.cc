#include "grapnel/base/read_scalars.h"

#include <cstddef>

#include "grapnel/base/tensor_ops.h"

namespace grapnel {

std::vector<double> ReadScalars(const std::vector<at::Tensor>& scalars) {
  std::vector<double> values(scalars.size());
  std::vector<bool> known(scalars.size(), false);
  for (size_t i = 0; i < scalars.size(); ++i) {
    if (known[i]) continue;
    if (scalars[i].is_cpu()) {
      values[i] = scalars[i].item().toDouble();
      continue;
    }
    std::vector<size_t> places;
    std::vector<at::Tensor> beside;
    for (size_t j = i; j < scalars.size(); ++j) {
      if (scalars[j].device() != scalars[i].device()) continue;
      places.push_back(j);
      beside.push_back(scalars[j].reshape({}).to(at::kDouble));
    }
    const at::Tensor on_host = ops::stack(beside).to(at::kCPU);
    const double* const value = on_host.const_data_ptr<double>();
    for (size_t j = 0; j < places.size(); ++j) {
      values[places[j]] = value[j];
      known[places[j]] = true;
    }
  }
  return values;
}

}  // namespace grapnel
