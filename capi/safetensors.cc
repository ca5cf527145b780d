#include "grapnel/io/safetensors.h"

#include <string>

#include "absl/status/statusor.h"
#include "grapnel/capi/handles.h"
#include "grapnel/io/env.h"

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
    return grapnel::io::ReplaceSafetensors(grapnel::io::Env::Posix(), where,
                                           map);
  });
}
