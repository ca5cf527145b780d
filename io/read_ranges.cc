#include "grapnel/io/read_ranges.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "grapnel/base/thread.h"
#include "grapnel/io/crc32.h"

namespace grapnel {
namespace io {
namespace {

constexpr int64_t kTaskSize = 8 << 20;
// What is read is still cached when it is its turn, and when it is summed up.
constexpr int64_t kOrderedTaskSize = 1 << 20;
constexpr int64_t kChunkSize = 256 << 10;
constexpr int64_t kMinBytesOfThread = 16 << 20;
constexpr int64_t kMaxThreads = 4;

// What one thread takes at a time: a part of a range.
struct Task {
  ReadRange part;
  size_t range;
};

std::vector<Task> SplitRanges(absl::Span<const ReadRange> ranges,
                              int64_t task_size) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < ranges.size(); ++i) {
    for (int64_t at = 0; at < ranges[i].num_bytes; at += task_size) {
      ReadRange part;
      part.offset = ranges[i].offset + at;
      part.num_bytes = std::min(task_size, ranges[i].num_bytes - at);
      part.buffer =
          ranges[i].buffer == nullptr ? nullptr : ranges[i].buffer + at;
      tasks.push_back({part, i});
    }
  }
  return tasks;
}

int64_t NumThreads(const std::vector<Task>& tasks) {
  int64_t num_bytes = 0;
  for (const Task& task : tasks) num_bytes += task.part.num_bytes;
  const auto available =
      static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::min({kMaxThreads, available, num_bytes / kMinBytesOfThread});
}

struct TaskError {
  size_t task;
  absl::Status status;
};

// Does `tasks`, in their order, each on any of the threads, until one fails.
// Returns the first that did: all before it were done.
template <typename Do>  // absl::Status(size_t task)
std::optional<TaskError> DoTasks(const std::vector<Task>& tasks,
                                 const Do& do_task) {
  std::atomic<size_t> next{0};
  absl::Mutex mutex;
  std::optional<TaskError> error;
  const auto work = [&] {
    for (size_t i = next++; i < tasks.size(); i = next++) {
      const absl::Status status = do_task(i);
      if (status.ok()) continue;
      absl::MutexLock lock(&mutex);
      if (!error.has_value() || i < error->task) error = {i, status};
      next = tasks.size();
    }
  };
  const int64_t num_threads = NumThreads(tasks);
  std::vector<std::thread> threads;
  threads.reserve(kMaxThreads);
  {
    const auto join = absl::MakeCleanup([&threads] {
      for (std::thread& thread : threads) thread.join();
    });
    for (int64_t i = 1; i < num_threads; ++i) {
      absl::StatusOr<std::thread> thread = StartThread("grapnel_read", work);
      if (!thread.ok()) break;  // The others do its share.
      threads.push_back(*std::move(thread));
    }
    work();
  }
  return error;
}

absl::Status ReadAndSum(const RandomAccessFile& file, ReadRange& part) {
  std::unique_ptr<char[]> scratch;
  if (part.buffer == nullptr) {
    const int64_t size = std::min(kChunkSize, part.num_bytes);
    scratch.reset(new (std::nothrow) char[static_cast<size_t>(size)]);
    if (scratch == nullptr) {
      return absl::ResourceExhaustedError("no memory to read into");
    }
  }
  for (int64_t at = 0; at < part.num_bytes; at += kChunkSize) {
    const int64_t n = std::min(kChunkSize, part.num_bytes - at);
    char* const chunk =
        part.buffer == nullptr ? scratch.get() : part.buffer + at;
    const absl::Status status = file.Read(part.offset + at, n, chunk);
    if (!status.ok()) return status;
    part.crc32 = Crc32({chunk, static_cast<size_t>(n)}, part.crc32);
  }
  return absl::OkStatus();
}

// Has each task's turn come after that of the one before. Takes the turns of
// others along, so that no thread waits.
class Turns {
 public:
  using Reader = absl::FunctionRef<void(absl::string_view bytes)>;

  Turns(const std::vector<Task>& tasks, Reader reader)
      : tasks_(tasks), reader_(reader), ready_(tasks.size()) {}

  void Ready(size_t task) {
    absl::MutexLock lock(&mutex_);
    ready_[task] = true;
    if (taken_) return;
    taken_ = true;
    for (; next_ < tasks_.size() && ready_[next_]; ++next_) {
      const ReadRange& part = tasks_[next_].part;
      mutex_.Unlock();
      reader_({part.buffer, static_cast<size_t>(part.num_bytes)});
      mutex_.Lock();
    }
    taken_ = false;
  }

 private:
  const std::vector<Task>& tasks_;
  const Reader reader_;
  absl::Mutex mutex_;
  std::vector<bool> ready_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::Status ReadRanges(const RandomAccessFile& file,
                        absl::Span<ReadRange> ranges) {
  std::vector<Task> tasks = SplitRanges(ranges, kTaskSize);
  const std::optional<TaskError> error =
      DoTasks(tasks, [&](size_t i) { return ReadAndSum(file, tasks[i].part); });
  if (error.has_value()) return error->status;
  for (ReadRange& range : ranges) range.crc32 = 0;
  for (const Task& task : tasks) {
    ReadRange& range = ranges[task.range];
    range.crc32 = JoinCrc32(range.crc32, task.part.crc32, task.part.num_bytes);
  }
  return absl::OkStatus();
}

absl::Status ReadRangesInOrder(
    const RandomAccessFile& file, absl::Span<const ReadRange> ranges,
    absl::FunctionRef<void(absl::string_view bytes)> reader, size_t* failed) {
  const std::vector<Task> tasks = SplitRanges(ranges, kOrderedTaskSize);
  Turns turns(tasks, reader);
  const std::optional<TaskError> error = DoTasks(tasks, [&](size_t i) {
    const ReadRange& part = tasks[i].part;
    const absl::Status status =
        file.Read(part.offset, part.num_bytes, part.buffer);
    if (status.ok()) turns.Ready(i);
    return status;
  });
  if (!error.has_value()) return absl::OkStatus();
  *failed = tasks[error->task].range;
  return error->status;
}

}  // namespace io
}  // namespace grapnel
