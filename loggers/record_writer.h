// A run's log backends together.

#ifndef GRAPNEL_LOGGERS_RECORD_WRITER_H_
#define GRAPNEL_LOGGERS_RECORD_WRITER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel::loggers::v1 {
class VisualizerConfig;
}  // namespace grapnel::loggers::v1

namespace grapnel {

// Hands each record to every backend. One that fails is closed and gets nothing
// more, with one warning in the run's log: training goes on. One that throws
// has failed. Thread-compatible.
class RecordWriter {
 public:
  // `config_text`: the run's resolved config, which every backend gets first.
  // `log` takes the warnings and outlives the writer. Errors name the backend:
  // "vis_backends[1]: ..."; kInvalidArgument for two that are the same, which
  // would write everything twice, or into one file. `more`, behind those of the
  // config, were made in code; they are called "log_backends[0]" and so on.
  static absl::StatusOr<std::unique_ptr<RecordWriter>> Create(
      const loggers::v1::VisualizerConfig& config,
      const LogBackendOptions& options, absl::string_view config_text,
      RunLog& log, std::vector<std::unique_ptr<LogBackend>> more = {});

  RecordWriter(const RecordWriter&) = delete;
  RecordWriter& operator=(const RecordWriter&) = delete;

  // Closes what is open.
  ~RecordWriter();

  void Write(const Record& record);

  // LogBackend::NoteOutcome of all.
  void NoteOutcome(const absl::Status& outcome);

  // Later calls of any function do nothing.
  void Close();

 private:
  struct Backend {
    std::string name;                  // "vis_backends[0] (json_lines)".
    std::unique_ptr<LogBackend> impl;  // Null once it has failed.
  };

  RecordWriter(std::vector<Backend> backends, RunLog& log);

  void ForEach(const std::function<absl::Status(LogBackend&)>& call);

  std::vector<Backend> backends_;
  RunLog& log_;
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_RECORD_WRITER_H_
