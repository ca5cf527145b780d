// Tensors of the fake device as the CPU's kernels take them.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_HOST_VIEWS_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_HOST_VIEWS_H_

#include <vector>

#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "c10/core/Storage.h"
#include "grapnel/tests/device/fake_order.h"

namespace grapnel {
namespace internal_fake_device {

// An empty tensor of the device, strided as asked.
at::Tensor EmptyOnDevice(at::IntArrayRef sizes, at::IntArrayRef strides,
                         at::ScalarType type, c10::Device device);

// What one operator sees: its tensors as tensors of the CPU on the same memory,
// which is open while this lives. Two views of one storage are so to the
// operator too, and what it writes is written.
class HostViews {
 public:
  // Of the tensors of `work`, which outlives it. Null: of an operator that
  // looks at shapes only; memory stays closed.
  explicit HostViews(Work* work) : work_(work) {}
  ~HostViews();

  HostViews(const HostViews&) = delete;
  HostViews& operator=(const HostViews&) = delete;

  // The view of a tensor of the device, which the operator reads or writes; any
  // other tensor as it is.
  at::Tensor Of(const at::Tensor& tensor);
  at::Tensor ToWrite(const at::Tensor& tensor);

  // What the operator returned, as a tensor of `device`: the tensor whose view
  // it is, a view of that tensor, or a new one with its values.
  at::Tensor ToDevice(const at::Tensor& result, c10::Device device);

  // Makes tensors as large as the operator has made their views. To be called
  // after it, before ToDevice.
  void Resize();

 private:
  struct Seen {
    at::Tensor tensor;
    at::Tensor view;
  };
  struct Opened {
    c10::Storage storage;
    c10::Storage view;
    void* base;
  };

  const c10::Storage& Open(const c10::Storage& storage);

  Work* const work_;
  std::vector<Seen> seen_;
  std::vector<Opened> opened_;
};

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_HOST_VIEWS_H_
