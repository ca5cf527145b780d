#include "grapnel/tools/report_table.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace grapnel {
namespace {

using Row = std::vector<std::string>;

// "12,345".
std::string Grouped(int64_t n) {
  std::string digits = absl::StrCat(n);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) {
    digits.insert(i, ",");
  }
  return digits;
}

std::string Bytes(int64_t bytes) {
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

std::string Time(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 1e-3) return absl::StrFormat("%.1f us", seconds * 1e6);
  if (seconds < 1) return absl::StrFormat("%.1f ms", seconds * 1e3);
  if (seconds < 120) return absl::StrFormat("%.1f s", seconds);
  const int64_t minutes = absl::ToInt64Minutes(duration);
  if (minutes < 120) return absl::StrFormat("%d min", minutes);
  return absl::StrFormat("%d h %d min", minutes / 60, minutes % 60);
}

std::string Typed(const RehearsalReport::Tensor& tensor) {
  if (tensor.shape.empty()) return "-";
  return absl::StrCat(tensor.shape, " ", tensor.dtype);
}

// Appends rows in columns as wide as they need; the first one is the head.
void Append(const std::vector<Row>& rows, std::string* text) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, row[i]);
      line.append(widths[i] + 2 - row[i].size(), ' ');
    }
    absl::StrAppend(text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  absl::StrAppend(text, "\n");
}

int64_t Sum(const std::vector<RehearsalReport::Tensor>& tensors,
            bool trained_alone) {
  int64_t sum = 0;
  for (const auto& tensor : tensors) {
    if (tensor.trained || !trained_alone) sum += tensor.numel;
  }
  return sum;
}

void AppendTensors(const char* head,
                   const std::vector<RehearsalReport::Tensor>& tensors,
                   const std::string& last, std::string* text) {
  if (tensors.empty()) return;
  std::vector<Row> rows = {{head, "shape", "numbers", "type"}};
  for (const auto& tensor : tensors) {
    rows.push_back(
        {tensor.name, tensor.shape, Grouped(tensor.numel), tensor.dtype});
  }
  rows.push_back({"in all", "", Grouped(Sum(tensors, false)), last});
  Append(rows, text);
}

}  // namespace

std::string ReportTable(const RehearsalReport& report) {
  std::string text;
  AppendTensors("parameter", report.parameters,
                absl::StrCat(Grouped(Sum(report.parameters, true)), " trained"),
                &text);
  AppendTensors("buffer", report.buffers, "", &text);

  std::vector<Row> data = {{"data", "samples", "batches", "inputs", "targets",
                            "outputs", "an iteration", "of it waiting"}};
  for (const auto& part : report.parts) {
    const bool seen = part.iterations > 0;
    data.push_back({part.name, Grouped(part.samples), Grouped(part.num_batches),
                    Typed(part.inputs), Typed(part.targets),
                    Typed(part.outputs), seen ? Time(part.iteration) : "-",
                    part.iterations > 1 ? Time(part.waited) : "-"});
  }
  if (data.size() > 1) Append(data, &text);

  if (!report.losses.empty()) {
    std::vector<Row> losses = {{"first iteration", "value"}};
    for (const auto& [name, value] : report.losses) {
      losses.push_back({name, absl::StrFormat("%.6g", value)});
    }
    Append(losses, &text);
  }

  std::vector<Row> memory = {{"memory", "bytes"},
                             {"weights", Bytes(report.weight_bytes)}};
  if (report.max_iters > 0) {
    memory.push_back({"gradients", Bytes(report.gradient_bytes)});
    memory.push_back({"optimizer", Bytes(report.optimizer_bytes)});
  }
  memory.push_back({"process, at most", Bytes(report.peak_resident_bytes)});
  Append(memory, &text);

  if (report.max_iters > 0 && !report.parts.empty()) {
    const absl::Duration iteration = report.parts[0].iteration;
    absl::StrAppend(&text, "run: ",
                    report.by_epoch
                        ? absl::StrCat(Grouped(report.max_epochs), " epochs, ")
                        : "",
                    Grouped(report.max_iters), " iterations");
    if (iteration > absl::ZeroDuration()) {
      absl::StrAppend(&text, ", about ", Time(iteration * report.max_iters),
                      " without validation");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace grapnel
