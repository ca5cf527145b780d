#include "grapnel/io/safetensors.h"

#include <string>

#include "absl/status/statusor.h"
#include "grapnel/capi/handles.h"
#include "grapnel/io/env.h"
#include "grapnel/io/unique_name.h"

namespace grapnel::capi {
namespace {

// The file is there whole, or as it was before.
absl::Status ReplaceSafetensors(io::Env& env, const std::string& path,
                                const TensorMap& tensors) {
  const std::string dir = io::Dirname(path);
  const std::string temporary =
      io::JoinPath(dir, io::HiddenName(io::kTemporary, io::Basename(path)));
  GRAPNEL_RETURN_IF_ERROR(
      io::WriteSafetensors(env, temporary, tensors).status());
  const absl::Status status = env.Rename(temporary, path);
  if (!status.ok()) {
    env.DeleteFile(temporary).IgnoreError();  // The first error is the cause.
    return status;
  }
  return env.SyncDir(dir.empty() ? "." : dir);
}

}  // namespace
}  // namespace grapnel::capi

using grapnel::capi::Guard;
using grapnel::capi::NotNull;

grapnel_status* grapnel_safetensors_read(const char* path, size_t path_size,
                                         grapnel_tensors* tensors) {
  return Guard([&] {
    std::string where;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadName(path, path_size, "path", &where));
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensors, "tensors"));
    GRAPNEL_ASSIGN_OR_RETURN(
        const grapnel::TensorMap read,
        grapnel::io::ReadSafetensors(grapnel::io::Env::Posix(), where));
    return grapnel::capi::AddTensors(read, tensors);
  });
}

grapnel_status* grapnel_safetensors_write(const char* path, size_t path_size,
                                          const grapnel_tensors* tensors) {
  return Guard([&] {
    std::string where;
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::capi::ReadName(path, path_size, "path", &where));
    GRAPNEL_RETURN_IF_ERROR(NotNull(tensors, "tensors"));
    grapnel::TensorMap map;
    GRAPNEL_RETURN_IF_ERROR(grapnel::capi::ToTensorMap(*tensors, &map));
    return grapnel::capi::ReplaceSafetensors(grapnel::io::Env::Posix(), where,
                                             map);
  });
}
