// Text that goes into string fields of messages, which hold UTF-8 and nothing
// else: what isn't is written by protobuf and then never read again. Bytes that
// others chose (names given by models and hooks, paths, texts of exceptions)
// are refused by CheckUtf8 or escaped by EscapeToUtf8 where they come in.

#ifndef GRAPNEL_BASE_UTF8_H_
#define GRAPNEL_BASE_UTF8_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// Takes the first code point off `*text`, which isn't empty; where it isn't
// UTF-8, one byte and none. Shortest forms only, no surrogates, nothing above
// U+10FFFF.
std::optional<char32_t> TakeCodePoint(absl::string_view* text);

// How many bytes at the start of `text` are UTF-8.
size_t ValidUtf8Prefix(absl::string_view text);

bool IsUtf8(absl::string_view text);

// kInvalidArgument: `not UTF-8 from byte 3 on: "caf\xe9"`.
absl::Status CheckUtf8(absl::string_view text);

// `text` with "\xe9", four characters, in place of each byte that isn't UTF-8:
// UTF-8 as it is stays, and names that differ still do.
std::string EscapeToUtf8(absl::string_view text);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_UTF8_H_
