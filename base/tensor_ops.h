// LibTorch's factories and joins, without its headers for them: the first of
// those in a file costs its compilation more than all of Tensor.h.

#ifndef GRAPNEL_BASE_TENSOR_OPS_H_
#define GRAPNEL_BASE_TENSOR_OPS_H_

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "ATen/core/Tensor.h"

namespace at {
struct Generator;
}  // namespace at

namespace grapnel {

// Every function is the call of at:: that has its name, with the same
// arguments, defaults and errors. Most of what isn't here Tensor has as a
// member.
namespace ops {

// Factories.
at::Tensor empty(at::IntArrayRef size, at::TensorOptions options = {});
at::Tensor zeros(at::IntArrayRef size, at::TensorOptions options = {});
at::Tensor ones(at::IntArrayRef size, at::TensorOptions options = {});
at::Tensor full(at::IntArrayRef size, const at::Scalar& value,
                at::TensorOptions options = {});
at::Tensor empty_like(const at::Tensor& tensor, at::TensorOptions options = {});
at::Tensor zeros_like(const at::Tensor& tensor, at::TensorOptions options = {});
at::Tensor scalar_tensor(const at::Scalar& value,
                         at::TensorOptions options = {});
at::Tensor arange(const at::Scalar& end, at::TensorOptions options = {});
at::Tensor arange(const at::Scalar& start, const at::Scalar& end,
                  at::TensorOptions options = {});
at::Tensor arange(const at::Scalar& start, const at::Scalar& end,
                  const at::Scalar& step, at::TensorOptions options = {});
at::Tensor linspace(const at::Scalar& start, const at::Scalar& end,
                    int64_t steps, at::TensorOptions options = {});

// Of one dimension, with the values' type or that of `options`.
at::Tensor tensor(at::ArrayRef<float> values, at::TensorOptions options);
at::Tensor tensor(at::ArrayRef<double> values, at::TensorOptions options);
at::Tensor tensor(at::ArrayRef<int> values, at::TensorOptions options);
at::Tensor tensor(at::ArrayRef<int64_t> values, at::TensorOptions options);
template <typename T>
at::Tensor tensor(
    std::initializer_list<T> values,
    at::TensorOptions options = c10::CppTypeToScalarType<T>::value) {
  return tensor(at::ArrayRef<T>(values), options);
}
template <typename T>
at::Tensor tensor(
    const std::vector<T>& values,
    at::TensorOptions options = c10::CppTypeToScalarType<T>::value) {
  return tensor(at::ArrayRef<T>(values), options);
}

// Random ones, of LibTorch's default generator if none is given.
at::Tensor rand(at::IntArrayRef size, at::TensorOptions options = {});
at::Tensor randn(at::IntArrayRef size, at::TensorOptions options = {});
at::Tensor randint(int64_t high, at::IntArrayRef size,
                   at::TensorOptions options = at::kLong);
at::Tensor randperm(int64_t n, at::TensorOptions options = at::kLong);
at::Tensor randperm(int64_t n, const at::Generator& generator,
                    at::TensorOptions options);

// Joins.
at::Tensor cat(at::TensorList tensors, int64_t dim = 0);
at::Tensor stack(at::TensorList tensors, int64_t dim = 0);

// As the members, which read worse in tests.
bool equal(const at::Tensor& a, const at::Tensor& b);
bool allclose(const at::Tensor& a, const at::Tensor& b, double rtol = 1e-5,
              double atol = 1e-8);

}  // namespace ops
}  // namespace grapnel

#endif  // GRAPNEL_BASE_TENSOR_OPS_H_
