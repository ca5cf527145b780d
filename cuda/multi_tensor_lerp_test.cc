#include "grapnel/cuda/multi_tensor_lerp.h"

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "c10/core/Stream.h"
#include "c10/core/StreamGuard.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/cuda/lerp_chunk.h"
#include "grapnel/cuda/lerp_pair.h"
#include "grapnel/cuda/multi_tensor_lerp_reference.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kHalf,
                                     at::kBFloat16};

// ------------------------------------------------------- without a device

TEST(MultiTensorLerpTest, IsRefusedWhereItCannotRun) {
  const std::vector<LerpPair> pairs = {{ops::zeros({2}), ops::ones({2})}};
  EXPECT_FALSE(MultiTensorLerp::Takes(pairs[0]));
  if (MultiTensorLerp::IsBuiltIn()) {
    EXPECT_THAT(MultiTensorLerp::Create(pairs),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("must be on a CUDA device, are on cpu")));
  } else {
    EXPECT_THAT(MultiTensorLerp::Create(pairs),
                StatusIs(absl::StatusCode::kUnimplemented,
                         HasSubstr("build with --config=cuda")));
  }
}

TEST(MultiTensorLerpTest, AnEmptyListIsNoWork) {
  if (!MultiTensorLerp::IsBuiltIn()) {
    GTEST_SKIP() << "built without --config=cuda";
  }
  auto lerp = MultiTensorLerp::Create({});
  ASSERT_THAT(lerp, IsOk());
  EXPECT_THAT((*lerp)->Update(0.5), IsOk());
  EXPECT_THAT((*lerp)->Update(std::numeric_limits<double>::infinity()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("weight: must be finite, is inf")));
}

// ------------------------------------------------------------- on a device

class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!MultiTensorLerp::IsBuiltIn()) {
      GTEST_SKIP() << "needs --config=cuda";
    }
    if (!at::hasCUDA()) {
      GTEST_SKIP() << "needs a CUDA device, and a LibTorch that finds it";
    }
  }

  static at::Tensor OnDevice(const at::Tensor& tensor) {
    return tensor.to(at::kCUDA);
  }

  // The pair on the device that has the same values.
  static LerpPair OnDevice(const LerpPair& pair) {
    return {OnDevice(pair.dst), OnDevice(pair.src)};
  }

  // Reading waits for the current stream.
  static void ExpectSameBits(const at::Tensor& device, const at::Tensor& host) {
    EXPECT_TRUE(ops::equal(device.cpu().contiguous().view(at::kByte),
                           host.contiguous().view(at::kByte)));
  }
};

TEST_F(DeviceTest, HasTheBitsOfTheReference) {
  for (double weight : {0.0, 0.0002, 0.3, 0.4999999, 0.5, 0.9, 1.0, -0.7}) {
    for (LerpForm form : {LerpForm::kLerp, LerpForm::kAdd}) {
      std::vector<LerpPair> host;
      std::vector<LerpPair> device;
      for (at::ScalarType dst_type : kTypes) {
        for (at::ScalarType src_type : kTypes) {
          for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{64},
                            kLerpChunkElements - 1, kLerpChunkElements,
                            3 * kLerpChunkElements + 5}) {
            // A tensor of its own, and one that begins within a load.
            for (int64_t offset : {0, 1}) {
              const at::Tensor dst = ops::randn({n + offset}).to(dst_type);
              const at::Tensor src = ops::randn({n + offset}).to(src_type);
              host.push_back(
                  {dst.narrow(0, offset, n), src.narrow(0, offset, n)});
              device.push_back({OnDevice(dst).narrow(0, offset, n),
                                OnDevice(src).narrow(0, offset, n)});
            }
          }
        }
      }
      auto lerp = MultiTensorLerp::Create(device);
      ASSERT_THAT(lerp, IsOk());
      // Twice: what the first left behind is the second's beginning.
      for (int i = 0; i < 2; ++i) {
        ASSERT_THAT((*lerp)->Update(weight, form), IsOk());
        ASSERT_THAT(ReferenceLerp(host, weight, form), IsOk());
      }
      for (size_t i = 0; i < host.size(); ++i) {
        SCOPED_TRACE(testing::Message()
                     << "weight " << weight << ", "
                     << c10::toString(host[i].dst.scalar_type()) << " from "
                     << c10::toString(host[i].src.scalar_type()) << ", "
                     << host[i].dst.numel() << " elements");
        ExpectSameBits(device[i].dst, host[i].dst);
      }
    }
  }
}

