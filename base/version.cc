#include "grapnel/base/version.h"

#include "torch/headeronly/version.h"

namespace grapnel {

const char kLibTorchVersion[] = TORCH_VERSION;

}  // namespace grapnel
