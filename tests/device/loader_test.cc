// What DataLoader and StreamLoader do on a device: the CPU's batches, and when
// and from where they are copied.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/record_function.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/Device.h"
#include "c10/core/Event.h"
#include "c10/core/Stream.h"
#include "c10/core/StreamGuard.h"
#include "c10/core/TensorImpl.h"
#include "c10/core/UndefinedTensorImpl.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "c10/util/Exception.h"
#include "c10/util/intrusive_ptr.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/stream_loader.h"
#include "grapnel/data/stream_position.pb.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"
#include "torch/library.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using ::testing::ValuesIn;

using data::v1::DataLoaderConfig;
using data::v1::StreamPosition;

// --- What the device sees ---

using WeakTensor =
    c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

struct SeenCopy {
  c10::StreamId stream;
  bool non_blocking;
  bool from_pinned;
  at::ScalarType type;
  WeakTensor source;
};

// Stands before the fake device's streams and events: sees copies, and can have
// less than a GPU. What goes wrong between streams the fake device sees itself.
class Watch final : public c10::impl::DeviceGuardImplInterface {
 public:
  static Watch& Get() {
    static Watch* const watch = [] {
      const c10::DeviceType type = FakeDevice().type();
      auto* const made = new Watch(c10::impl::getDeviceGuardImpl(type));
      c10::impl::registerDeviceGuard(type, made);
      at::addGlobalCallback(at::RecordFunctionCallback(&SeeOperator)
                                .needsInputs(true)
                                .scopes({at::RecordScope::FUNCTION}));
      return made;
    }();
    return *watch;
  }

  // Before each test, when no loader lives.
  void Reset() {
    const std::lock_guard<std::mutex> lock(mutex_);
    copies_.clear();
    synchronized_ = 0;
    has_pool = has_events = copies_end = true;
    device_of_workers = -1;
  }

  // The current stream reads all of it.
  static void Use(const Batch& batch) {
    for (const at::Tensor& tensor : TensorsOf(batch)) {
      EXPECT_EQ(tensor.device().type(), FakeDevice().type());
      tensor.sum();
    }
  }

  std::vector<SeenCopy> TakeCopies() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(copies_, {});
  }
  int synchronized() const { return synchronized_; }

  // What the backend can do.
  std::atomic<bool> has_pool{true};
  std::atomic<bool> has_events{true};
  // Whether what was launched has ended when the host asks.
  std::atomic<bool> copies_end{true};
  // The device that threads other than the test's went to last; -1: none did.
  std::atomic<int> device_of_workers{-1};

  static std::vector<at::Tensor> TensorsOf(const Batch& batch) {
    std::vector<at::Tensor> tensors = {batch.inputs};
    if (batch.targets.defined()) tensors.push_back(batch.targets);
    for (const NamedTensor& extra : batch.extras) {
      tensors.push_back(extra.tensor);
    }
    return tensors;
  }

  c10::DeviceType type() const override { return device_->type(); }
  c10::Device exchangeDevice(c10::Device device) const override {
    if (std::this_thread::get_id() != tests_thread_) {
      Get().device_of_workers = device.index();
    }
    return device_->exchangeDevice(device);
  }
  c10::Device getDevice() const override { return device_->getDevice(); }
  void setDevice(c10::Device device) const override {
    device_->setDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    device_->uncheckedSetDevice(device);
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return device_->deviceCount();
  }
  c10::Stream getStream(c10::Device device) const override {
    return device_->getStream(device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return device_->getDefaultStream(device);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device,
                                      bool high) const override {
    TORCH_CHECK(has_pool, "no pool");
    return device_->getStreamFromGlobalPool(device, high);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return device_->exchangeStream(stream);
  }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex index,
              c10::EventFlag flag) const override {
    TORCH_CHECK(has_events, "no events");
    device_->record(event, stream, index, flag);
  }
  void block(void* event, const c10::Stream& stream) const override {
    device_->block(event, stream);
  }
  bool queryEvent(void* event) const override {
    return copies_end && device_->queryEvent(event);
  }
  void synchronizeEvent(void* event) const override {
    ++synchronized_;
    device_->synchronizeEvent(event);
  }
  void destroyEvent(void* event,
                    c10::DeviceIndex index) const noexcept override {
    device_->destroyEvent(event, index);
  }
  void synchronizeDevice(c10::DeviceIndex index) const override {
    device_->synchronizeDevice(index);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data,
                             const c10::Stream& stream) const override {
    device_->recordDataPtrOnStream(data, stream);
  }

 private:
  explicit Watch(const c10::impl::DeviceGuardImplInterface* device)
      : device_(device), tests_thread_(std::this_thread::get_id()) {}

  static std::unique_ptr<at::ObserverContext> SeeOperator(
      const at::RecordFunction& function) {
    if (std::string(function.name()) == "aten::copy_") {
      const auto inputs = function.inputs();
      Get().SeeCopy(inputs[0].toTensor(), inputs[1].toTensor(),
                    inputs[2].toBool());
    }
    return nullptr;
  }

  void SeeCopy(const at::Tensor& to, const at::Tensor& from,
               bool non_blocking) {
    if (to.device().type() != type() || !from.device().is_cpu()) return;
    const bool pinned = from.is_pinned();
    const std::lock_guard<std::mutex> lock(mutex_);
    const c10::StreamId stream = device_->getStream(to.device()).id();
    copies_.push_back({stream, non_blocking, pinned, from.scalar_type(),
                       WeakTensor(from.getIntrusivePtr())});
  }

  const c10::impl::DeviceGuardImplInterface* const device_;
  const std::thread::id tests_thread_;
  mutable std::atomic<int> synchronized_{0};

  std::mutex mutex_;
  std::vector<SeenCopy> copies_;
};

