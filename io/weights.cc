#include "grapnel/io/weights.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/python_layouts.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/sharded_weights.h"

namespace grapnel {
namespace io {
namespace {

constexpr char kModel[] = "model";
constexpr char kAverage[] = "ema";  // As the hook calls its own by default.

// Of a model hub's folder, in the order in which its own loader looks.
constexpr const char* kModelFiles[] = {
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json"};

constexpr int64_t kNumFirstBytes = 64;

// A header of at most 4 GiB, which the reader finds too long if it is, and its
// first byte.
bool LooksLikeSafetensors(absl::string_view first_bytes) {
  return first_bytes.size() > 8 && first_bytes[8] == '{' &&
         first_bytes.substr(4, 4) == absl::string_view("\0\0\0\0", 4);
}

bool LooksLikeJson(absl::string_view first_bytes) {
  const size_t begin = first_bytes.find_first_not_of(" \t\r\n");
  return begin != absl::string_view::npos && first_bytes[begin] == '{';
}

absl::StatusOr<WeightsFormat> FormatOf(const RandomAccessFile& file) {
  std::string first(static_cast<size_t>(std::min(file.size(), kNumFirstBytes)),
                    '\0');
  GRAPNEL_RETURN_IF_ERROR(
      file.Read(0, static_cast<int64_t>(first.size()), &first[0]));
  if (LooksLikeSafetensors(first)) return WeightsFormat::kSafetensors;
  if (LooksLikePth(first)) return WeightsFormat::kPth;
  if (LooksLikeJson(first)) return WeightsFormat::kShardIndex;
  return absl::InvalidArgumentError(absl::StrCat(
      "holds no weights: is neither a checkpoint's directory nor a file of "
      "safetensors, of torch.save or of the index of one in shards",
      first.empty() ? ", but empty" : ""));
}

absl::StatusOr<WeightsSource> FindInFile(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file,
                           env.NewRandomAccessFile(path));
  const absl::StatusOr<WeightsFormat> format = FormatOf(*file);
  if (!format.ok()) return WithContext(format.status(), path);
  return WeightsSource{*format, path};
}

// Of a directory without a manifest.
absl::StatusOr<WeightsSource> FindInFolder(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           env.ListDir(path));
  // Its weights may be whole, but nothing says so.
  const auto blob = absl::c_find_if(names, [](const std::string& name) {
    return absl::EndsWith(name, kBlobSuffix);
  });
  for (const char* const name : kModelFiles) {
    if (blob == names.end() && absl::c_linear_search(names, name)) {
      return FindInFile(env, JoinPath(path, name));
    }
  }
  const std::string inside = CheckpointsIn(env, path);
  if (!inside.empty()) {
    return absl::NotFoundError(
        absl::StrCat(path, ": is no checkpoint; checkpoints in it: ", inside));
  }
  if (blob != names.end()) {
    return absl::NotFoundError(absl::StrCat(path, ": no checkpoint: has ",
                                            *blob, ", but no ", kManifestFile));
  }
  return absl::NotFoundError(
      absl::StrCat(path, ": no checkpoint and no model of a hub: has none of ",
                   kManifestFile, ", ", absl::StrJoin(kModelFiles, ", ")));
}

// With the names of the file.
absl::StatusOr<PythonWeights> ReadPth(Env& env, const std::string& path) {
  PthOptions options;
  options.allow_foreign = true;  // Only tensors are taken.
  GRAPNEL_ASSIGN_OR_RETURN(const PthFile file,
                           PthFile::Read(env, path, options));
  absl::StatusOr<PythonWeights> weights = FindStateDict(file.root());
  if (!weights.ok()) return WithContext(weights.status(), path);
  return weights;
}

absl::StatusOr<TensorMap> ReadShard(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const WeightsSource source, FindInFile(env, path));
  switch (source.format) {
    case WeightsFormat::kSafetensors:
      return ReadSafetensors(env, path);
    case WeightsFormat::kPth: {
      GRAPNEL_ASSIGN_OR_RETURN(PythonWeights weights, ReadPth(env, path));
      return std::move(weights.tensors);
    }
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": is neither a file of safetensors nor of torch.save"));
  }
}

}  // namespace

absl::StatusOr<WeightsSource> FindWeights(Env& env, const std::string& path) {
  if (!env.FileExists(path)) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no checkpoint and no file of weights"));
  }
  if (!env.IsDirectory(path)) return FindInFile(env, path);
  if (env.FileExists(JoinPath(path, kManifestFile))) {
    return WeightsSource{WeightsFormat::kCheckpoint, path};
  }
  return FindInFolder(env, path);
}

absl::StatusOr<CheckpointContents> ReadWeightsAndMore(Env& env,
                                                      const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const WeightsSource source, FindWeights(env, path));
  CheckpointContents contents;
  PythonWeights weights;
  switch (source.format) {
    case WeightsFormat::kCheckpoint: {
      GRAPNEL_ASSIGN_OR_RETURN(contents, ReadCheckpoint(env, source.path));
      if (contents.FindSection(kModel) != nullptr) return contents;
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": has no section \"", kModel, "\""));
    }
    case WeightsFormat::kSafetensors: {
      GRAPNEL_ASSIGN_OR_RETURN(weights.tensors,
                               ReadSafetensors(env, source.path));
      break;
    }
    case WeightsFormat::kPth: {
      GRAPNEL_ASSIGN_OR_RETURN(weights, ReadPth(env, source.path));
      break;
    }
    case WeightsFormat::kShardIndex: {
      GRAPNEL_ASSIGN_OR_RETURN(
          weights.tensors,
          ReadShardedWeights(env, source.path, [&](const std::string& shard) {
            return ReadShard(env, shard);
          }));
      break;
    }
  }
  // Of all formats, and of all shards at once: each may have names of its own.
  absl::StatusOr<PythonWeights> own = WithoutWrappers(weights);
  if (!own.ok()) return WithContext(own.status(), source.path);
  contents.sections.emplace_back(kModel, own->tensors);
  if (own->averaged) contents.sections.emplace_back(kAverage, own->tensors);
  return contents;
}

absl::StatusOr<TensorMap> ReadWeights(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const CheckpointContents contents,
                           ReadWeightsAndMore(env, path));
  return *contents.FindSection(kModel);
}

}  // namespace io
}  // namespace grapnel
