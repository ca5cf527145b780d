// An Env where somebody else acts at the last moment before an operation.

#ifndef GRAPNEL_IO_MEANWHILE_ENV_H_
#define GRAPNEL_IO_MEANWHILE_ENV_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"

namespace grapnel {
namespace io {

// Calls `act` once, before `path` is renamed or locked for the first time.
class MeanwhileEnv : public EnvWrapper {
 public:
  MeanwhileEnv(Env& target, std::string path, std::function<void()> act)
      : EnvWrapper(target), path_(std::move(path)), act_(std::move(act)) {}

  absl::Status Rename(const std::string& from, const std::string& to) override {
    ActBefore(from);
    return EnvWrapper::Rename(from, to);
  }
  absl::StatusOr<std::unique_ptr<FileLock>> LockFile(
      const std::string& path) override {
    ActBefore(path);
    return EnvWrapper::LockFile(path);
  }

 private:
  void ActBefore(const std::string& path) {
    if (path == path_ && act_ != nullptr) std::exchange(act_, nullptr)();
  }

  const std::string path_;
  std::function<void()> act_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_MEANWHILE_ENV_H_
