#include "grapnel/io/retention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace grapnel {
namespace io {
namespace {

constexpr char kBestPrefix[] = "best_";

bool IsBestName(absl::string_view name) {
  return absl::StartsWith(name, kBestPrefix);
}

// The metric in the name of a best one; "" if it has no value of that. The
// longest: there may be "acc" and "acc_top1".
std::string MetricInName(const RunCheckpoint& checkpoint) {
  std::string longest;
  for (const auto& [metric, value] : checkpoint.metrics) {
    const std::string prefix = absl::StrCat(
        kBestPrefix, absl::StrReplaceAll(metric, {{"/", "_"}}), "_");
    if (absl::StartsWith(checkpoint.name, prefix) &&
        metric.size() > longest.size()) {
      longest = metric;
    }
  }
  return longest;
}

using Verdicts = std::vector<RetentionVerdict>;

// What FindLatestCheckpoint passes over too.
bool IsGivenUp(const RunCheckpoint& checkpoint, const RunCheckpoint* last) {
  return last != nullptr &&
         std::tie(checkpoint.iter, checkpoint.epoch) >
             std::tie(last->iter, last->epoch) &&
         checkpoint.created_unix_nanos < last->created_unix_nanos;
}

void KeepNewest(int64_t count, const std::string& reason, Verdicts* verdicts) {
  const RunCheckpoint* last = nullptr;
  for (const RetentionVerdict& verdict : *verdicts) {
    if (verdict.checkpoint.is_last) last = &verdict.checkpoint;
  }
  for (auto it = verdicts->rbegin(); it != verdicts->rend() && count > 0;
       ++it) {
    if (IsBestName(it->checkpoint.name) || IsGivenUp(it->checkpoint, last)) {
      continue;
    }
    it->reasons.push_back(reason);
    --count;
  }
}

void KeepBest(const BestRule& rule, Verdicts* verdicts) {
  std::vector<std::pair<double, RetentionVerdict*>> ranked;
  for (RetentionVerdict& verdict : *verdicts) {
    const auto value = verdict.checkpoint.metrics.find(rule.metric);
    if (value == verdict.checkpoint.metrics.end() ||
        !std::isfinite(value->second)) {
      continue;
    }
    ranked.emplace_back(rule.greater ? -value->second : value->second,
                        &verdict);
  }
  const auto key = [](const std::pair<double, RetentionVerdict*>& entry) {
    const RunCheckpoint& checkpoint = entry.second->checkpoint;
    return std::make_tuple(entry.first, checkpoint.iter, checkpoint.epoch,
                           !IsBestName(checkpoint.name));
  };
  // Stable: they come oldest first.
  std::stable_sort(
      ranked.begin(), ranked.end(),
      [&](const auto& a, const auto& b) { return key(a) < key(b); });
  std::set<std::pair<int64_t, int64_t>> taken;
  const std::string reason =
      absl::StrCat("best ", rule.keep, " by ", rule.metric);
  for (const auto& [score, verdict] : ranked) {
    if (static_cast<int64_t>(taken.size()) >= rule.keep) break;
    if (taken.emplace(verdict->checkpoint.iter, verdict->checkpoint.epoch)
            .second) {
      verdict->reasons.push_back(reason);
    }
  }
}

void KeepEvery(int64_t every, bool by_epoch, Verdicts* verdicts) {
  const std::string reason =
      absl::StrCat("every ", every, by_epoch ? " epochs" : " iterations");
  for (RetentionVerdict& verdict : *verdicts) {
    const RunCheckpoint& checkpoint = verdict.checkpoint;
    const int64_t count = by_epoch ? checkpoint.epoch : checkpoint.iter;
    if (IsBestName(checkpoint.name) || count <= 0 || count % every != 0 ||
        (by_epoch && checkpoint.iter_in_epoch != 0)) {
      continue;
    }
    verdict.reasons.push_back(reason);
  }
}

void KeepByTime(absl::Duration per, Verdicts* verdicts) {
  std::vector<RetentionVerdict*> by_time;
  for (RetentionVerdict& verdict : *verdicts) {
    if (!IsBestName(verdict.checkpoint.name)) by_time.push_back(&verdict);
  }
  // In the run's order where clocks say the same; they also may go back.
  std::stable_sort(by_time.begin(), by_time.end(),
                   [](const RetentionVerdict* a, const RetentionVerdict* b) {
                     return a->checkpoint.created_unix_nanos <
                            b->checkpoint.created_unix_nanos;
                   });
  const std::string reason =
      absl::StrCat("one per ", absl::FormatDuration(per));
  absl::Time next = absl::InfinitePast();
  for (RetentionVerdict* const verdict : by_time) {
    const absl::Time created =
        absl::FromUnixNanos(verdict->checkpoint.created_unix_nanos);
    if (created < next) continue;
    verdict->reasons.push_back(reason);
    next = created + per;
  }
}

}  // namespace

std::vector<RetentionVerdict> DecideRetention(
    absl::Span<const RunCheckpoint> checkpoints, const RetentionRules& rules) {
  Verdicts verdicts;
  for (size_t i = 0; i < checkpoints.size(); ++i) {
    verdicts.push_back({checkpoints[i], i, {}});
  }
  std::sort(verdicts.begin(), verdicts.end(),
            [](const RetentionVerdict& a, const RetentionVerdict& b) {
              return a.checkpoint < b.checkpoint;
            });
  for (RetentionVerdict& verdict : verdicts) {
    if (verdict.checkpoint.pinned) verdict.reasons.push_back("pinned");
  }
  const bool has_best_rule =
      std::any_of(rules.best.begin(), rules.best.end(),
                  [](const BestRule& rule) { return rule.keep > 0; });
  const bool by_time = rules.per > absl::ZeroDuration();
  if (rules.newest <= 0 && !has_best_rule && rules.every <= 0 && !by_time) {
    for (RetentionVerdict& verdict : verdicts) {
      verdict.reasons.push_back("no rule");
    }
    return verdicts;
  }
  if (rules.newest > 0) {
    KeepNewest(rules.newest, absl::StrCat("newest ", rules.newest), &verdicts);
  } else {
    KeepNewest(1, "newest", &verdicts);
  }
  std::set<std::string> ruled;
  for (const BestRule& rule : rules.best) {
    if (rule.keep <= 0) continue;
    ruled.insert(rule.metric);
    KeepBest(rule, &verdicts);
  }
  if (rules.every > 0) KeepEvery(rules.every, rules.by_epoch, &verdicts);
  if (by_time) KeepByTime(rules.per, &verdicts);
  for (RetentionVerdict& verdict : verdicts) {
    if (IsBestName(verdict.checkpoint.name) &&
        ruled.count(MetricInName(verdict.checkpoint)) == 0) {
      verdict.reasons.push_back("a best one, of no rule");
    }
  }
  return verdicts;
}

}  // namespace io
}  // namespace grapnel
