#include "grapnel/io/verify_checkpoint.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/out_of_memory.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kChunkSize = 1 << 20;
constexpr char kDiffers[] = "bytes differ from those that were written";

// One listed file.
class FileVerifier {
 public:
  FileVerifier(Env& env, const std::string& checkpoint,
               const v1::FileRecord& record, const TensorRecords& tensors,
               std::vector<CheckpointDamage>& damages)
      : env_(env),
        checkpoint_(checkpoint),
        path_(JoinPath(checkpoint, record.name())),
        record_(record),
        tensors_(tensors),
        damages_(damages),
        buffer_(static_cast<size_t>(kChunkSize), '\0') {}

  void Verify() {
    const absl::StatusOr<ListedPart> part =
        ParsePartFile(record_.name(), !tensors_.empty());
    if (!part.ok()) return Report("", part.status());
    const absl::StatusOr<std::unique_ptr<RandomAccessFile>> whole =
        OpenListedFile(env_, checkpoint_, record_);
    if (!whole.ok()) {
      Report("", whole.status());
      return VerifyTensorsOfBadFile();
    }
    file_ = whole->get();
    const size_t before = damages_.size();
    if (part->is_section) {
      const auto entries = ReadSafetensorsHeader(*file_, path_);
      Report("", entries.ok() ? CheckSectionHeader(*entries, tensors_)
                              : AsDataLoss(entries.status()));
    }
    VerifyBytes(damages_.size() > before);
  }

 private:
  void Report(absl::string_view tensor, const absl::Status& status) {
    if (status.ok()) return;
    absl::string_view what = status.message();
    if (absl::ConsumePrefix(&what, path_)) absl::ConsumePrefix(&what, ": ");
    damages_.push_back(
        {record_.name(), std::string(tensor), std::string(what)});
  }

  // Of a file that was cut off, or has bytes too many, tensors may be whole.
  void VerifyTensorsOfBadFile() {
    if (tensors_.empty() || env_.IsSymlink(path_)) return;
    const absl::StatusOr<std::unique_ptr<RandomAccessFile>> file =
        env_.NewRandomAccessFile(path_);
    if (!file.ok()) return;
    file_ = file->get();
    for (const v1::TensorRecord* tensor : InOrder()) {
      VerifyTensor(*tensor, nullptr);
    }
  }

  void VerifyBytes(bool header_is_bad) {
    Xxh3Hasher128 digest;
    uint64_t end = 0;
    const size_t before = damages_.size();
    for (const v1::TensorRecord* tensor : InOrder()) {
      // Where they overlap, which a good header rules out, each is read alone.
      const bool follows = tensor->file_offset() >= end;
      if (follows) {
        if (!Hash(end, tensor->file_offset(), digest)) return;
        end = tensor->file_offset() + tensor->num_bytes();
      }
      VerifyTensor(*tensor, follows ? &digest : nullptr);
    }
    if (!Hash(end, record_.num_bytes(), digest)) return;
    if (damages_.size() > before || header_is_bad ||
        digest.Digest() == record_.xxh3_128()) {
      return;
    }
    Report("", absl::DataLossError(
                   tensors_.empty()
                       ? std::string(kDiffers)
                       : absl::StrCat("outside of tensors ", kDiffers)));
  }

  // Whether [begin, end) could be read.
  bool Hash(uint64_t begin, uint64_t end, Xxh3Hasher128& digest) {
    const absl::Status status =
        ForEachChunk(begin, end - begin,
                     [&](absl::string_view chunk) { digest.Update(chunk); });
    Report("", status);
    return status.ok();
  }

  void VerifyTensor(const v1::TensorRecord& tensor,
                    Xxh3Hasher128* file_digest) {
    const uint64_t end = tensor.file_offset() + tensor.num_bytes();
    const uint64_t size = static_cast<uint64_t>(file_->size());
    if (tensor.num_bytes() > 0 && end > size) {
      return Report(tensor.name(), absl::DataLossError(absl::StrCat(
                                       "ends at byte ", end, " of ", size)));
    }
    Xxh3Hasher64 digest;
    int64_t bad_bools = 0;
    const absl::Status read = ForEachChunk(
        tensor.file_offset(), tensor.num_bytes(), [&](absl::string_view chunk) {
          digest.Update(chunk);
          if (file_digest != nullptr) file_digest->Update(chunk);
          if (tensor.dtype() != "BOOL") return;
          bad_bools += std::count_if(chunk.begin(), chunk.end(), [](char c) {
            return static_cast<unsigned char>(c) > 1;
          });
        });
    if (!read.ok()) {
      Report(tensor.name(), read);
    } else if (digest.Digest() != tensor.xxh3_64()) {
      Report(tensor.name(), absl::DataLossError(kDiffers));
    } else if (bad_bools > 0) {
      Report(tensor.name(),
             absl::DataLossError(absl::StrCat(
                 bad_bools, " elements of BOOL are not 0 and not 1")));
    }
  }

  template <typename F>
  absl::Status ForEachChunk(uint64_t begin, uint64_t size, F f) {
    while (size > 0) {
      const int64_t n = std::min<int64_t>(kChunkSize, size);
      GRAPNEL_RETURN_IF_ERROR(
          file_->Read(static_cast<int64_t>(begin), n, buffer_.data()));
      f(absl::string_view(buffer_.data(), static_cast<size_t>(n)));
      begin += static_cast<uint64_t>(n);
      size -= static_cast<uint64_t>(n);
    }
    return absl::OkStatus();
  }

  TensorRecords InOrder() const {
    TensorRecords ordered = tensors_;
    std::stable_sort(ordered.begin(), ordered.end(),
                     [](const v1::TensorRecord* a, const v1::TensorRecord* b) {
                       return a->file_offset() < b->file_offset();
                     });
    return ordered;
  }

  Env& env_;
  const std::string& checkpoint_;
  const std::string path_;
  const v1::FileRecord& record_;
  const TensorRecords& tensors_;
  std::vector<CheckpointDamage>& damages_;
  std::string buffer_;
  const RandomAccessFile* file_ = nullptr;
};

absl::StatusOr<VerifiedCheckpoint> VerifyAll(Env& env,
                                             const std::string& path) {
  VerifiedCheckpoint verified;
  const auto manifest = ReadManifest(env, path);
  if (absl::IsDataLoss(manifest.status())) {
    absl::string_view what = manifest.status().message();
    absl::ConsumePrefix(&what,
                        absl::StrCat(JoinPath(path, kManifestFile), ": "));
    verified.damages.push_back({kManifestFile, "", std::string(what)});
    return verified;
  }
  GRAPNEL_RETURN_IF_ERROR(manifest.status());
  std::vector<TensorRecords> tensors(
      static_cast<size_t>(manifest->files_size()));
  for (const v1::TensorRecord& tensor : manifest->tensors()) {
    tensors[tensor.file()].push_back(&tensor);
  }
  verified.num_files = manifest->files_size();
  verified.num_tensors = manifest->tensors_size();
  for (int i = 0; i < manifest->files_size(); ++i) {
    verified.num_bytes += static_cast<int64_t>(manifest->files(i).num_bytes());
    FileVerifier(env, path, manifest->files(i), tensors[static_cast<size_t>(i)],
                 verified.damages)
        .Verify();
  }
  return verified;
}

}  // namespace

absl::StatusOr<VerifiedCheckpoint> VerifyCheckpoint(Env& env,
                                                    const std::string& path) {
  return CatchOutOfMemory(path, [&] { return VerifyAll(env, path); });
}

}  // namespace io
}  // namespace grapnel
