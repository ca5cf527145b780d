#include "grapnel/runner/rank_buffers.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "grapnel/models/load_tensors.h"
#include "grapnel/runner/rank_agreement.h"
#include "grapnel/runner/run_sections.h"

namespace grapnel {
namespace {

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

}  // namespace

absl::Status AddRankBuffers(ProcessGroup& group,
                            const std::vector<NamedTensor>& buffers,
                            io::CheckpointContents* contents) {
  if (group.world_size() == 1 || buffers.empty()) return absl::OkStatus();
  const c10::NoGradGuard no_grad;
  const auto mine = OnHost(buffers);
  GRAPNEL_ASSIGN_OR_RETURN(const Digests digests, GatherDigests(group, mine));
  const std::vector<std::string>& first = digests.front();
  const auto as_first = [&](const std::vector<std::string>& theirs) {
    return theirs == first;
  };
  if (std::all_of(digests.begin(), digests.end(), as_first)) {
    return absl::OkStatus();
  }
  TensorMap differing;
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (digests[group.rank()][i] == first[i]) continue;
    GRAPNEL_RETURN_IF_ERROR(differing.Add(buffers[i].name, (*mine)[i]));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<TensorMap> gathered,
                           GatherTensors(group, differing));
  if (!IsMaster(group)) return absl::OkStatus();
  TensorMap section;
  for (size_t rank = 1; rank < gathered.size(); ++rank) {
    for (const NamedTensor& theirs : gathered[rank]) {
      GRAPNEL_RETURN_IF_ERROR(
          section.Add(absl::StrCat(rank, "/", theirs.name), theirs.tensor));
    }
  }
  contents->sections.emplace_back(kRankBuffersSection, std::move(section));
  return absl::OkStatus();
}

absl::Status LoadRankBuffers(const io::CheckpointContents& contents,
                             const ProcessGroup& group,
                             const std::vector<NamedTensor>& buffers) {
  const TensorMap* section = contents.FindSection(kRankBuffersSection);
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
                     kRankBuffersSection);
}

}  // namespace grapnel
