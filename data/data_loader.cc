#include "grapnel/data/data_loader.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/thread.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/data/batch_builder.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/device_copier.h"
#include "grapnel/data/loader_config.h"
#include "grapnel/data/sampler.pb.h"

namespace grapnel {
namespace {

using data::v1::DataLoaderConfig;
using data::v1::SamplerConfig;

// Beyond any real run, and far from overflow.
constexpr int64_t kMaxEpoch = int64_t{1} << 60;

struct Position {
  int64_t epoch = 0;
  int64_t begin = 0;  // Samples of the epoch before those that are meant.
  int64_t batch = 0;

  friend bool operator==(const Position& a, const Position& b) {
    return a.epoch == b.epoch && a.begin == b.begin && a.batch == b.batch;
  }
  friend bool operator!=(const Position& a, const Position& b) {
    return !(a == b);
  }
};

// A batch on its way from the plan to the caller of Next. Its worker alone
// writes `status` and `batch`, until it sets `done` under the lock.
struct Slot {
  Position position;
  std::vector<int64_t> indices;
  absl::Status status;
  Batch batch;  // On the host, or of the first slot, on its way to the device.
  bool done = false;

  // Nobody wants it any more: the worker may stop halfway.
  std::atomic<bool> cancelled{false};
};

// std::mutex rather than absl::Mutex, which the thread sanitizer can't see
// into where Abseil is the system's.
class LoaderImpl final : public DataLoader {
 public:
  struct Parts {
    int64_t batch_size;
    int num_workers;
    int64_t prefetch_factor;
    bool drop_last;
    bool same_every_epoch;
    BatchBuilder builder;
    std::unique_ptr<Sampler> sampler;
    Options options;
  };

  // `copier`: null if batches stay on the CPU.
  LoaderImpl(Parts parts, std::unique_ptr<DeviceCopier> copier)
      : parts_(std::move(parts)),
        copier_(std::move(copier)),
        infinite_(parts_.sampler->infinite()),
        num_batches_(NumBatches(parts_, 0, parts_.options.rank)),
        capacity_(parts_.num_workers * parts_.prefetch_factor) {}

  ~LoaderImpl() override;

  // Of rank `rank`, of an epoch behind its first `begin` samples. 0 if
  // `drop_last` leaves nothing.
  static int64_t NumBatches(const Parts& parts, int64_t begin, int rank);

  void SeekBehind(int64_t epoch, int64_t samples, int64_t batch) override;
  Split SplitBehind(int64_t samples) const override;
  absl::Status Next(Batch* batch) override;
  absl::StatusOr<std::vector<int64_t>> InputShape() const override {
    return parts_.builder.InputShape();
  }
  int64_t num_batches() const override { return num_batches_; }
  bool infinite() const override { return infinite_; }
  int64_t batch_size() const override { return parts_.batch_size; }
  const Dataset& dataset() const override { return parts_.builder.dataset(); }
  absl::StatusOr<std::vector<std::string>> Warnings() const override {
    return parts_.builder.Warnings();
  }

 private:
  // OK if there is a batch at `next_`.
  absl::Status CheckPosition() const;
  bool IsValid(const Position& position) const;

  // Of what is left behind `position.begin`.
  int64_t NumBatches(const Position& position) const {
    return position.begin == 0
               ? num_batches_
               : NumBatches(parts_, position.begin, parts_.options.rank);
  }

  // The one name of positions with the same batches from there on.
  Position Canonical(Position position) const;

  // Indices of the samples of a batch. Advances the sampler. May throw.
  std::vector<int64_t> Plan(const Position& position);

  // Changes nothing here: workers build at once.
  absl::Status Build(const Position& position, std::vector<int64_t> indices,
                     const std::atomic<bool>* cancelled, Batch* batch) const;

  // Of the batch that Next gives next, if it is ready.
  void LaunchAhead();

  absl::Status StartWorkers();
  void Work();
  void PlanSlot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Parts parts_;
  const std::unique_ptr<DeviceCopier> copier_;  // May be null.
  const bool infinite_;
  const int64_t num_batches_;
  const int64_t capacity_;  // Slots at once.

  Position next_;  // What Next gives. Only the caller's thread uses it.
  std::vector<std::thread> workers_;

