#include "grapnel/data/stream_loader.h"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/thread.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/collate.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/device_copier.h"
#include "grapnel/data/loader_config.h"
#include "grapnel/data/stream_position.pb.h"
#include "grapnel/data/transform_chain.h"

namespace grapnel {
namespace {

using data::v1::DataLoaderConfig;
using data::v1::StreamPosition;

// Beyond any real run, and far from overflow.
constexpr int64_t kMaxCount = int64_t{1} << 60;

bool IsSame(const StreamPosition& a, const StreamPosition& b) {
  return a.pass() == b.pass() && a.samples() == b.samples() &&
         a.has_state() == b.has_state() && a.state() == b.state();
}

struct ReadBatch {
  Batch batch;
  StreamPosition after;
};

// Reads one batch after another. For one thread at a time.
class StreamReader {
 public:
  StreamReader(const DataLoaderConfig& config,
               std::unique_ptr<IterableDataset> stream,
               TransformChain transforms, const StreamLoader::Options& options,
               const PinnedMemory& memory)
      : stream_(std::move(stream)),
        transforms_(std::move(transforms)),
        memory_(memory),
        batch_size_(config.batch_size()),
        drop_last_(config.drop_last()),
        round_(options.sharded ? 1 : options.world_size),
        own_(options.sharded ? 0 : options.rank),
        index_step_(options.sharded ? options.world_size : 1),
        index_offset_(options.sharded ? options.rank : 0) {}

  // Before the first Read, and after an error.
  absl::Status Restore(const StreamPosition& position);

  // kCancelled, at the next sample, once `cancelled` is set.
  absl::Status Read(const std::atomic<bool>& cancelled, ReadBatch* read);

 private:
  absl::Status BeginPass(int64_t pass);

  // The stream's next sample; false at the end of the pass.
  absl::StatusOr<bool> NextOfStream(Sample* sample);
  // This rank's, and its index in the pass.
  absl::StatusOr<bool> NextOfRank(Sample* sample, int64_t* index);

  // The samples of a batch.
  absl::Status Collect(const std::atomic<bool>& cancelled,
                       std::vector<Sample>* samples,
                       std::vector<int64_t>* indices);
  absl::Status NoBatch() const;
  std::string StateName() const {
    return absl::StrCat("stream: state after ", samples_, " samples of pass ",
                        pass_);
  }
  absl::Status SavePosition(StreamPosition* position);

  const std::unique_ptr<IterableDataset> stream_;
  const TransformChain transforms_;
  const PinnedMemory memory_;  // Of batches.
  const int64_t batch_size_;
  const bool drop_last_;
  // Of so many samples of the stream one is this rank's, at this place.
  const int round_;
  const int own_;
  // From the place in the stream to the index.
  const int64_t index_step_;
  const int64_t index_offset_;

  int64_t pass_ = 0;
  int64_t samples_ = 0;  // That the stream has given in this pass.
};

absl::Status StreamReader::BeginPass(int64_t pass) {
  pass_ = pass;
  samples_ = 0;
  return WithContext(CatchAsStatus([&] { return stream_->BeginPass(pass); }),
                     absl::StrCat("stream: pass ", pass));
}

absl::StatusOr<bool> StreamReader::NextOfStream(Sample* sample) {
  bool given = false;
  absl::Status status = CatchAsStatus([&]() -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(given, stream_->Next(sample));
    return absl::OkStatus();
  });
  if (!status.ok()) {
    return WithContext(std::move(status), absl::StrCat("stream: pass ", pass_,
                                                       ": sample ", samples_));
  }
  samples_ += given;
  return given;
}

absl::StatusOr<bool> StreamReader::NextOfRank(Sample* sample, int64_t* index) {
  for (int i = 0; i < round_; ++i) {
    Sample other;
    if (i == own_) *index = samples_ * index_step_ + index_offset_;
    GRAPNEL_ASSIGN_OR_RETURN(const bool given,
                             NextOfStream(i == own_ ? sample : &other));
    if (!given) return false;
  }
  return true;
}

absl::Status StreamReader::Restore(const StreamPosition& position) {
  const c10::NoGradGuard no_grad;
  GRAPNEL_RETURN_IF_ERROR(BeginPass(position.pass()));
  bool by_state = false;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    by_state = position.has_state() && stream_->has_state();
    return absl::OkStatus();
  }));
  if (by_state) {
    samples_ = position.samples();
    return WithContext(
        CatchAsStatus([&] { return stream_->LoadState(position.state()); }),
        StateName());
  }
  while (samples_ < position.samples()) {
    Sample skipped;
    GRAPNEL_ASSIGN_OR_RETURN(const bool given, NextOfStream(&skipped));
    if (given) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "stream: pass ", pass_, ": has ", samples_, " samples, of which ",
        position.samples(), " were taken before: it is another stream"));
  }
  return absl::OkStatus();
}

