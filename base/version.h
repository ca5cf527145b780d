// Versions that go into checkpoints.

#ifndef GRAPNEL_BASE_VERSION_H_
#define GRAPNEL_BASE_VERSION_H_

namespace grapnel {

inline constexpr char kGrapnelVersion[] = "0.1.0";

// Of the LibTorch that this was compiled with: "2.11.0".
extern const char kLibTorchVersion[];

}  // namespace grapnel

#endif  // GRAPNEL_BASE_VERSION_H_
