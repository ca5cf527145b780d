#include "grapnel/hooks/checkpoint/checkpoint_hook.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <tuple>
#include <variant>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "google/protobuf/repeated_field.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/hooks/checkpoint/best_checkpoints.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_files.h"
#include "grapnel/io/digest.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/out_dir.h"

namespace grapnel {
namespace {

using Config = CheckpointHook::Config;
using hooks::v1::BestCheckpoint;
using RepeatedString = google::protobuf::RepeatedPtrField<std::string>;

constexpr char kAuto[] = "auto";
constexpr char kBestPrefix[] = "best_";
constexpr size_t kMaxTemplateSize = 60;
constexpr size_t kMaxIndicatorSize = 100;

// Parts of a checkpoint's manifest that can be published.
constexpr char kConfigPart[] = "config";
constexpr char kMetricsPart[] = "metrics";

Config WithDefaults(Config config) {
  if (!config.has_interval()) config.set_interval(-1);
  if (!config.has_by_epoch()) config.set_by_epoch(true);
  if (!config.has_max_keep_ckpts()) config.set_max_keep_ckpts(-1);
  if (!config.has_save_last()) config.set_save_last(true);
  if (!config.has_save_optimizer()) config.set_save_optimizer(true);
  if (!config.has_save_param_scheduler()) {
    config.set_save_param_scheduler(true);
  }
  if (!config.has_filename_tmpl()) {
    config.set_filename_tmpl(config.by_epoch() ? "epoch_{}" : "iter_{}");
  }
  if (!config.has_keep_best()) config.set_keep_best(1);
  if (!config.has_save_best_optimizer()) config.set_save_best_optimizer(true);
  return config;
}

absl::Status CheckDistinct(absl::string_view field,
                           const RepeatedString& values) {
  std::set<std::string> seen;
  for (const std::string& value : values) {
    if (value.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": must not be empty"));
    }
    if (!seen.insert(value).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": must be distinct, has \"", value, "\" twice"));
    }
  }
  return absl::OkStatus();
}

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c));
  });
}

absl::Status CheckTemplate(const std::string& tmpl) {
  const size_t at = tmpl.find("{}");
  if (at != std::string::npos && tmpl.find("{}", at + 2) == std::string::npos &&
      tmpl.size() <= kMaxTemplateSize && IsPrintable(tmpl) &&
      !absl::StrContains(tmpl, '/') && !absl::StartsWith(tmpl, ".") &&
      !absl::StartsWith(tmpl, kBestPrefix)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "filename_tmpl: must contain \"{}\" once, have up to ", kMaxTemplateSize,
      " printable characters without \"/\" and not begin with \".\" or \"",
      kBestPrefix, "\", is \"", absl::CEscape(tmpl), "\""));
}

// As part of a checkpoint's name.
std::string FileName(absl::string_view indicator) {
  return absl::StrReplaceAll(indicator, {{"/", "_"}});
}

absl::Status CheckSaveBest(const Config& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct("save_best", config.save_best()));
  std::set<std::string> file_names;
  for (const std::string& indicator : config.save_best()) {
    if (indicator == kAuto && config.save_best_size() > 1) {
      return absl::InvalidArgumentError(
          "save_best: \"auto\" must be the only one");
    }
    if (!IsPrintable(indicator) || indicator.size() > kMaxIndicatorSize) {
      return absl::InvalidArgumentError(absl::StrCat(
          "save_best: must have up to ", kMaxIndicatorSize,
          " printable characters, is \"", absl::CEscape(indicator), "\""));
    }
    if (!file_names.insert(FileName(indicator)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("save_best: \"", indicator,
                       "\" would have the file names of another one"));
    }
  }
  if (config.rule_size() > 1 && config.rule_size() != config.save_best_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rule: must be one, or one for each of save_best (",
                     config.save_best_size(), "), has ", config.rule_size()));
  }
  if (config.save_best_size() == 0 &&
      (config.rule_size() > 0 || config.has_keep_best())) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.rule_size() > 0 ? "rule" : "keep_best",
                     ": must be unset without save_best"));
  }
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(!config.has_keep_best() || config.keep_best() >= 1,
                 "keep_best", ">= 1", config.keep_best()));
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct("greater_keys", config.greater_keys()));
  return CheckDistinct("less_keys", config.less_keys());
}

