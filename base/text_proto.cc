#include "grapnel/base/text_proto.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"

namespace grapnel {

void FirstTextError::AddError(int line, int column,
                              const std::string& message) {
  if (!ok()) return;
  line_ = line + 1;
  column_ = column + 1;
  message_ = message;
}

absl::Status ParseTextProto(absl::string_view text,
                            google::protobuf::Message* message) {
  if (text.size() > std::numeric_limits<int>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", text.size(), " bytes is too long"));
  }
  google::protobuf::io::ArrayInputStream stream(text.data(),
                                                static_cast<int>(text.size()));
  FirstTextError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (parser.Parse(&stream, message)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("line ", error.line(),
                                                 ", column ", error.column(),
                                                 ": ", error.message()));
}

}  // namespace grapnel
