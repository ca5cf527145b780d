// How far a loop is, at the foot of a terminal.

#ifndef GRAPNEL_LOGGERS_PROGRESS_BAR_H_
#define GRAPNEL_LOGGERS_PROGRESS_BAR_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "grapnel/base/clock.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel {

// Where a loop is.
struct LoopProgress {
  absl::string_view label;  // "Epoch(train) [1/20]"
  int64_t done = 0;
  int64_t total = 0;  // 0 if nobody knows.
  // What was done here, and how long it took: after a resume, less than `done`.
  int64_t timed = 0;
  double seconds = 0;
};

// One line of ASCII of at most `columns` columns:
//
//   Epoch(train) [1/20]  25% [====>           ]  25/100  12.5/s 0:00:02<0:00:06
//
// done / total, units a second (or seconds a unit), time gone < time left.
// Where it is narrow, the bar goes first, then what stands on the right.
std::string FormatProgress(const LoopProgress& progress, int columns);

// Shows that line as the run log's status line, and draws it again at most ten
// times a second, and when a loop that took longer than that is done. Between
// two drawings an update formats, allocates and mostly asks nothing, not even
// the clock. Thread-compatible.
class ProgressBar {
 public:
  // Neither is owned.
  ProgressBar(RunLog& log, const Clock& clock) : log_(log), clock_(clock) {}

  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // A loop begins, or goes on after another one, with `done` of its units done.
  void Begin(std::string label, int64_t done, int64_t total);

  // Once it is known better.
  void set_total(int64_t total) { total_ = total; }

  void Update(int64_t done) {
    if (++unseen_ < stride_ && done != total_) return;
    Look(done);
  }

  // Takes the line away.
  void End();

 private:
  // Asks the clock, and draws if it is time.
  void Look(int64_t done);
  void Draw(int64_t done, int64_t now);

  RunLog& log_;
  const Clock& clock_;

  std::string label_;
  int64_t total_ = 0;
  int64_t begin_nanos_ = 0;
  int64_t begin_done_ = 0;

  int64_t unseen_ = 0;  // Updates since the last look,
  int64_t stride_ = 1;  // and how many there are from one to the next.
  int64_t look_nanos_ = 0;
  int64_t next_draw_nanos_ = 0;
  bool drawn_ = false;
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_PROGRESS_BAR_H_