absl::Status CheckPublishedKeys(const RepeatedString& keys) {
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct("published_keys", keys));
  bool has_part = keys.empty();
  for (const std::string& key : keys) {
    has_part = has_part || (key != kConfigPart && key != kMetricsPart);
    const bool valid = std::all_of(key.begin(), key.end(), [](char c) {
      return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
    });
    if (!valid) {
      return absl::InvalidArgumentError(
          absl::StrCat("published_keys: must be of a-z, 0-9 and _, is \"",
                       absl::CEscape(key), "\""));
    }
  }
  if (has_part) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "published_keys: must name a section or blob, as \"model\"");
}

absl::StatusOr<MetricKeys> KeysOf(const Config& config) {
  MetricKeys keys;
  if (config.greater_keys_size() > 0) {
    keys.greater.assign(config.greater_keys().begin(),
                        config.greater_keys().end());
  }
  if (config.less_keys_size() > 0) {
    keys.less.assign(config.less_keys().begin(), config.less_keys().end());
  }
  for (const std::string& key : keys.less) {
    if (std::find(keys.greater.begin(), keys.greater.end(), key) !=
        keys.greater.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("less_keys: \"", key, "\" is in greater_keys too"));
    }
  }
  return keys;
}

absl::StatusOr<double> ScoreOf(const Metrics& metrics,
                               const std::string& indicator) {
  std::vector<std::string> names;
  for (const auto& [name, value] : metrics) {
    names.push_back(name);
    if (name != indicator) continue;
    if (const auto* number = std::get_if<double>(&value)) return *number;
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      return static_cast<double>(*integer);
    }
    return absl::InvalidArgumentError(
        absl::StrCat("save_best: \"", indicator, "\" is a text and no number"));
  }
  return absl::NotFoundError(absl::StrCat(
      "save_best: there is no metric \"", indicator, "\", there are ",
      absl::StrJoin(names, ", "), DidYouMean(indicator, names)));
}

// Leaves only what has a name in `keys`; the names of the rest, and of keys
// that name nothing.
void KeepOnly(const RepeatedString& keys, io::CheckpointContents* contents,
              std::vector<std::string>* dropped,
              std::vector<std::string>* missing) {
  std::set<std::string> unused(keys.begin(), keys.end());
  std::set<std::string> wanted = unused;
  const auto keep = [&](const std::string& name) {
    unused.erase(name);
    if (wanted.count(name) > 0) return true;
    dropped->push_back(name);
    return false;
  };
  const auto filter = [&](auto* parts) {
    parts->erase(
        std::remove_if(parts->begin(), parts->end(),
                       [&](const auto& part) { return !keep(part.first); }),
        parts->end());
  };
  filter(&contents->sections);
  filter(&contents->blobs);
  if (!keep(kConfigPart)) contents->manifest().clear_config();
  if (!keep(kMetricsPart)) contents->manifest().clear_metrics();
  missing->assign(unused.begin(), unused.end());
}

void AddMetrics(const Metrics& metrics, io::v1::CheckpointManifest* manifest) {
  for (const auto& [name, value] : metrics) {
    if (const auto* number = std::get_if<double>(&value)) {
      (*manifest->mutable_metrics())[name] = *number;
    } else if (const auto* integer = std::get_if<int64_t>(&value)) {
      (*manifest->mutable_metrics())[name] = static_cast<double>(*integer);
    }
  }
}

// Eight digits that differ if the content does.
std::string DigestOf(const io::CheckpointContents& contents) {
  const io::v1::CheckpointManifest& manifest = contents.manifest();
  std::map<std::string, std::string> digests;
  for (const io::v1::FileRecord& file : manifest.files()) {
    digests[file.name()] = file.xxh3_128();
  }
  std::string text;
  const auto append = [&](const auto& parts, absl::string_view suffix) {
    for (const auto& part : parts) {
      const std::string file = absl::StrCat(part.first, suffix);
      absl::StrAppend(&text, file, "\n", digests[file]);
    }
  };
  append(contents.sections, io::kSectionSuffix);
  append(contents.blobs, io::kBlobSuffix);
  absl::StrAppend(&text, "\n", manifest.config(), "\n");
  const std::map<std::string, double> metrics(manifest.metrics().begin(),
                                              manifest.metrics().end());
  for (const auto& [name, value] : metrics) {
    absl::StrAppend(&text, name, absl::StrFormat(" %a\n", value));
  }
  return absl::BytesToHexString(io::Xxh3Digest128(text).substr(0, 4));
}

}  // namespace

