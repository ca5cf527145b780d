#include "grapnel/tools/ckpt/ckpt_command.h"

#include <cmath>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/tools/flag_values.h"

namespace grapnel {

const char kCkptHelp[] =
    R"(grapnel ckpt looks after checkpoints.

  grapnel ckpt ls [DIR]            those in a work dir, oldest first
  grapnel ckpt show CKPT           progress, metrics, settings, tensors
  grapnel ckpt verify PATH...      read every byte; name all that is damaged
  grapnel ckpt diff A B            which tensors differ, and by how much
  grapnel ckpt du [DIR]            bytes, by checkpoint and part
  grapnel ckpt gc DIR              delete leftovers, and what no rule keeps
  grapnel ckpt pin CKPT...         keep for good; --remove: no longer
  grapnel ckpt repair-last DIR     last_checkpoint: the newest good one
  grapnel ckpt export CKPT OUT     weights, as .pth or .safetensors
  grapnel ckpt import FILE OUT     weights, as a checkpoint
  grapnel ckpt average -o OUT CKPT...    the mean of their weights

  --json                           one JSON object on stdout
  --help                           also of each: grapnel ckpt gc --help

DIR is a work dir, or a folder of checkpoints. Where weights are read, a file
that holds some will do. gc, repair-last and nothing else need that no training
runs in DIR. Exit codes: 0 done, 1 failed, or diff found a difference, 2 bad
command line or path, 4 bad checkpoint.
)";

namespace {

using Verb = CkptCommand::Verb;

constexpr char kLsHelp[] =
    R"(grapnel ckpt ls lists the checkpoints of a work dir, by iteration.

  grapnel ckpt ls [DIR] [--json]       DIR is . if not given

Those that last_checkpoint leads to elsewhere (out_dir) are listed too. A bad
one is named with what is wrong: its manifest, or a file that is missing or has
another length. `grapnel ckpt verify` reads every byte. In the last column:
  last          last_checkpoint names it
  best METRIC   the run has kept it for that
  pinned        grapnel ckpt pin
  copy          a file that also_write has made of the one above it
  partial       a copy to pass on; a run can't go on from it
  set aside     a training found it damaged, and renamed it
)";

constexpr char kShowHelp[] =
    R"(grapnel ckpt show prints what a checkpoint, or a file of weights, holds.

  grapnel ckpt show CKPT [--all] [--config] [--json]

  --all      every tensor; 20 if not given (--json: every one always)
  --config   the configuration of its run instead, as train would take it
  --json     one JSON object

Reads the manifest alone; `grapnel ckpt verify` reads the rest.
)";

constexpr char kVerifyHelp[] =
    R"(grapnel ckpt verify reads every byte and names all that is damaged.

  grapnel ckpt verify PATH... [--json]

PATH is a checkpoint, a work dir (each one in it) or a file of weights. Of a
checkpoint every file and tensor is checked against its digest; files of other
programs have none, so only their form is. Changes nothing. Exit code 4 if
anything is damaged, else 1 if one can't be read.
)";

constexpr char kDiffHelp[] =
    R"(grapnel ckpt diff says where two checkpoints differ.

  grapnel ckpt diff A B [--section NAME] [--all] [--json]

  --section NAME   of that section alone: model, optimizer, ema, ...
  --all            every difference; 20 if not given (--json: always)

Compared are tensors to the bit (NaN equals NaN of the same bits), other parts
byte by byte, and the progress; not names, times and settings. max |d| is the
largest absolute difference of two elements. If A or B is a file of weights,
the section model alone. Exit code 0 if they are equal, 1 if not.
)";

constexpr char kDuHelp[] =
    R"(grapnel ckpt du says where the bytes are.

  grapnel ckpt du [DIR] [--json]       DIR is . if not given

A row for each checkpoint, a column for each of its parts: sections, state, and
other (the manifest, and what it doesn't list). Leftovers of killed writers are
a row of their own: `grapnel ckpt gc DIR` deletes them.
)";

constexpr char kGcHelp[] =
    R"(grapnel ckpt gc deletes leftovers of killed writers and, if there are rules,
checkpoints that none of them keeps. Try it with --dry-run first.

  grapnel ckpt gc DIR [--dry-run] [RULE]... [--run ID] [--json]

  --keep-last N      the newest N
  --keep-best N      the N best by --metric NAME; --rule greater or less
  --keep-every N     at every Nth epoch (in runs by iteration: iteration)
  --keep-per TIME    one for each 30m, 1h, ... by the time it was saved
  --run ID           of that run alone, as ls names it; else of every run, each
                     by itself
  --dry-run          say what would be deleted, and why the others stay

