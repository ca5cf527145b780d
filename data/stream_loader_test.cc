#include "grapnel/data/stream_loader.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/stream_position.pb.h"
#include "grapnel/io/env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

using data::v1::DataLoaderConfig;
using data::v1::StreamPosition;

// An image that shows what is done with it.
Sample MakeSample(int64_t index) {
  Sample sample;
  sample.input = ops::arange(4, at::kFloat).view({1, 2, 2}).add(10 * index);
  sample.target = ops::full({}, 2 * index, at::kLong);
  sample.extras = {{"half", ops::full({1}, index / 2.0, at::kDouble)}};
  return sample;
}

// Sample i of each pass is the number i. What the test looks at and changes
// belongs to whoever uses the stream: the loader's thread, while it runs.
class CountingStream final : public IterableDataset {
 public:
  explicit CountingStream(int64_t size, bool has_state = true)
      : size_(size), has_state_(has_state) {}

  absl::Status BeginPass(int64_t pass) override {
    begun.push_back(pass);
    next_ = 0;
    return begin_status;
  }

  absl::StatusOr<bool> Next(Sample* sample) override {
    EXPECT_FALSE(sample->input.defined());
    if (next_ == size_) return false;
    ++nexts;
    if (on_next) {
      absl::Status status = on_next(next_);
      if (!status.ok()) return status;
    }
    *sample = MakeSample(next_++);
    return true;
  }

  bool has_state() const override { return has_state_; }

  absl::Status SaveState(std::string* state) override {
    *state = absl::StrCat(next_);
    return save_status;
  }

  absl::Status LoadState(absl::string_view state) override {
    EXPECT_FALSE(begun.empty());
    EXPECT_TRUE(absl::SimpleAtoi(state, &next_));
    return load_status;
  }

  std::function<absl::Status(int64_t)> on_next;
  absl::Status begin_status, save_status, load_status;
  std::vector<int64_t> begun;
  std::atomic<int64_t> nexts{0};  // Samples that were asked for, and there.

 private:
  const int64_t size_;
  const bool has_state_;
  int64_t next_ = 0;
};