// ------------------------------------------------------------------- set-up

absl::StatusOr<CheckpointHook::Indicator> CheckpointHook::MakeIndicator(
    const Config& config, const std::string& name, absl::string_view rule) {
  Indicator indicator;
  indicator.name = name;
  if (!rule.empty()) {
    auto parsed = ParseMetricRule(rule);
    if (!parsed.ok()) return WithContext(parsed.status(), "rule");
    indicator.rule = *parsed;
    return indicator;
  }
  GRAPNEL_ASSIGN_OR_RETURN(const MetricKeys keys, KeysOf(config));
  const std::optional<InferredRule> inferred = InferMetricRule(name, keys);
  if (!inferred) {
    return absl::InvalidArgumentError(
        absl::StrCat("rule: must be set, \"greater\" or \"less\": the name \"",
                     name, "\" doesn't tell which values are better"));
  }
  indicator.rule = inferred->rule;
  const bool listed = config.greater_keys_size() + config.less_keys_size() > 0;
  if (!listed || !inferred->whole_name) {
    indicator.warning = absl::StrCat(
        "save_best: by its name, ", MetricRuleName(inferred->rule),
        " values of \"", name, "\" are better; set rule to be sure");
  }
  return indicator;
}

absl::StatusOr<std::unique_ptr<CheckpointHook>> CheckpointHook::Create(
    const Config& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckField(config.save_begin() >= 0, "save_begin",
                                     ">= 0", config.save_begin()));
  if (config.has_out_dir() && config.out_dir().empty()) {
    return absl::InvalidArgumentError("out_dir: must not be empty");
  }
  if (config.has_filename_tmpl()) {
    GRAPNEL_RETURN_IF_ERROR(CheckTemplate(config.filename_tmpl()));
  }
  GRAPNEL_RETURN_IF_ERROR(CheckSaveBest(config));
  GRAPNEL_RETURN_IF_ERROR(CheckPublishedKeys(config.published_keys()));
  GRAPNEL_RETURN_IF_ERROR(KeysOf(config).status());
  for (const std::string& rule : config.rule()) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(ParseMetricRule(rule).status(), "rule"));
  }
  std::vector<Indicator> indicators;
  for (int i = 0; i < config.save_best_size(); ++i) {
    if (config.save_best(i) == kAuto) continue;
    const int rule = config.rule_size() == 1 ? 0 : i;
    GRAPNEL_ASSIGN_OR_RETURN(
        Indicator indicator,
        MakeIndicator(config, config.save_best(i),
                      rule < config.rule_size() ? config.rule(rule) : ""));
    indicators.push_back(std::move(indicator));
  }
  return absl::WrapUnique(new CheckpointHook(config, std::move(indicators)));
}

CheckpointHook::CheckpointHook(const Config& config,
                               std::vector<Indicator> indicators)
    : config_(WithDefaults(config)),
      auto_(config.save_best_size() > 0 && indicators.empty()),
      indicators_(std::move(indicators)) {}

absl::Status CheckpointHook::AfterRestore(
    RunContext& run, const io::CheckpointContents& contents) {
  if (run.resumed_from().empty()) return absl::OkStatus();
  run_uuid_ = contents.manifest().run_uuid();
  TakeOver(run);
  return absl::OkStatus();
}

