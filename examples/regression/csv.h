#ifndef GRAPNEL_EXAMPLES_REGRESSION_CSV_H_
#define GRAPNEL_EXAMPLES_REGRESSION_CSV_H_

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace examples {

struct CsvTable {
  std::vector<std::string> columns;
  at::Tensor values;  // (rows, columns), float32, at least one row.
};

// A line of names, then lines of numbers. kInvalidArgument for anything else,
// naming the line, which is 1 for the names; `name` is what errors call the
// text.
absl::StatusOr<CsvTable> ParseCsv(absl::string_view text,
                                  absl::string_view name);

}  // namespace examples

#endif  // GRAPNEL_EXAMPLES_REGRESSION_CSV_H_
