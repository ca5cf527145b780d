#include "grapnel/runner/config_text.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/unknown_field_set.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/base/utf8.h"
#include "grapnel/runner/config_types.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;
using ::google::protobuf::TextFormat;
using ::google::protobuf::io::ArrayInputStream;
using ::google::protobuf::io::Tokenizer;

constexpr int kMaxDepth = 100;

// Resolves the names in brackets, and remembers why it could not.
class TypeFinder : public TextFormat::Finder {
 public:
  const Descriptor* FindAnyType(const Message& message,
                                const std::string& prefix,
                                const std::string& name) const override {
    absl::StatusOr<const Descriptor*> type = FindConfigType(name);
    if (type.ok()) return *type;
    problem_ = std::string(type.status().message());
    return nullptr;
  }

  const std::string& problem() const { return problem_; }

 private:
  mutable std::string problem_;
};

// Walks the tokens of a text, knowing the type of message that each stands in.
// protobuf reports where it stopped, which is behind the word that is wrong,
// and not in what.
class TokenWalk {
 public:
  TokenWalk(absl::string_view text, const Descriptor* root)
      : stream_(text.data(), static_cast<int>(text.size())),
        tokenizer_(&stream_, &ignored_) {
    tokenizer_.set_allow_f_after_float(true);
    tokenizer_.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer_.set_require_space_after_number(false);
    tokenizer_.set_allow_multiline_strings(true);
    levels_.push_back({root, ""});
  }

  // Walks up to `error`, where the parser stopped. Moves `*error` back to the
  // last token before that is `word`, if there is one. Returns the type of the
  // message that the error is in; null if that isn't known.
  const Descriptor* WalkTo(absl::string_view word, ConfigTextError* error) {
    const int line = error->line - 1;
    const int column = error->column - 1;
    while (tokenizer_.Next()) {
      const Tokenizer::Token& token = tokenizer_.current();
      if (token.type == Tokenizer::TYPE_END || token.line > line ||
          (token.line == line && token.column > column)) {
        break;
      }
      if (token.text == word) {
        error->line = token.line + 1;
        error->column = token.column + 1;
      }
      // An opening brace as the offending token is not entered.
      if (token.line == line && token.column == column) break;
      Take(token);
    }
    return levels_.back().type;
  }

 private:
  // A message that is open.
  struct Level {
    const Descriptor* type;  // Null: not known.
    std::string name;        // The last field in it, or the type of an Any.
  };

  void Take(const Tokenizer::Token& token) {
    Level& level = levels_.back();
    if (in_type_name_) {
      if (token.text == "]") {
        in_type_name_ = false;
      } else {
        level.name += token.text;
      }
    } else if (token.type == Tokenizer::TYPE_IDENTIFIER) {
      level.name = token.text;
    } else if (token.text == "[" && level.type == Any::descriptor()) {
      in_type_name_ = true;
      level.name.clear();
    } else if (token.text == "{" || token.text == "<") {
      levels_.push_back({TypeOf(level), ""});
    } else if ((token.text == "}" || token.text == ">") && levels_.size() > 1) {
      levels_.pop_back();
    }
  }

  // The type of the message that is about to be opened in `parent`.
  static const Descriptor* TypeOf(const Level& parent) {
    if (parent.type == nullptr) return nullptr;
    if (parent.type == Any::descriptor()) {
      absl::StatusOr<const Descriptor*> type = FindConfigType(parent.name);
      return type.ok() ? *type : nullptr;
    }
    const FieldDescriptor* field = parent.type->FindFieldByName(parent.name);
    return field == nullptr ? nullptr : field->message_type();
  }

  FirstTextError ignored_;
  ArrayInputStream stream_;
  Tokenizer tokenizer_;
  std::vector<Level> levels_;
  bool in_type_name_ = false;
};

std::string NoSuchValue(absl::string_view name, const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    names.push_back(type.value(i)->name());
  }
  return absl::StrCat("no value ", name, " in ", type.name(),
                      DidYouMean(name, names));
}

// Says in our words what protobuf said in its own.
void Reword(absl::string_view text, const Descriptor* root,
            const TypeFinder& finder, ConfigTextError* error) {
  static const LazyRE2 kNoField = {
      R"re(Message type "([^"]*)" has no field named "([^"]*)"\.)re"};
  static const LazyRE2 kNoValue = {
      R"re(Unknown enumeration value of "([^"]*)" for field "([^"]*)"\.)re"};
  std::string message = std::move(error->message);
  std::string name, field_name;
  if (RE2::FullMatch(message, *kNoField, nullptr, &name)) {
    const Descriptor* type = TokenWalk(text, root).WalkTo(name, error);
    if (type != nullptr) {
      error->message = NoSuchField(name, *type);
      return;
    }
  } else if (RE2::FullMatch(message, *kNoValue, &name, &field_name)) {
    const Descriptor* type = TokenWalk(text, root).WalkTo(name, error);
    const FieldDescriptor* field =
        type == nullptr ? nullptr : type->FindFieldByName(field_name);
    if (field != nullptr && field->enum_type() != nullptr) {
      error->message = absl::StrCat(field_name, ": ",
                                    NoSuchValue(name, *field->enum_type()));
      return;
    }
  } else if (!finder.problem().empty()) {
    TokenWalk(text, root).WalkTo("[", error);
    error->message = finder.problem();
    return;
  }
  if (message == R"(Expected "/", found "]".)") {
    error->message =
        "a type in brackets has a prefix: [hooks/EarlyStoppingHook]";
    return;
  }
  message[0] = absl::ascii_tolower(message[0]);
  error->message = std::string(absl::StripSuffix(message, "."));
}

