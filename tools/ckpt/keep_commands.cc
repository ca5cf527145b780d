#include "grapnel/tools/ckpt/keep_commands.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "grapnel/base/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/rejected_checkpoints.h"
#include "grapnel/io/retention.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/verify_checkpoint.h"
#include "grapnel/models/metric_rule.h"
#include "grapnel/runner/run_lock.h"
#include "grapnel/tools/ckpt/checkpoint_folder.h"
#include "grapnel/tools/ckpt/json_report.h"
#include "grapnel/tools/text_table.h"

namespace grapnel {
namespace {

// A training holds the locks of its work dir and of its checkpoints' folder:
// one of them keeps it out.
absl::StatusOr<std::unique_ptr<RunLock>> LockFolders(
    io::Env& env, const char* verb, const std::vector<std::string>& dirs) {
  std::vector<RunLock::Folder> folders;
  for (const std::string& dir : dirs) folders.push_back({verb, dir});
  RunLock::Options options;
  options.clock = &Clock::System();
  return RunLock::Take(env, folders, options);
}

// ---------------------------------------------------------------- gc

struct Verdict {
  std::string path;
  std::string run;                   // As in a manifest.
  int64_t bytes = 0;                 // Without its copies.
  std::vector<SizedFile> copies;     // Files beside it that go when it goes.
  std::vector<std::string> reasons;  // Empty: it goes.
  std::string error;                 // Why it is still there.
};

absl::StatusOr<io::RetentionRules> RulesOf(const CkptCommand& command) {
  io::RetentionRules rules;
  rules.newest = command.keep_last.value_or(0);
  rules.every = command.keep_every.value_or(0);
  rules.per = command.keep_per.value_or(absl::ZeroDuration());
  if (!command.keep_best.has_value()) return rules;
  io::BestRule best;
  best.metric = *command.metric;
  best.keep = *command.keep_best;
  if (command.rule.has_value()) {
    best.greater = *command.rule == "greater";
  } else {
    const auto inferred = InferMetricRule(best.metric, MetricKeys());
    if (!inferred.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--metric: \"", best.metric,
          "\" doesn't tell whether more or less is better: --rule greater, or "
          "--rule less"));
    }
    best.greater = inferred->rule == MetricRule::kGreater;
  }
  rules.best.push_back(std::move(best));
  return rules;
}

bool HasRules(const CkptCommand& command) {
  return command.keep_last.has_value() || command.keep_best.has_value() ||
         command.keep_every.has_value() || command.keep_per.has_value();
}

// Of each run, those with a manifest that aren't partial, by its id.
using Runs = std::map<std::string, std::vector<const FolderCheckpoint*>>;

// A folder that last_checkpoint leads to may have checkpoints of other work
// dirs too: only runs count that have something in the folder asked for, or
// that go on from there.
std::set<std::string> OwnRuns(const CheckpointFolder& folder) {
  std::set<std::string> runs;
  for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
    if (checkpoint.has_manifest &&
        (checkpoint.dir == folder.dirs[0] || checkpoint.is_last)) {
      runs.insert(checkpoint.manifest.run_uuid());
    }
  }
  return runs;
}

absl::StatusOr<Runs> RunsOf(const CheckpointFolder& folder,
                            const CkptCommand& command) {
  const std::set<std::string> own = OwnRuns(folder);
  Runs runs;
  std::set<std::string> ids;
  for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
    if (!checkpoint.has_manifest || checkpoint.manifest.partial()) continue;
    const std::string& run = checkpoint.manifest.run_uuid();
    if (own.count(run) == 0) continue;
    const std::string id = absl::BytesToHexString(run);
    ids.insert(id);
    if (!command.run.has_value() ||
        absl::StartsWith(id, absl::AsciiStrToLower(*command.run))) {
      runs[run].push_back(&checkpoint);
    }
  }
  if (command.run.has_value() && runs.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--run: \"", *command.run, "\" is ",
        runs.empty() ? "none of the runs here" : "several of the runs here",
        ": ", absl::StrJoin(ids, ", ")));
  }
  return runs;
}

// The metric must be one that some checkpoint has, or all would go.
absl::Status CheckMetric(const CkptCommand& command, const Runs& runs) {
  if (!command.metric.has_value()) return absl::OkStatus();
  std::set<std::string> names;
  for (const auto& [run, checkpoints] : runs) {
    for (const FolderCheckpoint* checkpoint : checkpoints) {
      for (const auto& metric : checkpoint->manifest.metrics()) {
        names.insert(metric.first);
      }
    }
  }
  if (names.count(*command.metric) > 0) return absl::OkStatus();
  const std::vector<std::string> all(names.begin(), names.end());
  return absl::InvalidArgumentError(absl::StrCat(
      "--metric: no checkpoint has \"", *command.metric, "\"",
      all.empty() ? std::string("; none has any metric")
                  : absl::StrCat("; they have ", absl::StrJoin(all, ", "),
                                 DidYouMean(*command.metric, all))));
}