class CountingDataset final : public Dataset {
 public:
  explicit CountingDataset(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  absl::Status Get(int64_t index, Sample* sample) const override {
    *sample = MakeSample(index);
    return absl::OkStatus();
  }

 private:
  const int64_t size_;
};

const char kRandom[] =
    "transforms { random_flip {} } "
    "transforms { random_crop { height: 2 width: 2 padding: 1 } } ";

DataLoaderConfig Parse(const std::string& text) {
  DataLoaderConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

StreamLoader::Options Options(int rank = 0, int world_size = 1) {
  StreamLoader::Options options;
  options.seed = 3;
  options.rank = rank;
  options.world_size = world_size;
  return options;
}

std::unique_ptr<StreamLoader> NewLoader(
    const std::string& config, std::unique_ptr<IterableDataset> stream,
    const StreamLoader::Options& options = Options()) {
  auto loader = StreamLoader::Create(Parse(config), std::move(stream), options);
  EXPECT_THAT(loader, IsOk()) << config;
  return *std::move(loader);
}

std::unique_ptr<StreamLoader> NewLoader(
    const std::string& config, int64_t size,
    const StreamLoader::Options& options = Options()) {
  return NewLoader(config, std::make_unique<CountingStream>(size), options);
}

Batch MustNext(StreamLoader& loader) {
  Batch batch;
  EXPECT_THAT(loader.Next(&batch), IsOk());
  return batch;
}

void ExpectSame(const Batch& a, const Batch& b) {
  ASSERT_EQ(a.indices, b.indices);
  EXPECT_TRUE(ops::equal(a.inputs, b.inputs));
  EXPECT_TRUE(ops::equal(a.targets, b.targets));
  ASSERT_EQ(a.extras.size(), b.extras.size());
  for (size_t i = 0; i < a.extras.size(); ++i) {
    EXPECT_EQ(a.extras[i].name, b.extras[i].name);
    EXPECT_TRUE(ops::equal(a.extras[i].tensor, b.extras[i].tensor));
  }
}

void WaitForNexts(const CountingStream& stream, int64_t n) {
  for (int i = 0; i < 5000 && stream.nexts < n; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(stream.nexts, n);
}

// --- The same batches as of a DataLoader, and after any cut ---

struct SameCase {
  std::string name;
  std::string config;
  int rank;
  int world_size;
};

void PrintTo(const SameCase& c, std::ostream* os) { *os << c.config; }

class StreamLoaderSameTest : public TestWithParam<SameCase> {
 protected:
  static constexpr int kSize = 12;  // As many for each of three ranks.
  static constexpr int kPasses = 3;

  std::unique_ptr<StreamLoader> New(int workers, bool has_state = true,
                                    int prefetch = 2) {
    return NewLoader(absl::StrCat(GetParam().config, " num_workers: ", workers,
                                  " prefetch_factor: ", prefetch),
                     std::make_unique<CountingStream>(kSize, has_state),
                     Options(GetParam().rank, GetParam().world_size));
  }

  // What a DataLoader gives of some epochs.
  std::vector<Batch> Expected() {
    DataLoader::Options options;
    options.env = &io::Env::Posix();
    options.seed = 3;
    options.rank = GetParam().rank;
    options.world_size = GetParam().world_size;
    auto loader =
        DataLoader::Create(Parse(GetParam().config),
                           std::make_unique<CountingDataset>(kSize), options);
    EXPECT_THAT(loader, IsOk());
    std::vector<Batch> batches;
    for (int64_t epoch = 0; epoch < kPasses; ++epoch) {
      (*loader)->Seek(epoch, 0);
      for (int64_t i = 0; i < (*loader)->num_batches(); ++i) {
        batches.emplace_back();
        EXPECT_THAT((*loader)->Next(&batches.back()), IsOk());
      }
    }
    return batches;
  }
};

INSTANTIATE_TEST_SUITE_P(
    , StreamLoaderSameTest,
    ValuesIn(std::vector<SameCase>{
        {"Plain", "batch_size: 5", 0, 1},
        {"EvenBatches", "batch_size: 4", 0, 1},
        {"DropLast", "batch_size: 5 drop_last: true", 0, 1},
        {"Augmented", absl::StrCat("batch_size: 5 ", kRandom), 0, 1},
        {"AugmentedDropLast",
         absl::StrCat("batch_size: 5 drop_last: true ", kRandom), 0, 1},
        {"SingleBatch", absl::StrCat("batch_size: 30 ", kRandom), 0, 1},
        {"OneByOne", absl::StrCat("batch_size: 1 ", kRandom), 0, 1},
        {"FirstOfThree", absl::StrCat("batch_size: 3 ", kRandom), 0, 3},
        {"LastOfThree", absl::StrCat("batch_size: 3 drop_last: true ", kRandom),
         2, 3},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(StreamLoaderSameTest, AsOfADataLoaderInOrder) {
  const std::vector<Batch> expected = Expected();
  for (const int workers : {0, 1}) {
    for (const int prefetch : {1, 2, 7}) {
      SCOPED_TRACE(absl::StrCat(workers, " workers, prefetch ", prefetch));
      const auto loader = New(workers, /*has_state=*/true, prefetch);
      for (const Batch& batch : expected) ExpectSame(MustNext(*loader), batch);
    }
  }
}

TEST_P(StreamLoaderSameTest, AfterACutAtAnyBatch) {
  const std::vector<Batch> expected = Expected();
  for (const bool has_state : {true, false}) {
    for (const int workers : {0, 1}) {
      const auto walker = New(workers, has_state, /*prefetch=*/3);
      std::vector<StreamPosition> positions = {walker->position()};
      for (const Batch& batch : expected) {
        ExpectSame(MustNext(*walker), batch);
        positions.push_back(walker->position());
        EXPECT_EQ(positions.back().has_state(), has_state);
      }
      for (size_t cut = 0; cut < expected.size(); ++cut) {
        SCOPED_TRACE(absl::StrCat(workers, " workers, ", has_state,
                                  " state, cut behind ", cut));
        // Where it was never before, and where it has read ahead elsewhere.
        const auto fresh = New(workers, has_state);
        for (StreamLoader* loader : {fresh.get(), walker.get()}) {
          ASSERT_THAT(loader->Seek(positions[cut]), IsOk());
          EXPECT_EQ(loader->position().SerializeAsString(),
                    positions[cut].SerializeAsString());
          for (size_t i = cut; i < expected.size(); ++i) {
            ExpectSame(MustNext(*loader), expected[i]);
          }
        }
      }
    }
  }
}

TEST(StreamLoaderTest, PositionIsThatOfTheBatchTakenNotOfWhatIsReadAhead) {
  auto stream = std::make_unique<CountingStream>(7);
  const CountingStream& counting = *stream;
  const auto loader = NewLoader(
      "batch_size: 2 num_workers: 1 prefetch_factor: 5", std::move(stream));
  EXPECT_EQ(loader->position().samples(), 0);
  MustNext(*loader);
  WaitForNexts(counting, 7 + 4);  // The pass, and two batches of the next.
  EXPECT_EQ(loader->position().pass(), 0);
  EXPECT_EQ(loader->position().samples(), 2);
  EXPECT_EQ(loader->position().state(), "2");
  for (int i = 0; i < 3; ++i) MustNext(*loader);
  EXPECT_EQ(loader->position().pass(), 0);
  EXPECT_EQ(loader->position().samples(), 7);
  EXPECT_EQ(loader->position().state(), "7");
  MustNext(*loader);
  EXPECT_EQ(loader->position().pass(), 1);
  EXPECT_EQ(loader->position().samples(), 2);
}

TEST(StreamLoaderTest, PassesAreTold) {
  for (const bool has_state : {true, false}) {
    auto stream = std::make_unique<CountingStream>(3, has_state);
    const CountingStream& counting = *stream;
    const auto loader = NewLoader("batch_size: 2", std::move(stream));
    EXPECT_THAT(counting.begun, ElementsAre());
    for (int i = 0; i < 5; ++i) MustNext(*loader);
    EXPECT_THAT(counting.begun, ElementsAre(0, 1, 2));

    // A resume begins the pass that it is in.
    auto again = std::make_unique<CountingStream>(3, has_state);
    const CountingStream& resumed = *again;
    const auto other = NewLoader("batch_size: 2", std::move(again));
    ASSERT_THAT(other->Seek(loader->position()), IsOk());
    EXPECT_THAT(resumed.begun, ElementsAre(2));
    // Without a state it reads what was read before.
    EXPECT_EQ(resumed.nexts, has_state ? 0 : 2);
    EXPECT_THAT(MustNext(*other).indices, ElementsAre(2));
  }
}

TEST(StreamLoaderTest, AnotherBatchSizeGoesOnWithTheNextSample) {
  for (const bool has_state : {true, false}) {
    const auto loader = NewLoader(
        "batch_size: 4", std::make_unique<CountingStream>(10, has_state));
    MustNext(*loader);
    const auto other = NewLoader(
        "batch_size: 3", std::make_unique<CountingStream>(10, has_state));
    ASSERT_THAT(other->Seek(loader->position()), IsOk());
    EXPECT_THAT(MustNext(*other).indices, ElementsAre(4, 5, 6));
  }
}

// As when a stream learned to save its state since the checkpoint, or forgot.
TEST(StreamLoaderTest, WithoutAStateOnBothSidesThePassIsReadAgain) {
  for (const bool has_state : {true, false}) {
    const auto loader = NewLoader(
        "batch_size: 4", std::make_unique<CountingStream>(10, has_state));
    MustNext(*loader);
    auto stream = std::make_unique<CountingStream>(10, !has_state);
    const CountingStream& counting = *stream;
    const auto other = NewLoader("batch_size: 4", std::move(stream));
    ASSERT_THAT(other->Seek(loader->position()), IsOk());
    EXPECT_EQ(counting.nexts, 4);
    EXPECT_THAT(MustNext(*other).indices, ElementsAre(4, 5, 6, 7));
  }
}

// --- Ranks ---

TEST(StreamLoaderTest, WhatDoesNotGoRoundIsLeftOut) {
  for (int rank = 0; rank < 3; ++rank) {
    const auto loader = NewLoader("batch_size: 2", 11, Options(rank, 3));
    for (int pass = 0; pass < 2; ++pass) {
      EXPECT_THAT(MustNext(*loader).indices, ElementsAre(rank, rank + 3));
      EXPECT_EQ(loader->position().samples(), 6);
      EXPECT_THAT(MustNext(*loader).indices, ElementsAre(rank + 6));
    }
  }
}

TEST(StreamLoaderTest, OfAShardedStreamAllIsTaken) {
  StreamLoader::Options options = Options(1, 3);
  options.sharded = true;
  const auto loader = NewLoader("batch_size: 3", 4, options);
  const Batch batch = MustNext(*loader);
  EXPECT_TRUE(ops::equal(batch.targets, ops::arange(0, 6, 2, at::kLong)));
  // Those of other ranks have other indices, and are augmented otherwise.
  EXPECT_THAT(batch.indices, ElementsAre(1, 4, 7));
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(10));
}

// --- What is read, and what isn't ---

TEST(StreamLoaderTest, NothingIsReadBeforeTheFirstNext) {
  auto stream = std::make_unique<CountingStream>(10);
  const CountingStream& counting = *stream;
  const auto loader =
      NewLoader("batch_size: 1 num_workers: 1", std::move(stream));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(counting.nexts, 0);
}

TEST(StreamLoaderTest, ReadsAheadNoFurtherThanAsked) {
  auto stream = std::make_unique<CountingStream>(1000);
  const CountingStream& counting = *stream;
  const auto loader = NewLoader(
      "batch_size: 2 num_workers: 1 prefetch_factor: 3", std::move(stream));
  MustNext(*loader);
  WaitForNexts(counting, 2 * (1 + 3));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(counting.nexts, 2 * (1 + 3));
}

TEST(StreamLoaderTest, SeekToWhereItIsKeepsWhatWasReadAhead) {
  auto stream = std::make_unique<CountingStream>(1000);
  const CountingStream& counting = *stream;
  const auto loader = NewLoader(
      "batch_size: 2 num_workers: 1 prefetch_factor: 3", std::move(stream));
  MustNext(*loader);
  WaitForNexts(counting, 2 * (1 + 3));
  const StreamPosition here = loader->position();
  EXPECT_THAT(loader->Seek(here), IsOk());
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(2, 3));
  WaitForNexts(counting, 2 * (2 + 3));
  EXPECT_THAT(counting.begun, ElementsAre(0));
}

TEST(StreamLoaderTest, InputShapeReadsTheNextBatchAndKeepsIt) {
  for (const int workers : {0, 1}) {
    auto stream = std::make_unique<CountingStream>(10);
    const CountingStream& counting = *stream;
    const auto loader = NewLoader(
        absl::StrCat("batch_size: 4 num_workers: ", workers,
                     " prefetch_factor: 1 transforms { random_crop { height: "
                     "3 width: 1 padding: 1 } }"),
        std::move(stream));
    for (int i = 0; i < 2; ++i) {
      const auto shape = loader->InputShape();
      ASSERT_THAT(shape, IsOk());
      EXPECT_THAT(*shape, ElementsAre(1, 3, 1));
    }
    EXPECT_EQ(loader->position().samples(), 0);
    EXPECT_EQ(counting.nexts, 4);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 6, 7));
  }
}

// --- Errors ---

class StreamLoaderErrorTest : public TestWithParam<int> {
 protected:
  static std::string Config(const std::string& more = "") {
    return absl::StrCat("batch_size: 4 num_workers: ", GetParam(),
                        " prefetch_factor: 5 ", more);
  }
};

INSTANTIATE_TEST_SUITE_P(Workers, StreamLoaderErrorTest, testing::Values(0, 1));

TEST_P(StreamLoaderErrorTest, ComesInItsTurnAndStaysAtTheBatch) {
  for (const bool has_state : {true, false}) {
    auto stream = std::make_unique<CountingStream>(200, has_state);
    std::atomic<bool> broken{true};
    std::atomic<int> tries{0};
    stream->on_next = [&](int64_t index) {
      if (index != 9) return absl::OkStatus();
      ++tries;
      return broken ? absl::DataLossError("bad sector") : absl::OkStatus();
    };
    const auto loader = NewLoader(Config(), std::move(stream));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 6, 7));
    Batch batch;
    batch.indices = {77};
    for (int i = 1; i <= 2; ++i) {
      EXPECT_THAT(loader->Next(&batch),
                  StatusIs(absl::StatusCode::kDataLoss,
                           "stream: pass 0: sample 9: bad sector"));
      EXPECT_THAT(batch.indices, ElementsAre(77));
      EXPECT_EQ(loader->position().samples(), 8);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      EXPECT_EQ(tries, i) << "tried again without being asked";
    }
    broken = false;
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(8, 9, 10, 11));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(12, 13, 14, 15));
  }
}