TEST_F(DeviceTest, ManySmallTensors) {
  std::vector<LerpPair> host;
  std::vector<LerpPair> device;
  for (int i = 0; i < 1000; ++i) {
    host.push_back({ops::randn({64}), ops::randn({64})});
    device.push_back(OnDevice(host.back()));
  }
  auto lerp = MultiTensorLerp::Create(device);
  ASSERT_THAT(lerp, IsOk());
  ASSERT_THAT((*lerp)->Update(0.001), IsOk());
  ASSERT_THAT(ReferenceLerp(host, 0.001), IsOk());
  for (size_t i = 0; i < host.size(); ++i) {
    ExpectSameBits(device[i].dst, host[i].dst);
  }
}

TEST_F(DeviceTest, SeesWhatTheSourceHasBecome) {
  const LerpPair pair = OnDevice({ops::zeros({10}), ops::ones({10})});
  auto lerp = MultiTensorLerp::Create({pair});
  ASSERT_THAT(lerp, IsOk());
  pair.src.fill_(8);
  ASSERT_THAT((*lerp)->Update(0.25), IsOk());
  ExpectSameBits(pair.dst, ops::full({10}, 2.0F));
}

TEST_F(DeviceTest, RunsOnTheCurrentStream) {
  const LerpPair pair = OnDevice({ops::zeros({1 << 20}), ops::ones({1 << 20})});
  const at::Device device = pair.dst.device();
  const c10::impl::VirtualGuardImpl impl(at::kCUDA);
  const c10::Stream side = impl.getStreamFromGlobalPool(device);
  impl.synchronizeDevice(device.index());  // The tensors are there.
  {
    auto lerp = MultiTensorLerp::Create({pair});
    ASSERT_THAT(lerp, IsOk());
    const c10::StreamGuard guard(side);
    // Each addition has to see the update before it.
    for (int i = 0; i < 100; ++i) {
      ASSERT_THAT((*lerp)->Update(1), IsOk());
      pair.src.add_(1);
    }
  }  // The list ends before its stream is done.
  const c10::StreamGuard guard(side);
  ExpectSameBits(pair.dst, ops::full({1 << 20}, 100.0F));
}

TEST_F(DeviceTest, FollowsMovedMemory) {
  for (bool move_dst : {false, true}) {
    SCOPED_TRACE(move_dst ? "dst" : "src");
    LerpPair pair = OnDevice({ops::zeros({4}), ops::ones({4})});
    auto lerp = MultiTensorLerp::Create({pair});
    ASSERT_THAT(lerp, IsOk());
    at::Tensor& moved = move_dst ? pair.dst : pair.src;
    const at::Tensor before = moved.clone();
    const at::Tensor old_memory = moved.detach();
    moved.set_data(OnDevice(ops::full({4}, 7.0F)));
    ASSERT_THAT((*lerp)->Update(0.5), IsOk());
    ExpectSameBits(pair.dst, ops::full({4}, move_dst ? 4.0F : 3.5F));
    EXPECT_TRUE(ops::equal(old_memory, before));
  }
}

TEST_F(DeviceTest, RefusesATensorThatLeftTheDevice) {
  LerpPair pair = OnDevice({ops::zeros({4}), ops::ones({4})});
  auto lerp = MultiTensorLerp::Create({pair});
  ASSERT_THAT(lerp, IsOk());
  pair.src.set_data(ops::ones({4}));
  EXPECT_THAT((*lerp)->Update(0.5),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("pairs[0]: src: is on cpu")));
}

TEST_F(DeviceTest, TakesWhatCreateTakes) {
  const LerpPair pair = OnDevice({ops::zeros({2, 3}), ops::ones({2, 3})});
  EXPECT_TRUE(MultiTensorLerp::Takes(pair));
  const LerpPair bad[] = {
      {pair.dst, ops::ones({2, 3})},
      {ops::zeros({2, 3}), pair.src},
      {pair.dst, OnDevice(ops::ones({3, 2})).t()},
      {pair.dst.to(at::kLong), pair.src},
  };
  for (const LerpPair& refused : bad) {
    EXPECT_FALSE(MultiTensorLerp::Takes(refused));
    EXPECT_THAT(MultiTensorLerp::Create({refused}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  }
}

}  // namespace
}  // namespace grapnel
