// Text-format messages as JSON.

#ifndef GRAPNEL_LOGGERS_CONFIG_JSON_H_
#define GRAPNEL_LOGGERS_CONFIG_JSON_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// The fields of a message in protobuf's text format, in their order, each with
// its value as one line of JSON: {"train_cfg", "{\"max_epochs\": 20}"}.
//
// No schema is asked, so that this is for showing a config, not for reading it
// back: a field that is there once is a value, more than once an array; an enum
// value is a string; inf and nan are strings, for readers of strict JSON. The
// content of an Any stands under its type's name. kInvalidArgument, naming the
// line, for what is no text format.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>>
ConfigTextToJson(absl::string_view text);

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_CONFIG_JSON_H_
