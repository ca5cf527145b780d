#include "grapnel/base/torch_status.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "grapnel/base/status_exception.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

// LibTorch has a type for devices' memory, and for the CPU's only this text.
bool IsOutOfCpuMemory(const c10::Error& e) {
  return std::strstr(e.what_without_backtrace(), "DefaultCPUAllocator") !=
         nullptr;
}

// What goes into logs and messages is text, whatever the exception says.
std::string Text(const c10::Error& e) {
  return EscapeToUtf8(e.what_without_backtrace());
}

}  // namespace

absl::Status CurrentExceptionToStatus() {
  try {
    throw;
  } catch (const StatusException& e) {
    return e.status();
  } catch (const c10::OutOfMemoryError& e) {
    return absl::ResourceExhaustedError(Text(e));
  } catch (const c10::IndexError& e) {
    return absl::OutOfRangeError(Text(e));
  } catch (const c10::ValueError& e) {
    return absl::InvalidArgumentError(Text(e));
  } catch (const c10::TypeError& e) {
    return absl::InvalidArgumentError(Text(e));
  } catch (const c10::NotImplementedError& e) {
    return absl::UnimplementedError(Text(e));
  } catch (const c10::Error& e) {
    if (IsOutOfCpuMemory(e)) {
      return absl::ResourceExhaustedError(Text(e));
    }
    return absl::InternalError(Text(e));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& e) {
    return absl::InternalError(EscapeToUtf8(e.what()));
  } catch (...) {
    return absl::InternalError("unknown exception");
  }
}

}  // namespace grapnel