absl::Status StreamReader::NoBatch() const {
  return absl::InvalidArgumentError(absl::StrCat(
      "stream: pass ", pass_, ": gives no batch: has ", samples_, " samples",
      round_ > 1 ? absl::StrCat(" for ", round_, " ranks") : "",
      drop_last_ ? absl::StrCat(", and drop_last leaves out batches of less "
                                "than ",
                                batch_size_)
                 : ""));
}

absl::Status StreamReader::Collect(const std::atomic<bool>& cancelled,
                                   std::vector<Sample>* samples,
                                   std::vector<int64_t>* indices) {
  bool whole_pass = samples_ == 0;  // All that is read of it, is read here.
  while (static_cast<int64_t>(samples->size()) < batch_size_) {
    if (cancelled) return absl::CancelledError("not needed any more");
    Sample sample;
    int64_t index = 0;
    GRAPNEL_ASSIGN_OR_RETURN(const bool given, NextOfRank(&sample, &index));
    if (!given) {
      if (!samples->empty() && !drop_last_) break;
      // Or this might never end.
      if (whole_pass) return NoBatch();
      samples->clear();
      indices->clear();
      GRAPNEL_RETURN_IF_ERROR(BeginPass(pass_ + 1));
      whole_pass = true;
      continue;
    }
    absl::Status status = transforms_.Apply(pass_, index, &sample);
    if (!status.ok()) {
      return WithContext(std::move(status),
                         absl::StrCat("stream: pass ", pass_));
    }
    samples->push_back(std::move(sample));
    indices->push_back(index);
  }
  return absl::OkStatus();
}

absl::Status StreamReader::SavePosition(StreamPosition* position) {
  position->set_pass(pass_);
  position->set_samples(samples_);
  return CatchAsStatus([&] {
    return stream_->has_state() ? stream_->SaveState(position->mutable_state())
                                : absl::OkStatus();
  });
}

absl::Status StreamReader::Read(const std::atomic<bool>& cancelled,
                                ReadBatch* read) {
  const c10::NoGradGuard no_grad;
  return CatchAsStatus([&]() -> absl::Status {
    std::vector<Sample> samples;
    std::vector<int64_t> indices;
    GRAPNEL_RETURN_IF_ERROR(Collect(cancelled, &samples, &indices));
    {
      const PinnedMemoryScope scope(memory_);
      GRAPNEL_RETURN_IF_ERROR(
          WithContext(Collate(samples, std::move(indices), &read->batch),
                      absl::StrCat("stream: pass ", pass_)));
    }
    return WithContext(SavePosition(&read->after), StateName());
  });
}

// The thread ends after an error, and where the loader goes somewhere else;
// the next Next starts another. So the stream is never used by two.
class StreamLoaderImpl final : public StreamLoader {
 public:
  StreamLoaderImpl(const DataLoaderConfig& config,
                   std::unique_ptr<IterableDataset> stream,
                   TransformChain transforms, const Options& options,
                   std::unique_ptr<DeviceCopier> copier)
      : batch_size_(config.batch_size()),
        // Batches that may lie ready.
        capacity_(config.num_workers() > 0 ? PrefetchFactor(config) : 0),
        copier_(std::move(copier)),
        reader_(config, std::move(stream), std::move(transforms), options,
                copier_ == nullptr ? PinnedMemory() : copier_->memory()) {}

  ~StreamLoaderImpl() override {
    StopThread();
    DropReady();
  }

  absl::Status Next(Batch* batch) override;
  const StreamPosition& position() const override { return position_; }
  absl::Status Seek(const StreamPosition& position) override;
  absl::StatusOr<std::vector<int64_t>> InputShape() override;
  int64_t batch_size() const override { return batch_size_; }

 private:
  // Sees to it that `ready_` has the next batch.
  absl::Status Prepare();
  absl::Status WaitForThread();

  // Brings the reader to where the loader is. No thread runs, and nothing is
  // ready.
  absl::Status Settle();

  void ReadAhead();
  absl::Status ReadUntilStopped();
  void StopThread();
  void DropReady();  // No thread runs.

  // Of the batch that Next gives next, if it is ready.
  void LaunchAhead();

  const int64_t batch_size_;
  const int64_t capacity_;                      // 0: there is no thread.
  const std::unique_ptr<DeviceCopier> copier_;  // Null: they stay on the CPU.

  StreamPosition position_;  // Only the caller's thread uses it.

  // The thread's, if it runs.
  StreamReader reader_;
  bool settled_ = false;  // It is where the next batch begins.
  std::thread thread_;

  std::mutex mutex_;
  std::condition_variable room_;     // The thread may go on, or must end.
  std::condition_variable changed_;  // A batch is ready, or the thread ends.
  std::deque<ReadBatch> ready_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // Why, behind what is ready.
  std::atomic<bool> stopping_{false};
};

absl::Status StreamLoaderImpl::Settle() {
  if (settled_) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(reader_.Restore(position_));
  settled_ = true;
  return absl::OkStatus();
}

