#include "grapnel/loggers/host_name.h"

#include <unistd.h>

#include "absl/strings/ascii.h"

namespace grapnel {

std::string HostName() {
  char buffer[256] = "";
  // The last byte stays 0 whatever is written.
  if (::gethostname(buffer, sizeof(buffer) - 1) != 0) return "localhost";
  std::string name = buffer;
  for (char& c : name) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '.') c = '_';
  }
  return name.empty() ? "localhost" : name;
}

}  // namespace grapnel
