#include "grapnel/tools/command_line.h"

#include <cmath>
#include <cstring>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/json_string.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/number_format.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/config_paths.h"
#include "grapnel/runner/run_folders.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/flag_values.h"

namespace grapnel {

const char kHelp[] =
    R"(grapnel trains LibTorch models from a configuration. Also: --help, --version.

  grapnel train CONFIG     train, and validate as configured
  grapnel test CONFIG      evaluate a checkpoint: one line of JSON on stdout
  grapnel export CONFIG    write a checkpoint's model (TorchScript) to --output
  grapnel check CONFIG     try one batch, write nothing, and print a table
  grapnel config CONFIG    print the configuration as it would be used
  grapnel launch -- train CONFIG    in several processes; see launch --help
  grapnel ckpt ls          what was saved; verify, diff, ...: see ckpt --help
  grapnel verify-resume CONFIG      kill and resume; see verify-resume --help

  --work-dir DIR           where checkpoints and logs go
  --resume[=PATH]          go on from PATH, or from the newest in the work dir
  --load-from PATH         weights, of a checkpoint, .safetensors or .pth
  --no-strict              take of weights what the model has, and fits
  --cfg-options A.B=V ...  set fields of the configuration
  --device NAME            cpu, cuda, cuda:1, or auto: cuda if there is one
  --seed N, --threads N    of all that is random; of LibTorch's operators
  --wait-for-lock TIME     of a run in the work dir to end: 90s, 10m, 1h30m
CONFIG is a grapnel.runner.v1.RunnerConfig in a .textproto, .json or .pb file.
SIGINT, SIGTERM, SIGHUP save and stop; a second one at once, but for ranks.
Exit codes: 0 done, 1 the run failed, 2 bad command line, configuration, data
files or work dir, 3 unreadable sample, 4 bad checkpoint, 128 + N signal N.
)";

namespace {

using runner::v1::RunnerConfig;
using Verb = CommandLine::Verb;

constexpr int kMaxThreads = 4096;

struct VerbName {
  const char* name;
  Verb verb;
};

constexpr VerbName kVerbs[] = {
    {"train", Verb::kTrain},   {"test", Verb::kTest},
    {"export", Verb::kExport}, {"check", Verb::kCheck},
    {"config", Verb::kConfig}, {"launch", Verb::kLaunch},
    {"ckpt", Verb::kCkpt}};

absl::Status SetPath(absl::string_view value,
                     std::optional<std::string>* path) {
  if (value.empty()) return absl::InvalidArgumentError("is empty");
  *path = std::string(value);
  return absl::OkStatus();
}

absl::Status SetWorkDir(absl::string_view value, CommandLine* command) {
  return SetPath(value, &command->work_dir);
}

absl::Status SetLoadFrom(absl::string_view value, CommandLine* command) {
  if (command->load_from.has_value()) {
    return absl::InvalidArgumentError(
        "--load-from and --resume=PATH name two checkpoints");
  }
  return SetPath(value, &command->load_from);
}

absl::Status SetResume(absl::string_view value, CommandLine* command) {
  command->resume = value != "false";
  if (value == "true" || value == "false" || value == "auto") {
    return absl::OkStatus();
  }
  return SetLoadFrom(value, command);
}

absl::Status SetDevice(absl::string_view value, CommandLine* command) {
  command->device = std::string(value);
  return absl::OkStatus();
}

absl::Status SetNoStrict(absl::string_view, CommandLine* command) {
  command->strict = false;
  return absl::OkStatus();
}

absl::Status SetOutput(absl::string_view value, CommandLine* command) {
  return SetPath(value, &command->output);
}

absl::Status AddCfgOption(absl::string_view value, CommandLine* command) {
  command->cfg_options.emplace_back(value);
  return absl::OkStatus();
}

absl::Status SetSeed(absl::string_view value, CommandLine* command) {
  int64_t seed;
  if (!absl::SimpleAtoi(value, &seed) || seed < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be an integer >= 0, is \"", value, "\""));
  }
  command->seed = seed;
  return absl::OkStatus();
}

absl::Status SetThreads(absl::string_view value, CommandLine* command) {
  int threads;
  if (!absl::SimpleAtoi(value, &threads) || threads < 1 ||
      threads > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be an integer in 1..", kMaxThreads, ", is \"", value, "\""));
  }
  command->threads = threads;
  return absl::OkStatus();
}

absl::Status SetWaitForLock(absl::string_view value, CommandLine* command) {
  absl::Duration wait;
  if (!absl::ParseDuration(value, &wait) || wait < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be a time >= 0 with its unit, as 90s or 10m, is \"",
                     value, "\""));
  }
  command->wait_for_lock = wait;
  return absl::OkStatus();
}

