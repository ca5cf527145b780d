#include "grapnel/loggers/progress_bar.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace grapnel {
namespace {

constexpr int64_t kDrawNanos = 100 * 1000 * 1000;
// Two looks are to be about this far apart.
constexpr int64_t kLookNanos = 20 * 1000 * 1000;
constexpr int64_t kMaxStride = 64;

constexpr int kMinBar = 8;
constexpr int kMaxBar = 40;
constexpr double kMaxSeconds = 999 * 3600.0;

std::string ClockTime(double seconds) {
  const auto whole =
      static_cast<int64_t>(seconds < kMaxSeconds ? seconds : kMaxSeconds);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole % 3600 / 60,
                         whole % 60);
}

std::string Speed(double per_second) {
  if (per_second < 1) return absl::StrFormat("%.2fs", 1 / per_second);
  return absl::StrFormat(per_second < 100 ? "%.1f/s" : "%.0f/s", per_second);
}

}  // namespace

std::string FormatProgress(const LoopProgress& progress, int columns) {
  const size_t width = std::max(columns, 0);
  std::string left(progress.label);
  std::string right;
  double part = 0;
  if (progress.total > 0) {
    part = std::clamp(static_cast<double>(progress.done) / progress.total, 0.0,
                      1.0);
    absl::StrAppendFormat(&left, " %3d%%", static_cast<int>(part * 100));
    const std::string total = absl::StrCat(progress.total);
    absl::StrAppendFormat(&right, "%*d/%s", static_cast<int>(total.size()),
                          progress.done, total);
  } else {
    absl::StrAppend(&right, progress.done);
  }
  if (progress.timed > 0 && progress.seconds > 0) {
    const double per_second = progress.timed / progress.seconds;
    absl::StrAppend(&right, "  ", Speed(per_second), "  ",
                    ClockTime(progress.seconds));
    if (progress.total > 0) {
      const int64_t rest = std::max<int64_t>(progress.total - progress.done, 0);
      absl::StrAppend(&right, "<", ClockTime(rest / per_second));
    }
  }

  std::string line = std::move(left);
  const size_t without_bar = line.size() + 2 + right.size();
  if (progress.total > 0 && without_bar + kMinBar + 3 <= width) {
    const int size = std::min<int>(kMaxBar, width - without_bar - 3);
    const int full = static_cast<int>(part * size);
    absl::StrAppend(&line, " [", std::string(full, '='));
    if (full < size) {
      absl::StrAppend(&line, ">", std::string(size - full - 1, ' '));
    }
    line.push_back(']');
  }
  absl::StrAppend(&line, "  ", right);
  if (line.size() > width) line.resize(width);
  return line;
}

void ProgressBar::Begin(std::string label, int64_t done, int64_t total) {
  label_ = std::move(label);
  total_ = total;
  begin_nanos_ = clock_.NowNanos();
  begin_done_ = done;
  unseen_ = 0;
  stride_ = 1;
  look_nanos_ = begin_nanos_;
  if (begin_nanos_ >= next_draw_nanos_) Draw(done, begin_nanos_);
}

void ProgressBar::Look(int64_t done) {
  const int64_t now = clock_.NowNanos();
  const int64_t passed = now - look_nanos_;
  if (passed < kLookNanos) {
    stride_ = std::min(2 * stride_, kMaxStride);
  } else if (passed > 2 * kLookNanos) {
    stride_ = std::max<int64_t>(stride_ / 2, 1);
  }
  if (passed > kDrawNanos) stride_ = 1;
  look_nanos_ = now;
  unseen_ = 0;
  // A loop that took longer than a drawing's turn ends as a full bar.
  const bool full = done == total_ && now - begin_nanos_ >= kDrawNanos;
  if (full || now >= next_draw_nanos_) Draw(done, now);
}

void ProgressBar::Draw(int64_t done, int64_t now) {
  const int columns = log_.StatusColumns();
  if (columns <= 0) return;
  LoopProgress progress;
  progress.label = label_;
  progress.done = done;
  progress.total = total_;
  progress.timed = done - begin_done_;
  progress.seconds = static_cast<double>(now - begin_nanos_) / 1e9;
  log_.SetStatusLine(FormatProgress(progress, columns));
  next_draw_nanos_ = now + kDrawNanos;
  drawn_ = true;
}

void ProgressBar::End() {
  if (drawn_) log_.SetStatusLine("");
  drawn_ = false;
}

}  // namespace grapnel
