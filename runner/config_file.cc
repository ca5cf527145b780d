#include "grapnel/runner/config_file.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/config_text.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/runner_config.pb.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::TextFormat;
using runner::v1::RunnerConfig;

constexpr char kHeader[] =
    "# proto-file: grapnel/runner/runner_config.proto\n"
    "# proto-message: grapnel.runner.v1.RunnerConfig\n";

struct Ending {
  const char* text;
  ConfigFormat format;
};

constexpr Ending kEndings[] = {
    {".textproto", ConfigFormat::kText}, {".txtpb", ConfigFormat::kText},
    {".pbtxt", ConfigFormat::kText},     {".txt", ConfigFormat::kText},
    {".json", ConfigFormat::kJson},      {".pb", ConfigFormat::kBinary},
    {".binpb", ConfigFormat::kBinary},
};

const Ending* FindEnding(absl::string_view path) {
  for (const Ending& ending : kEndings) {
    if (absl::EndsWith(path, ending.text)) return &ending;
  }
  return nullptr;
}

absl::Status ErrorAt(absl::string_view name, const ConfigTextError& error) {
  std::string where(name);
  if (error.line > 0) {
    absl::StrAppend(&where, ":", error.line, ":", error.column);
  }
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", error.message));
}

absl::Status ParseText(absl::string_view content, absl::string_view name,
                       RunnerConfig* config) {
  ConfigTextError error;
  if (ParseConfigText(content, config, &error)) return absl::OkStatus();
  return ErrorAt(name, error);
}

// The type of the message at `path`, "param_scheduler[1].linear"; null if that
// is none.
const Descriptor* TypeAt(absl::string_view path) {
  const Descriptor* type = RunnerConfig::descriptor();
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    const FieldDescriptor* field =
        type->FindFieldByName(std::string(part.substr(0, part.find('['))));
    if (field == nullptr || field->message_type() == nullptr) return nullptr;
    type = field->message_type();
  }
  return type;
}

// Says in our words, and in one line, what protobuf said of JSON.
std::string RewordJsonError(const std::string& message) {
  static const LazyRE2 kNoField = {
      R"re((?:\(([^)]*)\) )?(\S+): Cannot find field\.)re"};
  std::string path, name;
  if (RE2::FullMatch(message, *kNoField, &path, &name)) {
    // Within an Any there is no path either.
    if (path.empty()) {
      std::vector<std::string> names;
      const Descriptor* type = RunnerConfig::descriptor();
      for (int i = 0; i < type->field_count(); ++i) {
        names.push_back(type->field(i)->name());
      }
      return absl::StrCat("no field \"", name, "\"", DidYouMean(name, names));
    }
    const Descriptor* type = TypeAt(path);
    if (type != nullptr) {
      return absl::StrCat(path, ": ", NoSuchField(name, *type));
    }
  }
  // Syntax: the problem, what is around it, and "^" under the place.
  const std::vector<std::string> lines = absl::StrSplit(message, '\n');
  std::string reworded(
      absl::StripSuffix(absl::StripPrefix(lines[0], ": "), "."));
  if (!reworded.empty()) reworded[0] = absl::ascii_tolower(reworded[0]);
  if (lines.size() == 3) {
    const size_t caret = std::min(lines[2].find('^'), lines[1].size());
    if (caret < lines[1].size()) {
      absl::StrAppend(&reworded, " at \"",
                      absl::Utf8SafeCEscape(lines[1].substr(caret)), "\"");
    }
  }
  return reworded;
}

absl::Status ParseJson(absl::string_view content, absl::string_view name,
                       RunnerConfig* config) {
  ConfigTextError error;
  if (!CheckConfigIsUtf8(content, &error)) return ErrorAt(name, error);
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(content.data(), content.size()), config);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": ", RewordJsonError(std::string(status.message()))));
}

}  // namespace

absl::StatusOr<ConfigFormat> ConfigFormatOf(absl::string_view path) {
  const Ending* ending = FindEnding(path);
  if (ending != nullptr) return ending->format;
  std::string known;
  for (const Ending& each : kEndings) absl::StrAppend(&known, " ", each.text);
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": a config file ends in one of", known));
}

absl::StatusOr<RunnerConfig> ParseRunnerConfig(absl::string_view content,
                                               ConfigFormat format,
                                               absl::string_view name) {
  if (static_cast<int64_t>(content.size()) > kMaxConfigBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(name, ": larger than ", kMaxConfigBytes, " bytes"));
  }
  RunnerConfig config;
  switch (format) {
    case ConfigFormat::kText:
      GRAPNEL_RETURN_IF_ERROR(ParseText(content, name, &config));
      break;
    case ConfigFormat::kJson:
      GRAPNEL_RETURN_IF_ERROR(ParseJson(content, name, &config));
      break;
    case ConfigFormat::kBinary:
      if (!config.ParseFromArray(content.data(),
                                 static_cast<int>(content.size()))) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": not a RunnerConfig in protobuf's encoding"));
      }
      break;
  }
  GRAPNEL_RETURN_IF_ERROR(WithContext(CanonicalizeConfig(&config), name));
  GRAPNEL_RETURN_IF_ERROR(WithContext(JoinDefaultHookNames(&config), name));
  if (config.ByteSizeLong() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": sets nothing"));
  }
  return config;
}

absl::StatusOr<RunnerConfig> LoadRunnerConfig(io::Env& env,
                                              const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const ConfigFormat format, ConfigFormatOf(path));
  GRAPNEL_ASSIGN_OR_RETURN(const std::string content,
                           io::ReadFile(env, path, kMaxConfigBytes));
  return ParseRunnerConfig(content, format, path);
}

std::string ConfigName(absl::string_view path) {
  std::string name = io::Basename(path);
  const Ending* ending = FindEnding(name);
  if (ending != nullptr) {
    name.resize(name.size() - absl::string_view(ending->text).size());
  }
  return name;
}

std::string PrintRunnerConfig(const RunnerConfig& config) {
  TextFormat::Printer printer;
  printer.SetExpandAny(true);
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  printer.PrintToString(config, &text);
  return absl::StrCat(kHeader, text);
}

}  // namespace grapnel
