#include "grapnel/tools/verify_resume/verify_resume.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <memory>
#include <random>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/any_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/hooks/logger/logger_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/unique_name.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/rehearsal.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tools/command_line.h"
#include "grapnel/tools/exit_code.h"
#include "grapnel/tools/launch/processes.h"
#include "grapnel/tools/text_table.h"
#include "grapnel/tools/verify_resume/child_process.h"
#include "grapnel/tools/verify_resume/likely_owner.h"
#include "grapnel/tools/verify_resume/resume_trace.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::RunnerConfig;
using Verdict = VerifyResumeReport::Verdict;

// If a configuration saves nothing before its end.
constexpr int64_t kSavesOfARun = 8;
constexpr size_t kLastLines = 5;

std::string InQuotes(const std::string& text) {
  return absl::StrCat("\"", absl::CEscape(text), "\"");
}

// "every epoch", "every 2 epochs".
std::string Every(int64_t n, absl::string_view thing) {
  return n == 1 ? absl::StrCat("every ", thing)
                : absl::StrCat("every ", Count(n, thing));
}

// All that is left of a run.
struct Run {
  std::vector<TraceEvent> trace;
  std::vector<std::vector<std::string>> records;  // Of each process.
  io::CheckpointContents checkpoint;              // The newest.
};

// A place to be killed at: what begins there takes so long.
struct Target {
  std::string kind;
  int64_t iter = 0;
  int64_t index = -1;
  int64_t nanos = 0;
};

std::vector<Target> TargetsOf(const std::vector<TraceEvent>& trace) {
  std::vector<Target> targets;
  for (size_t i = 0; i < trace.size(); ++i) {
    const char* end = nullptr;
    if (trace[i].kind == trace::kStart) end = trace::kBeforeIter;
    if (trace[i].kind == trace::kBeforeIter) end = trace::kAfterIter;
    if (trace[i].kind == trace::kBeforeVal) end = trace::kAfterVal;
    if (trace[i].kind == trace::kBeforeSave) end = trace::kAfterSave;
    for (size_t j = i + 1; end != nullptr && j < trace.size(); ++j) {
      if (trace[j].kind != end) continue;
      targets.push_back({trace[i].kind, trace[i].iter, /*index=*/-1,
                         trace[j].nanos - trace[i].nanos});
      break;
    }
    // A validation may be faster than a delay: it is killed at one of its
    // batches.
    if (trace[i].kind == trace::kValBatch && i + 1 < trace.size()) {
      targets.push_back({trace[i].kind, trace[i].iter, trace[i].index,
                         trace[i + 1].nanos - trace[i].nanos});
    }
  }
  return targets;
}

// `last` is what it wrote last.
std::string WhereItEnded(const TraceEvent& last) {
  const std::string after = absl::StrCat(" after iteration ", last.iter);
  if (last.kind == trace::kBeforeSave) return "inside the save" + after;
  if (last.kind == trace::kAfterSave) return "behind the save" + after;
  if (last.kind == trace::kBeforeVal || last.kind == trace::kValBatch ||
      last.kind == trace::kValStep) {
    return "inside the validation" + after;
  }
  if (last.kind == trace::kAfterVal) return "behind the validation" + after;
  if (last.kind == trace::kBeforeIter || last.kind == trace::kStep) {
    return absl::StrCat("inside iteration ", last.iter);
  }
  if (last.kind == trace::kAfterIter) {
    return absl::StrCat("behind iteration ", last.iter);
  }
  return "at its beginning";
}

// "" if how a resumed run ended may be its own fault.
const char* NoFaultOf(int wait_status) {
  switch (ExitCodeOfStatus(wait_status)) {
    case kNotTested:
      return ": the machine failed it";
    // Its handler returns the same codes.
    case 128 + SIGHUP:
    case 128 + SIGINT:
    case 128 + SIGKILL:
    case 128 + SIGTERM:
    case 128 + SIGXCPU:
    case 128 + SIGXFSZ:
      return ", and not by verify-resume";
    default:
      return "";
  }
}

