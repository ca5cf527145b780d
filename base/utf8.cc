#include "grapnel/base/utf8.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "grapnel/base/control_characters.h"

namespace grapnel {
namespace {

// How many bytes at the start of `text` are ASCII, in whole words: nearly all
// are, and this is as fast as reading them.
size_t AsciiWords(absl::string_view text) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  uint64_t word = 0;
  size_t size = 0;
  for (; text.size() - size >= sizeof(word); size += sizeof(word)) {
    std::memcpy(&word, text.data() + size, sizeof(word));
    if ((word & kHighBits) != 0) break;
  }
  return size;
}

}  // namespace

std::optional<char32_t> TakeCodePoint(absl::string_view* text) {
  const auto byte = [text](size_t i) {
    return static_cast<unsigned char>((*text)[i]);
  };
  const unsigned char lead = byte(0);
  const size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  char32_t point = size == 1 ? lead : lead & (0x7f >> size);
  bool valid =
      (lead < 0x80 || (lead >= 0xc2 && lead <= 0xf4)) && text->size() >= size;
  for (size_t i = 1; valid && i < size; ++i) {
    valid = (byte(i) & 0xc0) == 0x80;
    point = point << 6 | (byte(i) & 0x3f);
  }
  valid = valid && !(point >= 0xd800 && point <= 0xdfff) &&
          !(size == 3 && point < 0x800) && !(size == 4 && point < 0x10000) &&
          point <= 0x10ffff;
  text->remove_prefix(valid ? size : 1);
  if (!valid) return std::nullopt;
  return point;
}

size_t ValidUtf8Prefix(absl::string_view text) {
  absl::string_view rest = text;
  while (!rest.empty()) {
    rest.remove_prefix(AsciiWords(rest));
    if (rest.empty()) break;
    const size_t begin = text.size() - rest.size();
    if (!TakeCodePoint(&rest).has_value()) return begin;
  }
  return text.size();
}

bool IsUtf8(absl::string_view text) {
  return ValidUtf8Prefix(text) == text.size();
}

absl::Status CheckUtf8(absl::string_view text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  constexpr size_t kShown = 200;
  return absl::InvalidArgumentError(
      absl::StrCat("not UTF-8 from byte ", valid, " on: \"",
                   EscapeToUtf8(MaskControlCharacters(text.substr(0, kShown))),
                   text.size() > kShown ? "...\"" : "\""));
}

std::string EscapeToUtf8(absl::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string valid;
  while (!text.empty()) {
    const size_t good = ValidUtf8Prefix(text);
    valid.append(text.data(), good);
    text.remove_prefix(good);
    if (text.empty()) break;
    const auto bad = static_cast<unsigned char>(text[0]);
    valid.append({'\\', 'x', kHex[bad >> 4], kHex[bad & 0xf]});
    text.remove_prefix(1);
  }
  return valid;
}

}  // namespace grapnel
