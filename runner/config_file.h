// Configurations as text, JSON and bytes.
//
// All three are strict: an unknown field, or an Any whose type isn't linked in,
// is an error. In text the type of an Any is written with any prefix and the
// last part of its name, with or without "Config", if that is unique among what
// is linked in:
//
//   custom_hooks { config { [hooks/EarlyStoppingHook] { patience: 3 } } }
//
// Whatever the format, a parsed configuration holds type URLs of one form only,
// "type.googleapis.com/<full name>".

#ifndef GRAPNEL_RUNNER_CONFIG_FILE_H_
#define GRAPNEL_RUNNER_CONFIG_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

namespace io {
class Env;
}  // namespace io

enum class ConfigFormat { kText, kJson, kBinary };

// Larger ones are refused.
inline constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

// By the ending: .textproto, .txtpb, .pbtxt and .txt; .json; .pb and .binpb.
// kInvalidArgument for another.
absl::StatusOr<ConfigFormat> ConfigFormatOf(absl::string_view path);

// `name` is what errors call the content. kInvalidArgument for anything
// wrong in it; kResourceExhausted if it is too large. In text an error says
// where:
//
//   x.textproto:3:3: no field "momentun" in SgdConfig; did you mean "momentum"?
//
// Messages are UTF-8 without control characters, whatever the content holds.
absl::StatusOr<runner::v1::RunnerConfig> ParseRunnerConfig(
    absl::string_view content, ConfigFormat format, absl::string_view name);

// Also fails as io::ReadFile does. Of a file that isn't there, or isn't called
// as one, the error suggests one beside it with a name that is like it.
absl::StatusOr<runner::v1::RunnerConfig> LoadRunnerConfig(
    io::Env& env, const std::string& path);

// What a run of that config file is called: the file's name without its ending.
std::string ConfigName(absl::string_view path);

// Sets one field from "a.b=value". Parts of the path are field names, indexes
// of lists ("param_scheduler.0", "param_scheduler[0]"; the index one past the
// end appends), keys of maps (`default_hooks.priority.timer`, or iter_timer,
// `priority["a.b"]`) and the fields of what is in an Any. A value is written as
// in text; quotes around strings and brackets around lists may be left out,
// messages are in braces. It replaces what the field held. Setting a member of
// a oneof unsets the others.
//
// Paths in `value`, of fields that are marked as `(grapnel.path)`, are taken to
// start at `path_base`; "" leaves them.
//
// kInvalidArgument, naming the whole path, leaves `*config` as it was.
absl::Status ApplyOverride(absl::string_view assignment,
                           absl::string_view path_base,
                           runner::v1::RunnerConfig* config);

// As text, with the content of every Any. The same for equal configurations,
// and parses back to an equal one.
std::string PrintRunnerConfig(const runner::v1::RunnerConfig& config);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_CONFIG_FILE_H_
