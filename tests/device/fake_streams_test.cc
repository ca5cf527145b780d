// What is seen of streams that don't wait for each other.

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "c10/core/Event.h"
#include "c10/core/Stream.h"
#include "c10/core/StreamGuard.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "gmock/gmock.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FakeStreamsTest : public ::testing::Test {
 protected:
  FakeStreamsTest()
      : device_(FakeDevice()),
        guard_(*c10::impl::getDeviceGuardImpl(device_.type())),
        main_(guard_.getStream(device_)),
        side_(guard_.getStreamFromGlobalPool(device_)) {
    guard_.synchronizeDevice(device_.index());
    TakeFakeRaces();
    DelayFakeCopies(true);
  }

  ~FakeStreamsTest() override {
    DelayFakeCopies(false);
    guard_.synchronizeDevice(device_.index());
    TakeFakeRaces();
  }

  // The copy of a batch, as a loader starts it.
  at::Tensor CopyOnSide(const at::Tensor& batch) {
    const c10::StreamGuard on_side(side_);
    return batch.to(device_, /*non_blocking=*/true);
  }

  const c10::Device device_;
  const c10::impl::DeviceGuardImplInterface& guard_;
  const c10::Stream main_;
  const c10::Stream side_;
  const at::Tensor pinned_ = ops::ones({4}).pin_memory();
};

