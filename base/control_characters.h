// Control characters in text of others: a terminal obeys them, and a log line
// with one may be two.

#ifndef GRAPNEL_BASE_CONTROL_CHARACTERS_H_
#define GRAPNEL_BASE_CONTROL_CHARACTERS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace grapnel {

// Bytes below 0x20, and 0x7f.
bool HasControlCharacter(absl::string_view text);

// `text` with "?" for each of them.
std::string MaskControlCharacters(absl::string_view text);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_CONTROL_CHARACTERS_H_
