// Prints, for every hook there is, a line of five fields with tabs between:
//
//   config message, name, Bazel target, priority, mount points
//
// The first `valid` config of hooks/*/testdata/conformance.textproto makes the
// hook. For hooks_md.py.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/hooks/conformance.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/stage.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;

// The line of the hook in hooks/<folder>.
absl::Status PrintHook(const std::string& folder, const std::string& text) {
  hooks::testing::HookConformance conformance;
  if (!TextFormat::ParseFromString(text, &conformance) ||
      conformance.valid_size() == 0) {
    return absl::InvalidArgumentError("no HookConformance with a valid config");
  }
  const google::protobuf::Descriptor* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
          conformance.config());
  if (descriptor == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(conformance.config(), " isn't linked in"));
  }
  std::unique_ptr<google::protobuf::Message> config(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(descriptor)
          ->New());
  if (!TextFormat::ParseFromString(conformance.valid(0), config.get())) {
    return absl::InvalidArgumentError("the first valid config isn't one");
  }
  GRAPNEL_ASSIGN_OR_RETURN(const ScheduledHook hook, CreateHook(*config));
  std::vector<std::string> stages;
  for (int stage = 0; stage < kNumStages; ++stage) {
    if (hook.stages.Has(static_cast<Stage>(stage))) {
      stages.push_back(StageName(static_cast<Stage>(stage)));
    }
  }
  std::printf("%s\t%s\t//hooks/%s\t%d\t%s\n", conformance.config().c_str(),
              std::string(hook.hook->name()).c_str(), folder.c_str(),
              hook.priority, absl::StrJoin(stages, " ").c_str());
  return absl::OkStatus();
}

absl::Status PrintHooks() {
  io::Env& env = io::Env::Posix();
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> folders,
                           env.ListDir("hooks"));
  for (const std::string& folder : folders) {
    const std::string path =
        absl::StrCat("hooks/", folder, "/testdata/conformance.textproto");
    if (!env.FileExists(path)) continue;
    GRAPNEL_ASSIGN_OR_RETURN(const std::string text, io::ReadFile(env, path));
    GRAPNEL_RETURN_IF_ERROR(WithContext(PrintHook(folder, text), path));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main() {
  const absl::Status status = grapnel::PrintHooks();
  if (status.ok()) return 0;
  std::fprintf(stderr, "hook_stages: %s\n", status.ToString().c_str());
  return 1;
}
