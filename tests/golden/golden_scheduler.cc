#include "grapnel/tests/golden/golden_scheduler.h"

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/text_proto.h"

namespace grapnel {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

absl::StatusOr<optim::v1::ParamSchedulerConfig> GoldenSchedulerConfig(
    const Json& arguments) {
  static const auto& kKinds = *new std::map<std::string, std::string>{
      {"Constant", "constant"},
      {"CosineAnnealing", "cosine_annealing"},
      {"CosineRestart", "cosine_restart"},
      {"Exponential", "exponential"},
      {"Linear", "linear"},
      {"MultiStep", "multi_step"},
      {"OneCycle", "one_cycle"},
      {"Poly", "poly"},
      {"ReduceOnPlateau", "reduce_on_plateau"},
      {"Step", "step"}};
  const std::string cls =
      arguments.contains("cls") ? arguments["cls"] : arguments["type"];
  absl::string_view family = cls;
  std::string fields;
  // Python's classes name the option, ours have a field.
  if (absl::ConsumeSuffix(&family, "Momentum")) {
    fields = "param_name: \"momentum\" ";
  } else if (!absl::ConsumeSuffix(&family, "LR")) {
    absl::ConsumeSuffix(&family, "ParamScheduler");
  }
  for (const auto& [name, value] : arguments.items()) {
    if (name == "cls" || name == "type" || name == "last_step") continue;
    if (name == "epoch_length") {
      absl::StrAppend(&fields, "convert_to_iter_based: true ");
    } else {
      absl::StrAppend(&fields, name == "T_max" ? "t_max" : name, ": ",
                      value.dump(), " ");
    }
  }
  optim::v1::ParamSchedulerConfig config;
  const std::string text =
      absl::StrCat(kKinds.at(std::string(family)), " { ", fields, "}");
  GRAPNEL_RETURN_IF_ERROR(WithContext(ParseTextProto(text, &config), text));
  return config;
}

}  // namespace grapnel
