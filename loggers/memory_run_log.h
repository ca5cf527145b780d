// A run's log that tests look into.

#ifndef GRAPNEL_LOGGERS_MEMORY_RUN_LOG_H_
#define GRAPNEL_LOGGERS_MEMORY_RUN_LOG_H_

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grapnel/loggers/run_log.h"

namespace grapnel {

// Safe to use from many threads.
class MemoryRunLog : public RunLog {
 public:
  void Write(Level level, absl::string_view message) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    lines_.emplace_back(level, std::string(message));
  }

  void Warning(absl::string_view message) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!warned_.insert(std::string(message)).second) return;
    lines_.emplace_back(Level::kWarning, std::string(message));
  }

  absl::Status Flush() override { return absl::OkStatus(); }

  // All messages so far, in order.
  std::vector<std::string> messages() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> messages;
    for (const auto& line : lines_) messages.push_back(line.second);
    return messages;
  }

  // Those of one level.
  std::vector<std::string> messages(Level level) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> messages;
    for (const auto& line : lines_) {
      if (line.first == level) messages.push_back(line.second);
    }
    return messages;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<Level, std::string>> lines_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> warned_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace grapnel

#endif  // GRAPNEL_LOGGERS_MEMORY_RUN_LOG_H_
