// What an out_dir of the configuration means.

#ifndef GRAPNEL_RUNNER_OUT_DIR_H_
#define GRAPNEL_RUNNER_OUT_DIR_H_

#include <string>

#include "absl/strings/string_view.h"

namespace grapnel {

// Whether two paths are one, by their text: ".", ".." and slashes too many
// don't count, links are not followed.
bool IsSamePath(absl::string_view a, absl::string_view b);

// The folder of a run under `out_dir`: out_dir/<last component of work_dir>, of
// "." the name of the folder that it is. A relative out_dir starts at
// `base_dir`. It is work_dir itself if out_dir is "" or work_dir. Absolute if
// work_dir is.
std::string RunFolderIn(absl::string_view out_dir, absl::string_view base_dir,
                        const std::string& work_dir);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_OUT_DIR_H_