  std::mutex mutex_;
  std::condition_variable work_;   // A worker may go on, or must end.
  std::condition_variable ready_;  // A slot is done, or planning has failed.
  std::deque<std::shared_ptr<Slot>> slots_ ABSL_GUARDED_BY(mutex_);

  // The batch to plan when there is room: the one after the last of `slots_`.
  Position planned_ ABSL_GUARDED_BY(mutex_);

  // Nothing is planned until the next Next: after an error, so that a batch
  // that fails isn't tried again before someone asks for it.
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status plan_error_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

int64_t LoaderImpl::NumBatches(const Parts& parts, int64_t begin, int rank) {
  const int64_t samples = parts.sampler->SizeBehind(begin, rank);
  const int64_t full = samples / parts.batch_size;
  const bool rest = samples % parts.batch_size != 0 && !parts.drop_last;
  return full + rest;
}

DataLoader::Split LoaderImpl::SplitBehind(int64_t samples) const {
  const Options& options = parts_.options;
  Split split;
  split.num_batches = NumBatches(parts_, samples, options.rank);
  // Ranks take in turn: the first one has most, the last one least.
  split.most_batches = NumBatches(parts_, samples, 0);
  split.even =
      split.most_batches == NumBatches(parts_, samples, options.world_size - 1);
  if (split.num_batches == 0) return split;
  split.last_batch_size = parts_.batch_size;
  if (!infinite_) {
    split.last_batch_size = std::min(
        parts_.batch_size, parts_.sampler->SizeBehind(samples, options.rank) -
                               (split.num_batches - 1) * parts_.batch_size);
  }
  return split;
}

LoaderImpl::~LoaderImpl() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    while (!slots_.empty()) DropFront();
  }
  work_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool LoaderImpl::IsValid(const Position& position) const {
  if (position.epoch < 0 || position.epoch > kMaxEpoch || position.begin < 0 ||
      position.begin >= parts_.builder.dataset_size()) {
    return false;
  }
  // Of an infinite loader, so that positions in the whole stream fit.
  const int64_t max_batch = infinite_ ? std::numeric_limits<int64_t>::max() /
                                            2 / parts_.batch_size /
                                            parts_.options.world_size
                                      : NumBatches(position);
  return position.batch >= 0 && position.batch <= max_batch;
}

absl::Status LoaderImpl::CheckPosition() const {
  const auto epoch = [this] {
    return next_.begin == 0
               ? absl::StrCat("epoch ", next_.epoch)
               : absl::StrCat("epoch ", next_.epoch, " behind its first ",
                              next_.begin, " samples");
  };
  if (!IsValid(next_)) {
    const int64_t samples = parts_.builder.dataset_size();
    const bool is_rest = next_.begin > 0 && next_.begin < samples;
    return absl::InvalidArgumentError(
        absl::StrCat("there is no batch ", next_.batch, " of ", epoch(), ": ",
                     is_rest ? "what is left has " : "epochs have ",
                     is_rest ? NumBatches(next_) : num_batches_, " batches of ",
                     is_rest ? samples - next_.begin : samples, " samples"));
  }
  if (!infinite_ && next_.batch == NumBatches(next_)) {
    return absl::OutOfRangeError(
        absl::StrCat(epoch(), " ends after ", next_.batch, " batches"));
  }
  return absl::OkStatus();
}

Position LoaderImpl::Canonical(Position position) const {
  if (!infinite_ && position.batch == NumBatches(position)) {
    position = {position.epoch + 1, 0, 0};
  }
  if (parts_.same_every_epoch) position.epoch = 0;
  return position;
}

void LoaderImpl::SeekBehind(int64_t epoch, int64_t samples, int64_t batch) {
  next_ = {epoch, samples, batch};
  if (workers_.empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!IsValid(next_)) {
      paused_ = true;  // Next says what is wrong.
      return;
    }
    const Position target = Canonical(next_);
    while (!slots_.empty() && slots_.front()->position != target) DropFront();
    if (slots_.empty()) planned_ = target;
  }
  work_.notify_all();
}

absl::Status LoaderImpl::Next(Batch* batch) {
  GRAPNEL_RETURN_IF_ERROR(CheckPosition());
  if (parts_.num_workers == 0) {
    std::vector<int64_t> indices;
    GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
      indices = Plan(next_);
      return absl::OkStatus();
    }));
    if (copier_ == nullptr) {
      GRAPNEL_RETURN_IF_ERROR(Build(next_, std::move(indices), nullptr, batch));
    } else {
      Batch built;
      GRAPNEL_RETURN_IF_ERROR(
          Build(next_, std::move(indices), nullptr, &built));
      GRAPNEL_RETURN_IF_ERROR(copier_->Deliver(&built));
      *batch = std::move(built);
    }
    ++next_.batch;
    return absl::OkStatus();
  }

  GRAPNEL_RETURN_IF_ERROR(StartWorkers());
  std::shared_ptr<Slot> slot;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (paused_) {
      paused_ = false;
      work_.notify_all();
    }
    ready_.wait(lock, [this] {
      return slots_.empty() ? paused_ : slots_.front()->done;
    });
    if (slots_.empty()) return std::exchange(plan_error_, absl::OkStatus());
    slot = slots_.front();
    if (!slot->status.ok()) {
      // Read this one and those behind it again when asked for.
      while (!slots_.empty()) DropFront();
      planned_ = Canonical(next_);
      paused_ = true;
      return slot->status;
    }
    if (copier_ != nullptr) {
      // Only this thread takes slots away.
      lock.unlock();
      GRAPNEL_RETURN_IF_ERROR(copier_->Deliver(&slot->batch));
      lock.lock();
    }
    slots_.pop_front();
  }
  work_.notify_one();
  *batch = std::move(slot->batch);
  ++next_.batch;
  if (copier_ != nullptr) LaunchAhead();
  return absl::OkStatus();
}

