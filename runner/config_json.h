// Configurations as JSON, for showing them.

#ifndef GRAPNEL_RUNNER_CONFIG_JSON_H_
#define GRAPNEL_RUNNER_CONFIG_JSON_H_

#include <string>
#include <utility>
#include <vector>

namespace google {
namespace protobuf {
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// The fields of `config` that are set, in their order, each with its value as
// one line of JSON: {"train_cfg", "{\"max_epochs\": 20}"}.
//
// Protobuf's own JSON has 64-bit integers as strings, which nobody can plot;
// here they are numbers. Enum values, inf and nan are strings; maps are
// objects, by key. What an Any holds stands under its type's name, null if it
// can't be read; an Any of a type that isn't linked in is null.
std::vector<std::pair<std::string, std::string>> ConfigToJson(
    const google::protobuf::Message& config);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_CONFIG_JSON_H_
