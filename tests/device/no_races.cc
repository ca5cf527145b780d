// Linked into a test program, fails each test that leaves something in
// TakeFakeRaces().

#include <string>

#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

class NoRaces final : public ::testing::EmptyTestEventListener {
 public:
  void OnTestStart(const ::testing::TestInfo&) override { TakeFakeRaces(); }
  void OnTestEnd(const ::testing::TestInfo&) override {
    for (const std::string& race : TakeFakeRaces()) ADD_FAILURE() << race;
  }
};

const bool is_listening = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new NoRaces());
  return true;
}();

}  // namespace
}  // namespace grapnel
