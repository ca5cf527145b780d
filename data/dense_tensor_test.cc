#include "grapnel/data/dense_tensor.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "c10/core/Allocator.h"
#include "c10/core/CPUAllocator.h"
#include "c10/core/Device.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

TEST(DenseTensorTest, NewTensorsAreOrdinary) {
  const at::Tensor tensor = NewTensor({2, 3}, at::kFloat);
  EXPECT_TRUE(tensor.is_contiguous());
  EXPECT_EQ(tensor.sizes(), at::IntArrayRef({2, 3}));
  EXPECT_EQ(tensor.key_set(), ops::empty({2, 3}, at::kFloat).key_set());
  EXPECT_EQ(NewTensor({}, at::kLong).numel(), 1);
  EXPECT_EQ(NewTensor({0, 3}, at::kLong).numel(), 0);
}

// Counts what is taken of it, in the CPU's own memory.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    ++taken;
    return c10::GetCPUAllocator()->allocate(size);
  }
  void copy_data(void* to, const void* from, size_t size) const override {
    std::memcpy(to, from, size);
  }

  int taken = 0;
};

TEST(DenseTensorTest, PinnedMemoryIsTakenWithinTheScopeAndOnItsThreadAlone) {
  CountingAllocator outer;
  CountingAllocator inner;
  NewTensor({2}, at::kFloat);
  {
    const PinnedMemoryScope scope({&outer, c10::DeviceType::CPU});
    const at::Tensor tensor = NewTensor({2, 3}, at::kFloat);
    EXPECT_EQ(outer.taken, 1);
    EXPECT_TRUE(tensor.is_contiguous());
    EXPECT_EQ(tensor.sizes(), at::IntArrayRef({2, 3}));
    EXPECT_EQ(tensor.key_set(), ops::empty({2, 3}, at::kFloat).key_set());
    {
      const PinnedMemoryScope none({nullptr, c10::DeviceType::CPU});
      const PinnedMemoryScope other({&inner, c10::DeviceType::CPU});
      NewTensor({2}, at::kFloat);
    }
    std::thread([] { NewTensor({2}, at::kFloat); }).join();
    EXPECT_EQ(outer.taken, 1);
    EXPECT_EQ(inner.taken, 1);
    NewTensor({2}, at::kFloat);
    EXPECT_EQ(outer.taken, 2);
  }
  NewTensor({2}, at::kFloat);
  EXPECT_EQ(outer.taken, 2);
  EXPECT_EQ(inner.taken, 1);
}

TEST(DenseTensorTest, DenseMakesAnyStridesContiguous) {
  const at::Tensor base = ops::arange(24, at::kShort).reshape({2, 3, 4});
  const std::vector<at::Tensor> views = {
      base,
      base.permute({2, 0, 1}),
      base.transpose(1, 2),
      base.slice(2, 1, 4, 2),
      base.select(1, 1),
      base.select(1, 1).t(),
      base.slice(1, 0, 1).expand({2, 5, 4}),
      base.slice(0, 0, 0),
  };
  for (const at::Tensor& view : views) {
    const at::Tensor dense = Dense(view);
    EXPECT_TRUE(dense.is_contiguous());
    EXPECT_TRUE(ops::equal(dense, view)) << Describe(view);
    EXPECT_EQ(dense.is_same(view), view.is_contiguous());
  }
}

TEST(DenseTensorTest, RefusesWhatIsNoPlainMemory) {
  EXPECT_THAT(CheckPlain(ops::zeros({2})), IsOk());
  EXPECT_THAT(CheckPlain(at::Tensor()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must be defined")));
  EXPECT_THAT(CheckPlain(ops::empty({2}, at::device(at::kMeta))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("meta")));
  EXPECT_THAT(
      CheckPlain(ops::zeros({2}, at::kComplexFloat).conj()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("complex64 (2)")));
  EXPECT_THAT(
      CheckPlain(ops::zeros({2, 2}).to_sparse()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sparse")));
}

TEST(DenseTensorTest, DescribesDtypeAndShape) {
  EXPECT_EQ(Describe(ops::zeros({3, 28, 28})), "float32 (3, 28, 28)");
  EXPECT_EQ(Describe(ops::zeros({}, at::kLong)), "int64 ()");
  EXPECT_EQ(Describe(at::Tensor()), "undefined");
}

}  // namespace
}  // namespace grapnel