TEST_P(StreamLoaderErrorTest, ExceptionsBecomeErrors) {
  auto stream = std::make_unique<CountingStream>(20);
  stream->on_next = [](int64_t index) -> absl::Status {
    if (index == 1) throw std::runtime_error("thrown by the user's code");
    return absl::OkStatus();
  };
  const auto loader = NewLoader(Config(), std::move(stream));
  Batch batch;
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kInternal,
                       AllOf(HasSubstr("stream: pass 0: sample 1: "),
                             HasSubstr("thrown by the user's code"))));
  EXPECT_THAT(loader->InputShape(), Not(IsOk()));
}

TEST_P(StreamLoaderErrorTest, OfTransformsAndOfStackingNameThePass) {
  class Growing final : public IterableDataset {
   public:
    absl::Status BeginPass(int64_t) override { return absl::OkStatus(); }
    absl::StatusOr<bool> Next(Sample* sample) override {
      sample->input = ops::full({1 + ++given_ / 4}, 0.0f);
      return true;
    }

   private:
    int64_t given_ = 0;
  };
  Batch batch;
  EXPECT_THAT(NewLoader(Config(), std::make_unique<Growing>())->Next(&batch),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("stream: pass 0: sample 3: input: is "
                                       "float32 (2)"),
                             HasSubstr("sample 0"))));
  EXPECT_THAT(
      NewLoader(Config("transforms { random_flip {} }"),
                std::make_unique<Growing>())
          ->Next(&batch),
      StatusIs(
          absl::StatusCode::kInvalidArgument,
          HasSubstr("stream: pass 0: transforms[0]: random_flip: sample 0")));
}

