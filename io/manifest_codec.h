// The bytes of manifest.pb, and what must hold of a manifest.

#ifndef GRAPNEL_IO_MANIFEST_CODEC_H_
#define GRAPNEL_IO_MANIFEST_CODEC_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel::io::v1 {
class CheckpointManifest;
}  // namespace grapnel::io::v1

namespace grapnel {
namespace io {

inline constexpr uint32_t kSchemaVersion = 1;
inline constexpr int64_t kMaxManifestSize = 64 << 20;
inline constexpr int kMaxManifestTensors = 1 << 18;

// Names for `required_features`, of what a reader that doesn't know it would
// read wrongly: an epoch that was shared out anew inside, and accumulation
// windows with each rank's own gradients.
inline constexpr absl::string_view kEpochParts = "epoch_parts";
inline constexpr absl::string_view kRankWindows = "rank_windows";

// Framed as the .proto says. kInvalidArgument if DecodeManifest would refuse
// it.
absl::StatusOr<std::string> EncodeManifest(
    const v1::CheckpointManifest& manifest);

// A manifest whose every field is in range: a reader may use names as file
// names and indexes without looking again. Never trusts `bytes`.
//   kDataLoss: not as it was written. Says what.
//   kUnimplemented: needs a newer reader.
//   kResourceExhausted: more files or tensors than a reader takes on.
absl::StatusOr<v1::CheckpointManifest> DecodeManifest(absl::string_view bytes);

// Of checkpoints: may be a name in any directory, and isn't hidden.
bool IsCheckpointName(absl::string_view name);

// Of sections and blobs.
bool IsPartName(absl::string_view name);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_MANIFEST_CODEC_H_
