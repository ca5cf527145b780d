#include "grapnel/tools/ckpt/convert_commands.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/mean_weights.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/runner/run_sections.h"
#include "grapnel/runner/section_weights.h"
#include "grapnel/tools/ckpt/checkpoint_folder.h"
#include "grapnel/tools/ckpt/json_report.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

using Format = CkptCommand::Format;

// What `path` means by its ending; none if it hasn't one.
std::optional<Format> FormatOf(absl::string_view path) {
  if (absl::EndsWith(path, ".safetensors")) return Format::kSafetensors;
  for (const char* const ending : {".pth", ".pt", ".bin", ".ckpt"}) {
    if (absl::EndsWith(path, ending)) return Format::kPth;
  }
  return std::nullopt;
}

const char* FormatName(Format format) {
  return format == Format::kPth ? "pth" : "safetensors";
}

absl::Status WriteWeights(io::Env& env, const std::string& path, Format format,
                          const TensorMap& weights) {
  return format == Format::kPth ? io::WritePthWeights(env, path, weights)
                                : io::ReplaceSafetensors(env, path, weights);
}

absl::Status WriteCheckpointTo(io::Env& env, const std::string& path,
                               const io::CheckpointContents& contents) {
  const std::string clean(io::StripSlashes(path));
  return io::WriteCheckpoint(env, io::Dirname(clean), io::Basename(clean),
                             contents);
}

struct Written {
  std::string path;
  const char* format;
  int64_t tensors;
};

void Print(const Written& written, const CkptCommand& command, io::Env& env,
           Json more, const std::vector<std::string>& notes,
           std::ostream& out) {
  const int64_t bytes = BytesOf(env, written.path);
  if (command.json) {
    Json json = {{"path", JsonText(written.path)},
                 {"format", written.format},
                 {"tensors", written.tensors},
                 {"bytes", bytes}};
    json.update(more);
    PrintJson(json, out);
    return;
  }
  out << Printable(written.path) << ": " << written.format << ", "
      << Count(written.tensors, "tensor") << ", " << FormatBytes(bytes) << "\n";
  for (const std::string& note : notes) out << Printable(note) << "\n";
}

// Those of an average. Other sections are refused.
absl::StatusOr<TensorMap> AverageOf(const io::CheckpointContents& contents,
                                    const std::string& name) {
  const TensorMap& model = *contents.FindSection(kModelSection);
  std::vector<std::string> names;
  for (const auto& [section, tensors] : contents.sections) {
    const bool is_average =
        !absl::c_linear_search(kRunSections, section) && !tensors.empty() &&
        absl::c_all_of(tensors, [&](const NamedTensor& named) {
          const at::Tensor* const own = model.Find(named.name);
          return own != nullptr && own->sizes() == named.tensor.sizes();
        });
    if (is_average) names.push_back(section);
  }
  if (!absl::c_linear_search(names, name)) {
    return absl::NotFoundError(absl::StrCat(
        "--average: \"", name,
        contents.FindSection(name) == nullptr ? "\" is not in it"
                                              : "\" is no average of the model",
        names.empty() ? std::string("; it has no averages")
                      : absl::StrCat("; there is ", absl::StrJoin(names, ", "),
                                     DidYouMean(name, names))));
  }
  return SectionWeights(contents, name);
}

// Says what made the model that the weights are of; not what became of it.
void CopyDescription(const io::v1::CheckpointManifest& from,
                     io::v1::CheckpointManifest* to) {
  to->set_config(from.config());
  *to->mutable_input_shape() = from.input_shape();
  to->set_device(from.device());
}

}  // namespace

