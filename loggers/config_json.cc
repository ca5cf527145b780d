#include "grapnel/loggers/config_json.h"

#include <cstdint>
#include <limits>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/loggers/number_format.h"
#include "grapnel/loggers/record_json.h"

namespace grapnel {
namespace {

using google::protobuf::io::Tokenizer;

// So that no text exhausts the stack. Configs are read with the same limit.
constexpr int kMaxDepth = 100;

using Field = std::pair<std::string, std::string>;

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber,
                const std::string& message) override {
    Add(line, message);
  }

  // `line`: from 0.
  void Add(int line, absl::string_view message) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("config: line ", line + 1, ": ", message));
  }

  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

// Fields of one message: the values of each name, in order of first mention.
class FieldList {
 public:
  void Add(std::string name, std::string value) {
    for (auto& [known, values] : fields_) {
      if (known != name) continue;
      values.push_back(std::move(value));
      return;
    }
    fields_.push_back({std::move(name), {std::move(value)}});
  }

  std::vector<Field> Join() && {
    std::vector<Field> joined;
    for (auto& [name, values] : fields_) {
      joined.emplace_back(std::move(name), values.size() == 1
                                               ? std::move(values[0])
                                               : Array(values));
    }
    return joined;
  }

  static std::string Array(const std::vector<std::string>& values) {
    std::string json = "[";
    for (const std::string& value : values) {
      absl::StrAppend(&json, json.size() > 1 ? ", " : "", value);
    }
    json.push_back(']');
    return json;
  }

 private:
  std::vector<std::pair<std::string, std::vector<std::string>>> fields_;
};

class Parser {
 public:
  explicit Parser(absl::string_view text)
      : input_(text.data(), static_cast<int>(text.size())),
        tokenizer_(&input_, &error_) {
    tokenizer_.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer_.set_allow_f_after_float(true);
    tokenizer_.set_require_space_after_number(false);
    tokenizer_.set_allow_multiline_strings(true);
    tokenizer_.Next();
  }

  absl::StatusOr<std::vector<Field>> Parse() {
    std::vector<Field> fields = Fields("");
    if (!AtEnd()) Fail("a field is expected");
    if (!error_.status().ok()) return error_.status();
    return fields;
  }

 private:
  const std::string& token() { return tokenizer_.current().text; }
  Tokenizer::TokenType type() { return tokenizer_.current().type; }
  bool AtEnd() { return type() == Tokenizer::TYPE_END; }
  bool failed() const { return !error_.status().ok(); }

  void Fail(absl::string_view what) {
    error_.Add(tokenizer_.current().line,
               absl::StrCat(what, ", not \"", token(), "\""));
  }

  bool Take(absl::string_view symbol) {
    if (type() != Tokenizer::TYPE_SYMBOL || token() != symbol) return false;
    tokenizer_.Next();
    return true;
  }

  std::string Name() {
    std::string name;
    if (Take("[")) {
      while (!AtEnd() && token() != "]") {
        name += token();
        tokenizer_.Next();
      }
      if (!Take("]")) Fail("\"]\" is expected");
      return name.substr(name.rfind('/') + 1);  // Of npos too.
    }
    if (type() != Tokenizer::TYPE_IDENTIFIER) Fail("a field is expected");
    name = token();
    tokenizer_.Next();
    return name;
  }

  // Up to, but not past, `end`; "" is the end of the text.
  std::vector<Field> Fields(absl::string_view end) {
    FieldList fields;
    while (!failed() && !AtEnd() && token() != end) {
      std::string name = Name();
      Take(":");
      if (type() == Tokenizer::TYPE_SYMBOL && token() == "[") {
        std::vector<std::string> values = Values();
        for (std::string& value : values) fields.Add(name, std::move(value));
      } else {
        fields.Add(std::move(name), Value());
      }
      if (!Take(",")) Take(";");
    }
    return std::move(fields).Join();
  }

  std::vector<std::string> Values() {
    std::vector<std::string> values;
    Take("[");
    while (!failed() && !AtEnd() && token() != "]") {
      values.push_back(Value());
      if (!Take(",")) break;
    }
    if (!Take("]")) Fail("\"]\" is expected");
    return values;
  }

  std::string Value() {
    for (const char* const braces : {"{}", "<>"}) {
      if (!Take(absl::string_view(braces, 1))) continue;
      const absl::string_view close(braces + 1, 1);
      if (++depth_ > kMaxDepth) Fail("nesting is too deep");
      std::string json = "{";
      for (const auto& [name, value] : Fields(close)) {
        if (json.size() > 1) json.append(", ");
        AppendJsonString(name, &json);
        absl::StrAppend(&json, ": ", value);
      }
      json.push_back('}');
      --depth_;
      if (!Take(close)) Fail(absl::StrCat("\"", close, "\" is expected"));
      return json;
    }
    return Scalar();
  }

  std::string Scalar() {
    std::string json;
    if (type() == Tokenizer::TYPE_STRING) {
      std::string text;
      for (; type() == Tokenizer::TYPE_STRING; tokenizer_.Next()) {
        Tokenizer::ParseStringAppend(token(), &text);
      }
      AppendJsonString(text, &json);
      return json;
    }
    if (Take("-")) json.push_back('-');
    uint64_t integer;
    if (type() == Tokenizer::TYPE_INTEGER &&
        Tokenizer::ParseInteger(token(), std::numeric_limits<uint64_t>::max(),
                                &integer)) {
      absl::StrAppend(&json, integer);
    } else if (type() == Tokenizer::TYPE_INTEGER ||
               type() == Tokenizer::TYPE_FLOAT) {
      AppendPythonRepr(Tokenizer::ParseFloat(token()), &json);
    } else if (type() != Tokenizer::TYPE_IDENTIFIER) {
      Fail("a value is expected");
    } else if (json.empty() && (token() == "true" || token() == "false")) {
      json = token();
    } else {
      const std::string word = json + token();
      json.clear();
      AppendJsonString(word, &json);
    }
    tokenizer_.Next();
    return json;
  }

  google::protobuf::io::ArrayInputStream input_;
  FirstError error_;
  Tokenizer tokenizer_;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<std::pair<std::string, std::string>>>
ConfigTextToJson(absl::string_view text) {
  GRAPNEL_RET_CHECK(text.size() <= std::numeric_limits<int>::max());
  return Parser(text).Parse();
}

}  // namespace grapnel
