// Weights in several files, with an index of which tensor is in which, as model
// hubs have them: model.safetensors.index.json, pytorch_model.bin.index.json.

#ifndef GRAPNEL_IO_SHARDED_WEIGHTS_H_
#define GRAPNEL_IO_SHARDED_WEIGHTS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

struct ShardIndex {
  struct Shard {
    std::string file;  // A name in the index's directory.
    std::vector<std::string> tensors;
  };
  std::vector<Shard> shards;  // As the index comes to them.
};

// An index: an object whose "weight_map" is one of names of tensors to names of
// files; what else it has is passed over. Never trusts it: no key comes twice,
// names of tensors are those that ReadSafetensors takes, and a file's is one
// component of a path, printable, that doesn't begin with ".".
// kInvalidArgument, naming the tensor or the byte, from 0; kResourceExhausted
// if it lists more tensors than a checkpoint may have.
absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view json);

// The index at `path`, which has at most 100 MB. Fails as ParseShardIndex and
// ReadFile do; kResourceExhausted also if memory doesn't hold it. Messages name
// `path`.
absl::StatusOr<ShardIndex> ReadShardIndex(Env& env, const std::string& path);

// Reads one file of an index; messages name `path`.
using ShardReader =
    std::function<absl::StatusOr<TensorMap>(const std::string& path)>;

// All tensors of the index at `path` and of the shards beside it, each of which
// `read` reads once. Messages name the index.
//   kDataLoss: a shard isn't there, or hasn't the tensors that the index says
//     it has, those and no others, but for what IsExtraState, which may be
//     missing; names shard and tensor.
//   Else as ReadShardIndex and `read`.
absl::StatusOr<TensorMap> ReadShardedWeights(Env& env, const std::string& path,
                                             const ShardReader& read);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_SHARDED_WEIGHTS_H_
