// Acme's own, at the path that Grapnel's has in its repository.

#ifndef BASE_STATUS_MACROS_H_
#define BASE_STATUS_MACROS_H_

#include "absl/status/status.h"

#define RETURN_IF_ERROR(expr)                    \
  do {                                           \
    const absl::Status macro_status = (expr);    \
    if (!macro_status.ok()) return macro_status; \
  } while (false)

#endif  // BASE_STATUS_MACROS_H_
