#include "grapnel/tools/ckpt/compare_commands.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/compare_tensors.h"
#include "grapnel/io/sharded_weights.h"
#include "grapnel/io/verify_checkpoint.h"
#include "grapnel/io/weights.h"
#include "grapnel/tools/ckpt/checkpoint_folder.h"
#include "grapnel/tools/ckpt/json_report.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

constexpr size_t kMaxDifferences = 20;
constexpr char kModel[] = "model";

// ---------------------------------------------------------------- verify

struct Verified {
  std::string path;
  io::VerifiedCheckpoint result;
  bool has_digests = true;
  absl::Status unread;  // Why that isn't known: it can't be read at all.
};

absl::Status AddFile(io::Env& env, const std::string& path,
                     io::VerifiedCheckpoint* result) {
  // A link's file: model hubs' caches are links.
  GRAPNEL_ASSIGN_OR_RETURN(const auto file, env.NewRandomAccessFile(path));
  ++result->num_files;
  result->num_bytes += file->size();
  return absl::OkStatus();
}

// The file at `source`, and all that it lists if it is an index.
absl::Status AddFiles(io::Env& env, const io::WeightsSource& source,
                      io::VerifiedCheckpoint* result) {
  GRAPNEL_RETURN_IF_ERROR(AddFile(env, source.path, result));
  if (source.format != io::WeightsFormat::kShardIndex) return absl::OkStatus();
  GRAPNEL_ASSIGN_OR_RETURN(const io::ShardIndex index,
                           io::ReadShardIndex(env, source.path));
  for (const io::ShardIndex::Shard& shard : index.shards) {
    GRAPNEL_RETURN_IF_ERROR(AddFile(
        env, io::JoinPath(io::Dirname(source.path), shard.file), result));
  }
  return absl::OkStatus();
}

// Of a file of weights, all shards of an index, or what is read of a model
// hub's folder: that it can be read.
absl::StatusOr<Verified> VerifyWeights(io::Env& env, const std::string& path) {
  Verified verified;
  verified.path = path;
  verified.has_digests = false;
  const absl::StatusOr<io::WeightsSource> source = io::FindWeights(env, path);
  const absl::StatusOr<io::CheckpointContents> contents =
      ReadWeightsAt(env, path);
  // A folder without any.
  if (absl::IsNotFound(contents.status())) return contents.status();
  const std::string file = source.ok() ? source->path : path;
  if (contents.ok()) {
    verified.result.num_tensors =
        static_cast<int64_t>(contents->FindSection(kModel)->size());
    verified.unread = source.ok() ? AddFiles(env, *source, &verified.result)
                                  : source.status();
    return verified;
  }
  // Whatever it was meant to be.
  if (!absl::IsDataLoss(contents.status()) &&
      !absl::IsInvalidArgument(contents.status())) {
    verified.unread = contents.status();
    return verified;
  }
  absl::string_view what = contents.status().message();
  if (absl::ConsumePrefix(&what, file)) absl::ConsumePrefix(&what, ": ");
  verified.result.damages.push_back(
      {io::Basename(file), "", std::string(what)});
  return verified;
}

Verified VerifyOne(io::Env& env, const std::string& checkpoint) {
  Verified verified;
  verified.path = checkpoint;
  auto result = io::VerifyCheckpoint(env, checkpoint);
  if (result.ok()) {
    verified.result = *std::move(result);
  } else if (absl::IsNotFound(result.status())) {  // By its name it is one.
    verified.result.damages.push_back({"manifest.pb", "", "is missing"});
  } else {
    verified.unread = result.status();
  }
  return verified;
}

bool IsGood(const Verified& verified) {
  return verified.unread.ok() && verified.result.damages.empty();
}