absl::Status CheckpointHook::BeforeTrain(RunContext& run) {
  // One that was given in code: the run knows only what its config says.
  if (config_.has_out_dir() &&
      !IsSamePath(
          RunFolderIn(config_.out_dir(), run.base_dir(), run.work_dir()),
          run.checkpoint_dir())) {
    return absl::InvalidArgumentError(
        "out_dir: must be set in the configuration, default_hooks { checkpoint "
        "{ out_dir } }: all of a run looks for its checkpoints there");
  }
  run.log().Info(
      absl::StrCat("Checkpoints will be saved to ", run.checkpoint_dir(), "."));
  if (config_.save_best_size() > 0 && run.dataloader(Mode::kVal) == nullptr) {
    run.log().Warning(
        "save_best: there is no validation, so there will be no best one");
  }
  for (Indicator& indicator : indicators_) {
    if (!indicator.warning.empty()) run.log().Warning(indicator.warning);
    indicator.warning.clear();
  }
  if (config_.by_epoch() && !run.by_epoch() &&
      (config_.interval() > 0 || config_.save_best_size() > 0)) {
    run.log().Warning(
        "by_epoch: is true, and a run by iteration is one epoch: there will be "
        "no checkpoint before its end, and one name for all best ones");
  }
  CheckBest(run);
  GRAPNEL_RETURN_IF_ERROR(FindAuto(run));
  SortBest();
  // What a call before has asked for and could not write replaces nothing yet.
  if (being_saved_.empty()) DeleteSurplusBest(run);
  const auto& kept = state_.kept();
  const bool waits =
      !kept.empty() && !run.env().FileExists(PathOf(run, *kept.rbegin()));
  DeleteOld(run, kept.size() - (waits ? 1 : 0));
  return absl::OkStatus();
}

void CheckpointHook::TakeOver(RunContext& run) {
  absl::string_view resumed_from = run.resumed_from();
  while (absl::ConsumeSuffix(&resumed_from, "/")) {
  }
  last_path_ = std::string(resumed_from);
  const std::string name = io::Basename(resumed_from);
  const std::string here = PathOf(run, name);
  if (here != resumed_from &&
      !io::IsSameCheckpoint(run.env(), here, run.resumed_from())) {
    // What the other folder's run made is not ours to delete here.
    state_.clear_kept();
    state_.clear_last();
    for (BestCheckpoint& best : *state_.mutable_best()) best.clear_name();
    return;
  }
  auto newer = ReadBestCheckpoints(run.env(), run.checkpoint_dir(), run_uuid_);
  if (absl::IsNotFound(newer.status())) {  // Where it was before.
    newer = ReadBestCheckpoints(run.env(), run.work_dir(), run_uuid_);
  }
  if (newer.ok()) {
    *state_.mutable_best() = *std::move(newer);
  } else if (!absl::IsNotFound(newer.status())) {
    run.log().Warning(newer.status().message());
  }
  if (name == state_.last()) {
    last_saved_ = CountOf(run);
  }
  if (config_.max_keep_ckpts() <= 0) return;
  const auto resumed = io::ReadManifest(run.env(), here);
  if (resumed.ok()) FindKept(run, *resumed);
}

void CheckpointHook::FindKept(RunContext& run,
                              const io::v1::CheckpointManifest& resumed) {
  using Age = std::tuple<int64_t, int64_t, int64_t, std::string>;
  const auto age_of = [](const io::v1::CheckpointManifest& manifest) {
    return Age(manifest.progress().iter(), manifest.progress().epoch(),
               manifest.created_unix_nanos(), manifest.name());
  };
  std::set<Age> found;
  for (const std::string& dir : {run.checkpoint_dir(), run.work_dir()}) {
    const auto names = run.env().ListDir(dir);
    if (!names.ok()) continue;  // Then nothing is there to be deleted.
    for (const std::string& name : *names) {
      if (!IsKept(name) && !IsPeriodicName(name)) continue;
      const auto manifest =
          io::ReadManifest(run.env(), io::JoinPath(dir, name));
      // A newer one is of what the run gave up when it went back; its name
      // comes again.
      if (manifest.ok() && manifest->run_uuid() == run_uuid_ &&
          !manifest->partial() && age_of(*manifest) <= age_of(resumed)) {
        found.insert(age_of(*manifest));
      }
    }
  }
  state_.clear_kept();
  for (const Age& age : found) {
    if (!IsKept(std::get<3>(age))) state_.add_kept(std::get<3>(age));
  }
}

bool CheckpointHook::IsPeriodicName(absl::string_view name) const {
  const std::string& tmpl = config_.filename_tmpl();
  const size_t at = tmpl.find("{}");
  const std::pair<absl::string_view, absl::string_view> forms[] = {
      {absl::string_view(tmpl).substr(0, at),
       absl::string_view(tmpl).substr(at + 2)},
      // Of an interrupt, or by the default of before.
      {"epoch_", ""},
      {"iter_", ""}};
  for (const auto& [prefix, suffix] : forms) {
    absl::string_view number = name;
    if (absl::ConsumePrefix(&number, prefix) &&
        absl::ConsumeSuffix(&number, suffix) && !number.empty() &&
        std::all_of(number.begin(), number.end(), [](char c) {
          return absl::ascii_isdigit(static_cast<unsigned char>(c));
        })) {
      return true;
    }
  }
  return false;
}

