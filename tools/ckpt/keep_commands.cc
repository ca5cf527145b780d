#include "grapnel/tools/ckpt/keep_commands.h"

#include <algorithm>
#include <cstdint>
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
#include "grapnel/io/retention.h"
#include "grapnel/io/run_checkpoints.h"
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
  std::string run;  // As in a manifest.
  int64_t bytes = 0;
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

// Of each run, those that are readable and whole, by its id.
using Runs = std::map<std::string, std::vector<const FolderCheckpoint*>>;

absl::StatusOr<Runs> RunsOf(const CheckpointFolder& folder,
                            const CkptCommand& command) {
  Runs runs;
  std::set<std::string> ids;
  for (const FolderCheckpoint& checkpoint : folder.checkpoints) {
    if (!checkpoint.has_manifest || checkpoint.manifest.partial()) continue;
    const std::string& run = checkpoint.manifest.run_uuid();
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

std::vector<Verdict> Decide(io::Env& env, const CheckpointFolder& folder,
                            const Runs& runs, io::RetentionRules rules) {
  std::vector<Verdict> verdicts;
  for (const auto& [run, checkpoints] : runs) {
    std::vector<io::RunCheckpoint> described;
    std::map<std::string, std::vector<const FolderCheckpoint*>> by_name;
    int64_t max_epochs = 0;
    for (const FolderCheckpoint* checkpoint : checkpoints) {
      max_epochs =
          std::max(max_epochs, checkpoint->manifest.progress().max_epochs());
      // A copy of the same name, in the other folder, shares its fate.
      std::vector<const FolderCheckpoint*>& same = by_name[checkpoint->name];
      same.push_back(checkpoint);
      if (same.size() > 1) continue;
      described.push_back(io::DescribeCheckpoint(checkpoint->manifest));
      described.back().name = checkpoint->name;
      described.back().pinned = io::IsPinned(env, checkpoint->path);
    }
    // A run by iteration has one epoch.
    rules.by_epoch = max_epochs > 1;
    for (io::RetentionVerdict& verdict :
         io::DecideRetention(described, rules)) {
      for (const FolderCheckpoint* checkpoint :
           by_name[verdict.checkpoint.name]) {
        Verdict own;
        own.path = checkpoint->path;
        own.run = run;
        own.bytes = BytesOf(env, checkpoint->path);
        for (const std::string& copy : io::ListCopies(env, checkpoint->path)) {
          own.bytes += BytesOf(env, copy);
        }
        own.reasons = verdict.reasons;
        if (checkpoint->is_last) own.reasons.push_back("last_checkpoint");
        verdicts.push_back(std::move(own));
      }
    }
  }
  return verdicts;
}

Json ToJson(const Verdict& verdict) {
  return {{"path", JsonText(verdict.path)},
          {"run", TextOrNull(absl::BytesToHexString(verdict.run))},
          {"bytes", verdict.bytes},
          {"stays", !verdict.reasons.empty()},
          {"reasons", verdict.reasons},
          {"error", TextOrNull(verdict.error)}};
}

std::string Describe(const Verdict& verdict, bool dry_run) {
  if (!verdict.reasons.empty()) {
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
  // Which folders there are is known before they are locked; the rest after.
  GRAPNEL_ASSIGN_OR_RETURN(CheckpointFolder folder,
                           ReadCheckpointFolder(env, dir));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<RunLock> lock,
                           LockFolders(env, "gc", folder.dirs));
  GRAPNEL_ASSIGN_OR_RETURN(folder, ReadCheckpointFolder(env, dir));
  std::vector<Verdict> verdicts;
  if (HasRules(command) || command.run.has_value()) {
    GRAPNEL_ASSIGN_OR_RETURN(const Runs runs, RunsOf(folder, command));
    GRAPNEL_RETURN_IF_ERROR(CheckMetric(command, runs));
    if (HasRules(command)) verdicts = Decide(env, folder, runs, rules);
  }

  int64_t bytes = 0;
  std::vector<std::string> undeleted = lock->warnings();
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
    if (verdict.reasons.empty() && !command.dry_run) {
      const absl::Status deleted =
          io::DeleteRunCheckpoint(env, verdict.path, verdict.run);
      if (!deleted.ok()) {
        verdict.error = std::string(deleted.message());
        undeleted.push_back(absl::StrCat(verdict.path, ": ", verdict.error));
      }
    }
    if (verdict.reasons.empty() && verdict.error.empty()) {
      bytes += verdict.bytes;
    }
    json["checkpoints"].push_back(ToJson(verdict));
    rows.push_back({verdict.path, FormatBytes(verdict.bytes),
                    Describe(verdict, command.dry_run)});
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
        << (command.dry_run ? "; nothing was changed" : "") << "\n";
    for (const std::string& line : undeleted) out << Printable(line) << "\n";
  }
  return undeleted.size() == lock->warnings().size() ? kDone : kRunFailed;
}

absl::StatusOr<ExitCode> PinCheckpoints(const CkptCommand& command,
                                        io::Env& env, std::ostream& out) {
  // All or none, as far as that can be known before.
  for (const std::string& path : command.paths) {
    GRAPNEL_RETURN_IF_ERROR(CheckIsCheckpoint(env, path));
  }
  Json json = {{"pinned", !command.remove}, {"checkpoints", Json::array()}};
  for (const std::string& path : command.paths) {
    const bool was = io::IsPinned(env, path);
    GRAPNEL_RETURN_IF_ERROR(io::PinCheckpoint(env, path, !command.remove));
    json["checkpoints"].push_back(
        {{"path", JsonText(path)}, {"was_pinned", was}});
    if (!command.json) {
      out << Printable(path) << ": "
          << (command.remove ? "not pinned" : "pinned")
          << (was == !command.remove ? " already" : "") << "\n";
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