absl::Status VerifyPath(io::Env& env, const std::string& path,
                        std::vector<Verified>* all) {
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, path));
  if (io::IsCheckpoint(env, path)) {
    all->push_back(VerifyOne(env, path));
    return absl::OkStatus();
  }
  if (env.IsDirectory(path)) {
    GRAPNEL_ASSIGN_OR_RETURN(const CheckpointFolder folder,
                             ReadCheckpointFolder(env, path));
    for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
      if (checkpoint.set_aside) continue;  // That it is damaged is known.
      Verified verified = VerifyOne(env, checkpoint.path);
      // A training that goes on may have deleted it meanwhile.
      if (IsGood(verified) || env.IsDirectory(checkpoint.path)) {
        all->push_back(std::move(verified));
      }
    }
    if (!folder.checkpoints.empty()) return absl::OkStatus();
  }
  GRAPNEL_ASSIGN_OR_RETURN(Verified verified, VerifyWeights(env, path));
  all->push_back(std::move(verified));
  return absl::OkStatus();
}

// What is wrong with one that can't be read, without its path.
std::string UnreadMessage(const Verified& verified) {
  absl::string_view message = verified.unread.message();
  if (absl::ConsumePrefix(&message, verified.path)) {
    if (!absl::ConsumePrefix(&message, "/")) {
      absl::ConsumePrefix(&message, ": ");
    }
  }
  return std::string(message);
}

// ---------------------------------------------------------------- diff

using TensorKind = io::TensorDifference::Kind;

// Of one tensor, part or field.
struct Difference {
  std::string part;
  std::string name;  // "" if it is of the part.
  std::string what;  // For people.
  Json json;
};

const char* KindName(TensorKind kind) {
  switch (kind) {
    case TensorKind::kOnlyInFirst:
      return "only in A";
    case TensorKind::kOnlyInSecond:
      return "only in B";
    case TensorKind::kDtype:
      return "dtype";
    case TensorKind::kShape:
      return "shape";
    case TensorKind::kValues:
      return "values";
  }
  return "";
}

Difference Describe(const std::string& section,
                    const io::TensorDifference& difference) {
  const char* const kind = KindName(difference.kind);
  Difference described;
  described.part = section;
  described.name = difference.name;
  described.json = {
      {"part", section}, {"tensor", JsonText(difference.name)}, {"kind", kind}};
  switch (difference.kind) {
    case TensorKind::kOnlyInFirst:
    case TensorKind::kOnlyInSecond:
      described.what = kind;
      break;
    case TensorKind::kDtype:
    case TensorKind::kShape: {
      const bool is_shape = difference.kind == TensorKind::kShape;
      const auto shown = [&](const std::string& value) {
        return is_shape ? absl::StrCat("(", value, ")") : value;
      };
      described.what = absl::StrCat(kind, " ", shown(difference.first), " and ",
                                    shown(difference.second));
      described.json["a"] = shown(difference.first);
      described.json["b"] = shown(difference.second);
      break;
    }
    case TensorKind::kValues:
      described.what =
          absl::StrCat("max |d| ",
                       // NaN has a sign too.
                       absl::StrFormat("%.6g", std::fabs(difference.max_abs)),
                       ", ", GroupDigits(difference.num_different), " of ",
                       Count(difference.num_elements, "element"));
      described.json["max_abs"] = difference.max_abs;
      described.json["different"] = difference.num_different;
      described.json["elements"] = difference.num_elements;
      break;
  }
  return described;
}

Difference OfPart(const std::string& part, const std::string& what,
                  const char* kind) {
  return {part, "", what, {{"part", part}, {"kind", kind}}};
}

class Differ {
 public:
  Differ(const io::CheckpointContents& a, const io::CheckpointContents& b)
      : a_(a), b_(b) {}

  absl::Status DiffSection(const std::string& name) {
    const TensorMap* const in_a = a_.FindSection(name);
    const TensorMap* const in_b = b_.FindSection(name);
    if (in_a == nullptr && in_b == nullptr) {
      std::vector<std::string> names;
      for (const auto& section : a_.sections) names.push_back(section.first);
      return absl::NotFoundError(
          absl::StrCat("--section: neither has \"", name, "\"; A has ",
                       absl::StrJoin(names, ", "), DidYouMean(name, names)));
    }
    if (in_a == nullptr || in_b == nullptr) {
      const TensorMap& tensors = in_a != nullptr ? *in_a : *in_b;
      const char* const kind = in_a != nullptr ? "only in A" : "only in B";
      differences_.push_back(OfPart(
          name,
          absl::StrCat(kind, ", with ",
                       Count(static_cast<int64_t>(tensors.size()), "tensor")),
          kind));
      return absl::OkStatus();
    }
    const auto found = io::CompareTensors(*in_a, *in_b);
    if (!found.ok()) return WithContext(found.status(), name);
    for (const io::TensorDifference& difference : *found) {
      differences_.push_back(Describe(name, difference));
    }
    num_tensors_ += static_cast<int64_t>(in_a->size());
    return absl::OkStatus();
  }

