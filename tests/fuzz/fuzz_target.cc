#include "grapnel/tests/fuzz/fuzz_target.h"

#include <algorithm>

#include "absl/strings/string_view.h"
#include "grapnel/base/control_characters.h"
#include "grapnel/base/log.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

std::map<absl::StatusCode, int64_t>& MutableOutcomes() {
  static auto* const outcomes = new std::map<absl::StatusCode, int64_t>;
  return *outcomes;
}

}  // namespace

void Mutate(size_t max_size, std::string* bytes) {
  const size_t size = std::min(bytes->size(), max_size);
  bytes->resize(max_size);
  bytes->resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes->data()),
                                 size, max_size));
}

void CheckStatus(const absl::Status& status) {
  const absl::string_view message = status.message();
  GRAPNEL_CHECK(status.code() != absl::StatusCode::kInternal &&
                status.code() != absl::StatusCode::kUnknown)
      << status;
  GRAPNEL_CHECK(IsUtf8(message)) << status;
  GRAPNEL_CHECK(!HasControlCharacter(message)) << status;
}

void NoteOutcome(const absl::Status& status) {
  CheckStatus(status);
  ++MutableOutcomes()[status.code()];
}

const std::map<absl::StatusCode, int64_t>& Outcomes() {
  return MutableOutcomes();
}

}  // namespace grapnel