// While it lives, copies of int64 tensors to the device fail, by an exception
// that would be the end of an epoch; others copy zeros.
class FailingTargets {
 public:
  FailingTargets()
      : operators_(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1,
                   __FILE__, __LINE__) {
    operators_.impl("_copy_from", &CopyFrom);
  }

 private:
  static at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to,
                             bool) {
    TORCH_CHECK_INDEX(from.scalar_type() != at::kLong, "device is in flames");
    to.zero_();
    return to;
  }

  torch::Library operators_;
};

// --- Loaders ---

constexpr int64_t kBatchTensors = 3;  // Inputs, targets and an extra.

// A turnstile that lets samples through up to a place.
class Gate {
 public:
  void Open(int64_t samples) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      open_ = samples;
      at_ = -1;
    }
    changed_.notify_all();
  }

  absl::Status Pass(int64_t sample) {
    std::unique_lock<std::mutex> lock(mutex_);
    at_ = sample;
    changed_.notify_all();
    changed_.wait(lock, [&] { return sample < open_; });
    return absl::OkStatus();
  }

  // Until someone stands before it at that sample, and so has stacked all
  // batches before, or waits for room.
  void WaitForArrival(int64_t sample) {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      return at_ >= sample;
    })) << sample;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t open_ = int64_t{1} << 60;
  int64_t at_ = -1;
};

// Opens it in the end, however the test ends, so that the loader declared
// before it can end too.
class OpensAtEnd {
 public:
  explicit OpensAtEnd(Gate& gate) : gate_(gate) {}
  ~OpensAtEnd() { gate_.Open(int64_t{1} << 60); }
  OpensAtEnd(const OpensAtEnd&) = delete;
  OpensAtEnd& operator=(const OpensAtEnd&) = delete;

 private:
  Gate& gate_;
};

Sample MakeSample(int64_t index, bool has_target) {
  Sample sample;
  sample.input = ops::arange(4, at::kFloat).view({1, 2, 2}).add(10 * index);
  if (has_target) sample.target = ops::full({}, 2 * index, at::kLong);
  sample.extras = {{"half", ops::full({1}, index / 2.0, at::kDouble)}};
  return sample;
}

// What happens at a sample, before it is given.
using OnGet = std::function<absl::Status(int64_t)>;

class NumbersDataset final : public Dataset {
 public:
  explicit NumbersDataset(int64_t size, OnGet on_get = nullptr,
                          bool has_target = true)
      : size_(size), on_get_(std::move(on_get)), has_target_(has_target) {}

  int64_t size() const override { return size_; }

  absl::Status Get(int64_t index, Sample* sample) const override {
    if (on_get_) {
      absl::Status status = on_get_(index);
      if (!status.ok()) return status;
    }
    // As ours make them: of these none should be pinned.
    EXPECT_FALSE(NewTensor({1}, at::kFloat).is_pinned());
    *sample = MakeSample(index, has_target_);
    return absl::OkStatus();
  }

 private:
  const int64_t size_;
  const OnGet on_get_;
  const bool has_target_;
};

class NumbersStream final : public IterableDataset {
 public:
  explicit NumbersStream(int64_t size, OnGet on_get = nullptr,
                         bool has_target = true)
      : numbers_(size, std::move(on_get), has_target) {}

