#include "grapnel/runner/torch_loan.h"

#include <cstdint>
#include <memory>
#include <thread>

#include "ATen/Context.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// The next numbers of a generator that begins at `seed`, from the `skip`th on.
at::Tensor Numbers(uint64_t seed, int64_t skip, int64_t n) {
  at::manual_seed(seed);
  return ops::rand({skip + n}).slice(0, skip);
}

// As ranges of one stream come out alike, drawn at once or one by one.
at::Tensor Draw(int64_t n) {
  at::Tensor drawn = ops::empty({n});
  for (int64_t i = 0; i < n; ++i) drawn[i] = ops::rand({1})[0];
  return drawn;
}

TEST(TorchLoanTest, EachRunGoesOnWithItsOwnNumbers) {
  at::Tensor one, two;
  const at::Tensor process = Numbers(1, 0, 9);
  const at::Tensor first = Numbers(2, 0, 6);
  const at::Tensor second = Numbers(3, 0, 6);
  at::manual_seed(1);
  EXPECT_TRUE(ops::equal(Draw(3), process.slice(0, 0, 3)));
  {
    TorchLoan loan(false, &one);
    ASSERT_THAT(loan.Begin(), IsOk());
    at::manual_seed(2);
    EXPECT_TRUE(ops::equal(Draw(3), first.slice(0, 0, 3)));
  }
  EXPECT_TRUE(ops::equal(Draw(3), process.slice(0, 3, 6)));
  {
    TorchLoan loan(false, &two);
    ASSERT_THAT(loan.Begin(), IsOk());
    at::manual_seed(3);
    EXPECT_TRUE(ops::equal(Draw(3), second.slice(0, 0, 3)));
    {
      TorchLoan inner(false, &one);  // Within the other's, as a hook may do.
      ASSERT_THAT(inner.Begin(), IsOk());
      EXPECT_TRUE(ops::equal(Draw(3), first.slice(0, 3, 6)));
    }
    EXPECT_TRUE(ops::equal(Draw(3), second.slice(0, 3, 6)));
  }
  EXPECT_TRUE(ops::equal(Draw(3), process.slice(0, 6, 9)));
}

TEST(TorchLoanTest, OverlappingLoansLeaveNothing) {
  const at::Tensor process = Numbers(1, 0, 4);
  const at::Tensor first = Numbers(2, 0, 4);
  at::Tensor one, two;
  at::manual_seed(1);
  auto a = std::make_unique<TorchLoan>(false, &one);
  ASSERT_THAT(a->Begin(), IsOk());
  at::manual_seed(2);
  Draw(2);
  auto b = std::make_unique<TorchLoan>(false, &two);
  ASSERT_THAT(b->Begin(), IsOk());
  at::manual_seed(3);
  a.reset();  // The outer one ends first.
  Draw(1);
  b.reset();
  EXPECT_TRUE(ops::equal(Draw(4), process));
  TorchLoan again(false, &one);
  ASSERT_THAT(again.Begin(), IsOk());
  EXPECT_TRUE(ops::equal(Draw(2), first.slice(0, 2, 4)));
}

TEST(TorchLoanTest, FlagsAreThoseOfTheProcessAfterTheLastThatWantsThem) {
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/true);
  at::Tensor states[3];
  auto a = std::make_unique<TorchLoan>(true, &states[0]);
  auto b = std::make_unique<TorchLoan>(true, &states[1]);
  auto c = std::make_unique<TorchLoan>(false, &states[2]);
  ASSERT_THAT(a->Begin(), IsOk());
  EXPECT_FALSE(context.deterministicAlgorithmsWarnOnly());
  ASSERT_THAT(b->Begin(), IsOk());
  ASSERT_THAT(c->Begin(), IsOk());
  a.reset();
  EXPECT_TRUE(context.deterministicAlgorithms());
  EXPECT_FALSE(context.deterministicAlgorithmsWarnOnly());
  std::thread([&] { b.reset(); }).join();
  EXPECT_TRUE(context.deterministicAlgorithms());
  EXPECT_TRUE(context.deterministicAlgorithmsWarnOnly());
  c.reset();
  EXPECT_TRUE(context.deterministicAlgorithmsWarnOnly());
  context.setDeterministicAlgorithms(false, false);
}

TEST(TorchLoanTest, OneThatDidNotBeginDoesNothing) {
  const at::Tensor process = Numbers(1, 0, 2);
  at::Tensor state;
  at::manual_seed(1);
  { const TorchLoan loan(true, &state); }
  EXPECT_FALSE(state.defined());
  EXPECT_TRUE(ops::equal(Draw(2), process));
}

}  // namespace
}  // namespace grapnel
