#include "grapnel/base/device.h"

#include <cstddef>

#include "ATen/Context.h"
#include "ATen/DeviceAccelerator.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

constexpr char kAuto[] = "auto";

// As many as can be computed on.
int NumDevices(c10::DeviceType type) {
  if (!c10::impl::hasDeviceGuardImpl(type)) return 0;
  // CUDA's small library finds devices for which the large one has the kernels.
  if (type == c10::DeviceType::CUDA && !at::globalContext().hasCUDA()) return 0;
  return c10::impl::getDeviceGuardImpl(type)->deviceCount();
}

// LibTorch takes a number that an index can't hold as another one.
bool IsNumberIn(absl::string_view name, c10::DeviceIndex index) {
  const size_t colon = name.find(':');
  if (colon == absl::string_view::npos) return true;
  int number = 0;
  return absl::SimpleAtoi(name.substr(colon + 1), &number) && number == index;
}

absl::StatusOr<c10::Device> ParseDevice(absl::string_view name) {
  std::optional<c10::Device> device;
  const absl::Status status = CatchAsStatus([&] {
    device.emplace(std::string(name));
    return absl::OkStatus();
  });
  if (!status.ok() || device->is_meta() || !IsNumberIn(name, device->index())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be \"auto\", \"cpu\", \"cuda\" or \"cuda:<number>\", is \"",
        EscapeToUtf8(name), "\""));
  }
  return *device;
}

c10::Device AtPlace(c10::DeviceType type, int local_rank, int devices) {
  return {type, static_cast<c10::DeviceIndex>(local_rank % devices)};
}

}  // namespace

absl::StatusOr<c10::Device> FindDevice(absl::string_view name, int local_rank) {
  GRAPNEL_RET_CHECK(local_rank >= 0);
  if (name == kAuto) {
    const std::optional<c10::DeviceType> type =
        at::accelerator::getAccelerator();
    const int devices = type.has_value() ? NumDevices(*type) : 0;
    if (devices == 0) return c10::Device(c10::DeviceType::CPU);
    return AtPlace(*type, local_rank, devices);
  }
  GRAPNEL_ASSIGN_OR_RETURN(const c10::Device device, ParseDevice(name));
  // LibTorch takes "cpu:0" too.
  if (device.is_cpu()) return c10::Device(c10::DeviceType::CPU);
  const int devices = NumDevices(device.type());
  if (devices == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "\"", name, "\": there is no such device on this machine, or the ",
        "program's LibTorch was built without it"));
  }
  if (!device.has_index()) return AtPlace(device.type(), local_rank, devices);
  if (device.index() >= devices) {
    return absl::FailedPreconditionError(
        absl::StrCat("\"", name, "\": the last device of this machine is \"",
                     c10::Device(device.type(), devices - 1).str(), "\""));
  }
  return device;
}

std::optional<c10::Device> ToGuard(c10::Device device) {
  if (device.is_cpu()) return std::nullopt;
  return device;
}

std::string DeviceKind(c10::Device device) {
  return c10::DeviceTypeName(device.type(), /*lower_case=*/true);
}

}  // namespace grapnel