TEST_F(FakeStreamsTest, ACopyThatIsWaitedForIsThere) {
  const at::Tensor there = CopyOnSide(pinned_);
  c10::Event event(device_.type());
  event.record(side_);
  event.block(main_);
  EXPECT_EQ(there.sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, ACopyThatIsNotWaitedForIsNaN) {
  const at::Tensor there = CopyOnSide(pinned_);
  const at::Tensor counts = CopyOnSide(ops::arange(4).pin_memory());
  const at::Tensor sum = there.sum();
  EXPECT_THAT(TakeFakeRaces(),
              ElementsAre(HasSubstr("sum on stream 0 of fake:0 reads what a "
                                    "copy to the device writes on stream")));
  EXPECT_TRUE(sum.isnan().item<bool>());
  EXPECT_EQ(counts.max().item<int64_t>(), -1);
}

TEST_F(FakeStreamsTest, AnEventFromBeforeTheCopyIsNotEnough) {
  c10::Event event(device_.type());
  event.record(side_);
  const at::Tensor there = CopyOnSide(pinned_);
  event.block(main_);
  EXPECT_TRUE(there.sum().isnan().item<bool>());
  EXPECT_EQ(TakeFakeRaces().size(), 1u);
}

TEST_F(FakeStreamsTest, OnOneStreamNothingHasToWait) {
  const at::Tensor there = pinned_.to(device_, /*non_blocking=*/true);
  EXPECT_EQ(there.sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

// Shapes are the host's.
TEST_F(FakeStreamsTest, AViewHasNotToWait) {
  const at::Tensor there = CopyOnSide(pinned_);
  c10::Event event(device_.type());
  event.record(side_);
  const at::Tensor view = there.view({2, 2}).t().unfold(0, 2, 2).detach();
  event.block(main_);
  EXPECT_EQ(view.sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, WhatTheHostWaitsForIsThere) {
  for (const bool by_event : {false, true}) {
    const at::Tensor there = CopyOnSide(pinned_);
    c10::Event event(device_.type());
    event.record(side_);
    if (by_event) {
      event.synchronize();
    } else {
      side_.synchronize();
    }
    EXPECT_EQ(there.sum().item<float>(), 4);
  }
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, AnEventIsDoneWhenItIsAskedAgain) {
  c10::Event event(device_.type());
  EXPECT_TRUE(event.query());
  const at::Tensor there = CopyOnSide(pinned_);
  event.record(side_);
  EXPECT_FALSE(event.query());
  EXPECT_TRUE(event.query());
  EXPECT_TRUE(side_.query());
  EXPECT_EQ(there.sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, AWaitIsPassedOn) {
  const c10::Stream third = guard_.getStreamFromGlobalPool(device_);
  const at::Tensor there = CopyOnSide(pinned_);
  c10::Event copied(device_.type());
  copied.record(side_);
  copied.block(third);
  c10::Event waited(device_.type());
  waited.record(third);
  waited.block(main_);
  EXPECT_EQ(there.sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, PinnedMemoryIsNotToBeWrittenBeforeTheHostHasWaited) {
  const at::Tensor there = CopyOnSide(pinned_);
  c10::Event event(device_.type());
  event.record(side_);
  event.block(main_);
  pinned_.fill_(2);
  EXPECT_EQ(there.sum().item<float>(), 8);
  EXPECT_THAT(TakeFakeRaces(), ElementsAre(HasSubstr(
                                   "pinned memory is written that a copy of 16 "
                                   "bytes on stream")));
}

// The GPU may be behind what the host has launched.
TEST_F(FakeStreamsTest, ThatAStreamHasWaitedIsNotEnoughForTheHost) {
  const at::Tensor there = CopyOnSide(pinned_);
  c10::Event event(device_.type());
  event.record(side_);
  event.block(main_);
  const at::Tensor sum = there.sum();
  pinned_.fill_(2);
  EXPECT_EQ(sum.item<float>(), 4);
  EXPECT_EQ(TakeFakeRaces().size(), 1u);
}

TEST_F(FakeStreamsTest, PinnedMemoryMayBeWrittenAfterThat) {
  const at::Tensor there = CopyOnSide(pinned_);
  side_.synchronize();
  pinned_.fill_(2);
  EXPECT_EQ(there.sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, PinnedMemoryMayBeFreedAtOnce) {
  at::Tensor there;
  {
    const at::Tensor pinned = ops::full({4}, 3.0).pin_memory();
    there = CopyOnSide(pinned);
  }
  side_.synchronize();
  EXPECT_EQ(there.sum().item<float>(), 12);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, WhatIsNotPinnedIsReadAtOnceAndWaits) {
  const at::Tensor batch = ops::ones({4});
  const int64_t before = CountFakeCopies().waits;
  const at::Tensor there = CopyOnSide(batch);
  EXPECT_EQ(CountFakeCopies().waits, before + 1);
  batch.fill_(2);
  side_.synchronize();
  EXPECT_EQ(there.sum().item<float>(), 4);

  const int64_t pinned = CountFakeCopies().waits;
  CopyOnSide(pinned_);
  EXPECT_EQ(CountFakeCopies().waits, pinned);
}

TEST_F(FakeStreamsTest, ACopyToPinnedMemoryIsThereWhenTheHostHasWaited) {
  const at::Tensor there = ops::ones({4}, device_);
  pinned_.copy_(there.mul(5), /*non_blocking=*/true);
  EXPECT_TRUE(pinned_.isnan().all().item<bool>());
  there.add(1);  // No wait of the host's.
  EXPECT_TRUE(pinned_.isnan().all().item<bool>());
  main_.synchronize();
  EXPECT_TRUE(ops::equal(pinned_, ops::full({4}, 5.0)));
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

TEST_F(FakeStreamsTest, WhatAnotherStreamUsesIsNotWrittenWithoutAWait) {
  const at::Tensor there = ops::ones({4}, device_);
  const at::Tensor read = there.add(1);
  main_.synchronize();
  there.add(1);
  {
    const c10::StreamGuard on_side(side_);
    there.fill_(2);
  }
  EXPECT_THAT(TakeFakeRaces(),
              ElementsAre(HasSubstr("writes what aten::add uses on stream 0")));
}

// The memory of a batch is of the stream that copied it.
TEST_F(FakeStreamsTest, MemoryThatAnotherStreamUsesIsRecordedOrWaitedFor) {
  for (const std::string way : {"none", "record", "wait"}) {
    at::Tensor there = CopyOnSide(pinned_);
    c10::Event copied(device_.type());
    copied.record(side_);
    copied.block(main_);
    const at::Tensor sum = there.sum();
    if (way == "record") there.record_stream(main_);
    there = at::Tensor();
    if (way == "wait") {
      c10::Event used(device_.type());
      used.record(main_);
      used.block(side_);
    }
    CopyOnSide(pinned_);
    const std::vector<std::string> races = TakeFakeRaces();
    if (way == "none") {
      EXPECT_THAT(races, ElementsAre(HasSubstr("freed without record_stream")));
    } else {
      EXPECT_THAT(races, IsEmpty()) << way;
    }
    side_.synchronize();
  }
}

TEST_F(FakeStreamsTest, NewMemoryIsUsedAfterItsStreamsWorkSoFar) {
  for (const bool waits : {false, true}) {
    ops::ones({4},
              device_);  // A caching allocator gives its memory to the next.
    const at::Tensor there = ops::empty({4}, device_);
    if (waits) {
      c10::Event used_up(device_.type());
      used_up.record(main_);
      used_up.block(side_);
    }
    {
      const c10::StreamGuard on_side(side_);
      there.copy_(pinned_, /*non_blocking=*/true);
    }
    const std::vector<std::string> races = TakeFakeRaces();
    if (waits) {
      EXPECT_THAT(races, IsEmpty());
    } else {
      EXPECT_THAT(races,
                  ElementsAre(HasSubstr(
                      "what whoever had the memory before uses on stream 0")));
    }
    side_.synchronize();
  }
}

TEST_F(FakeStreamsTest, ABackwardPassIsOrdered) {
  const at::Tensor there = CopyOnSide(pinned_);
  c10::Event event(device_.type());
  event.record(side_);
  event.block(main_);
  const at::Tensor weight = ops::ones({4}, device_).requires_grad_();
  there.mul(weight).sum().backward();
  EXPECT_EQ(weight.grad().sum().item<float>(), 4);
  EXPECT_THAT(TakeFakeRaces(), IsEmpty());
}

}  // namespace
}  // namespace grapnel
