// ApplyOverride: "optim_wrapper.optimizer.sgd.lr=0.1".

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/config_paths.h"
#include "grapnel/runner/config_text.h"
#include "grapnel/runner/config_types.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::OneofDescriptor;
using ::google::protobuf::Reflection;
using ::google::protobuf::TextFormat;
using runner::v1::RunnerConfig;

// Splits `a.b[0]["c.d"]=value`.
absl::Status Split(absl::string_view assignment,
                   std::vector<std::string>* parts, absl::string_view* path,
                   absl::string_view* value) {
  const auto malformed = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", assignment, "\" is not of the form path=value"));
  };
  size_t i = 0;
  std::string part;
  for (; i < assignment.size() && assignment[i] != '='; ++i) {
    const char c = assignment[i];
    if (c == '.') {
      if (part.empty()) return malformed();
      parts->push_back(std::exchange(part, ""));
      continue;
    }
    if (c != '[') {
      part.push_back(c);
      continue;
    }
    if (part.empty()) return malformed();
    parts->push_back(std::exchange(part, ""));
    const bool quoted = i + 1 < assignment.size() && assignment[i + 1] == '"';
    const size_t begin = i + (quoted ? 2 : 1);
    const size_t end = assignment.find(quoted ? "\"]" : "]", begin);
    if (end == absl::string_view::npos || end == begin) return malformed();
    part = std::string(assignment.substr(begin, end - begin));
    i = end + (quoted ? 1 : 0);
  }
  if (i == assignment.size() || part.empty()) return malformed();
  parts->push_back(std::move(part));
  *path = assignment.substr(0, i);
  *value = assignment.substr(i + 1);
  return absl::OkStatus();
}

// The elements of "[1, 2]" or "1,2". Commas within quotes, braces and brackets
// don't separate.
std::vector<std::string> SplitList(absl::string_view value) {
  value = absl::StripAsciiWhitespace(value);
  if (absl::StartsWith(value, "[") && absl::EndsWith(value, "]")) {
    value = absl::StripAsciiWhitespace(value.substr(1, value.size() - 2));
    if (value.empty()) return {};
  }
  std::vector<std::string> elements(1);
  char quote = 0;
  int depth = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    if (quote != 0) {
      if (c == '\\' && i + 1 < value.size()) {
        elements.back().push_back(c);
        elements.back().push_back(value[++i]);
        continue;
      }
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',' && depth == 0) {
      elements.emplace_back();
      continue;
    }
    elements.back().push_back(c);
  }
  return elements;
}

// One value as it stands in a text file.
absl::StatusOr<std::string> Literal(const FieldDescriptor* field,
                                    absl::string_view value) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(value);
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (absl::StartsWith(trimmed, "\"") || absl::StartsWith(trimmed, "'")) {
        return std::string(trimmed);
      }
      return absl::StrCat("\"", absl::Utf8SafeCEscape(value), "\"");
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (!absl::StartsWith(trimmed, "{")) {
        return absl::InvalidArgumentError(absl::StrCat(
            "is a ", field->message_type()->name(),
            ": name one of its fields, or set it as a whole, {...}, not \"",
            trimmed, "\""));
      }
      return std::string(trimmed);
    default:
      if (trimmed.empty()) return absl::InvalidArgumentError("no value");
      for (char c : trimmed) {
        if (!absl::ascii_isalnum(c) && !absl::StrContains("+-._", c)) {
          return absl::InvalidArgumentError(
              absl::StrCat("\"", value, "\" is not one value"));
        }
      }
      return std::string(trimmed);
  }
}

class Override {
 public:
  Override(std::vector<std::string> parts, absl::string_view value,
           absl::string_view path_base)
      : parts_(std::move(parts)), value_(value), path_base_(path_base) {}

