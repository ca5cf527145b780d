#include "grapnel/tools/ckpt/training_commands.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/pth.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/run_start.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/training_pth.h"
#include "grapnel/runner/training_pth_writer.h"
#include "grapnel/tools/ckpt/checkpoint_folder.h"
#include "grapnel/tools/ckpt/json_report.h"
#include "grapnel/tools/command_line.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

void Print(const CkptCommand& command, io::Env& env, const std::string& path,
           const char* format, const io::v1::Progress& progress,
           const std::vector<std::string>& warnings, std::ostream& out) {
  const int64_t bytes = BytesOf(env, path);
  if (command.json) {
    Json json = {{"path", JsonText(path)},  {"format", format},
                 {"bytes", bytes},          {"epoch", progress.epoch()},
                 {"iter", progress.iter()}, {"warnings", Json::array()}};
    for (const std::string& warning : warnings) {
      json["warnings"].push_back(JsonText(warning));
    }
    PrintJson(json, out);
    return;
  }
  out << Printable(path) << ": " << format << " of a training, epoch "
      << progress.epoch() << ", iteration " << progress.iter() << ", "
      << FormatBytes(bytes) << "\n";
  for (const std::string& warning : warnings) {
    out << "warning: " << Printable(warning) << "\n";
  }
}

}  // namespace

absl::StatusOr<ExitCode> ExportTraining(const CkptCommand& command,
                                        io::Env& env, std::ostream& out) {
  const std::string& path = command.paths[0];
  const std::string& to = command.paths[1];
  if (absl::EndsWith(to, ".safetensors")) {
    return absl::InvalidArgumentError(
        absl::StrCat(to, ": a training is written as .pth"));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckNewFile(env, to));
  GRAPNEL_RETURN_IF_ERROR(CheckIsCheckpoint(env, path));
  GRAPNEL_ASSIGN_OR_RETURN(const io::CheckpointContents contents,
                           io::ReadCheckpoint(env, path));
  std::vector<std::string> warnings;
  const absl::Status written =
      WriteTrainingPth(env, to, contents, TrainingPthOptions(), &warnings);
  if (!written.ok()) return WithContext(written, path);
  Print(command, env, to, "pth", contents.manifest().progress(), warnings, out);
  return kDone;
}

absl::StatusOr<ExitCode> ImportTraining(const CkptCommand& command,
                                        io::Env& env, std::ostream& out) {
  const std::string& path = command.paths[0];
  const std::string& to = command.paths[1];
  GRAPNEL_RETURN_IF_ERROR(CheckNewCheckpoint(env, to));
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, path));
  if (io::IsCheckpoint(env, path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": is a checkpoint already, which train --resume takes"));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckThere(env, *command.training_config));

  // As train would take it.
  CommandLine train;
  train.verb = CommandLine::Verb::kTrain;
  train.config = *command.training_config;
  GRAPNEL_ASSIGN_OR_RETURN(const std::string current_dir, env.CurrentDir());
  GRAPNEL_ASSIGN_OR_RETURN(const runner::v1::RunnerConfig config,
                           ResolveConfig(train, env, current_dir));
  RunnerOptions options;
  options.base_dir = io::Dirname(train.config);
  options.config_name = ConfigName(train.config);
  options.env = &env;
  GRAPNEL_ASSIGN_OR_RETURN(const RunStart start,
                           CaptureRunStart(config, std::move(options)));

  io::PthOptions foreign;
  foreign.allow_foreign = true;
  GRAPNEL_ASSIGN_OR_RETURN(const io::PthFile file,
                           io::PthFile::Read(env, path, foreign));
  TrainingImportOptions import_options;
  import_options.epoch = command.epoch;
  import_options.iter = command.iter;
  import_options.optimizer = !command.no_optimizer;
  std::vector<std::string> warnings;
  const absl::StatusOr<io::CheckpointContents> contents =
      ImportTraining(file.root(), start, import_options, &warnings);
  if (!contents.ok()) {
    if (import_options.optimizer) {
      import_options.optimizer = false;
      const bool fits_without =
          ImportTraining(file.root(), start, import_options, &warnings).ok();
      if (fits_without) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": ", contents.status().message(),
                         "; --no-optimizer leaves it out"));
      }
    }
    return WithContext(contents.status(), path);
  }
  const std::string clean(io::StripSlashes(to));
  GRAPNEL_RETURN_IF_ERROR(io::WriteCheckpoint(env, io::Dirname(clean),
                                              io::Basename(clean), *contents));
  Print(command, env, to, "checkpoint", contents->manifest().progress(),
        warnings, out);
  return kDone;
}

}  // namespace grapnel
