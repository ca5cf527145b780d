#include "grapnel/loggers/json_lines_backend.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/loggers/record_json.h"
#include "grapnel/loggers/visualizer.pb.h"

namespace grapnel {

absl::StatusOr<std::unique_ptr<JsonLinesBackend>> JsonLinesBackend::Create(
    const Config& config, const LogBackendOptions& options) {
  GRAPNEL_RET_CHECK(options.env != nullptr);
  return absl::WrapUnique(new JsonLinesBackend(
      options.env, io::JoinPath(options.log_dir, "vis_data"),
      options.timestamp));
}

JsonLinesBackend::JsonLinesBackend(io::Env* env, std::string dir,
                                   std::string timestamp)
    : env_(env), dir_(std::move(dir)), timestamp_(std::move(timestamp)) {}

absl::Status JsonLinesBackend::WriteConfig(absl::string_view config) {
  GRAPNEL_RETURN_IF_ERROR(env_->CreateDir(dir_));
  GRAPNEL_ASSIGN_OR_RETURN(
      std::unique_ptr<io::WritableFile> file,
      env_->NewWritableFile(io::JoinPath(dir_, "config.textproto")));
  GRAPNEL_RETURN_IF_ERROR(file->Append(config));
  return file->Close();
}

absl::Status JsonLinesBackend::Open() {
  GRAPNEL_RETURN_IF_ERROR(env_->CreateDir(dir_));
  const std::string names[] = {absl::StrCat(timestamp_, ".json"),
                               "scalars.json"};
  for (int i = 0; i < 2; ++i) {
    GRAPNEL_ASSIGN_OR_RETURN(
        files_[i], env_->NewAppendableFile(io::JoinPath(dir_, names[i])));
  }
  return absl::OkStatus();
}

absl::Status JsonLinesBackend::WriteRecord(const Record& record) {
  if (files_[1] == nullptr) GRAPNEL_RETURN_IF_ERROR(Open());
  line_.clear();  // Keeps its memory.
  AppendRecordJson(record, &line_);
  line_.push_back('\n');
  for (const std::unique_ptr<io::WritableFile>& file : files_) {
    GRAPNEL_RETURN_IF_ERROR(file->Append(line_));
    GRAPNEL_RETURN_IF_ERROR(file->Flush());
  }
  return absl::OkStatus();
}

absl::Status JsonLinesBackend::Close() {
  absl::Status status;
  for (std::unique_ptr<io::WritableFile>& file : files_) {
    if (file == nullptr) continue;
    status.Update(file->Close());
    file = nullptr;
  }
  return status;
}

GRAPNEL_REGISTER(LogBackendRegistry, JsonLinesBackend);

}  // namespace grapnel
