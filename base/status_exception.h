// Statuses through LibTorch's code, which knows exceptions only.

#ifndef GRAPNEL_BASE_STATUS_EXCEPTION_H_
#define GRAPNEL_BASE_STATUS_EXCEPTION_H_

#include <exception>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace grapnel {

// What CatchAsStatus (torch_status.h) makes the same status of again. Thrown
// where LibTorch calls back, in a layer or a backward pass, and nowhere else.
class StatusException : public std::exception {
 public:
  // `status` is not OK.
  explicit StatusException(absl::Status status)
      : status_(std::move(status)), message_(status_.message()) {}

  const absl::Status& status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  const absl::Status status_;
  const std::string message_;
};

// Throws `status` unless it is OK.
inline void ThrowIfError(const absl::Status& status) {
  if (!status.ok()) throw StatusException(status);
}

}  // namespace grapnel

#endif  // GRAPNEL_BASE_STATUS_EXCEPTION_H_
