#include "grapnel/capi/callback_run_log.h"

#include <cstddef>
#include <mutex>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/utf8.h"
#include "grapnel/capi/library_thread.h"

namespace grapnel::capi {
namespace {

grapnel_severity SeverityOf(RunLog::Level level) {
  switch (level) {
    case RunLog::Level::kDebug:
    case RunLog::Level::kInfo:
      return GRAPNEL_INFO;
    case RunLog::Level::kWarning:
      return GRAPNEL_WARNING;
    case RunLog::Level::kError:
      break;
  }
  return GRAPNEL_ERROR;
}

class CallbackRunLog final : public RunLog {
 public:
  CallbackRunLog(grapnel_log_callback callback, void* user_data, Level level,
                 std::unique_ptr<RunLog> terminal)
      : callback_(callback),
        user_data_(user_data),
        level_(level),
        terminal_(std::move(terminal)) {}

  void Write(Level level, absl::string_view message) override {
    if (terminal_ != nullptr) terminal_->Write(level, message);
    if (level < level_) return;
    const std::string text = EscapeToUtf8(message);
    const CallbackScope scope;
    const std::lock_guard<std::mutex> lock(callback_mutex_);
    callback_(user_data_, SeverityOf(level), text.data(), text.size());
  }

  void Warning(absl::string_view message) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // Hashes, for programs that put a number into each of their warnings.
      if (!warned_.insert(absl::Hash<absl::string_view>()(message)).second) {
        return;
      }
    }
    Write(Level::kWarning, message);
  }

  absl::Status Flush() override {
    return terminal_ == nullptr ? absl::OkStatus() : terminal_->Flush();
  }

  void SetStatusLine(absl::string_view text) override {
    if (terminal_ != nullptr) terminal_->SetStatusLine(text);
  }
  int StatusColumns() override {
    return terminal_ == nullptr ? 0 : terminal_->StatusColumns();
  }

 private:
  const grapnel_log_callback callback_;
  void* const user_data_;
  const Level level_;
  const std::unique_ptr<RunLog> terminal_;
  std::mutex callback_mutex_;  // Held while the callback is called.
  std::mutex mutex_;
  absl::flat_hash_set<size_t> warned_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<RunLog> MakeRunLog(grapnel_log_callback callback,
                                   void* user_data, RunLog::Level level,
                                   std::unique_ptr<RunLog> terminal) {
  return std::make_unique<CallbackRunLog>(callback, user_data, level,
                                          std::move(terminal));
}

}  // namespace grapnel::capi
