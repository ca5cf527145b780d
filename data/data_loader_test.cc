#include "grapnel/data/data_loader.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c10/core/Device.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/data/transform.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

using data::v1::DataLoaderConfig;

// What an end user writes: a dataset of their own, with a config message.
// Sample i is the number i; its target is twice that.
class CountingDataset final : public Dataset {
 public:
  using Config = google::protobuf::Int64Value;

  static absl::StatusOr<std::unique_ptr<CountingDataset>> Create(
      const Config& config, const DatasetOptions& options) {
    if (config.value() < 0) {
      return absl::InvalidArgumentError("value: must be >= 0");
    }
    return std::make_unique<CountingDataset>(config.value());
  }

  explicit CountingDataset(int64_t size) : size_(size) {}

  int64_t size() const override { return size_; }

  absl::Status Get(int64_t index, Sample* sample) const override {
    ++gets;
    if (on_get) {
      absl::Status status = on_get(index);
      if (!status.ok()) return status;
    }
    sample->input =
        ops::full({1, 2, 2}, static_cast<double>(index), at::kFloat);
    sample->target = ops::full({}, 2 * index, at::kLong);
    sample->extras = {{"half", ops::full({1}, index / 2.0, at::kDouble)}};
    return absl::OkStatus();
  }

  std::vector<std::string> warnings() const override { return says; }

  std::vector<std::string> says;
  std::function<absl::Status(int64_t)> on_get;
  mutable std::atomic<int64_t> gets{0};

 private:
  const int64_t size_;
};

GRAPNEL_REGISTER(DatasetRegistry, CountingDataset);

// Adds random numbers to the image: what augmentation a sample got shows.
class NoiseTransform final : public Transform {
 public:
  using Config = google::protobuf::DoubleValue;

  static absl::StatusOr<std::unique_ptr<NoiseTransform>> Create(
      const Config& config) {
    return std::make_unique<NoiseTransform>(config.value());
  }

  explicit NoiseTransform(double amount) : amount_(amount) {}

  absl::Status Apply(SampleRng& rng, Sample* sample) const override {
    if (amount_ < 0) return absl::OutOfRangeError("no such amount");
    if (amount_ > 9) throw 9;  // Not even a std::exception.
    at::Tensor output = sample->input.clone();
    float* data = output.mutable_data_ptr<float>();
    for (int64_t i = 0; i < output.numel(); ++i) {
      data[i] += static_cast<float>(rng.Uniform(0, amount_));
    }
    sample->input = output;
    return absl::OkStatus();
  }

 private:
  const double amount_;
};

GRAPNEL_REGISTER(TransformRegistry, NoiseTransform);

const char kNoise[] =
    "transforms { custom { [type.googleapis.com/google.protobuf.DoubleValue] "
    "{ value: 0.5 } } } ";

DataLoaderConfig Parse(const std::string& text) {
  DataLoaderConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

DataLoader::Options Options(int64_t seed = 3, int rank = 0,
                            int world_size = 1) {
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  options.seed = seed;
  options.rank = rank;
  options.world_size = world_size;
  return options;
}

std::unique_ptr<DataLoader> NewLoader(
    const std::string& config, std::unique_ptr<Dataset> dataset,
    const DataLoader::Options& options = Options()) {
  auto loader = DataLoader::Create(Parse(config), std::move(dataset), options);
  EXPECT_THAT(loader, IsOk()) << config;
  return *std::move(loader);
}

std::unique_ptr<DataLoader> NewLoader(
    const std::string& config, int64_t size,
    const DataLoader::Options& options = Options()) {
  return NewLoader(config, std::make_unique<CountingDataset>(size), options);
}

Batch MustNext(DataLoader& loader) {
  Batch batch;
  EXPECT_THAT(loader.Next(&batch), IsOk());
  return batch;
}

std::vector<Batch> Epoch(DataLoader& loader, int64_t epoch) {
  loader.Seek(epoch, 0);
  std::vector<Batch> batches;
  for (int64_t i = 0; i < loader.num_batches(); ++i) {
    batches.push_back(MustNext(loader));
  }
  return batches;
}

void ExpectSame(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.indices, b.indices);
  EXPECT_TRUE(ops::equal(a.inputs, b.inputs));
  EXPECT_EQ(a.targets.defined(), b.targets.defined());
  if (a.targets.defined()) {
    EXPECT_TRUE(ops::equal(a.targets, b.targets));
  }
  ASSERT_EQ(a.extras.size(), b.extras.size());
  for (size_t i = 0; i < a.extras.size(); ++i) {
    EXPECT_EQ(a.extras[i].name, b.extras[i].name);
    EXPECT_TRUE(ops::equal(a.extras[i].tensor, b.extras[i].tensor));
  }
}

TEST(DataLoaderTest, StacksSamplesInTheSamplersOrder) {
  const auto loader = NewLoader("batch_size: 4", 10);
  EXPECT_EQ(loader->num_batches(), 3);
  EXPECT_EQ(loader->batch_size(), 4);
  EXPECT_FALSE(loader->infinite());
  EXPECT_EQ(loader->dataset().size(), 10);
  MustNext(*loader);
  MustNext(*loader);
  const Batch last = MustNext(*loader);
  EXPECT_THAT(last.indices, ElementsAre(8, 9));
  EXPECT_EQ(last.inputs.sizes(), at::IntArrayRef({2, 1, 2, 2}));
  EXPECT_EQ(last.inputs[1].max().item<float>(), 9);
  EXPECT_TRUE(ops::equal(last.targets, ops::arange(16, 20, 2, at::kLong)));
  EXPECT_EQ(last.extras[0].name, "half");
  Batch batch;
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("3 batches")));
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("")));
}