// By path: what is wrong with it.
using Damages = std::map<std::string, std::string>;

// Those in `damages` are in no rule, and stay.
std::vector<Verdict> DecideRun(
    io::Env& env, const std::string& run,
    const std::vector<const FolderCheckpoint*>& checkpoints,
    const Damages& damages, io::RetentionRules rules) {
  std::vector<Verdict> verdicts;
  const auto add = [&](const FolderCheckpoint& checkpoint,
                       std::vector<std::string> reasons) {
    Verdict verdict;
    verdict.path = checkpoint.path;
    verdict.run = run;
    verdict.bytes = BytesOf(env, checkpoint.path);
    verdict.copies = checkpoint.copies;
    verdict.reasons = std::move(reasons);
    if (checkpoint.is_last) verdict.reasons.push_back("last_checkpoint");
    verdicts.push_back(std::move(verdict));
  };
  std::vector<io::RunCheckpoint> described;
  // One that both folders have, in whichever copy, has one fate.
  std::vector<std::vector<const FolderCheckpoint*>> copies;
  std::map<std::string, size_t> index_of;  // By checkpoint_uuid.
  int64_t max_epochs = 0;
  for (const FolderCheckpoint* checkpoint : checkpoints) {
    const auto damage = damages.find(checkpoint->path);
    if (damage != damages.end()) {
      std::vector<std::string> reasons;
      if (io::IsPinned(env, checkpoint->path)) reasons.push_back("pinned");
      reasons.push_back(absl::StrCat("bad: ", damage->second));
      add(*checkpoint, std::move(reasons));
      continue;
    }
    max_epochs =
        std::max(max_epochs, checkpoint->manifest.progress().max_epochs());
    const auto [it, is_new] = index_of.emplace(
        checkpoint->manifest.checkpoint_uuid(), described.size());
    if (is_new) {
      described.push_back(io::DescribeCheckpoint(checkpoint->manifest));
      described.back().name = checkpoint->name;
      copies.emplace_back();
    }
    copies[it->second].push_back(checkpoint);
    io::RunCheckpoint& one = described[it->second];
    one.pinned = one.pinned || io::IsPinned(env, checkpoint->path);
    one.is_last = one.is_last || checkpoint->is_last;
  }
  // A run by iteration has one epoch.
  rules.by_epoch = max_epochs > 1;
  for (const io::RetentionVerdict& verdict :
       io::DecideRetention(described, rules)) {
    for (const FolderCheckpoint* checkpoint : copies[verdict.index]) {
      add(*checkpoint, verdict.reasons);
    }
  }
  return verdicts;
}

bool Goes(const Verdict& verdict) { return verdict.reasons.empty(); }

// Before one goes, those that stay in its place are read to the last byte. One
// that turns out to be damaged is in no rule.
std::vector<Verdict> Decide(io::Env& env, const Runs& runs,
                            const io::RetentionRules& rules) {
  std::vector<Verdict> all;
  for (const auto& [run, checkpoints] : runs) {
    Damages damages;
    for (const FolderCheckpoint* checkpoint : checkpoints) {
      if (!checkpoint->bad.empty()) {
        damages[checkpoint->path] = checkpoint->bad;
      }
    }
    std::set<std::string> verified;
    std::vector<Verdict> verdicts;
    bool decided = false;
    while (!decided) {
      decided = true;
      verdicts = DecideRun(env, run, checkpoints, damages, rules);
      if (std::none_of(verdicts.begin(), verdicts.end(), Goes)) break;
      for (const Verdict& verdict : verdicts) {
        if (Goes(verdict) || damages.count(verdict.path) > 0 ||
            !verified.insert(verdict.path).second) {
          continue;
        }
        const auto read = io::VerifyCheckpoint(env, verdict.path);
        if (read.ok() && read->damages.empty()) continue;
        damages[verdict.path] =
            read.ok()
                ? absl::StrCat(read->damages[0].file, ": ",
                               read->damages[0].tensor,
                               read->damages[0].tensor.empty() ? "" : ": ",
                               read->damages[0].what)
                : std::string(read.status().message());
        decided = false;
      }
    }
    all.insert(all.end(), std::make_move_iterator(verdicts.begin()),
               std::make_move_iterator(verdicts.end()));
  }
  return all;
}

