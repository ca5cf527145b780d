#include "grapnel/runner/config_file.h"

#include <cstddef>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/control_characters.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/config_text.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

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

std::string WithoutEnding(absl::string_view name) {
  return std::string(name.substr(0, name.rfind('.')));
}

// A config file beside `path` that is called much the same, whatever its
// ending; "" if there is none.
std::string ClosestFile(io::Env& env, const std::string& path) {
  const std::string dir = io::Dirname(path), typed = io::Basename(path);
  const auto listed = env.ListDir(dir.empty() ? "." : dir);
  if (!listed.ok()) return "";
  std::vector<std::string> files, names;
  for (const std::string& file : *listed) {
    if (file == typed || FindEnding(file) == nullptr) continue;
    files.push_back(file);
    names.push_back(ConfigName(file));
  }
  std::string name = ClosestName(WithoutEnding(typed), names);
  if (name.empty()) name = ClosestName(typed, names);
  std::vector<std::string> named;
  for (size_t i = 0; i < files.size() && !name.empty(); ++i) {
    if (names[i] == name) named.push_back(files[i]);
  }
  if (named.empty()) return "";
  std::string closest = ClosestName(typed, named);
  if (closest.empty()) closest = named.front();
  closest = io::JoinPath(dir, closest);
  return env.IsDirectory(closest) ? "" : closest;
}

// Of a file that can't be read because of what it is called.
absl::Status DidYouMeanFile(const absl::Status& status, io::Env& env,
                            const std::string& path) {
  const std::string closest = ClosestFile(env, path);
  if (closest.empty()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat(status.message(), "; did you mean \"",
                   EscapeToUtf8(MaskControlCharacters(closest)), "\"?"));
}

// Names and values in a message are those of the content, and go to terminals:
// control characters become "?", what isn't UTF-8 is escaped.
absl::Status Legible(const absl::Status& status) {
  return absl::Status(status.code(),
                      EscapeToUtf8(MaskControlCharacters(status.message())));
}

absl::StatusOr<RunnerConfig> Parse(absl::string_view content,
                                   ConfigFormat format,
                                   absl::string_view name) {
  RunnerConfig config;
  ConfigTextError error;
  switch (format) {
    case ConfigFormat::kText:
      if (!ParseConfigText(content, &config, &error)) {
        return ErrorIn(name, error);
      }
      break;
    case ConfigFormat::kJson:
      if (!ParseConfigJson(content, &config, &error)) {
        return ErrorIn(name, error);
      }
      break;
    case ConfigFormat::kBinary:
      if (!ParseQuietly(content, &config)) {
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
  absl::StatusOr<RunnerConfig> config = Parse(content, format, name);
  if (!config.ok()) return Legible(config.status());
  return config;
}

absl::StatusOr<RunnerConfig> LoadRunnerConfig(io::Env& env,
                                              const std::string& path) {
  const absl::StatusOr<ConfigFormat> format = ConfigFormatOf(path);
  if (!format.ok()) return DidYouMeanFile(format.status(), env, path);
  const absl::StatusOr<std::string> content =
      io::ReadFile(env, path, kMaxConfigBytes);
  if (absl::IsNotFound(content.status())) {
    return DidYouMeanFile(content.status(), env, path);
  }
  GRAPNEL_RETURN_IF_ERROR(content.status());
  return ParseRunnerConfig(*content, *format, path);
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