TEST(DataLoaderTest, DropLastLeavesTheIncompleteBatchOut) {
  for (const int workers : {0, 2}) {
    const auto loader = NewLoader(
        absl::StrCat("batch_size: 4 drop_last: true num_workers: ", workers),
        10);
    EXPECT_EQ(loader->num_batches(), 2);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 6, 7));
    Batch batch;
    EXPECT_THAT(loader->Next(&batch), StatusIs(absl::StatusCode::kOutOfRange,
                                               HasSubstr("2 batches")));
    loader->Seek(1, 0);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0, 1, 2, 3));
  }
}

TEST(DataLoaderTest, LastBatchSizeIsWhatIsLeft) {
  struct Case {
    std::string config;
    int64_t dataset_size;
    int64_t expected;
  };
  for (const Case& c : std::vector<Case>{
           {"batch_size: 4", 12, 4},
           {"batch_size: 4", 13, 1},
           {"batch_size: 4 drop_last: true", 13, 4},
           {"batch_size: 4 sampler { type: INFINITE }", 13, 4},
           {"batch_size: 4", 3, 3},
           {"batch_size: 1", 3, 1},
       }) {
    const auto loader = DataLoader::Create(
        Parse(c.config), std::make_unique<CountingDataset>(c.dataset_size),
        Options());
    ASSERT_THAT(loader, IsOk());
    EXPECT_EQ((*loader)->SplitBehind(0).last_batch_size, c.expected)
        << c.config << ", " << c.dataset_size;
  }
  // Of rank 1 of 2, whose pass has 4 of 7 samples, the first one again.
  const auto second = DataLoader::Create(
      Parse("batch_size: 3"), std::make_unique<CountingDataset>(7),
      Options(/*seed=*/3, /*rank=*/1, /*world_size=*/2));
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ((*second)->SplitBehind(0).last_batch_size, 1);
}

TEST(DataLoaderTest, InfiniteGoesOnOverTheEdgeOfAPass) {
  for (const int workers : {0, 2}) {
    const auto loader = NewLoader(
        absl::StrCat("batch_size: 4 sampler { type: INFINITE } num_workers: ",
                     workers),
        6);
    EXPECT_TRUE(loader->infinite());
    EXPECT_EQ(loader->num_batches(), 2);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 0, 1));
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(2, 3, 4, 5));
    // Of any epoch: there is but one.
    loader->Seek(5, 1);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 0, 1));
  }
}

TEST(DataLoaderTest, BatchesTakePartInAutograd) {
  for (const int workers : {0, 1}) {
    const auto loader =
        NewLoader(absl::StrCat("batch_size: 2 num_workers: ", workers), 2);
    const Batch batch = MustNext(*loader);
    at::Tensor weight = ops::full({2, 2}, 1.0f).requires_grad_(true);
    batch.inputs.mul(weight).sum().backward();
    EXPECT_EQ(weight.grad().sum().item<float>(), 4);
  }
}

// --- The same batches, however they are read ---

struct SameCase {
  std::string name;
  std::string config;
  int rank;
  int world_size;
};

void PrintTo(const SameCase& c, std::ostream* os) { *os << c.config; }

class DataLoaderSameTest : public TestWithParam<SameCase> {
 protected:
  static constexpr int kSize = 23;
  static constexpr int kEpochs = 3;

  std::unique_ptr<DataLoader> New(int workers, int prefetch = 2) {
    return NewLoader(absl::StrCat(GetParam().config, " num_workers: ", workers,
                                  " prefetch_factor: ", prefetch),
                     kSize, Options(3, GetParam().rank, GetParam().world_size));
  }

  // All batches of some epochs, or so many of an infinite loader.
  std::vector<std::vector<Batch>> Walk(DataLoader& loader) {
    std::vector<std::vector<Batch>> epochs;
    for (int64_t epoch = 0; epoch < (loader.infinite() ? 1 : kEpochs);
         ++epoch) {
      loader.Seek(epoch, 0);
      epochs.emplace_back();
      const int64_t n =
          loader.num_batches() * (loader.infinite() ? kEpochs : 1);
      for (int64_t i = 0; i < n; ++i) {
        epochs.back().push_back(MustNext(loader));
      }
    }
    return epochs;
  }

