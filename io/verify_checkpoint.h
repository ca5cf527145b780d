// All that is damaged in a checkpoint, where ReadCheckpoint stops at the first.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   TensorMap model;
//   GRAPNEL_RETURN_IF_ERROR(model.Add("fc.weight", torch::rand({2, 3})));
//   io::CheckpointContents contents;
//   contents.sections.emplace_back("model", model);
//   GRAPNEL_RETURN_IF_ERROR(
//       io::WriteCheckpoint(env, "work_dir", "epoch_1", contents));
//   GRAPNEL_ASSIGN_OR_RETURN(const io::VerifiedCheckpoint verified,
//                            io::VerifyCheckpoint(env, "work_dir/epoch_1"));
//   GRAPNEL_RET_CHECK(verified.damages.empty());
//   GRAPNEL_RET_CHECK(verified.num_tensors == 1);

#ifndef GRAPNEL_IO_VERIFY_CHECKPOINT_H_
#define GRAPNEL_IO_VERIFY_CHECKPOINT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

struct CheckpointDamage {
  std::string file;    // "model.safetensors"
  std::string tensor;  // "" if it is the file's, or not of a tensor.
  std::string what;    // "bytes differ from those that were written"
};

struct VerifiedCheckpoint {
  // Of what the manifest lists. 0 if that is damaged.
  int64_t num_files = 0;
  int64_t num_tensors = 0;
  int64_t num_bytes = 0;

  // By file, and in it as the tensors lie. Empty: ReadCheckpoint reads it
  // whole.
  std::vector<CheckpointDamage> damages;
};

// Reads every byte of the checkpoint at `path`, one MiB at a time, and changes
// nothing. What can't be read is damage, and so is a bad manifest: the rest is
// not looked at then.
//   kNotFound: there is no checkpoint.
//   kUnimplemented, kResourceExhausted: of its manifest, as ReadManifest says.
absl::StatusOr<VerifiedCheckpoint> VerifyCheckpoint(Env& env,
                                                    const std::string& path);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_VERIFY_CHECKPOINT_H_