absl::StatusOr<ExitCode> ExportWeights(const CkptCommand& command, io::Env& env,
                                       std::ostream& out) {
  const std::string& path = command.paths[0];
  const std::string& to = command.paths[1];
  const std::optional<Format> format =
      command.format.has_value() ? command.format : FormatOf(to);
  if (!format.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(to,
                     ": ends neither in .safetensors nor in .pth: say --pth "
                     "or --safetensors"));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckNewFile(env, to));
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents contents,
                           ReadWeightsAt(env, path));
  TensorMap weights = *contents.FindSection(kModelSection);
  if (command.average.has_value()) {
    absl::StatusOr<TensorMap> average = AverageOf(contents, *command.average);
    if (!average.ok()) return WithContext(average.status(), path);
    weights = *std::move(average);
  }
  GRAPNEL_RETURN_IF_ERROR(WriteWeights(env, to, *format, weights));
  Print({to, FormatName(*format), static_cast<int64_t>(weights.size())},
        command, env, Json::object(), {}, out);
  return kDone;
}

absl::StatusOr<ExitCode> ImportWeights(const CkptCommand& command, io::Env& env,
                                       std::ostream& out) {
  const std::string& path = command.paths[0];
  const std::string& to = command.paths[1];
  GRAPNEL_RETURN_IF_ERROR(CheckNewCheckpoint(env, to));
  if (io::IsCheckpoint(env, path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is a checkpoint already"));
  }
  GRAPNEL_ASSIGN_OR_RETURN(io::CheckpointContents contents,
                           ReadWeightsAt(env, path));
  contents.manifest().set_partial(true);
  GRAPNEL_RETURN_IF_ERROR(WriteCheckpointTo(env, to, contents));
  Json sections = Json::array();
  int64_t tensors = 0;
  for (const auto& section : contents.sections) {
    sections.push_back(section.first);
    tensors += static_cast<int64_t>(section.second.size());
  }
  Print({to, "checkpoint", tensors}, command, env,
        {{"sections", std::move(sections)}}, {}, out);
  return kDone;
}

absl::StatusOr<ExitCode> AverageCheckpoints(const CkptCommand& command,
                                            io::Env& env, std::ostream& out) {
  const std::string& to = *command.output;
  const std::optional<Format> format = FormatOf(to);
  GRAPNEL_RETURN_IF_ERROR(format.has_value() ? CheckNewFile(env, to)
                                             : CheckNewCheckpoint(env, to));
  io::WeightsMean mean;
  io::CheckpointContents result;
  for (size_t i = 0; i < command.paths.size(); ++i) {
    const std::string& path = command.paths[i];
    GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents contents,
                             ReadWeightsAt(env, path));
    GRAPNEL_RETURN_IF_ERROR(
        mean.Add(path, *contents.FindSection(kModelSection),
                 command.weights.empty() ? 1 : command.weights[i]));
    if (!contents.manifest().config().empty()) {
      CopyDescription(contents.manifest(), &result.manifest());
    }
  }
  GRAPNEL_ASSIGN_OR_RETURN(TensorMap weights, mean.Finish());
  const int64_t tensors = static_cast<int64_t>(weights.size());
  if (format.has_value()) {
    GRAPNEL_RETURN_IF_ERROR(WriteWeights(env, to, *format, weights));
  } else {
    result.sections.emplace_back(kModelSection, std::move(weights));
    result.manifest().set_partial(true);
    result.manifest().set_evaluated_section("");
    GRAPNEL_RETURN_IF_ERROR(WriteCheckpointTo(env, to, result));
  }
  const std::vector<std::string> from_last = mean.taken_from_last();
  Json json = {{"of", Json::array()}, {"taken_from_last", Json::array()}};
  for (const std::string& path : command.paths) {
    json["of"].push_back(JsonText(path));
  }
  for (const std::string& name : from_last) {
    json["taken_from_last"].push_back(JsonText(name));
  }
  std::vector<std::string> notes;
  if (!from_last.empty() && command.paths.size() > 1) {
    notes.push_back(
        absl::StrCat(Count(static_cast<int64_t>(from_last.size()), "tensor"),
                     " without a mean, of ", command.paths.back(), ": ",
                     from_last[0], from_last.size() > 1 ? ", ..." : ""));
  }
  Print({to, format.has_value() ? FormatName(*format) : "checkpoint", tensors},
        command, env, std::move(json), notes, out);
  return kDone;
}

}  // namespace grapnel
