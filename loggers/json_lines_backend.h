// Records as lines of JSON.

#ifndef GRAPNEL_LOGGERS_JSON_LINES_BACKEND_H_
#define GRAPNEL_LOGGERS_JSON_LINES_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/log_backend.h"

namespace grapnel::loggers::v1 {
class JsonLinesBackendConfig;
}  // namespace grapnel::loggers::v1

namespace grapnel {

// The text of record_json.h, a record a line, twice: in
// vis_data/<timestamp>.json and in vis_data/scalars.json. The config is in
// vis_data/config.textproto. A file is made when there is something for it. A
// record is with the system when WriteRecord returns. Thread-compatible.
class JsonLinesBackend : public LogBackend {
 public:
  using Config = loggers::v1::JsonLinesBackendConfig;

  static absl::StatusOr<std::unique_ptr<JsonLinesBackend>> Create(
      const Config& config, const LogBackendOptions& options);

  absl::Status WriteConfig(absl::string_view config) override;
  absl::Status WriteRecord(const Record& record) override;
  absl::Status Close() override;

 private:
  JsonLinesBackend(io::Env* env, std::string dir, std::string timestamp);

  absl::Status Open();

  io::Env* const env_;
  const std::string dir_;
  const std::string timestamp_;
  std::unique_ptr<io::WritableFile> files_[2];  // Null before the first record.
  std::string line_;
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_JSON_LINES_BACKEND_H_