  void ExpectSameEpochs(const std::vector<std::vector<Batch>>& a,
                        const std::vector<std::vector<Batch>>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t e = 0; e < a.size(); ++e) {
      ASSERT_EQ(a[e].size(), b[e].size());
      for (size_t i = 0; i < a[e].size(); ++i) {
        SCOPED_TRACE(absl::StrCat("epoch ", e, ", batch ", i));
        ExpectSame(a[e][i], b[e][i]);
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(
    , DataLoaderSameTest,
    ValuesIn(std::vector<SameCase>{
        {"InOrder", "batch_size: 4", 0, 1},
        {"Shuffled", "batch_size: 4 sampler { shuffle: true }", 0, 1},
        {"Augmented",
         absl::StrCat("batch_size: 4 sampler { shuffle: true } ", kNoise), 0,
         1},
        {"AugmentedInOrder", absl::StrCat("batch_size: 4 ", kNoise), 0, 1},
        {"DropLast",
         absl::StrCat(
             "batch_size: 4 drop_last: true sampler { shuffle: true } ",
             kNoise),
         0, 1},
        {"Sharded",
         absl::StrCat("batch_size: 4 sampler { shuffle: true } ", kNoise), 1,
         3},
        {"SingleBatch",
         absl::StrCat("batch_size: 30 sampler { shuffle: true } ", kNoise), 0,
         1},
        {"Infinite",
         absl::StrCat("batch_size: 4 sampler { type: INFINITE shuffle: true } ",
                      kNoise),
         0, 1},
        {"InfiniteSharded",
         absl::StrCat("batch_size: 4 sampler { type: INFINITE shuffle: true } ",
                      kNoise),
         2, 3},
        {"InfiniteOfLargeBatches",
         absl::StrCat(
             "batch_size: 50 sampler { type: INFINITE shuffle: true } ",
             kNoise),
         0, 1},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(DataLoaderSameTest, ForAnyNumberOfWorkersAndAnyPrefetch) {
  const auto expected = Walk(*New(0));
  for (const int workers : {1, 2, 4}) {
    for (const int prefetch : {1, 2, 7}) {
      SCOPED_TRACE(absl::StrCat(workers, " workers, prefetch ", prefetch));
      ExpectSameEpochs(Walk(*New(workers, prefetch)), expected);
    }
  }
}

TEST_P(DataLoaderSameTest, SeekToEveryPositionEqualsWalking) {
  const auto walked = Walk(*New(0));
  for (const int workers : {0, 2}) {
    const auto jumper = New(workers);
    // Forwards, where read-ahead is kept, and backwards, where it isn't.
    for (const int step : {1, -1}) {
      const int64_t epochs = walked.size();
      const int64_t batches = walked[0].size();
      for (int64_t i = 0; i < epochs * batches; ++i) {
        const int64_t place = step > 0 ? i : epochs * batches - 1 - i;
        const int64_t epoch = place / batches;
        const int64_t batch = place % batches;
        SCOPED_TRACE(absl::StrCat("epoch ", epoch, ", batch ", batch));
        jumper->Seek(epoch, batch);
        ExpectSame(MustNext(*jumper), walked[epoch][batch]);
      }
    }
    // By a loader that was nowhere before.
    const auto fresh = New(workers);
    fresh->Seek(walked.size() - 1, 2 % walked[0].size());
    ExpectSame(MustNext(*fresh), walked.back()[2 % walked[0].size()]);
  }
}

TEST_P(DataLoaderSameTest, EveryEpochEndsWithOutOfRange) {
  for (const int workers : {0, 2}) {
    const auto loader = New(workers);
    if (loader->infinite()) {
      loader->Seek(0, loader->num_batches());
      MustNext(*loader);
      continue;
    }
    for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
      EXPECT_THAT(Epoch(*loader, epoch), SizeIs(loader->num_batches()));
      Batch batch;
      EXPECT_THAT(loader->Next(&batch),
                  StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("ends")));
    }
    // The place behind the last batch is one to seek to.
    loader->Seek(1, loader->num_batches());
    Batch batch;
    EXPECT_THAT(loader->Next(&batch),
                StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("epoch 1")));
  }
}

// --- What other ranks have left of an epoch ---

struct RestCase {
  const char* name;
  std::string config;
  int64_t dataset_size;
  int ranks_before;
  int64_t batches_before;  // Of 3, that were given.
  int ranks;
  int64_t batches_left;  // Expected.
  // The places in the epoch's order, by rank.
  std::vector<std::vector<int64_t>> expected;
};

void PrintTo(const RestCase& c, std::ostream* os) { *os << c.name; }

class DataLoaderRestTest : public TestWithParam<RestCase> {};

const char kThree[] = "batch_size: 3 sampler { shuffle: true } ";

INSTANTIATE_TEST_SUITE_P(
    , DataLoaderRestTest,
    ValuesIn(std::vector<RestCase>{
        {"TwoToThree",
         kThree,
         19,
         2,
         1,
         3,
         2,
         {{6, 9, 12, 15, 18}, {7, 10, 13, 16, 0}, {8, 11, 14, 17, 1}}},
        {"ThreeToTwo",
         kThree,
         19,
         3,
         1,
         2,
         2,
         {{9, 11, 13, 15, 17}, {10, 12, 14, 16, 18}}},
        {"TwoToOne", kThree, 19, 2, 2, 1, 3, {{12, 13, 14, 15, 16, 17, 18}}},
        {"OneToTwo", kThree, 19, 1, 5, 2, 1, {{15, 17}, {16, 18}}},
        {"DropLast",
         absl::StrCat(kThree, "drop_last: true "),
         19,
         2,
         2,
         2,
         1,
         {{12, 14, 16}, {13, 15, 17}}},
        {"DropLastLeavesNone",
         absl::StrCat(kThree, "drop_last: true "),
         19,
         2,
         2,
         4,
         0,
         {{}, {}, {}, {}}},
    }),
    [](const auto& info) { return std::string(info.param.name); });

// The epoch's order, and the next one's, as one rank alone goes through them.
TEST_P(DataLoaderRestTest, IsSharedOutAndTheNextEpochIsAsAlways) {
  const RestCase& c = GetParam();
  const std::string config = absl::StrCat(c.config, kNoise);
  const auto alone = NewLoader(absl::StrCat(kThree, kNoise), c.dataset_size);
  std::vector<int64_t> order;
  std::vector<Batch> samples;
  for (const Batch& batch : Epoch(*alone, 4)) {
    order.insert(order.end(), batch.indices.begin(), batch.indices.end());
    samples.push_back(batch);
  }
  const int64_t begin = c.ranks_before * c.batches_before * 3;
  for (int rank = 0; rank < c.ranks; ++rank) {
    for (const int workers : {0, 2}) {
      SCOPED_TRACE(absl::StrCat("rank ", rank, ", workers ", workers));
      const auto loader =
          NewLoader(absl::StrCat(config, " num_workers: ", workers),
                    c.dataset_size, Options(3, rank, c.ranks));
      const DataLoader::Split split = loader->SplitBehind(begin);
      EXPECT_EQ(split.num_batches, c.batches_left);
      EXPECT_TRUE(split.even);
      const std::vector<int64_t>& places = c.expected[rank];
      EXPECT_EQ(split.last_batch_size,
                places.empty() ? 0 : (places.size() - 1) % 3 + 1);
      // From each of its batches on, backwards.
      for (int64_t first = split.num_batches; first >= 0; --first) {
        loader->SeekBehind(4, begin, first);
        size_t next = std::min<size_t>(first * 3, places.size());
        for (int64_t i = first; i < split.num_batches; ++i) {
          const Batch batch = MustNext(*loader);
          for (int64_t k = 0; k < batch.size(); ++k, ++next) {
            ASSERT_LT(next, places.size());
            EXPECT_EQ(batch.indices[k], order[places[next]]);
            // Augmented as it always is in that epoch.
            EXPECT_TRUE(
                ops::equal(batch.inputs[k],
                           samples[places[next] / 3].inputs[places[next] % 3]));
          }
        }
        EXPECT_EQ(next, places.size());
        Batch none;
        EXPECT_THAT(loader->Next(&none),
                    StatusIs(absl::StatusCode::kOutOfRange,
                             HasSubstr(absl::StrCat("epoch 4 behind its first ",
                                                    begin, " samples ends"))));
        // Read ahead, and as it is without all that.
        loader->Seek(5, 0);
        const auto plain =
            NewLoader(config, c.dataset_size, Options(3, rank, c.ranks));
        plain->Seek(5, 0);
        ExpectSame(MustNext(*loader), MustNext(*plain));
      }
    }
  }
}

// 5 samples, 3 of pass 2 are gone; 2 ranks take batches of 2.
TEST(DataLoaderTest, InfiniteGoesOnInsideAPass) {
  const std::string config = absl::StrCat(
      "batch_size: 2 sampler { type: INFINITE shuffle: true } ", kNoise);
  const auto alone = NewLoader(
      absl::StrCat("batch_size: 1 sampler { type: INFINITE shuffle: true } ",
                   kNoise),
      5);
  for (int rank = 0; rank < 2; ++rank) {
    for (const int workers : {0, 2}) {
      const auto loader =
          NewLoader(absl::StrCat(config, "num_workers: ", workers), 5,
                    Options(3, rank, 2));
      EXPECT_EQ(loader->SplitBehind(3).num_batches, 1);
      EXPECT_EQ(loader->SplitBehind(3).last_batch_size, 2);
      loader->SeekBehind(2, 3, 1);  // Behind 4 more.
      for (int64_t i = 0; i < 6; ++i) {
        const Batch batch = MustNext(*loader);
        for (int64_t k = 0; k < 2; ++k) {
          alone->Seek(2, 3 + 4 + i * 4 + k * 2 + rank);
          const Batch expected = MustNext(*alone);
          EXPECT_EQ(batch.indices[k], expected.indices[0]);
          EXPECT_TRUE(ops::equal(batch.inputs[k], expected.inputs[0]));
        }
      }
    }
  }
}

// 7 samples are 4 and 3; behind 5 of them one each is left, behind 6 one.
TEST(DataLoaderTest, RanksThatDoNotEndTogetherAreKnown) {
  for (const int rank : {0, 1}) {
    const auto loader = NewLoader("batch_size: 3 sampler { round_up: false }",
                                  7, Options(3, rank, 2));
    EXPECT_FALSE(loader->SplitBehind(0).even);
    EXPECT_TRUE(loader->SplitBehind(5).even);
    EXPECT_FALSE(loader->SplitBehind(6).even);
    EXPECT_EQ(loader->SplitBehind(6).num_batches, 1 - rank);
    EXPECT_EQ(loader->SplitBehind(6).most_batches, 1);
    EXPECT_EQ(loader->SplitBehind(6).last_batch_size, 1 - rank);
  }
}

TEST(DataLoaderTest, ThereIsNothingBehindItsEnd) {
  for (const int workers : {0, 2}) {
    const auto loader =
        NewLoader(absl::StrCat("batch_size: 2 num_workers: ", workers), 7);
    MustNext(*loader);
    Batch batch;
    for (const int64_t samples : {int64_t{-1}, int64_t{7}}) {
      loader->SeekBehind(0, samples, 0);
      EXPECT_THAT(loader->Next(&batch),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr("batch 0 of epoch 0 behind its first ")));
    }
    loader->SeekBehind(0, 4, 3);
    EXPECT_THAT(loader->Next(&batch),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("no batch 3 of epoch 0 behind its first 4 "
                                   "samples: what is left has 2 batches of 3 "
                                   "samples")));
    loader->SeekBehind(0, 4, 1);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(6));
  }
}