  absl::Status DiffAll() {
    DiffProgress();
    for (const auto& section : a_.sections) {
      GRAPNEL_RETURN_IF_ERROR(DiffSection(section.first));
    }
    for (const auto& section : b_.sections) {
      if (a_.FindSection(section.first) != nullptr) continue;
      GRAPNEL_RETURN_IF_ERROR(DiffSection(section.first));
    }
    for (const auto& [name, content] : a_.blobs) {
      const std::string* const other = b_.FindBlob(name);
      if (other == nullptr) {
        differences_.push_back(OfPart(name, "only in A", "only in A"));
      } else if (*other != content) {
        differences_.push_back(OfPart(
            name,
            absl::StrCat("bytes differ: ",
                         GroupDigits(static_cast<int64_t>(content.size())),
                         " and ",
                         GroupDigits(static_cast<int64_t>(other->size()))),
            "bytes"));
      }
    }
    for (const auto& blob : b_.blobs) {
      if (a_.FindBlob(blob.first) != nullptr) continue;
      differences_.push_back(OfPart(blob.first, "only in B", "only in B"));
    }
    return absl::OkStatus();
  }

  const std::vector<Difference>& differences() const { return differences_; }
  int64_t num_tensors() const { return num_tensors_; }

 private:
  void DiffProgress() {
    const io::v1::Progress& a = a_.manifest().progress();
    const io::v1::Progress& b = b_.manifest().progress();
    const auto diff = [&](const char* field, int64_t in_a, int64_t in_b) {
      if (in_a == in_b) return;
      Difference difference =
          OfPart("progress", absl::StrCat(in_a, " and ", in_b), "progress");
      difference.name = field;
      difference.json["field"] = field;
      difference.json["a"] = in_a;
      difference.json["b"] = in_b;
      differences_.push_back(std::move(difference));
    };
    diff("epoch", a.epoch(), b.epoch());
    diff("iter", a.iter(), b.iter());
    diff("iter_in_epoch", a.iter_in_epoch(), b.iter_in_epoch());
    diff("updates", a.updates(), b.updates());
    diff("samples", a.samples(), b.samples());
    diff("max_epochs", a.max_epochs(), b.max_epochs());
    diff("max_iters", a.max_iters(), b.max_iters());
    diff("validation_pending", a.validation_pending(), b.validation_pending());
    diff("pass", a.pass(), b.pass());
    diff("samples_in_pass", a.samples_in_pass(), b.samples_in_pass());
    diff("epoch_lengths", a.epoch_lengths_size(), b.epoch_lengths_size());
    diff("loop_ended", a.loop_ended(), b.loop_ended());
  }

  const io::CheckpointContents& a_;
  const io::CheckpointContents& b_;
  std::vector<Difference> differences_;
  int64_t num_tensors_ = 0;
};

}  // namespace

