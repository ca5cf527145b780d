// Named numbers that a model gives, as tensors that nobody has waited for.

#ifndef GRAPNEL_MODELS_LOG_VARS_H_
#define GRAPNEL_MODELS_LOG_VARS_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"

namespace grapnel {

// An ordered list of (name, tensor), and for a mean what it was divided by, for
// those who want to know. Made to be filled again every iteration: the slots
// stay, so that with the same names it allocates nothing. Thread-compatible.
class LogVars {
 public:
  // Lets go of the tensors, and of the graphs behind them, not of the slots.
  void Clear() {
    for (size_t i = 0; i < size_; ++i) {
      slots_[i].tensor.reset();
      weights_[i].reset();
    }
    size_ = 0;
  }

  // Appends; names are expected to be distinct.
  void Add(absl::string_view name, at::Tensor value) {
    Add(name, std::move(value), at::Tensor());
  }

  // A mean and its weight, as Loss::Weight has it: means of batches are put
  // together by their weights. Undefined: by the numbers of samples.
  void Add(absl::string_view name, at::Tensor mean, at::Tensor weight) {
    if (size_ == slots_.size()) {
      slots_.emplace_back();
      weights_.emplace_back();
    }
    NamedTensor& slot = slots_[size_];
    if (slot.name != name) slot.name.assign(name.data(), name.size());
    slot.tensor = std::move(mean);
    weights_[size_++] = std::move(weight);
  }

  // Whether anybody looks at weights. To give them though nobody does is not
  // wrong, only work for nothing. Clear doesn't change it.
  void set_wants_weights(bool wants_weights) { wants_weights_ = wants_weights; }
  bool wants_weights() const { return wants_weights_; }

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  const NamedTensor& operator[](size_t i) const { return slots_[i]; }
  // Of the i-th; undefined if it was added without one.
  const at::Tensor& weight(size_t i) const { return weights_[i]; }
  const NamedTensor* begin() const { return slots_.data(); }
  const NamedTensor* end() const { return slots_.data() + size_; }

 private:
  std::vector<NamedTensor> slots_;
  std::vector<at::Tensor> weights_;  // Beside slots_.
  size_t size_ = 0;
  bool wants_weights_ = false;
};

}  // namespace grapnel

#endif  // GRAPNEL_MODELS_LOG_VARS_H_
