// Tables and numbers for a terminal.

#ifndef GRAPNEL_TOOLS_TEXT_TABLE_H_
#define GRAPNEL_TOOLS_TEXT_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace grapnel {

using TableRow = std::vector<std::string>;

// Appends lines of columns as wide as they need; the first row is the head.
// Rows may have different lengths. Nothing in a cell is obeyed by a terminal.
void AppendTable(const std::vector<TableRow>& rows, std::string* text);

// `text` as a terminal shows it, in one line: control characters are "?", and
// what isn't UTF-8 is escaped.
std::string Printable(absl::string_view text);

// "12,345".
std::string GroupDigits(int64_t n);

// "1.2 MB": in units of 1000.
std::string FormatBytes(int64_t bytes);

// "1 tensor", "2 tensors".
std::string Count(int64_t n, absl::string_view thing);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_TEXT_TABLE_H_
