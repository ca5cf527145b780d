// Memory that isn't there, as a status.

#ifndef GRAPNEL_IO_OUT_OF_MEMORY_H_
#define GRAPNEL_IO_OUT_OF_MEMORY_H_

#include <new>
#include <stdexcept>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace grapnel {
namespace io {

// Runs `f`, which returns absl::Status or a StatusOr; kResourceExhausted, about
// `path`, if it can't allocate what it needs. For code whose allocations are as
// large as a file says.
template <typename F>
auto CatchOutOfMemory(absl::string_view path, F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {  // More than any memory.
  }
  return absl::ResourceExhaustedError(absl::StrCat(path, ": out of memory"));
}

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_OUT_OF_MEMORY_H_