TEST_P(StreamLoaderErrorTest, OfTheStateIsNamed) {
  StreamPosition position;
  position.set_samples(4);
  position.set_state("4");

  auto stream = std::make_unique<CountingStream>(20);
  CountingStream& counting = *stream;
  auto loader = NewLoader(Config(), std::move(stream));
  counting.load_status = absl::DataLossError("no such shard");
  const auto no_such_shard =
      StatusIs(absl::StatusCode::kDataLoss,
               "stream: state after 4 samples of pass 0: no such shard");
  EXPECT_THAT(loader->Seek(position), no_such_shard);
  Batch batch;
  EXPECT_THAT(loader->Next(&batch), no_such_shard);
  counting.load_status = absl::OkStatus();
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 6, 7));

  stream = std::make_unique<CountingStream>(20);
  stream->save_status = absl::UnavailableError("not now");
  EXPECT_THAT(NewLoader(Config(), std::move(stream))->Next(&batch),
              StatusIs(absl::StatusCode::kUnavailable,
                       "stream: state after 4 samples of pass 0: not now"));

  stream = std::make_unique<CountingStream>(20);
  stream->begin_status = absl::UnavailableError("not now");
  EXPECT_THAT(
      NewLoader(Config(), std::move(stream))->Next(&batch),
      StatusIs(absl::StatusCode::kUnavailable, "stream: pass 0: not now"));
}