Json ToJson(const Verdict& verdict) {
  Json reasons = Json::array();
  for (const std::string& reason : verdict.reasons) {
    reasons.push_back(JsonText(reason));
  }
  return {{"path", JsonText(verdict.path)},
          {"run", TextOrNull(absl::BytesToHexString(verdict.run))},
          {"bytes", verdict.bytes},
          {"copies", ToJson(verdict.copies)},
          {"stays", !Goes(verdict)},
          {"reasons", std::move(reasons)},
          {"error", TextOrNull(verdict.error)}};
}

std::string Describe(const Verdict& verdict, bool dry_run) {
  if (!Goes(verdict)) {
    return absl::StrCat("stays: ", absl::StrJoin(verdict.reasons, ", "));
  }
  if (!verdict.error.empty()) {
    return absl::StrCat("can't be deleted: ", verdict.error);
  }
  return dry_run ? "would be deleted" : "deleted";
}

}  // namespace

absl::StatusOr<ExitCode> CollectGarbage(const CkptCommand& command,
                                        io::Env& env, std::ostream& out) {
  const std::string& dir = command.paths[0];
  GRAPNEL_ASSIGN_OR_RETURN(const io::RetentionRules rules, RulesOf(command));
  GRAPNEL_ASSIGN_OR_RETURN(CheckpointFolder folder,
                           ReadCheckpointFolder(env, dir));
  // A preview also is of use while a training runs.
  std::unique_ptr<RunLock> lock;
  if (!command.dry_run) {
    // Which folders there are is known before they are locked; the rest after.
    const std::vector<std::string> locked = folder.dirs;
    GRAPNEL_ASSIGN_OR_RETURN(lock, LockFolders(env, "gc", locked));
    if (!lock->warnings().empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          absl::StrJoin(lock->warnings(), "; "),
          "; nothing is deleted where a training can't be kept out: "
          "--dry-run says what would be"));
    }
    GRAPNEL_ASSIGN_OR_RETURN(folder, ReadCheckpointFolder(env, dir));
    if (folder.dirs != locked) {
      return absl::AbortedError(absl::StrCat(
          dir, ": ", io::kLastCheckpoint,
          " leads to another folder than a moment ago; nothing was deleted"));
    }
  }
  std::vector<Verdict> verdicts;
  if (HasRules(command) || command.run.has_value()) {
    GRAPNEL_ASSIGN_OR_RETURN(const Runs runs, RunsOf(folder, command));
    GRAPNEL_RETURN_IF_ERROR(CheckMetric(command, runs));
    if (HasRules(command)) verdicts = Decide(env, runs, rules);
  }

  int64_t bytes = 0;
  std::vector<std::string> undeleted;
  Json json = {{"dry_run", command.dry_run},
               {"leftovers", Json::array()},
               {"checkpoints", Json::array()}};
  std::vector<TableRow> rows = {{"path", "size", ""}};
  for (const Leftover& leftover : folder.leftovers) {
    const int64_t size = BytesOf(env, leftover.path);
    if (!leftover.put_back) bytes += size;
    json["leftovers"].push_back({{"path", JsonText(leftover.path)},
                                 {"of", JsonText(leftover.of)},
                                 {"bytes", size},
                                 {"put_back", leftover.put_back}});
    const std::string deed = leftover.put_back
                                 ? absl::StrCat("put back as ", leftover.of)
                                 : "deleted";
    rows.push_back(
        {leftover.path, FormatBytes(size),
         absl::StrCat("leftover: ", command.dry_run ? "would be " : "", deed)});
  }
  if (!command.dry_run) {
    for (const std::string& each : folder.dirs) {
      GRAPNEL_RETURN_IF_ERROR(io::RemoveLeftovers(env, each, &undeleted));
    }
  }
  for (Verdict& verdict : verdicts) {
    if (Goes(verdict) && !command.dry_run) {
      const absl::Status deleted =
          io::DeleteRunCheckpoint(env, verdict.path, verdict.run);
      if (!deleted.ok() && io::IsPinned(env, verdict.path)) {
        verdict.reasons.push_back("pinned");  // Since it was decided.
      } else if (!deleted.ok()) {
        verdict.error = std::string(deleted.message());
        undeleted.push_back(absl::StrCat(verdict.path, ": ", verdict.error));
      }
    }
    json["checkpoints"].push_back(ToJson(verdict));
    const bool frees = Goes(verdict) && verdict.error.empty();
    if (frees) bytes += verdict.bytes;
    const std::string deed = Describe(verdict, command.dry_run);
    rows.push_back({verdict.path, FormatBytes(verdict.bytes), deed});
    for (const SizedFile& copy : verdict.copies) {
      // They go first, so they may have gone where their checkpoint couldn't.
      const bool gone =
          command.dry_run ? frees : Goes(verdict) && !env.FileExists(copy.path);
      if (gone) bytes += copy.bytes;
      rows.push_back(
          {copy.path, FormatBytes(copy.bytes),
           absl::StrCat("copy: ", !gone             ? "stays"
                                  : command.dry_run ? "would be deleted"
                                                    : "deleted")});
    }
  }
  json["bytes"] = bytes;
  json["problems"] = Json::array();
  for (const std::string& line : undeleted) {
    json["problems"].push_back(JsonText(line));
  }
  if (command.json) {
    PrintJson(json, out);
  } else {
    std::string text;
    if (rows.size() > 1) AppendTable(rows, &text);
    out << text << (command.dry_run ? "would free " : "freed ")
        << FormatBytes(bytes)
        << (command.dry_run ? "; nothing was changed, nor locked: a training "
                              "that runs may make it untrue"
                            : "")
        << "\n";
    for (const std::string& line : undeleted) out << Printable(line) << "\n";
  }
  return undeleted.empty() ? kDone : kRunFailed;
}

