#include "grapnel/tools/ckpt/inspect_commands.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/io/safetensors_header.h"
#include "grapnel/tools/ckpt/checkpoint_folder.h"
#include "grapnel/tools/ckpt/json_report.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

using io::v1::CheckpointManifest;

constexpr size_t kRunDigits = 8;
constexpr size_t kMaxMetrics = 3;
constexpr size_t kMaxTensors = 20;

std::string DirOf(const CkptCommand& command) {
  return command.paths.empty() ? "." : command.paths[0];
}

std::string FormatMetrics(const CheckpointManifest& manifest,
                          size_t max_metrics) {
  // Sorted by name, as JSON has them: a protobuf's map has no order.
  std::vector<std::string> metrics;
  for (const auto& [name, value] : manifest.metrics()) {
    metrics.push_back(absl::StrCat(name, " ", absl::StrFormat("%.6g", value)));
  }
  std::sort(metrics.begin(), metrics.end());
  if (metrics.size() > max_metrics) {
    metrics.resize(max_metrics);
    metrics.push_back("...");
  }
  return absl::StrJoin(metrics, ", ");
}

Json MetricsOf(const CheckpointManifest& manifest) {
  std::vector<std::pair<std::string, double>> metrics(
      manifest.metrics().begin(), manifest.metrics().end());
  std::sort(metrics.begin(), metrics.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Json json = Json::object();
  for (const auto& [name, value] : metrics) json[JsonText(name)] = value;
  return json;
}

// ---------------------------------------------------------------- ls

Json ToJson(const FolderCheckpoint& checkpoint, int64_t bytes) {
  const CheckpointManifest& manifest = checkpoint.manifest;
  Json json = {{"name", JsonText(checkpoint.name)},
               {"path", JsonText(checkpoint.path)}};
  if (checkpoint.has_manifest) {
    json["epoch"] = manifest.progress().epoch();
    json["iter"] = manifest.progress().iter();
    json["saved"] = TextOrNull(UtcTime(manifest.created_unix_nanos()));
    json["metrics"] = MetricsOf(manifest);
    json["run"] = TextOrNull(absl::BytesToHexString(manifest.run_uuid()));
    json["partial"] = manifest.partial();
  }
  json["bytes"] = bytes;
  json["last"] = checkpoint.is_last;
  json["pinned"] = checkpoint.pinned;
  json["best"] = Json::array();
  for (const std::string& metric : checkpoint.best) {
    json["best"].push_back(JsonText(metric));
  }
  json["copies"] = ToJson(checkpoint.copies);
  json["set_aside"] = checkpoint.set_aside;
  json["bad"] = TextOrNull(checkpoint.bad);
  return json;
}

TableRow ToRow(const FolderCheckpoint& checkpoint, const std::string& dir,
               int64_t bytes) {
  const CheckpointManifest& manifest = checkpoint.manifest;
  std::vector<std::string> notes;
  if (checkpoint.is_last) notes.push_back("last");
  for (const std::string& metric : checkpoint.best) {
    notes.push_back(absl::StrCat("best ", metric));
  }
  if (checkpoint.pinned) notes.push_back("pinned");
  if (checkpoint.set_aside) notes.push_back("damaged, set aside");
  if (manifest.partial()) notes.push_back("partial");
  if (!checkpoint.bad.empty()) {
    notes.push_back(absl::StrCat("bad: ", checkpoint.bad));
  }
  TableRow row = {checkpoint.dir == dir ? checkpoint.name : checkpoint.path};
  if (checkpoint.has_manifest) {
    row.insert(row.end(), {absl::StrCat(manifest.progress().epoch()),
                           absl::StrCat(manifest.progress().iter()),
                           LocalTime(manifest.created_unix_nanos())});
  } else {
    row.insert(row.end(), {"-", "-", "-"});
  }
  row.insert(row.end(),
             {FormatBytes(bytes), FormatMetrics(manifest, kMaxMetrics),
              absl::BytesToHexString(manifest.run_uuid()).substr(0, kRunDigits),
              absl::StrJoin(notes, ", ")});
  return row;
}

TableRow CopyRow(const SizedFile& copy, const FolderCheckpoint& checkpoint,
                 const std::string& dir) {
  return {checkpoint.dir == dir ? io::Basename(copy.path) : copy.path,
          "-",
          "-",
          "-",
          FormatBytes(copy.bytes),
          "",
          "",
          "copy"};
}

// ---------------------------------------------------------------- show

struct ShownTensor {
  std::string section;
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

Json ToJson(const std::vector<ShownTensor>& tensors) {
  Json json = Json::array();
  for (const ShownTensor& tensor : tensors) {
    json.push_back({{"section", tensor.section},
                    {"name", JsonText(tensor.name)},
                    {"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"bytes", tensor.bytes}});
  }
  return json;
}

std::string FormatTensors(const std::vector<ShownTensor>& tensors, bool all) {
  const size_t shown = all ? tensors.size() : kMaxTensors;
  std::vector<TableRow> rows = {
      {"tensor", "dtype", "shape", "size", "section"}};
  for (const ShownTensor& tensor : tensors) {
    if (rows.size() > shown) break;
    rows.push_back({tensor.name, tensor.dtype,
                    absl::StrCat("(", absl::StrJoin(tensor.shape, ", "), ")"),
                    FormatBytes(tensor.bytes), tensor.section});
  }
  std::string text;
  if (rows.size() > 1) AppendTable(rows, &text);
  if (tensors.size() > shown) {
    absl::StrAppend(&text, "... and ",
                    GroupDigits(static_cast<int64_t>(tensors.size() - shown)),
                    " more: --all\n");
  }
  return text;
}

std::string DtypeName(const at::Tensor& tensor) {
  const auto* const dtype = io::FindSafetensorsDtype(tensor.scalar_type());
  return dtype != nullptr ? dtype->name : c10::toString(tensor.scalar_type());
}

struct ShownPart {
  std::string name;
  bool is_section = false;
  int64_t tensors = 0;
  int64_t bytes = 0;
};

struct ShownContents {
  std::vector<ShownPart> parts;
  std::vector<ShownTensor> tensors;
  int64_t bytes = 0;
};

ShownContents ContentsOf(const CheckpointManifest& manifest) {
  ShownContents contents;
  for (const io::v1::FileRecord& file : manifest.files()) {
    ShownPart part;
    const auto listed = io::ParsePartFile(file.name(), false);
    part.name = listed.ok() ? listed->name : file.name();
    part.is_section = listed.ok() && listed->is_section;
    part.bytes = static_cast<int64_t>(file.num_bytes());
    contents.bytes += part.bytes;
    contents.parts.push_back(std::move(part));
  }
  for (const io::v1::TensorRecord& record : manifest.tensors()) {
    ShownPart& part = contents.parts[record.file()];
    ++part.tensors;
    contents.tensors.push_back({part.name,
                                record.name(),
                                record.dtype(),
                                {record.shape().begin(), record.shape().end()},
                                static_cast<int64_t>(record.num_bytes())});
  }
  return contents;
}

std::string FormatProgress(const io::v1::Progress& progress) {
  const auto of = [](int64_t done, int64_t max) {
    return max > 0 ? absl::StrCat(done, " of ", max) : absl::StrCat(done);
  };
  std::string text =
      absl::StrCat("epoch ", of(progress.epoch(), progress.max_epochs()),
                   ", iteration ", of(progress.iter(), progress.max_iters()));
  if (progress.iter_in_epoch() > 0) {
    absl::StrAppend(&text, ", ", progress.iter_in_epoch(), " in the epoch");
  }
  absl::StrAppend(&text, ", ", Count(progress.updates(), "update"), ", ",
                  Count(progress.samples(), "sample"));
  if (progress.validation_pending()) {
    absl::StrAppend(&text, "; validation is due");
  }
  return text;
}

Json ToJson(const io::v1::Progress& progress) {
  return {{"epoch", progress.epoch()},
          {"iter", progress.iter()},
          {"iter_in_epoch", progress.iter_in_epoch()},
          {"updates", progress.updates()},
          {"samples", progress.samples()},
          {"max_epochs", progress.max_epochs()},
          {"max_iters", progress.max_iters()},
          {"validation_pending", progress.validation_pending()},
          {"pass", progress.pass()},
          {"samples_in_pass", progress.samples_in_pass()}};
}

void ShowAsText(const CkptCommand& command, const CheckpointManifest& manifest,
                std::ostream& out) {
  const ShownContents contents = ContentsOf(manifest);
  std::vector<TableRow> facts = {{"checkpoint", command.paths[0]}};
  const auto add = [&](const char* what, const std::string& value) {
    if (!value.empty()) facts.push_back({what, value});
  };
  add("run", absl::BytesToHexString(manifest.run_uuid()));
  add("saved", LocalTime(manifest.created_unix_nanos()));
  std::vector<std::string> by = {manifest.producer()};
  if (!manifest.libtorch_version().empty()) {
    by.push_back(absl::StrCat("LibTorch ", manifest.libtorch_version()));
  }
  by.push_back(manifest.cpu_capability());
  by.push_back(Count(manifest.num_threads(), "thread"));
  if (manifest.world_size() > 1) {
    by.push_back(absl::StrCat(manifest.world_size(), " ranks"));
  }
  by.push_back(manifest.device());
  by.erase(std::remove(by.begin(), by.end(), ""), by.end());
  add("by", absl::StrJoin(by, ", "));
  add("progress", FormatProgress(manifest.progress()));
  add("metrics", FormatMetrics(manifest, manifest.metrics().size()));
  if (!manifest.input_shape().empty()) {
    add("sample",
        absl::StrCat("(", absl::StrJoin(manifest.input_shape(), ", "), ")"));
  }
  add("evaluated", manifest.evaluated_section());
  if (manifest.partial()) add("partial", "a run can't go on from it");
  const int64_t lines = static_cast<int64_t>(
      std::count(manifest.config().begin(), manifest.config().end(), '\n'));
  add("settings", manifest.config().empty()
                      ? "none"
                      : absl::StrCat(Count(lines, "line"), ": --config"));
  std::string text;
  AppendTable(facts, &text);
  std::vector<TableRow> rows = {{"part", "tensors", "size"}};
  for (const ShownPart& part : contents.parts) {
    rows.push_back({part.name,
                    part.is_section ? GroupDigits(part.tensors) : "-",
                    FormatBytes(part.bytes)});
  }
  rows.push_back({"in all",
                  GroupDigits(static_cast<int64_t>(contents.tensors.size())),
                  FormatBytes(contents.bytes)});
  text += "\n";
  AppendTable(rows, &text);
  out << text << "\n" << FormatTensors(contents.tensors, command.all);
}

void ShowAsJson(const CkptCommand& command, const CheckpointManifest& manifest,
                std::ostream& out) {
  const ShownContents contents = ContentsOf(manifest);
  Json parts = Json::array();
  for (const ShownPart& part : contents.parts) {
    parts.push_back({{"name", part.name},
                     {"kind", part.is_section ? "section" : "blob"},
                     {"tensors", part.tensors},
                     {"bytes", part.bytes}});
  }
  PrintJson(
      {{"path", JsonText(command.paths[0])},
       {"kind", "checkpoint"},
       {"name", manifest.name()},
       {"uuid", absl::BytesToHexString(manifest.checkpoint_uuid())},
       {"run", TextOrNull(absl::BytesToHexString(manifest.run_uuid()))},
       {"parent", TextOrNull(absl::BytesToHexString(manifest.parent_uuid()))},
       {"saved", TextOrNull(UtcTime(manifest.created_unix_nanos()))},
       {"producer", TextOrNull(manifest.producer())},
       {"libtorch_version", TextOrNull(manifest.libtorch_version())},
       {"cpu_capability", TextOrNull(manifest.cpu_capability())},
       {"threads", manifest.num_threads()},
       {"world_size", manifest.world_size()},
       {"device", manifest.device().empty() ? "cpu" : manifest.device()},
       {"progress", ToJson(manifest.progress())},
       {"metrics", MetricsOf(manifest)},
       {"partial", manifest.partial()},
       {"input_shape", std::vector<int64_t>(manifest.input_shape().begin(),
                                            manifest.input_shape().end())},
       {"evaluated_section", TextOrNull(manifest.evaluated_section())},
       {"has_config", !manifest.config().empty()},
       {"parts", std::move(parts)},
       {"bytes", contents.bytes},
       {"tensors", ToJson(contents.tensors)}},
      out);
}

// Of a file, or a folder of a model hub: all that there is are tensors.
absl::StatusOr<ExitCode> ShowWeights(const CkptCommand& command, io::Env& env,
                                     std::ostream& out) {
  const std::string& path = command.paths[0];
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents contents,
                           ReadWeightsAt(env, path));
  const TensorMap& weights = *contents.FindSection("model");
  std::vector<ShownTensor> tensors;
  int64_t bytes = 0;
  for (const NamedTensor& named : weights) {
    const int64_t size = named.tensor.numel() *
                         static_cast<int64_t>(named.tensor.element_size());
    tensors.push_back({"model", named.name, DtypeName(named.tensor),
                       named.tensor.sizes().vec(), size});
    bytes += size;
  }
  if (command.json) {
    PrintJson({{"path", JsonText(path)},
               {"kind", "weights"},
               {"bytes", bytes},
               {"tensors", ToJson(tensors)}},
              out);
  } else {
    std::string text;
    AppendTable({{"weights", path},
                 {"tensors", GroupDigits(static_cast<int64_t>(tensors.size()))},
                 {"size", FormatBytes(bytes)}},
                &text);
    out << text << "\n" << FormatTensors(tensors, command.all);
  }
  return kDone;
}

absl::StatusOr<ExitCode> ShowConfig(const CkptCommand& command,
                                    const CheckpointManifest& manifest,
                                    std::ostream& out) {
  if (command.json) {
    PrintJson({{"path", JsonText(command.paths[0])},
               {"config", TextOrNull(manifest.config())}},
              out);
    return kDone;
  }
  if (manifest.config().empty()) {
    return absl::NotFoundError(
        absl::StrCat(command.paths[0], ": has no configuration"));
  }
  out << manifest.config();
  if (manifest.config().back() != '\n') out << "\n";
  return kDone;
}

// ---------------------------------------------------------------- du

constexpr char kOther[] = "other";

// Bytes of one checkpoint, by part; of a file that also_write has made of one;
// of all leftovers.
struct DiskUse {
  enum class Kind { kCheckpoint, kFile, kLeftovers };
  Kind kind = Kind::kCheckpoint;
  std::string name;
  std::string path;
  std::vector<std::pair<std::string, int64_t>> parts;
  int64_t total = 0;
};

DiskUse DiskUseOf(io::Env& env, const FolderCheckpoint& checkpoint,
                  const std::string& dir) {
  DiskUse use;
  use.name = checkpoint.dir == dir ? checkpoint.name : checkpoint.path;
  use.path = checkpoint.path;
  for (const io::v1::FileRecord& file : checkpoint.manifest.files()) {
    const auto part = io::ParsePartFile(file.name(), false);
    if (!part.ok()) continue;
    const int64_t bytes =
        BytesOf(env, io::JoinPath(checkpoint.path, file.name()));
    use.parts.emplace_back(part->name, bytes);
    use.total += bytes;
  }
  const int64_t all = BytesOf(env, checkpoint.path);
  use.parts.emplace_back(kOther, all - use.total);
  use.total = all;
  return use;
}

}  // namespace

absl::StatusOr<ExitCode> ListCheckpoints(const CkptCommand& command,
                                         io::Env& env, std::ostream& out) {
  const std::string dir = DirOf(command);
  GRAPNEL_ASSIGN_OR_RETURN(const CheckpointFolder folder,
                           ReadCheckpointFolder(env, dir));
  if (command.json) {
    Json json = {{"directories", Json::array()},
                 {"last_checkpoint", TextOrNull(folder.last)},
                 {"last_checkpoint_problem", TextOrNull(folder.last_problem)},
                 {"checkpoints", Json::array()}};
    for (const std::string& each : folder.dirs) {
      json["directories"].push_back(JsonText(each));
    }
    for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
      json["checkpoints"].push_back(
          ToJson(checkpoint, BytesOf(env, checkpoint.path)));
    }
    PrintJson(json, out);
    return kDone;
  }
  if (folder.checkpoints.empty()) {
    out << Printable(dir) << ": no checkpoints\n";
  } else {
    std::vector<TableRow> rows = {
        {"checkpoint", "epoch", "iter", "saved", "size", "metrics", "run", ""}};
    for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
      rows.push_back(
          ToRow(checkpoint, folder.dirs[0], BytesOf(env, checkpoint.path)));
      for (const SizedFile& copy : checkpoint.copies) {
        rows.push_back(CopyRow(copy, checkpoint, folder.dirs[0]));
      }
    }
    std::string text;
    AppendTable(rows, &text);
    out << text;
  }
  if (!folder.last_problem.empty()) {
    out << "last_checkpoint: " << Printable(folder.last_problem) << "\n";
  }
  return kDone;
}

absl::StatusOr<ExitCode> ShowCheckpoint(const CkptCommand& command,
                                        io::Env& env, std::ostream& out) {
  const std::string& path = command.paths[0];
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, path));
  if (!io::IsCheckpoint(env, path)) {
    if (command.config) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": is no checkpoint; only those have a configuration"));
    }
    return ShowWeights(command, env, out);
  }
  const absl::StatusOr<CheckpointManifest> read = io::ReadManifest(env, path);
  if (!read.ok()) {
    // Whatever else is wrong, it isn't called what its manifest says.
    const bool set_aside =
        io::IsSetAsideName(io::Basename(io::StripSlashes(path)));
    return absl::Status(
        read.status().code(),
        absl::StrCat(read.status().message(),
                     set_aside ? "; it is set aside: a training found it "
                                 "damaged"
                               : ""));
  }
  const CheckpointManifest& manifest = *read;
  if (command.config) return ShowConfig(command, manifest, out);
  if (command.json) {
    ShowAsJson(command, manifest, out);
  } else {
    ShowAsText(command, manifest, out);
  }
  return kDone;
}

