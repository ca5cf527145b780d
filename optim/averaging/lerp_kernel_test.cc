// Run at three CPU capabilities: see BUILD.

#include "grapnel/optim/averaging/lerp_kernel.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/Parallel.h"
#include "ATen/TensorOperators.h"
#include "ATen/Version.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/_neg_view_ops.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/averaging/mixture.h"
#include "gtest/gtest.h"

namespace {

int64_t allocations = 0;

}  // namespace

void* operator new(size_t size) {
  ++allocations;
  return malloc(size);
}
void operator delete(void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kWeights[] = {0, 0.0002, 0.1, 0.25, 0.3, 0.5, 0.75, 0.999, 1};

at::Tensor Reference(const at::Tensor& average, const at::Tensor& source,
                     const Mixture& mixture) {
  const at::Tensor result = average.clone();
  if (mixture.form == Mixture::Form::kLerp) {
    result.lerp_(source, mixture.weight);
  } else {
    result.add_(source - average, mixture.weight);
  }
  return result;
}

// Equal to the bit; of NaNs, that both are one.
void ExpectSameBits(const at::Tensor& actual, const at::Tensor& expected) {
  ASSERT_EQ(actual.scalar_type(), expected.scalar_type());
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor a = actual.contiguous();
  const at::Tensor b = expected.contiguous();
  const auto* a_bytes = static_cast<const char*>(a.const_data_ptr());
  const auto* b_bytes = static_cast<const char*>(b.const_data_ptr());
  const at::Tensor a_nan = a.isnan(), b_nan = b.isnan();
  const bool* const a_is_nan = a_nan.const_data_ptr<bool>();
  const bool* const b_is_nan = b_nan.const_data_ptr<bool>();
  const size_t size = a.element_size();
  int64_t wrong = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (a_is_nan[i] && b_is_nan[i]) continue;
    if (memcmp(a_bytes + i * size, b_bytes + i * size, size) != 0) ++wrong;
  }
  EXPECT_EQ(wrong, 0) << "of " << a.numel() << " at "
                      << at::get_cpu_capability();
}

// Numbers of many sizes, and a few that aren't numbers.
at::Tensor Numbers(int64_t n, c10::ScalarType dtype, uint64_t seed) {
  at::manual_seed(seed);
  at::Tensor x = ops::randn({n}, at::kDouble);
  x.mul_(ops::randn({n}, at::kDouble).mul_(3).exp_());
  const double special[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1e-40, 1e-310};
  for (int64_t i = 0; i < n; i += 13) {
    x.mutable_data_ptr<double>()[i] =
        special[(seed + static_cast<uint64_t>(i) / 13) % 7];
  }
  return x.to(dtype);
}

void Mix(std::vector<AveragedTensor> pairs, const Mixture& mixture) {
  auto kernel = LerpKernel::Create(std::move(pairs));
  ASSERT_THAT(kernel, IsOk());
  ASSERT_THAT(kernel->Mix(mixture), IsOk());
}

TEST(LerpKernelTest, RunsAtTheCapabilityThatItsTestAsksFor) {
  const char* wanted = getenv("ATEN_CPU_CAPABILITY");
  if (wanted == nullptr) GTEST_SKIP() << at::get_cpu_capability();
  EXPECT_EQ(at::get_cpu_capability(),
            std::string(wanted) == "avx2" ? "AVX2" : "DEFAULT");
}

struct TypeCase {
  std::string name;
  c10::ScalarType average, source;
  // What the arithmetic is done in.
  c10::ScalarType arithmetic;
};

class LerpKernelTypeTest : public testing::TestWithParam<TypeCase> {};

