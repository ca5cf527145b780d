#include "grapnel/base/tensor_ops.h"

#include "ATen/core/Generator.h"
#include "ATen/ops/allclose.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/full.h"
#include "ATen/ops/linspace.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/rand.h"
#include "ATen/ops/randint.h"
#include "ATen/ops/randn.h"
#include "ATen/ops/randperm.h"
#include "ATen/ops/scalar_tensor.h"
#include "ATen/ops/stack.h"
#include "ATen/ops/tensor.h"
#include "ATen/ops/zeros.h"
#include "ATen/ops/zeros_like.h"

namespace grapnel {
namespace ops {

at::Tensor empty(at::IntArrayRef size, at::TensorOptions options) {
  return at::empty(size, options);
}
at::Tensor zeros(at::IntArrayRef size, at::TensorOptions options) {
  return at::zeros(size, options);
}
at::Tensor ones(at::IntArrayRef size, at::TensorOptions options) {
  return at::ones(size, options);
}
at::Tensor full(at::IntArrayRef size, const at::Scalar& value,
                at::TensorOptions options) {
  return at::full(size, value, options);
}
at::Tensor empty_like(const at::Tensor& tensor, at::TensorOptions options) {
  return at::empty_like(tensor, options);
}
at::Tensor zeros_like(const at::Tensor& tensor, at::TensorOptions options) {
  return at::zeros_like(tensor, options);
}
at::Tensor scalar_tensor(const at::Scalar& value, at::TensorOptions options) {
  return at::scalar_tensor(value, options);
}
at::Tensor arange(const at::Scalar& end, at::TensorOptions options) {
  return at::arange(end, options);
}
at::Tensor arange(const at::Scalar& start, const at::Scalar& end,
                  at::TensorOptions options) {
  return at::arange(start, end, options);
}
at::Tensor arange(const at::Scalar& start, const at::Scalar& end,
                  const at::Scalar& step, at::TensorOptions options) {
  return at::arange(start, end, step, options);
}
at::Tensor linspace(const at::Scalar& start, const at::Scalar& end,
                    int64_t steps, at::TensorOptions options) {
  return at::linspace(start, end, steps, options);
}

at::Tensor tensor(at::ArrayRef<float> values, at::TensorOptions options) {
  return at::tensor(values, options);
}
at::Tensor tensor(at::ArrayRef<double> values, at::TensorOptions options) {
  return at::tensor(values, options);
}
at::Tensor tensor(at::ArrayRef<int> values, at::TensorOptions options) {
  return at::tensor(values, options);
}
at::Tensor tensor(at::ArrayRef<int64_t> values, at::TensorOptions options) {
  return at::tensor(values, options);
}

at::Tensor rand(at::IntArrayRef size, at::TensorOptions options) {
  return at::rand(size, options);
}
at::Tensor randn(at::IntArrayRef size, at::TensorOptions options) {
  return at::randn(size, options);
}
at::Tensor randint(int64_t high, at::IntArrayRef size,
                   at::TensorOptions options) {
  return at::randint(high, size, options);
}
at::Tensor randperm(int64_t n, at::TensorOptions options) {
  return at::randperm(n, options);
}
at::Tensor randperm(int64_t n, const at::Generator& generator,
                    at::TensorOptions options) {
  return at::randperm(n, generator, options);
}

at::Tensor cat(at::TensorList tensors, int64_t dim) {
  return at::cat(tensors, dim);
}
at::Tensor stack(at::TensorList tensors, int64_t dim) {
  return at::stack(tensors, dim);
}
bool equal(const at::Tensor& a, const at::Tensor& b) { return at::equal(a, b); }
bool allclose(const at::Tensor& a, const at::Tensor& b, double rtol,
              double atol) {
  return at::allclose(a, b, rtol, atol);
}

}  // namespace ops
}  // namespace grapnel