// --- Augmentation ---

std::vector<at::Tensor> InputsByIndex(DataLoader& loader, int64_t epoch) {
  std::vector<at::Tensor> inputs(loader.dataset().size());
  for (const Batch& batch : Epoch(loader, epoch)) {
    for (int64_t i = 0; i < batch.size(); ++i) {
      inputs[batch.indices[i]] = batch.inputs[i];
    }
  }
  return inputs;
}

TEST(DataLoaderTest, AugmentationDependsOnSeedEpochAndSampleAlone) {
  const std::string config = absl::StrCat("batch_size: 4 ", kNoise);
  const auto base = InputsByIndex(*NewLoader(config, 10), 1);
  // Other order, batch size and rank: the same.
  const auto shuffled = InputsByIndex(
      *NewLoader(
          absl::StrCat("batch_size: 3 sampler { shuffle: true } ", kNoise), 10),
      1);
  const auto rank1 = InputsByIndex(*NewLoader(config, 10, Options(3, 1, 2)), 1);
  // Other epoch and seed: different.
  const auto epoch2 = InputsByIndex(*NewLoader(config, 10), 2);
  const auto seed4 = InputsByIndex(*NewLoader(config, 10, Options(4)), 1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(ops::equal(shuffled[i], base[i])) << i;
    if (i % 2 == 1) {
      EXPECT_TRUE(ops::equal(rank1[i], base[i])) << i;
    }
    EXPECT_FALSE(ops::equal(epoch2[i], base[i])) << i;
    EXPECT_FALSE(ops::equal(seed4[i], base[i])) << i;
  }
}

// Pass p of the infinite sampler augments as epoch p of the default one.
TEST(DataLoaderTest, InfinitePassesAreAugmentedAsEpochs) {
  const auto finite = NewLoader(
      absl::StrCat("batch_size: 5 sampler { shuffle: true } ", kNoise), 10);
  const auto infinite = NewLoader(
      absl::StrCat("batch_size: 5 sampler { type: INFINITE shuffle: true } ",
                   kNoise),
      10);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    for (const Batch& batch : Epoch(*finite, epoch)) {
      ExpectSame(MustNext(*infinite), batch);
    }
  }
}

