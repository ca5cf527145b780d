// Where records of numbers go: an open set.
//
// To add a backend: derive from LogBackend, give it a config message, a static
// Create(const Config&, const LogBackendOptions&), and GRAPNEL_REGISTER it with
// LogBackendRegistry. loggers/json_lines_backend.cc is the file to imitate.
//
// Example:
//
//   LogBackendOptions options;
//   options.log_dir = "work_dir/first_try";
//   options.env = &io::Env::Posix();
//   GRAPNEL_RETURN_IF_ERROR(options.env->CreateDir(options.log_dir));
//   loggers::v1::LogBackendConfig config;
//   config.mutable_tensorboard();  // Of //loggers:tensorboard_backend.
//   GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<LogBackend> backend,
//                            LogBackendRegistry::Create(config, options));
//   Record record;
//   record.step = 100;
//   record.scalars.emplace_back("loss", 0.25);
//   GRAPNEL_RETURN_IF_ERROR(backend->WriteRecord(record));
//   GRAPNEL_RETURN_IF_ERROR(backend->Close());

#ifndef GRAPNEL_LOGGERS_LOG_BACKEND_H_
#define GRAPNEL_LOGGERS_LOG_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/registry.h"
#include "grapnel/io/env.h"

namespace grapnel {

// A number as it was logged: an integer stays one.
using Scalar = std::variant<int64_t, double>;

// Numbers of one moment, by name, in order.
struct Record {
  enum class Kind { kTrain, kVal, kTest };
  Kind kind = Kind::kTrain;
  std::vector<std::pair<std::string, Scalar>> scalars;
  int64_t step = 0;  // x of a plot. Of no meaning in a test.
};

// Thread-compatible: calls come one after the other, from the run's log thread
// (loggers/log_thread.h) and, for the first and the last, from the run's own.
class LogBackend {
 public:
  virtual ~LogBackend() = default;

  // Called once, with the resolved config as text, before any record.
  virtual absl::Status WriteConfig(absl::string_view config) {
    return absl::OkStatus();
  }

  // Takes a record. With the system when it returns, as far as the backend
  // writes files. An error is reported once, disables this backend, and
  // training goes on.
  virtual absl::Status WriteRecord(const Record& record) = 0;

  // How the run's last call, to train for example, has ended. Others may
  // follow.
  virtual void NoteOutcome(const absl::Status& outcome) {}

  // No call may follow.
  virtual absl::Status Close() = 0;
};

struct LogBackendOptions {
  std::string log_dir;    // work_dir/<timestamp>; exists.
  std::string timestamp;  // "20260821_025841"
  std::string experiment_name;
  // What WriteConfig gets as text, for backends that show single fields
  // (W&B's): each with its value as a line of JSON, {"train_cfg",
  // "{\"max_epochs\": 20}"}.
  std::vector<std::pair<std::string, std::string>> config_fields;
  // Outlive the backend. Never null.
  io::Env* env = nullptr;
  const Clock* clock = &Clock::System();
};

struct LogBackendTraits {
  using Product = std::unique_ptr<LogBackend>;
  static constexpr char kWhat[] = "log backend";
};
using LogBackendRegistry = Registry<LogBackendTraits, const LogBackendOptions&>;

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_LOG_BACKEND_H_
