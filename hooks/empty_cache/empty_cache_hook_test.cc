#include "grapnel/hooks/empty_cache/empty_cache_hook.h"

#include <cstddef>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/detail/PrivateUse1HooksInterface.h"
#include "absl/status/status.h"
#include "c10/core/Allocator.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/DeviceType.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/fake_run_context.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

// A device's caching allocator, as far as it is asked here.
class FakeDeviceAllocator final : public c10::DeviceAllocator {
 public:
  bool initialized() override { return is_initialized; }
  void emptyCache(c10::MempoolId_t) override {
    if (fails) throw std::runtime_error("the device is gone");
    ++releases;
  }

  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(
      c10::DeviceIndex) override {
    return {};
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  c10::DataPtr allocate(size_t) override { return {}; }
  void copy_data(void*, const void*, size_t) const override {}

  bool is_initialized = true;
  bool fails = false;
  int releases = 0;
};

std::unique_ptr<EmptyCacheHook> NewHook(const std::string& text) {
  EmptyCacheHook::Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
  auto hook = EmptyCacheHook::Create(config);
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

// Comes first, while LibTorch knows no accelerator: what is registered stays.
TEST(EmptyCacheHookTest, DoesNothingWithoutAnAccelerator) {
  const auto hook = NewHook("after_iter: true");
  FakeRunContext run;
  EXPECT_THAT(hook->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
  EXPECT_THAT(hook->AfterTrainEpoch(run), IsOk());
}

// An accelerator of our own, which LibTorch prefers to any other.
class EmptyCacheOnADeviceTest : public ::testing::Test {
 protected:
  static FakeDeviceAllocator& Allocator() {
    static FakeDeviceAllocator* const allocator = [] {
      c10::register_privateuse1_backend("fake");
      at::RegisterPrivateUse1HooksInterface(
          new at::PrivateUse1HooksInterface());
      auto* made = new FakeDeviceAllocator();
      c10::SetAllocator(c10::DeviceType::PrivateUse1, made);
      return made;
    }();
    return *allocator;
  }

  EmptyCacheOnADeviceTest() {
    Allocator().is_initialized = true;
    Allocator().fails = false;
    Allocator().releases = 0;
  }

  FakeRunContext run_;
};

struct PointsCase {
  std::string name;
  std::string config;
  int releases;  // In two training epochs of three iterations, each with a
                 // validation of two, and a test of one.
};

void PrintTo(const PointsCase& c, std::ostream* os) { *os << c.config; }

class EmptyCachePointsTest : public EmptyCacheOnADeviceTest,
                             public ::testing::WithParamInterface<PointsCase> {
};

INSTANTIATE_TEST_SUITE_P(
    , EmptyCachePointsTest,
    ValuesIn(std::vector<PointsCase>{
        {"AfterEpochsByDefault", "", 5},
        {"Never", "after_epoch: false", 0},
        {"BeforeEpochs", "before_epoch: true after_epoch: false", 5},
        {"AfterIterations", "after_epoch: false after_iter: true", 11},
        {"AtAllPoints", "before_epoch: true after_iter: true", 21},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(EmptyCachePointsTest, ReleasesInAllModes) {
  const auto hook = NewHook(GetParam().config);
  const IterInfo info;
  const Predictions predictions;
  for (int epoch = 0; epoch < 2; ++epoch) {
    ASSERT_THAT(hook->BeforeTrainEpoch(run_), IsOk());
    for (int i = 0; i < 3; ++i) {
      ASSERT_THAT(hook->AfterTrainIter(run_, info, LogVars()), IsOk());
    }
    ASSERT_THAT(hook->AfterTrainEpoch(run_), IsOk());
    ASSERT_THAT(hook->BeforeValEpoch(run_), IsOk());
    for (int i = 0; i < 2; ++i) {
      ASSERT_THAT(hook->AfterValIter(run_, info, predictions), IsOk());
    }
    ASSERT_THAT(hook->AfterValEpoch(run_, Metrics()), IsOk());
  }
  ASSERT_THAT(hook->BeforeTestEpoch(run_), IsOk());
  ASSERT_THAT(hook->AfterTestIter(run_, info, predictions), IsOk());
  ASSERT_THAT(hook->AfterTestEpoch(run_, Metrics()), IsOk());
  EXPECT_EQ(Allocator().releases, GetParam().releases);
}

TEST_F(EmptyCacheOnADeviceTest, UnusedDeviceIsLeftAlone) {
  Allocator().is_initialized = false;
  EXPECT_THAT(NewHook("")->AfterTrainEpoch(run_), IsOk());
  EXPECT_EQ(Allocator().releases, 0);
}

TEST_F(EmptyCacheOnADeviceTest, ErrorOfTheDeviceIsReturned) {
  Allocator().fails = true;
  EXPECT_THAT(
      NewHook("")->AfterTrainEpoch(run_),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("the device is gone")));
}

}  // namespace
}  // namespace grapnel
