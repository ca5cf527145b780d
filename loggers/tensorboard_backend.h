// Records as TensorBoard's event files.

#ifndef GRAPNEL_LOGGERS_TENSORBOARD_BACKEND_H_
#define GRAPNEL_LOGGERS_TENSORBOARD_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/tensorboard_event.pb.h"
#include "grapnel/loggers/visualizer.pb.h"

namespace grapnel {

class Clock;

// One file, vis_data/events.out.tfevents.<seconds>.<host>.<pid>.<n>, made when
// there is something for it. Each scalar of a record is one of TensorBoard's,
// its tag the scalar's name, its step the record's, its value rounded to a
// float, which is what the format has. The config is the text "config".
// Thread-compatible.
class TensorBoardBackend : public LogBackend {
 public:
  using Config = loggers::v1::TensorBoardBackendConfig;

  // kInvalidArgument, naming the field.
  static absl::StatusOr<std::unique_ptr<TensorBoardBackend>> Create(
      const Config& config, const LogBackendOptions& options);

  absl::Status WriteConfig(absl::string_view config) override;
  absl::Status WriteRecord(const Record& record) override;
  absl::Status Close() override;

 private:
  TensorBoardBackend(const Config& config, const LogBackendOptions& options);

  // Makes the file, with its first event.
  absl::Status Open(absl::Time now);
  // The event with that time in front, framed; with the system on return.
  absl::Status Append(absl::Time now, loggers::tensorboard::Event* event);

  io::Env* const env_;
  const Clock* const clock_;
  const std::string dir_;
  const std::string suffix_;
  std::unique_ptr<io::WritableFile> file_;  // Null before the first event.

  // Kept from record to record for their memory.
  loggers::tensorboard::Event event_;
  std::string frame_;
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_TENSORBOARD_BACKEND_H_