absl::StatusOr<ExitCode> ShowDiskUse(const CkptCommand& command, io::Env& env,
                                     std::ostream& out) {
  GRAPNEL_ASSIGN_OR_RETURN(const CheckpointFolder folder,
                           ReadCheckpointFolder(env, DirOf(command)));
  std::vector<DiskUse> uses;
  for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
    uses.push_back(DiskUseOf(env, checkpoint, folder.dirs[0]));
    for (const SizedFile& file : checkpoint.copies) {
      DiskUse copy;
      copy.kind = DiskUse::Kind::kFile;
      copy.name = checkpoint.dir == folder.dirs[0] ? io::Basename(file.path)
                                                   : file.path;
      copy.path = file.path;
      copy.total = file.bytes;
      copy.parts.emplace_back(kOther, copy.total);
      uses.push_back(std::move(copy));
    }
  }
  if (!folder.leftovers.empty()) {
    DiskUse leftovers;
    leftovers.kind = DiskUse::Kind::kLeftovers;
    leftovers.name = "leftovers";
    for (const Leftover& leftover : folder.leftovers) {
      leftovers.total += BytesOf(env, leftover.path);
    }
    leftovers.parts.emplace_back(kOther, leftovers.total);
    uses.push_back(std::move(leftovers));
  }
  // Columns in the order in which parts are met, "other" last.
  std::vector<std::pair<std::string, int64_t>> sums;
  int64_t other = 0, total = 0;
  for (const DiskUse& use : uses) {
    total += use.total;
    for (const auto& [part, bytes] : use.parts) {
      if (part == kOther) {
        other += bytes;
        continue;
      }
      const auto it = std::find_if(
          sums.begin(), sums.end(),
          [&, name = &part](const auto& sum) { return sum.first == *name; });
      if (it != sums.end()) {
        it->second += bytes;
      } else {
        sums.emplace_back(part, bytes);
      }
    }
  }
  sums.emplace_back(kOther, other);
  if (command.json) {
    const auto by_part = [](const auto& parts) {
      Json json = Json::object();
      for (const auto& [part, bytes] : parts) json[part] = bytes;
      return json;
    };
    Json json = {{"checkpoints", Json::array()},
                 {"files", Json::array()},
                 {"leftovers", 0}};
    for (const DiskUse& use : uses) {
      if (use.kind == DiskUse::Kind::kLeftovers) {
        json["leftovers"] = use.total;
        continue;
      }
      Json row = {{"name", JsonText(use.name)},
                  {"path", JsonText(use.path)},
                  {"bytes", use.total}};
      if (use.kind == DiskUse::Kind::kFile) {
        json["files"].push_back(std::move(row));
        continue;
      }
      row["parts"] = by_part(use.parts);
      json["checkpoints"].push_back(std::move(row));
    }
    json["parts"] = by_part(sums);
    json["bytes"] = total;
    PrintJson(json, out);
    return kDone;
  }
  std::vector<TableRow> rows = {{"checkpoint"}};
  for (const auto& [part, bytes] : sums) rows[0].push_back(part);
  rows[0].push_back("in all");
  const auto add_row = [&](const std::string& name, const auto& parts,
                           int64_t in_all) {
    TableRow row = {name};
    for (const auto& [part, sum] : sums) {
      const auto it = std::find_if(parts.begin(), parts.end(),
                                   [&, wanted = &part](const auto& own) {
                                     return own.first == *wanted;
                                   });
      row.push_back(it == parts.end() ? "-" : FormatBytes(it->second));
    }
    row.push_back(FormatBytes(in_all));
    rows.push_back(std::move(row));
  };
  for (const DiskUse& use : uses) add_row(use.name, use.parts, use.total);
  add_row("in all", sums, total);
  std::string text;
  AppendTable(rows, &text);
  out << text;
  return kDone;
}

}  // namespace grapnel