  absl::Status BeginPass(int64_t) override {
    next_ = 0;
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Next(Sample* sample) override {
    if (next_ == numbers_.size()) return false;
    const absl::Status status = numbers_.Get(next_, sample);
    if (!status.ok()) return status;
    ++next_;
    return true;
  }

 private:
  const NumbersDataset numbers_;
  int64_t next_ = 0;
};

// Gives whole batches that nobody pinned: NHWC in memory.
class OwnBatchesDataset final : public Dataset {
 public:
  int64_t size() const override { return 8; }
  absl::Status Get(int64_t, Sample*) const override {
    return absl::InternalError("GetBatch can do that");
  }
  bool GetBatch(absl::Span<const int64_t> indices,
                Batch* batch) const override {
    const auto n = static_cast<int64_t>(indices.size());
    batch->inputs = ops::arange(n * 24, at::kFloat)
                        .view({n, 2, 3, 4})
                        .permute({0, 3, 1, 2});
    batch->targets = ops::arange(n, at::kLong).view({n, 1}).expand({n, 3});
    batch->extras.clear();
    return true;
  }
};

DataLoaderConfig Parse(const std::string& text) {
  DataLoaderConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

std::unique_ptr<DataLoader> NewLoader(const std::string& config,
                                      std::unique_ptr<Dataset> dataset,
                                      c10::Device device = FakeDevice()) {
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  options.seed = 3;
  options.device = device;
  auto loader = DataLoader::Create(Parse(config), std::move(dataset), options);
  EXPECT_THAT(loader, IsOk()) << config;
  return *std::move(loader);
}

std::unique_ptr<StreamLoader> NewStreamLoader(
    const std::string& config, std::unique_ptr<IterableDataset> stream,
    c10::Device device = FakeDevice()) {
  StreamLoader::Options options;
  options.seed = 3;
  options.device = device;
  auto loader = StreamLoader::Create(Parse(config), std::move(stream), options);
  EXPECT_THAT(loader, IsOk()) << config;
  return *std::move(loader);
}

// Either of the two, in order through the same samples.
class AnyLoader {
 public:
  AnyLoader(bool is_stream, const std::string& config, int64_t size,
            OnGet on_get = nullptr, c10::Device device = FakeDevice(),
            bool has_target = true) {
    if (is_stream) {
      stream_ = NewStreamLoader(
          config,
          std::make_unique<NumbersStream>(size, std::move(on_get), has_target),
          device);
    } else {
      loader_ = NewLoader(
          config,
          std::make_unique<NumbersDataset>(size, std::move(on_get), has_target),
          device);
    }
  }

  absl::Status Next(Batch* batch) {
    return loader_ != nullptr ? loader_->Next(batch) : stream_->Next(batch);
  }
  Batch MustNext() {
    Batch batch;
    EXPECT_THAT(Next(&batch), IsOk());
    return batch;
  }
  // To the first batch, from anywhere but there.
  void Rewind() {
    if (loader_ != nullptr) {
      loader_->Seek(0, 0);
    } else {
      EXPECT_THAT(stream_->Seek(StreamPosition()), IsOk());
    }
  }

 private:
  std::unique_ptr<DataLoader> loader_;
  std::unique_ptr<StreamLoader> stream_;
};

void ExpectSame(const Batch& on_device, const Batch& on_cpu,
                c10::Device device = FakeDevice()) {
  ASSERT_EQ(on_device.indices, on_cpu.indices);
  ASSERT_EQ(on_device.targets.defined(), on_cpu.targets.defined());
  const auto tensors = Watch::TensorsOf(on_device);
  const auto expected = Watch::TensorsOf(on_cpu);
  ASSERT_EQ(tensors.size(), expected.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].device(), device);
    EXPECT_TRUE(ops::equal(tensors[i].cpu(), expected[i])) << "tensor " << i;
  }
  for (size_t i = 0; i < on_cpu.extras.size(); ++i) {
    EXPECT_EQ(on_device.extras[i].name, on_cpu.extras[i].name);
  }
}

// Copies are late, as far as nobody waits for them.
class LoaderTest : public ::testing::Test {
 protected:
  LoaderTest() {
    Watch::Get().Reset();
    TakeFakeRaces();
    DelayFakeCopies(true);
  }
  ~LoaderTest() override {
    EXPECT_THAT(TakeFakeRaces(), IsEmpty());
    DelayFakeCopies(false);
    Watch::Get().Reset();
    Watch::Get().synchronizeDevice(0);
    EXPECT_EQ(FakeBytesInUse(), 0);
  }