Pinned ones stay, and a run's newest one; published copies and what can't be
read are not touched. What stays is read to the last byte first: a damaged one
is no reason for another to go. Refused while a training runs in DIR, and
where folders can't be locked; --dry-run is not.
)";

constexpr char kPinHelp[] =
    R"(grapnel ckpt pin marks checkpoints that no rule may delete.

  grapnel ckpt pin CKPT... [--remove] [--json]

  --remove   takes the mark away

The mark is a file "pinned" in the checkpoint's directory. Neither a training's
max_keep_ckpts nor `grapnel ckpt gc` deletes such a checkpoint.
)";

constexpr char kRepairLastHelp[] =
    R"(grapnel ckpt repair-last sets last_checkpoint to the newest good checkpoint.

  grapnel ckpt repair-last DIR [FOLDER] [--json]

DIR is a work dir; FOLDER is where its checkpoints are, if neither there nor
where last_checkpoint points (out_dir). Good is one whose every byte is as it
was written. Bad ones are named, and stay as they are. Says what the file was
and is. Refused while a training runs in DIR, and where DIR can't be locked: it
then names the one to write there. Exit code 4 if there is no good one.
)";

constexpr char kExportHelp[] =
    R"(grapnel ckpt export writes weights for Python.

  grapnel ckpt export CKPT OUT [FLAG]...

  --pth, --safetensors   the format; if not given, OUT's ending says it (.pt,
                         .bin and .ckpt are .pth)
  --average NAME         of the average in that section, ema for example, in
                         place of the trained weights
  --training             optimizer, schedules, averages and counters too, as a
                         .pth that a run of MMEngine resumes from
  --json                 one JSON object

CKPT is a checkpoint or any file of weights. OUT must not exist. In Python,
torch.load(OUT, weights_only=True) or safetensors.torch.load_file(OUT) gives
the state_dict. `grapnel export CONFIG` writes a TorchScript program instead.
)";

constexpr char kImportHelp[] =
    R"(grapnel ckpt import makes a checkpoint of a file from elsewhere.

  grapnel ckpt import FILE OUT [--json]

FILE is of torch.save (.pth, .pt, .ckpt), of safetensors, or a model hub's
folder; OUT is a directory that doesn't exist. Nothing in FILE is run. The
checkpoint holds the weights alone, for --load-from.

  --training CONFIG     of MMEngine, Lightning or one's own loop: with its
                        optimizer, schedules, averages and counters, for
                        grapnel train CONFIG --resume=OUT
  --epoch N, --iter N   what was done, in place of what FILE says
  --no-optimizer        which then starts from scratch
)";

constexpr char kAverageHelp[] =
    R"(grapnel ckpt average writes the mean of several checkpoints' weights.

  grapnel ckpt average -o OUT [--weights W,W,...] CKPT... [--json]

  -o, --output OUT   a directory that doesn't exist, or a .safetensors or .pth
                     file
  --weights W,...    one > 0 for each CKPT; what counts is their ratio. All the
                     same if not given

Floating and complex tensors are averaged in double precision and rounded once.
Others (integers and flags, as num_batches_tracked) are those of the last CKPT.
Names, shapes and dtypes must agree. Of a model with batch norms the running
statistics are means too; those of a pass of the data would be better. One
checkpoint is in memory at a time, with a sum of 8 bytes for each element.
)";

constexpr size_t kAny = 1000000;

struct VerbSpec {
  const char* name;
  Verb verb;
  const char* help;
  const char* paths;  // What they are, for messages.
  size_t min_paths;
  size_t max_paths;
};

constexpr VerbSpec kVerbs[] = {
    {"average", Verb::kAverage, kAverageHelp, "-o OUT CKPT...", 1, kAny},
    {"diff", Verb::kDiff, kDiffHelp, "A B", 2, 2},
    {"du", Verb::kDu, kDuHelp, "[DIR]", 0, 1},
    {"export", Verb::kExport, kExportHelp, "CKPT OUT", 2, 2},
    {"gc", Verb::kGc, kGcHelp, "DIR", 1, 1},
    {"import", Verb::kImport, kImportHelp, "FILE OUT", 2, 2},
    {"ls", Verb::kLs, kLsHelp, "[DIR]", 0, 1},
    {"pin", Verb::kPin, kPinHelp, "CKPT...", 1, kAny},
    {"repair-last", Verb::kRepairLast, kRepairLastHelp, "DIR [FOLDER]", 1, 2},
    {"show", Verb::kShow, kShowHelp, "CKPT", 1, 1},
    {"verify", Verb::kVerify, kVerifyHelp, "PATH...", 1, kAny},
};

