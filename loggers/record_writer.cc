#include "grapnel/loggers/record_writer.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/kind_name.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/loggers/json_lines_backend.h"
#include "grapnel/loggers/visualizer.pb.h"

namespace grapnel {
namespace {

// What a user calls the backend of that config.
std::string KindOf(const loggers::v1::LogBackendConfig& config) {
  if (config.has_custom()) {
    const std::string& url = config.custom().type_url();
    return url.substr(url.rfind('/') + 1);
  }
  const std::string kind = KindName(config);
  return kind.empty() ? "unset" : kind;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RecordWriter>> RecordWriter::Create(
    const loggers::v1::VisualizerConfig& config,
    const LogBackendOptions& options, absl::string_view config_text,
    RunLog& log, std::vector<std::unique_ptr<LogBackend>> more) {
  std::vector<Backend> backends;
  if (config.vis_backends().empty()) {
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<LogBackend> backend,
                             JsonLinesBackend::Create({}, options));
    backends.push_back({"json_lines", std::move(backend)});
  }
  for (int i = 0; i < config.vis_backends_size(); ++i) {
    const std::string name = absl::StrCat("vis_backends[", i, "]");
    for (int other = 0; other < i; ++other) {
      if (config.vis_backends(other).SerializeAsString() ==
          config.vis_backends(i).SerializeAsString()) {
        return absl::InvalidArgumentError(absl::StrCat(
            name, ": must be another one than vis_backends[", other, "]"));
      }
    }
    absl::StatusOr<std::unique_ptr<LogBackend>> backend;
    const absl::Status status = CatchAsStatus([&] {
      backend = LogBackendRegistry::Create(config.vis_backends(i), options);
      return backend.status();
    });
    if (!status.ok()) return WithContext(status, name);
    backends.push_back(
        {absl::StrCat(name, " (", KindOf(config.vis_backends(i)), ")"),
         *std::move(backend)});
  }
  for (size_t i = 0; i < more.size(); ++i) {
    backends.push_back(
        {absl::StrCat("log_backends[", i, "]"), std::move(more[i])});
  }
  auto writer = absl::WrapUnique(new RecordWriter(std::move(backends), log));
  writer->ForEach([config_text](LogBackend& backend) {
    return backend.WriteConfig(config_text);
  });
  return writer;
}

RecordWriter::RecordWriter(std::vector<Backend> backends, RunLog& log)
    : backends_(std::move(backends)), log_(log) {}

RecordWriter::~RecordWriter() { Close(); }

void RecordWriter::ForEach(
    const std::function<absl::Status(LogBackend&)>& call) {
  for (Backend& backend : backends_) {
    if (backend.impl == nullptr) continue;
    const absl::Status status =
        CatchAsStatus([&] { return call(*backend.impl); });
    if (status.ok()) continue;
    // It has just said why; what closing says adds nothing.
    CatchAsStatus([&] { return backend.impl->Close(); }).IgnoreError();
    backend.impl = nullptr;
    log_.Warning(
        absl::StrCat("The log backend ", backend.name,
                     " failed and gets no more records: ", status.ToString()));
  }
}

void RecordWriter::Write(const Record& record) {
  ForEach(
      [&record](LogBackend& backend) { return backend.WriteRecord(record); });
}

void RecordWriter::NoteOutcome(const absl::Status& outcome) {
  ForEach([&outcome](LogBackend& backend) {
    backend.NoteOutcome(outcome);
    return absl::OkStatus();
  });
}

void RecordWriter::Close() {
  for (Backend& backend : backends_) {
    if (backend.impl == nullptr) continue;
    const absl::Status status =
        CatchAsStatus([&] { return backend.impl->Close(); });
    backend.impl = nullptr;
    if (status.ok()) continue;
    log_.Warning(absl::StrCat("The log backend ", backend.name,
                              " could not be closed: ", status.ToString()));
  }
  backends_.clear();
}

}  // namespace grapnel