  // To the device, since the last time. None may have been to the host, nor the
  // host have waited.
  int64_t NewCopies() {
    const FakeCopies before = std::exchange(counted_, CountFakeCopies());
    EXPECT_EQ(counted_.to_host, before.to_host)
        << absl::StrJoin(LastFakeCopies(), "\n");
    EXPECT_TRUE(may_wait_ || counted_.waits == before.waits);
    return counted_.to_device - before.to_device;
  }
  void ForgetCopies() { counted_ = CountFakeCopies(); }

  bool may_wait_ = false;

 private:
  FakeCopies counted_ = CountFakeCopies();
};

// Of a DataLoader or, if true, of a StreamLoader.
class AnyLoaderTest : public LoaderTest,
                      public ::testing::WithParamInterface<bool> {
 protected:
  AnyLoader New(const std::string& config, int64_t size, OnGet on_get = nullptr,
                c10::Device device = FakeDevice(), bool has_target = true) {
    return AnyLoader(GetParam(), config, size, std::move(on_get), device,
                     has_target);
  }
};

INSTANTIATE_TEST_SUITE_P(Any, AnyLoaderTest, ::testing::Bool(),
                         [](const ::testing::TestParamInfo<bool>& info) {
                           return info.param ? "Stream" : "Data";
                         });

// --- The CPU's batches ---

TEST_P(AnyLoaderTest, BatchesAreTheCpusWithAnyNumberOfWorkers) {
  for (const bool has_target : {true, false}) {
    for (const char* workers : {"0", "1", "1 prefetch_factor: 5"}) {
      const std::string config =
          absl::StrCat("batch_size: 3 num_workers: ", workers);
      AnyLoader loader = New(config, 11, nullptr, FakeDevice(), has_target);
      AnyLoader expected =
          New(config, 11, nullptr, c10::DeviceType::CPU, has_target);
      for (int i = 0; i < 4; ++i) {
        SCOPED_TRACE(absl::StrCat(config, ", batch ", i));
        const Batch batch = loader.MustNext();
        Watch::Use(batch);
        ExpectSame(batch, expected.MustNext());
      }
    }
  }
}

struct PlanCase {
  std::string name;
  std::string config;
};

void PrintTo(const PlanCase& c, std::ostream* os) { *os << c.config; }

class LoaderPlanTest : public LoaderTest,
                       public ::testing::WithParamInterface<PlanCase> {};

