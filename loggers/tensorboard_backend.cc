#include "grapnel/loggers/tensorboard_backend.h"

#include <unistd.h>

#include <cstdint>
#include <variant>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/loggers/crc32c.h"
#include "grapnel/loggers/host_name.h"
#include "grapnel/loggers/record_json.h"

namespace grapnel {
namespace {

using loggers::tensorboard::Event;
using loggers::tensorboard::Summary;
using loggers::tensorboard::Tensor;

constexpr size_t kMaxSuffix = 64;

void AppendLittleEndian(uint64_t value, int bytes, std::string* text) {
  for (int i = 0; i < bytes; ++i) {
    text->push_back(static_cast<char>(value >> 8 * i));
  }
}

// A checksum that stays one when it is checksummed itself.
void AppendMaskedCrc(absl::string_view data, std::string* text) {
  const uint32_t crc = Crc32c(data);
  AppendLittleEndian(((crc >> 15) | (crc << 17)) + 0xa282ead8u, 4, text);
}

float ToFloat(const Scalar& scalar) {
  return std::visit([](auto value) { return static_cast<float>(value); },
                    scalar);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorBoardBackend>> TensorBoardBackend::Create(
    const Config& config, const LogBackendOptions& options) {
  GRAPNEL_RET_CHECK(options.env != nullptr && options.clock != nullptr);
  const std::string& suffix = config.filename_suffix();
  bool valid = suffix.size() <= kMaxSuffix;
  for (const char c : suffix) {
    valid =
        valid && (absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.');
  }
  if (!valid) {
    return absl::InvalidArgumentError(absl::StrCat(
        "filename_suffix: must be at most ", kMaxSuffix,
        " letters, digits, \"_\", \"-\" and \".\", is \"", suffix, "\""));
  }
  return absl::WrapUnique(new TensorBoardBackend(config, options));
}

TensorBoardBackend::TensorBoardBackend(const Config& config,
                                       const LogBackendOptions& options)
    : env_(options.env),
      clock_(options.clock),
      dir_(io::JoinPath(options.log_dir, "vis_data")),
      suffix_(config.filename_suffix()) {}

absl::Status TensorBoardBackend::Open(absl::Time now) {
  GRAPNEL_RETURN_IF_ERROR(env_->CreateDir(dir_));
  const std::string start =
      absl::StrFormat("events.out.tfevents.%010d.%s.%d.",
                      absl::ToUnixSeconds(now), HostName(), ::getpid());
  std::string path;
  int n = 0;
  do {
    path = io::JoinPath(dir_, absl::StrCat(start, n++, suffix_));
  } while (env_->FileExists(path));
  GRAPNEL_ASSIGN_OR_RETURN(file_, env_->NewWritableFile(path));
  Event version;
  version.set_file_version("brain.Event:2");
  return Append(now, &version);
}

absl::Status TensorBoardBackend::Append(absl::Time now, Event* event) {
  if (file_ == nullptr) GRAPNEL_RETURN_IF_ERROR(Open(now));
  event->set_wall_time(static_cast<double>(absl::ToUnixMicros(now)) / 1e6);
  const uint64_t size = event->ByteSizeLong();
  frame_.clear();
  AppendLittleEndian(size, 8, &frame_);
  AppendMaskedCrc(frame_, &frame_);
  const size_t begin = frame_.size();
  GRAPNEL_RET_CHECK(event->AppendToString(&frame_));
  AppendMaskedCrc(absl::string_view(frame_).substr(begin), &frame_);
  GRAPNEL_RETURN_IF_ERROR(file_->Append(frame_));
  return file_->Flush();
}

absl::Status TensorBoardBackend::WriteConfig(absl::string_view config) {
  Event event;
  Summary::Value* value = event.mutable_summary()->add_value();
  value->set_tag("config/text_summary");
  value->mutable_metadata()->mutable_plugin_data()->set_plugin_name("text");
  Tensor* tensor = value->mutable_tensor();
  tensor->set_dtype(Tensor::DT_STRING);
  tensor->mutable_tensor_shape()->add_dim()->set_size(1);
  // TensorBoard shows Markdown, in which this is text to be left as it is.
  std::string* text = tensor->add_string_val();
  for (const absl::string_view line : absl::StrSplit(config, '\n')) {
    absl::StrAppend(text, "    ", line, "\n");
  }
  return Append(clock_->WallTime(), &event);
}

absl::Status TensorBoardBackend::WriteRecord(const Record& record) {
  event_.set_step(record.step);
  Summary* summary = event_.mutable_summary();
  summary->clear_value();  // Keeps its memory.
  for (const auto& [name, scalar] : record.scalars) {
    Summary::Value* value = summary->add_value();
    value->set_tag(EscapeToUtf8(name));
    value->set_simple_value(ToFloat(scalar));
  }
  return Append(clock_->WallTime(), &event_);
}

absl::Status TensorBoardBackend::Close() {
  if (file_ == nullptr) return absl::OkStatus();
  const absl::Status status = file_->Close();
  file_ = nullptr;
  return status;
}

GRAPNEL_REGISTER(LogBackendRegistry, TensorBoardBackend);

}  // namespace grapnel
