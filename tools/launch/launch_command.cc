#include "grapnel/tools/launch/launch_command.h"

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/tools/flag_values.h"

namespace grapnel {

const char kLaunchHelp[] =
    R"(grapnel launch runs a command as several processes that train one model.

  grapnel launch [FLAG]... -- train CONFIG ...         or test CONFIG ...
  grapnel launch [FLAG]... --program PATH -- ARG ...   another program

  --nproc-per-node N   processes (ranks) on each node; 1 if not given
  --max-restarts N     of all ranks when one fails; train goes on from its
                       newest checkpoint; 0 if not given
  --grace TIME         from a signal to SIGKILL: 90s, 5m; 30s if not given
  --log-dir DIR        output goes to DIR/rank_0.stdout.log, .stderr.log, ...
  --nnodes N           launch on N nodes, each with a --node-rank of its own
  --node-rank N        0..nnodes - 1
  --master-addr HOST   node 0
  --master-port PORT   where node 0's launcher listens; on one node, rank 0

Ranks get torchrun's variables: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, ...
Without --log-dir, rank 0's output comes as it is, other ranks' lines on stderr
as "[rank 1] ...". SIGINT, SIGTERM and SIGHUP are passed on to every rank, a
second one kills. Exit codes: 0 done, 128 + N signal N, 2 bad command line, 1 a
lost node, else that of the rank that failed first, whose last lines are shown.
)";

namespace {

absl::Status SetInteger(absl::string_view value, int min, int max, int* field) {
  if (!absl::SimpleAtoi(value, field) || *field < min || *field > max) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be an integer in ", min, "..", max, ", is \"", value, "\""));
  }
  return absl::OkStatus();
}

absl::Status SetNonEmpty(absl::string_view value, std::string* field) {
  if (value.empty()) return absl::InvalidArgumentError("is empty");
  *field = std::string(value);
  return absl::OkStatus();
}

absl::Status SetGrace(absl::string_view value, LaunchCommand* command) {
  absl::Duration& grace = command->options.grace;
  if (!absl::ParseDuration(value, &grace) || grace < absl::ZeroDuration() ||
      grace > absl::Hours(24)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be a time in 0..24h with its unit, as 90s or 5m, is \"", value,
        "\""));
  }
  return absl::OkStatus();
}

absl::Status SetLogDir(absl::string_view value, LaunchCommand* command) {
  return SetNonEmpty(value, &command->options.log_dir);
}

absl::Status SetMasterAddr(absl::string_view value, LaunchCommand* command) {
  return SetNonEmpty(value, &command->options.master_addr);
}

absl::Status SetMasterPort(absl::string_view value, LaunchCommand* command) {
  return SetInteger(value, 1, 65535, &command->options.master_port);
}

absl::Status SetMaxRestarts(absl::string_view value, LaunchCommand* command) {
  return SetInteger(value, 0, 1000000, &command->options.max_restarts);
}

absl::Status SetNnodes(absl::string_view value, LaunchCommand* command) {
  return SetInteger(value, 1, kMaxNodes, &command->options.nnodes);
}

absl::Status SetNodeRank(absl::string_view value, LaunchCommand* command) {
  return SetInteger(value, 0, kMaxNodes - 1, &command->options.node_rank);
}

absl::Status SetNproc(absl::string_view value, LaunchCommand* command) {
  return SetInteger(value, 1, kMaxRanksPerNode,
                    &command->options.nproc_per_node);
}

absl::Status SetProgram(absl::string_view value, LaunchCommand* command) {
  return SetNonEmpty(value, &command->program.emplace());
}

struct Flag {
  const char* name;
  absl::Status (*set)(absl::string_view value, LaunchCommand* command);
};

constexpr Flag kFlags[] = {{"grace", SetGrace},
                           {"log-dir", SetLogDir},
                           {"master-addr", SetMasterAddr},
                           {"master-port", SetMasterPort},
                           {"max-restarts", SetMaxRestarts},
                           {"nnodes", SetNnodes},
                           {"node-rank", SetNodeRank},
                           {"nproc-per-node", SetNproc},
                           {"program", SetProgram}};

absl::StatusOr<const Flag*> FindFlag(absl::string_view typed) {
  const std::string name = absl::StrReplaceAll(typed, {{"_", "-"}});
  std::vector<std::string> names = {"help"};
  for (const Flag& flag : kFlags) {
    if (name == flag.name) return &flag;
    names.push_back(flag.name);
  }
  const std::string closest = ClosestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag --", typed,
      closest.empty() ? "; what ranks run stands behind --"
                      : absl::StrCat("; did you mean --", closest, "?")));
}

// Of the flags to each other. `values`: of those that were given.
absl::Status CheckTogether(const LaunchCommand& command,
                           const FlagValues& values) {
  const LaunchOptions& options = command.options;
  if (options.node_rank >= options.nnodes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--node-rank: must be less than --nnodes, ",
                     options.nnodes, ", is ", options.node_rank));
  }
  if (options.nnodes > 1) {
    for (const char* name : {"node-rank", "master-addr", "master-port"}) {
      if (!values.Has(name)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--nnodes=", options.nnodes, " needs --", name));
      }
    }
  }
  if (command.args.empty() && !command.program.has_value()) {
    return absl::InvalidArgumentError(
        "nothing to launch: grapnel launch --nproc-per-node N -- train CONFIG; "
        "see grapnel launch --help");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LaunchCommand> ParseLaunchCommand(
    const std::vector<std::string>& args) {
  LaunchCommand command;
  FlagValues values(args);
  size_t next = 0;
  while (next < args.size() && absl::StartsWith(args[next], "-")) {
    const std::string& arg = args[next++];
    if (arg == "--") break;
    if (arg == "-h" || arg == "--help") {
      command.help = true;
      return command;
    }
    absl::string_view name = arg;
    if (!absl::ConsumePrefix(&name, "--")) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown flag ", arg, "; flags start with --"));
    }
    const TypedFlag typed = SplitFlag(name);
    GRAPNEL_ASSIGN_OR_RETURN(const Flag* const flag, FindFlag(typed.name));
    GRAPNEL_ASSIGN_OR_RETURN(
        const absl::string_view value,
        values.Take(flag->name, /*takes_value=*/true, typed, &next));
    GRAPNEL_RETURN_IF_ERROR(WithContext(flag->set(value, &command),
                                        absl::StrCat("--", flag->name)));
  }
  command.args.assign(args.begin() + next, args.end());
  GRAPNEL_RETURN_IF_ERROR(CheckTogether(command, values));
  return command;
}

}  // namespace grapnel
