#include "grapnel/runner/out_dir.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace {

namespace fs = std::filesystem;

fs::path Normal(absl::string_view path) {
  std::error_code error;
  const fs::path normal =
      fs::absolute(std::string(path), error).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

}  // namespace

bool IsSamePath(absl::string_view a, absl::string_view b) {
  return Normal(a) == Normal(b);
}

std::string RunFolderIn(absl::string_view out_dir, absl::string_view base_dir,
                        const std::string& work_dir) {
  if (out_dir.empty()) return work_dir;
  const std::string out = io::JoinPath(base_dir, out_dir);
  const fs::path normal_work_dir = Normal(work_dir);
  if (Normal(out) == normal_work_dir) return work_dir;
  return io::JoinPath(
      absl::StartsWith(work_dir, "/") ? Normal(out).string() : out,
      normal_work_dir.filename().string());
}

}  // namespace grapnel
