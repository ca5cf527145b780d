// Structs of callbacks with their user data.

#ifndef GRAPNEL_CAPI_CALLBACKS_H_
#define GRAPNEL_CAPI_CALLBACKS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/capi/guard.h"
#include "grapnel/grapnel.h"

namespace grapnel::capi {

// User data that is the caller's until a call that takes it has come out well.
class LentData {
 public:
  LentData(void* data, void (*destroy)(void*))
      : data_(data), destroy_(destroy) {}
  LentData(const LentData&) = delete;
  LentData& operator=(const LentData&) = delete;

  void* get() const { return data_; }

  // From now on it goes with this object.
  void Take() noexcept { taken_.emplace(data_, destroy_); }

 private:
  void* const data_;
  void (*const destroy_)(void*);
  std::optional<UserData> taken_;
};

// T: one of the structs that end, in their first version, with `destroy`.
template <typename T>
class Callbacks {
 public:
  // A copy of what a caller has given; what it can be wrong in itself is
  // kInvalidArgument. `name` is what errors call it.
  static absl::StatusOr<T> Read(const T* given, absl::string_view name) {
    T callbacks;
    GRAPNEL_RETURN_IF_ERROR(
        ReadCallbacks(given, offsetof(T, destroy) + sizeof(callbacks.destroy),
                      name, &callbacks));
    return callbacks;
  }

  Callbacks(const T& callbacks, void* user_data)
      : callbacks_(callbacks), data_(user_data, callbacks.destroy) {}

  const T* operator->() const { return &callbacks_; }
  void* data() const { return data_.get(); }
  LentData* lent() { return &data_; }

 private:
  const T callbacks_;
  LentData data_;
};

// kInvalidArgument, naming it, for a callback that must be there.
template <typename F>
absl::Status MustBeSet(F* callback, absl::string_view name) {
  return NotNull(reinterpret_cast<const void*>(callback), name);
}

// Of T's save_state and load_state: both must be set, or neither.
template <typename T>
absl::Status CheckStateCallbacks(const T& callbacks) {
  if ((callbacks.save_state == nullptr) == (callbacks.load_state == nullptr)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "callbacks: save_state and load_state: both must be set, or neither");
}

// Calls them, which are set.
template <typename T>
absl::Status SaveState(const Callbacks<T>& callbacks, std::string* bytes) {
  grapnel_bytes state = {nullptr, 0};
  const absl::Status status =
      FromC(callbacks->save_state(callbacks.data(), &state));
  if (status.ok()) bytes->assign(state.data, state.data + state.size);
  grapnel_bytes_clear(&state);
  return WithContext(status, "save_state");
}
template <typename T>
absl::Status LoadState(const Callbacks<T>& callbacks, absl::string_view bytes) {
  return WithContext(FromC(callbacks->load_state(callbacks.data(), bytes.data(),
                                                 bytes.size())),
                     "load_state");
}

// What is made of callbacks. The user data is taken last, when the product is
// where it belongs and nothing can fail any more.
template <typename Product>
struct Made {
  Product product;
  LentData* lent;  // In the product.
};

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_CALLBACKS_H_
