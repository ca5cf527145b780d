// Which library this is, and what is in it.

#include "grapnel/base/version.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/common.h"
#include "grapnel/capi/guard.h"
#include "grapnel/runner/config_types.h"

static_assert(grapnel::kGrapnelVersion[0] - '0' == GRAPNEL_VERSION_MAJOR &&
                  grapnel::kGrapnelVersion[2] - '0' == GRAPNEL_VERSION_MINOR &&
                  grapnel::kGrapnelVersion[3] == '.',
              "base/version.h and grapnel.h differ");

uint32_t grapnel_version(void) {
  return (uint32_t{GRAPNEL_VERSION_MAJOR} << 16) | GRAPNEL_VERSION_MINOR;
}

const char* grapnel_build_info(void) {
  return grapnel::capi::GuardValue<const char*>("", [] {
    // Never destroyed.
    static const std::string& info = *new std::string(absl::StrCat(
        "grapnel ", grapnel::kGrapnelVersion, ", libtorch ",
        grapnel::kLibTorchVersion, ", protobuf ",
        google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION)));
    return info.c_str();
  });
}

grapnel_status* grapnel_registered_configs(grapnel_bytes* names) {
  return grapnel::capi::Guard([&] {
    return grapnel::capi::AssignLines(grapnel::RegisteredConfigTypes(), "names",
                                      names);
  });
}