absl::Status SetHelp(absl::string_view, CommandLine* command) {
  command->verb = Verb::kHelp;
  return absl::OkStatus();
}

absl::Status SetVersion(absl::string_view, CommandLine* command) {
  command->verb = Verb::kVersion;
  return absl::OkStatus();
}

enum class Value {
  kNone,      // --no-strict
  kLast,      // --help: nothing else is read
  kOptional,  // --resume, --resume=PATH
  kOne,       // --seed 1, --seed=1
  kMany,      // --cfg-options a=1 b=2
};

struct Flag {
  const char* name;
  Value value;
  absl::Status (*set)(absl::string_view value, CommandLine* command);
  const char* value_if_none = "";
};

constexpr Flag kFlags[] = {
    {"cfg-options", Value::kMany, AddCfgOption},
    {"device", Value::kOne, SetDevice},
    {"help", Value::kLast, SetHelp},
    {"load-from", Value::kOne, SetLoadFrom},
    {"no-strict", Value::kNone, SetNoStrict},
    {"output", Value::kOne, SetOutput},
    {"resume", Value::kOptional, SetResume, "auto"},
    {"seed", Value::kOne, SetSeed},
    {"threads", Value::kOne, SetThreads},
    {"version", Value::kLast, SetVersion},
    {"wait-for-lock", Value::kOne, SetWaitForLock},
    {"work-dir", Value::kOne, SetWorkDir},
};

absl::StatusOr<const Flag*> FindFlag(absl::string_view typed) {
  const std::string name = absl::StrReplaceAll(typed, {{"_", "-"}});
  for (const Flag& flag : kFlags) {
    if (name == flag.name) return &flag;
  }
  const std::string closest = ClosestName(name, FlagNames());
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag --", typed,
      closest.empty() ? "" : absl::StrCat("; did you mean --", closest, "?")));
}

absl::StatusOr<Verb> FindVerb(const std::string& typed) {
  std::vector<std::string> names;
  for (const VerbName& verb : kVerbs) {
    if (typed == verb.name) return verb.verb;
    names.push_back(verb.name);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown command \"", typed, "\"", DidYouMean(typed, names)));
}

bool IsFlag(absl::string_view arg) {
  return absl::StartsWith(arg, "--") || arg == "-h";
}

// Reads the arguments one after another.
class Reader {
 public:
  explicit Reader(const std::vector<std::string>& args) : args_(args) {}

  absl::StatusOr<CommandLine> Read() {
    if (!args_.empty() && args_[0] == "launch") {
      command_.verb = Verb::kLaunch;
      command_.launch.assign(args_.begin() + 1, args_.end());
      return command_;
    }
    if (!args_.empty() && args_[0] == "ckpt") {
      command_.verb = Verb::kCkpt;
      command_.ckpt.assign(args_.begin() + 1, args_.end());
      return command_;
    }
    while (next_ < args_.size()) {
      const std::string& arg = args_[next_++];
      if (arg == "--") {
        if (!positional_.empty()) {
          GRAPNEL_RETURN_IF_ERROR(FindVerb(positional_[0]).status());
        }
        return absl::InvalidArgumentError(
            "-- is for launch, which comes first: grapnel launch -- train "
            "CONFIG");
      }
      if (IsFlag(arg)) {
        GRAPNEL_RETURN_IF_ERROR(ReadFlag(arg));
        // Even if the rest is wrong: a user who asks for help needs it.
        if (command_.verb == Verb::kVersion || help_) return command_;
      } else if (arg.size() > 1 && arg[0] == '-') {
        return absl::InvalidArgumentError(
            absl::StrCat("unknown flag ", arg, "; flags start with --"));
      } else {
        positional_.push_back(arg);
      }
    }
    return Finish();
  }

  // What Read has read, without the flags that `set` reads.
  std::vector<std::string> Without(absl::Status (*set)(absl::string_view,
                                                       CommandLine*),
                                   absl::Status (*or_set)(absl::string_view,
                                                          CommandLine*)) const {
    std::vector<std::string> rest;
    size_t next = 0;
    for (const Seen& seen : seen_) {
      rest.insert(rest.end(), args_.begin() + next, args_.begin() + seen.begin);
      next = seen.begin;
      if (seen.flag->set == set || seen.flag->set == or_set) next = seen.end;
    }
    rest.insert(rest.end(), args_.begin() + next, args_.end());
    return rest;
  }

 private:
  // A flag, and the arguments that it takes up.
  struct Seen {
    const Flag* flag;
    size_t begin;
    size_t end;
  };

