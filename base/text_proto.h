// Messages from protobuf's text format.

#ifndef GRAPNEL_BASE_TEXT_PROTO_H_
#define GRAPNEL_BASE_TEXT_PROTO_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/tokenizer.h"

namespace google {
namespace protobuf {
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// Keeps the first error of a parser, which would else write to stderr.
class FirstTextError final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override;

  bool ok() const { return message_.empty(); }
  // 1-based.
  int line() const { return line_; }
  int column() const { return column_; }
  const std::string& message() const { return message_; }

 private:
  int line_ = 0;
  int column_ = 0;
  std::string message_;
};

// kInvalidArgument: "line 3, column 7: Expected integer.", the first error.
absl::Status ParseTextProto(absl::string_view text,
                            google::protobuf::Message* message);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_TEXT_PROTO_H_