void LoaderImpl::LaunchAhead() {
  // What is behind the end is maybe never asked for.
  if (!infinite_ && next_.batch == NumBatches(next_)) return;
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (slots_.empty() || !slots_.front()->done) return;
    slot = slots_.front();
  }
  if (slot->status.ok()) copier_->LaunchAhead(&slot->batch);
}

std::vector<int64_t> LoaderImpl::Plan(const Position& position) {
  Sampler& sampler = *parts_.sampler;
  const int64_t first = position.batch * parts_.batch_size;
  int64_t size = parts_.batch_size;
  if (!infinite_) {
    size = std::min(
        size, sampler.SizeBehind(position.begin, parts_.options.rank) - first);
  }
  std::vector<int64_t> indices(size);
  sampler.SetEpoch(position.epoch, position.begin);
  for (int64_t i = 0; i < size; ++i) indices[i] = sampler.At(first + i);
  return indices;
}

absl::Status LoaderImpl::Build(const Position& position,
                               std::vector<int64_t> indices,
                               const std::atomic<bool>* cancelled,
                               Batch* batch) const {
  // An infinite sampler goes on into the next pass within a batch.
  const auto pass_of = [&](size_t i) {
    if (!infinite_) return position.epoch;
    const int64_t place =
        position.batch * parts_.batch_size + static_cast<int64_t>(i);
    return position.epoch +
           (position.begin + place * parts_.options.world_size +
            parts_.options.rank) /
               parts_.builder.dataset_size();
  };
  GRAPNEL_RETURN_IF_ERROR(parts_.builder.Build(
      std::move(indices), pass_of, cancelled,
      copier_ == nullptr ? PinnedMemory() : copier_->memory(), batch));
  return copier_ == nullptr ? absl::OkStatus() : copier_->Pin(batch);
}

absl::Status LoaderImpl::StartWorkers() {
  if (static_cast<int>(workers_.size()) == parts_.num_workers) {
    return absl::OkStatus();
  }
  if (workers_.empty()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    planned_ = Canonical(next_);
  }
  workers_.reserve(parts_.num_workers);
  while (static_cast<int>(workers_.size()) < parts_.num_workers) {
    absl::StatusOr<std::thread> worker =
        StartThread("grapnel-data", [this] { Work(); });
    if (!worker.ok()) {
      return WithContext(
          worker.status(),
          absl::StrCat("num_workers: thread ", workers_.size() + 1, " of ",
                       parts_.num_workers));
    }
    workers_.push_back(*std::move(worker));
  }
  return absl::OkStatus();
}

