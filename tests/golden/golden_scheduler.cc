#include "grapnel/tests/golden/golden_scheduler.h"

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace grapnel {
namespace {

using Json = nlohmann::ordered_json;

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string& message) override {
    if (text.empty()) text = message;
  }
  std::string text;
};

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
  google::protobuf::TextFormat::Parser parser;
  FirstError error;
  parser.RecordErrorsTo(&error);
  const std::string text =
      absl::StrCat(kKinds.at(std::string(family)), " { ", fields, "}");
  if (!parser.ParseFromString(text, &config)) {
    return absl::InvalidArgumentError(absl::StrCat(text, ": ", error.text));
  }
  return config;
}

}  // namespace grapnel
