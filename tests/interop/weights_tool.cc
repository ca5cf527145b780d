// The C++ side of weights_test.py.
//
//   weights_tool PATH   prints "SECTION\tNAME\tDTYPE\t[SHAPE]\tHEX" for each
//                       tensor of io::ReadWeightsAndMore

#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/weights.h"

namespace grapnel {
namespace {

absl::Status Dump(const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents contents,
                           io::ReadWeightsAndMore(io::Env::Posix(), path));
  for (const auto& [section, tensors] : contents.sections) {
    for (const NamedTensor& named : tensors) {
      const at::Tensor plain = named.tensor.contiguous();
      const absl::string_view bytes(
          static_cast<const char*>(plain.const_data_ptr()), plain.nbytes());
      std::printf("%s\t%s\t%s\t[%s]\t%s\n", section.c_str(), named.name.c_str(),
                  c10::toString(plain.scalar_type()),
                  absl::StrJoin(plain.sizes(), ",").c_str(),
                  absl::BytesToHexString(bytes).c_str());
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const absl::Status status =
      argc == 2 ? grapnel::Dump(argv[1])
                : absl::InvalidArgumentError("usage: weights_tool PATH");
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
