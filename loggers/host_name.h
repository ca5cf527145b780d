// What this machine is called.

#ifndef GRAPNEL_LOGGERS_HOST_NAME_H_
#define GRAPNEL_LOGGERS_HOST_NAME_H_

#include <string>

namespace grapnel {

// For names of files and of runs. "localhost" if the system doesn't say; what
// can't be in a file's name is "_".
std::string HostName();

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_HOST_NAME_H_
