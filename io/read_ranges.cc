#include "grapnel/io/read_ranges.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/base/thread.h"
#include "grapnel/io/crc32.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kTaskSize = 8 << 20;
constexpr int64_t kChunkSize = 256 << 10;  // Still cached when it is summed up.
constexpr int64_t kMinBytesOfThread = 16 << 20;
constexpr int64_t kMaxThreads = 4;

// What one thread takes at a time: a part of a range.
struct Task {
  ReadRange part;
  size_t range;
};

std::vector<Task> SplitRanges(absl::Span<const ReadRange> ranges) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < ranges.size(); ++i) {
    for (int64_t at = 0; at < ranges[i].num_bytes; at += kTaskSize) {
      ReadRange part;
      part.offset = ranges[i].offset + at;
      part.num_bytes = std::min(kTaskSize, ranges[i].num_bytes - at);
      part.buffer =
          ranges[i].buffer == nullptr ? nullptr : ranges[i].buffer + at;
      tasks.push_back({part, i});
    }
  }
  return tasks;
}

class TaskQueue {
 public:
  TaskQueue(const RandomAccessFile& file, std::vector<Task>& tasks)
      : file_(file), tasks_(tasks) {}

  // Does tasks until there is none left. Called by every thread.
  void Work() {
    std::unique_ptr<char[]> scratch;
    for (size_t i = next_++; i < tasks_.size(); i = next_++) {
      const absl::Status status = Do(tasks_[i].part, scratch);
      if (status.ok()) continue;
      absl::MutexLock lock(&mutex_);
      error_.Update(status);
      next_ = tasks_.size();
    }
  }

  absl::Status error() const {
    absl::MutexLock lock(&mutex_);
    return error_;
  }

 private:
  absl::Status Do(ReadRange& part, std::unique_ptr<char[]>& scratch) {
    if (part.buffer == nullptr && scratch == nullptr) {
      scratch.reset(new (std::nothrow) char[kChunkSize]);
      if (scratch == nullptr) {
        return absl::ResourceExhaustedError("no memory to read into");
      }
    }
    for (int64_t at = 0; at < part.num_bytes; at += kChunkSize) {
      const int64_t n = std::min(kChunkSize, part.num_bytes - at);
      char* const chunk =
          part.buffer == nullptr ? scratch.get() : part.buffer + at;
      const absl::Status status = file_.Read(part.offset + at, n, chunk);
      if (!status.ok()) return status;
      part.crc32 = Crc32({chunk, static_cast<size_t>(n)}, part.crc32);
    }
    return absl::OkStatus();
  }

  const RandomAccessFile& file_;
  std::vector<Task>& tasks_;
  std::atomic<size_t> next_{0};
  mutable absl::Mutex mutex_;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
};

int64_t NumThreads(absl::Span<const ReadRange> ranges) {
  int64_t num_bytes = 0;
  for (const ReadRange& range : ranges) num_bytes += range.num_bytes;
  const auto available =
      static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::min({kMaxThreads, available, num_bytes / kMinBytesOfThread});
}

}  // namespace

absl::Status ReadRanges(const RandomAccessFile& file,
                        absl::Span<ReadRange> ranges) {
  std::vector<Task> tasks = SplitRanges(ranges);
  TaskQueue queue(file, tasks);
  const int64_t num_threads = NumThreads(ranges);
  std::vector<std::thread> threads;
  threads.reserve(kMaxThreads);
  auto join = absl::MakeCleanup([&threads] {
    for (std::thread& thread : threads) thread.join();
  });
  for (int64_t i = 1; i < num_threads; ++i) {
    absl::StatusOr<std::thread> thread =
        StartThread("grapnel_read", [&queue] { queue.Work(); });
    if (!thread.ok()) break;  // The others do its share.
    threads.push_back(*std::move(thread));
  }
  queue.Work();
  std::move(join).Invoke();
  const absl::Status error = queue.error();
  if (!error.ok()) return error;
  for (ReadRange& range : ranges) range.crc32 = 0;
  for (const Task& task : tasks) {
    ReadRange& range = ranges[task.range];
    range.crc32 = JoinCrc32(range.crc32, task.part.crc32, task.part.num_bytes);
  }
  return absl::OkStatus();
}

}  // namespace io
}  // namespace grapnel
