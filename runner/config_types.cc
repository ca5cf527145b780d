#include "grapnel/runner/config_types.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "grapnel/base/any_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/suggestion.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/transform.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/averaging/averaging_strategy.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::Message;

// The last part of a type's name.
std::string LastName(absl::string_view full_name) {
  return std::string(full_name.substr(full_name.rfind('.') + 1));
}

bool IsNamed(absl::string_view full_name, absl::string_view name) {
  return full_name == name ||
         absl::EndsWith(full_name, absl::StrCat(".", name));
}

absl::Status UnknownType(absl::string_view name,
                         const std::vector<std::string>& registered) {
  std::vector<std::string> last_names;
  for (const std::string& full_name : registered) {
    last_names.push_back(LastName(full_name));
  }
  // Both ways of writing it are near: take the better one.
  const std::string typed = LastName(name);
  std::string suggestion = DidYouMean(typed, last_names);
  if (suggestion.empty()) {
    suggestion = DidYouMean(absl::StrCat(typed, "Config"), last_names);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no message type \"", name, "\" is linked in",
                   suggestion.empty() ? "; depend on the target that defines it"
                                      : suggestion));
}

}  // namespace

std::vector<std::string> RegisteredConfigTypes() {
  std::vector<std::string> names;
  for (std::vector<std::string> (*list)() :
       {&AveragingStrategyRegistry::ConfigNames, &DatasetRegistry::ConfigNames,
        &HookRegistry::ConfigNames, &LayerRegistry::ConfigNames,
        &LogBackendRegistry::ConfigNames, &LossRegistry::ConfigNames,
        &MetricRegistry::ConfigNames, &ModelRegistry::ConfigNames,
        &OptimizerRegistry::ConfigNames, &ParamSchedulerRegistry::ConfigNames,
        &TransformRegistry::ConfigNames}) {
    const std::vector<std::string> more = list();
    names.insert(names.end(), more.begin(), more.end());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

absl::StatusOr<const Descriptor*> FindConfigType(absl::string_view name) {
  const Descriptor* const found = FindMessageType(name);
  // An Any in an Any says nothing, and would let text nest without limit.
  if (found == Any::descriptor()) {
    return absl::InvalidArgumentError("an Any may not hold another one");
  }
  if (found != nullptr) return found;

  name = name.substr(name.rfind('/') + 1);  // npos + 1 == 0: all of it.
  const std::vector<std::string> registered = RegisteredConfigTypes();
  for (const std::string& spelled :
       {std::string(name), absl::StrCat(name, "Config")}) {
    std::vector<std::string> candidates;
    for (const std::string& full_name : registered) {
      if (IsNamed(full_name, spelled)) candidates.push_back(full_name);
    }
    if (candidates.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", name, "\" may be ", absl::StrJoin(candidates, " or "),
          "; write it in full"));
    }
    if (candidates.size() == 1) return FindMessageType(candidates[0]);
  }
  return UnknownType(name, registered);
}

absl::StatusOr<std::unique_ptr<Message>> UnpackConfig(const Any& any) {
  GRAPNEL_ASSIGN_OR_RETURN(const Descriptor* type,
                           FindConfigType(any.type_url()));
  return UnpackAs(*type, any);
}

void PackConfig(const Message& message, Any* any) {
  any->set_type_url(absl::StrCat("type.googleapis.com/",
                                 message.GetDescriptor()->full_name()));
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializePartialToCodedStream(&coded);
  }
  any->set_value(std::move(bytes));
}

}  // namespace grapnel
