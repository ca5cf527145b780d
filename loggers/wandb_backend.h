// Records as an offline run of Weights & Biases.

#ifndef GRAPNEL_LOGGERS_WANDB_BACKEND_H_
#define GRAPNEL_LOGGERS_WANDB_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/visualizer.pb.h"
#include "grapnel/loggers/wandb_record.pb.h"

namespace grapnel {

class Clock;

// What `wandb sync vis_data/wandb/offline-run-...` uploads, later and from
// anywhere; nothing here knows the network. Under
// vis_data/wandb/offline-run-<YYYYMMDD_HHMMSS>-<run id>/ stand run-<run
// id>.wandb and files/config.textproto, made when there is something for them.
//
// Each record is a row of W&B's history, the next of them: W&B counts rows, and
// takes no row before another. The record's own step is the column "step". The
// last value of each column is W&B's summary, the config's fields its config. A
// run that ended with an error is one that failed, one that was never closed
// has crashed. Thread-compatible.
class WandbBackend : public LogBackend {
 public:
  using Config = loggers::v1::WandbBackendConfig;

  // kInvalidArgument, naming the field.
  static absl::StatusOr<std::unique_ptr<WandbBackend>> Create(
      const Config& config, const LogBackendOptions& options);

  absl::Status WriteConfig(absl::string_view config) override;
  absl::Status WriteRecord(const Record& record) override;
  void NoteOutcome(const absl::Status& outcome) override {
    failed_ = !outcome.ok();
  }
  absl::Status Close() override;

 private:
  WandbBackend(const Config& config, const LogBackendOptions& options);

  // Makes the folder and the file, and begins the run with that config, "" for
  // none.
  absl::Status Open(absl::string_view config_text);
  // The record with its number, in the frames of a LevelDB log.
  absl::Status Append(loggers::wandb::Record* record);
  absl::Status AppendFrame(uint8_t type, absl::string_view data);

  io::Env* const env_;
  const Clock* const clock_;
  const std::string dir_;  // vis_data/wandb
  const Config config_;    // Defaults filled in.
  const std::vector<std::pair<std::string, std::string>> config_fields_;

  std::unique_ptr<io::WritableFile> file_;  // Null before the run's beginning.
  int64_t file_size_ = 0;
  int64_t num_records_ = 0;
  int64_t num_rows_ = 0;
  absl::Time start_;
  bool failed_ = false;

  // Kept from record to record for their memory.
  loggers::wandb::Record row_, summary_;
  std::string bytes_, frame_;
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_WANDB_BACKEND_H_
