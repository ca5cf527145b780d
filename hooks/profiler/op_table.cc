#include "grapnel/hooks/profiler/op_table.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace grapnel {
namespace {

struct Row {
  std::string name;
  int64_t self_nanos = 0;
  int64_t total_nanos = 0;
  int64_t count = 0;
};

std::string RowName(const std::string& name) {
  return absl::StartsWith(name, "ProfilerStep#") ? "ProfilerStep*" : name;
}

std::vector<Row> Sum(std::vector<OpCall> calls) {
  std::sort(calls.begin(), calls.end(), [](const OpCall& a, const OpCall& b) {
    if (a.thread != b.thread) return a.thread < b.thread;
    if (a.start_nanos != b.start_nanos) return a.start_nanos < b.start_nanos;
    return a.duration_nanos > b.duration_nanos;  // The parent comes first.
  });
  std::map<std::string, Row> rows;
  struct Open {
    int64_t end_nanos;
    Row* row;
  };
  std::vector<Open> open;  // The calls that the current one is inside of.
  const OpCall* last = nullptr;
  for (const OpCall& call : calls) {
    if (last == nullptr || last->thread != call.thread) open.clear();
    last = &call;
    while (!open.empty() && open.back().end_nanos <= call.start_nanos) {
      open.pop_back();
    }
    Row& row = rows[RowName(call.name)];
    row.self_nanos += call.duration_nanos;
    row.total_nanos += call.duration_nanos;
    ++row.count;
    if (!open.empty()) open.back().row->self_nanos -= call.duration_nanos;
    open.push_back({call.start_nanos + call.duration_nanos, &row});
  }
  std::vector<Row> list;
  for (auto& [name, row] : rows) {
    row.name = name;
    list.push_back(row);
  }
  return list;
}

int64_t Key(const Row& row, OpOrder order) {
  switch (order) {
    case OpOrder::kTotalTime:
      return row.total_nanos;
    case OpOrder::kCount:
      return row.count;
    case OpOrder::kSelfTime:
      break;
  }
  return row.self_nanos;
}

std::string Millis(int64_t nanos) {
  return absl::StrFormat("%.3fms", static_cast<double>(nanos) / 1e6);
}

}  // namespace

std::string OpTable(std::vector<OpCall> calls, OpOrder order,
                    int64_t row_limit) {
  std::vector<Row> rows = Sum(std::move(calls));
  int64_t self_nanos = 0;
  size_t width = sizeof("Name") - 1;
  for (const Row& row : rows) self_nanos += row.self_nanos;
  std::stable_sort(rows.begin(), rows.end(),
                   [order](const Row& a, const Row& b) {
                     return Key(a, order) > Key(b, order);
                   });
  if (static_cast<int64_t>(rows.size()) > row_limit) rows.resize(row_limit);
  for (const Row& row : rows) width = std::max(width, row.name.size());

  constexpr char kFormat[] = "%-*s  %10s  %12s  %12s  %12s  %8s\n";
  const int column = static_cast<int>(width);
  std::string table =
      absl::StrFormat(kFormat, column, "Name", "Self CPU %", "Self CPU",
                      "CPU total", "CPU time avg", "Calls");
  for (const Row& row : rows) {
    const double part = self_nanos == 0
                            ? 0
                            : 100.0 * static_cast<double>(row.self_nanos) /
                                  static_cast<double>(self_nanos);
    absl::StrAppend(
        &table, absl::StrFormat(kFormat, column, row.name,
                                absl::StrFormat("%.2f%%", part),
                                Millis(row.self_nanos), Millis(row.total_nanos),
                                Millis(row.total_nanos / row.count),
                                absl::StrCat(row.count)));
  }
  absl::StrAppend(&table, "Self CPU time total: ", Millis(self_nanos));
  return table;
}

}  // namespace grapnel