absl::Status StreamLoaderImpl::Prepare() {
  if (capacity_ > 0) return WaitForThread();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!ready_.empty()) return absl::OkStatus();
  GRAPNEL_RETURN_IF_ERROR(Settle());
  settled_ = false;  // Until it is known that the batch was read.
  ReadBatch read;
  GRAPNEL_RETURN_IF_ERROR(reader_.Read(stopping_, &read));
  ready_.push_back(std::move(read));
  settled_ = true;
  return absl::OkStatus();
}

absl::Status StreamLoaderImpl::WaitForThread() {
  if (!thread_.joinable()) {
    GRAPNEL_RETURN_IF_ERROR(Settle());
    absl::StatusOr<std::thread> thread =
        StartThread("grapnel-stream", [this] { ReadAhead(); });
    if (!thread.ok()) return WithContext(thread.status(), "num_workers");
    thread_ = *std::move(thread);
  }
  absl::Status status;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || ended_; });
    if (!ready_.empty()) return absl::OkStatus();
    status = end_;
  }
  StopThread();
  settled_ = false;
  return status;
}

absl::Status StreamLoaderImpl::Next(Batch* batch) {
  GRAPNEL_RETURN_IF_ERROR(Prepare());
  ReadBatch read;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (copier_ != nullptr) {
      // The thread only adds others behind it.
      ReadBatch& front = ready_.front();
      lock.unlock();
      GRAPNEL_RETURN_IF_ERROR(copier_->Deliver(&front.batch));
      lock.lock();
    }
    read = std::move(ready_.front());
    ready_.pop_front();
  }
  room_.notify_one();
  *batch = std::move(read.batch);
  position_ = std::move(read.after);
  if (copier_ != nullptr) LaunchAhead();
  return absl::OkStatus();
}

void StreamLoaderImpl::LaunchAhead() {
  ReadBatch* front = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ready_.empty()) return;
    front = &ready_.front();
  }
  copier_->LaunchAhead(&front->batch);
}

absl::Status StreamLoaderImpl::Seek(const StreamPosition& position) {
  for (const int64_t count : {position.pass(), position.samples()}) {
    if (count >= 0 && count <= kMaxCount) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("stream: there is no pass ", position.pass(),
                     " with a sample ", position.samples()));
  }
  if (IsSame(position, position_)) return absl::OkStatus();
  StopThread();
  DropReady();
  settled_ = false;
  position_ = position;
  return Settle();
}

absl::StatusOr<std::vector<int64_t>> StreamLoaderImpl::InputShape() {
  GRAPNEL_RETURN_IF_ERROR(Prepare());
  const std::lock_guard<std::mutex> lock(mutex_);
  return ready_.front().batch.inputs.sizes().slice(1).vec();
}

void StreamLoaderImpl::ReadAhead() {
  absl::Status end = CatchAsStatus([this] { return ReadUntilStopped(); });
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = std::move(end);
    ended_ = true;
  }
  changed_.notify_one();
}

absl::Status StreamLoaderImpl::ReadUntilStopped() {
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      room_.wait(lock, [this] {
        return stopping_ || static_cast<int64_t>(ready_.size()) < capacity_;
      });
    }
    ReadBatch read;
    GRAPNEL_RETURN_IF_ERROR(reader_.Read(stopping_, &read));
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ready_.push_back(std::move(read));
    }
    changed_.notify_one();
  }
}

void StreamLoaderImpl::StopThread() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  room_.notify_one();
  thread_.join();
  const std::lock_guard<std::mutex> lock(mutex_);
  stopping_ = false;
  ended_ = false;
  end_ = absl::OkStatus();
}

void StreamLoaderImpl::DropReady() {
  if (copier_ != nullptr) copier_->Forget();
  const std::lock_guard<std::mutex> lock(mutex_);
  ready_.clear();
}

absl::Status Check(const DataLoaderConfig& config,
                   const StreamLoader::Options& options) {
  GRAPNEL_RETURN_IF_ERROR(CheckLoaderConfig(config));
  if (config.num_workers() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_workers: must be 0 or 1 with a stream, which one "
                     "thread reads, is ",
                     config.num_workers()));
  }
  if (config.has_sampler()) {
    return absl::InvalidArgumentError(
        "sampler: must be unset with a stream, which has an order of its own");
  }
  if (config.has_dataset()) {
    return absl::InvalidArgumentError(
        "dataset: must be unset with a stream, which is given in code");
  }
  if (options.world_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("world_size: must be >= 1, is ", options.world_size));
  }
  if (options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rank: must be in 0..", options.world_size - 1, ", is ", options.rank));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StreamLoader>> StreamLoader::Create(
    const DataLoaderConfig& config, std::unique_ptr<IterableDataset> stream,
    const Options& options) {
  GRAPNEL_RET_CHECK(stream != nullptr);
  GRAPNEL_RETURN_IF_ERROR(Check(config, options));
  GRAPNEL_ASSIGN_OR_RETURN(TransformChain transforms,
                           TransformChain::Create(config, options.seed));
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<DeviceCopier> copier,
                           DeviceCopier::Create(options.device));
  return std::make_unique<StreamLoaderImpl>(config, std::move(stream),
                                            std::move(transforms), options,
                                            std::move(copier));
}

}  // namespace grapnel
