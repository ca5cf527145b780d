// The run's own log, in MMEngine's layout: to the terminal and to a file.

#ifndef GRAPNEL_LOGGERS_RUN_LOG_H_
#define GRAPNEL_LOGGERS_RUN_LOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// Lines such as
//
//   08/21 02:58:41 - grapnel - INFO - Saving checkpoint at 2 epochs
//
// for people. Nothing goes to stdout. A write that fails (a full disk, a closed
// terminal) is told in the other place, if there is one, and by Flush, and
// training goes on.
//
// Safe to use from many threads.
class RunLog {
 public:
  enum class Level { kDebug, kInfo, kWarning, kError };

  virtual ~RunLog() = default;

  virtual void Write(Level level, absl::string_view message) = 0;

  void Info(absl::string_view message) { Write(Level::kInfo, message); }
  void Error(absl::string_view message) { Write(Level::kError, message); }

  // Once for each distinct message.
  virtual void Warning(absl::string_view message) = 0;

  // Hands what was written to the system.
  virtual absl::Status Flush() = 0;

  // Shows `text` at the foot of the terminal, in place of what was shown
  // before, below all lines of the log; "" takes it away. ASCII of at most
  // StatusColumns() columns. Does nothing where those are 0, and may leave out
  // what a slow terminal has no room for.
  virtual void SetStatusLine(absl::string_view text) {}

  // Columns that such a line may have now. 0 where there is no terminal that
  // shows one.
  virtual int StatusColumns() { return 0; }
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_RUN_LOG_H_
