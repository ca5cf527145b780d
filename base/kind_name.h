// Which member of a config's oneof is set.

#ifndef GRAPNEL_BASE_KIND_NAME_H_
#define GRAPNEL_BASE_KIND_NAME_H_

#include <string>

namespace google {
namespace protobuf {
class Message;
}  // namespace protobuf
}  // namespace google

namespace grapnel {

// The name of the field that is set in the oneof `kind` of a config that
// chooses among implementations (base/registry.h): "adamw"; "" if none is. For
// messages that say where in a config something is wrong.
std::string KindName(const google::protobuf::Message& config);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_KIND_NAME_H_
