#include "grapnel/tools/ckpt/interruptible_env.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

absl::Status Stopped() { return absl::CancelledError("stopped by a signal"); }

class StoppableWriter : public io::WritableFile {
 public:
  StoppableWriter(std::unique_ptr<io::WritableFile> file,
                  const std::function<bool()>& stop)
      : file_(std::move(file)), stop_(stop) {}

  absl::Status Append(absl::string_view data) override {
    return stop_() ? Stopped() : file_->Append(data);
  }
  absl::Status Flush() override { return file_->Flush(); }
  absl::Status Sync() override { return file_->Sync(); }
  absl::Status Close() override { return file_->Close(); }

 private:
  const std::unique_ptr<io::WritableFile> file_;
  const std::function<bool()>& stop_;
};

class StoppableReader : public io::RandomAccessFile {
 public:
  StoppableReader(std::unique_ptr<io::RandomAccessFile> file,
                  const std::function<bool()>& stop)
      : file_(std::move(file)), stop_(stop) {}

  int64_t size() const override { return file_->size(); }
  absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
    return stop_() ? Stopped() : file_->Read(offset, n, buffer);
  }

 private:
  const std::unique_ptr<io::RandomAccessFile> file_;
  const std::function<bool()>& stop_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<io::WritableFile>>
InterruptibleEnv::NewWritableFile(const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<io::WritableFile> file,
                           target().NewWritableFile(path));
  return std::make_unique<StoppableWriter>(std::move(file), stop_);
}

absl::StatusOr<std::unique_ptr<io::RandomAccessFile>>
InterruptibleEnv::NewRandomAccessFile(const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<io::RandomAccessFile> file,
                           target().NewRandomAccessFile(path));
  return std::make_unique<StoppableReader>(std::move(file), stop_);
}

}  // namespace grapnel
