#include "grapnel/runner/torch_loan.h"

#include <atomic>
#include <memory>
#include <thread>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

at::Generator Seeded(uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

at::Tensor Draw() { return ops::rand({3}); }
at::Tensor Draw(at::Generator generator) {
  return ops::empty({3}).uniform_(0, 1, generator);
}

TEST(GeneratorLoanTest, LendsAndPutsBackAndNests) {
  at::manual_seed(1);
  at::Generator process = Seeded(1), first = Seeded(2), second = Seeded(3);
  const at::Generator one = Seeded(2), two = Seeded(3);
  EXPECT_TRUE(ops::equal(Draw(), Draw(process)));
  {
    const GeneratorLoan loan(one);
    EXPECT_TRUE(ops::equal(Draw(), Draw(first)));
    {
      const GeneratorLoan inner(two);
      EXPECT_TRUE(ops::equal(Draw(), Draw(second)));
    }
    EXPECT_TRUE(ops::equal(Draw(), Draw(first)));
  }
  EXPECT_TRUE(ops::equal(Draw(), Draw(process)));
  {
    const GeneratorLoan again(one);
    EXPECT_TRUE(ops::equal(Draw(), Draw(first)));
  }
  EXPECT_TRUE(ops::equal(Draw(), Draw(process)));
}

TEST(GeneratorLoanTest, ThreadsTakeTurns) {
  std::atomic<int> holders{0};
  const auto borrow = [&](uint64_t seed) {
    at::Generator expected = Seeded(seed);
    const at::Generator own = Seeded(seed);
    for (int i = 0; i < 200; ++i) {
      const GeneratorLoan loan(own);
      EXPECT_EQ(holders.fetch_add(1), 0);
      EXPECT_TRUE(ops::equal(Draw(), Draw(expected)));
      holders.fetch_sub(1);
    }
  };
  std::thread other([&] { borrow(1); });
  borrow(2);
  other.join();
}

TEST(DeterministicScopeTest, FlagsAreTheProcesssAfterTheLastThatWantsThem) {
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(false, false);
  auto a = std::make_unique<DeterministicScope>(true);
  auto b = std::make_unique<DeterministicScope>(true);
  { const DeterministicScope none(false); }
  EXPECT_TRUE(context.deterministicAlgorithms());
  a.reset();
  EXPECT_TRUE(context.deterministicAlgorithms());
  b.reset();
  EXPECT_FALSE(context.deterministicAlgorithms());
  context.setDeterministicAlgorithms(true, true);
  { const DeterministicScope scope(true); }
  EXPECT_TRUE(context.deterministicAlgorithmsWarnOnly());
  context.setDeterministicAlgorithms(false, false);
}

}  // namespace
}  // namespace grapnel
