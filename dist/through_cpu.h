// Collectives of tensors on devices that no backend of their own is there for.

#ifndef GRAPNEL_DIST_THROUGH_CPU_H_
#define GRAPNEL_DIST_THROUGH_CPU_H_

#include "c10/util/intrusive_ptr.h"
#include "torch/csrc/distributed/c10d/Backend.hpp"

namespace grapnel {

// What sends a copy of each tensor by `cpu`, a backend of the CPU, and copies
// what comes back: with the bits that `cpu` gives. Of all collectives
// all-reduces and broadcasts, which are what c10d's Reducer needs.
//
// Who starts one waits until the tensors are on the host, and no longer: they
// are sent and copied back by `cpu`'s threads. Work and its future end when the
// result is on the device.
c10::intrusive_ptr<c10d::Backend> MakeThroughCpu(
    c10::intrusive_ptr<c10d::Backend> cpu);

}  // namespace grapnel

#endif  // GRAPNEL_DIST_THROUGH_CPU_H_
