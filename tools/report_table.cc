#include "grapnel/tools/report_table.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

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

// Appends a table, and an empty line.
void Append(const std::vector<TableRow>& rows, std::string* text) {
  AppendTable(rows, text);
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
  std::vector<TableRow> rows = {{head, "shape", "numbers", "type"}};
  for (const auto& tensor : tensors) {
    rows.push_back(
        {tensor.name, tensor.shape, GroupDigits(tensor.numel), tensor.dtype});
  }
  rows.push_back({"in all", "", GroupDigits(Sum(tensors, false)), last});
  Append(rows, text);
}

}  // namespace

std::string ReportTable(const RehearsalReport& report) {
  std::string text;
  AppendTensors(
      "parameter", report.parameters,
      absl::StrCat(GroupDigits(Sum(report.parameters, true)), " trained"),
      &text);
  AppendTensors("buffer", report.buffers, "", &text);

  std::vector<TableRow> data = {{"data", "samples", "batches", "inputs",
                                 "targets", "outputs", "an iteration",
                                 "of it waiting"}};
  for (const auto& part : report.parts) {
    const bool seen = part.iterations > 0;
    data.push_back({part.name, GroupDigits(part.samples),
                    GroupDigits(part.num_batches), Typed(part.inputs),
                    Typed(part.targets), Typed(part.outputs),
                    seen ? Time(part.iteration) : "-",
                    part.iterations > 1 ? Time(part.waited) : "-"});
  }
  if (data.size() > 1) Append(data, &text);

  if (!report.losses.empty()) {
    std::vector<TableRow> losses = {{"first iteration", "value"}};
    for (const auto& [name, value] : report.losses) {
      losses.push_back({name, absl::StrFormat("%.6g", value)});
    }
    Append(losses, &text);
  }

  std::vector<TableRow> memory = {
      {"memory", "bytes"}, {"weights", FormatBytes(report.weight_bytes)}};
  if (report.max_iters > 0) {
    memory.push_back({"gradients", FormatBytes(report.gradient_bytes)});
    memory.push_back({"optimizer", FormatBytes(report.optimizer_bytes)});
  }
  memory.push_back(
      {"process, at most", FormatBytes(report.peak_resident_bytes)});
  Append(memory, &text);

  if (report.max_iters > 0 && !report.parts.empty()) {
    const absl::Duration iteration = report.parts[0].iteration;
    absl::StrAppend(
        &text, "run: ",
        report.by_epoch
            ? absl::StrCat(GroupDigits(report.max_epochs), " epochs, ")
            : "",
        GroupDigits(report.max_iters), " iterations");
    if (iteration > absl::ZeroDuration()) {
      absl::StrAppend(&text, ", about ", Time(iteration * report.max_iters),
                      " without validation");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace grapnel
