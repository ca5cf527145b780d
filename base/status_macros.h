// Passing an error up the stack without the four-line `if`.

#ifndef GRAPNEL_BASE_STATUS_MACROS_H_
#define GRAPNEL_BASE_STATUS_MACROS_H_

#if __cplusplus < 201703L
#error \
    "Grapnel is C++17: build with --cxxopt=-std=c++17 (a line for your .bazelrc)"
#endif

#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// `status` with `context` and ": " in front of its message; OK stays OK.
// A function that passes an error on says what it was doing:
// "train_dataloader: dataset: images: no such file".
absl::Status WithContext(absl::Status status, absl::string_view context);

// kInternal, for GRAPNEL_RET_CHECK.
absl::Status RetCheckFailure(const char* file, int line, const char* condition);

}  // namespace grapnel

// Returns from the current function if `expr`, an absl::Status, is not OK.
//
//   GRAPNEL_RETURN_IF_ERROR(env->RenameFile(tmp, path));
#define GRAPNEL_RETURN_IF_ERROR(expr)                     \
  do {                                                    \
    absl::Status grapnel_macro_status = (expr);           \
    if (ABSL_PREDICT_FALSE(!grapnel_macro_status.ok())) { \
      return grapnel_macro_status;                        \
    }                                                     \
  } while (false)

// Moves the value of `expr`, an absl::StatusOr, into `lhs`, or returns its
// status. Two statements: not for the body of an `if` without braces.
//
//   GRAPNEL_ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadManifest(dir));
#define GRAPNEL_ASSIGN_OR_RETURN(lhs, expr) \
  GRAPNEL_MACRO_ASSIGN_OR_RETURN(           \
      GRAPNEL_MACRO_CONCAT(grapnel_macro_statusor_, __LINE__), lhs, expr)

// Returns kInternal, with file, line and condition, if `condition` is false:
// an invariant of this code is broken, and a host process lives on.
#define GRAPNEL_RET_CHECK(condition)                                     \
  do {                                                                   \
    if (ABSL_PREDICT_FALSE(!(condition))) {                              \
      return ::grapnel::RetCheckFailure(__FILE__, __LINE__, #condition); \
    }                                                                    \
  } while (false)

#define GRAPNEL_MACRO_ASSIGN_OR_RETURN(statusor, lhs, expr) \
  auto statusor = (expr);                                   \
  if (ABSL_PREDICT_FALSE(!statusor.ok())) {                 \
    return std::move(statusor).status();                    \
  }                                                         \
  lhs = *std::move(statusor)
#define GRAPNEL_MACRO_CONCAT(a, b) GRAPNEL_MACRO_CONCAT_2(a, b)
#define GRAPNEL_MACRO_CONCAT_2(a, b) a##b

#endif  // GRAPNEL_BASE_STATUS_MACROS_H_
