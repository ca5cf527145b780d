#include "grapnel/runner/load_options.h"

#include <cstddef>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/runner/runner_config.pb.h"
#include "re2/re2.h"

namespace grapnel {
namespace {

constexpr char kModel[] = "model";

absl::StatusOr<std::unique_ptr<RE2>> Compile(const std::string& pattern) {
  // It would match everywhere.
  if (pattern.empty()) return absl::InvalidArgumentError("is empty");
  auto compiled = std::make_unique<RE2>(pattern, RE2::Quiet);
  if (compiled->ok()) return compiled;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", pattern, "\": ", compiled->error()));
}

bool HoldsNamesOf(const TensorMap& model, const TensorMap& section) {
  for (const NamedTensor& tensor : section) {
    if (model.Find(tensor.name) == nullptr) return false;
  }
  return !section.empty();
}

}  // namespace

LoadRules::LoadRules() = default;
LoadRules::LoadRules(LoadRules&&) noexcept = default;
LoadRules& LoadRules::operator=(LoadRules&&) noexcept = default;
LoadRules::~LoadRules() = default;

absl::StatusOr<LoadRules> LoadRules::Create(
    const runner::v1::LoadOptions& options) {
  LoadRules rules;
  for (int i = 0; i < options.exclude_size(); ++i) {
    auto pattern = Compile(options.exclude(i));
    if (!pattern.ok()) {
      return WithContext(pattern.status(), absl::StrCat("exclude[", i, "]"));
    }
    rules.exclude_.push_back(*std::move(pattern));
  }
  for (int i = 0; i < options.rename_size(); ++i) {
    const runner::v1::LoadOptions::Rename& rename = options.rename(i);
    const std::string field = absl::StrCat("rename[", i, "]");
    auto pattern = Compile(rename.pattern());
    if (!pattern.ok()) {
      return WithContext(pattern.status(), absl::StrCat(field, ": pattern"));
    }
    std::string error;
    if (!(*pattern)->CheckRewriteString(rename.replacement(), &error)) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": replacement: \"", rename.replacement(), "\": ", error));
    }
    rules.rename_.push_back({*std::move(pattern), rename.replacement()});
  }
  return rules;
}

absl::StatusOr<TensorMap> LoadRules::ApplyTo(const TensorMap& tensors,
                                             std::vector<bool>* matched) const {
  TensorMap taken;
  absl::flat_hash_map<std::string, std::string> names;  // New to old.
  for (const NamedTensor& tensor : tensors) {
    bool excluded = false;
    for (size_t i = 0; i < exclude_.size(); ++i) {
      if (!RE2::PartialMatch(tensor.name, *exclude_[i])) continue;
      excluded = true;
      (*matched)[i] = true;
    }
    if (excluded) continue;
    std::string name = tensor.name;
    for (size_t i = 0; i < rename_.size(); ++i) {
      if (RE2::GlobalReplace(&name, *rename_[i].pattern,
                             rename_[i].replacement) > 0) {
        (*matched)[exclude_.size() + i] = true;
      }
    }
    if (name.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "rename: nothing is left of the name \"", tensor.name, "\""));
    }
    const auto [it, is_new] = names.emplace(name, tensor.name);
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("rename: \"", it->second, "\" and \"", tensor.name,
                       "\" both become \"", name, "\""));
    }
    GRAPNEL_RETURN_IF_ERROR(taken.Add(std::move(name), tensor.tensor));
  }
  return taken;
}

absl::Status LoadRules::Apply(io::CheckpointContents* contents,
                              std::vector<std::string>* warnings) const {
  if (exclude_.empty() && rename_.empty()) return absl::OkStatus();
  const TensorMap* const found = contents->FindSection(kModel);
  if (found == nullptr) return absl::OkStatus();
  const TensorMap model = *found;
  std::vector<bool> matched(exclude_.size() + rename_.size());
  for (auto& [name, tensors] : contents->sections) {
    if (!HoldsNamesOf(model, tensors)) continue;
    GRAPNEL_ASSIGN_OR_RETURN(tensors, ApplyTo(tensors, &matched));
  }
  for (size_t i = 0; i < matched.size(); ++i) {
    if (matched[i]) continue;
    const bool is_exclude = i < exclude_.size();
    const size_t k = is_exclude ? i : i - exclude_.size();
    warnings->push_back(absl::StrCat(
        is_exclude ? "exclude[" : "rename[", k, "]: no name matches \"",
        (is_exclude ? *exclude_[k] : *rename_[k].pattern).pattern(), "\""));
  }
  return absl::OkStatus();
}

}  // namespace grapnel