class Verifier {
 public:
  explicit Verifier(const VerifyResumeOptions& options)
      : options_(options), env_(io::Env::Posix()) {}

  absl::StatusOr<VerifyResumeReport> Verify() {
    absl::Status status = Configure();
    if (!status.ok()) {
      return ExitCodeAtStart(status) == kRunFailed
                 ? status
                 : absl::InvalidArgumentError(status.message());
    }
    GRAPNEL_RETURN_IF_ERROR(CheckInterrupt());
    // Nothing that fails comes between this and what deletes it.
    GRAPNEL_RETURN_IF_ERROR(env_.CreateNewDir(folder_));
    status = CompareRuns();
    const bool equal = status.ok() && report_.verdict == Verdict::kEqual;
    // Who reads a verdict wants to look at the runs; errors say what they have
    // to.
    if (options_.keep || (status.ok() && !equal)) {
      report_.folder = folder_;
    } else {
      const absl::Status deleted = io::DeleteRecursively(env_, folder_);
      if (status.ok()) status = deleted;
    }
    GRAPNEL_RETURN_IF_ERROR(status);
    return std::move(report_);
  }

 private:
  void Say(const std::string& line) {
    if (options_.progress) options_.progress(line);
  }

  absl::Status CheckInterrupt() const {
    if (options_.interrupt == nullptr || options_.interrupt->load() == 0) {
      return absl::OkStatus();
    }
    return absl::CancelledError("was told to stop");
  }

  absl::Status Set(const std::string& assignment) {
    overrides_.push_back(assignment);
    return ApplyOverride(assignment, /*path_base=*/"", &config_);
  }

  // ------------------------------------------------------------ configuration

