#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/util/json_util.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/runner/config_text.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;

// The type of the message at `path`, "param_scheduler[1].linear"; null if that
// is none.
const Descriptor* TypeAt(const Descriptor* root, absl::string_view path) {
  const Descriptor* type = root;
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    const FieldDescriptor* field =
        type->FindFieldByName(std::string(part.substr(0, part.find('['))));
    if (field == nullptr || field->message_type() == nullptr) return nullptr;
    type = field->message_type();
  }
  return type;
}

// Says in our words, and in one line, what protobuf said of JSON.
std::string RewordJsonError(const Descriptor* root,
                            const std::string& message) {
  static const LazyRE2 kNoField = {
      R"re((?:\(([^)]*)\) )?(\S+): Cannot find field\.)re"};
  std::string path, name;
  if (RE2::FullMatch(message, *kNoField, &path, &name)) {
    // Within an Any there is no path either.
    if (path.empty()) {
      std::vector<std::string> names;
      for (int i = 0; i < root->field_count(); ++i) {
        names.push_back(root->field(i)->name());
      }
      return absl::StrCat("no field \"", name, "\"", DidYouMean(name, names));
    }
    const Descriptor* type = TypeAt(root, path);
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

}  // namespace

bool ParseConfigJson(absl::string_view json, Message* message,
                     ConfigTextError* error) {
  if (!CheckConfigIsUtf8(json, error)) return false;
  message->Clear();
  // An escape in a string may be no UTF-8 yet.
  const google::protobuf::LogSilencer silencer;
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), message);
  if (status.ok()) return true;
  *error = {
      0, 0,
      RewordJsonError(message->GetDescriptor(), std::string(status.message()))};
  return false;
}

}  // namespace grapnel
