#include "grapnel/io/sharded_weights.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/io/out_of_memory.h"
#include "grapnel/io/python_layouts.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/io/unique_name.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kMaxIndexSize = 100'000'000;
constexpr size_t kMaxFileNameSize = 255;
constexpr int kMaxNesting = 16;
constexpr char kWeightMap[] = "weight_map";

// Takes an index's tokens one by one. Only the map's are looked at; the rest is
// counted in and out.
class IndexReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  absl::StatusOr<ShardIndex> Finish() {
    GRAPNEL_RETURN_IF_ERROR(status_);
    if (!has_map_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "is not an index of shards: has no \"", kWeightMap, "\""));
    }
    return std::move(index_);
  }

  bool start_object(size_t) override {
    switch (expected_) {
      case Expected::kIndex:
        expected_ = Expected::kMember;
        return true;
      case Expected::kMap:
        has_map_ = true;
        expected_ = Expected::kTensor;
        return true;
      default:
        return Deeper("an object");
    }
  }

  bool key(std::string& name) override {
    switch (expected_) {
      case Expected::kMember:
        if (!members_.insert(name).second) {
          return Fail(absl::StrCat("key ", QuotedName(name), " comes twice"));
        }
        expected_ = name == kWeightMap ? Expected::kMap : Expected::kPassedOver;
        return true;
      case Expected::kTensor:
        return Tensor(std::move(name));
      default:  // kPassedOver: no other object has names.
        return true;
    }
  }

  bool string(std::string& text) override {
    if (expected_ != Expected::kFile) return Scalar("a string");
    if (!IsVisibleName(text, kMaxFileNameSize)) {
      return Fail(absl::StrCat("file ", QuotedName(text),
                               " is not the name of one beside the index"));
    }
    const auto [it, is_new] = shards_.emplace(text, index_.shards.size());
    if (is_new) index_.shards.push_back({std::move(text), {}});
    index_.shards[it->second].tensors.push_back(std::move(tensor_));
    expected_ = Expected::kTensor;
    return true;
  }

  bool end_object() override {
    switch (expected_) {
      case Expected::kMember:
        expected_ = Expected::kNothing;
        return true;
      case Expected::kTensor:
        expected_ = Expected::kMember;
        return true;
      default:
        return Shallower();
    }
  }

  bool start_array(size_t) override { return Deeper("an array"); }
  bool end_array() override { return Shallower(); }
  bool null() override { return Scalar("null"); }
  bool boolean(bool) override { return Scalar("a truth value"); }
  bool number_integer(int64_t) override { return Scalar("a number"); }
  bool number_unsigned(uint64_t) override { return Scalar("a number"); }
  bool number_float(double, const std::string&) override {
    return Scalar("a number");
  }
  bool binary(nlohmann::json::binary_t&) override { return Scalar("bytes"); }

  bool parse_error(size_t position, const std::string& last_token,
                   const nlohmann::detail::exception&) override {
    status_ = absl::InvalidArgumentError(absl::StrCat(
        "byte ", position - 1, ": not JSON at ", QuotedName(last_token)));
    return false;
  }

 private:
  enum class Expected {
    kIndex,
    kMember,  // Or the end.
    kPassedOver,
    kMap,
    kTensor,  // Or the end.
    kFile,
    kNothing,
  };

  bool Fail(absl::string_view what) {
    status_ = absl::InvalidArgumentError(
        expected_ == Expected::kFile
            ? absl::StrCat("tensor ", QuotedName(tensor_), ": ", what)
            : std::string(what));
    return false;
  }

  bool Unexpected(absl::string_view what) {
    return Fail(absl::StrCat(
        expected_ == Expected::kMap ? absl::StrCat(kWeightMap, ": ") : "", what,
        " where ", expected_ == Expected::kFile ? "a file's name" : "an object",
        " is expected"));
  }

  bool Scalar(absl::string_view what) {
    if (expected_ != Expected::kPassedOver) return Unexpected(what);
    if (nesting_ == 0) expected_ = Expected::kMember;
    return true;
  }

  bool Deeper(absl::string_view what) {
    if (expected_ != Expected::kPassedOver) return Unexpected(what);
    if (++nesting_ <= kMaxNesting) return true;
    return Fail(absl::StrCat("nested deeper than ", kMaxNesting));
  }

  bool Shallower() {
    if (--nesting_ == 0) expected_ = Expected::kMember;
    return true;
  }

  bool Tensor(std::string name) {
    status_ = CheckTensorName(name);
    if (!status_.ok()) return false;
    if (tensors_.size() == kMaxManifestTensors) {
      status_ = absl::ResourceExhaustedError(
          absl::StrCat("lists more than ", kMaxManifestTensors, " tensors"));
      return false;
    }
    if (!tensors_.insert(name).second) {
      return Fail(absl::StrCat("tensor ", QuotedName(name), " comes twice"));
    }
    tensor_ = std::move(name);
    expected_ = Expected::kFile;
    return true;
  }

  Expected expected_ = Expected::kIndex;
  absl::Status status_;
  ShardIndex index_;
  absl::flat_hash_map<std::string, size_t> shards_;  // Places in `index_`.
  absl::flat_hash_set<std::string> members_, tensors_;
  bool has_map_ = false;
  int nesting_ = 0;     // In a member that is passed over.
  std::string tensor_;  // Whose file comes next.
};

