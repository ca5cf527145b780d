#include "grapnel/cuda/multi_tensor_lerp_thread.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/cuda/lerp_chunk.h"
#include "grapnel/cuda/lerp_pair.h"
#include "grapnel/cuda/lerp_plan.h"
#include "grapnel/cuda/multi_tensor_lerp_reference.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using internal_multi_tensor_lerp::Formula;
using internal_multi_tensor_lerp::kThreads;
using internal_multi_tensor_lerp::Math;
using internal_multi_tensor_lerp::UpdateAsThread;

template <at::ScalarType>
struct CudaTypeOf;
template <>
struct CudaTypeOf<at::kFloat> {
  using Type = float;
};
template <>
struct CudaTypeOf<at::kDouble> {
  using Type = double;
};
template <>
struct CudaTypeOf<at::kHalf> {
  using Type = __half;
};
template <>
struct CudaTypeOf<at::kBFloat16> {
  using Type = __nv_bfloat16;
};

template <at::ScalarType dst, at::ScalarType src>
struct Types {
  static constexpr at::ScalarType kDst = dst;
  static constexpr at::ScalarType kSrc = src;
  using Dst = typename CudaTypeOf<dst>::Type;
  using Src = typename CudaTypeOf<src>::Type;
};

template <typename T>
class ThreadTest : public testing::Test {
 protected:
  // Does what the device does, one thread after the other. The last first: no
  // order may matter.
  static void Run(const std::vector<LerpPair>& pairs, double weight,
                  LerpForm form) {
    const auto plan = PlanLerp(pairs);
    ASSERT_THAT(plan, IsOk());
    ASSERT_EQ(plan->size(), 1u);
    const Formula<Math<typename T::Dst, typename T::Src>> formula(
        weight, form == LerpForm::kAdd);
    for (const LerpChunk& chunk : plan->front().chunks) {
      for (uint32_t thread = kThreads; thread-- > 0;) {
        UpdateAsThread<typename T::Dst, typename T::Src>(chunk, thread,
                                                         formula);
      }
    }
  }

  static void ExpectSameBits(const at::Tensor& a, const at::Tensor& b) {
    EXPECT_TRUE(ops::equal(a.view(at::kByte), b.view(at::kByte)));
  }
};

using AllTypes = testing::Types<
    Types<at::kFloat, at::kFloat>, Types<at::kFloat, at::kDouble>,
    Types<at::kFloat, at::kHalf>, Types<at::kFloat, at::kBFloat16>,
    Types<at::kDouble, at::kFloat>, Types<at::kDouble, at::kDouble>,
    Types<at::kDouble, at::kHalf>, Types<at::kDouble, at::kBFloat16>,
    Types<at::kHalf, at::kFloat>, Types<at::kHalf, at::kDouble>,
    Types<at::kHalf, at::kHalf>, Types<at::kHalf, at::kBFloat16>,
    Types<at::kBFloat16, at::kFloat>, Types<at::kBFloat16, at::kDouble>,
    Types<at::kBFloat16, at::kHalf>, Types<at::kBFloat16, at::kBFloat16>>;
TYPED_TEST_SUITE(ThreadTest, AllTypes);

TYPED_TEST(ThreadTest, AllThreadsTogetherGiveTheReference) {
  for (double weight : {0.0, 0.0002, 0.3, 0.5, 1.0, -0.7}) {
    for (LerpForm form : {LerpForm::kLerp, LerpForm::kAdd}) {
      SCOPED_TRACE(testing::Message()
                   << weight << (form == LerpForm::kAdd ? " add" : " lerp"));
      std::vector<LerpPair> pairs;
      std::vector<LerpPair> expected;
      for (int64_t n : {int64_t{1}, int64_t{5}, int64_t{64}, int64_t{1021},
                        kLerpChunkElements, 2 * kLerpChunkElements + 13}) {
        // A tensor of its own, and one that begins within a load.
        for (int64_t offset : {0, 1}) {
          const at::Tensor dst = ops::randn({n + offset}).to(TypeParam::kDst);
          const at::Tensor src = ops::randn({n + offset}).to(TypeParam::kSrc);
          pairs.push_back({dst.narrow(0, offset, n), src.narrow(0, offset, n)});
          expected.push_back({pairs.back().dst.clone(), pairs.back().src});
        }
      }
      this->Run(pairs, weight, form);
      ASSERT_THAT(ReferenceLerp(expected, weight, form), IsOk());
      for (size_t i = 0; i < pairs.size(); ++i) {
        this->ExpectSameBits(pairs[i].dst, expected[i].dst);
      }
    }
  }
}

TYPED_TEST(ThreadTest, WritesNothingAroundTheTensor) {
  const at::Tensor memory = ops::randn({40}).to(TypeParam::kDst);
  const at::Tensor before = memory.clone();
  const at::Tensor src = ops::randn({19}).to(TypeParam::kSrc);
  this->Run({{memory.narrow(0, 16, 19), src}}, 1, LerpForm::kLerp);
  this->ExpectSameBits(memory.narrow(0, 0, 16), before.narrow(0, 0, 16));
  this->ExpectSameBits(memory.narrow(0, 35, 5), before.narrow(0, 35, 5));
}

}  // namespace
}  // namespace grapnel
