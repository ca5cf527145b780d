#include "grapnel/loggers/wandb_backend.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"
#include "grapnel/loggers/host_name.h"
#include "grapnel/loggers/record_json.h"

namespace grapnel {
namespace {

using loggers::wandb::Item;

// The file is a LevelDB log but for its first bytes and its checksum, which is
// zlib's: a frame is checksum, size and type, 7 bytes, and data, and lies in
// one block.
constexpr int64_t kBlockSize = 32768;
constexpr int64_t kFrameHeaderSize = 7;
enum FrameType : uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };
constexpr absl::string_view kFileHeader(":W&B\xe1\xbe\0", 7);

constexpr char kDefaultProject[] = "uncategorized";  // W&B's own.
constexpr char kConfigFile[] = "config.textproto";
constexpr size_t kMaxName = 128;
constexpr size_t kMaxTag = 64;
constexpr size_t kRunIdSize = 8;

std::string NewRunId() {
  constexpr absl::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  absl::BitGen random;
  std::string id;
  while (id.size() < kRunIdSize) {
    id.push_back(kLetters[absl::Uniform<size_t>(random, 0, kLetters.size())]);
  }
  return id;
}

bool IsWordCharacter(char c) {
  return absl::ascii_isalnum(c) || c == '_' || c == '-';
}

absl::Status CheckText(absl::string_view field, const std::string& text,
                       size_t max_size, absl::string_view refused = "") {
  const bool valid =
      !text.empty() && text.size() <= max_size &&
      std::none_of(text.begin(), text.end(), [refused](char c) {
        return absl::ascii_iscntrl(c) || absl::StrContains(refused, c);
      });
  if (valid) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": must be 1..", max_size, " bytes without control characters",
      refused.empty() ? "" : " and ", refused, ", is \"", text, "\""));
}

absl::Status Validate(const WandbBackend::Config& config) {
  // What W&B refuses, so that it does not refuse it after the training.
  if (config.has_project()) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckText("project", config.project(), kMaxName, "/\\#?%:"));
  }
  if (config.has_run_id()) {
    const std::string& id = config.run_id();
    if (id.empty() || id.size() > kMaxTag ||
        !std::all_of(id.begin(), id.end(), IsWordCharacter)) {
      return absl::InvalidArgumentError(
          absl::StrCat("run_id: must be 1..", kMaxTag,
                       " letters, digits, \"_\" and \"-\", is \"", id, "\""));
    }
  }
  const auto check = [](absl::string_view field, bool has,
                        const std::string& text) {
    return has ? CheckText(field, text, kMaxName) : absl::OkStatus();
  };
  GRAPNEL_RETURN_IF_ERROR(
      config.has_entity()
          ? CheckText("entity", config.entity(), kMaxName, "/\\#?%:")
          : absl::OkStatus());
  GRAPNEL_RETURN_IF_ERROR(check("name", config.has_name(), config.name()));
  GRAPNEL_RETURN_IF_ERROR(check("group", config.has_group(), config.group()));
  GRAPNEL_RETURN_IF_ERROR(
      check("job_type", config.has_job_type(), config.job_type()));
  for (int i = 0; i < config.tags_size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        CheckText(absl::StrCat("tags[", i, "]"), config.tags(i), kMaxTag));
  }
  return absl::OkStatus();
}