TEST(DataLoaderTest, RanksShareAnEpochOut) {
  std::multiset<int64_t> drawn;
  for (int rank = 0; rank < 3; ++rank) {
    const auto loader =
        NewLoader("batch_size: 2 num_workers: 1 sampler { shuffle: true }", 12,
                  Options(3, rank, 3));
    for (const Batch& batch : Epoch(*loader, 1)) {
      drawn.insert(batch.indices.begin(), batch.indices.end());
    }
  }
  EXPECT_EQ(drawn,
            (std::multiset<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
}

TEST(DataLoaderTest, DefaultGeneratorIsNotTouched) {
  const at::Generator& generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor before = generator.get_state();
  for (const int workers : {0, 2}) {
    const auto loader = NewLoader(
        absl::StrCat("batch_size: 4 sampler { shuffle: true } num_workers: ",
                     workers, " ", kNoise,
                     "transforms { random_affine { degrees: 10 } } "
                     "transforms { random_flip {} } "
                     "transforms { random_crop { height: 2 width: 2 "
                     "padding: 1 } }"),
        23);
    EXPECT_THAT(loader->InputShape(), IsOk());
    Epoch(*loader, 0);
    Epoch(*loader, 1);
  }
  EXPECT_TRUE(ops::equal(generator.get_state(), before));
}

// A signal handler of the process's runs on a thread of the process's.
TEST(DataLoaderTest, WorkersTakeNoSignals) {
  auto dataset = std::make_unique<CountingDataset>(4);
  std::atomic<int> open{0};
  dataset->on_get = [&open](int64_t) {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD}) {
      if (sigismember(&mask, signal) == 0) ++open;
    }
    return absl::OkStatus();
  };
  const auto loader =
      NewLoader("batch_size: 2 num_workers: 2", std::move(dataset));
  MustNext(*loader);
  MustNext(*loader);
  EXPECT_EQ(open, 0);
}

// --- What is read, and what isn't ---

// The loader owns the dataset; this is the way back to its counter.
const CountingDataset& Counting(const DataLoader& loader) {
  return static_cast<const CountingDataset&>(loader.dataset());
}

void WaitForGets(const DataLoader& loader, int64_t n) {
  for (int i = 0; i < 5000 && Counting(loader).gets < n; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(Counting(loader).gets, n);
}

TEST(DataLoaderTest, NothingIsReadBeforeTheFirstNext) {
  const auto loader = NewLoader("batch_size: 1 num_workers: 2", 1000);
  loader->Seek(0, 500);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(Counting(*loader).gets, 0);
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(500));
}

TEST(DataLoaderTest, ReadsAheadNoFurtherThanAsked) {
  const auto loader =
      NewLoader("batch_size: 2 num_workers: 2 prefetch_factor: 3", 1000);
  MustNext(*loader);
  WaitForGets(*loader, 2 * (1 + 6));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(Counting(*loader).gets, 2 * (1 + 6));
}

TEST(DataLoaderTest, SeekToWhereItGoesKeepsWhatWasReadAhead) {
  const auto loader = NewLoader(
      "batch_size: 1 num_workers: 1 prefetch_factor: 4 "
      "sampler { shuffle: true }",
      5);
  for (int i = 0; i < 5; ++i) MustNext(*loader);
  // On into the next epoch, without being asked.
  WaitForGets(*loader, 5 + 4);
  loader->Seek(0, 5);
  loader->Seek(1, 0);
  MustNext(*loader);
  WaitForGets(*loader, 5 + 4 + 1);
  // Over two batches, which are then dropped; the rest is kept.
  loader->Seek(1, 3);
  MustNext(*loader);
  WaitForGets(*loader, 5 + 4 + 1 + 3);
}

// A validation loader, which starts again at epoch 0 or goes on to epoch 1.
TEST(DataLoaderTest, ReadAheadIsKeptWhereEpochsDontDiffer) {
  for (const int64_t epoch : {0, 1, 7}) {
    const auto loader = NewLoader(
        "batch_size: 1 num_workers: 1 prefetch_factor: 4 "
        "transforms { scale { factor: 2 } }",
        5);
    for (int i = 0; i < 5; ++i) MustNext(*loader);
    WaitForGets(*loader, 5 + 4);
    loader->Seek(epoch, 0);
    EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0));
    WaitForGets(*loader, 5 + 4 + 1);
  }
}

TEST(DataLoaderTest, SkippedBatchesAreNotRead) {
  const auto loader = NewLoader("batch_size: 1", int64_t{1} << 40);
  loader->Seek(0, (int64_t{1} << 40) - 1);
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre((int64_t{1} << 40) - 1));
  EXPECT_EQ(Counting(*loader).gets, 1);
}

// Tensors of a batch belong to the batch alone.
TEST(DataLoaderTest, BatchesShareNothing) {
  const auto loader = NewLoader(
      "batch_size: 1 num_workers: 1",
      *TensorDataset::Create(ops::arange(4, at::kFloat).reshape({4, 1}),
                             ops::arange(4)));
  const std::vector<Batch> first = Epoch(*loader, 0);
  for (const Batch& batch : first) batch.inputs.fill_(-1);
  for (const Batch& batch : Epoch(*loader, 1)) {
    EXPECT_EQ(batch.inputs.item<float>(), batch.indices[0]);
  }
}

