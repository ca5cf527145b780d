#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "grapnel/base/json_string.h"
#include "grapnel/tools/text_table.h"
#include "grapnel/tools/verify_resume/verify_resume.h"

namespace grapnel {
namespace {

using Verdict = VerifyResumeReport::Verdict;

constexpr size_t kOthers = 8;

const char* NameOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEqual:
      return "equal";
    case Verdict::kDifferent:
      return "different";
    case Verdict::kNotDeterministic:
      return "not_deterministic";
    case Verdict::kRunFailed:
      return "run_failed";
  }
  return "";
}

const VerifyResumeReport::Kill* KillBefore(const VerifyResumeReport& report,
                                           const RunDifference& difference) {
  if (report.kills.empty() || report.verdict != Verdict::kDifferent) {
    return nullptr;
  }
  const int run = report.kills.back().run;
  for (const VerifyResumeReport::Kill& kill : report.kills) {
    if (kill.run == run && kill.process + 1 == difference.process) {
      return &kill;
    }
  }
  return nullptr;
}

std::string Titled(const RunDifference& difference) {
  std::string text = absl::StrCat(difference.item, ", ", difference.where);
  if (difference.max_abs.has_value()) {
    absl::StrAppend(&text, ", |d| ",
                    absl::StrFormat("%.3g", *difference.max_abs));
  }
  return text;
}

std::string DifferenceJson(const RunDifference& difference) {
  std::string json =
      absl::StrCat("{\"item\": ", JsonString(difference.item),
                   ", \"where\": ", JsonString(difference.where),
                   ", \"uninterrupted\": ", JsonString(difference.expected),
                   ", \"resumed\": ", JsonString(difference.actual));
  if (difference.max_abs.has_value() && std::isfinite(*difference.max_abs)) {
    absl::StrAppend(&json, ", \"max_abs\": ",
                    absl::StrFormat("%.17g", *difference.max_abs));
  }
  return json + "}";
}

}  // namespace

std::string ReportText(const VerifyResumeReport& report) {
  std::string text;
  switch (report.verdict) {
    case Verdict::kEqual:
      absl::StrAppend(&text, "equal: killed ",
                      Count(static_cast<int64_t>(report.kills.size()), "time"),
                      ", the run is the one that nothing interrupted\n");
      break;
    case Verdict::kRunFailed:
      absl::StrAppend(&text, "different: ", report.message, "\n");
      break;
    case Verdict::kDifferent:
    case Verdict::kNotDeterministic: {
      const RunDifference& first = report.differences[0];
      absl::StrAppend(&text,
                      report.verdict == Verdict::kDifferent
                          ? "different: "
                          : "not deterministic, also without a kill: ",
                      Titled(first), "\n");
      if (!first.expected.empty() || !first.actual.empty()) {
        absl::StrAppend(&text, "  uninterrupted: ", first.expected, "\n",
                        report.verdict == Verdict::kDifferent
                            ? "  resumed:       "
                            : "  once more:     ",
                        first.actual, "\n");
      }
      const VerifyResumeReport::Kill* const kill = KillBefore(report, first);
      if (kill != nullptr) {
        absl::StrAppend(
            &text, "  first seen after the kill ", kill->where, ", ",
            kill->next.empty() ? "when it began anew"
                               : "when it went on from " + kill->next,
            "\n");
      }
      absl::StrAppend(&text, "  likely owner: ", report.owner, "\n");
      for (size_t i = 1; i < report.differences.size(); ++i) {
        if (i > kOthers) {
          absl::StrAppend(&text, "  and ", report.differences.size() - i,
                          " more\n");
          break;
        }
        absl::StrAppend(&text, i == 1 ? "  then: " : "        ",
                        Titled(report.differences[i]), "\n");
      }
      break;
    }
  }
  if (!report.folder.empty()) {
    absl::StrAppend(&text, "the runs are in ", report.folder, "\n");
  }
  return text;
}

std::string ReportJson(const VerifyResumeReport& report) {
  std::string json = absl::StrCat(
      "{\"verdict\": \"", NameOf(report.verdict), "\", \"seed\": ", report.seed,
      ", \"kill_seed\": ", report.kill_seed, ", \"iters\": ", report.iters,
      ", \"saves\": ", JsonString(report.saves), ", \"kills\": [");
  for (size_t i = 0; i < report.kills.size(); ++i) {
    const VerifyResumeReport::Kill& kill = report.kills[i];
    absl::StrAppend(&json, i == 0 ? "" : ", ", "{\"run\": ", kill.run,
                    ", \"where\": ", JsonString(kill.where),
                    ", \"next\": ", JsonString(kill.next), "}");
  }
  absl::StrAppend(&json, "], \"differences\": [");
  for (size_t i = 0; i < report.differences.size(); ++i) {
    absl::StrAppend(&json, i == 0 ? "" : ", ",
                    DifferenceJson(report.differences[i]));
  }
  return absl::StrCat(json, "], \"owner\": ", JsonString(report.owner),
                      ", \"message\": ", JsonString(report.message),
                      ", \"folder\": ", JsonString(report.folder), "}\n");
}

}  // namespace grapnel
