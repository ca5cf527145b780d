#include "grapnel/runner/rank_buffers.h"

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/models/load_tensors.h"
#include "grapnel/runner/rank_agreement.h"

namespace grapnel {
namespace {

constexpr char kSection[] = "rank_buffers";

// On the CPU, contiguous.
absl::StatusOr<std::vector<at::Tensor>> OnHost(
    const std::vector<NamedTensor>& buffers) {
  std::vector<at::Tensor> copies;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    for (const NamedTensor& buffer : buffers) {
      copies.push_back(buffer.tensor.to(at::kCPU).contiguous());
    }
    return absl::OkStatus();
  }));
  return copies;
}

absl::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// Of each buffer, by rank.
using Digests = std::vector<std::vector<std::string>>;

absl::StatusOr<Digests> GatherDigests(
    ProcessGroup& group,
    const absl::StatusOr<std::vector<at::Tensor>>& buffers) {
  constexpr size_t kSize = 16;
  std::string mine;
  if (buffers.ok()) {
    for (const at::Tensor& buffer : *buffers) {
      mine += io::Xxh3Digest128(BytesOf(buffer));
    }
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> gathered,
                           GatherIfOk(group, buffers.status(), mine));
  Digests digests;
  for (const std::string& theirs : gathered) {
    GRAPNEL_RET_CHECK(theirs.size() == gathered.front().size());
    std::vector<std::string>& rank = digests.emplace_back();
    for (size_t i = 0; i < theirs.size(); i += kSize) {
      rank.push_back(theirs.substr(i, kSize));
    }
  }
  return digests;
}

std::vector<size_t> WhereRanksDiffer(const Digests& digests) {
  std::vector<size_t> differing;
  for (size_t i = 0; i < digests[0].size(); ++i) {
    for (const std::vector<std::string>& rank : digests) {
      if (rank[i] == digests[0][i]) continue;
      differing.push_back(i);
      break;
    }
  }
  return differing;
}

}  // namespace

absl::Status AddRankBuffers(ProcessGroup& group,
                            const std::vector<NamedTensor>& buffers,
                            io::CheckpointContents* contents) {
  if (group.world_size() == 1 || buffers.empty()) return absl::OkStatus();
  const c10::NoGradGuard no_grad;
  const auto mine = OnHost(buffers);
  GRAPNEL_ASSIGN_OR_RETURN(const Digests digests, GatherDigests(group, mine));
  const std::vector<size_t> differing = WhereRanksDiffer(digests);
  if (differing.empty()) return absl::OkStatus();

  std::string bytes;
  for (const size_t i : differing) absl::StrAppend(&bytes, BytesOf((*mine)[i]));
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> gathered,
                           group.AllGather(bytes));
  TensorMap section;
  for (size_t rank = 1; rank < gathered.size(); ++rank) {
    GRAPNEL_RET_CHECK(gathered[rank].size() == bytes.size());
    const char* next = gathered[rank].data();
    for (const size_t i : differing) {
      const char* const begin = next;
      next += (*mine)[i].nbytes();
      if (digests[rank][i] == digests[0][i]) continue;
      at::Tensor theirs = ops::empty_like((*mine)[i]);
      std::memcpy(theirs.mutable_data_ptr(), begin, theirs.nbytes());
      GRAPNEL_RETURN_IF_ERROR(section.Add(
          absl::StrCat(rank, "/", buffers[i].name), std::move(theirs)));
    }
  }
  contents->sections.emplace_back(kSection, std::move(section));
  return absl::OkStatus();
}

absl::Status LoadRankBuffers(const io::CheckpointContents& contents,
                             const ProcessGroup& group,
                             const std::vector<NamedTensor>& buffers) {
  const TensorMap* section = contents.FindSection(kSection);
  if (section == nullptr ||
      contents.manifest().world_size() != group.world_size()) {
    return absl::OkStatus();
  }
  const std::string prefix = absl::StrCat(group.rank(), "/");
  TensorMap mine;
  std::vector<NamedTensor> into;
  for (const NamedTensor& saved : *section) {
    if (!absl::StartsWith(saved.name, prefix)) continue;
    const std::string name = saved.name.substr(prefix.size());
    GRAPNEL_RETURN_IF_ERROR(mine.Add(name, saved.tensor));
    for (const NamedTensor& buffer : buffers) {
      if (buffer.name == name) into.push_back(buffer);
    }
  }
  if (mine.empty()) return absl::OkStatus();
  return WithContext(LoadTensors(mine, /*strict=*/true, into, nullptr),
                     kSection);
}

}  // namespace grapnel
