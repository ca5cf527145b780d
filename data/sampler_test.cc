#include "grapnel/data/sampler.h"

#include <cstdint>
#include <memory>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sampler.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using data::v1::SamplerConfig;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

SamplerConfig Parse(const std::string& text) {
  SamplerConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

SamplerOptions Options(int64_t dataset_size, int64_t seed = 0, int rank = 0,
                       int world_size = 1) {
  SamplerOptions options;
  options.dataset_size = dataset_size;
  options.seed = seed;
  options.rank = rank;
  options.world_size = world_size;
  return options;
}

std::unique_ptr<Sampler> NewSampler(const std::string& config,
                                    const SamplerOptions& options) {
  auto sampler = CreateSampler(Parse(config), options);
  EXPECT_THAT(sampler, IsOk());
  return *std::move(sampler);
}

std::vector<int64_t> Draw(Sampler& sampler, int64_t begin, int64_t end) {
  std::vector<int64_t> drawn;
  for (int64_t i = begin; i < end; ++i) drawn.push_back(sampler.At(i));
  return drawn;
}

std::vector<int64_t> Epoch(Sampler& sampler, int64_t epoch) {
  sampler.SetEpoch(epoch, 0);
  return Draw(sampler, 0, sampler.size());
}

std::vector<int64_t> Randperm(int64_t n, uint64_t seed) {
  const at::Tensor order = ops::randperm(
      n, at::make_generator<at::CPUGeneratorImpl>(seed), at::kLong);
  const int64_t* data = order.const_data_ptr<int64_t>();
  return std::vector<int64_t>(data, data + n);
}

// As LibTorch 2.11's ops::randperm(10) gives it under a generator seeded with
// 0, whose code torch.randperm in Python runs too. Written out, so that an
// order that changes with LibTorch, and with it what a resumed run reads, is
// noticed.
TEST(SamplerTest, ShufflesAsTorchDoes) {
  const auto sampler = NewSampler("shuffle: true", Options(10));
  EXPECT_THAT(Epoch(*sampler, 0), ElementsAre(4, 1, 7, 5, 3, 9, 0, 8, 6, 2));
}

// Sizes about those of the generator's state, and two of real datasets.
TEST(SamplerTest, EpochIsAddedToTheSeed) {
  for (const int64_t n : {1, 2, 3, 624, 625, 1797, 40000}) {
    const auto sampler = NewSampler("shuffle: true", Options(n, 40));
    for (const int64_t epoch : {2, 0, 1}) {
      EXPECT_EQ(Epoch(*sampler, epoch), Randperm(n, 40 + epoch))
          << n << " samples, epoch " << epoch;
    }
  }
}

// Where at::randperm itself takes 32 bits of the seed, so do we.
TEST(SamplerTest, SeedsMayBeLarge) {
  const int64_t seed = (int64_t{1} << 62) + 12345;
  const auto sampler = NewSampler("shuffle: true", Options(100, seed));
  EXPECT_EQ(Epoch(*sampler, 3), Randperm(100, seed + 3));
}

TEST(SamplerTest, WithoutShuffleEveryEpochIsInOrder) {
  const auto sampler = NewSampler("", Options(4, 9));
  EXPECT_THAT(Epoch(*sampler, 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Epoch(*sampler, 7), ElementsAre(0, 1, 2, 3));
}

struct ShardCase {
  int64_t dataset_size;
  int world_size;
};

void PrintTo(const ShardCase& c, std::ostream* os) {
  *os << c.dataset_size << " samples, " << c.world_size << " ranks";
}

class SamplerShardTest : public TestWithParam<ShardCase> {};

INSTANTIATE_TEST_SUITE_P(
    , SamplerShardTest,
    ValuesIn(std::vector<ShardCase>{
        {12, 1}, {12, 3}, {13, 3}, {14, 3}, {3, 3}, {2, 5}, {1, 8}, {100, 7}}));

// As MMEngine's DefaultSampler: (order * k)[:total][rank::world_size].
TEST_P(SamplerShardTest, RoundingUpRepeatsFromTheStart) {
  const auto [n, world_size] = GetParam();
  const int64_t per_rank = (n + world_size - 1) / world_size;
  for (int rank = 0; rank < world_size; ++rank) {
    const auto sampler =
        NewSampler("shuffle: true", Options(n, 5, rank, world_size));
    EXPECT_EQ(sampler->size(), per_rank);
    const std::vector<int64_t> order = Randperm(n, 6);
    std::vector<int64_t> expected;
    for (int64_t i = rank; i < per_rank * world_size; i += world_size) {
      expected.push_back(order[i % n]);
    }
    EXPECT_EQ(Epoch(*sampler, 1), expected) << "rank " << rank;
  }
}

TEST_P(SamplerShardTest, WithoutRoundingUpRanksShareEachSampleOut) {
  const auto [n, world_size] = GetParam();
  std::vector<int> times(n);
  for (int rank = 0; rank < world_size; ++rank) {
    const auto sampler = CreateSampler(Parse("shuffle: true round_up: false"),
                                       Options(n, 5, rank, world_size));
    if (rank >= n) {
      EXPECT_THAT(sampler, StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("round_up:")));
      continue;
    }
    ASSERT_THAT(sampler, IsOk());
    for (const int64_t index : Epoch(**sampler, 2)) ++times[index];
  }
  EXPECT_EQ(times, std::vector<int>(n, 1));
}

TEST_P(SamplerShardTest, InfiniteRanksShareTheStreamOut) {
  const auto [n, world_size] = GetParam();
  constexpr int kPasses = 5;
  std::vector<int64_t> stream;
  for (int pass = 0; pass < kPasses; ++pass) {
    const std::vector<int64_t> order = Randperm(n, 5 + pass);
    stream.insert(stream.end(), order.begin(), order.end());
  }
  for (int rank = 0; rank < world_size; ++rank) {
    const auto sampler = NewSampler("type: INFINITE shuffle: true",
                                    Options(n, 5, rank, world_size));
    EXPECT_TRUE(sampler->infinite());
    EXPECT_EQ(sampler->size(), (n + world_size - 1) / world_size);
    int64_t position = 0;
    for (size_t i = rank; i < stream.size(); i += world_size) {
      EXPECT_EQ(sampler->At(position++), stream[i]) << "rank " << rank;
    }
  }
}

TEST(SamplerTest, SeekingEqualsWalking) {
  for (const std::string config :
       {"shuffle: true", "", "type: INFINITE shuffle: true",
        "type: INFINITE"}) {
    const SamplerOptions options = Options(11, 3, 1, 2);
    const auto walker = NewSampler(config, options);
    const int64_t end = walker->infinite() ? 40 : walker->size();
    const std::vector<int64_t> walked = Draw(*walker, 0, end);
    const auto jumper = NewSampler(config, options);
    for (int64_t i = end - 1; i >= 0; --i) {
      EXPECT_EQ(jumper->At(i), walked[i]) << config << " at " << i;
    }
    EXPECT_EQ(NewSampler(config, options)->At(end - 1), walked[end - 1]);
  }
}

// As after a resume with other data, from a pass's beginning on.
TEST(SamplerTest, InfiniteBeginsWithThePassOfItsEpoch) {
  const auto sampler = NewSampler("type: INFINITE shuffle: true", Options(10));
  const std::vector<int64_t> whole = Draw(*sampler, 0, 55);
  sampler->SetEpoch(3, 0);
  EXPECT_EQ(Draw(*sampler, 0, 25),
            std::vector<int64_t>(whole.begin() + 30, whole.end()));
}

struct RestCase {
  const char* name;
  const char* config;
  int64_t dataset_size;
  int64_t begin;
  std::vector<std::vector<int64_t>> expected;  // By rank.
};

void PrintTo(const RestCase& c, std::ostream* os) { *os << c.name; }

class SamplerRestTest : public TestWithParam<RestCase> {};

// What is left of 0, 1, 2, ... behind what other ranks have had.
INSTANTIATE_TEST_SUITE_P(
    , SamplerRestTest,
    ValuesIn(std::vector<RestCase>{
        {"GoesRound", "", 10, 4, {{4, 7}, {5, 8}, {6, 9}}},
        {"IsFilledUpFromTheStart", "", 10, 6, {{6, 9}, {7, 0}, {8, 1}}},
        {"OneIsLeft", "", 10, 9, {{9}, {0}, {1}}},
        {"FewerThanRanks", "", 2, 1, {{1}, {0}, {1}, {0}}},
        {"IsNotFilledUp", "round_up: false", 10, 6, {{6, 9}, {7}, {8}}},
        {"NothingForTheLast", "round_up: false", 10, 8, {{8}, {9}, {}}},
        {"ByOne", "", 10, 7, {{7, 8, 9}}},
        {"Whole", "", 4, 0, {{0, 2}, {1, 3}}}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(SamplerRestTest, IsSharedOutAsAWholeEpochIs) {
  const RestCase& c = GetParam();
  const int world_size = static_cast<int>(c.expected.size());
  for (int rank = 0; rank < world_size; ++rank) {
    const auto sampler =
        NewSampler(c.config, Options(c.dataset_size, 0, 0, world_size));
    const int64_t size = sampler->SizeBehind(c.begin, rank);
    EXPECT_EQ(size, c.expected[rank].size()) << "rank " << rank;
    const auto own = CreateSampler(
        Parse(c.config), Options(c.dataset_size, 0, rank, world_size));
    ASSERT_THAT(own, IsOk());
    (*own)->SetEpoch(3, c.begin);
    EXPECT_EQ(Draw(**own, 0, size), c.expected[rank]) << "rank " << rank;
  }
}

// 11 samples of which other ranks have had 5, in an order of its own.
TEST(SamplerTest, TheRestOfAShuffledEpochKeepsItsOrder) {
  const std::vector<int64_t> order = Randperm(11, 5 + 2);
  for (int rank = 0; rank < 2; ++rank) {
    const auto sampler = NewSampler("shuffle: true", Options(11, 5, rank, 2));
    sampler->SetEpoch(2, 5);
    std::vector<int64_t> expected;
    for (int i = 5 + rank; i < 11; i += 2) expected.push_back(order[i]);
    EXPECT_EQ(Draw(*sampler, 0, 3), expected) << "rank " << rank;
    sampler->SetEpoch(2, 0);
    EXPECT_EQ(sampler->At(0), order[rank]);
  }
}

// Passes of 4: 2 samples of pass 1 are gone, and pass 2 comes behind it.
TEST(SamplerTest, InfiniteGoesOnInsideAPass) {
  std::vector<int64_t> stream;
  for (int pass = 1; pass < 4; ++pass) {
    const std::vector<int64_t> order = Randperm(4, 5 + pass);
    stream.insert(stream.end(), order.begin(), order.end());
  }
  for (int rank = 0; rank < 3; ++rank) {
    const auto sampler =
        NewSampler("type: INFINITE shuffle: true", Options(4, 5, rank, 3));
    EXPECT_EQ(sampler->SizeBehind(2, rank), 1);
    sampler->SetEpoch(1, 2);
    EXPECT_EQ(Draw(*sampler, 0, 3),
              (std::vector<int64_t>{stream[2 + rank], stream[5 + rank],
                                    stream[8 + rank]}));
  }
}

// No walking there.
TEST(SamplerTest, FarPositionsCostNoMore) {
  const auto sampler = NewSampler("type: INFINITE", Options(7));
  EXPECT_EQ(sampler->At((int64_t{1} << 60) * 7 + 3), 3);
}

struct BadCase {
  std::string name;
  std::string config;
  SamplerOptions options;
  std::string message;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class SamplerBadTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , SamplerBadTest,
    ValuesIn(std::vector<BadCase>{
        {"Type", "type: 9", Options(1), "type: must be DEFAULT or INFINITE"},
        {"InfiniteRoundUp", "type: INFINITE round_up: true", Options(1),
         "round_up: must be unset with type: INFINITE, is true"},
        {"InfiniteRoundUpFalse", "type: INFINITE round_up: false", Options(1),
         "round_up: must be unset with type: INFINITE, is false"},
        {"NoSamples", "", Options(0), "must have at least one sample"},
        {"Seed", "", Options(1, -1), "seed: must be >= 0, is -1"},
        {"WorldSize", "", Options(1, 0, 0, 0), "world_size: must be >= 1"},
        {"NegativeRank", "", Options(1, 0, -1, 2), "rank: must be in 0..1"},
        {"RankTooLarge", "", Options(1, 0, 2, 2),
         "rank: must be in 0..1, is 2"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(SamplerBadTest, NamesTheField) {
  EXPECT_THAT(CreateSampler(Parse(GetParam().config), GetParam().options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

}  // namespace
}  // namespace grapnel
