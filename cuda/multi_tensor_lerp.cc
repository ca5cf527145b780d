#include "grapnel/cuda/multi_tensor_lerp.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "c10/cuda/CUDACachingAllocator.h"
#include "c10/cuda/CUDAGuard.h"
#include "c10/cuda/CUDAStream.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/cuda/lerp_chunk.h"
#include "grapnel/cuda/lerp_plan.h"
#include "grapnel/cuda/multi_tensor_lerp_kernel.h"

namespace grapnel {
namespace {

absl::StatusOr<LerpType> LerpTypeOf(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return LerpType::kFloat;
    case at::kDouble:
      return LerpType::kDouble;
    case at::kHalf:
      return LerpType::kHalf;
    case at::kBFloat16:
      return LerpType::kBFloat16;
    default:
      return absl::InternalError(
          absl::StrCat("no kernel for ", c10::toString(type)));
  }
}

// Chunks of the table on the device.
struct Launch {
  LerpType dst_type;
  LerpType src_type;
  int64_t first;
  int64_t count;
};

class CudaMultiTensorLerp final : public MultiTensorLerp {
 public:
  explicit CudaMultiTensorLerp(std::vector<LerpPair> pairs)
      : pairs_(std::move(pairs)) {}

  // Makes the table for where the tensors are now. On an error all is as
  // before.
  absl::Status Prepare() {
    GRAPNEL_ASSIGN_OR_RETURN(std::vector<LerpLaunch> plan, PlanLerp(pairs_));
    if (!pairs_.empty() && !pairs_[0].dst.is_cuda()) {
      return absl::InvalidArgumentError(
          absl::StrCat("pairs: must be on a CUDA device, are on ",
                       pairs_[0].dst.device().str()));
    }
    std::vector<Launch> launches;
    std::vector<LerpChunk> chunks;
    for (const LerpLaunch& launch : plan) {
      GRAPNEL_ASSIGN_OR_RETURN(LerpType dst_type, LerpTypeOf(launch.dst_type));
      GRAPNEL_ASSIGN_OR_RETURN(LerpType src_type, LerpTypeOf(launch.src_type));
      launches.push_back({dst_type, src_type,
                          static_cast<int64_t>(chunks.size()),
                          static_cast<int64_t>(launch.chunks.size())});
      chunks.insert(chunks.end(), launch.chunks.begin(), launch.chunks.end());
    }
    if (!chunks.empty()) GRAPNEL_RETURN_IF_ERROR(MakeTable(chunks));
    launches_ = std::move(launches);
    memory_.clear();
    for (const LerpPair& pair : pairs_) memory_.push_back(MemoryOf(pair));
    return absl::OkStatus();
  }

  absl::Status Update(double weight, LerpForm form) override {
    if (!std::isfinite(weight)) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight: must be finite, is ", weight));
    }
    if (MemoryChanged()) GRAPNEL_RETURN_IF_ERROR(Prepare());
    if (launches_.empty()) return absl::OkStatus();
    return CatchAsStatus([&] {
      const c10::cuda::CUDAGuard guard(table_.device());
      const c10::cuda::CUDAStream stream =
          c10::cuda::getCurrentCUDAStream(table_.device().index());
      KeepTableFor(stream);
      const auto* chunks =
          static_cast<const LerpChunk*>(table_.const_data_ptr());
      for (const Launch& launch : launches_) {
        const cudaError_t error = LaunchMultiTensorLerp(
            launch.dst_type, launch.src_type, chunks + launch.first,
            launch.count, weight, form == LerpForm::kAdd, stream);
        if (error != cudaSuccess) {
          return absl::InternalError(
              absl::StrCat("multi-tensor lerp: ", cudaGetErrorString(error)));
        }
      }
      return absl::OkStatus();
    });
  }

 private:
  // Where the elements of a pair are.
  struct Memory {
    const void* dst;
    const void* src;

    bool operator!=(const Memory& other) const {
      return dst != other.dst || src != other.src;
    }
  };

  static Memory MemoryOf(const LerpPair& pair) {
    return {pair.dst.const_data_ptr(), pair.src.const_data_ptr()};
  }

  absl::Status MakeTable(const std::vector<LerpChunk>& chunks) {
    return CatchAsStatus([&] {
      const at::Device device = pairs_[0].dst.device();
      const c10::cuda::CUDAGuard guard(device);
      const auto bytes =
          static_cast<int64_t>(chunks.size() * sizeof(LerpChunk));
      const at::Tensor table = ops::empty({bytes}, at::kByte);
      std::memcpy(table.mutable_data_ptr(), chunks.data(), bytes);
      // From pageable memory: when this returns the table is there, for
      // any stream.
      table_ = table.to(device);
      table_stream_ = c10::cuda::getCurrentCUDAStream(device.index());
      return absl::OkStatus();
    });
  }

  // The table points to the memory that the tensors had: a write there would
  // be to somebody else's.
  bool MemoryChanged() const {
    for (size_t i = 0; i < pairs_.size(); ++i) {
      if (MemoryOf(pairs_[i]) != memory_[i]) return true;
    }
    return false;
  }

  // Freed, the table's memory goes to what the stream that it was made on does
  // next; it must not while another stream still runs the kernel.
  void KeepTableFor(const c10::cuda::CUDAStream& stream) {
    if (stream == *table_stream_) return;
    c10::cuda::CUDACachingAllocator::recordStream(table_.storage().data_ptr(),
                                                  stream);
  }

  const std::vector<LerpPair> pairs_;
  std::vector<Memory> memory_;    // Of each pair, when the table was made.
  std::vector<Launch> launches_;  // None: no element to update, and no table.
  at::Tensor table_;              // LerpChunks, on the tensors' device.
  std::optional<c10::cuda::CUDAStream> table_stream_;
};

}  // namespace

bool MultiTensorLerp::IsBuiltIn() { return true; }

bool MultiTensorLerp::Takes(const LerpPair& pair) {
  return CheckLerpPair(pair).ok() && pair.dst.is_cuda();
}

absl::StatusOr<std::unique_ptr<MultiTensorLerp>> MultiTensorLerp::Create(
    std::vector<LerpPair> pairs) {
  auto lerp = std::make_unique<CudaMultiTensorLerp>(std::move(pairs));
  GRAPNEL_RETURN_IF_ERROR(lerp->Prepare());
  return lerp;
}

}  // namespace grapnel
