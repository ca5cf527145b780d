// The run's log as text, on a terminal and in a file.

#ifndef GRAPNEL_LOGGERS_TEXT_RUN_LOG_H_
#define GRAPNEL_LOGGERS_TEXT_RUN_LOG_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grapnel/base/clock.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel {

struct TextRunLogOptions {
  // Lines "2026/08/21 02:58:41 - grapnel - INFO - ..." are appended here. ""
  // for no file.
  std::string path;

  // Lines "08/21 02:58:41 - grapnel - INFO - ..." are written here, not owned;
  // -1 for none. May be a pipe that its reader closes: no SIGPIPE comes of it.
  int terminal_fd = -1;

  // What is below this is written nowhere.
  RunLog::Level level = RunLog::Level::kInfo;

  // Null: the system's. Not owned.
  io::Env* env = nullptr;
  const Clock* clock = nullptr;
};

// A log of lines. Each is one write to the terminal and one to the file, is
// with the system when the call returns, and stands where the order of the
// calls puts it. Times are local. A message of many lines stays so. If a write
// fails, that place gets nothing more, and the other one a line that says so. A
// status line is shown where terminal_fd is a terminal, and TERM says more than
// "dumb"; it is gone when the log is.
//
// Errors are those of opening the file, and name its path.
absl::StatusOr<std::unique_ptr<RunLog>> CreateTextRunLog(
    const TextRunLogOptions& options);

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_TEXT_RUN_LOG_H_