void LoaderImpl::DropFront() {
  if (copier_ != nullptr) copier_->Forget();
  slots_.front()->cancelled = true;
  slots_.pop_front();
}

void LoaderImpl::PlanSlot() {
  plan_error_ = CatchAsStatus([this] {
    auto slot = std::make_shared<Slot>();
    slot->position = planned_;
    slot->indices = Plan(planned_);
    slots_.push_back(std::move(slot));
    return absl::OkStatus();
  });
  if (plan_error_.ok()) {
    ++planned_.batch;
    planned_ = Canonical(planned_);
  } else {
    paused_ = true;
  }
}

void LoaderImpl::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] {
      return stopping_ ||
             (!paused_ && static_cast<int64_t>(slots_.size()) < capacity_);
    });
    if (stopping_) return;
    PlanSlot();
    if (paused_) {
      ready_.notify_one();
      continue;
    }
    std::shared_ptr<Slot> slot = slots_.back();
    lock.unlock();
    slot->status = Build(slot->position, std::move(slot->indices),
                         &slot->cancelled, &slot->batch);
    lock.lock();
    slot->done = true;
    ready_.notify_one();
  }
}

absl::Status Validate(const DataLoaderConfig& config) {
  GRAPNEL_RETURN_IF_ERROR(CheckLoaderConfig(config));
  if (config.has_drop_last() &&
      config.sampler().type() == data::v1::SamplerConfig::INFINITE) {
    return absl::InvalidArgumentError(absl::StrCat(
        "drop_last: must be unset with sampler: type: INFINITE, is ",
        config.drop_last() ? "true" : "false"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DataLoader>> CreateOver(
    const DataLoaderConfig& config, std::unique_ptr<Dataset> dataset,
    const DataLoader::Options& options) {
  GRAPNEL_ASSIGN_OR_RETURN(
      BatchBuilder builder,
      BatchBuilder::Create(config, std::move(dataset), options.seed));
  SamplerOptions sampler_options;
  sampler_options.dataset_size = builder.dataset_size();
  sampler_options.seed = options.seed;
  sampler_options.rank = options.rank;
  sampler_options.world_size = options.world_size;
  auto sampler = CreateSampler(config.sampler(), sampler_options);
  if (!sampler.ok()) return WithContext(sampler.status(), "sampler");
  LoaderImpl::Parts parts = {
      config.batch_size(),
      config.num_workers(),
      PrefetchFactor(config),
      config.drop_last(),
      !config.sampler().shuffle() && !builder.depends_on_pass(),
      std::move(builder),
      *std::move(sampler),
      options};
  if (LoaderImpl::NumBatches(parts, 0, options.rank) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("drop_last: leaves no batch of ", config.batch_size(),
                     ": each epoch has ", parts.sampler->size(), " samples"));
  }
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<DeviceCopier> copier,
                           DeviceCopier::Create(options.device));
  return std::make_unique<LoaderImpl>(std::move(parts), std::move(copier));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataLoader>> DataLoader::Create(
    const DataLoaderConfig& config, const Options& options) {
  GRAPNEL_RET_CHECK(options.env != nullptr);
  GRAPNEL_RETURN_IF_ERROR(Validate(config));
  DatasetOptions dataset_options;
  dataset_options.base_dir = options.base_dir;
  dataset_options.env = options.env;
  absl::StatusOr<std::unique_ptr<Dataset>> dataset;
  absl::Status status = CatchAsStatus([&] {
    dataset = DatasetRegistry::Create(config.dataset(), dataset_options);
    return dataset.status();
  });
  if (!status.ok()) {
    return WithContext(std::move(status), DatasetFieldName(config));
  }
  return CreateOver(config, *std::move(dataset), options);
}

absl::StatusOr<std::unique_ptr<DataLoader>> DataLoader::Create(
    const DataLoaderConfig& config, std::unique_ptr<Dataset> dataset,
    const Options& options) {
  GRAPNEL_RET_CHECK(dataset != nullptr);
  GRAPNEL_RETURN_IF_ERROR(Validate(config));
  if (config.has_dataset()) {
    return absl::InvalidArgumentError(
        "dataset: must not be set, since it is given in code");
  }
  return CreateOver(config, std::move(dataset), options);
}

}  // namespace grapnel
