// Random bytes, names of what must not be seen before it is whole, and of what
// may.

#ifndef GRAPNEL_IO_UNIQUE_NAME_H_
#define GRAPNEL_IO_UNIQUE_NAME_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace grapnel {
namespace io {

// Prefixes of hidden names.
inline constexpr char kTemporary[] = ".tmp-";  // Being written.
inline constexpr char kTrash[] = ".trash-";    // Being deleted.
inline constexpr char kReplaced[] = ".old-";   // Stood where a new one goes.

// From the system, never the same twice, also in forked processes.
std::string RandomBytes(size_t n);

// ".tmp-epoch_5-1a2b3c4d" for kTemporary and "epoch_5".
std::string HiddenName(absl::string_view prefix, absl::string_view name);

// Whether HiddenName(prefix, x) can have made `hidden`; if so, `*name` is x.
bool ParseHiddenName(absl::string_view hidden, absl::string_view prefix,
                     std::string* name);

// Whether `name` is one component of a path, printable ASCII that `ls` shows,
// of at most `max_size` bytes.
bool IsVisibleName(absl::string_view name, size_t max_size);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_UNIQUE_NAME_H_
