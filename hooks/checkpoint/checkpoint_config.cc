#include "grapnel/hooks/checkpoint/checkpoint_config.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "google/protobuf/repeated_field.h"
#include "grapnel/base/check_field.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/hooks/checkpoint/publish_checkpoint.h"

namespace grapnel {
namespace {

using RepeatedString = google::protobuf::RepeatedPtrField<std::string>;

constexpr size_t kMaxTemplateSize = 60;
constexpr size_t kMaxIndicatorSize = 100;

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

absl::Status CheckSaveBest(const CheckpointConfig& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct("save_best", config.save_best()));
  std::set<std::string> file_names;
  for (const std::string& indicator : config.save_best()) {
    if (indicator == kAutoIndicator && config.save_best_size() > 1) {
      return absl::InvalidArgumentError(
          "save_best: \"auto\" must be the only one");
    }
    if (!IsPrintable(indicator) || indicator.size() > kMaxIndicatorSize) {
      return absl::InvalidArgumentError(absl::StrCat(
          "save_best: must have up to ", kMaxIndicatorSize,
          " printable characters, is \"", absl::CEscape(indicator), "\""));
    }
    if (!file_names.insert(IndicatorFileName(indicator)).second) {
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

absl::Status CheckRetention(const CheckpointConfig& config) {
  const bool has_limit = config.max_keep_ckpts() > 0;
  for (const auto& [set, field] :
       {std::make_pair(config.has_keep_every(), "keep_every"),
        std::make_pair(config.has_keep_minutes(), "keep_minutes")}) {
    if (!set || has_limit) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": must be unset without max_keep_ckpts, which keeps all"));
  }
  GRAPNEL_RETURN_IF_ERROR(
      CheckField(!config.has_keep_every() || config.keep_every() >= 1,
                 "keep_every", ">= 1", config.keep_every()));
  GRAPNEL_RETURN_IF_ERROR(CheckField(
      !config.has_keep_minutes() ||
          (std::isfinite(config.keep_minutes()) && config.keep_minutes() > 0),
      "keep_minutes", "finite and > 0", config.keep_minutes()));
  return CheckField(std::isfinite(config.interval_minutes()) &&
                        config.interval_minutes() >= 0,
                    "interval_minutes", "finite and >= 0",
                    config.interval_minutes());
}

absl::Status CheckAlsoWrite(const RepeatedString& formats) {
  GRAPNEL_RETURN_IF_ERROR(CheckDistinct("also_write", formats));
  for (const std::string& format : formats) {
    if (format == kSafetensorsFormat || format == kPthFormat) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("also_write: must be \"", kPthFormat, "\" or \"",
                     kSafetensorsFormat, "\", is \"", format, "\""));
  }
  return absl::OkStatus();
}

absl::StatusOr<MetricKeys> KeysOf(const CheckpointConfig& config) {
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

}  // namespace

CheckpointConfig WithDefaultOptions(CheckpointConfig config) {
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

std::string IndicatorFileName(absl::string_view indicator) {
  return absl::StrReplaceAll(indicator, {{"/", "_"}});
}

absl::Status CheckCheckpointConfig(const CheckpointConfig& config) {
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
  GRAPNEL_RETURN_IF_ERROR(CheckRetention(config));
  GRAPNEL_RETURN_IF_ERROR(CheckAlsoWrite(config.also_write()));
  GRAPNEL_RETURN_IF_ERROR(KeysOf(config).status());
  for (const std::string& rule : config.rule()) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(ParseMetricRule(rule).status(), "rule"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Indicator> MakeIndicator(const CheckpointConfig& config,
                                        int index, const std::string& name) {
  Indicator indicator;
  indicator.name = name;
  // One rule is for all.
  const int rule = config.rule_size() == 1 ? 0 : index;
  if (rule < config.rule_size()) {
    auto parsed = ParseMetricRule(config.rule(rule));
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

}  // namespace grapnel
