#include "google/protobuf/message.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/capi/handles.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/config_text.h"

namespace grapnel::capi {
namespace {

using ::google::protobuf::Message;

absl::Status NoEncoding(grapnel_encoding encoding) {
  return absl::InvalidArgumentError(
      absl::StrCat("encoding: there is no value ", encoding));
}

// Equal messages give equal bytes, maps included.
bool PrintBinary(const Message& message, std::string* out) {
  google::protobuf::io::StringOutputStream stream(out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  return message.SerializePartialToCodedStream(&coded);
}

bool PrintText(const Message& message, std::string* out) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetExpandAny(true);
  printer.SetUseUtf8StringEscaping(true);
  return printer.PrintToString(message, out);
}

bool PrintJson(const Message& message, std::string* out) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  return google::protobuf::util::MessageToJsonString(message, out, options)
      .ok();
}

}  // namespace

absl::Status ParseMessage(absl::string_view bytes, grapnel_encoding encoding,
                          absl::string_view name, Message* message) {
  if (bytes.size() > static_cast<size_t>(kMaxConfigBytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, "_size: must be at most ", kMaxConfigBytes, ", is ",
                     bytes.size()));
  }
  ConfigTextError error;
  switch (encoding) {
    case GRAPNEL_BINARY:
      if (ParseQuietly(bytes, message)) break;
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": not a ", message->GetDescriptor()->name(),
                       " in protobuf's encoding"));
    case GRAPNEL_TEXT:
      if (ParseConfigText(bytes, message, &error)) break;
      return ErrorIn(name, error);
    case GRAPNEL_JSON:
      if (ParseConfigJson(bytes, message, &error)) break;
      return ErrorIn(name, error);
    default:
      return NoEncoding(encoding);
  }
  return WithContext(CanonicalizeConfig(message), name);
}

absl::Status PrintMessage(const Message& message, grapnel_encoding encoding,
                          std::string* out) {
  std::string printed;
  bool done = false;
  switch (encoding) {
    case GRAPNEL_BINARY:
      done = PrintBinary(message, &printed);
      break;
    case GRAPNEL_TEXT:
      done = PrintText(message, &printed);
      break;
    case GRAPNEL_JSON:
      done = PrintJson(message, &printed);
      break;
    default:
      return NoEncoding(encoding);
  }
  if (!done) {
    return absl::InternalError(absl::StrCat(
        "a ", message.GetDescriptor()->name(), " can't be printed"));
  }
  *out = std::move(printed);
  return absl::OkStatus();
}

}  // namespace grapnel::capi