// By tensor, the shard that it is in.
using Places = absl::flat_hash_map<absl::string_view, const ShardIndex::Shard*>;

absl::Status CheckShard(const ShardIndex::Shard& shard,
                        const TensorMap& tensors, const Places& places) {
  for (const std::string& name : shard.tensors) {
    if (tensors.Find(name) != nullptr || IsExtraState(name)) continue;
    return absl::DataLossError(absl::StrCat("tensor ", QuotedName(name),
                                            " isn't there, but in the index"));
  }
  for (const NamedTensor& tensor : tensors) {
    const auto place = places.find(tensor.name);
    if (place != places.end() && place->second == &shard) continue;
    return absl::DataLossError(absl::StrCat(
        "tensor ", QuotedName(tensor.name), " is there, but in the index ",
        place == places.end()
            ? std::string("nowhere")
            : absl::StrCat("in ", QuotedName(place->second->file))));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorMap> ReadShards(Env& env, const std::string& dir,
                                     const ShardIndex& index,
                                     const ShardReader& read) {
  Places places;
  for (const ShardIndex::Shard& shard : index.shards) {
    if (!env.FileExists(JoinPath(dir, shard.file))) {
      return absl::DataLossError(
          absl::StrCat("shard ", QuotedName(shard.file), ", with tensor ",
                       QuotedName(shard.tensors.front()), ": isn't there"));
    }
    for (const std::string& name : shard.tensors) places[name] = &shard;
  }
  TensorMap all;
  for (const ShardIndex::Shard& shard : index.shards) {
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap tensors,
                             read(JoinPath(dir, shard.file)));
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(CheckShard(shard, tensors, places),
                    absl::StrCat("shard ", QuotedName(shard.file))));
    for (const NamedTensor& tensor : tensors) {
      GRAPNEL_RETURN_IF_ERROR(all.Add(tensor.name, tensor.tensor));
    }
  }
  return all;
}

}  // namespace

absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view json) {
  // The library takes a NUL for the end.
  if (json.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("is not an index of shards: holds a NUL");
  }
  IndexReader reader;
  // What it says of a failure is in the reader.
  static_cast<void>(
      nlohmann::json::sax_parse(json.begin(), json.end(), &reader));
  return reader.Finish();
}

absl::StatusOr<ShardIndex> ReadShardIndex(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::string json,
                           ReadFile(env, path, kMaxIndexSize));
  absl::StatusOr<ShardIndex> index =
      CatchOutOfMemory("index", [&] { return ParseShardIndex(json); });
  if (!index.ok()) return WithContext(index.status(), path);
  return index;
}

absl::StatusOr<TensorMap> ReadShardedWeights(Env& env, const std::string& path,
                                             const ShardReader& read) {
  GRAPNEL_ASSIGN_OR_RETURN(const ShardIndex index, ReadShardIndex(env, path));
  absl::StatusOr<TensorMap> tensors =
      ReadShards(env, std::string(Dirname(path)), index, read);
  if (!tensors.ok()) return WithContext(tensors.status(), path);
  return tensors;
}

}  // namespace io
}  // namespace grapnel
