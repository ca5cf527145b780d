// A file in a report.

#ifndef GRAPNEL_TOOLS_CKPT_SIZED_FILE_H_
#define GRAPNEL_TOOLS_CKPT_SIZED_FILE_H_

#include <cstdint>
#include <string>

namespace grapnel {

struct SizedFile {
  std::string path;
  int64_t bytes = 0;
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_SIZED_FILE_H_
