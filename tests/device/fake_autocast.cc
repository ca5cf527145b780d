#include "ATen/Operators.h"
#include "ATen/autocast_mode.h"
#include "grapnel/tests/device/fake_operators.h"
#include "torch/library.h"

namespace grapnel {
namespace internal_fake_device {

void RegisterAutocast() {
  static auto* const fallback = new torch::Library(
      torch::Library::IMPL, "_", c10::DispatchKey::AutocastPrivateUse1,
      __FILE__, __LINE__);
  fallback->fallback(torch::CppFunction::makeFallthrough());

  static auto* const aten = new torch::Library(
      torch::Library::IMPL, "aten", c10::DispatchKey::AutocastPrivateUse1,
      __FILE__, __LINE__);
  torch::Library& m = *aten;  // As the macros call it.
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
}

}  // namespace internal_fake_device
}  // namespace grapnel
