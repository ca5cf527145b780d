#include "grapnel/examples/digits_ddp/same_weights_hook.h"

#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/full.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

using ::grapnel::IsOk;
using ::grapnel::StatusIs;
using ::testing::Each;
using ::testing::HasSubstr;

// Two parameters, and nothing to do with them.
class TwoWeights final : public grapnel::Model {
 public:
  explicit TwoWeights(float second)
      : parameters_({{"first", at::full({3}, 0.5)},
                     {"second", at::full({2, 2}, second)}}) {}

  absl::Status ComputeLosses(const grapnel::Batch&,
                             grapnel::LogVars*) override {
    return absl::OkStatus();
  }
  absl::Status ValStep(const grapnel::Batch&, grapnel::Predictions*) override {
    return absl::OkStatus();
  }
  const std::vector<grapnel::NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<grapnel::NamedTensor>& buffers() const override {
    return buffers_;
  }
  void SetTraining(bool) override {}
  bool training() const override { return true; }

 private:
  std::vector<grapnel::NamedTensor> parameters_, buffers_;
};

// What the hook says on each rank; rank 2 is off by so much.
std::vector<absl::Status> Check(int num_ranks, float off) {
  return grapnel::RunRanks(num_ranks, [off](grapnel::ProcessGroup& group) {
    TwoWeights model(group.rank() == 2 ? 1 + off : 1);
    grapnel::FakeRunContext run;
    run.group = &group;
    run.the_model = &model;
    return SameWeightsHook().AfterTrainEpoch(run);
  });
}

TEST(SameWeightsHookTest, EqualOnesAreGood) {
  for (const int num_ranks : {1, 2, 4}) {
    EXPECT_THAT(Check(num_ranks, 0), Each(IsOk())) << num_ranks;
  }
}

TEST(SameWeightsHookTest, ARankThatIsOffByOneBitSaysSo) {
  const std::vector<absl::Status> result = Check(4, 1.2e-7f);
  EXPECT_THAT(result[1], IsOk());
  EXPECT_THAT(result[2], StatusIs(absl::StatusCode::kDataLoss,
                                  HasSubstr("second: isn't that of rank 0")));
}

}  // namespace
}  // namespace examples