TEST(DataLoaderTest, BulkAndSingleReadsGiveTheSame) {
  const at::Tensor inputs = ops::arange(60, at::kFloat).reshape({10, 1, 2, 3});
  const auto bulk = NewLoader("batch_size: 4",
                              *TensorDataset::Create(inputs, ops::arange(10)));
  const auto single =
      NewLoader("batch_size: 4 transforms { scale { factor: 1 } }",
                *TensorDataset::Create(inputs, ops::arange(10)));
  const std::vector<Batch> expected = Epoch(*single, 0);
  const std::vector<Batch> batches = Epoch(*bulk, 0);
  ASSERT_EQ(batches.size(), expected.size());
  for (size_t i = 0; i < batches.size(); ++i) {
    ExpectSame(batches[i], expected[i]);
  }
}

// --- InputShape ---

TEST(DataLoaderTest, InputShapeIsThatOfTransformedSamples) {
  for (const int workers : {0, 2}) {
    const auto loader = NewLoader(
        absl::StrCat(
            "batch_size: 4 sampler { shuffle: true } num_workers: ", workers,
            " transforms { random_crop { height: 3 width: 1 "
            "padding: 1 } } ",
            kNoise),
        12);
    const std::vector<Batch> expected = Epoch(*loader, 0);
    loader->Seek(0, 0);
    // Before the first batch and between others.
    for (const Batch& batch : expected) {
      const auto shape = loader->InputShape();
      ASSERT_THAT(shape, IsOk());
      EXPECT_THAT(*shape, ElementsAre(1, 3, 1));
      ExpectSame(MustNext(*loader), batch);
    }
    EXPECT_THAT(loader->InputShape(), IsOk());
  }
}

TEST(DataLoaderTest, InputShapeReadsOneSample) {
  const auto loader = NewLoader("batch_size: 1 num_workers: 2", 1000);
  EXPECT_THAT(loader->InputShape(), IsOk());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(Counting(*loader).gets, 1);
}

TEST(DataLoaderTest, InputShapeFailsAsNextDoes) {
  auto dataset = std::make_unique<CountingDataset>(20);
  dataset->on_get = [](int64_t) { return absl::OutOfRangeError("past it"); };
  EXPECT_THAT(
      NewLoader("batch_size: 4", std::move(dataset))->InputShape(),
      StatusIs(absl::StatusCode::kInternal, "dataset: sample 0: past it"));

  class Empty final : public Dataset {
   public:
    int64_t size() const override { return 1; }
    absl::Status Get(int64_t, Sample*) const override {
      return absl::OkStatus();
    }
  };
  const auto loader = NewLoader("batch_size: 1", std::make_unique<Empty>());
  const std::string message = "sample 0: input: must be defined";
  EXPECT_THAT(loader->InputShape(),
              StatusIs(absl::StatusCode::kInvalidArgument, message));
  Batch batch;
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

// --- Errors ---

class DataLoaderErrorTest : public TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Workers, DataLoaderErrorTest,
                         testing::Values(0, 1, 2, 4));

TEST_P(DataLoaderErrorTest, NamesTheSampleAndStaysAtTheBatch) {
  // More than is read ahead, so that the next epoch isn't begun.
  auto dataset = std::make_unique<CountingDataset>(200);
  std::atomic<bool> broken{true};
  std::atomic<int> tries{0};
  dataset->on_get = [&](int64_t index) {
    if (index != 9) return absl::OkStatus();
    ++tries;
    return broken ? absl::DataLossError("bad sector") : absl::OkStatus();
  };
  const auto loader =
      NewLoader(absl::StrCat("batch_size: 4 num_workers: ", GetParam()),
                std::move(dataset));
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(4, 5, 6, 7));
  Batch batch;
  batch.indices = {77};
  for (int i = 1; i <= 2; ++i) {
    EXPECT_THAT(
        loader->Next(&batch),
        StatusIs(absl::StatusCode::kDataLoss, "dataset: sample 9: bad sector"));
    EXPECT_THAT(batch.indices, ElementsAre(77));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(tries, i) << "tried again without being asked";
  }
  broken = false;
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(8, 9, 10, 11));
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(12, 13, 14, 15));
}

TEST_P(DataLoaderErrorTest, SeekGoesAround) {
  auto dataset = std::make_unique<CountingDataset>(20);
  dataset->on_get = [](int64_t index) {
    return index == 5 ? absl::DataLossError("bad") : absl::OkStatus();
  };
  const auto loader =
      NewLoader(absl::StrCat("batch_size: 4 num_workers: ", GetParam()),
                std::move(dataset));
  MustNext(*loader);
  Batch batch;
  EXPECT_THAT(loader->Next(&batch), Not(IsOk()));
  loader->Seek(0, 2);
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(8, 9, 10, 11));
}

TEST_P(DataLoaderErrorTest, Row141ExceptionsBecomeErrors) {
  auto dataset = std::make_unique<CountingDataset>(20);
  dataset->on_get = [](int64_t index) -> absl::Status {
    if (index == 1) throw std::runtime_error("thrown by the user's code");
    return absl::OkStatus();
  };
  auto loader =
      NewLoader(absl::StrCat("batch_size: 4 num_workers: ", GetParam()),
                std::move(dataset));
  Batch batch;
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kInternal,
                       AllOf(HasSubstr("dataset: sample 1: "),
                             HasSubstr("thrown by the user's code"))));
  loader = NewLoader(
      absl::StrCat("batch_size: 4 num_workers: ", GetParam(),
                   " transforms { custom { "
                   "[type.googleapis.com/google.protobuf.DoubleValue] { "
                   "value: 10 } } }"),
      20);
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr("transforms[0]: custom: sample 0: ")));
}

// An epoch doesn't end because a dataset or a transform says so.
TEST_P(DataLoaderErrorTest, IsNeverTakenForTheEpochsEnd) {
  auto dataset = std::make_unique<CountingDataset>(20);
  dataset->on_get = [](int64_t) { return absl::OutOfRangeError("past it"); };
  Batch batch;
  EXPECT_THAT(NewLoader(absl::StrCat("batch_size: 4 num_workers: ", GetParam()),
                        std::move(dataset))
                  ->Next(&batch),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("past it")));
  EXPECT_THAT(
      NewLoader(absl::StrCat(
                    "batch_size: 4 num_workers: ", GetParam(),
                    " transforms { scale { factor: 1 } } transforms { custom { "
                    "[type.googleapis.com/google.protobuf.DoubleValue] { "
                    "value: -1 } } }"),
                20)
          ->Next(&batch),
      StatusIs(absl::StatusCode::kInternal,
               "transforms[1]: custom: sample 0: no such amount"));
}

