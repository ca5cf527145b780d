#include "grapnel/tools/ckpt/ckpt.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/ckpt/compare_commands.h"
#include "grapnel/tools/ckpt/convert_commands.h"
#include "grapnel/tools/ckpt/inspect_commands.h"
#include "grapnel/tools/ckpt/keep_commands.h"
#include "grapnel/tools/ckpt/training_commands.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

absl::StatusOr<ExitCode> Dispatch(const CkptCommand& command, io::Env& env,
                                  std::ostream& out) {
  switch (command.verb) {
    case CkptCommand::Verb::kAverage:
      return AverageCheckpoints(command, env, out);
    case CkptCommand::Verb::kDiff:
      return DiffCheckpoints(command, env, out);
    case CkptCommand::Verb::kDu:
      return ShowDiskUse(command, env, out);
    case CkptCommand::Verb::kExport:
      return command.training ? ExportTraining(command, env, out)
                              : ExportWeights(command, env, out);
    case CkptCommand::Verb::kGc:
      return CollectGarbage(command, env, out);
    case CkptCommand::Verb::kImport:
      return command.training_config.has_value()
                 ? ImportTraining(command, env, out)
                 : ImportWeights(command, env, out);
    case CkptCommand::Verb::kLs:
      return ListCheckpoints(command, env, out);
    case CkptCommand::Verb::kPin:
      return PinCheckpoints(command, env, out);
    case CkptCommand::Verb::kRepairLast:
      return RepairLastCheckpoint(command, env, out);
    case CkptCommand::Verb::kShow:
      return ShowCheckpoint(command, env, out);
    case CkptCommand::Verb::kVerify:
      return VerifyCheckpoints(command, env, out);
  }
  return absl::InternalError("ckpt: unknown command");
}

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnimplemented:  // Of a newer version.
      return kBadCheckpoint;
    case absl::StatusCode::kAborted:  // By a training that has the folder.
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return kRunFailed;
    default:
      return kBadInput;
  }
}

}  // namespace

bool MakesFiles(const std::vector<std::string>& args) {
  const absl::StatusOr<CkptCommand> command = ParseCkptCommand(args);
  if (!command.ok() || !command->help.empty()) return false;
  return command->verb == CkptCommand::Verb::kAverage ||
         command->verb == CkptCommand::Verb::kExport ||
         command->verb == CkptCommand::Verb::kImport;
}

ExitCode RunCkpt(const std::vector<std::string>& args, io::Env& env,
                 std::ostream& out, std::ostream& err) {
  const auto fail = [&](const absl::Status& status, ExitCode exit_code) {
    err << "grapnel: " << Printable(status.message()) << std::endl;
    return exit_code;
  };
  const absl::StatusOr<CkptCommand> command = ParseCkptCommand(args);
  if (!command.ok()) return fail(command.status(), kBadInput);
  ExitCode exit_code = kDone;
  if (!command->help.empty()) {
    out << command->help;
  } else {
    const absl::StatusOr<ExitCode> done = Dispatch(*command, env, out);
    if (!done.ok()) return fail(done.status(), ExitCodeOf(done.status()));
    exit_code = *done;
  }
  out.flush();
  if (out.good()) return exit_code;
  return fail(absl::UnavailableError("the output can't be written"),
              kRunFailed);
}

}  // namespace grapnel
