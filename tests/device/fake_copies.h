// What is copied between host and fake device.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_COPIES_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_COPIES_H_

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"
#include "grapnel/tests/device/fake_device.h"

namespace grapnel {
namespace internal_fake_device {

enum class Direction { kToHost, kToDevice };

// Counts a copy of `tensor`. `why` is what needs it, "" for a plain copy.
void CountCopy(Direction direction, const at::Tensor& tensor,
               absl::string_view why);

FakeCopies Copies();
std::vector<std::string> LastCopies();

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_COPIES_H_
