#include "grapnel/tools/verify_resume/resume_trace.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace grapnel {
namespace {

// Columns are between tabs, which CEscape makes "\t"; "=" stands between a
// field's name and its value.
std::optional<TraceEvent> ParseEvent(absl::string_view line) {
  const std::vector<absl::string_view> columns = absl::StrSplit(line, '\t');
  TraceEvent event;
  if (columns.size() < 5 || columns.back() != "." ||
      !absl::SimpleAtoi(columns[1], &event.iter) ||
      !absl::SimpleAtoi(columns[2], &event.index) ||
      !absl::SimpleAtoi(columns[3], &event.nanos)) {
    return std::nullopt;
  }
  event.kind = std::string(columns[0]);
  for (size_t i = 4; i + 1 < columns.size(); ++i) {
    // A value is a number or a digest; a name may hold anything.
    const size_t equals = columns[i].rfind('=');
    std::string name;
    if (equals == absl::string_view::npos ||
        !absl::CUnescape(columns[i].substr(0, equals), &name)) {
      return std::nullopt;
    }
    event.fields.emplace_back(std::move(name),
                              std::string(columns[i].substr(equals + 1)));
  }
  return event;
}

}  // namespace

std::string FormatTraceEvent(const TraceEvent& event) {
  std::string line = absl::StrCat(event.kind, "\t", event.iter, "\t",
                                  event.index, "\t", event.nanos);
  for (const auto& [name, value] : event.fields) {
    absl::StrAppend(&line, "\t", absl::CEscape(name), "=", value);
  }
  // The mark of a whole line.
  return line + "\t.\n";
}

absl::StatusOr<std::vector<TraceEvent>> ParseTrace(absl::string_view text) {
  std::vector<TraceEvent> events;
  int number = 0, cut = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty()) continue;
    std::optional<TraceEvent> event = ParseEvent(line);
    if (cut != 0 && (!event.has_value() || event->kind != trace::kStart)) {
      return absl::DataLossError(
          absl::StrCat(kTraceFile, ": line ", cut, " is no event"));
    }
    cut = event.has_value() ? 0 : number;
    if (event.has_value()) events.push_back(*std::move(event));
  }
  return events;
}

std::string FormatKillPoint(const KillPoint& point) {
  return absl::StrCat(point.kind, ":", point.iter, ":", point.index, ":",
                      absl::ToInt64Microseconds(point.delay));
}

std::optional<KillPoint> ParseKillPoint(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  KillPoint point;
  int64_t micros;
  if (parts.size() != 4 || parts[0].empty() ||
      !absl::SimpleAtoi(parts[1], &point.iter) ||
      !absl::SimpleAtoi(parts[2], &point.index) ||
      !absl::SimpleAtoi(parts[3], &micros) || micros < 0) {
    return std::nullopt;
  }
  point.kind = std::string(parts[0]);
  point.delay = absl::Microseconds(micros);
  return point;
}

}  // namespace grapnel