  absl::Status ReadFlag(absl::string_view arg) {
    const size_t begin = next_ - 1;
    if (arg == "-h") arg = "--help";
    auto [name, value] = SplitFlag(absl::StripPrefix(arg, "--"));
    GRAPNEL_ASSIGN_OR_RETURN(const Flag* const flag, FindFlag(name));
    const std::string shown = absl::StrCat("--", flag->name);
    if (flag->value == Value::kMany) return ReadMany(*flag, value);
    for (const Seen& seen : seen_) {
      if (seen.flag == flag) {
        return absl::InvalidArgumentError(absl::StrCat(shown, ": given twice"));
      }
    }
    const bool bare =
        flag->value == Value::kNone || flag->value == Value::kLast;
    if (bare && value.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(shown, " takes no value"));
    }
    if (bare) {
      help_ = flag->value == Value::kLast;
    } else if (flag->value == Value::kOptional && !value.has_value()) {
      // MMEngine's "--resume auto"; anything else behind it stands for itself.
      if (next_ < args_.size() && args_[next_] == flag->value_if_none) ++next_;
      value = flag->value_if_none;
    } else if (!value.has_value()) {
      if (next_ == args_.size() || IsFlag(args_[next_])) {
        return absl::InvalidArgumentError(
            absl::StrCat(shown, " needs a value"));
      }
      value = args_[next_++];
    }
    seen_.push_back({flag, begin, next_});
    return WithContext(flag->set(value.value_or(""), &command_), shown);
  }

  // Takes what has the form of a value: CONFIG may follow.
  absl::Status ReadMany(const Flag& flag,
                        std::optional<absl::string_view> value) {
    int count = 0;
    if (value.has_value()) {
      GRAPNEL_RETURN_IF_ERROR(flag.set(*value, &command_));
      ++count;
    }
    while (next_ < args_.size() && !IsFlag(args_[next_]) &&
           absl::StrContains(args_[next_], "=")) {
      GRAPNEL_RETURN_IF_ERROR(flag.set(args_[next_++], &command_));
      ++count;
    }
    if (count > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "--", flag.name, " needs at least one path.to.field=value"));
  }

  absl::StatusOr<CommandLine> Finish() {
    if (positional_.empty()) {
      return absl::InvalidArgumentError(
          "no command: train, test, export, check, config, launch, ckpt or "
          "verify-resume; see grapnel --help");
    }
    GRAPNEL_ASSIGN_OR_RETURN(command_.verb, FindVerb(positional_[0]));
    if (command_.verb == Verb::kLaunch) {
      return absl::InvalidArgumentError(
          "launch comes first: grapnel launch [FLAG]... -- train CONFIG ...");
    }
    if (command_.verb == Verb::kCkpt) {
      return absl::InvalidArgumentError(
          "ckpt comes first: grapnel ckpt ls [FLAG]...");
    }
    if (positional_.size() < 2) {
      return absl::InvalidArgumentError(absl::StrCat(
          "no configuration: grapnel ", positional_[0], " CONFIG"));
    }
    if (positional_.size() > 2) {
      return absl::InvalidArgumentError(absl::StrCat(
          "unexpected argument \"", positional_[2], "\"",
          command_.resume.has_value() && !command_.load_from.has_value()
              ? "; a checkpoint to go on from is --resume=PATH"
              : ""));
    }
    command_.config = positional_[1];
    if ((command_.verb == Verb::kExport) != command_.output.has_value()) {
      return absl::InvalidArgumentError(command_.output.has_value()
                                            ? "--output is for export alone"
                                            : "export needs --output FILE");
    }
    if (command_.wait_for_lock.has_value() && command_.verb != Verb::kTrain) {
      return absl::InvalidArgumentError("--wait-for-lock is for train alone");
    }
    return command_;
  }

  const std::vector<std::string>& args_;
  size_t next_ = 0;
  std::vector<std::string> positional_;
  std::vector<Seen> seen_;
  bool help_ = false;
  CommandLine command_;
};

// Which checkpoint is evaluated or exported.
absl::Status ChooseCheckpoint(const CommandLine& command, io::Env& env,
                              RunnerConfig* config) {
  if (command.load_from.has_value()) return absl::OkStatus();
  const RunFolders folders = FoldersOf(*config, io::Dirname(command.config),
                                       ConfigName(command.config));
  const absl::Status status =
      io::FindLatestCheckpoint(env, folders.work_dir, nullptr, {},
                               folders.checkpoint_dir)
          .status();
  if (status.ok()) {
    config->clear_load_from();
    config->set_resume(true);
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(status)) return WithContext(status, "work_dir");
  if (!config->load_from().empty() && !command.resume.value_or(false)) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("there is no checkpoint in ", folders.checkpoint_dir,
                   ": train first, or name one with --load-from"));
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(CheckUtf8(args[i]), absl::StrCat("argument ", i + 1)));
  }
  return Reader(args).Read();
}

