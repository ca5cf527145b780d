#include "grapnel/hooks/checkpoint/best_checkpoints.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/models/metric_rule.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using hooks::v1::BestCheckpoint;

constexpr char kFile[] = "best_checkpoints";
constexpr int64_t kMaxSize = int64_t{1} << 20;

}  // namespace

absl::Status WriteBestCheckpoints(io::Env& env, const std::string& dir,
                                  absl::string_view run_uuid,
                                  const BestCheckpointList& best) {
  hooks::v1::BestCheckpoints file;
  file.set_run_uuid(absl::BytesToHexString(run_uuid));
  *file.mutable_best() = best;
  std::string text;
  GRAPNEL_RET_CHECK(TextFormat::PrintToString(file, &text));
  return io::WriteFileAtomically(env, io::JoinPath(dir, kFile), text);
}

absl::StatusOr<BestCheckpointList> ReadBestCheckpoints(
    io::Env& env, const std::string& dir, absl::string_view run_uuid) {
  const std::string path = io::JoinPath(dir, kFile);
  GRAPNEL_ASSIGN_OR_RETURN(const std::string text,
                           io::ReadFile(env, path, kMaxSize));
  hooks::v1::BestCheckpoints file;
  const absl::Status parsed = ParseTextProto(text, &file);
  if (!parsed.ok()) {
    return absl::DataLossError(absl::StrCat(
        path, ": is no ", file.GetTypeName(), ": ", parsed.message()));
  }
  if (file.run_uuid() != absl::BytesToHexString(run_uuid)) {
    return absl::NotFoundError(absl::StrCat(path, ": is of another run"));
  }
  return file.best();
}

absl::StatusOr<double> ScoreOf(const Metrics& metrics,
                               const std::string& indicator) {
  std::vector<std::string> names;
  for (const auto& [name, value] : metrics) {
    names.push_back(name);
    if (name != indicator) continue;
    if (const auto number = AsNumber(value)) return *number;
    return absl::InvalidArgumentError(
        absl::StrCat("save_best: \"", indicator, "\" is a text and no number"));
  }
  return absl::NotFoundError(absl::StrCat(
      "save_best: there is no metric \"", indicator, "\", there are ",
      absl::StrJoin(names, ", "), DidYouMean(indicator, names)));
}

void SortBest(const Indicator& indicator, BestCheckpointList* list) {
  std::stable_sort(list->begin(), list->end(),
                   [&](const BestCheckpoint& a, const BestCheckpoint& b) {
                     return a.indicator() == indicator.name &&
                            b.indicator() == indicator.name &&
                            IsBetter(indicator.rule, a.score(), b.score());
                   });
}

std::optional<int> AddBest(const Indicator& indicator, double score,
                           const std::string& name, int64_t keep,
                           BestCheckpointList* list) {
  if (!std::isfinite(score)) return std::nullopt;
  // Older versions took an infinity for the best.
  const auto beats = [&](const BestCheckpoint& record) {
    return !std::isfinite(record.score()) ||
           IsBetter(indicator.rule, score, record.score());
  };
  std::vector<BestCheckpoint> others, best;
  for (const BestCheckpoint& record : *list) {
    if (record.indicator() != indicator.name) {
      others.push_back(record);
    } else if (record.name() != name) {
      best.push_back(record);
    } else if (!beats(record)) {
      return std::nullopt;  // It would replace a better one.
    }
  }
  const auto place = std::find_if(best.begin(), best.end(), beats);
  const auto index = static_cast<int>(place - best.begin());
  if (index >= keep) return std::nullopt;
  BestCheckpoint record;
  record.set_indicator(indicator.name);
  record.set_score(score);
  record.set_name(name);
  best.insert(place, std::move(record));
  // The ones this pushes out are deleted when it is written.
  others.insert(others.end(), best.begin(), best.end());
  *list = BestCheckpointList(others.begin(), others.end());
  return index;
}

}  // namespace grapnel