constexpr unsigned Of(Verb verb) { return 1u << static_cast<unsigned>(verb); }

template <typename... Verbs>
constexpr unsigned Of(Verb verb, Verbs... others) {
  return Of(verb) | Of(others...);
}

absl::Status SetAll(absl::string_view, CkptCommand* command) {
  command->all = true;
  return absl::OkStatus();
}

absl::Status SetConfig(absl::string_view, CkptCommand* command) {
  command->config = true;
  return absl::OkStatus();
}

absl::Status SetDryRun(absl::string_view, CkptCommand* command) {
  command->dry_run = true;
  return absl::OkStatus();
}

absl::Status SetJson(absl::string_view, CkptCommand* command) {
  command->json = true;
  return absl::OkStatus();
}

absl::Status SetRemove(absl::string_view, CkptCommand* command) {
  command->remove = true;
  return absl::OkStatus();
}

absl::Status SetFormat(CkptCommand::Format format, CkptCommand* command) {
  if (command->format.has_value()) {
    return absl::InvalidArgumentError("one of --pth and --safetensors");
  }
  command->format = format;
  return absl::OkStatus();
}

absl::Status SetPth(absl::string_view, CkptCommand* command) {
  return SetFormat(CkptCommand::Format::kPth, command);
}

absl::Status SetSafetensors(absl::string_view, CkptCommand* command) {
  return SetFormat(CkptCommand::Format::kSafetensors, command);
}

absl::Status SetText(absl::string_view value,
                     std::optional<std::string>* field) {
  if (value.empty()) return absl::InvalidArgumentError("is empty");
  *field = std::string(value);
  return absl::OkStatus();
}

absl::Status SetAverage(absl::string_view value, CkptCommand* command) {
  return SetText(value, &command->average);
}

absl::Status SetMetric(absl::string_view value, CkptCommand* command) {
  return SetText(value, &command->metric);
}

absl::Status SetOutput(absl::string_view value, CkptCommand* command) {
  return SetText(value, &command->output);
}

absl::Status SetRun(absl::string_view value, CkptCommand* command) {
  return SetText(value, &command->run);
}

absl::Status SetSection(absl::string_view value, CkptCommand* command) {
  return SetText(value, &command->section);
}

absl::Status SetRule(absl::string_view value, CkptCommand* command) {
  if (value != "greater" && value != "less") {
    return absl::InvalidArgumentError(
        absl::StrCat("must be greater or less, is \"", value, "\""));
  }
  return SetText(value, &command->rule);
}

absl::Status SetCount(absl::string_view value, std::optional<int64_t>* field) {
  int64_t count;
  if (!absl::SimpleAtoi(value, &count) || count < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be an integer >= 1, is \"", value, "\""));
  }
  *field = count;
  return absl::OkStatus();
}

absl::Status SetDone(absl::string_view value, std::optional<int64_t>* field) {
  int64_t done;
  if (!absl::SimpleAtoi(value, &done) || done < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be an integer >= 0, is \"", value, "\""));
  }
  *field = done;
  return absl::OkStatus();
}

absl::Status SetEpoch(absl::string_view value, CkptCommand* command) {
  return SetDone(value, &command->epoch);
}

absl::Status SetIter(absl::string_view value, CkptCommand* command) {
  return SetDone(value, &command->iter);
}

absl::Status SetNoOptimizer(absl::string_view, CkptCommand* command) {
  command->no_optimizer = true;
  return absl::OkStatus();
}

absl::Status SetTraining(absl::string_view, CkptCommand* command) {
  command->training = true;
  return absl::OkStatus();
}

absl::Status SetTrainingConfig(absl::string_view value, CkptCommand* command) {
  return SetText(value, &command->training_config);
}

absl::Status SetKeepBest(absl::string_view value, CkptCommand* command) {
  return SetCount(value, &command->keep_best);
}