absl::StatusOr<ExitCode> VerifyCheckpoints(const CkptCommand& command,
                                           io::Env& env, std::ostream& out) {
  std::vector<Verified> all;
  for (const std::string& path : command.paths) {
    GRAPNEL_RETURN_IF_ERROR(VerifyPath(env, path, &all));
  }
  ExitCode exit_code = kDone;
  Json json = {{"ok", true}, {"checkpoints", Json::array()}};
  for (const Verified& verified : all) {
    const io::VerifiedCheckpoint& result = verified.result;
    const bool ok = IsGood(verified);
    // A newer version's can be read, but not by this one.
    if (!result.damages.empty() || absl::IsUnimplemented(verified.unread)) {
      exit_code = kBadCheckpoint;
    } else if (!ok && exit_code == kDone) {
      exit_code = kRunFailed;
    }
    if (command.json) {
      Json damages = Json::array();
      for (const io::CheckpointDamage& damage : result.damages) {
        damages.push_back({{"file", JsonText(damage.file)},
                           {"tensor", TextOrNull(damage.tensor)},
                           {"what", JsonText(damage.what)}});
      }
      json["checkpoints"].push_back(
          {{"path", JsonText(verified.path)},
           {"ok", ok},
           {"digests", verified.has_digests},
           {"files", result.num_files},
           {"tensors", result.num_tensors},
           {"bytes", result.num_bytes},
           {"damages", std::move(damages)},
           {"error", TextOrNull(UnreadMessage(verified))}});
      continue;
    }
    const std::string path = Printable(verified.path);
    if (ok) {
      out << path << ": ok, " << Count(result.num_files, "file") << ", "
          << Count(result.num_tensors, "tensor") << ", "
          << FormatBytes(result.num_bytes)
          << (verified.has_digests ? "" : "; can be read, has no digests")
          << "\n";
    }
    if (!verified.unread.ok()) {
      out << path << ": " << Printable(UnreadMessage(verified)) << "\n";
    }
    for (const io::CheckpointDamage& damage : result.damages) {
      out << path << ": ";
      // Where the path isn't the file's own.
      if (io::Basename(verified.path) != damage.file) {
        out << Printable(damage.file) << ": ";
      }
      if (!damage.tensor.empty()) {
        out << "tensor \"" << Printable(damage.tensor) << "\": ";
      }
      out << Printable(damage.what) << "\n";
    }
  }
  json["ok"] = exit_code == kDone;
  if (command.json) PrintJson(json, out);
  return exit_code;
}

absl::StatusOr<ExitCode> DiffCheckpoints(const CkptCommand& command,
                                         io::Env& env, std::ostream& out) {
  const std::string& path_a = command.paths[0];
  const std::string& path_b = command.paths[1];
  const bool both_checkpoints =
      io::IsCheckpoint(env, path_a) && io::IsCheckpoint(env, path_b);
  // Of a checkpoint also one without a model.
  const auto read =
      [&](const std::string& path) -> absl::StatusOr<io::CheckpointContents> {
    if (!both_checkpoints) return ReadWeightsAt(env, path);
    auto contents = io::ReadCheckpoint(env, path);
    if (!contents.ok()) return WithModelFile(env, path, contents.status());
    return contents;
  };
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents a, read(path_a));
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents b, read(path_b));
  Differ differ(a, b);
  if (command.section.has_value()) {
    GRAPNEL_RETURN_IF_ERROR(differ.DiffSection(*command.section));
  } else if (both_checkpoints) {
    GRAPNEL_RETURN_IF_ERROR(differ.DiffAll());
  } else {
    GRAPNEL_RETURN_IF_ERROR(differ.DiffSection(kModel));
  }
  const std::vector<Difference>& differences = differ.differences();
  const ExitCode exit_code = differences.empty() ? kDone : kRunFailed;
  if (command.json) {
    Json json = {{"a", JsonText(path_a)},
                 {"b", JsonText(path_b)},
                 {"equal", differences.empty()},
                 {"differences", Json::array()}};
    for (const Difference& difference : differences) {
      json["differences"].push_back(difference.json);
    }
    PrintJson(json, out);
    return exit_code;
  }
  if (differences.empty()) {
    out << "equal: " << Count(differ.num_tensors(), "tensor")
        << (both_checkpoints && !command.section.has_value()
                ? ", and progress and state"
                : "")
        << "\n";
    return exit_code;
  }
  std::vector<TableRow> rows = {{"part", "name", "difference"}};
  const size_t shown = command.all ? differences.size() : kMaxDifferences;
  for (const Difference& difference : differences) {
    if (rows.size() > shown) break;
    rows.push_back({difference.part, difference.name, difference.what});
  }
  std::string text;
  AppendTable(rows, &text);
  out << text;
  if (differences.size() > shown) {
    out << "... and "
        << GroupDigits(static_cast<int64_t>(differences.size() - shown))
        << " more: --all\n";
  }
  return exit_code;
}

}  // namespace grapnel
