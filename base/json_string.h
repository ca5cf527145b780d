// Strings in JSON.

#ifndef GRAPNEL_BASE_JSON_STRING_H_
#define GRAPNEL_BASE_JSON_STRING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace grapnel {

// `text` in JSON's quotes; what isn't UTF-8 is as EscapeToUtf8 makes it.
std::string JsonString(absl::string_view text);

// Appends it with "\u00e9" and the like for what isn't ASCII, as json.dumps of
// Python does.
void AppendAsciiJsonString(absl::string_view text, std::string* json);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_JSON_STRING_H_
