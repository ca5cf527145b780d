#include "grapnel/examples/hand_written_loop/spiral_loop.h"

#include <cstring>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/loop_state.pb.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

using ::grapnel::IsOk;
using ::grapnel::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace io = ::grapnel::io;

SpiralOptions Options(const std::string& name, int64_t iterations = 600) {
  SpiralOptions options;
  options.dir = absl::StrCat(
      testing::TempDir(), "/",
      testing::UnitTest::GetInstance()->current_test_info()->name(), "/", name);
  options.iterations = iterations;
  return options;
}

SpiralResult Train(const SpiralOptions& options) {
  at::set_num_threads(1);  // Tensors are small, and machines busy.
  const auto result = TrainSpiral(options);
  EXPECT_THAT(result, IsOk());
  return result.value_or(SpiralResult{});
}

void TrainUntilKilled(SpiralOptions options, int64_t iterations) {
  options.killed = [iterations](int64_t iter) { return iter == iterations; };
  Train(options);
}

io::CheckpointContents Read(const SpiralOptions& options,
                            const std::string& name) {
  const auto contents =
      io::ReadCheckpoint(io::Env::Posix(), io::JoinPath(options.dir, name));
  EXPECT_THAT(contents, IsOk());
  return contents.value_or(io::CheckpointContents{});
}

std::string StateText(const io::CheckpointContents& contents) {
  grapnel::runner::v1::LoopState state;
  EXPECT_TRUE(state.ParseFromString(*contents.FindBlob("loop")));
  return state.DebugString();  // Maps in the order of their keys.
}

// Weights, buffers, average, optimizer and generator, and all numbers.
void ExpectSameBits(const io::CheckpointContents& a,
                    const io::CheckpointContents& b) {
  ASSERT_EQ(a.sections.size(), 4);
  for (const auto& [section, tensors] : a.sections) {
    const grapnel::TensorMap* const others = b.FindSection(section);
    ASSERT_NE(others, nullptr) << section;
    ASSERT_EQ(tensors.size(), others->size()) << section;
    for (const grapnel::NamedTensor& entry : tensors) {
      const at::Tensor* const other = others->Find(entry.name);
      ASSERT_NE(other, nullptr) << section << " " << entry.name;
      ASSERT_EQ(entry.tensor.nbytes(), other->nbytes());
      EXPECT_EQ(memcmp(entry.tensor.const_data_ptr(), other->const_data_ptr(),
                       other->nbytes()),
                0)
          << section << " " << entry.name;
    }
  }
  EXPECT_EQ(StateText(a), StateText(b));
}

TEST(SpiralLoopTest, LearnsAndSoDoesTheAverage) {
  const SpiralOptions options = Options("run");
  const SpiralResult result = Train(options);
  EXPECT_EQ(result.resumed_from, 0);
  EXPECT_EQ(result.iterations, 600);
  EXPECT_GT(result.accuracy, 0.9);
  EXPECT_GT(result.averaged_accuracy, 0.9);
  const io::CheckpointContents contents = Read(options, "iter_600");
  EXPECT_FALSE(contents.FindSection("model")
                   ->Find("0.weight")
                   ->equal(*contents.FindSection("ema")->Find("0.weight")));

  // Two checkpoints are kept, and one that is done doesn't train on.
  const auto names = io::Env::Posix().ListDir(options.dir);
  ASSERT_THAT(names, IsOk());
  EXPECT_THAT(*names, ElementsAre("iter_500", "iter_600", "last_checkpoint"));
  const SpiralResult again = Train(options);
  EXPECT_EQ(again.iterations, 0);
  EXPECT_EQ(again.accuracy, result.accuracy);
  EXPECT_EQ(again.averaged_accuracy, result.averaged_accuracy);
}

// In the warm-up, at its end, at a checkpoint, twice.
TEST(SpiralLoopTest, KilledAndResumedItIsTheSameRun) {
  SpiralOptions whole = Options("whole", 120);
  whole.save_interval = 20;
  Train(whole);
  const io::CheckpointContents expected = Read(whole, "iter_120");
  const std::vector<std::vector<int64_t>> kCases = {{5},  {39}, {50},
                                                    {60}, {61}, {30, 99}};
  for (const std::vector<int64_t>& kills : kCases) {
    SpiralOptions options = Options(absl::StrCat("killed_", kills[0]), 120);
    options.save_interval = 20;
    for (const int64_t at : kills) TrainUntilKilled(options, at);
    const SpiralResult result = Train(options);
    EXPECT_EQ(result.resumed_from, kills.back() / 20 * 20);
    EXPECT_EQ(result.iterations, 120 - result.resumed_from);
    SCOPED_TRACE(kills[0]);
    ExpectSameBits(expected, Read(options, "iter_120"));
  }
}

TEST(SpiralLoopTest, DamagedCheckpointIsPassedOver) {
  const SpiralOptions whole = Options("whole", 300);
  Train(whole);
  const SpiralOptions damaged = Options("damaged", 300);
  TrainUntilKilled(damaged, 250);
  const std::string path =
      io::JoinPath(damaged.dir, "iter_200/model.safetensors");
  auto bytes = io::ReadFile(io::Env::Posix(), path);
  ASSERT_THAT(bytes, IsOk());
  bytes->back() ^= 1;
  ASSERT_THAT(io::WriteFileAndSync(io::Env::Posix(), path, *bytes), IsOk());
  EXPECT_EQ(Train(damaged).resumed_from, 100);
  ExpectSameBits(Read(whole, "iter_300"), Read(damaged, "iter_300"));
}

// As if it had been so from the beginning: the cosine is longer.
TEST(SpiralLoopTest, LongerRunHasTheLongerRunsRate) {
  const SpiralOptions longer = Options("longer", 300);
  const SpiralOptions extended = Options("extended", 200);
  Train(longer);
  Train(extended);
  SpiralOptions more = extended;
  more.iterations = 300;
  EXPECT_EQ(Train(more).resumed_from, 200);
  grapnel::runner::v1::LoopState expected, actual;
  ASSERT_TRUE(
      expected.ParseFromString(*Read(longer, "iter_300").FindBlob("loop")));
  ASSERT_TRUE(actual.ParseFromString(*Read(more, "iter_300").FindBlob("loop")));
  EXPECT_EQ(actual.optimizer().groups(0).options().at("lr"),
            expected.optimizer().groups(0).options().at("lr"));
}

TEST(SpiralLoopTest, CheckpointOfSomethingElseIsAnError) {
  const SpiralOptions options = Options("other");
  io::CheckpointContents contents;
  contents.blobs = {{"loop", "?"}};
  ASSERT_THAT(
      io::WriteCheckpoint(io::Env::Posix(), options.dir, "iter_1", contents),
      IsOk());
  EXPECT_THAT(TrainSpiral(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("iter_1: is not a checkpoint of this loop")));
}

}  // namespace
}  // namespace examples
