#include "grapnel/examples/regression/csv.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ATen/ops/empty.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"

namespace examples {

absl::StatusOr<CsvTable> ParseCsv(absl::string_view text,
                                  absl::string_view name) {
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  CsvTable table;
  std::vector<float> values;
  for (size_t i = 0; i < lines.size(); ++i) {
    const absl::string_view line = absl::StripSuffix(lines[i], "\r");
    // The file's last line may end with a newline.
    if (line.empty() && i + 1 == lines.size()) break;
    const auto error = [&](const auto&... parts) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ":", i + 1, ": ", parts...));
    };
    if (i == 0) {
      table.columns = absl::StrSplit(line, ',');
      continue;
    }
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
    if (fields.size() != table.columns.size()) {
      return error("must have ", table.columns.size(), " fields, has ",
                   fields.size());
    }
    for (size_t j = 0; j < fields.size(); ++j) {
      float value;
      if (!absl::SimpleAtof(fields[j], &value) || !std::isfinite(value)) {
        return error(table.columns[j], ": must be a number, is \"", fields[j],
                     "\"");
      }
      values.push_back(value);
    }
  }
  if (values.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": has no rows"));
  }
  const int64_t columns = static_cast<int64_t>(table.columns.size());
  const int64_t rows = static_cast<int64_t>(values.size()) / columns;
  GRAPNEL_RETURN_IF_ERROR(grapnel::CatchAsStatus([&] {
    table.values = at::empty({rows, columns}, at::kFloat);
    std::copy(values.begin(), values.end(),
              table.values.mutable_data_ptr<float>());
    return absl::OkStatus();
  }));
  return table;
}

}  // namespace examples
