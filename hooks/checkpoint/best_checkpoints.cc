#include "grapnel/hooks/checkpoint/best_checkpoints.h"

#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;

constexpr char kFile[] = "best_checkpoints";
constexpr int64_t kMaxSize = int64_t{1} << 20;

// The parser would write to stderr what the status says.
class NoCollector final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override {}
};

}  // namespace

absl::Status WriteBestCheckpoints(io::Env& env, const std::string& dir,
                                  absl::string_view run_uuid,
                                  const BestCheckpointList& best) {
  hooks::v1::BestCheckpoints file;
  file.set_run_uuid(absl::BytesToHexString(run_uuid));
  *file.mutable_best() = best;
  std::string text;
  GRAPNEL_RET_CHECK(TextFormat::PrintToString(file, &text));
  return io::WriteFileAtomically(env, io::JoinPath(dir, kFile), text);
}

absl::StatusOr<BestCheckpointList> ReadBestCheckpoints(
    io::Env& env, const std::string& dir, absl::string_view run_uuid) {
  const std::string path = io::JoinPath(dir, kFile);
  GRAPNEL_ASSIGN_OR_RETURN(const std::string text,
                           io::ReadFile(env, path, kMaxSize));
  hooks::v1::BestCheckpoints file;
  TextFormat::Parser parser;
  NoCollector collector;
  parser.RecordErrorsTo(&collector);
  if (!parser.ParseFromString(text, &file)) {
    return absl::DataLossError(
        absl::StrCat(path, ": is no ", file.GetTypeName()));
  }
  if (file.run_uuid() != absl::BytesToHexString(run_uuid)) {
    return absl::NotFoundError(absl::StrCat(path, ": is of another run"));
  }
  return file.best();
}

}  // namespace grapnel
