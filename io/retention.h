// Which checkpoints of a run stay: a union of rules, as a pure function, so
// that what it would delete can be shown before anything is.
//
// Example:
//
//   std::vector<io::RunCheckpoint> checkpoints;  // io::ListRunCheckpoints.
//   for (int epoch = 1; epoch <= 10; ++epoch) {
//     checkpoints.emplace_back();
//     checkpoints.back().name = absl::StrCat("epoch_", epoch);
//     checkpoints.back().epoch = epoch;
//     checkpoints.back().iter = 100 * epoch;
//   }
//   checkpoints[2].pinned = true;
//
//   io::RetentionRules rules;
//   rules.newest = 2;
//   rules.every = 5;
//   for (const io::RetentionVerdict& verdict :
//        io::DecideRetention(checkpoints, rules)) {
//     const bool stays = !verdict.reasons.empty();
//     const int64_t epoch = verdict.checkpoint.epoch;
//     GRAPNEL_RET_CHECK(stays == (epoch >= 9 || epoch == 5 || epoch == 3));
//   }

#ifndef GRAPNEL_IO_RETENTION_H_
#define GRAPNEL_IO_RETENTION_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grapnel/io/run_checkpoints.h"

namespace grapnel {
namespace io {

// Those with the best values of a metric.
struct BestRule {
  std::string metric;
  bool greater = true;  // Whether greater values are better.
  int64_t keep = 1;     // <= 0: the rule isn't used.
};

// A checkpoint stays if one rule says so. Without any rule all stay.
struct RetentionRules {
  // The newest ones, by operator< of RunCheckpoint, without those that the run
  // gave up when it went back: further than the one that is_last, and written
  // before it. <= 0: not used.
  int64_t newest = 0;

  // Those with a finite value of the metric that few others beat; of equals the
  // older one. Several of one iteration have the same weights and count as one.
  std::vector<BestRule> best;

  // Those after a multiple of so many epochs, at an epoch's edge, or of so many
  // iterations. <= 0: not used.
  int64_t every = 0;
  bool by_epoch = true;

  // By the time that they were written: the oldest, and then always the first
  // one that is at least so much younger than the one before that stays. Which
  // those are doesn't change when the others are deleted. <= 0: not used.
  absl::Duration per;
};

struct RetentionVerdict {
  RunCheckpoint checkpoint;
  size_t index = 0;  // In what DecideRetention was given.

  // Why it stays: "pinned", "newest 3", "best 2 by accuracy/top1", "every 5
  // epochs", "one per 1h", ... Empty: it goes.
  std::vector<std::string> reasons;
};

// The verdict on each of `checkpoints`, all of one run, the oldest first. Rules
// don't share out places: a pinned one counts among the newest.
//
// Apart from the rules there stay
//   - pinned ones;
//   - the newest one, with whatever rules, which the run goes on from;
//   - of those called "best_<metric>_...", with "_" for "/" in the metric, all
//     but what a rule on that metric is about. They count for rules on metrics
//     alone.
std::vector<RetentionVerdict> DecideRetention(
    absl::Span<const RunCheckpoint> checkpoints, const RetentionRules& rules);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_RETENTION_H_
