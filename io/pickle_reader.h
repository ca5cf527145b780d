// A machine for pickles of protocol 2. It makes values and calls nothing: what
// the names and calls in a pickle mean is decided by a PickleObjects.

#ifndef GRAPNEL_IO_PICKLE_READER_H_
#define GRAPNEL_IO_PICKLE_READER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/pickle_tree.h"

namespace grapnel {
namespace io {

// What a pickle's objects become. Calls may refuse, with the status that the
// reader returns. Nodes are those of the tree that the reader was given.
class PickleObjects {
 public:
  virtual ~PickleObjects() = default;

  // The type or function `name` of `module`, both at most 255 bytes of UTF-8.
  virtual absl::StatusOr<PickleId> Global(absl::string_view module,
                                          absl::string_view name) = 0;

  // What `callable`, any node, makes of the kTuple `arguments`.
  virtual absl::StatusOr<PickleId> Call(PickleId callable,
                                        PickleId arguments) = 0;

  // What the pickle holds outside of itself, and calls `id`.
  virtual absl::StatusOr<PickleId> Persistent(PickleId id) = 0;

  // `state` is given to `object`, any node.
  virtual absl::Status SetState(PickleId object, PickleId state) = 0;

  // Bytes that this uses beside the tree, about.
  virtual size_t memory_size() const { return 0; }
};

// Reads the pickle that begins at `*position` of `tree.source`, and sets
// `*position` to its end. Does what torch.save emits and no other opcodes. Uses
// at most `max_memory` bytes beside the source. Finish the tree before you walk
// it. Errors begin with the byte: "byte 123: ...".
//   kOutOfRange: the source ends before the pickle.
//   kUnimplemented: pickle protocol 3, 4 or 5.
//   kResourceExhausted: more memory.
//   kInvalidArgument: anything else.
absl::StatusOr<PickleId> ReadPickle(PickleTree& tree, PickleObjects& objects,
                                    size_t max_memory, size_t* position);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PICKLE_READER_H_