TEST_P(StreamLoaderErrorTest, APositionThatThePassHasNotIsAnError) {
  StreamPosition position;
  position.set_pass(1);
  position.set_samples(21);
  const auto loader = NewLoader(Config(), 20);
  EXPECT_THAT(loader->Seek(position),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("stream: pass 1: has 20 samples, of which 21 "
                                 "were taken before")));
  position.set_samples(-1);
  EXPECT_THAT(loader->Seek(position),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("there is no pass 1 with a sample -1")));
}

TEST_P(StreamLoaderErrorTest, APassWithoutABatchIsAnError) {
  struct Case {
    std::string more;
    int64_t size;
    int world_size;
    std::string has;
  };
  for (const Case& c : std::vector<Case>{
           {"", 0, 1, "has 0 samples"},
           {"drop_last: true", 3, 1,
            "has 3 samples, and drop_last leaves out batches of less than 4"},
           {"", 2, 3, "has 2 samples for 3 ranks"},
       }) {
    const auto loader =
        NewLoader(Config(c.more), c.size, Options(0, c.world_size));
    Batch batch;
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(
          loader->Next(&batch),
          StatusIs(absl::StatusCode::kInvalidArgument,
                   absl::StrCat("stream: pass 0: gives no batch: ", c.has)));
    }
  }
}

