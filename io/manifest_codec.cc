#include "grapnel/io/manifest_codec.h"

#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/unique_name.h"

namespace grapnel {
namespace io {
namespace {

constexpr absl::string_view kMagic = "GRPNLCK1";
constexpr uint32_t kFrameVersion = 1;
constexpr size_t kFrameSize = 28;  // Magic, version, length, digest.

constexpr int kMaxFiles = 10'000;
constexpr int kMaxDims = 64;
constexpr size_t kMaxTensorNameSize = 4096;
constexpr size_t kMaxCheckpointNameSize = 200;
constexpr size_t kMaxFileNameSize = 255;
constexpr size_t kMaxPartNameSize = 64;
constexpr size_t kUuidSize = 16;
constexpr size_t kDigestSize = 16;

void AppendNumber(uint64_t number, int size, std::string* bytes) {
  for (int i = 0; i < size; ++i) *bytes += static_cast<char>(number >> 8 * i);
}

uint64_t ReadNumber(absl::string_view bytes) {
  uint64_t number = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    number = number << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return number;
}

// The whole of `bytes` but its frame.
absl::StatusOr<absl::string_view> Unframe(absl::string_view bytes) {
  if (bytes.size() < kFrameSize) {
    return absl::DataLossError(absl::StrCat(
        "has ", bytes.size(), " bytes, a frame alone has ", kFrameSize));
  }
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError(
        absl::StrCat("begins with \"", absl::CHexEscape(bytes.substr(0, 8)),
                     "\", not with \"", kMagic, "\""));
  }
  const uint64_t version = ReadNumber(bytes.substr(8, 4));
  const uint64_t length = ReadNumber(bytes.substr(12, 8));
  const uint64_t digest = ReadNumber(bytes.substr(20, 8));
  const absl::string_view body = bytes.substr(kFrameSize);
  if (version == 0) return absl::DataLossError("frame version is 0");
  if (version > kFrameVersion) {
    return absl::UnimplementedError(
        absl::StrCat("frame version ", version, " is newer than ",
                     kFrameVersion, ", which this reads"));
  }
  if (length != body.size()) {
    return absl::DataLossError(absl::StrCat(
        "frame says ", length, " bytes of body, there are ", body.size()));
  }
  if (digest != Xxh3Digest64(body)) {
    return absl::DataLossError("body does not have the frame's digest");
  }
  return body;
}

std::string Quoted(absl::string_view name) {
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, 200)), "\"");
}

