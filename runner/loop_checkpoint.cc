#include "grapnel/runner/loop_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/models/load_tensors.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/schedulers/scheduler_replay.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/loop_state.pb.h"
#include "grapnel/runner/run_sections.h"

namespace grapnel {
namespace {

// "model" and "ema" are called as those of a Runner are.
constexpr char kAverage[] = "ema";
constexpr char kRng[] = "rng";
constexpr char kCpu[] = "cpu";
constexpr char kState[] = "loop";

std::vector<NamedTensor> ModelTensors(const LoopParts& parts) {
  std::vector<NamedTensor> tensors = parts.parameters;
  tensors.insert(tensors.end(), parts.buffers.begin(), parts.buffers.end());
  return tensors;
}

}  // namespace

absl::StatusOr<io::CheckpointContents> CaptureLoop(const LoopParts& parts,
                                                   int64_t iter,
                                                   int64_t max_iters) {
  io::CheckpointContents contents;
  contents.manifest().mutable_progress()->set_iter(iter);
  contents.manifest().mutable_progress()->set_max_iters(max_iters);
  runner::v1::LoopState state;
  state.set_iter(iter);
  state.set_max_iters(max_iters);
  TensorMap model, rng;
  for (const NamedTensor& tensor : ModelTensors(parts)) {
    GRAPNEL_RETURN_IF_ERROR(model.Add(tensor.name, tensor.tensor.detach()));
  }
  contents.sections.emplace_back(kModelSection, std::move(model));
  if (parts.average != nullptr) {
    GRAPNEL_ASSIGN_OR_RETURN(TensorMap average, parts.average->State());
    contents.sections.emplace_back(kAverage, std::move(average));
    state.set_average_steps(parts.average->steps());
  }
  if (parts.optimizer != nullptr) {
    TensorMap optimizer;
    GRAPNEL_RETURN_IF_ERROR(
        parts.optimizer->SaveState(state.mutable_optimizer(), &optimizer));
    contents.sections.emplace_back(kOptimizerSection, std::move(optimizer));
  }
  for (const auto& scheduler : parts.schedulers) {
    GRAPNEL_RETURN_IF_ERROR(scheduler->SaveState(state.add_param_schedulers()));
  }
  GRAPNEL_ASSIGN_OR_RETURN(at::Tensor generator, DefaultGeneratorState());
  GRAPNEL_RETURN_IF_ERROR(rng.Add(kCpu, std::move(generator)));
  contents.sections.emplace_back(kRng, std::move(rng));
  auto blob = SerializeChecked(state);
  if (!blob.ok()) return WithContext(blob.status(), kState);
  contents.blobs.emplace_back(kState, *std::move(blob));
  return contents;
}

absl::StatusOr<int64_t> RestoreLoop(const io::CheckpointContents& contents,
                                    const LoopParts& parts, int64_t max_iters,
                                    std::vector<std::string>* warnings) {
  const TensorMap* const model = contents.FindSection(kModelSection);
  const TensorMap* const average = contents.FindSection(kAverage);
  const TensorMap* const optimizer = contents.FindSection(kOptimizerSection);
  const TensorMap* const rng = contents.FindSection(kRng);
  const std::string* const blob = contents.FindBlob(kState);
  runner::v1::LoopState state;
  if (model == nullptr || rng == nullptr || rng->Find(kCpu) == nullptr ||
      (parts.average != nullptr && average == nullptr) ||
      (parts.optimizer != nullptr && optimizer == nullptr) || blob == nullptr ||
      !state.ParseFromString(*blob)) {
    return absl::InvalidArgumentError(absl::StrCat(
        contents.manifest().name(), ": is not a checkpoint of this loop"));
  }
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      LoadTensors(*model, /*strict=*/true, ModelTensors(parts), nullptr),
      contents.manifest().name()));
  if (parts.optimizer != nullptr) {
    GRAPNEL_RETURN_IF_ERROR(
        parts.optimizer->LoadState(state.optimizer(), *optimizer));
  }
  if (parts.average != nullptr) {
    GRAPNEL_RETURN_IF_ERROR(
        parts.average->Load(*average, /*strict=*/true, /*report=*/nullptr));
    parts.average->set_steps(state.average_steps());
  }
  ResumePoint point;
  point.iters = state.iter();
  point.length.max_iters = max_iters;
  point.saved_length.max_iters = state.max_iters();
  GRAPNEL_RETURN_IF_ERROR(RestoreSchedulers(parts.schedulers,
                                            state.param_schedulers(), point,
                                            RestoredOptions(), warnings));
  GRAPNEL_RETURN_IF_ERROR(SetDefaultGeneratorState(*rng->Find(kCpu)));
  return point.iters;
}

}  // namespace grapnel
