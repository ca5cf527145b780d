#include "grapnel/io/python_layouts.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/manifest_codec.h"
#include "grapnel/io/pth_objects.h"
#include "grapnel/io/safetensors_header.h"

namespace grapnel {
namespace io {
namespace {

using Kind = PthValue::Kind;

// Keys of a state_dict in a checkpoint.
constexpr const char* kStateDictKeys[] = {"state_dict", "model",
                                          "model_state_dict"};
// Keys that tell that it has averaged weights.
constexpr const char* kAverageKeys[] = {"ema_state_dict",
                                        "current_model_state"};
constexpr char kNumAveraged[] = "n_averaged";
constexpr char kExtraState[] = "_extra_state";
constexpr char kWrapped[] = "module.";
constexpr char kCompiled[] = "_orig_mod.";

bool IsDict(const std::optional<PthValue>& value) {
  return value.has_value() && value->kind() == Kind::kDict;
}

std::string DescriptionOf(const PthValue& value) {
  if (value.kind() == Kind::kOpaque) {
    return absl::StrCat("an object of ", QuotedName(value.type_name()),
                        ", which isn't made: save its state_dict()");
  }
  return absl::StrCat("of type ", QuotedName(value.type_name()));
}

// The first few keys of a dict.
std::string KeysOf(const PthValue& dict) {
  constexpr int64_t kShown = 8;
  std::vector<std::string> keys;
  for (int64_t i = 0; i < std::min(dict.size(), kShown); ++i) {
    const PthValue key = dict.key(i);
    keys.push_back(key.kind() == Kind::kString
                       ? QuotedName(key.string_value())
                       : absl::StrCat("one of type ", key.type_name()));
  }
  if (dict.size() > kShown) keys.push_back("...");
  return keys.empty() ? "nothing" : absl::StrJoin(keys, ", ");
}

using Entries = std::vector<NamedTensor>;

// Removes `prefix` if all names begin with it.
bool StripPrefix(absl::string_view prefix, Entries* entries) {
  if (entries->empty()) return false;
  for (const NamedTensor& entry : *entries) {
    if (!absl::StartsWith(entry.name, prefix)) return false;
  }
  for (NamedTensor& entry : *entries) entry.name.erase(0, prefix.size());
  return true;
}

// Removes what AveragedModel adds.
bool StripAverage(Entries* entries) {
  const auto count = std::find_if(
      entries->begin(), entries->end(),
      [](const NamedTensor& entry) { return entry.name == kNumAveraged; });
  if (count == entries->end()) return false;
  Entries rest(entries->begin(), count);
  rest.insert(rest.end(), count + 1, entries->end());
  if (!StripPrefix(kWrapped, &rest)) return false;
  *entries = std::move(rest);
  return true;
}

absl::StatusOr<PythonWeights> ReadStateDict(const PthValue& dict) {
  PythonWeights weights;
  for (int64_t i = 0; i < dict.size(); ++i) {
    const PthValue key = dict.key(i);
    const PthValue value = dict.value(i);
    if (key.kind() != Kind::kString) {
      return absl::InvalidArgumentError(
          absl::StrCat("has a key of type ", QuotedName(key.type_name())));
    }
    if (value.kind() == Kind::kTensor) {
      if (weights.tensors.size() == kMaxManifestTensors) {
        return absl::ResourceExhaustedError(
            absl::StrCat("has more than ", kMaxManifestTensors, " tensors"));
      }
      GRAPNEL_RETURN_IF_ERROR(
          weights.tensors.Add(std::string(key.string_value()), value.tensor()));
    } else if (IsExtraState(key.string_value())) {
      continue;
    } else if (const char* const kind = UnreadTensor(value.type_name())) {
      return absl::UnimplementedError(absl::StrCat(
          QuotedName(key.string_value()), " is ", kind, ", which isn't read"));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat(QuotedName(key.string_value()), " is no tensor, but ",
                       DescriptionOf(value)));
    }
  }
  return weights;
}

bool HasTensor(const PthValue& dict) {
  for (int64_t i = 0; i < dict.size(); ++i) {
    if (dict.value(i).kind() == Kind::kTensor) return true;
  }
  return false;
}

// Where a dict has its state_dict, if it does: without any tensor, what would
// be it.
const char* FindKey(const PthValue& root) {
  const char* without = nullptr;
  for (const char* const key : kStateDictKeys) {
    const std::optional<PthValue> states = root.Find(key);
    if (!IsDict(states)) continue;
    if (HasTensor(*states)) return key;
    if (without == nullptr) without = key;
  }
  return without;
}

}  // namespace

bool IsExtraState(absl::string_view name) {
  return absl::ConsumeSuffix(&name, kExtraState) &&
         (name.empty() || absl::EndsWith(name, "."));
}

absl::StatusOr<PythonWeights> FindStateDict(const PthValue& root) {
  const std::string keys =
      absl::StrCat("\"", absl::StrJoin(kStateDictKeys, "\", \""), "\"");
  if (root.kind() != Kind::kDict) {
    return absl::InvalidArgumentError(
        absl::StrCat("holds no weights: neither a state_dict nor a dict with "
                     "one under any of ",
                     keys, ", but ", DescriptionOf(root)));
  }
  if (const char* const key = FindKey(root)) {
    absl::StatusOr<PythonWeights> weights = ReadStateDict(*root.Find(key));
    if (!weights.ok()) {
      return WithContext(weights.status(), absl::StrCat("\"", key, "\""));
    }
    for (const char* const average : kAverageKeys) {
      if (IsDict(root.Find(average))) weights->averaged = true;
    }
    return weights;
  }
  absl::StatusOr<PythonWeights> weights = ReadStateDict(root);
  if (absl::IsInvalidArgument(weights.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat("holds no weights: has ", KeysOf(root),
                     "; a state_dict was looked for there and under any of ",
                     keys, ", and ", weights.status().message()));
  }
  return weights;
}

absl::StatusOr<PythonWeights> WithoutWrappers(const PythonWeights& weights) {
  Entries entries;
  for (const NamedTensor& tensor : weights.tensors) {
    if (!IsExtraState(tensor.name)) entries.push_back(tensor);
  }
  PythonWeights own;
  own.averaged = StripAverage(&entries) || weights.averaged;
  // One may wrap the other.
  const bool compiled = StripPrefix(kCompiled, &entries);
  StripPrefix(kWrapped, &entries);
  if (!compiled) StripPrefix(kCompiled, &entries);
  for (NamedTensor& entry : entries) {
    GRAPNEL_RETURN_IF_ERROR(CheckTensorName(entry.name));
    GRAPNEL_RETURN_IF_ERROR(
        own.tensors.Add(std::move(entry.name), std::move(entry.tensor)));
  }
  return own;
}

absl::StatusOr<PythonWeights> FindPythonWeights(const PthValue& root) {
  GRAPNEL_ASSIGN_OR_RETURN(const PythonWeights weights, FindStateDict(root));
  return WithoutWrappers(weights);
}

}  // namespace io
}  // namespace grapnel
