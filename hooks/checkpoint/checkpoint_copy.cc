#include "grapnel/hooks/checkpoint/checkpoint_copy.h"

#include <memory>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/version.h"
#include "grapnel/hooks/checkpoint/checkpoint_config.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/unique_name.h"

namespace grapnel {
namespace {

// The model's tensors, those of the average in place of the trained ones.
absl::StatusOr<TensorMap> EvaluatedWeights(
    const io::CheckpointContents& contents) {
  const TensorMap* const model = contents.FindSection("model");
  if (model == nullptr) {
    return absl::InvalidArgumentError("there is no section \"model\"");
  }
  const TensorMap* const average =
      contents.FindSection(contents.manifest().evaluated_section());
  TensorMap weights;
  for (const NamedTensor& named : *model) {
    const at::Tensor* const averaged =
        average == nullptr ? nullptr : average->Find(named.name);
    GRAPNEL_RETURN_IF_ERROR(weights.Add(
        named.name, averaged == nullptr ? named.tensor : *averaged));
  }
  return weights;
}

// What MMEngine loads weights from.
absl::Status WritePth(io::Env& env, const std::string& path,
                      const TensorMap& weights,
                      const io::v1::Progress& progress) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::PthWriter> writer,
                           io::PthWriter::Create(env, path));
  writer->BeginDict();
  writer->String("meta");
  writer->BeginDict();
  writer->String("epoch");
  writer->Int(progress.epoch());
  writer->String("iter");
  writer->Int(progress.iter());
  writer->String("grapnel_version");
  writer->String(kGrapnelVersion);
  writer->End();
  writer->String("state_dict");
  writer->BeginOrderedDict();
  for (const NamedTensor& named : weights) {
    writer->String(named.name);
    writer->Tensor(named.tensor);
  }
  writer->End();
  writer->End();
  return writer->Finish();
}

}  // namespace

absl::Status WriteCheckpointCopy(io::Env& env, const std::string& checkpoint,
                                 const std::string& format,
                                 const io::CheckpointContents& contents) {
  const std::string ending = absl::StrCat(".", format);
  const std::string path = absl::StrCat(checkpoint, ending);
  const std::string temporary = io::JoinPath(
      io::Dirname(path), io::HiddenName(io::kTemporary, io::Basename(path)));
  const auto write_temporary = [&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap weights,
                             EvaluatedWeights(contents));
    return format == kPthFormat
               ? WritePth(env, temporary, weights,
                          contents.manifest().progress())
               : io::WriteSafetensors(env, temporary, weights).status();
  };
  const auto write = [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(write_temporary());
    return io::AddCopy(env, checkpoint, ending, temporary);
  };
  return WithContext(write(), path);
}

}  // namespace grapnel
