#include "grapnel/capi/dataset_callbacks.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/grapnel.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// Rows of one number, their position.
grapnel_status* Fill(void*, const int64_t* indices, size_t count,
                     grapnel_tensors* batch) {
  const int64_t shape[] = {static_cast<int64_t>(count), 1};
  void* data = nullptr;
  grapnel_status* const status = grapnel_tensors_add_new(
      batch, "input", 5, GRAPNEL_FLOAT32, shape, 2, &data);
  if (status != nullptr) return status;
  for (size_t i = 0; i < count; ++i) {
    static_cast<float*>(data)[i] = static_cast<float>(indices[i]);
  }
  return nullptr;
}

class DatasetCallbacksTest : public ::testing::TestWithParam<bool> {
 protected:
  DatasetCallbacksTest() {
    grapnel_dataset_callbacks callbacks = {};
    callbacks.struct_size = sizeof(callbacks);
    callbacks.size = 100;
    callbacks.thread_safe = GetParam() ? 1 : 0;
    callbacks.get_batch = Fill;
    auto made = capi::MakeDataset(&callbacks, nullptr);
    EXPECT_THAT(made, IsOk());
    dataset_ = std::move(made->product);
  }

  at::Tensor Get(const std::vector<int64_t>& indices) const {
    Batch batch;
    EXPECT_TRUE(dataset_->GetBatch(absl::MakeConstSpan(indices), &batch));
    return batch.inputs;
  }

  std::unique_ptr<Dataset> dataset_;
};

INSTANTIATE_TEST_SUITE_P(, DatasetCallbacksTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "ThreadSafe" : "OneAtATime";
                         });

TEST_P(DatasetCallbacksTest, AUsedUpBatchGivesItsMemoryToALaterOne) {
  std::set<const void*> places;
  at::Tensor last;  // As a loop has it while the next one is got.
  for (int64_t i = 0; i < 20; ++i) {
    last = Get({i, i + 1});
    places.insert(last.const_data_ptr());
  }
  EXPECT_EQ(places.size(), 2);
}

TEST_P(DatasetCallbacksTest, ABatchThatSomebodyHasKeepsItsValues) {
  const at::Tensor whole = Get({3, 4});
  const at::Tensor part = Get({5, 6}).select(0, 1);  // Of one that is gone.
  for (int64_t i = 0; i < 20; ++i) Get({i, i});
  EXPECT_EQ(whole[0].item<float>(), 3);
  EXPECT_EQ(whole[1].item<float>(), 4);
  EXPECT_EQ(part.item<float>(), 6);
}

TEST_P(DatasetCallbacksTest, BatchesOfOtherSizesAreWhatTheyAre) {
  for (int64_t count = 1; count < 20; ++count) {
    const at::Tensor batch = Get(std::vector<int64_t>(count, count));
    EXPECT_EQ(batch.sizes(), at::IntArrayRef({count, 1}));
    EXPECT_EQ(batch[count - 1].item<float>(), static_cast<float>(count));
    EXPECT_FALSE(batch.requires_grad());
  }
}

}  // namespace
}  // namespace grapnel