  absl::Status Configure() {
    std::vector<std::string> args = options_.train_args;
    if (args.empty()) {
      return absl::InvalidArgumentError(
          "no configuration: grapnel verify-resume CONFIG");
    }
    args.insert(args.begin(), "train");
    GRAPNEL_ASSIGN_OR_RETURN(command_, ParseCommandLine(args));
    if (command_.verb != CommandLine::Verb::kTrain) {
      return absl::InvalidArgumentError(absl::StrCat(
          "only flags of train may follow, not ", options_.train_args.back()));
    }
    if (command_.resume.has_value() && !command_.load_from.has_value()) {
      return absl::InvalidArgumentError(
          "--resume: the runs begin in a folder of their own, where nothing is "
          "to be resumed");
    }
    GRAPNEL_ASSIGN_OR_RETURN(current_dir_, env_.CurrentDir());
    GRAPNEL_ASSIGN_OR_RETURN(config_,
                             ResolveConfig(command_, env_, current_dir_));
    const std::string dir = io::JoinPath(current_dir_, options_.dir);
    if (!env_.IsDirectory(dir)) {
      return absl::InvalidArgumentError(absl::StrCat(
          dir, ": is no directory: the runs' folder can't be made there"));
    }
    folder_ = io::JoinPath(
        dir, absl::StrCat("verify_resume_",
                          absl::BytesToHexString(io::RandomBytes(4))));
    work_dir_ = io::JoinPath(folder_, "run");
    config_.set_work_dir(work_dir_);
    if (!config_.has_train_cfg()) {
      return absl::InvalidArgumentError(
          absl::StrCat(command_.config,
                       ": has no train_cfg: nothing is "
                       "trained"));
    }
    if (config_.has_launcher()) {
      GRAPNEL_RETURN_IF_ERROR(Set("launcher=\"none\""));
    }
    if (!config_.randomness().has_seed()) {
      drawn_seed_ = static_cast<int64_t>(std::random_device()() >> 1);
      config_.mutable_randomness()->set_seed(*drawn_seed_);
    }
    report_.seed = config_.randomness().seed();
    report_.kill_seed = options_.kill_seed.has_value() ? *options_.kill_seed
                                                       : std::random_device()();
    random_.seed(report_.kill_seed);

    RunnerOptions runner_options;
    runner_options.base_dir = io::Dirname(command_.config);
    runner_options.config_name = ConfigName(command_.config);
    runner_options.env = &env_;
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::unique_ptr<Rehearsal> rehearsal,
        Rehearsal::Create(config_, std::move(runner_options)));
    GRAPNEL_ASSIGN_OR_RETURN(const RehearsalReport rehearsed, rehearsal->Run());
    GRAPNEL_RETURN_IF_ERROR(LimitLength(rehearsed));
    GRAPNEL_RETURN_IF_ERROR(SetSaves());
    return SetFolders();
  }

  absl::Status LimitLength(const RehearsalReport& rehearsed) {
    report_.iters = rehearsed.max_iters;
    if (!options_.iters.has_value() || *options_.iters >= report_.iters) {
      return absl::OkStatus();
    }
    if (!rehearsed.by_epoch) {
      report_.iters = *options_.iters;
      return Set(absl::StrCat("train_cfg.max_iters=", report_.iters));
    }
    for (const RehearsalReport::Part& part : rehearsed.parts) {
      if (part.name != "train_dataloader" || part.num_batches == 0) continue;
      const int64_t epochs =
          (*options_.iters + part.num_batches - 1) / part.num_batches;
      report_.iters = epochs * part.num_batches;
      return Set(absl::StrCat("train_cfg.max_epochs=", epochs));
    }
    return absl::InternalError("train_dataloader: wasn't rehearsed");
  }

  absl::Status SetSaves() {
    const auto& hooks = config_.default_hooks();
    const auto& checkpoint = hooks.checkpoint();
    const bool off =
        std::count(hooks.off().begin(), hooks.off().end(), "checkpoint") > 0;
    const bool by_epoch = !checkpoint.has_by_epoch() || checkpoint.by_epoch();
    // No two runs are equally fast.
    if (checkpoint.interval_minutes() > 0) {
      GRAPNEL_RETURN_IF_ERROR(
          Set("default_hooks.checkpoint.interval_minutes=0"));
    }
    if (checkpoint.keep_minutes() > 0) {  // Of these the oldest alone then.
      GRAPNEL_RETURN_IF_ERROR(Set("default_hooks.checkpoint.keep_minutes=1e9"));
    }
    int64_t every = 0;
    if (options_.save_every.has_value()) {
      every = *options_.save_every;
      report_.saves = absl::StrCat(Every(every, "iteration"), ", as asked");
    } else if (checkpoint.interval() > 0) {
      report_.saves = absl::StrCat(
          Every(checkpoint.interval(), by_epoch ? "epoch" : "iteration"),
          ", as configured");
      return absl::OkStatus();
    } else if (off) {
      report_.saves = "as configured, by no default hook";
      return absl::OkStatus();
    } else {
      every = std::max<int64_t>(1, report_.iters / kSavesOfARun);
      report_.saves =
          absl::StrCat(Every(every, "iteration"),
                       ", since none is configured before the run's end");
    }
    if (off) {
      return absl::InvalidArgumentError(
          "--save-every: default_hooks has \"checkpoint\" off");
    }
    if (checkpoint.has_save_begin()) {
      GRAPNEL_RETURN_IF_ERROR(Set("default_hooks.checkpoint.save_begin=0"));
    }
    GRAPNEL_RETURN_IF_ERROR(Set("default_hooks.checkpoint.by_epoch=false"));
    return Set(absl::StrCat("default_hooks.checkpoint.interval=", every));
  }

  absl::Status SetFolders() {
    // Inside the work dir, so that what a run wrote is moved with it.
    const std::string out_dir = InQuotes(io::JoinPath(work_dir_, "out"));
    const auto& hooks = config_.default_hooks();
    if (!hooks.checkpoint().out_dir().empty()) {
      GRAPNEL_RETURN_IF_ERROR(
          Set("default_hooks.checkpoint.out_dir=" + out_dir));
    }
    if (!hooks.logger().out_dir().empty()) {
      GRAPNEL_RETURN_IF_ERROR(Set("default_hooks.logger.out_dir=" + out_dir));
    }
    for (int i = 0; i < config_.custom_hooks_size(); ++i) {
      const auto& any = config_.custom_hooks(i).config();
      const auto* const type = FindMessageType(any.type_url());
      const auto* const field =
          type == nullptr ? nullptr : type->FindFieldByName("out_dir");
      if (field == nullptr || field->is_repeated() ||
          field->cpp_type() !=
              google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
        continue;
      }
      GRAPNEL_ASSIGN_OR_RETURN(const auto hook, UnpackAs(*type, any));
      if (hook->GetReflection()->GetString(*hook, field).empty()) continue;
      GRAPNEL_RETURN_IF_ERROR(
          Set(absl::StrCat("custom_hooks.", i, ".config.out_dir=", out_dir)));
    }
    GRAPNEL_RETURN_IF_ERROR(
        Set(absl::StrCat("custom_hooks.", config_.custom_hooks_size(),
                         ".config={[type.googleapis.com/"
                         "grapnel.tools.v1.ResumeTraceHookConfig] {}}")));

    fresh_ = options_.train_args;
    fresh_.insert(fresh_.begin(), "train");
    fresh_.push_back(absl::StrCat("--work-dir=", work_dir_));
    if (drawn_seed_.has_value()) {
      fresh_.push_back(absl::StrCat("--seed=", *drawn_seed_));
    }
    fresh_.push_back("--cfg-options");
    fresh_.insert(fresh_.end(), overrides_.begin(), overrides_.end());
    GRAPNEL_ASSIGN_OR_RETURN(resume_, ArgsToGoOn(fresh_));
    return absl::OkStatus();
  }

  // --------------------------------------------------------------------- runs

  // Where the hooks' out_dir means.
  static std::string CheckpointDir(const std::string& dir) {
    return io::JoinPath(dir, "out/run");
  }

  // One process. What waitpid says, or none if it took too long.
  absl::StatusOr<std::optional<int>> Start(
      std::vector<std::string> args, const std::optional<KillPoint>& kill) {
    args.insert(args.begin(), options_.program);
    std::vector<std::string> environment = {absl::StrCat(kRunVariable, "=1")};
    if (kill.has_value()) {
      environment.push_back(
          absl::StrCat(kKillVariable, "=", FormatKillPoint(*kill)));
    }
    output_ = io::JoinPath(folder_,
                           absl::StrCat("process_", ++num_processes_, ".log"));
    GRAPNEL_RETURN_IF_ERROR(CheckInterrupt());
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::unique_ptr<ChildProcess> child,
        ChildProcess::Start(std::move(args), std::move(environment), output_));
    const std::optional<int> status = child->Wait(limit_, options_.interrupt);
    // A terminal's keys end the child, too.
    GRAPNEL_RETURN_IF_ERROR(CheckInterrupt());
    return status;
  }

  std::string LastLines() {
    const std::string text = io::ReadFile(env_, output_).value_or("");
    std::vector<std::string> lines =
        absl::StrSplit(text, '\n', absl::SkipEmpty());
    if (lines.size() > kLastLines) lines.erase(lines.begin(), lines.end() - 5);
    return absl::StrCat("\n  ", absl::StrJoin(lines, "\n  "));
  }

  absl::StatusOr<std::vector<TraceEvent>> ReadTrace(const std::string& dir) {
    GRAPNEL_ASSIGN_OR_RETURN(const std::string text,
                             io::ReadFile(env_, io::JoinPath(dir, kTraceFile)));
    return ParseTrace(text);
  }

  // Of the run in the work dir: what each process that killed itself had
  // written last.
  absl::StatusOr<std::vector<TraceEvent>> ReadKills() {
    absl::StatusOr<std::vector<TraceEvent>> trace = ReadTrace(work_dir_);
    std::vector<TraceEvent> kills;
    // One that the system kills at its beginning leaves none.
    if (absl::IsNotFound(trace.status())) return kills;
    GRAPNEL_RETURN_IF_ERROR(trace.status());
    for (size_t i = 1; i < trace->size(); ++i) {
      if ((*trace)[i].kind == trace::kKill) {
        kills.push_back(std::move((*trace)[i - 1]));
      }
    }
    return kills;
  }

  absl::StatusOr<Run> ReadRun(const std::string& dir) {
    Run run;
    GRAPNEL_ASSIGN_OR_RETURN(run.trace, ReadTrace(dir));
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                             env_.ListDir(dir));
    for (const std::string& name : names) {
      // "20261130_023907"
      if (!isdigit(static_cast<unsigned char>(name[0]))) continue;
      const std::string path =
          io::JoinPath(dir, absl::StrCat(name, "/vis_data/scalars.json"));
      run.records.emplace_back();
      if (!env_.FileExists(path)) continue;
      GRAPNEL_ASSIGN_OR_RETURN(const std::string text,
                               io::ReadFile(env_, path));
      run.records.back() = absl::StrSplit(text, '\n', absl::SkipEmpty());
    }
    absl::StatusOr<io::LatestCheckpoint> latest = io::ReadLatestCheckpoint(
        env_, dir, /*rejected=*/nullptr, CheckpointDir(dir));
    if (!latest.ok()) return latest.status();
    run.checkpoint = std::move(latest->contents);
    return run;
  }

  absl::StatusOr<std::vector<RunDifference>> Compare(const Run& other) {
    std::vector<RunDifference> all = CompareTraces(whole_.trace, other.trace);
    std::vector<std::string> records;
    for (const auto& lines : whole_.records) {
      records.insert(records.end(), lines.begin(), lines.end());
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::vector<RunDifference> of_records,
                             CompareRecords(records, other.records));
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::vector<RunDifference> of_checkpoints,
        CompareCheckpoints(whole_.checkpoint, other.checkpoint));
    all.insert(all.end(), of_records.begin(), of_records.end());
    all.insert(all.end(), of_checkpoints.begin(), of_checkpoints.end());
    return InOrder(std::move(all));
  }

  absl::Status Conclude(Verdict verdict,
                        std::vector<RunDifference> differences) {
    report_.verdict = verdict;
    report_.differences = std::move(differences);
    GRAPNEL_ASSIGN_OR_RETURN(
        RunParticulars particulars,
        ParticularsOf(config_, io::Dirname(command_.config), whole_.checkpoint,
                      whole_.trace));
    particulars.deterministic = verdict != Verdict::kNotDeterministic;
    report_.owner = LikelyOwner(report_.differences, particulars);
    return absl::OkStatus();
  }

  absl::StatusOr<Run> TrainWhole(const std::string& name) {
    GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> status,
                             Start(fresh_, std::nullopt));
    if (!status.has_value() || !WIFEXITED(*status) ||
        WEXITSTATUS(*status) != 0) {
      const std::string message = absl::StrCat(
          "the run, which nothing interrupted, ",
          status.has_value() ? HowItEnded(*status) : "takes too long",
          LastLines());
      const int exit_code = status.has_value() ? ExitCodeOfStatus(*status) : 0;
      return exit_code == kBadInput || exit_code == kBadData ||
                     exit_code == kBadCheckpoint
                 ? absl::InvalidArgumentError(message)
                 : absl::AbortedError(message);
    }
    // Each run is in the same folder while it runs: nothing that it writes
    // down depends on which one it is.
    const std::string dir = io::JoinPath(folder_, name);
    GRAPNEL_RETURN_IF_ERROR(env_.Rename(work_dir_, dir));
    absl::StatusOr<Run> run = ReadRun(dir);
    if (absl::IsNotFound(run.status())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the run saves no checkpoint: ", run.status().message()));
    }
    return run;
  }

  absl::Status CompareRuns() {
    Say(absl::StrCat("verify-resume: ", command_.config, ", seed ",
                     report_.seed, ", --kill-seed ", report_.kill_seed));
    Say(absl::StrCat("saves: ", report_.saves));
    Say(absl::StrCat("the runs are in ", folder_,
                     options_.keep ? "" : ", deleted if all is equal"));
    const absl::Time before = absl::Now();
    GRAPNEL_ASSIGN_OR_RETURN(whole_, TrainWhole("uninterrupted_1"));
    limit_ = 10 * (absl::Now() - before) + absl::Minutes(1);
    targets_ = TargetsOf(whole_.trace);
    const int64_t saved_early = std::count_if(
        targets_.begin(), targets_.end(), [&](const Target& target) {
          return target.kind == trace::kBeforeSave &&
                 target.iter < whole_.checkpoint.manifest().progress().iter();
        });
    Say(absl::StrCat(
        "uninterrupted: ", Count(CountOf(trace::kBeforeIter), "iteration"),
        ", ", Count(CountOf(trace::kBeforeVal), "validation"), ", ",
        Count(CountOf(trace::kBeforeSave), "save"), ", ",
        absl::FormatDuration(
            absl::Trunc(absl::Now() - before, absl::Milliseconds(1)))));
    if (saved_early == 0) {
      Say("warning: nothing is saved before the end: whoever is killed begins "
          "anew; see --save-every");
    }
    GRAPNEL_ASSIGN_OR_RETURN(const Run again, TrainWhole("uninterrupted_2"));
    GRAPNEL_ASSIGN_OR_RETURN(std::vector<RunDifference> differences,
                             Compare(again));
    if (!differences.empty()) {
      return Conclude(Verdict::kNotDeterministic, std::move(differences));
    }
    Say("uninterrupted once more: the same");

    // A run ends when no place is left to kill it at.
    for (int run = 0; NumKills() < options_.kills; ++run) {
      const int kills_before = NumKills();
      GRAPNEL_ASSIGN_OR_RETURN(const bool came_to_its_end, TrainKilled(run));
      if (!came_to_its_end) return absl::OkStatus();
      GRAPNEL_ASSIGN_OR_RETURN(const Run killed, ReadRun(work_dir_));
      GRAPNEL_ASSIGN_OR_RETURN(differences, Compare(killed));
      if (!differences.empty()) {
        return Conclude(Verdict::kDifferent, std::move(differences));
      }
      GRAPNEL_RETURN_IF_ERROR(io::DeleteRecursively(env_, work_dir_));
      // It may end faster than the kill comes.
      if (NumKills() == kills_before && ++missed_ > 3) break;
    }
    if (NumKills() == 0) {
      return absl::InvalidArgumentError(
          "the run is over before it could be killed: make it longer");
    }
    return absl::OkStatus();
  }

  int64_t CountOf(const char* kind) const {
    return std::count_if(
        targets_.begin(), targets_.end(),
        [kind](const Target& target) { return target.kind == kind; });
  }

  int NumKills() const { return static_cast<int>(report_.kills.size()); }

  // A run with as many kills as find a place. False if it failed; the report
  // says so then.
  absl::StatusOr<bool> TrainKilled(int run) {
    int64_t iter = 0;  // Where it goes on.
    std::string checkpoint;
    for (int process = 0;; ++process) {
      const std::optional<KillPoint> kill =
          NextKill(iter, /*resumes=*/!checkpoint.empty());
      GRAPNEL_ASSIGN_OR_RETURN(
          const std::optional<int> status,
          Start(checkpoint.empty() ? fresh_ : resume_, kill));
      if (status.has_value() && WIFEXITED(*status) &&
          WEXITSTATUS(*status) == 0) {
        return true;
      }
      std::vector<TraceEvent> kills;
      if (status.has_value() && ExitCodeOfStatus(*status) == 128 + SIGKILL) {
        GRAPNEL_ASSIGN_OR_RETURN(kills, ReadKills());
      }
      // All before this one killed themselves.
      if (kills.size() != static_cast<size_t>(process) + 1) {
        const std::string how = absl::StrCat(
            "a run that ",
            process == 0 ? "nothing had killed before"
            : checkpoint.empty()
                ? "was begun anew after a kill"
                : absl::StrCat("was resumed from ", checkpoint),
            " ",
            status.has_value() ? HowItEnded(*status)
                               : "didn't end within 10 times the time that "
                                 "all of it takes");
        const char* const other = status.has_value() ? NoFaultOf(*status) : "";
        if (*other != '\0') {
          return absl::AbortedError(
              absl::StrCat("could not be tested: ", how, other, LastLines()));
        }
        report_.verdict = Verdict::kRunFailed;
        report_.message = absl::StrCat(how, LastLines());
        return false;
      }
      checkpoint.clear();
      iter = 0;
      const absl::StatusOr<std::string> latest = io::FindLatestCheckpoint(
          env_, work_dir_, /*rejected=*/nullptr, {}, CheckpointDir(work_dir_));
      if (latest.ok()) {
        GRAPNEL_ASSIGN_OR_RETURN(const io::v1::CheckpointManifest manifest,
                                 io::ReadManifest(env_, *latest));
        checkpoint = io::Basename(*latest);
        iter = manifest.progress().iter();
      }
      report_.kills.push_back(
          {run, process, WhereItEnded(kills.back()), checkpoint});
      Say(absl::StrCat(
          "kill ", NumKills(), ": ", report_.kills.back().where, "; ",
          checkpoint.empty() ? "begins anew" : "goes on from " + checkpoint));
    }
  }

  // Somewhere behind `iter`, and early enough that those to come find a place;
  // in an iteration, a save, a validation and, of one that resumes, while it
  // does, by turns.
  std::optional<KillPoint> NextKill(int64_t iter, bool resumes) {
    const int left = options_.kills - NumKills();
    if (left <= 0) return std::nullopt;
    const std::string kinds[] = {trace::kBeforeIter, trace::kBeforeSave,
                                 trace::kValBatch, trace::kStart};
    for (int i = 0; i < 4; ++i) {
      const std::string& kind = kinds[(NumKills() + i) % 4];
      std::vector<Target> behind;
      for (const Target& target : targets_) {
        if (target.kind == kind &&
            (kind == trace::kStart ? resumes : target.iter > iter)) {
          behind.push_back(target);
        }
      }
      if (behind.empty()) continue;
      const size_t choice = std::max<size_t>(1, 2 * behind.size() / (left + 1));
      const Target& target = behind[random_() % choice];
      // Early ones more often than late ones: it may be faster this time.
      const double part = std::uniform_real_distribution<double>()(random_);
      return KillPoint{target.kind, target.iter, target.index,
                       part * part * absl::Nanoseconds(target.nanos)};
    }
    return std::nullopt;
  }

  const VerifyResumeOptions& options_;
  io::Env& env_;
  VerifyResumeReport report_;
  std::mt19937_64 random_;

  CommandLine command_;
  std::string current_dir_;
  RunnerConfig config_;  // Of the runs.
  std::vector<std::string> overrides_;
  std::optional<int64_t> drawn_seed_;
  std::vector<std::string> fresh_, resume_;  // Arguments of the program.

  std::string folder_;
  std::string work_dir_;
  std::string output_;  // Of the last process.
  int num_processes_ = 0;
  absl::Duration limit_ = absl::InfiniteDuration();
  Run whole_;
  std::vector<Target> targets_;
  int missed_ = 0;
};

}  // namespace

absl::StatusOr<VerifyResumeReport> VerifyResume(
    const VerifyResumeOptions& options) {
  return Verifier(options).Verify();
}

}  // namespace grapnel
