#include "grapnel/base/control_characters.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace grapnel {

bool HasControlCharacter(absl::string_view text) {
  return std::any_of(text.begin(), text.end(), absl::ascii_iscntrl);
}

std::string MaskControlCharacters(absl::string_view text) {
  std::string masked(text);
  std::replace_if(masked.begin(), masked.end(), absl::ascii_iscntrl, '?');
  return masked;
}

}  // namespace grapnel