// Nobody who writes a key twice means that the last one counts.
absl::Status CheckDistinctKeys(const Message& message,
                               const FieldDescriptor* map) {
  const Reflection& reflection = *message.GetReflection();
  std::set<std::string> keys;
  for (int i = 0; i < reflection.FieldSize(message, map); ++i) {
    std::string key;
    TextFormat::PrintFieldValueToString(
        reflection.GetRepeatedMessage(message, map, i),
        map->message_type()->map_key(), -1, &key);
    if (!keys.insert(key).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("key ", key, " is given twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status Canonicalize(Message* message, int depth);

// Of element `i`, -1 if it isn't a list.
absl::Status CanonicalizeValue(Message* message, const FieldDescriptor* field,
                               int i, int depth) {
  const Reflection& reflection = *message->GetReflection();
  std::string scratch;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return Canonicalize(
          i < 0 ? reflection.MutableMessage(message, field)
                : reflection.MutableRepeatedMessage(message, field, i),
          depth + 1);
    case FieldDescriptor::CPPTYPE_STRING:
      if (field->type() == FieldDescriptor::TYPE_BYTES) return absl::OkStatus();
      return CheckUtf8(
          i < 0 ? reflection.GetStringReference(*message, field, &scratch)
                : reflection.GetRepeatedStringReference(*message, field, i,
                                                        &scratch));
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number =
          i < 0 ? reflection.GetEnumValue(*message, field)
                : reflection.GetRepeatedEnumValue(*message, field, i);
      if (field->enum_type()->FindValueByNumber(number) == nullptr) {
        return absl::InvalidArgumentError(
            NoSuchValue(absl::StrCat(number), *field->enum_type()));
      }
      return absl::OkStatus();
    }
    default:
      return absl::OkStatus();
  }
}

absl::Status CanonicalizeAny(Any* any, int depth) {
  if (any->type_url().empty() && any->value().empty()) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Message> content,
                           UnpackConfig(*any));
  GRAPNEL_RETURN_IF_ERROR(Canonicalize(content.get(), depth + 1));
  PackConfig(*content, any);
  return absl::OkStatus();
}

absl::Status Canonicalize(Message* message, int depth) {
  if (depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("nested more than ", kMaxDepth, " deep"));
  }
  if (message->GetDescriptor() == Any::descriptor()) {
    return CanonicalizeAny(static_cast<Any*>(message), depth);
  }
  const Reflection& reflection = *message->GetReflection();
  const auto& unknown = reflection.GetUnknownFields(*message);
  if (!unknown.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no field number ", unknown.field(0).number(), " in ",
                     message->GetDescriptor()->name()));
  }
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->is_map()) {
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(CheckDistinctKeys(*message, field), field->name()));
    }
    if (!field->is_repeated()) {
      GRAPNEL_RETURN_IF_ERROR(WithContext(
          CanonicalizeValue(message, field, -1, depth), field->name()));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
      const absl::Status status = CanonicalizeValue(message, field, i, depth);
      if (!status.ok()) {
        return WithContext(status, absl::StrCat(field->name(), "[", i, "]"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrorIn(absl::string_view name, const ConfigTextError& error) {
  std::string where(name);
  if (error.line > 0) {
    absl::StrAppend(&where, ":", error.line, ":", error.column);
  }
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", error.message));
}

bool CheckConfigIsUtf8(absl::string_view text, ConfigTextError* error) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return true;
  const absl::string_view before = text.substr(0, valid);
  const size_t newline = before.rfind('\n');
  error->line =
      1 + static_cast<int>(std::count(before.begin(), before.end(), '\n'));
  error->column = static_cast<int>(
      newline == absl::string_view::npos ? valid + 1 : valid - newline);
  error->message = "not UTF-8";
  return false;
}

bool ParseConfigText(absl::string_view text, Message* message,
                     ConfigTextError* error) {
  if (!CheckConfigIsUtf8(text, error)) return false;
  // What an Any holds is serialized where it is parsed, and not UTF-8 yet.
  const google::protobuf::LogSilencer silencer;
  FirstTextError first;
  const TypeFinder finder;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&first);
  parser.SetFinder(&finder);
  parser.SetRecursionLimit(kMaxDepth);
  ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  if (parser.Parse(&stream, message)) return true;

  *error = first.ok()
               ? ConfigTextError{0, 0, "Not valid."}
               : ConfigTextError{first.line(), first.column(), first.message()};
  Reword(text, message->GetDescriptor(), finder, error);
  return false;
}

absl::Status CanonicalizeConfig(Message* message) {
  return Canonicalize(message, 0);
}

std::string NoSuchField(absl::string_view name, const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) {
    names.push_back(type.field(i)->name());
  }
  return absl::StrCat("no field \"", name, "\" in ", type.name(),
                      DidYouMean(name, names));
}

}  // namespace grapnel
