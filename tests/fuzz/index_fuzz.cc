// model.safetensors.index.json, with two shards beside it.

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/json_string.h"
#include "grapnel/base/log.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/io/sharded_weights.h"
#include "grapnel/tests/fuzz/bytes_env.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {
namespace {

using ::grapnel::io::ShardIndex;

// A file of empty tensors, with one-letter names.
std::string Shard(absl::string_view names) {
  std::string header = "{";
  for (const char name : names) {
    absl::StrAppend(&header, header.size() > 1 ? "," : "", "\"",
                    absl::string_view(&name, 1),
                    R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})");
  }
  header += "}";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  GRAPNEL_CHECK(header.size() < 256);
  return file + header;
}

// An index that is accepted is written and read as the same.
void CheckRoundTrip(const ShardIndex& index) {
  std::string json = "{\"weight_map\":{";
  std::set<std::string> files, tensors;
  for (const ShardIndex::Shard& shard : index.shards) {
    GRAPNEL_CHECK(files.insert(shard.file).second);
    GRAPNEL_CHECK(!shard.file.empty() && shard.file[0] != '.' &&
                  !absl::StrContains(shard.file, '/'));
    GRAPNEL_CHECK(!shard.tensors.empty());
    for (const std::string& tensor : shard.tensors) {
      GRAPNEL_CHECK(tensors.insert(tensor).second);
      GRAPNEL_CHECK(io::CheckTensorName(tensor).ok());
      absl::StrAppend(&json, tensors.size() > 1 ? "," : "", JsonString(tensor),
                      ":", JsonString(shard.file));
    }
  }
  const absl::StatusOr<ShardIndex> again = io::ParseShardIndex(json + "}}");
  GRAPNEL_CHECK(again.ok()) << again.status();
  GRAPNEL_CHECK(again->shards.size() == index.shards.size());
  for (size_t i = 0; i < index.shards.size(); ++i) {
    GRAPNEL_CHECK(again->shards[i].file == index.shards[i].file);
    GRAPNEL_CHECK(again->shards[i].tensors == index.shards[i].tensors);
  }
}

}  // namespace
}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace grapnel;
  static const std::string* const first = new std::string(Shard("ab"));
  static const std::string* const second = new std::string(Shard("c"));
  const absl::string_view json(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<ShardIndex> index = io::ParseShardIndex(json);
  NoteOutcome(index.status());

  BytesEnv env({{"/model.safetensors.index.json", json},
                {"/1.safetensors", *first},
                {"/2.safetensors", *second}});
  const absl::StatusOr<TensorMap> tensors = io::ReadShardedWeights(
      env, "/model.safetensors.index.json",
      [&env](const std::string& path) { return ReadSafetensors(env, path); });
  CheckStatus(tensors.status());
  GRAPNEL_CHECK(index.ok() || !tensors.ok());
  if (!index.ok()) return 0;
  CheckRoundTrip(*index);
  if (!tensors.ok()) return 0;
  size_t listed = 0;
  for (const ShardIndex::Shard& shard : index->shards) {
    for (const std::string& name : shard.tensors) {
      GRAPNEL_CHECK(tensors->Find(name) != nullptr) << name;
      ++listed;
    }
  }
  GRAPNEL_CHECK(tensors->size() == listed);
  return 0;
}