TEST_P(LerpKernelTypeTest, HasTheBitsOfLibTorchsOperators) {
  const TypeCase& type = GetParam();
  for (const int64_t n : {1, 3, 4, 7, 8, 9, 31, 32, 33, 64, 71, 1000, 200001}) {
    for (const double weight : kWeights) {
      for (const auto form : {Mixture::Form::kLerp, Mixture::Form::kAdd}) {
        if (n > 1000 && weight != 0.1 && weight != 0.75) continue;
        SCOPED_TRACE(absl::StrCat(n, " elements, weight ", weight, ", form ",
                                  static_cast<int>(form)));
        const at::Tensor average = Numbers(n, type.average, 1);
        const at::Tensor source = Numbers(n, type.source, 2);
        const Mixture mixture{weight, form};
        const at::Tensor expected =
            Reference(average.to(type.arithmetic), source.to(type.arithmetic),
                      mixture)
                .to(type.average);
        Mix({{"w", average, source}}, mixture);
        ExpectSameBits(average, expected);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, LerpKernelTypeTest,
    testing::Values(
        TypeCase{"Float", at::kFloat, at::kFloat, at::kFloat},
        TypeCase{"Double", at::kDouble, at::kDouble, at::kDouble},
        TypeCase{"Half", at::kHalf, at::kHalf, at::kFloat},
        TypeCase{"BFloat16", at::kBFloat16, at::kBFloat16, at::kFloat},
        TypeCase{"FloatOfHalf", at::kFloat, at::kHalf, at::kFloat},
        TypeCase{"FloatOfBFloat16", at::kFloat, at::kBFloat16, at::kFloat},
        TypeCase{"HalfOfFloat", at::kHalf, at::kFloat, at::kFloat},
        TypeCase{"BFloat16OfFloat", at::kBFloat16, at::kFloat, at::kFloat},
        TypeCase{"BFloat16OfHalf", at::kBFloat16, at::kHalf, at::kFloat},
        TypeCase{"DoubleOfFloat", at::kDouble, at::kFloat, at::kDouble},
        TypeCase{"FloatOfDouble", at::kFloat, at::kDouble, at::kDouble},
        TypeCase{"DoubleOfHalf", at::kDouble, at::kHalf, at::kDouble},
        // Through LibTorch's operators.
        TypeCase{"ComplexFloat", at::kComplexFloat, at::kComplexFloat,
                 at::kComplexFloat}),
    [](const auto& info) { return info.param.name; });

TEST(LerpKernelTest, ALerpOfAHalfTypeIsLibTorchsOwn) {
  for (const c10::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    for (const double weight : {0.1, 0.25, 0.75}) {
      const at::Tensor average = Numbers(1003, dtype, 1);
      const at::Tensor source = Numbers(1003, dtype, 2);
      const at::Tensor expected = Reference(average, source, {weight});
      Mix({{"w", average, source}}, {weight});
      ExpectSameBits(average, expected);
    }
  }
}

TEST(LerpKernelTest, ManyTensorsOverThreadsAreAsEachAlone) {
  const int threads = at::get_num_threads();
  for (const int n : {1, 2}) {
    at::set_num_threads(n);
    // Sizes are such that threads share tensors, and have several each.
    std::vector<AveragedTensor> pairs;
    std::vector<at::Tensor> expected;
    const Mixture mixture{0.1};
    for (int i = 0; i < 40; ++i) {
      const c10::ScalarType dtype = i % 3 == 0   ? at::kDouble
                                    : i % 3 == 1 ? at::kFloat
                                                 : at::kBFloat16;
      const int64_t size = i % 5 == 0    ? 0
                           : i % 17 == 3 ? 200001
                                         : 1 + (i * 7919) % 30011;
      pairs.push_back({absl::StrCat("t", i), Numbers(size, dtype, 2 * i),
                       Numbers(size, dtype, 2 * i + 1)});
      expected.push_back(
          Reference(pairs.back().average, pairs.back().source, mixture));
    }
    const auto kept = pairs;
    Mix(std::move(pairs), mixture);
    for (size_t i = 0; i < kept.size(); ++i) {
      SCOPED_TRACE(absl::StrCat(kept[i].name, " with ", n, " threads"));
      ExpectSameBits(kept[i].average, expected[i]);
    }
  }
  at::set_num_threads(threads);
}

TEST(LerpKernelTest, StridesMayBeAny) {
  const Mixture mixture{0.3};
  const at::Tensor base = Numbers(60, at::kFloat, 5);
  const std::vector<std::pair<at::Tensor, at::Tensor>> cases = {
      // Both transposed: dense all the same.
      {base.clone().view({6, 10}).t(),
       Numbers(60, at::kFloat, 6).view({6, 10}).t()},
      {base.clone().view({10, 6}),
       Numbers(60, at::kFloat, 6).view({6, 10}).t()},
      // With gaps.
      {base.clone().view({6, 10}).slice(1, 0, 7), ops::ones({6, 7})},
      {base.clone(), ops::full({1}, 2.0F).expand({60})},
      // Bits that mean other numbers.
      {base.clone(), at::_ops::_neg_view::call(Numbers(60, at::kFloat, 6))},
      // Inside of a storage.
      {base.clone().slice(0, 3, 50),
       Numbers(60, at::kFloat, 6).slice(0, 1, 48)},
  };
  for (const auto& [average, source] : cases) {
    const at::Tensor expected = Reference(average, source, mixture);
    Mix({{"w", average, source}}, mixture);
    ExpectSameBits(average, expected);
  }
}

TEST(LerpKernelTest, ASourceThatMovedIsSeen) {
  const at::Tensor average = ops::zeros({8});
  const at::Tensor source = ops::ones({8}).set_requires_grad(true);
  auto kernel = LerpKernel::Create({{"w", average, source}});
  ASSERT_THAT(kernel, IsOk());
  source.set_data(ops::full({8}, 4.0F));
  ASSERT_THAT(kernel->Mix({0.25}), IsOk());
  EXPECT_TRUE(average.equal(ops::ones({8})));

  // Also to another type.
  source.set_data(ops::full({8}, 5.0, at::kDouble));
  ASSERT_THAT(kernel->Mix({0.25}), IsOk());
  EXPECT_TRUE(average.equal(ops::full({8}, 2.0F)));

  // Or where a storage is given other memory.
  const at::Tensor buffer = ops::ones({8});
  auto of_buffer = LerpKernel::Create({{"b", average.fill_(0), buffer}});
  ASSERT_THAT(of_buffer, IsOk());
  buffer.resize_({1 << 20}).resize_({8}).fill_(4);
  ASSERT_THAT(of_buffer->Mix({0.25}), IsOk());
  EXPECT_TRUE(average.equal(ops::ones({8})));

  // But not to another shape.
  source.set_data(ops::ones({9}));
  EXPECT_THAT(kernel->Mix({0.25}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"w\" has another shape")));
  EXPECT_THAT(kernel->Mix({0.25}), Not(IsOk())) << "nor is it left out";
}

TEST(LerpKernelTest, APassAllocatesNothing) {
  std::vector<AveragedTensor> pairs;
  for (int i = 0; i < 100; ++i) {
    pairs.push_back({absl::StrCat("t", i), ops::zeros({64}), ops::ones({64})});
  }
  auto kernel = LerpKernel::Create(std::move(pairs));
  ASSERT_THAT(kernel, IsOk());
  ASSERT_THAT(kernel->Mix({0.1}), IsOk());
  const int64_t before = allocations;
  const absl::Status status = kernel->Mix({0.1});
  const int64_t after = allocations;
  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(after, before);
}

TEST(LerpKernelTest, WhatCannotBeAveragedIsRefused) {
  EXPECT_THAT(
      LerpKernel::Create(
          {{"count", ops::zeros({2}, at::kLong), ops::zeros({2}, at::kLong)}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"count\"")));
  EXPECT_THAT(LerpKernel::Create({{"w", ops::zeros({2}), ops::zeros({3})}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"w\" has another shape")));
  EXPECT_THAT(LerpKernel::Create({{"w", ops::zeros({2}), at::Tensor()}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"w\"")));
}

// Its operators are the same on every device.
TEST(MixCudaGroupTest, AveragesAGroup) {
  for (const auto form : {Mixture::Form::kLerp, Mixture::Form::kAdd}) {
    for (const c10::ScalarType source_type : {at::kFloat, at::kHalf}) {
      std::vector<at::Tensor> averages, sources, expected;
      for (int i = 0; i < 3; ++i) {
        averages.push_back(Numbers(20 + i, at::kFloat, i));
        sources.push_back(Numbers(20 + i, source_type, 10 + i));
        expected.push_back(
            Reference(averages[i], sources[i].to(at::kFloat), {0.6, form}));
      }
      MixCudaGroup(averages, sources, {0.6, form});
      for (int i = 0; i < 3; ++i) ExpectSameBits(averages[i], expected[i]);
    }
  }
}

TEST(ExchangeBytesTest, ExchangesDenseTensorsOfAnySize) {
  for (const int64_t n : {1, 1000, 1024, 1025, 300000}) {
    const at::Tensor a = Numbers(n, at::kFloat, 1);
    const at::Tensor b = Numbers(n, at::kFloat, 2);
    const at::Tensor was_a = a.clone(), was_b = b.clone();
    ASSERT_TRUE(Exchangeable(a, b));
    ExchangeBytes(a, b);
    ExpectSameBits(a, was_b);
    ExpectSameBits(b, was_a);
  }
}

TEST(ExchangeBytesTest, IsNotForTensorsThatDiffer) {
  const at::Tensor complex = ops::ones({4}, at::kComplexFloat);
  EXPECT_FALSE(Exchangeable(complex, complex.conj()));
  const at::Tensor a = ops::zeros({4, 6});
  EXPECT_FALSE(Exchangeable(a, ops::zeros({4, 6}, at::kDouble)));
  EXPECT_FALSE(Exchangeable(a, ops::zeros({6, 4}).t()));
  EXPECT_FALSE(Exchangeable(a, ops::zeros({4, 5})));
  const at::Tensor part = ops::zeros({4, 8}).slice(1, 0, 6);
  EXPECT_FALSE(Exchangeable(part, part.clone()));
}

}  // namespace
}  // namespace grapnel
