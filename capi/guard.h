// The border between C++ and the C API: what crosses it, and how.

#ifndef GRAPNEL_CAPI_GUARD_H_
#define GRAPNEL_CAPI_GUARD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/grapnel.h"

namespace grapnel::capi {

// Base of all that a caller destroys: counts what is alive.
class Counted {
 public:
  Counted() { alive.fetch_add(1, std::memory_order_relaxed); }
  Counted(const Counted&) : Counted() {}
  Counted& operator=(const Counted&) = default;
  // Who sees 0 sees also what was done before, by another thread maybe.
  ~Counted() { alive.fetch_sub(1, std::memory_order_release); }

  static std::atomic<int64_t> alive;
};

// A status for when there is no memory for one: not counted, and never
// destroyed.
grapnel_status* OutOfMemory() noexcept;

// Null for OK; OutOfMemory() where there is no memory for another. Messages
// become UTF-8.
grapnel_status* ToC(const absl::Status& status) noexcept;

// Takes a status that a callback returned; OK for null.
absl::Status FromC(grapnel_status* status);

// Runs `body`, which returns absl::Status, and gives the caller what comes of
// it, exceptions included. A C function that can fail is one Guard.
template <typename Body>
grapnel_status* Guard(Body&& body) noexcept {
  try {
    return ToC(CatchAsStatus(std::forward<Body>(body)));
  } catch (...) {  // There is no memory to say what was thrown.
    return OutOfMemory();
  }
}

// For a C function without a status: what `body` returns, or `otherwise` if it
// throws.
template <typename T, typename Body>
T GuardValue(T otherwise, Body&& body) noexcept {
  try {
    return body();
  } catch (...) {
    return otherwise;
  }
}

// kInvalidArgument, naming it, if an argument is null.
absl::Status NotNull(const void* argument, absl::string_view name);

// Text of a caller's is no longer: names, paths, messages.
inline constexpr size_t kMaxTextBytes = size_t{16} << 20;

// The text of an argument; kInvalidArgument if it is null and not empty, too
// long, not UTF-8 or has a NUL in it, which would end it on the way out.
absl::Status ReadText(const char* text, size_t size, absl::string_view name,
                      absl::string_view* out);
// The same; kInvalidArgument also if it is empty: names, paths.
absl::Status ReadName(const char* text, size_t size, absl::string_view name,
                      std::string* out);
// Bytes, of any kind and number.
absl::Status ReadBytes(const void* data, size_t size, absl::string_view name,
                       absl::string_view* out);

// Replaces the contents of the caller's bytes.
absl::Status AssignBytes(absl::string_view from, absl::string_view name,
                         grapnel_bytes* bytes);
// The same by lines, each with a newline at its end.
absl::Status AssignLines(const std::vector<std::string>& lines,
                         absl::string_view name, grapnel_bytes* bytes);

// A struct of callbacks as this library knows it: what an older caller's lacks
// is zero. kInvalidArgument if it is null, or smaller than `least` bytes, which
// is what the first version of the struct had.
absl::Status CopyCallbacks(const void* callbacks, size_t size, size_t least,
                           absl::string_view name, void* out);
template <typename T>
absl::Status ReadCallbacks(const T* callbacks, size_t least,
                           absl::string_view name, T* out) {
  return CopyCallbacks(callbacks, sizeof(T), least, name, out);
}

// `user_data` with its destroy callback, which it calls once when it goes.
class UserData {
 public:
  UserData(void* data, void (*destroy)(void*))
      : data_(data), destroy_(destroy) {}
  UserData(UserData&& other) noexcept
      : data_(other.data_), destroy_(std::exchange(other.destroy_, nullptr)) {}
  UserData& operator=(UserData&&) = delete;
  ~UserData() {
    if (destroy_ != nullptr) destroy_(data_);
  }

  void* get() const { return data_; }

 private:
  void* data_;
  void (*destroy_)(void*);
};

}  // namespace grapnel::capi

// Immutable but for its destruction.
struct grapnel_status : grapnel::capi::Counted {
  grapnel_code code;
  std::string message;
};

namespace grapnel::capi {

struct DestroyStatus {
  void operator()(grapnel_status* status) const {
    grapnel_status_destroy(status);
  }
};

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_GUARD_H_