// Both loaders go the same random ways: on, to somewhere else, over an epoch's
// end, to nowhere, to a sample that fails.
TEST_P(LoaderPlanTest, GoesAsTheCpusDoes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  const auto draw = [&random](int64_t n) {
    return std::uniform_int_distribution<int64_t>(0, n - 1)(random);
  };
  const auto fail = [bad = draw(20)](int64_t index) {
    return index == bad ? absl::DataLossError("is torn") : absl::OkStatus();
  };
  const auto loader =
      NewLoader(GetParam().config, std::make_unique<NumbersDataset>(22, fail));
  const auto expected =
      NewLoader(GetParam().config, std::make_unique<NumbersDataset>(22, fail),
                c10::DeviceType::CPU);
  Batch batch;
  Batch cpu_batch;
  int errors = 0;
  for (int i = 0; i < 300; ++i) {
    if (draw(4) == 0) {
      const int64_t epoch = draw(3);
      const int64_t to = draw(expected->num_batches() + 2);
      loader->Seek(epoch, to);
      expected->Seek(epoch, to);
    }
    const absl::Status status = loader->Next(&batch);
    const absl::Status cpu_status = expected->Next(&cpu_batch);
    ASSERT_EQ(status, cpu_status) << "step " << i;
    if (!status.ok()) {
      ++errors;
      continue;
    }
    Watch::Use(batch);
    ExpectSame(batch, cpu_batch);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(errors, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Any, LoaderPlanTest,
    ValuesIn(std::vector<PlanCase>{
        {"None", "batch_size: 4 sampler { shuffle: true }"},
        {"One", "batch_size: 4 sampler { shuffle: true } num_workers: 1"},
        {"Three", "batch_size: 4 sampler { shuffle: true } num_workers: 3"},
        {"SameEveryEpoch", "batch_size: 5 num_workers: 2 prefetch_factor: 3"},
        {"DropLast",
         "batch_size: 4 drop_last: true sampler { shuffle: true } "
         "num_workers: 1"},
    }),
    [](const ::testing::TestParamInfo<PlanCase>& info) {
      return info.param.name;
    });

TEST_F(LoaderTest, InfiniteGoesOnAsTheCpusDoes) {
  const std::string config =
      "batch_size: 4 num_workers: 1 sampler { type: INFINITE shuffle: true }";
  const auto loader = NewLoader(config, std::make_unique<NumbersDataset>(6));
  const auto expected = NewLoader(config, std::make_unique<NumbersDataset>(6),
                                  c10::DeviceType::CPU);
  for (int i = 0; i < 10; ++i) {
    Batch batch;
    Batch cpu_batch;
    ASSERT_THAT(loader->Next(&batch), IsOk());
    ASSERT_THAT(expected->Next(&cpu_batch), IsOk());
    ExpectSame(batch, cpu_batch);
  }
}

TEST_F(LoaderTest, StreamPositionsAndShapesAreTheCpus) {
  for (const char* workers : {"0", "1"}) {
    const std::string config =
        absl::StrCat("batch_size: 3 num_workers: ", workers);
    const auto loader =
        NewStreamLoader(config, std::make_unique<NumbersStream>(7));
    const auto expected = NewStreamLoader(
        config, std::make_unique<NumbersStream>(7), c10::DeviceType::CPU);
    std::vector<StreamPosition> positions;
    for (int i = 0; i < 20; ++i) {
      SCOPED_TRACE(absl::StrCat("workers ", workers, ", step ", i));
      if (i % 3 == 2) {
        const StreamPosition& to = positions[i * 7 % positions.size()];
        ASSERT_THAT(loader->Seek(to), IsOk());
        ASSERT_THAT(expected->Seek(to), IsOk());
      }
      if (i % 2 == 0) {
        const auto shape = loader->InputShape();
        ASSERT_THAT(shape, IsOk());
        EXPECT_THAT(*shape, ElementsAre(1, 2, 2));
      }
      Batch batch;
      Batch cpu_batch;
      ASSERT_THAT(loader->Next(&batch), IsOk());
      ASSERT_THAT(expected->Next(&cpu_batch), IsOk());
      Watch::Use(batch);
      ExpectSame(batch, cpu_batch);
      positions.push_back(loader->position());
      EXPECT_EQ(positions.back().SerializeAsString(),
                expected->position().SerializeAsString());
    }
  }
}

TEST_P(AnyLoaderTest, ThreadStaysOnItsDeviceAndWorkersPinOnTheBatchs) {
  const c10::Device second(FakeDevice().type(), 1);
  for (const int workers : {0, 1}) {
    AnyLoader loader = New(absl::StrCat("batch_size: 3 num_workers: ", workers),
                           9, nullptr, second);
    AnyLoader expected = New("batch_size: 3", 9, nullptr, c10::kCPU);
    for (int i = 0; i < 3; ++i) {
      ExpectSame(loader.MustNext(), expected.MustNext(), second);
      EXPECT_EQ(Watch::Get().getDevice(), FakeDevice());
    }
  }
  EXPECT_EQ(Watch::Get().device_of_workers, 1);
}

// --- Copies ---

TEST_P(AnyLoaderTest, EachTensorIsCopiedOnceFromPinnedMemoryWithoutAWait) {
  for (const int workers : {0, 1}) {
    AnyLoader loader = New(absl::StrCat("batch_size: 3 num_workers: ", workers,
                                        " prefetch_factor: 3"),
                           12);
    ForgetCopies();
    Watch::Get().TakeCopies();
    for (int i = 0; i < 4; ++i) loader.MustNext();
    const std::vector<SeenCopy> copies = Watch::Get().TakeCopies();
    // A stream goes on with the next pass.
    EXPECT_GE(copies.size(), 4 * kBatchTensors);
    EXPECT_LE(copies.size(),
              (GetParam() && workers > 0 ? 5 : 4) * kBatchTensors);
    EXPECT_EQ(NewCopies(), static_cast<int64_t>(copies.size()));
    for (const SeenCopy& copy : copies) {
      EXPECT_TRUE(copy.from_pinned) << at::toString(copy.type);
      EXPECT_TRUE(copy.non_blocking) << at::toString(copy.type);
    }
  }
}

TEST_P(AnyLoaderTest, NextBatchIsCopiedAheadIfItIsReadyAndOnlyThat) {
  Gate gate;
  AnyLoader loader = New("batch_size: 2 num_workers: 1 prefetch_factor: 4", 40,
                         [&gate](int64_t index) { return gate.Pass(index); });
  const OpensAtEnd opens(gate);
  gate.Open(2);
  Watch::Get().TakeCopies();
  NewCopies();
  // The worker stands before the second batch: Next doesn't wait for that.
  Batch batch = loader.MustNext();
  Watch::Use(batch);
  EXPECT_EQ(NewCopies(), kBatchTensors);
  gate.Open(8);
  gate.WaitForArrival(8);
  // Three are ready; this one wasn't copied ahead, and the next one is.
  EXPECT_THAT(loader.Next(&batch), IsOk());
  Watch::Use(batch);
  EXPECT_EQ(NewCopies(), 2 * kBatchTensors);
  EXPECT_THAT(loader.Next(&batch), IsOk());
  Watch::Use(batch);
  EXPECT_EQ(NewCopies(), kBatchTensors);
  EXPECT_THAT(loader.Next(&batch), IsOk());
  Watch::Use(batch);
  EXPECT_EQ(NewCopies(), 0);
  EXPECT_THAT(batch.indices, ElementsAre(6, 7));
  const std::vector<SeenCopy> copies = Watch::Get().TakeCopies();
  ASSERT_EQ(copies.size(), 4 * kBatchTensors);
  for (size_t i = 0; i < copies.size(); ++i) {
    EXPECT_EQ(copies[i].stream != 0, i >= 2 * kBatchTensors) << i;
  }
}

TEST_F(LoaderTest, NothingIsCopiedBehindTheEndOfAnEpoch) {
  const auto loader =
      NewLoader("batch_size: 2 num_workers: 1 prefetch_factor: 9",
                std::make_unique<NumbersDataset>(6));
  Batch batch;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    NewCopies();
    loader->Seek(epoch, 0);
    for (int i = 0; i < 3; ++i) {
      ASSERT_THAT(loader->Next(&batch), IsOk());
      // As far as it goes, which is into other epochs.
      if (epoch > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(NewCopies(), 3 * kBatchTensors);
    EXPECT_THAT(loader->Next(&batch), StatusIs(absl::StatusCode::kOutOfRange,
                                               HasSubstr("3 batches")));
    EXPECT_EQ(NewCopies(), 0);
  }
}

TEST_P(AnyLoaderTest, DeviceHoldsTheBatchInUseAndTheNext) {
  constexpr int64_t kBatchBytes = 2 * (4 * 4 + 8 + 8);
  constexpr int64_t kSumBytes = 8;  // Of Use.
  AnyLoader loader =
      New("batch_size: 2 num_workers: 1 prefetch_factor: 4", 200);
  c10::DeviceAllocator* const allocator =
      c10::getDeviceAllocator(FakeDevice().type());
  allocator->resetPeakStats(0);
  Batch batch;
  for (int i = 0; i < 90; ++i) {
    ASSERT_THAT(loader.Next(&batch), IsOk());
    Watch::Use(batch);
    EXPECT_GE(FakeBytesInUse(), kBatchBytes);
  }
  constexpr auto kAll =
      static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  EXPECT_LE(allocator->getDeviceStats(0).allocated_bytes[kAll].peak,
            2 * kBatchBytes + kSumBytes);
}

TEST_F(LoaderTest, WholeBatchesOfADatasetAreStackedInPinnedMemory) {
  // Where a loader takes them, and not from there to somewhere else.
  class Asking final : public Dataset {
   public:
    explicit Asking(std::unique_ptr<Dataset> dataset)
        : dataset_(std::move(dataset)) {}
    int64_t size() const override { return dataset_->size(); }
    absl::Status Get(int64_t index, Sample* sample) const override {
      return dataset_->Get(index, sample);
    }
    bool GetBatch(absl::Span<const int64_t> indices,
                  Batch* batch) const override {
      const bool given = dataset_->GetBatch(indices, batch);
      EXPECT_TRUE(batch->inputs.is_pinned());
      EXPECT_TRUE(batch->targets.is_pinned());
      return given;
    }

   private:
    const std::unique_ptr<Dataset> dataset_;
  };
  for (const int workers : {0, 2}) {
    const auto loader =
        NewLoader(absl::StrCat("batch_size: 4 num_workers: ", workers),
                  std::make_unique<Asking>(*TensorDataset::Create(
                      ops::arange(20, at::kFloat).view({10, 2}),
                      ops::arange(10, at::kLong))));
    for (int i = 0; i < 3; ++i) {
      Batch batch;
      ASSERT_THAT(loader->Next(&batch), IsOk());
      EXPECT_EQ(batch.targets.cpu()[0].item<int64_t>(), 4 * i);
    }
  }
}

TEST_F(LoaderTest, ADatasetsOwnBatchesArePinnedWithTheirStrides) {
  for (const int workers : {0, 1}) {
    const std::string config =
        absl::StrCat("batch_size: 4 num_workers: ", workers);
    const auto loader =
        NewLoader(config, std::make_unique<OwnBatchesDataset>());
    const auto expected = NewLoader(
        config, std::make_unique<OwnBatchesDataset>(), c10::DeviceType::CPU);
    Watch::Get().TakeCopies();
    Batch batch;
    Batch cpu_batch;
    ASSERT_THAT(loader->Next(&batch), IsOk());
    ASSERT_THAT(expected->Next(&cpu_batch), IsOk());
    for (const SeenCopy& copy : Watch::Get().TakeCopies()) {
      EXPECT_TRUE(copy.from_pinned);
    }
    ExpectSame(batch, cpu_batch);
    EXPECT_EQ(batch.inputs.strides(), cpu_batch.inputs.strides());
    // Of what lies there once for many, each gets its own.
    EXPECT_TRUE(batch.targets.is_contiguous());
  }
}

// A dataset may write there again as soon as nobody else has it.
TEST_P(AnyLoaderTest, PinnedMemoryIsHeldUntilItsCopyHasEnded) {
  for (const int workers : {0, 1}) {
    AnyLoader loader =
        New(absl::StrCat("batch_size: 2 num_workers: ", workers), 40);
    Watch::Get().TakeCopies();
    Watch::Get().copies_end = false;
    for (int i = 0; i < 4; ++i) loader.MustNext();
    const std::vector<SeenCopy> copies = Watch::Get().TakeCopies();
    for (const SeenCopy& copy : copies) EXPECT_FALSE(copy.source.expired());
    DelayFakeCopies(false);
    Watch::Get().copies_end = true;
    loader.MustNext();
    loader.MustNext();
    DelayFakeCopies(true);
    for (const SeenCopy& copy : copies) EXPECT_TRUE(copy.source.expired());
  }
}

// --- Streams ---

TEST_P(AnyLoaderTest, BatchMayBeUsedOnAStreamThatIsCurrentLater) {
  for (const bool plain : {true, false}) {
    UsePlainFakeAllocator(plain);
    Gate gate;
    AnyLoader loader =
        New("batch_size: 2 num_workers: 1 prefetch_factor: 4", 40,
            [&gate](int64_t index) { return gate.Pass(index); });
    const OpensAtEnd opens(gate);
    gate.Open(6);
    loader.MustNext();
    gate.WaitForArrival(6);
    loader.MustNext();
    {
      const c10::StreamGuard on(
          Watch::Get().getStreamFromGlobalPool(FakeDevice(), false));
      Watch::Use(loader.MustNext());
    }
    // Where it was allocated, before the other stream is known to be done.
    ops::ones({2}, at::TensorOptions().device(FakeDevice()));
  }
  UsePlainFakeAllocator(false);
}

TEST_P(AnyLoaderTest, BatchAheadThatNobodyWantsIsDroppedSafely) {
  Gate gate;
  AnyLoader loader = New("batch_size: 2 num_workers: 1 prefetch_factor: 4", 40,
                         [&gate](int64_t index) { return gate.Pass(index); });
  const OpensAtEnd opens(gate);
  Watch::Get().copies_end = false;
  for (int i = 0; i < 5; ++i) {
    gate.Open(6);
    Watch::Use(loader.MustNext());
    gate.WaitForArrival(6);
    Watch::Use(loader.MustNext());
    EXPECT_NE(Watch::Get().TakeCopies().back().stream, 0) << "none is ahead";
    gate.Open(int64_t{1} << 60);
    loader.Rewind();
    // Into memory of the one that was, maybe.
    const Batch batch = loader.MustNext();
    Watch::Use(batch);
    EXPECT_THAT(batch.indices, ElementsAre(0, 1));
    loader.MustNext();
    loader.Rewind();
  }
}

TEST_P(AnyLoaderTest, DestructionWaitsForCopiesOnTheirWay) {
  Batch batch;
  {
    AnyLoader loader = New("batch_size: 2 num_workers: 1", 40);
    Watch::Get().copies_end = false;
    for (int i = 0; i < 4; ++i) batch = loader.MustNext();
    EXPECT_EQ(Watch::Get().synchronized(), 0);
  }
  EXPECT_GE(Watch::Get().synchronized(), 4);
  Watch::Use(batch);
  EXPECT_THAT(batch.indices, ElementsAre(6, 7));
}

TEST_P(AnyLoaderTest, BackendWithoutStreamsOrEventsGetsPlainCopies) {
  for (const bool has_events : {true, false}) {
    Watch::Get().Reset();
    Watch::Get().has_pool = false;
    Watch::Get().has_events = has_events;
    may_wait_ = !has_events;
    AnyLoader loader =
        New("batch_size: 2 num_workers: 1 prefetch_factor: 4", 40);
    AnyLoader expected = New("batch_size: 2", 40, nullptr, c10::kCPU);
    for (int i = 0; i < 10; ++i) {
      const Batch batch = loader.MustNext();
      EXPECT_EQ(NewCopies(), kBatchTensors);
      Watch::Use(batch);
      ExpectSame(batch, expected.MustNext());
      ForgetCopies();
      for (const SeenCopy& copy : Watch::Get().TakeCopies()) {
        EXPECT_EQ(copy.stream, 0);
        EXPECT_TRUE(copy.from_pinned);
        EXPECT_EQ(copy.non_blocking, has_events);
      }
    }
  }
}

// --- Errors ---

TEST_P(AnyLoaderTest, CopyThatFailsIsNamedAndTriedAgain) {
  for (const int workers : {0, 1}) {
    SCOPED_TRACE(absl::StrCat("workers ", workers));
    AnyLoader loader =
        New(absl::StrCat("batch_size: 2 num_workers: ", workers), 40);
    Batch batch = loader.MustNext();
    std::optional<FailingTargets> failing(std::in_place);
    // One may have been copied before.
    absl::Status status = loader.Next(&batch);
    if (status.ok()) {
      EXPECT_THAT(batch.indices, ElementsAre(2, 3));
      status = loader.Next(&batch);
    }
    const std::vector<int64_t> last = batch.indices;
    for (int i = 0; i < 3; ++i) {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal,
                                   AllOf(HasSubstr("batch: to fake:0: targets"),
                                         HasSubstr("device is in flames"))));
      status = loader.Next(&batch);
    }
    EXPECT_EQ(batch.indices, last);
    EXPECT_EQ(batch.inputs.device(), FakeDevice());
    failing.reset();
    ASSERT_THAT(loader.Next(&batch), IsOk());
    EXPECT_THAT(batch.indices, ElementsAre(last[0] + 2, last[1] + 2));
    Watch::Use(batch);
    EXPECT_EQ(batch.targets.cpu()[0].item<int64_t>(), 2 * batch.indices[0]);
  }
}

TEST_P(AnyLoaderTest, CopyAheadThatFailsIsNoErrorYet) {
  Gate gate;
  AnyLoader loader = New("batch_size: 2 num_workers: 1 prefetch_factor: 4", 40,
                         [&gate](int64_t index) { return gate.Pass(index); });
  const OpensAtEnd opens(gate);
  gate.Open(10);
  Batch batch = loader.MustNext();
  gate.WaitForArrival(8);
  EXPECT_THAT(loader.Next(&batch), IsOk());
  {
    const FailingTargets failing;
    EXPECT_THAT(loader.Next(&batch), IsOk());  // It was copied ahead.
    EXPECT_THAT(batch.indices, ElementsAre(4, 5));
    Watch::Use(batch);
    // The inputs of the next one are on their way to memory that is free again.
    EXPECT_NE(Watch::Get().TakeCopies().back().stream, 0);
  }
  EXPECT_THAT(loader.Next(&batch), IsOk());
  EXPECT_THAT(batch.indices, ElementsAre(6, 7));
  Watch::Use(batch);
  EXPECT_EQ(batch.targets.cpu()[0].item<int64_t>(), 12);
}

TEST_F(LoaderTest, MemoryThatCannotBePinnedIsNamed) {
  class HugeDataset final : public Dataset {
   public:
    int64_t size() const override { return 4; }
    absl::Status Get(int64_t, Sample*) const override {
      return absl::InternalError("GetBatch can do that");
    }
    bool GetBatch(absl::Span<const int64_t> indices,
                  Batch* batch) const override {
      const auto n = static_cast<int64_t>(indices.size());
      batch->inputs = ops::ones({n, 1}, at::kDouble);
      // Of more bytes than can be counted.
      batch->extras = {{"wide", batch->inputs.expand({n, int64_t{1} << 60})}};
      return true;
    }
  };
  for (const int workers : {0, 1}) {
    const auto loader =
        NewLoader(absl::StrCat("batch_size: 2 num_workers: ", workers),
                  std::make_unique<HugeDataset>());
    Batch batch;
    EXPECT_THAT(
        loader->Next(&batch),
        StatusIs(absl::StatusCode::kInternal,
                 StartsWith("batch: pinned for fake:0: extras: wide: ")));
  }
}

}  // namespace
}  // namespace grapnel
