// What a host does with a protobuf of its own: with one of libgrapnel.so's
// .proto files in it, as a program that reads checkpoints' manifests has.

#ifndef GRAPNEL_TESTS_CAPI_SHARED_OWN_PROTOBUF_H_
#define GRAPNEL_TESTS_CAPI_SHARED_OWN_PROTOBUF_H_

#include <cstdint>
#include <string>

namespace own_protobuf {

// As in 3021012, for 3.21.12.
int Version();

// A grapnel.io.v1.CheckpointManifest, as bytes.
std::string WriteManifest(const std::string& name, int64_t iter);

// False if they aren't one, or not one of a class of this protobuf.
bool ReadManifest(const std::string& bytes, std::string* name, int64_t* iter);

}  // namespace own_protobuf

#endif  // GRAPNEL_TESTS_CAPI_SHARED_OWN_PROTOBUF_H_
