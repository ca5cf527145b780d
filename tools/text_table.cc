#include "grapnel/tools/text_table.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace {

// Columns of what Printable gave, where each code point takes one.
size_t Width(absl::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    TakeCodePoint(&text);
    ++width;
  }
  return width;
}

}  // namespace

void AppendTable(const std::vector<TableRow>& rows, std::string* text) {
  std::vector<TableRow> shown = rows;
  std::vector<size_t> widths;
  for (TableRow& row : shown) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = Printable(row[i]);
      widths[i] = std::max(widths[i], Width(row[i]));
    }
  }
  for (const TableRow& row : shown) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, row[i]);
      line.append(widths[i] + 2 - Width(row[i]), ' ');
    }
    absl::StrAppend(text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
}

std::string Printable(absl::string_view text) {
  std::string printable;
  absl::string_view rest = text;
  while (!rest.empty()) {
    const absl::string_view before = rest;
    const std::optional<char32_t> point = TakeCodePoint(&rest);
    if (point.has_value() &&
        (*point < 0x20 || (*point >= 0x7f && *point < 0xa0))) {
      printable += '?';
    } else {
      printable.append(before.data(), before.size() - rest.size());
    }
  }
  return EscapeToUtf8(printable);
}

std::string GroupDigits(int64_t n) {
  std::string digits = absl::StrCat(n);
  const int64_t first = n < 0 ? 1 : 0;
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > first; i -= 3) {
    digits.insert(static_cast<size_t>(i), ",");
  }
  return digits;
}

std::string FormatBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB"};
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string Count(int64_t n, absl::string_view thing) {
  return absl::StrCat(GroupDigits(n), " ", thing, n == 1 ? "" : "s");
}

}  // namespace grapnel