absl::StatusOr<ExitCode> PinCheckpoints(const CkptCommand& command,
                                        io::Env& env, std::ostream& out) {
  // All or none, as far as that can be known before.
  for (const std::string& path : command.paths) {
    GRAPNEL_RETURN_IF_ERROR(CheckIsCheckpoint(env, path));
    if (!env.FileExists(io::JoinPath(path, io::kManifestFile))) {
      return absl::NotFoundError(
          absl::StrCat(path, ": is no checkpoint: has no ", io::kManifestFile));
    }
  }
  Json json = {{"pinned", !command.remove}, {"checkpoints", Json::array()}};
  for (const std::string& path : command.paths) {
    const bool was = io::IsPinned(env, path);
    const bool set_aside =
        io::IsSetAsideName(io::Basename(io::StripSlashes(path)));
    GRAPNEL_RETURN_IF_ERROR(io::PinCheckpoint(env, path, !command.remove));
    json["checkpoints"].push_back({{"path", JsonText(path)},
                                   {"was_pinned", was},
                                   {"set_aside", set_aside}});
    if (!command.json) {
      out << Printable(path) << ": "
          << (command.remove ? "not pinned" : "pinned")
          << (was == !command.remove ? " already" : "")
          << (set_aside ? "; it is set aside: a training found it damaged" : "")
          << "\n";
    }
  }
  if (command.json) PrintJson(json, out);
  return kDone;
}

absl::StatusOr<ExitCode> RepairLastCheckpoint(const CkptCommand& command,
                                              io::Env& env, std::ostream& out) {
  const std::string& dir = command.paths[0];
  const std::string elsewhere =
      command.paths.size() > 1 ? command.paths[1] : "";
  for (const std::string& path : command.paths) {
    GRAPNEL_RETURN_IF_ERROR(ReadCheckpointFolder(env, path).status());
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<RunLock> lock,
                           LockFolders(env, "repair-last", {dir}));
  const std::string was = io::ReadLastCheckpoint(env, dir).value_or("");
  std::vector<std::string> rejected;
  const auto latest = io::ReadLatestCheckpoint(env, dir, &rejected, elsewhere);
  if (absl::IsNotFound(latest.status())) {
    return absl::DataLossError(absl::StrCat(
        latest.status().message(), rejected.empty() ? "" : "; passed over: ",
        absl::StrJoin(rejected, "; ")));
  }
  GRAPNEL_RETURN_IF_ERROR(latest.status());
  const bool changes =
      was.empty() || io::NormalPath(was) != io::NormalPath(latest->path);
  if (changes) {
    // A training that went back may be saying so right now.
    if (!lock->warnings().empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          absl::StrJoin(lock->warnings(), "; "),
          "; nothing is changed where a training can't be kept out: the newest "
          "good one is ",
          latest->path, ", and if none runs, its path relative to ", dir,
          " can be written to ", io::JoinPath(dir, io::kLastCheckpoint)));
    }
    GRAPNEL_RETURN_IF_ERROR(io::WriteLastCheckpoint(env, dir, latest->path));
  }
  if (command.json) {
    Json json = {{"was", TextOrNull(was)},
                 {"is", JsonText(latest->path)},
                 {"changed", changes},
                 {"passed_over", Json::array()}};
    for (const std::string& line : rejected) {
      json["passed_over"].push_back(JsonText(line));
    }
    PrintJson(json, out);
    return kDone;
  }
  for (const std::string& line : rejected) {
    out << "passed over " << Printable(line) << "\n";
  }
  out << "last_checkpoint: ";
  if (!changes) {
    out << Printable(was) << ", which is good\n";
  } else {
    out << "was " << (was.empty() ? "not there" : Printable(was)) << ", is "
        << Printable(latest->path) << "\n";
  }
  return kDone;
}

}  // namespace grapnel
