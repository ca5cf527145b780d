// The pickle in a file of torch.save, with storages of 64 bytes around it: no
// change is wasted on ZIP.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grapnel/io/pth_builder.h"
#include "grapnel/tests/fuzz/fuzz_target.h"
#include "grapnel/tests/fuzz/pth_values.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const storages =
      new std::vector<std::string>(12, std::string(64, '\1'));
  grapnel::NoteOutcome(grapnel::ReadPthAndCheck(grapnel::io::BuildPth(
      absl::string_view(reinterpret_cast<const char*>(data), size),
      *storages)));
  return 0;
}