TEST_P(DataLoaderErrorTest, PositionsThatDontExistAreErrors) {
  const auto loader =
      NewLoader(absl::StrCat("batch_size: 4 num_workers: ", GetParam()), 20);
  MustNext(*loader);
  Batch batch;
  for (const auto& [epoch, position] : std::vector<std::pair<int64_t, int64_t>>{
           {0, -1}, {-1, 0}, {0, 6}, {INT64_MAX, 0}, {0, INT64_MAX}}) {
    loader->Seek(epoch, position);
    EXPECT_THAT(loader->Next(&batch),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("there is no batch")));
  }
  loader->Seek(0, 4);
  EXPECT_THAT(MustNext(*loader).indices, ElementsAre(16, 17, 18, 19));
}

TEST(DataLoaderTest, DatasetThatThrowsItsSizeIsAnError) {
  class Sizeless final : public Dataset {
   public:
    int64_t size() const override { throw std::runtime_error("not opened"); }
    absl::Status Get(int64_t, Sample*) const override {
      return absl::OkStatus();
    }
  };
  EXPECT_THAT(DataLoader::Create(Parse("batch_size: 1"),
                                 std::make_unique<Sizeless>(), Options()),
              StatusIs(absl::StatusCode::kInternal,
                       AllOf(HasSubstr("dataset: "), HasSubstr("not opened"))));
}

TEST(DataLoaderTest, UnequalSamplesAreNamed) {
  class Growing final : public Dataset {
   public:
    int64_t size() const override { return 4; }
    absl::Status Get(int64_t index, Sample* sample) const override {
      sample->input = ops::full({1 + index / 3}, 0.0f);
      return absl::OkStatus();
    }
  };
  const auto loader = NewLoader("batch_size: 4", std::make_unique<Growing>());
  Batch batch;
  EXPECT_THAT(loader->Next(&batch),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("sample 3: input: is float32 (2)"),
                             HasSubstr("sample 0"))));
}

// --- Threads ---

