// What the C API's tensors, named tensors and named numbers are.

#ifndef GRAPNEL_CAPI_HANDLES_H_
#define GRAPNEL_CAPI_HANDLES_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "c10/core/ScalarType.h"
#include "c10/core/Storage.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/capi/guard.h"
#include "grapnel/grapnel.h"

namespace google::protobuf {
class Message;
}  // namespace google::protobuf

struct grapnel_tensor : grapnel::capi::Counted {
  grapnel_tensor() = default;
  explicit grapnel_tensor(at::Tensor t) : tensor(std::move(t)) {}
  at::Tensor tensor;
  // Its memory came by DLPack with the read-only flag, which at::Tensor has no
  // place for: what writes tensors of the caller's looks here.
  bool read_only = false;
};

// Slots are kept from use to use: a map that a runner hands out again and again
// allocates for no batch but the first.
struct grapnel_tensors : grapnel::capi::Counted {
  void Clear() { Truncate(0); }    // Lets go of the tensors.
  void Truncate(size_t new_size);  // Of those behind the first `new_size`.
  // kAlreadyExists.
  absl::Status Add(absl::string_view name, at::Tensor tensor,
                   bool read_only = false);
  // Null if there is none.
  const grapnel_tensor* Find(absl::string_view name) const;
  // Without values. With `reuses` its memory may be that of an earlier one that
  // nobody has any more.
  at::Tensor New(at::IntArrayRef sizes, at::ScalarType type);

  size_t size = 0;
  struct Slot {
    std::string name;
    grapnel_tensor handle;
  };
  std::deque<Slot> slots;  // The first `size` are in use. Stable addresses.

  // For batches: memory that malloc has given back to the system costs a page
  // fault for every 4 KiB of each.
  bool reuses = false;
  std::vector<c10::Storage> memory;

  // Slots from kIndexed on, by the hash of the name. Few are searched faster,
  // and without allocating.
  static constexpr size_t kIndexed = 16;
  std::unordered_multimap<size_t, size_t> index;
};

struct grapnel_scalars : grapnel::capi::Counted {
  void Clear() { size = 0; }
  // kAlreadyExists.
  absl::Status Add(absl::string_view name, double value);

  size_t size = 0;
  std::vector<std::pair<std::string, double>> slots;  // The first `size`.
};

namespace grapnel::capi {

// kInvalidArgument, naming it, for a dtype that there isn't.
absl::Status ToScalarType(grapnel_dtype dtype, at::ScalarType* out);
// 0 for one that has no value in the C API.
grapnel_dtype ToDtype(at::ScalarType type);

// No process has more memory. So far below 2^63 what LibTorch multiplies of
// sizes and strides stays in an int64_t: not all of it is checked, and some
// checks end the process.
inline constexpr int64_t kMaxTensorBytes = int64_t{1} << 56;

// The bytes of a tensor of that shape, without gaps. kInvalidArgument for a
// rank or a size that there can't be, and for more than kMaxTensorBytes.
absl::Status CheckShape(const int64_t* shape, int32_t rank, size_t element_size,
                        int64_t* num_bytes);

// A copy of row-major elements in host memory. kInvalidArgument, before
// anything is allocated, for what grapnel_tensor_create refuses.
absl::Status CopyTensor(grapnel_dtype dtype, const int64_t* shape, int32_t rank,
                        const void* data, size_t size, at::Tensor* out);

// Adds all of `from`, or, after an error, none. kAlreadyExists.
absl::Status AddTensors(const TensorMap& from, grapnel_tensors* tensors);
absl::Status ToTensorMap(const grapnel_tensors& from, TensorMap* out);

// kInvalidArgument for an encoding that there isn't, for a message that can't
// be parsed, and for fields that aren't known; `name` is what errors call it.
// The message is of the type of `*message`.
absl::Status ParseMessage(absl::string_view bytes, grapnel_encoding encoding,
                          absl::string_view name,
                          google::protobuf::Message* message);
absl::Status PrintMessage(const google::protobuf::Message& message,
                          grapnel_encoding encoding, std::string* out);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_HANDLES_H_