absl::Status SetKeepEvery(absl::string_view value, CkptCommand* command) {
  return SetCount(value, &command->keep_every);
}

absl::Status SetKeepLast(absl::string_view value, CkptCommand* command) {
  return SetCount(value, &command->keep_last);
}

absl::Status SetKeepPer(absl::string_view value, CkptCommand* command) {
  absl::Duration duration;
  if (!absl::ParseDuration(value, &duration) ||
      duration <= absl::ZeroDuration() ||
      duration == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be a time > 0 with its unit, as 30m or 1h, is \"", value, "\""));
  }
  command->keep_per = duration;
  return absl::OkStatus();
}

absl::Status SetWeights(absl::string_view value, CkptCommand* command) {
  for (const absl::string_view item : absl::StrSplit(value, ',')) {
    double weight;
    if (!absl::SimpleAtod(item, &weight) || !std::isfinite(weight) ||
        weight <= 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "must be numbers > 0 with commas between them, one is \"", item,
          "\""));
    }
    command->weights.push_back(weight);
  }
  return absl::OkStatus();
}

struct Flag {
  const char* name;
  unsigned verbs;
  bool has_value;
  absl::Status (*set)(absl::string_view value, CkptCommand* command);
};

constexpr Flag kFlags[] = {
    {"all", Of(Verb::kShow, Verb::kDiff), false, SetAll},
    {"average", Of(Verb::kExport), true, SetAverage},
    {"config", Of(Verb::kShow), false, SetConfig},
    {"dry-run", Of(Verb::kGc), false, SetDryRun},
    {"epoch", Of(Verb::kImport), true, SetEpoch},
    {"iter", Of(Verb::kImport), true, SetIter},
    {"json", ~0u, false, SetJson},
    {"keep-best", Of(Verb::kGc), true, SetKeepBest},
    {"keep-every", Of(Verb::kGc), true, SetKeepEvery},
    {"keep-last", Of(Verb::kGc), true, SetKeepLast},
    {"keep-per", Of(Verb::kGc), true, SetKeepPer},
    {"metric", Of(Verb::kGc), true, SetMetric},
    {"no-optimizer", Of(Verb::kImport), false, SetNoOptimizer},
    {"output", Of(Verb::kAverage), true, SetOutput},
    {"pth", Of(Verb::kExport), false, SetPth},
    {"remove", Of(Verb::kPin), false, SetRemove},
    {"rule", Of(Verb::kGc), true, SetRule},
    {"run", Of(Verb::kGc), true, SetRun},
    {"safetensors", Of(Verb::kExport), false, SetSafetensors},
    {"section", Of(Verb::kDiff), true, SetSection},
    {"training", Of(Verb::kExport), false, SetTraining},
    {"training", Of(Verb::kImport), true, SetTrainingConfig},
    {"weights", Of(Verb::kAverage), true, SetWeights},
};

absl::StatusOr<const VerbSpec*> FindVerb(absl::string_view typed) {
  const std::string name = absl::StrReplaceAll(typed, {{"_", "-"}});
  std::vector<std::string> names;
  for (const VerbSpec& verb : kVerbs) {
    if (name == verb.name) return &verb;
    names.push_back(verb.name);
  }
  const std::string suggestion = DidYouMean(typed, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown command \"ckpt ", typed, "\"",
      suggestion.empty() ? "; see grapnel ckpt --help" : suggestion));
}

absl::StatusOr<const Flag*> FindFlag(absl::string_view typed,
                                     const VerbSpec& verb) {
  const std::string name = absl::StrReplaceAll(typed, {{"_", "-"}});
  std::vector<std::string> names = {"help"};
  bool of_another = false;
  for (const Flag& flag : kFlags) {
    const bool takes = (flag.verbs & Of(verb.verb)) != 0;
    if (takes && name == flag.name) return &flag;
    if (takes) names.push_back(flag.name);
    of_another = of_another || name == flag.name;
  }
  if (of_another) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", name, " is not for ckpt ", verb.name,
                     "; see grapnel ckpt ", verb.name, " --help"));
  }
  const std::string closest = ClosestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag --", typed,
      closest.empty()
          ? absl::StrCat("; see grapnel ckpt ", verb.name, " --help")
          : absl::StrCat("; did you mean --", closest, "?")));
}