// Each batch behind the first takes forty seconds.
TEST(DataLoaderTest, DestructionDoesNotWaitForBatchesInFlight) {
  auto dataset = std::make_unique<CountingDataset>(1 << 20);
  dataset->on_get = [](int64_t index) {
    if (index >= 10000) {
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
    }
    return absl::OkStatus();
  };
  auto loader =
      NewLoader("batch_size: 10000 num_workers: 4", std::move(dataset));
  MustNext(*loader);
  const auto start = std::chrono::steady_clock::now();
  loader.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// Nor does a Seek elsewhere wait for them: workers leave what was dropped.
TEST(DataLoaderTest, SeekStopsBatchesThatNobodyWants) {
  auto dataset = std::make_unique<CountingDataset>(1 << 20);
  dataset->on_get = [](int64_t index) {
    if (index >= 10000 && index < 500000) {
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
    }
    return absl::OkStatus();
  };
  const auto loader =
      NewLoader("batch_size: 10000 num_workers: 2", std::move(dataset));
  MustNext(*loader);
  const auto start = std::chrono::steady_clock::now();
  loader->Seek(0, 60);
  EXPECT_EQ(MustNext(*loader).indices[0], 600000);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// Hangs if a worker doesn't wake up.
TEST(DataLoaderTest, DestructionWakesWorkersThatWait) {
  for (const int workers : {1, 4}) {
    const std::string config =
        absl::StrCat("batch_size: 1 prefetch_factor: 2 num_workers: ", workers);
    NewLoader(config, 1000);  // None has started.

    auto full = NewLoader(config, 1000);
    MustNext(*full);
    WaitForGets(*full, 1 + 2 * workers);
    full.reset();

    auto dataset = std::make_unique<CountingDataset>(1000);
    dataset->on_get = [](int64_t) { return absl::DataLossError("bad"); };
    auto paused = NewLoader(config, std::move(dataset));
    Batch batch;
    EXPECT_THAT(paused->Next(&batch), Not(IsOk()));
    paused.reset();

    for (int i = 0; i < 100; ++i) {
      MustNext(*NewLoader(config, 1000));  // Some are just starting.
    }
  }
}

TEST(DataLoaderTest, SeekingAboutUnderLoadLosesNothing) {
  const auto loader =
      NewLoader(absl::StrCat("batch_size: 3 num_workers: 4 prefetch_factor: 2 "
                             "sampler { shuffle: true } ",
                             kNoise),
                50);
  const auto plain = NewLoader(
      absl::StrCat("batch_size: 3 sampler { shuffle: true } ", kNoise), 50);
  SampleRng rng(1, 1, 1);
  for (int i = 0; i < 300; ++i) {
    const int64_t epoch = rng.Below(3);
    const int64_t batch = rng.Below(loader->num_batches());
    loader->Seek(epoch, batch);
    plain->Seek(epoch, batch);
    const int64_t reads = std::min(rng.Below(4), loader->num_batches() - batch);
    for (int64_t j = 0; j < reads; ++j) {
      ExpectSame(MustNext(*loader), MustNext(*plain));
    }
  }
}

// --- Configs ---

struct BadCase {
  std::string name;
  std::string config;
  std::string message;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class DataLoaderBadTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , DataLoaderBadTest,
    ValuesIn(std::vector<BadCase>{
        {"NoBatchSize", "", "batch_size: must be set"},
        {"BatchSize", "batch_size: 0", "batch_size: must be >= 1, is 0"},
        {"NegativeWorkers", "batch_size: 1 num_workers: -1",
         "num_workers: must be in 0..1024, is -1"},
        {"ManyWorkers", "batch_size: 1 num_workers: 1025",
         "num_workers: must be in 0..1024, is 1025"},
        {"Prefetch", "batch_size: 1 prefetch_factor: 0",
         "prefetch_factor: must be >= 1, is 0"},
        {"Sampler", "batch_size: 1 sampler { type: 5 }", "sampler: type: must"},
        {"Transform", "batch_size: 1 transforms { scale {} }",
         "transforms[0]: scale: factor: must be set"},
        {"TransformKind", "batch_size: 1 transforms {}",
         "transforms[0]: must be set, to one of: scale"},
        {"DropLast", "batch_size: 11 drop_last: true",
         "drop_last: leaves no batch of 11"},
        {"InfiniteDropLast",
         "batch_size: 1 drop_last: false sampler { type: INFINITE }",
         "drop_last: must be unset with sampler: type: INFINITE, is false"},
        {"InfiniteRoundUp",
         "batch_size: 1 sampler { type: INFINITE round_up: true }",
         "sampler: round_up: must be unset with type: INFINITE"},
        {"DatasetTwice", "batch_size: 1 dataset { idx {} }",
         "dataset: must not be set"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(DataLoaderBadTest, NamesTheField) {
  EXPECT_THAT(
      DataLoader::Create(Parse(GetParam().config),
                         std::make_unique<CountingDataset>(10), Options()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr(GetParam().message)));
}

TEST(DataLoaderTest, EmptyDatasetIsAnError) {
  EXPECT_THAT(
      DataLoader::Create(Parse("batch_size: 1"),
                         std::make_unique<CountingDataset>(0), Options()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("dataset: must have at least one sample")));
}

// --- Datasets by config ---

TEST(DataLoaderTest, DeviceThatTheProgramCannotUseIsAnError) {
  for (const c10::DeviceType type :
       {c10::DeviceType::CUDA, c10::DeviceType::Meta}) {
    DataLoader::Options options = Options();
    options.device = c10::Device(type, 0);
    if (at::globalContext().hasCUDA() && options.device.is_cuda()) continue;
    EXPECT_THAT(
        DataLoader::Create(Parse("batch_size: 1"),
                           std::make_unique<CountingDataset>(1), options)
            .status()
            .message(),
        HasSubstr(absl::StrCat("device: ", options.device.str(), ": ")));
  }
}

TEST(DataLoaderTest, MakesARegisteredDataset) {
  const auto loader = DataLoader::Create(
      Parse("batch_size: 2 dataset { custom { "
            "[type.googleapis.com/google.protobuf.Int64Value] "
            "{ value: 6 } } }"),
      Options());
  ASSERT_THAT(loader, IsOk());
  EXPECT_EQ((*loader)->dataset().size(), 6);
  EXPECT_THAT(MustNext(**loader).indices, ElementsAre(0, 1));
}

TEST(DataLoaderTest, WarningsOfTheDatasetNameTheField) {
  const auto by_config = DataLoader::Create(
      Parse("batch_size: 2 dataset { custom { "
            "[type.googleapis.com/google.protobuf.Int64Value] "
            "{ value: 6 } } }"),
      Options());
  ASSERT_THAT(by_config, IsOk());
  EXPECT_THAT(*(*by_config)->Warnings(), IsEmpty());

  auto dataset = std::make_unique<CountingDataset>(3);
  dataset->says = {"one is odd", "two isn't"};
  const auto by_code =
      DataLoader::Create(Parse("batch_size: 2"), std::move(dataset), Options());
  ASSERT_THAT(by_code, IsOk());
  EXPECT_THAT(*(*by_code)->Warnings(),
              ElementsAre("dataset: one is odd", "dataset: two isn't"));
}

TEST(DataLoaderTest, DatasetErrorsNameTheField) {
  EXPECT_THAT(DataLoader::Create(Parse("batch_size: 1"), Options()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "dataset: must be set, to one of: idx, image_folder, "
                       "custom"));
  EXPECT_THAT(
      DataLoader::Create(Parse("batch_size: 1 dataset { idx { labels: 'x' } }"),
                         Options()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "dataset: idx: images: must be set"));
  EXPECT_THAT(DataLoader::Create(
                  Parse("batch_size: 1 dataset { custom { "
                        "[type.googleapis.com/google.protobuf.Int64Value] "
                        "{ value: -1 } } }"),
                  Options()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "dataset: custom: value: must be >= 0"));
  EXPECT_THAT(
      DataLoader::Create(
          Parse("batch_size: 1 dataset { custom { "
                "[type.googleapis.com/google.protobuf.BoolValue] {} } }"),
          Options()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no dataset")));
}

TEST(DataLoaderTest, RelativePathsStartAtTheBaseDir) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/cfg/data"), IsOk());
  ASSERT_THAT(
      io::WriteFileAtomically(
          env, "/cfg/data/i",
          std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x01", 16) + "ab"),
      IsOk());
  ASSERT_THAT(
      io::WriteFileAtomically(env, "/cfg/data/l",
                              std::string("\0\0\x08\x01\0\0\0\x02\x01\0", 10)),
      IsOk());
  DataLoader::Options options = Options();
  options.base_dir = "/cfg";
  options.env = &env;
  const auto loader = DataLoader::Create(
      Parse("batch_size: 2 dataset { idx { images: 'data/i' labels: 'data/l' "
            "scale: 1 } }"),
      options);
  ASSERT_THAT(loader, IsOk());
  const Batch batch = MustNext(**loader);
  EXPECT_EQ(batch.inputs.sizes(), at::IntArrayRef({2, 1, 1, 1}));
  EXPECT_EQ(batch.inputs[1].item<float>(), 'b');
  EXPECT_TRUE(ops::equal(batch.targets, ops::arange(1, -1, -1, at::kLong)));
}

}  // namespace
}  // namespace grapnel
