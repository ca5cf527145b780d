#include "grapnel/io/unique_name.h"

#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace grapnel {
namespace io {
namespace {

constexpr size_t kHexDigits = 8;

}  // namespace

std::string RandomBytes(size_t n) {
  std::random_device device;
  std::string bytes;
  while (bytes.size() < n) bytes += static_cast<char>(device() & 0xff);
  return bytes;
}

std::string HiddenName(absl::string_view prefix, absl::string_view name) {
  return absl::StrCat(prefix, name, "-",
                      absl::BytesToHexString(RandomBytes(kHexDigits / 2)));
}

bool ParseHiddenName(absl::string_view hidden, absl::string_view prefix,
                     std::string* name) {
  if (!absl::ConsumePrefix(&hidden, prefix)) return false;
  if (hidden.size() < kHexDigits + 2) return false;
  const absl::string_view hex = hidden.substr(hidden.size() - kHexDigits);
  for (const char c : hex) {
    if (!absl::ascii_isdigit(c) && (c < 'a' || c > 'f')) return false;
  }
  hidden.remove_suffix(kHexDigits);
  if (!absl::ConsumeSuffix(&hidden, "-")) return false;
  *name = std::string(hidden);
  return true;
}

bool IsVisibleName(absl::string_view name, size_t max_size) {
  if (name.empty() || name.size() > max_size || name[0] == '.') return false;
  for (const char c : name) {
    if (!absl::ascii_isprint(c) || c == '/') return false;
  }
  return true;
}

}  // namespace io
}  // namespace grapnel
