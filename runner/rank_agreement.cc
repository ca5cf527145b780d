#include "grapnel/runner/rank_agreement.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/rank_exchange.pb.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::RankMessage;
using ::grapnel::runner::v1::SharedContents;

absl::Status NotUnderstood(size_t rank) {
  return absl::DataLossError(absl::StrCat(
      "rank ", rank, ": sent what is none of this version's messages"));
}

void Describe(const TensorMap& tensors, SharedContents::Section* section) {
  for (const NamedTensor& named : tensors) {
    SharedContents::Tensor& tensor = *section->add_tensors();
    tensor.set_name(named.name);
    tensor.set_dtype(static_cast<int32_t>(named.tensor.scalar_type()));
    for (const int64_t size : named.tensor.sizes()) tensor.add_sizes(size);
  }
}

SharedContents Describe(const io::CheckpointContents& contents) {
  SharedContents shared;
  shared.set_manifest(contents.manifest().SerializeAsString());
  for (const auto& [name, tensors] : contents.sections) {
    SharedContents::Section& section = *shared.add_sections();
    section.set_name(name);
    Describe(tensors, &section);
  }
  for (const auto& [name, content] : contents.blobs) {
    SharedContents::Blob& blob = *shared.add_blobs();
    blob.set_name(name);
    blob.set_content(content);
  }
  return shared;
}

// One without values.
at::Tensor Allocate(const SharedContents::Tensor& tensor) {
  const std::vector<int64_t> sizes(tensor.sizes().begin(),
                                   tensor.sizes().end());
  return ops::empty(sizes, static_cast<c10::ScalarType>(tensor.dtype()));
}

// With tensors that have no values yet.
absl::Status Allocate(const SharedContents& shared,
                      io::CheckpointContents* contents) {
  *contents = io::CheckpointContents();
  if (!contents->manifest().ParseFromString(shared.manifest())) {
    return NotUnderstood(0);
  }
  for (const SharedContents::Section& section : shared.sections()) {
    TensorMap tensors;
    for (const SharedContents::Tensor& tensor : section.tensors()) {
      GRAPNEL_RETURN_IF_ERROR(tensors.Add(tensor.name(), Allocate(tensor)));
    }
    contents->sections.emplace_back(section.name(), std::move(tensors));
  }
  for (const SharedContents::Blob& blob : shared.blobs()) {
    contents->blobs.emplace_back(blob.name(), blob.content());
  }
  return absl::OkStatus();
}

// `tensor`, on the CPU, becomes that of rank `root`. As bytes: backends reduce
// few types, but every one has bytes.
absl::Status BroadcastBytes(ProcessGroup& group, const at::Tensor& tensor,
                            int root) {
  if (tensor.numel() == 0) return absl::OkStatus();
  at::Tensor bytes;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    bytes = tensor.reshape({-1}).view(at::kByte);
    return absl::OkStatus();
  }));
  return group.Broadcast(bytes, root);
}

absl::Status BroadcastNumbers(ProcessGroup& group,
                              const io::CheckpointContents& contents) {
  for (const auto& [name, tensors] : contents.sections) {
    for (const NamedTensor& named : tensors) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(BroadcastBytes(group, named.tensor, /*root=*/0),
                      absl::StrCat(name, ": tensor \"", named.name, "\"")));
    }
  }
  return absl::OkStatus();
}

// What is broadcast, in its order, by the rank that it is of.
using TensorsByRank = std::vector<std::vector<at::Tensor>>;

int64_t NumBytes(const SharedContents::Tensor& tensor) {
  int64_t bytes = static_cast<int64_t>(
      c10::elementSize(static_cast<c10::ScalarType>(tensor.dtype())));
  for (const int64_t size : tensor.sizes()) bytes *= size;
  return bytes;
}