  // Sets what the parts from `part` on mean in `*message`.
  absl::Status Apply(Message* message, size_t part) const {
    if (message->GetDescriptor() == Any::descriptor()) {
      return ApplyInAny(static_cast<Any*>(message), part);
    }
    const FieldDescriptor* field =
        message->GetDescriptor()->FindFieldByName(parts_[part]);
    if (field == nullptr) return NoField(*message, part);
    const Reflection& reflection = *message->GetReflection();
    if (part + 1 == parts_.size()) {
      GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Message> parsed,
                               ParseField(*message, field));
      reflection.ClearField(message, field);
      message->MergeFrom(*parsed);
      return absl::OkStatus();
    }
    if (field->is_map()) return ApplyInMap(message, field, part + 1);
    if (field->is_repeated()) return ApplyInList(message, field, part + 1);
    GRAPNEL_RETURN_IF_ERROR(CheckIsMessage(field, part));
    return Apply(reflection.MutableMessage(message, field), part + 1);
  }

 private:
  absl::Status ApplyInAny(Any* any, size_t part) const {
    if (any->type_url().empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          PathTo(part), " is unset: set it as a whole, {[prefix/Type] {...}}"));
    }
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Message> content,
                             UnpackConfig(*any));
    GRAPNEL_RETURN_IF_ERROR(Apply(content.get(), part));
    PackConfig(*content, any);
    return absl::OkStatus();
  }

  // parts_[part] is an index.
  absl::Status ApplyInList(Message* message, const FieldDescriptor* field,
                           size_t part) const {
    const Reflection& reflection = *message->GetReflection();
    const int size = reflection.FieldSize(*message, field);
    int index;
    if (!absl::SimpleAtoi(parts_[part], &index) || index < 0 || index > size) {
      return absl::InvalidArgumentError(absl::StrCat(
          PathTo(part), " has ", size, " elements: the index must be in 0..",
          size, ", is \"", parts_[part], "\""));
    }
    if (part + 1 < parts_.size()) {
      GRAPNEL_RETURN_IF_ERROR(CheckIsMessage(field, part));
      return Apply(index == size ? reflection.AddMessage(message, field)
                                 : reflection.MutableRepeatedMessage(
                                       message, field, index),
                   part + 1);
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::string literal, Literal(field, value_));
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Message> parsed,
                             Parse(*message, field, literal));
    message->MergeFrom(*parsed);
    if (index < size) {
      reflection.SwapElements(message, field, index, size);
      reflection.RemoveLast(message, field);
    }
    return absl::OkStatus();
  }

  // parts_[part] is a key.
  absl::Status ApplyInMap(Message* message, const FieldDescriptor* field,
                          size_t part) const {
    const FieldDescriptor* value_field = field->message_type()->map_value();
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::string key,
        Literal(field->message_type()->map_key(), parts_[part]));
    if (part + 1 < parts_.size()) {
      GRAPNEL_RETURN_IF_ERROR(CheckIsMessage(value_field, part));
      GRAPNEL_ASSIGN_OR_RETURN(Message * entry,
                               FindOrAddEntry(message, field, key));
      return Apply(entry->GetReflection()->MutableMessage(entry, value_field),
                   part + 1);
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::string value,
                             Literal(value_field, value_));
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<Message> parsed,
        Parse(*message, field,
              absl::StrCat("{ key: ", key, " value: ", value, " }")));
    message->MergeFrom(*parsed);
    return absl::OkStatus();
  }

  absl::StatusOr<Message*> FindOrAddEntry(Message* message,
                                          const FieldDescriptor* field,
                                          const std::string& key) const {
    GRAPNEL_ASSIGN_OR_RETURN(
        std::unique_ptr<Message> parsed,
        Parse(*message, field, absl::StrCat("{ key: ", key, " }")));
    const Message& wanted =
        parsed->GetReflection()->GetRepeatedMessage(*parsed, field, 0);
    const Reflection& reflection = *message->GetReflection();
    for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
      Message* entry = reflection.MutableRepeatedMessage(message, field, i);
      if (KeyText(*entry) == KeyText(wanted)) return entry;
    }
    Message* added = reflection.AddMessage(message, field);
    added->CopyFrom(wanted);
    return added;
  }

  static std::string KeyText(const Message& entry) {
    std::string text;
    TextFormat::PrintFieldValueToString(entry, entry.GetDescriptor()->map_key(),
                                        -1, &text);
    return text;
  }

  // A message like `container` with nothing set but `field`, all of it.
  absl::StatusOr<std::unique_ptr<Message>> ParseField(
      const Message& container, const FieldDescriptor* field) const {
    if (!field->is_repeated()) {
      GRAPNEL_ASSIGN_OR_RETURN(const std::string literal,
                               Literal(field, value_));
      return Parse(container, field, literal);
    }
    std::vector<std::string> literals;
    for (const std::string& element : SplitList(value_)) {
      GRAPNEL_ASSIGN_OR_RETURN(
          std::string literal,
          Literal(field, absl::StripAsciiWhitespace(element)));
      literals.push_back(std::move(literal));
    }
    return Parse(container, field,
                 absl::StrCat("[", absl::StrJoin(literals, ", "), "]"));
  }

  absl::StatusOr<std::unique_ptr<Message>> Parse(
      const Message& container, const FieldDescriptor* field,
      absl::string_view literal) const {
    std::unique_ptr<Message> parsed(container.New());
    ConfigTextError error;
    if (!ParseConfigText(absl::StrCat(field->name(), ": ", literal),
                         parsed.get(), &error)) {
      return absl::InvalidArgumentError(error.message);
    }
    // "{} lr: 1" is more than a value.
    std::vector<const FieldDescriptor*> set;
    parsed->GetReflection()->ListFields(*parsed, &set);
    for (const FieldDescriptor* other : set) {
      if (other != field) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", value_, "\" is not one value"));
      }
    }
    GRAPNEL_RETURN_IF_ERROR(CanonicalizeConfig(parsed.get()));
    if (!path_base_.empty()) {
      GRAPNEL_RETURN_IF_ERROR(RebasePaths(path_base_, parsed.get()));
    }
    return parsed;
  }

  absl::Status CheckIsMessage(const FieldDescriptor* field, size_t part) const {
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat(PathTo(part + 1), " is one value and has no field \"",
                     parts_[part + 1], "\""));
  }

  absl::Status NoField(const Message& message, size_t part) const {
    // A path that leaves out the member of a oneof means the one that is set.
    const auto& type = *message.GetDescriptor();
    for (int i = 0; i < type.real_oneof_decl_count(); ++i) {
      const FieldDescriptor* member =
          message.GetReflection()->GetOneofFieldDescriptor(message,
                                                           type.oneof_decl(i));
      if (member == nullptr || member->message_type() == nullptr ||
          member->message_type()->FindFieldByName(parts_[part]) == nullptr) {
        continue;
      }
      std::vector<std::string> parts = parts_;
      parts.insert(parts.begin() + part, member->name());
      return absl::InvalidArgumentError(
          absl::StrCat("no field \"", parts_[part], "\" in ", type.name(),
                       "; did you mean \"", absl::StrJoin(parts, "."), "\"?"));
    }
    return absl::InvalidArgumentError(NoSuchField(parts_[part], type));
  }

  // The path before `part`.
  std::string PathTo(size_t part) const {
    return absl::StrCat(
        "\"", absl::StrJoin(parts_.begin(), parts_.begin() + part, "."), "\"");
  }

  const std::vector<std::string> parts_;
  const absl::string_view value_;
  const absl::string_view path_base_;
};

}  // namespace

absl::Status ApplyOverride(absl::string_view assignment,
                           absl::string_view path_base, RunnerConfig* config) {
  std::vector<std::string> parts;
  absl::string_view path, value;
  GRAPNEL_RETURN_IF_ERROR(Split(assignment, &parts, &path, &value));
  // Of two names for one field the file may have the other one.
  if (parts[0] == "default_hooks" && parts.size() > 1) {
    std::string& hook =
        parts[1] == "priority" && parts.size() > 2 ? parts[2] : parts[1];
    hook = DefaultHookSlotName(hook);
  }
  RunnerConfig changed = *config;
  GRAPNEL_RETURN_IF_ERROR(WithContext(
      Override(std::move(parts), value, path_base).Apply(&changed, 0), path));
  GRAPNEL_RETURN_IF_ERROR(WithContext(JoinDefaultHookNames(&changed), path));
  *config = std::move(changed);
  return absl::OkStatus();
}

}  // namespace grapnel