void CheckpointHook::CheckBest(RunContext& run) {
  BestCheckpointList checked;
  best_paths_.clear();
  for (BestCheckpoint& best : *state_.mutable_best()) {
    if (!best.name().empty() && !IsBeingSaved(best.name())) {
      const auto manifest =
          io::ReadManifest(run.env(), PathOf(run, best.name()));
      // Missing if the run was killed then, or if it was deleted by hand.
      if (!manifest.ok() && !absl::IsNotFound(manifest.status())) {
        run.log().Warning(absl::StrCat("save_best: passed over ",
                                       manifest.status().message()));
      }
      if (!manifest.ok() || manifest->run_uuid() != run_uuid_) continue;
      best_paths_[best.name()] = PathOf(run, best.name());
      const auto score = manifest->metrics().find(best.indicator());
      if (score != manifest->metrics().end()) best.set_score(score->second);
    }
    *checked.Add() = std::move(best);
  }
  *state_.mutable_best() = std::move(checked);
}

void CheckpointHook::SortBest() {
  for (const Indicator& indicator : indicators_) {
    std::stable_sort(state_.mutable_best()->begin(),
                     state_.mutable_best()->end(),
                     [&](const BestCheckpoint& a, const BestCheckpoint& b) {
                       return a.indicator() == indicator.name &&
                              b.indicator() == indicator.name &&
                              IsBetter(indicator.rule, a.score(), b.score());
                     });
  }
}

absl::Status CheckpointHook::FindAuto(RunContext& run) {
  if (!auto_ || !indicators_.empty() || state_.best().empty()) {
    return absl::OkStatus();
  }
  const std::string& name = state_.best(0).indicator();
  for (const BestCheckpoint& best : state_.best()) {
    if (best.indicator() != name) return absl::OkStatus();  // Not known.
  }
  return SetAuto(run, name);
}

absl::Status CheckpointHook::SetAuto(RunContext& run, const std::string& name) {
  GRAPNEL_ASSIGN_OR_RETURN(
      Indicator indicator,
      MakeIndicator(config_, name,
                    config_.rule_size() > 0 ? config_.rule(0) : ""));
  if (!indicator.warning.empty()) run.log().Warning(indicator.warning);
  indicators_.push_back(std::move(indicator));
  return absl::OkStatus();
}

// ------------------------------------------------------ periodic checkpoints

