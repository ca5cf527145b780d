// Where tensors are, by name.

#ifndef GRAPNEL_BASE_DEVICE_H_
#define GRAPNEL_BASE_DEVICE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "c10/core/Device.h"

namespace grapnel {

// The device of this process that `name` stands for:
//
//   "cpu"
//   "cuda:1"  that one, or that of any other backend that LibTorch knows here,
//             by the name that it is registered with
//   "cuda"    that of the process's place on its machine: `local_rank`, counted
//             round if there are more processes than devices
//   "auto"    as "cuda", of the accelerator that there is; "cpu" if none is
//
// kInvalidArgument if it is none of these; kFailedPrecondition if the machine,
// or the LibTorch in the program, has no such device. `local_rank` >= 0.
absl::StatusOr<c10::Device> FindDevice(absl::string_view name,
                                       int local_rank = 0);

// What a c10::OptionalDeviceGuard takes, to make `device` the thread's current
// one: nothing for the CPU, of which there is none.
std::optional<c10::Device> ToGuard(c10::Device device);

// Without its number: "cuda".
std::string DeviceKind(c10::Device device);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_DEVICE_H_
