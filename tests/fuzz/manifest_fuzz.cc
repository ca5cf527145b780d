// manifest.pb of a checkpoint.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/log.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {
namespace {

using ::google::protobuf::util::DefaultFieldComparator;
using ::google::protobuf::util::MessageDifferencer;

constexpr size_t kFrameSize = 28;

// Equal, where a NaN equals a NaN.
bool Equal(const io::v1::CheckpointManifest& a,
           const io::v1::CheckpointManifest& b) {
  DefaultFieldComparator comparator;
  comparator.set_treat_nan_as_equal(true);
  MessageDifferencer differencer;
  differencer.set_field_comparator(&comparator);
  return differencer.Compare(a, b);
}

// A manifest that is accepted is written and read as the same.
void CheckRoundTrip(const io::v1::CheckpointManifest& manifest) {
  const absl::StatusOr<std::string> bytes = io::EncodeManifest(manifest);
  GRAPNEL_CHECK(bytes.ok()) << bytes.status();
  const auto again = io::DecodeManifest(*bytes);
  GRAPNEL_CHECK(again.ok()) << again.status();
  GRAPNEL_CHECK(Equal(manifest, *again)) << manifest.ShortDebugString();
}

}  // namespace
}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace grapnel;
  const auto manifest =
      io::DecodeManifest({reinterpret_cast<const char*>(data), size});
  NoteOutcome(manifest.status());
  if (manifest.ok()) CheckRoundTrip(*manifest);
  return 0;
}

// Mostly changes the body alone, and makes length and digest fit.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed) {
  using namespace grapnel;
  if (size < kFrameSize || max_size <= kFrameSize || seed % 16 == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const uint64_t length = LLVMFuzzerMutate(data + kFrameSize, size - kFrameSize,
                                           max_size - kFrameSize);
  const uint64_t digest = io::Xxh3Digest64(
      {reinterpret_cast<const char*>(data) + kFrameSize, length});
  std::memcpy(data + 12, &length, 8);
  std::memcpy(data + 20, &digest, 8);
  return kFrameSize + length;
}
