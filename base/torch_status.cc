#include "grapnel/base/torch_status.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>
#include <new>

namespace grapnel {
namespace {

// LibTorch has a type for devices' memory, and for the CPU's only this text.
bool IsOutOfCpuMemory(const c10::Error& e) {
  return std::strstr(e.what_without_backtrace(), "DefaultCPUAllocator") !=
         nullptr;
}

}  // namespace

absl::Status CurrentExceptionToStatus() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& e) {
    return absl::ResourceExhaustedError(e.what_without_backtrace());
  } catch (const c10::IndexError& e) {
    return absl::OutOfRangeError(e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    return absl::InvalidArgumentError(e.what_without_backtrace());
  } catch (const c10::TypeError& e) {
    return absl::InvalidArgumentError(e.what_without_backtrace());
  } catch (const c10::NotImplementedError& e) {
    return absl::UnimplementedError(e.what_without_backtrace());
  } catch (const c10::Error& e) {
    if (IsOutOfCpuMemory(e)) {
      return absl::ResourceExhaustedError(e.what_without_backtrace());
    }
    return absl::InternalError(e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& e) {
    return absl::InternalError(e.what());
  } catch (...) {
    return absl::InternalError("unknown exception");
  }
}

}  // namespace grapnel