// --- Threads ---

// Hangs if the thread doesn't wake up.
TEST(StreamLoaderTest, DestructionEndsTheThreadWhateverItDoes) {
  const std::string config = "batch_size: 1 num_workers: 1 prefetch_factor: 2";
  NewLoader(config, 1000);  // It hasn't started.

  auto stream = std::make_unique<CountingStream>(1000);
  const CountingStream& counting = *stream;
  auto full = NewLoader(config, std::move(stream));
  MustNext(*full);
  WaitForNexts(counting, 1 + 2);
  full.reset();

  auto bad = std::make_unique<CountingStream>(1000);
  bad->on_next = [](int64_t index) {
    return index == 1 ? absl::DataLossError("bad") : absl::OkStatus();
  };
  auto ended = NewLoader(config, std::move(bad));
  MustNext(*ended);
  ended.reset();

  for (int i = 0; i < 100; ++i) MustNext(*NewLoader(config, 1000));
}

// The second batch takes forty seconds.
TEST(StreamLoaderTest, DestructionAndSeekDoNotWaitForTheBatchThatIsRead) {
  auto stream = std::make_unique<CountingStream>(1 << 20);
  stream->on_next = [](int64_t index) {
    if (index >= 10000) {
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
    }
    return absl::OkStatus();
  };
  auto loader =
      NewLoader("batch_size: 10000 num_workers: 1", std::move(stream));
  MustNext(*loader);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(loader->Seek(StreamPosition()), IsOk());
  MustNext(*loader);
  loader.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// --- Configs ---

struct BadCase {
  std::string name;
  std::string config;
  std::string message;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class StreamLoaderBadTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , StreamLoaderBadTest,
    ValuesIn(std::vector<BadCase>{
        {"NoBatchSize", "", "batch_size: must be set"},
        {"BatchSize", "batch_size: 0", "batch_size: must be >= 1, is 0"},
        {"NegativeWorkers", "batch_size: 1 num_workers: -1",
         "num_workers: must be in 0..1024, is -1"},
        {"TwoWorkers", "batch_size: 1 num_workers: 2",
         "num_workers: must be 0 or 1 with a stream"},
        {"Prefetch", "batch_size: 1 prefetch_factor: 0",
         "prefetch_factor: must be >= 1, is 0"},
        {"Sampler", "batch_size: 1 sampler { shuffle: true }",
         "sampler: must be unset with a stream"},
        {"Dataset", "batch_size: 1 dataset { idx {} }",
         "dataset: must be unset with a stream"},
        {"Transform", "batch_size: 1 transforms { scale {} }",
         "transforms[0]: scale: factor: must be set"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(StreamLoaderBadTest, NamesTheField) {
  EXPECT_THAT(
      StreamLoader::Create(Parse(GetParam().config),
                           std::make_unique<CountingStream>(10), Options()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr(GetParam().message)));
}

TEST(StreamLoaderTest, RanksMustBeThere) {
  for (const auto& [options, message] :
       std::vector<std::pair<StreamLoader::Options, std::string>>{
           {Options(0, 0), "world_size: must be >= 1, is 0"},
           {Options(3, 3), "rank: must be in 0..2, is 3"},
           {Options(-1, 3), "rank: must be in 0..2, is -1"}}) {
    EXPECT_THAT(
        StreamLoader::Create(Parse("batch_size: 1"),
                             std::make_unique<CountingStream>(10), options),
        StatusIs(absl::StatusCode::kInvalidArgument, message));
  }
}

}  // namespace
}  // namespace grapnel
