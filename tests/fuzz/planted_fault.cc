// A target with faults, for driver_test.sh: what an input has to hold for each.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  if (absl::StrContains(input, "CRASH")) std::abort();
  if (absl::StrContains(input, "SLOW")) {
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::seconds(9)) {
    }
  }
  if (absl::StrContains(input, "GROW")) {
    std::vector<std::string> parts;
    for (int i = 0; i < 6; ++i) parts.emplace_back(50 << 20, 'x');
  }
  grapnel::NoteOutcome(
      absl::StrContains(input, "REFUSE") ? absl::InvalidArgumentError("refused")
      : absl::StrContains(input, "INTERNAL") ? absl::InternalError("ours")
                                             : absl::OkStatus());
  return 0;
}
