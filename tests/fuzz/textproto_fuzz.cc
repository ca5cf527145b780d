// A run's configuration as text; what begins with a brace also as JSON.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/log.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/config_file_test.pb.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {
namespace {

using ::google::protobuf::util::DefaultFieldComparator;
using ::google::protobuf::util::MessageDifferencer;
using runner::v1::RunnerConfig;

// So that an Any has something to hold by a short name: every kind of field.
class ShadowHook : public Hook {
 public:
  using Config = runner::config_file_test::v1::ShadowHookConfig;
  static absl::StatusOr<std::unique_ptr<ShadowHook>> Create(const Config&) {
    return std::make_unique<ShadowHook>();
  }
  absl::string_view name() const override { return "shadow"; }
};
GRAPNEL_REGISTER_HOOK(ShadowHook);

// Equal, where a NaN equals a NaN.
bool Equal(const RunnerConfig& a, const RunnerConfig& b) {
  DefaultFieldComparator comparator;
  comparator.set_treat_nan_as_equal(true);
  MessageDifferencer differencer;
  differencer.set_field_comparator(&comparator);
  return differencer.Compare(a, b);
}

// A configuration that is accepted is printed and read as the same.
void CheckRoundTrip(const RunnerConfig& config) {
  const std::string text = PrintRunnerConfig(config);
  const auto again = ParseRunnerConfig(text, ConfigFormat::kText, "printed");
  GRAPNEL_CHECK(again.ok()) << again.status() << "\n" << text;
  GRAPNEL_CHECK(Equal(config, *again)) << text;
  GRAPNEL_CHECK(PrintRunnerConfig(*again) == text) << text;
}

}  // namespace
}  // namespace grapnel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace grapnel;
  const absl::string_view content(reinterpret_cast<const char*>(data), size);
  const bool is_json = !content.empty() && content[0] == '{';
  const auto config = ParseRunnerConfig(
      content, is_json ? ConfigFormat::kJson : ConfigFormat::kText, "input");
  NoteOutcome(config.status());
  if (config.ok()) CheckRoundTrip(*config);
  return 0;
}
