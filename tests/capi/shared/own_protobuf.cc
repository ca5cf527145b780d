#include "grapnel/tests/capi/shared/own_protobuf.h"

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/stubs/common.h"
#include "google/protobuf/text_format.h"
#include "grapnel/io/checkpoint_manifest.pb.h"

namespace own_protobuf {

namespace pb = google::protobuf;
using Manifest = grapnel::io::v1::CheckpointManifest;

int Version() {
  GOOGLE_PROTOBUF_VERIFY_VERSION;
  return GOOGLE_PROTOBUF_VERSION;
}

std::string WriteManifest(const std::string& name, int64_t iter) {
  Manifest manifest;
  manifest.set_name(name);
  manifest.mutable_progress()->set_iter(iter);
  return manifest.SerializeAsString();
}

bool ReadManifest(const std::string& bytes, std::string* name, int64_t* iter) {
  // By reflection, which looks into the pool.
  const auto* descriptor =
      pb::DescriptorPool::generated_pool()->FindMessageTypeByName(
          "grapnel.io.v1.CheckpointManifest");
  if (descriptor == nullptr || descriptor != Manifest::descriptor()) {
    return false;
  }
  Manifest manifest;
  std::string text;
  Manifest again;
  if (!manifest.ParseFromString(bytes) ||
      !pb::TextFormat::PrintToString(manifest, &text) ||
      !pb::TextFormat::ParseFromString(text, &again) ||
      again.SerializeAsString() != manifest.SerializeAsString()) {
    return false;
  }
  *name = again.name();
  *iter = again.progress().iter();
  return true;
}

}  // namespace own_protobuf