// Adds to `*tensors` where those of other ranks come: on rank 0 into the maps
// of `*gathered`, one for each rank; elsewhere, where nobody wants them, all
// into the same bytes.
absl::Status MakeRoom(const std::vector<std::string>& described,
                      const ProcessGroup& group, TensorsByRank* tensors,
                      std::vector<TensorMap>* gathered) {
  std::vector<SharedContents::Section> sections(described.size());
  int64_t largest = 0;
  for (size_t rank = 0; rank < described.size(); ++rank) {
    if (!sections[rank].ParseFromString(described[rank])) {
      return NotUnderstood(rank);
    }
    for (const SharedContents::Tensor& tensor : sections[rank].tensors()) {
      largest = std::max(largest, NumBytes(tensor));
    }
  }
  at::Tensor passing;
  if (IsMaster(group)) {
    gathered->resize(described.size());
  } else {
    passing = ops::empty({largest}, at::kByte);
  }
  for (size_t rank = 1; rank < described.size(); ++rank) {
    if (static_cast<int>(rank) == group.rank()) continue;
    for (const SharedContents::Tensor& one : sections[rank].tensors()) {
      at::Tensor tensor =
          IsMaster(group) ? Allocate(one) : passing.narrow(0, 0, NumBytes(one));
      (*tensors)[rank].push_back(tensor);
      if (!IsMaster(group)) continue;
      GRAPNEL_RETURN_IF_ERROR(
          (*gathered)[rank].Add(one.name(), std::move(tensor)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> GatherIfOk(ProcessGroup& group,
                                                    const absl::Status& own,
                                                    absl::string_view bytes) {
  if (group.world_size() == 1) {
    GRAPNEL_RETURN_IF_ERROR(own);
    return std::vector<std::string>{std::string(bytes)};
  }
  RankMessage mine;
  mine.set_code(static_cast<int>(own.code()));
  mine.set_message(std::string(own.message()));
  if (own.ok()) mine.set_content(std::string(bytes));
  const auto gathered = group.AllGather(mine.SerializeAsString());
  // It says more than that the group is broken, and may have been agreed upon
  // before.
  if (!own.ok()) return own;
  GRAPNEL_RETURN_IF_ERROR(gathered.status());
  std::vector<std::string> contents;
  for (size_t rank = 0; rank < gathered->size(); ++rank) {
    RankMessage theirs;
    if (!theirs.ParseFromString((*gathered)[rank])) return NotUnderstood(rank);
    if (theirs.code() == 0) {
      contents.push_back(std::move(*theirs.mutable_content()));
      continue;
    }
    return absl::Status(
        static_cast<absl::StatusCode>(theirs.code()),
        absl::StrCat("rank ", rank, ": ", EscapeToUtf8(theirs.message())));
  }
  return contents;
}

absl::Status AgreeOnStatus(ProcessGroup& group, const absl::Status& own) {
  return GatherIfOk(group, own, "").status();
}

absl::StatusOr<std::string> FromMaster(ProcessGroup& group,
                                       const std::string& bytes) {
  if (group.world_size() == 1) return bytes;
  GRAPNEL_ASSIGN_OR_RETURN(
      std::vector<std::string> all,
      group.AllGather(IsMaster(group) ? bytes : std::string()));
  return std::move(all.front());
}

absl::Status ShareContents(ProcessGroup& group,
                           io::CheckpointContents* contents) {
  if (group.world_size() == 1) return absl::OkStatus();
  const c10::NoGradGuard no_grad;
  std::string described;
  if (IsMaster(group)) described = Describe(*contents).SerializeAsString();
  GRAPNEL_ASSIGN_OR_RETURN(described, FromMaster(group, described));
  absl::Status ready;
  if (!IsMaster(group)) {
    SharedContents shared;
    ready = shared.ParseFromString(described)
                ? CatchAsStatus([&] { return Allocate(shared, contents); })
                : NotUnderstood(0);
  }
  GRAPNEL_RETURN_IF_ERROR(AgreeOnStatus(group, ready));
  return BroadcastNumbers(group, *contents);
}

absl::StatusOr<std::vector<TensorMap>> GatherTensors(ProcessGroup& group,
                                                     const TensorMap& own) {
  const c10::NoGradGuard no_grad;
  TensorsByRank tensors(group.world_size());
  SharedContents::Section mine;
  const absl::Status copied = CatchAsStatus([&] {
    Describe(own, &mine);
    if (IsMaster(group)) return absl::OkStatus();
    for (const NamedTensor& named : own) {
      tensors[group.rank()].push_back(named.tensor.to(at::kCPU).contiguous());
    }
    return absl::OkStatus();
  });
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> described,
                           GatherIfOk(group, copied, mine.SerializeAsString()));
  // All that a rank can fail with alone comes before the others wait for it.
  std::vector<TensorMap> gathered;
  const absl::Status ready = CatchAsStatus(
      [&] { return MakeRoom(described, group, &tensors, &gathered); });
  GRAPNEL_RETURN_IF_ERROR(AgreeOnStatus(group, ready));
  for (int rank = 1; rank < group.world_size(); ++rank) {
    for (const at::Tensor& tensor : tensors[rank]) {
      GRAPNEL_RETURN_IF_ERROR(WithContext(BroadcastBytes(group, tensor, rank),
                                          absl::StrCat("rank ", rank)));
    }
  }
  if (IsMaster(group)) gathered[0] = own;
  return gathered;
}

}  // namespace grapnel