std::vector<std::string> FlagNames() {
  std::vector<std::string> names;
  for (const Flag& flag : kFlags) names.push_back(flag.name);
  return names;
}

absl::StatusOr<std::vector<std::string>> ArgsToGoOn(
    const std::vector<std::string>& args) {
  Reader reader(args);
  GRAPNEL_ASSIGN_OR_RETURN(const CommandLine command, reader.Read());
  std::vector<std::string> rest = reader.Without(SetResume, SetLoadFrom);
  rest.push_back("--resume");
  // The file may have one, and a run would go on from that.
  rest.push_back("--cfg-options");
  rest.push_back("load_from=");
  return rest;
}

absl::StatusOr<RunnerConfig> ResolveConfig(const CommandLine& command,
                                           io::Env& env,
                                           absl::string_view current_dir) {
  GRAPNEL_ASSIGN_OR_RETURN(RunnerConfig config,
                           LoadRunnerConfig(env, command.config));
  GRAPNEL_RETURN_IF_ERROR(RebasePaths(
      io::JoinPath(current_dir, io::Dirname(command.config)), &config));
  const bool evaluates =
      command.verb == Verb::kTest || command.verb == Verb::kExport;
  // The file's are for what the file loads from, and not for what a run of it
  // has come to.
  runner::v1::LoadOptions of_load_from;
  const std::string load_from = config.load_from();
  if (evaluates) {
    of_load_from = config.load_options();
    config.clear_load_options();
  }
  for (const std::string& assignment : command.cfg_options) {
    GRAPNEL_RETURN_IF_ERROR(WithContext(
        ApplyOverride(assignment, current_dir, &config), "--cfg-options"));
  }
  if (command.device.has_value()) config.set_device(*command.device);
  if (command.seed.has_value()) {
    config.mutable_randomness()->set_seed(*command.seed);
  }
  if (command.load_from.has_value()) {
    config.set_load_from(io::JoinPath(current_dir, *command.load_from));
  }
  if (command.resume.has_value()) config.set_resume(*command.resume);
  if (command.strict.has_value()) {
    config.mutable_load_options()->set_strict(*command.strict);
  }
  if (command.work_dir.has_value()) {
    config.set_work_dir(io::JoinPath(current_dir, *command.work_dir));
  } else if (config.work_dir().empty()) {
    config.set_work_dir(io::JoinPath(io::JoinPath(current_dir, "work_dirs"),
                                     ConfigName(command.config)));
  }
  // Where the user is may be called anything.
  GRAPNEL_RETURN_IF_ERROR(CheckStrings(config));
  if (evaluates) {
    GRAPNEL_RETURN_IF_ERROR(ChooseCheckpoint(command, env, &config));
    if (!config.load_from().empty() && config.load_from() == load_from) {
      of_load_from.MergeFrom(config.load_options());
      if (of_load_from.ByteSizeLong() > 0) {
        *config.mutable_load_options() = std::move(of_load_from);
      }
    }
  }
  return config;
}

ExitCode ExitCodeAtStart(const absl::Status& status) {
  if (status.ok()) return kDone;
  // And of the system and other ranks: another start may go well.
  if (absl::IsInternal(status) || absl::IsUnavailable(status) ||
      absl::IsDeadlineExceeded(status)) {
    return kRunFailed;
  }
  const bool of_checkpoint =
      absl::StartsWith(status.message(), "load_from: ") ||
      absl::StartsWith(status.message(), "resume: ");
  if (of_checkpoint && !absl::IsNotFound(status)) return kBadCheckpoint;
  return kBadInput;
}

ExitCode ExitCodeOfRun(const absl::Status& status) {
  if (status.ok()) return kDone;
  switch (OriginOf(status)) {
    case ErrorOrigin::kRequest:
      return kBadInput;
    case ErrorOrigin::kData:
      return kBadData;
    case ErrorOrigin::kCheckpoint:
      return kBadCheckpoint;
    case ErrorOrigin::kOther:
      break;
  }
  return kRunFailed;
}

std::string MetricsToJson(const Metrics& metrics) {
  std::string json = "{";
  for (const auto& [name, value] : metrics) {
    absl::StrAppend(&json, json.size() > 1 ? ", " : "", JsonString(name), ": ");
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      absl::StrAppend(&json, *integer);
    } else if (const auto* number = std::get_if<double>(&value)) {
      json += std::isfinite(*number) ? PythonRepr(*number) : "null";
    } else {
      json += JsonString(std::get<std::string>(value));
    }
  }
  return json + "}";
}

}  // namespace grapnel
