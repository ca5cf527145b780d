// Files in memory, of bytes that somebody else keeps.

#ifndef GRAPNEL_TESTS_FUZZ_BYTES_ENV_H_
#define GRAPNEL_TESTS_FUZZ_BYTES_ENV_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/log.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/mem_env.h"

namespace grapnel {

// Ends the process if a reader asks for what no file has: a reader knows the
// size.
class BytesFile final : public io::RandomAccessFile {
 public:
  // `bytes` outlive this.
  explicit BytesFile(absl::string_view bytes) : bytes_(bytes) {}

  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }

  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    GRAPNEL_CHECK(offset >= 0 && n >= 0 && offset <= size() &&
                  n <= size() - offset)
        << n << " bytes at " << offset << " of " << size();
    if (n > 0) std::memcpy(buffer, bytes_.data() + offset, n);
    return absl::OkStatus();
  }

 private:
  const absl::string_view bytes_;
};

// A file system with nothing but such files.
class BytesEnv final : public io::EnvWrapper {
 public:
  // By their paths. The bytes outlive this.
  explicit BytesEnv(std::map<std::string, absl::string_view> files)
      : io::EnvWrapper(empty_), files_(std::move(files)) {}

  absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    const auto found = files_.find(path);
    if (found == files_.end()) return target().NewRandomAccessFile(path);
    return std::make_unique<BytesFile>(found->second);
  }
  bool FileExists(const std::string& path) override {
    return files_.count(path) > 0 || target().FileExists(path);
  }

 private:
  io::MemEnv empty_;
  const std::map<std::string, absl::string_view> files_;
};

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_FUZZ_BYTES_ENV_H_