void AddItem(std::string name, std::string json,
             google::protobuf::RepeatedPtrField<Item>* items) {
  Item* item = items->Add();
  item->clear_nested_key();
  item->add_nested_key(std::move(name));
  item->set_value_json(std::move(json));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WandbBackend>> WandbBackend::Create(
    const Config& config, const LogBackendOptions& options) {
  GRAPNEL_RET_CHECK(options.env != nullptr && options.clock != nullptr);
  GRAPNEL_RETURN_IF_ERROR(Validate(config));
  return absl::WrapUnique(new WandbBackend(config, options));
}

WandbBackend::WandbBackend(const Config& config,
                           const LogBackendOptions& options)
    : env_(options.env),
      clock_(options.clock),
      dir_(io::JoinPath(options.log_dir, "vis_data/wandb")),
      config_([&] {
        Config complete = config;
        if (!config.has_project()) complete.set_project(kDefaultProject);
        if (!config.has_run_id()) complete.set_run_id(NewRunId());
        if (!config.has_name()) complete.set_name(options.experiment_name);
        return complete;
      }()),
      config_fields_(options.config_fields) {}

absl::Status WandbBackend::Open(absl::string_view config_text) {
  start_ = clock_->WallTime();
  const std::string run_dir =
      io::JoinPath(dir_, absl::StrCat("offline-run-",
                                      absl::FormatTime("%Y%m%d_%H%M%S", start_,
                                                       absl::LocalTimeZone()),
                                      "-", config_.run_id()));
  const std::string files_dir = io::JoinPath(run_dir, "files");
  GRAPNEL_RETURN_IF_ERROR(env_->CreateDir(dir_));
  // Another backend may have been given the same id.
  GRAPNEL_RETURN_IF_ERROR(env_->CreateNewDir(run_dir));
  GRAPNEL_RETURN_IF_ERROR(env_->CreateDir(files_dir));
  GRAPNEL_ASSIGN_OR_RETURN(
      file_, env_->NewWritableFile(io::JoinPath(
                 run_dir, absl::StrCat("run-", config_.run_id(), ".wandb"))));
  GRAPNEL_RETURN_IF_ERROR(file_->Append(kFileHeader));
  file_size_ = kFileHeader.size();

  loggers::wandb::Record header;
  header.mutable_header()->mutable_version_info()->set_producer("grapnel");
  GRAPNEL_RETURN_IF_ERROR(Append(&header));

  loggers::wandb::Record record;
  loggers::wandb::Run* run = record.mutable_run();
  run->set_run_id(config_.run_id());
  run->set_entity(config_.entity());
  run->set_project(config_.project());
  run->set_run_group(config_.group());
  run->set_job_type(config_.job_type());
  run->set_display_name(config_.name());
  run->set_notes(config_.notes());
  *run->mutable_tags() = config_.tags();
  run->set_host(HostName());
  run->mutable_start_time()->set_seconds(absl::ToUnixSeconds(start_));
  run->mutable_start_time()->set_nanos(static_cast<int32_t>(
      absl::ToUnixNanos(start_) - absl::ToUnixSeconds(start_) * 1000000000));
  for (const auto& [name, json] : config_fields_) {
    AddItem(name, json, run->mutable_config()->mutable_update());
  }
  GRAPNEL_RETURN_IF_ERROR(Append(&record));
  if (config_text.empty()) return absl::OkStatus();

  GRAPNEL_RETURN_IF_ERROR(io::WriteFileAtomically(
      *env_, io::JoinPath(files_dir, kConfigFile), config_text));
  loggers::wandb::Record files;
  files.mutable_files()->add_files()->set_path(kConfigFile);
  return Append(&files);
}

absl::Status WandbBackend::WriteConfig(absl::string_view config) {
  GRAPNEL_RET_CHECK(file_ == nullptr);
  GRAPNEL_RETURN_IF_ERROR(Open(config));
  return file_->Flush();
}

absl::Status WandbBackend::WriteRecord(const Record& record) {
  if (file_ == nullptr) GRAPNEL_RETURN_IF_ERROR(Open(""));
  const absl::Time now = clock_->WallTime();
  loggers::wandb::History* history = row_.mutable_history();
  history->clear_item();  // Keeps its memory.
  history->mutable_step()->set_num(num_rows_);
  const auto add = [history](const std::string& name, const Scalar& scalar) {
    std::string json;
    AppendJsonNumber(scalar, &json);
    AddItem(EscapeToUtf8(name), std::move(json), history->mutable_item());
  };
  bool has_step = record.kind == Record::Kind::kTest;
  for (const auto& [name, scalar] : record.scalars) {
    has_step = has_step || name == "step";
    add(name, scalar);
  }
  if (!has_step) add("step", record.step);
  // Columns that W&B asks of every row.
  add("_step", num_rows_);
  add("_runtime", absl::ToDoubleSeconds(now - start_));
  add("_timestamp", static_cast<double>(absl::ToUnixMicros(now)) / 1e6);
  ++num_rows_;
  GRAPNEL_RETURN_IF_ERROR(Append(&row_));
  *summary_.mutable_summary()->mutable_update() = history->item();
  GRAPNEL_RETURN_IF_ERROR(Append(&summary_));
  return file_->Flush();
}

absl::Status WandbBackend::Close() {
  if (file_ == nullptr) return absl::OkStatus();
  loggers::wandb::Record exit;
  exit.mutable_exit()->set_exit_code(failed_ ? 1 : 0);
  exit.mutable_exit()->set_runtime(static_cast<int32_t>(
      std::clamp<int64_t>(absl::ToInt64Seconds(clock_->WallTime() - start_), 0,
                          std::numeric_limits<int32_t>::max())));
  absl::Status status = Append(&exit);
  status.Update(file_->Close());
  file_ = nullptr;
  return status;
}

absl::Status WandbBackend::Append(loggers::wandb::Record* record) {
  record->set_num(++num_records_);
  GRAPNEL_RET_CHECK(record->SerializeToString(&bytes_));
  absl::string_view rest = bytes_;
  for (bool first = true;; first = false) {
    int64_t room = kBlockSize - file_size_ % kBlockSize;
    if (room < kFrameHeaderSize) {
      GRAPNEL_RETURN_IF_ERROR(file_->Append(std::string(room, '\0')));
      file_size_ += room;
      room = kBlockSize;
    }
    const absl::string_view part = rest.substr(0, room - kFrameHeaderSize);
    rest.remove_prefix(part.size());
    const bool last = rest.empty();
    GRAPNEL_RETURN_IF_ERROR(AppendFrame(
        first ? (last ? kFull : kFirst) : (last ? kLast : kMiddle), part));
    if (last) return absl::OkStatus();
  }
}

absl::Status WandbBackend::AppendFrame(uint8_t type, absl::string_view data) {
  uLong crc = ::crc32(0, &type, 1);
  crc = ::crc32(crc, reinterpret_cast<const Bytef*>(data.data()),
                static_cast<uInt>(data.size()));
  const auto size = static_cast<uint32_t>(data.size());
  frame_.clear();
  for (int i = 0; i < 4; ++i) {
    frame_.push_back(static_cast<char>(crc >> 8 * i));
  }
  frame_.push_back(static_cast<char>(size));
  frame_.push_back(static_cast<char>(size >> 8));
  frame_.push_back(static_cast<char>(type));
  frame_.append(data.data(), data.size());
  file_size_ += static_cast<int64_t>(frame_.size());
  return file_->Append(frame_);
}

GRAPNEL_REGISTER(LogBackendRegistry, WandbBackend);

}  // namespace grapnel