absl::Status CheckFile(const v1::FileRecord& file) {
  if (!IsVisibleName(file.name(), kMaxFileNameSize)) {
    return absl::DataLossError(absl::StrCat("name ", Quoted(file.name()),
                                            " is not that of a file here"));
  }
  if (file.num_bytes() > std::numeric_limits<int64_t>::max()) {
    return absl::DataLossError(
        absl::StrCat("num_bytes: must be below 2^63, is ", file.num_bytes()));
  }
  if (file.xxh3_128().size() != kDigestSize) {
    return absl::DataLossError(absl::StrCat(
        "xxh3_128: must have 16 bytes, has ", file.xxh3_128().size()));
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const v1::CheckpointManifest& manifest,
                         const v1::TensorRecord& tensor) {
  if (tensor.name().empty() || tensor.name().size() > kMaxTensorNameSize) {
    return absl::DataLossError(absl::StrCat(
        "name: must have 1 to 4096 bytes, has ", tensor.name().size()));
  }
  if (tensor.file() >= static_cast<uint32_t>(manifest.files_size())) {
    return absl::DataLossError(absl::StrCat(
        "file: must be below ", manifest.files_size(), ", is ", tensor.file()));
  }
  if (tensor.shape_size() > kMaxDims) {
    return absl::DataLossError(absl::StrCat("shape: has ", tensor.shape_size(),
                                            " dimensions, may have 64"));
  }
  for (const int64_t dim : tensor.shape()) {
    if (dim < 0) {
      return absl::DataLossError(
          absl::StrCat("shape: must be >= 0, has ", dim));
    }
  }
  const uint64_t size = manifest.files(tensor.file()).num_bytes();
  if (tensor.file_offset() > size ||
      tensor.num_bytes() > size - tensor.file_offset()) {
    return absl::DataLossError(absl::StrCat("has ", tensor.num_bytes(),
                                            " bytes at ", tensor.file_offset(),
                                            " of a file of ", size));
  }
  return absl::OkStatus();
}

absl::Status CheckProgress(const v1::Progress& progress) {
  const std::pair<const char*, int64_t> fields[] = {
      {"epoch", progress.epoch()},
      {"iter", progress.iter()},
      {"iter_in_epoch", progress.iter_in_epoch()},
      {"updates", progress.updates()},
      {"samples", progress.samples()},
      {"max_epochs", progress.max_epochs()},
      {"max_iters", progress.max_iters()},
      {"pass", progress.pass()},
      {"samples_in_pass", progress.samples_in_pass()}};
  for (const auto& [name, value] : fields) {
    if (value < 0) {
      return absl::DataLossError(
          absl::StrCat("progress.", name, ": must be >= 0, is ", value));
    }
  }
  for (int i = 0; i < progress.epoch_lengths_size(); ++i) {
    const v1::EpochLength& length = progress.epoch_lengths(i);
    if (length.epoch() < 0 || length.iter() < 0 || length.num_batches() < 1 ||
        length.samples() < 0 || length.batches_left() < 0) {
      return absl::DataLossError(absl::StrCat(
          "progress.epoch_lengths[", i,
          "]: must be >= 0, and >= 1 batches, is ", length.ShortDebugString()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckVersion(const v1::CheckpointManifest& manifest) {
  if (manifest.schema_version() == 0) {
    return absl::DataLossError("schema_version: must be >= 1, is 0");
  }
  if (manifest.schema_version() > kSchemaVersion) {
    return absl::UnimplementedError(
        absl::StrCat("schema_version ", manifest.schema_version(),
                     " is newer than ", kSchemaVersion, ", which this reads"));
  }
  for (const std::string& feature : manifest.required_features()) {
    if (feature == kEpochParts || feature == kRankWindows) continue;
    return absl::UnimplementedError(
        absl::StrCat("required feature ", Quoted(feature), " is unknown"));
  }
  return absl::OkStatus();
}

absl::Status CheckLimits(const v1::CheckpointManifest& manifest) {
  if (manifest.files_size() > kMaxFiles) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "lists ", manifest.files_size(), " files, may list ", kMaxFiles));
  }
  if (manifest.tensors_size() > kMaxManifestTensors) {
    return absl::ResourceExhaustedError(
        absl::StrCat("lists ", manifest.tensors_size(), " tensors, may list ",
                     kMaxManifestTensors));
  }
  return absl::OkStatus();
}

absl::Status CheckManifest(const v1::CheckpointManifest& manifest) {
  GRAPNEL_RETURN_IF_ERROR(CheckVersion(manifest));
  GRAPNEL_RETURN_IF_ERROR(CheckLimits(manifest));
  if (!IsCheckpointName(manifest.name())) {
    return absl::DataLossError(absl::StrCat("name: ", Quoted(manifest.name()),
                                            " is not that of a checkpoint"));
  }
  if (manifest.checkpoint_uuid().size() != kUuidSize) {
    return absl::DataLossError(
        absl::StrCat("checkpoint_uuid: must have 16 bytes, has ",
                     manifest.checkpoint_uuid().size()));
  }
  if (manifest.world_size() < 1) {
    return absl::DataLossError(
        absl::StrCat("world_size: must be >= 1, is ", manifest.world_size()));
  }
  if (manifest.files().empty()) return absl::DataLossError("lists no file");
  absl::flat_hash_set<absl::string_view> names;
  for (const v1::FileRecord& file : manifest.files()) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        CheckFile(file), absl::StrCat("file ", Quoted(file.name()))));
    if (!names.insert(file.name()).second) {
      return absl::DataLossError(
          absl::StrCat("file ", Quoted(file.name()), ": listed twice"));
    }
  }
  for (const v1::TensorRecord& tensor : manifest.tensors()) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(CheckTensor(manifest, tensor),
                    absl::StrCat("tensor ", Quoted(tensor.name()))));
  }
  return CheckProgress(manifest.progress());
}

}  // namespace

absl::StatusOr<std::string> EncodeManifest(
    const v1::CheckpointManifest& manifest) {
  const absl::StatusOr<std::string> serialized = SerializeChecked(manifest);
  if (!serialized.ok()) return WithContext(serialized.status(), "manifest");
  const std::string& body = *serialized;
  std::string bytes(kMagic);
  AppendNumber(kFrameVersion, 4, &bytes);
  AppendNumber(body.size(), 8, &bytes);
  AppendNumber(Xxh3Digest64(body), 8, &bytes);
  bytes += body;
  if (bytes.size() > kMaxManifestSize) {
    return absl::InvalidArgumentError(absl::StrCat(
        "manifest: has ", bytes.size(), " bytes, may have ", kMaxManifestSize));
  }
  const absl::Status status = DecodeManifest(bytes).status();
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("manifest: ", status.message()));
  }
  return bytes;
}

absl::StatusOr<v1::CheckpointManifest> DecodeManifest(absl::string_view bytes) {
  GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view body, Unframe(bytes));
  v1::CheckpointManifest manifest;
  if (!ParseQuietly(body, &manifest)) {
    return absl::DataLossError("body is not a CheckpointManifest");
  }
  GRAPNEL_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

bool IsCheckpointName(absl::string_view name) {
  return IsVisibleName(name, kMaxCheckpointNameSize);
}

bool IsPartName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxPartNameSize) return false;
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '_') {
      return false;
    }
  }
  return true;
}

}  // namespace io
}  // namespace grapnel