absl::Status CheckpointHook::AfterTrainIter(RunContext& run, const IterInfo&,
                                            const LogVars&) {
  if (config_.by_epoch()) return absl::OkStatus();
  const int64_t count = run.iter() + 1;
  if (EveryN(count, config_.interval(), config_.save_begin()) ||
      (config_.save_last() && count == run.max_iters())) {
    return Save(run, count);
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::AfterTrainEpoch(RunContext& run) {
  if (!config_.by_epoch()) return absl::OkStatus();
  const int64_t count = run.epoch() + 1;
  if (EveryN(count, config_.interval(), config_.save_begin()) ||
      (config_.save_last() && count == run.max_epochs())) {
    return Save(run, count);
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::AfterTrain(RunContext& run) {
  publish_ = config_.published_keys_size() > 0;
  if (run.stop_reason().empty() || !config_.save_last()) {
    return absl::OkStatus();
  }
  const int64_t count = CountOf(run);
  return count == last_saved_ ? absl::OkStatus() : Save(run, count);
}

int64_t CheckpointHook::CountOf(const RunContext& run) const {
  if (!config_.by_epoch()) return run.iter();
  // An iteration-based loop has one epoch.
  return run.by_epoch() ? run.epoch() : 1;
}

std::string CheckpointHook::NameOf(int64_t count) const {
  return absl::StrReplaceAll(config_.filename_tmpl(),
                             {{"{}", absl::StrCat(count)}});
}

absl::Status CheckpointHook::Save(RunContext& run, int64_t count) {
  run.log().Info(absl::StrCat("Saving checkpoint at ", count, " ",
                              config_.by_epoch() ? "epochs" : "iterations"));
  SaveRequest request;
  request.name = NameOf(count);
  request.dir = run.checkpoint_dir();
  request.optimizer = config_.save_optimizer();
  request.param_schedulers = config_.save_param_scheduler();
  // Before it is written, so that the checkpoint knows of itself; the newest is
  // last.
  if (config_.max_keep_ckpts() > 0) {
    auto& kept = *state_.mutable_kept();
    kept.erase(std::remove(kept.begin(), kept.end(), request.name), kept.end());
    *kept.Add() = request.name;
  }
  state_.set_last(request.name);
  last_saved_ = count;
  return run.Save(std::move(request));
}

bool CheckpointHook::IsKept(const std::string& name) const {
  const auto& kept = state_.kept();
  return std::find(kept.begin(), kept.end(), name) != kept.end();
}

void CheckpointHook::DeleteOld(RunContext& run, int64_t num_written) {
  DeleteRemains(run);
  if (config_.max_keep_ckpts() <= 0) return;
  auto& kept = *state_.mutable_kept();
  int64_t surplus = num_written - config_.max_keep_ckpts();
  for (auto name = kept.begin(); surplus > 0; --surplus) {
    if (Delete(run, std::string(*name))) {
      name = kept.erase(name);
    } else {
      ++name;
    }
  }
}

// out_dir may be new; and one of an interrupt was once in work_dir, wherever
// the others were.
std::string CheckpointHook::PathOf(RunContext& run,
                                   const std::string& name) const {
  const std::string path = io::JoinPath(run.checkpoint_dir(), name);
  const std::string other = io::JoinPath(run.work_dir(), name);
  return !run.env().FileExists(path) && run.env().FileExists(other) ? other
                                                                    : path;
}

bool CheckpointHook::Delete(RunContext& run, const std::string& name) {
  if (io::Basename(name) != name) return true;  // Not from here.
  const std::string path = PathOf(run, name);
  const auto manifest = io::ReadManifest(run.env(), path);
  if (absl::IsNotFound(manifest.status())) return true;
  if (manifest.ok() ? manifest->run_uuid() != run_uuid_
                    : absl::IsDataLoss(manifest.status())) {
    run.log().Warning(
        absl::StrCat(path, " isn't deleted: ",
                     manifest.ok() ? absl::string_view("another run made it")
                                   : manifest.status().message()));
    return true;
  }
  const absl::Status status =
      manifest.ok() ? io::DeleteCheckpoint(run.env(), path) : manifest.status();
  if (status.ok()) return true;
  // The run is as good as it was, and the reason may go away.
  if (undeletable_.insert(name).second) {
    run.log().Warning(absl::StrCat(path,
                                   " can't be deleted now: ", status.message(),
                                   "; it is tried again at the next save"));
  }
  remains_ = true;
  return false;
}

void CheckpointHook::DeleteRemains(RunContext& run) {
  if (!remains_) return;
  // Nobody else writes here. What went wrong has been said.
  std::vector<std::string> undeleted;
  bool all = true;
  for (const std::string& dir : {run.checkpoint_dir(), run.work_dir()}) {
    all = io::RemoveLeftovers(run.env(), dir, &undeleted).ok() && all;
  }
  remains_ = !all || !undeleted.empty();
}

absl::Status CheckpointHook::BeforeSaveCheckpoint(
    RunContext& run, io::CheckpointContents& contents) {
  run_uuid_ = contents.manifest().run_uuid();
  // What it says and isn't written, for a kill may come in between, is found
  // missing by the run that resumes; what was written and isn't said would be
  // left for ever.
  return best_changed_ ? WriteBest(run) : absl::OkStatus();
}

absl::Status CheckpointHook::AfterSaveCheckpoint(RunContext& run,
                                                 const SavedCheckpoint& saved) {
  const auto best = being_saved_.find(saved.id);
  if (best != being_saved_.end()) {
    run.log().Info(best->second.message);
    being_saved_.erase(best);
    best_paths_[saved.name] = saved.path;
    DeleteSurplusBest(run);
    if (best_changed_) GRAPNEL_RETURN_IF_ERROR(WriteBest(run));
  }
  if (!saved.is_last) return absl::OkStatus();
  last_path_ = saved.path;
  state_.set_last(saved.name);
  if (config_.max_keep_ckpts() > 0 && !IsKept(saved.name)) {
    state_.add_kept(saved.name);
  }
  DeleteOld(run, state_.kept_size());
  return absl::OkStatus();
}

// ---------------------------------------------------------- best checkpoints

absl::Status CheckpointHook::AfterValEpoch(RunContext& run,
                                           const Metrics& metrics) {
  if (!run.training()) return absl::OkStatus();
  metrics_iter_ = run.iter();
  metrics_ = metrics;
  if (config_.save_best_size() == 0) return absl::OkStatus();
  if (metrics.empty()) {
    run.log().Warning("save_best: the validation gave no metrics");
    return absl::OkStatus();
  }
  if (auto_ && indicators_.empty()) {
    GRAPNEL_RETURN_IF_ERROR(SetAuto(run, metrics.front().first));
  }
  std::vector<double> scores;  // All are there before any is recorded.
  for (const Indicator& indicator : indicators_) {
    GRAPNEL_ASSIGN_OR_RETURN(const double score,
                             ScoreOf(metrics, indicator.name));
    scores.push_back(score);
  }
  const int64_t count = config_.by_epoch() ? run.epoch() : run.iter();
  for (size_t i = 0; i < indicators_.size(); ++i) {
    const Indicator& indicator = indicators_[i];
    SaveRequest request;
    request.name =
        absl::StrCat(kBestPrefix, FileName(indicator.name), "_", NameOf(count));
    const std::optional<int> place =
        AddBest(indicator, scores[i], request.name);
    if (!place) continue;
    best_changed_ = true;
    BeingSaved best;
    best.name = request.name;
    best.message = absl::StrFormat(
        "The %sbest checkpoint with %0.4f %s at %d %s is saved to %s.",
        *place == 0 ? "" : absl::StrCat("number ", *place + 1, " "), scores[i],
        indicator.name, count, config_.by_epoch() ? "epoch" : "iter",
        request.name);
    request.update_last_checkpoint = false;
    request.dir = run.checkpoint_dir();
    request.optimizer = config_.save_best_optimizer();
    request.param_schedulers = config_.save_best_optimizer();
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t id,
                             run.RequestSave(std::move(request)));
    being_saved_[id] = std::move(best);
  }
  return absl::OkStatus();
}

bool CheckpointHook::IsBeingSaved(absl::string_view name) const {
  return std::any_of(
      being_saved_.begin(), being_saved_.end(),
      [name](const auto& save) { return save.second.name == name; });
}

std::vector<std::string> CheckpointHook::best_metrics() const {
  std::vector<std::string> names;
  for (const Indicator& indicator : indicators_) {
    names.push_back(indicator.name);
  }
  return names;
}

std::optional<CheckpointHook::Best> CheckpointHook::best_checkpoint(
    absl::string_view metric) const {
  for (const BestCheckpoint& record : state_.best()) {
    if (record.indicator() != metric) continue;
    if (record.name().empty()) return Best{"", record.score()};
    // One that is only asked for: the one before is still there.
    const auto path = best_paths_.find(record.name());
    if (path == best_paths_.end() || IsBeingSaved(record.name())) continue;
    return Best{path->second, record.score()};
  }
  return std::nullopt;
}

std::optional<int> CheckpointHook::AddBest(const Indicator& indicator,
                                           double score,
                                           const std::string& name) {
  if (!std::isfinite(score)) return std::nullopt;
  // Older versions took an infinity for the best.
  const auto beats = [&](const BestCheckpoint& record) {
    return !std::isfinite(record.score()) ||
           IsBetter(indicator.rule, score, record.score());
  };
  std::vector<BestCheckpoint> others, best;
  for (const BestCheckpoint& record : state_.best()) {
    if (record.indicator() != indicator.name) {
      others.push_back(record);
    } else if (record.name() != name) {
      best.push_back(record);
    } else if (!beats(record)) {
      return std::nullopt;  // It would replace a better one.
    }
  }
  const auto place = std::find_if(best.begin(), best.end(), beats);
  const auto index = static_cast<int>(place - best.begin());
  if (index >= config_.keep_best()) return std::nullopt;
  BestCheckpoint record;
  record.set_indicator(indicator.name);
  record.set_score(score);
  record.set_name(name);
  best.insert(place, std::move(record));
  // The ones this pushes out are deleted when it is written.
  others.insert(others.end(), best.begin(), best.end());
  *state_.mutable_best() = BestCheckpointList(others.begin(), others.end());
  return index;
}

void CheckpointHook::DeleteSurplusBest(RunContext& run) {
  for (const Indicator& indicator : indicators_) {
    int64_t count = 0;
    auto& best = *state_.mutable_best();
    for (auto record = best.begin(); record != best.end();) {
      if (record->indicator() != indicator.name ||
          ++count <= config_.keep_best()) {
        ++record;
        continue;
      }
      const std::string name = record->name();
      // "": another folder's.
      if (!name.empty() && !Delete(run, name)) {
        ++record;
        continue;
      }
      record = best.erase(record);
      best_paths_.erase(name);
      best_changed_ = true;
      if (name.empty()) continue;
      run.log().Info(
          absl::StrCat("The previous best checkpoint ", name, " is removed"));
    }
  }
}

absl::Status CheckpointHook::WriteBest(RunContext& run) {
  // The first thing there may be.
  GRAPNEL_RETURN_IF_ERROR(run.env().CreateDir(run.checkpoint_dir()));
  GRAPNEL_RETURN_IF_ERROR(WriteBestCheckpoints(run.env(), run.checkpoint_dir(),
                                               run_uuid_, state_.best()));
  best_changed_ = false;
  return absl::OkStatus();
}

// --------------------------------------------------------------- publishing

// A run that could not save its end has nothing to publish yet.
void CheckpointHook::OnError(RunContext&, const absl::Status&) {
  failed_ = true;
}

// Not in AfterTrain: what is asked for there is written after it.
absl::Status CheckpointHook::AfterRun(RunContext& run) {
  // Kept for the call that goes on.
  if (!publish_ || std::exchange(failed_, false)) return absl::OkStatus();
  publish_ = false;
  if (config_.save_last() && !state_.last().empty()) {
    GRAPNEL_RETURN_IF_ERROR(Publish(run, state_.last()));
  }
  for (const Indicator& indicator : indicators_) {
    const auto best =
        std::find_if(state_.best().begin(), state_.best().end(),
                     [&](const BestCheckpoint& record) {
                       return record.indicator() == indicator.name;
                     });
    if (best == state_.best().end() || best->name().empty()) {
      run.log().Warning(absl::StrCat("published_keys: there is no best \"",
                                     indicator.name, "\" to publish"));
      continue;
    }
    GRAPNEL_RETURN_IF_ERROR(Publish(run, best->name()));
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::Publish(RunContext& run, const std::string& name) {
  auto contents = io::ReadCheckpoint(run.env(), PathOf(run, name));
  if (absl::IsNotFound(contents.status())) {
    run.log().Warning(
        absl::StrCat("published_keys: ", contents.status().message()));
    return absl::OkStatus();
  }
  if (!contents.ok()) return WithContext(contents.status(), "published_keys");
  // One that was saved before its validation may have metrics now. What older
  // versions wrote there is of the validation before.
  if (contents->manifest().progress().validation_pending() ||
      contents->manifest().metrics().empty()) {
    contents->manifest().clear_metrics();
    if (contents->manifest().progress().iter() == metrics_iter_) {
      AddMetrics(metrics_, &contents->manifest());
    }
  }
  std::vector<std::string> dropped, missing;
  KeepOnly(config_.published_keys(), &*contents, &dropped, &missing);
  if (!missing.empty()) {
    run.log().Warning(absl::StrCat("published_keys: ", name, " has no ",
                                   absl::StrJoin(missing, ", ")));
  }
  if (contents->sections.empty() && contents->blobs.empty()) {
    run.log().Warning(absl::StrCat("published_keys: nothing of ", name,
                                   " would be left, it isn't published"));
    return absl::OkStatus();
  }
  contents->manifest().set_partial(true);
  const std::string published = absl::StrCat(name, "-", DigestOf(*contents));
  const std::string& dir = run.checkpoint_dir();
  if (io::ReadManifest(run.env(), io::JoinPath(dir, published)).ok()) {
    return absl::OkStatus();  // By a run that ended here before.
  }
  GRAPNEL_RETURN_IF_ERROR(
      WithContext(io::WriteCheckpoint(run.env(), dir, published, *contents),
                  "published_keys"));
  run.log().Info(absl::StrCat("The checkpoint ", name, " is published as ",
                              published, ", without ",
                              absl::StrJoin(dropped, ", ")));
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(CheckpointHook);

}  // namespace grapnel
