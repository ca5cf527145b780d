// An Env for a command that a signal may stop.

#ifndef GRAPNEL_TOOLS_CKPT_INTERRUPTIBLE_ENV_H_
#define GRAPNEL_TOOLS_CKPT_INTERRUPTIBLE_ENV_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"

namespace grapnel {

// Once `stop` has returned true nothing more is read or written, which is
// kCancelled; what is being written is then undone as after any error. Safe to
// use from many threads.
class InterruptibleEnv : public io::EnvWrapper {
 public:
  // `target` outlives this. `stop` is asked before every read and write, by any
  // thread.
  InterruptibleEnv(io::Env& target, std::function<bool()> stop)
      : EnvWrapper(target), stop_(std::move(stop)) {}

  absl::StatusOr<std::unique_ptr<io::WritableFile>> NewWritableFile(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override;

 private:
  const std::function<bool()> stop_;
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_INTERRUPTIBLE_ENV_H_
