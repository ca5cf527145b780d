#include "grapnel/hooks/sync_buffers/sync_buffers_hook.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "c10/util/complex.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;

// A model that has buffers and does nothing.
class BuffersModel final : public Model {
 public:
  explicit BuffersModel(const std::vector<at::Tensor>& buffers) {
    for (const at::Tensor& buffer : buffers) {
      buffers_.push_back({std::to_string(buffers_.size()), buffer});
    }
  }
  absl::Status ComputeLosses(const Batch&, LogVars*) override {
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch&, Predictions*) override {
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool) override {}
  bool training() const override { return true; }

 private:
  std::vector<NamedTensor> parameters_, buffers_;
};

std::unique_ptr<SyncBuffersHook> NewHook() {
  auto hook = SyncBuffersHook::Create({});
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

// One rank: its buffers, and the hook's run.
struct Rank {
  Rank(ProcessGroup& process_group, const std::vector<at::Tensor>& buffers)
      : model(buffers) {
    run.the_model = &model;
    run.group = &process_group;
  }
  BuffersModel model;
  FakeRunContext run;
  std::unique_ptr<SyncBuffersHook> hook = NewHook();
};

// Runs every rank of a group of `world_size`.
void RunAll(int world_size,
            const std::function<absl::Status(ProcessGroup&)>& body) {
  EXPECT_THAT(RunRanks(world_size, body), Each(IsOk()));
}

TEST(SyncBuffersHookTest, BuffersBecomeTheirMeans) {
  RunAll(3, [](ProcessGroup& group) -> absl::Status {
    const int r = group.rank();
    const at::Tensor mean = ops::full({2, 2}, r, at::kFloat);
    const at::Tensor wide = ops::full({1}, 0.1 + r, at::kDouble);
    const at::Tensor half = ops::full({3}, 30000.0, at::kHalf);
    // A part of another tensor, with gaps.
    const at::Tensor strided = ops::full({2, 2}, r, at::kFloat).select(1, 0);
    const at::Tensor empty = ops::empty({0}, at::kFloat);
    Rank rank(group, {mean, wide, half, strided, empty});
    GRAPNEL_RETURN_IF_ERROR(rank.hook->AfterTrainEpoch(rank.run));
    EXPECT_TRUE(ops::equal(mean, ops::full({2, 2}, 1, at::kFloat)));
    EXPECT_DOUBLE_EQ(wide.item<double>(), 1.1);
    EXPECT_TRUE(ops::equal(half, ops::full({3}, 30000.0, at::kHalf)))
        << "90000 is no half";
    EXPECT_TRUE(ops::equal(strided, ops::full({2}, 1, at::kFloat)));
    return absl::OkStatus();
  });
}

TEST(SyncBuffersHookTest, IntegersAreCutAndTruthValuesJoined) {
  RunAll(2, [](ProcessGroup& group) -> absl::Status {
    const bool first = group.rank() == 0;
    const at::Tensor count = ops::full({}, first ? 7 : 10, at::kLong);
    const at::Tensor negative = ops::full({}, first ? -7 : -10, at::kInt);
    const at::Tensor small = ops::full({}, 200, at::kByte);
    const at::Tensor large = ops::full({}, (int64_t{1} << 53) + 1, at::kLong);
    const at::Tensor once = ops::full({}, first, at::kBool);
    const at::Tensor never = ops::full({}, false, at::kBool);
    Rank rank(group, {count, negative, small, large, once, never});
    GRAPNEL_RETURN_IF_ERROR(rank.hook->AfterTrainEpoch(rank.run));
    EXPECT_EQ(count.item<int64_t>(), 8);
    EXPECT_EQ(negative.item<int>(), -8);
    EXPECT_EQ(small.item<int>(), 200) << "400 is no byte";
    EXPECT_EQ(large.item<int64_t>(), (int64_t{1} << 53) + 1);
    EXPECT_TRUE(once.item<bool>());
    EXPECT_FALSE(never.item<bool>());
    return absl::OkStatus();
  });
}

TEST(SyncBuffersHookTest, ComplexBuffersAreAveragedByParts) {
  RunAll(2, [](ProcessGroup& group) -> absl::Status {
    const double r = group.rank();
    const at::Tensor buffer =
        ops::full({2}, c10::complex<double>(r, 2 * r), at::kComplexFloat);
    Rank rank(group, {buffer});
    GRAPNEL_RETURN_IF_ERROR(rank.hook->AfterTrainEpoch(rank.run));
    EXPECT_TRUE(ops::equal(buffer, ops::full({2}, c10::complex<double>(0.5, 1),
                                             at::kComplexFloat)));
    return absl::OkStatus();
  });
}

// Whether a point averages: buffers 0 and 1 become 0.5.
bool Averages(ProcessGroup& group, Rank& rank,
              const std::function<absl::Status()>& point) {
  const at::Tensor& buffer = rank.model.buffers()[0].tensor;
  buffer.fill_(group.rank());
  EXPECT_THAT(point(), IsOk());
  return buffer.item<float>() == 0.5f;
}

TEST(SyncBuffersHookTest, SyncsOnceBetweenTrainingAndValidation) {
  RunAll(2, [](ProcessGroup& group) {
    Rank rank(group, {ops::full({}, 0, at::kFloat)});
    const auto after_epoch = [&] {
      return rank.hook->AfterTrainEpoch(rank.run);
    };
    const auto before_val = [&] { return rank.hook->BeforeValEpoch(rank.run); };
    // Epochs, the second without a validation.
    EXPECT_TRUE(Averages(group, rank, after_epoch));
    EXPECT_FALSE(Averages(group, rank, before_val));
    EXPECT_TRUE(Averages(group, rank, after_epoch));
    EXPECT_TRUE(Averages(group, rank, after_epoch));
    EXPECT_FALSE(Averages(group, rank, before_val));
    // Validations between iterations.
    EXPECT_TRUE(Averages(group, rank, before_val));
    EXPECT_TRUE(Averages(group, rank, before_val));
    return absl::OkStatus();
  });
}

TEST(SyncBuffersHookTest, ResumedRunDoesNotAverageWhatIsAveraged) {
  RunAll(2, [](ProcessGroup& group) -> absl::Status {
    Rank before(group, {ops::full({}, 0, at::kFloat)});
    GRAPNEL_RETURN_IF_ERROR(before.hook->AfterTrainEpoch(before.run));
    Rank after(group, {ops::full({}, 0, at::kFloat)});
    EXPECT_TRUE(after.hook->mutable_state()->ParseFromString(
        before.hook->mutable_state()->SerializeAsString()));
    EXPECT_FALSE(Averages(
        group, after, [&] { return after.hook->BeforeValEpoch(after.run); }));
    return absl::OkStatus();
  });
}

// An iteration-based run is one epoch, whatever its length.
TEST(SyncBuffersHookTest, EndedRunThatGoesOnAveragesBeforeItsNextValidation) {
  RunAll(2, [](ProcessGroup& group) -> absl::Status {
    Rank rank(group, {ops::full({}, 0, at::kFloat)});
    GRAPNEL_RETURN_IF_ERROR(rank.hook->AfterTrainEpoch(rank.run));
    GRAPNEL_RETURN_IF_ERROR(rank.hook->BeforeTrainEpoch(rank.run));
    EXPECT_TRUE(Averages(group, rank,
                         [&] { return rank.hook->BeforeValEpoch(rank.run); }));
    return absl::OkStatus();
  });
}

TEST(SyncBuffersHookTest, ErrorOfTheGroupEndsTheRun) {
  const auto statuses = RunRanks(2, [](ProcessGroup& group) {
    Rank rank(group, {ops::full({group.rank() + 1}, 0, at::kFloat)});
    return rank.hook->AfterTrainEpoch(rank.run);
  });
  EXPECT_THAT(statuses, Each(StatusIs(absl::StatusCode::kInvalidArgument,
                                      ::testing::HasSubstr("AllReduce"))));
}

TEST(SyncBuffersHookTest, ProcessAloneKeepsItsBuffers) {
  FakeRunContext run;  // Has no model to look at.
  const auto hook = NewHook();
  EXPECT_THAT(hook->BeforeValEpoch(run), IsOk());
  EXPECT_THAT(hook->AfterTrainEpoch(run), IsOk());
}

}  // namespace
}  // namespace grapnel