absl::Status CheckTogether(const CkptCommand& command, const VerbSpec& verb) {
  const size_t n = command.paths.size();
  if (n < verb.min_paths || n > verb.max_paths) {
    return absl::InvalidArgumentError(absl::StrCat(
        n > verb.max_paths ? absl::StrCat("unexpected argument \"",
                                          command.paths[verb.max_paths], "\": ")
                           : "too few arguments: ",
        "grapnel ckpt ", verb.name, " ", verb.paths));
  }
  for (const std::string& path : command.paths) {
    if (path.empty()) return absl::InvalidArgumentError("a path is empty");
  }
  switch (command.verb) {
    case Verb::kAverage:
      if (!command.output.has_value()) {
        return absl::InvalidArgumentError(
            "average needs -o OUT: a directory, or a .safetensors or .pth "
            "file");
      }
      if (!command.weights.empty() && command.weights.size() != n) {
        return absl::InvalidArgumentError(
            absl::StrCat("--weights: has ", command.weights.size(),
                         ", there are ", n, " checkpoints"));
      }
      break;
    case Verb::kExport:
      if (command.training && command.average.has_value()) {
        return absl::InvalidArgumentError(
            "--average: --training takes every average along");
      }
      if (command.training &&
          command.format == CkptCommand::Format::kSafetensors) {
        return absl::InvalidArgumentError(
            "--safetensors: --training is written as .pth");
      }
      break;
    case Verb::kImport:
      if (!command.training_config.has_value() &&
          (command.epoch.has_value() || command.iter.has_value() ||
           command.no_optimizer)) {
        return absl::InvalidArgumentError(
            "--epoch, --iter and --no-optimizer are for --training CONFIG");
      }
      break;
    case Verb::kGc:
      if (command.keep_best.has_value() != command.metric.has_value()) {
        return absl::InvalidArgumentError(
            command.metric.has_value() ? "--metric is for --keep-best N"
                                       : "--keep-best needs --metric NAME");
      }
      if (command.rule.has_value() && !command.metric.has_value()) {
        return absl::InvalidArgumentError("--rule is for --keep-best N");
      }
      break;
    case Verb::kShow:
      if (command.config && command.all) {
        return absl::InvalidArgumentError("--all: --config prints no tensors");
      }
      break;
    default:
      break;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CkptCommand> ParseCkptCommand(
    const std::vector<std::string>& args) {
  CkptCommand command;
  const auto is_help = [](absl::string_view arg) {
    return arg == "-h" || arg == "--help";
  };
  if (args.empty()) {
    return absl::InvalidArgumentError(
        "no command: grapnel ckpt ls, show, verify, ...; see grapnel ckpt "
        "--help");
  }
  if (is_help(args[0])) {
    command.help = kCkptHelp;
    return command;
  }
  if (absl::StartsWith(args[0], "-")) {
    return absl::InvalidArgumentError(
        absl::StrCat(args[0],
                     ": what to do comes first, as in grapnel ckpt ls "
                     "--json"));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const VerbSpec* const verb, FindVerb(args[0]));
  command.verb = verb->verb;
  FlagValues values(args);
  bool flags_end = false;
  for (size_t next = 1; next < args.size();) {
    const std::string& arg = args[next++];
    if (flags_end || arg == "-" || !absl::StartsWith(arg, "-")) {
      command.paths.push_back(arg);
      continue;
    }
    if (arg == "--") {
      flags_end = true;
      continue;
    }
    if (is_help(arg)) {
      command.help = verb->help;
      return command;
    }
    absl::string_view name = arg;
    if (name == "-o") name = "--output";
    if (!absl::ConsumePrefix(&name, "--")) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown flag ", arg, "; flags start with --"));
    }
    const TypedFlag typed = SplitFlag(name);
    GRAPNEL_ASSIGN_OR_RETURN(const Flag* const flag,
                             FindFlag(typed.name, *verb));
    GRAPNEL_ASSIGN_OR_RETURN(
        const absl::string_view value,
        values.Take(flag->name, flag->has_value, typed, &next));
    GRAPNEL_RETURN_IF_ERROR(WithContext(flag->set(value, &command),
                                        absl::StrCat("--", flag->name)));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckTogether(command, *verb));
  return command;
}

std::vector<std::string> CkptHelps() {
  std::vector<std::string> helps = {kCkptHelp};
  for (const VerbSpec& verb : kVerbs) helps.push_back(verb.help);
  return helps;
}

}  // namespace grapnel
