// What the C API gives, in C++, for tests: taken, so that nothing is left.

#ifndef GRAPNEL_TESTS_CAPI_RUNS_TOOK_H_
#define GRAPNEL_TESTS_CAPI_RUNS_TOOK_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grapnel/grapnel.h"

namespace grapnel {

inline absl::Status Took(grapnel_status* status) {
  if (status == nullptr) return absl::OkStatus();
  const absl::Status taken(
      static_cast<absl::StatusCode>(grapnel_status_code(status)),
      grapnel_status_message(status));
  grapnel_status_destroy(status);
  return taken;
}

inline std::string Took(grapnel_bytes* bytes) {
  const std::string taken =
      bytes->data == nullptr ? "" : std::string(bytes->data, bytes->size);
  grapnel_bytes_clear(bytes);
  return taken;
}

// What a caller owns.
struct Destroyer {
  void operator()(grapnel_predictor* it) const {
    grapnel_predictor_destroy(it);
  }
  void operator()(grapnel_runner* it) const { grapnel_runner_destroy(it); }
  void operator()(grapnel_runner_options* it) const {
    grapnel_runner_options_destroy(it);
  }
  void operator()(grapnel_tensor* it) const { grapnel_tensor_destroy(it); }
  void operator()(grapnel_tensors* it) const { grapnel_tensors_destroy(it); }
};
template <typename T>
using Owned = std::unique_ptr<T, Destroyer>;

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_CAPI_RUNS_TOOK_H_
