// A program that never names the fake device, but is linked with it.

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "gmock/gmock.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What a process writes that runs with these variables, does `f` and exits.
template <typename F>
std::string WrittenBy(F f) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // A new process.
  const std::string path = testing::TempDir() + "/copies";
  setenv("GRAPNEL_FAKE_COPIES", path.c_str(), 1);
  EXPECT_EXIT(
      {
        f();
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
  unsetenv("GRAPNEL_FAKE_COPIES");
  std::ostringstream written;
  written << std::ifstream(path).rdbuf();
  return written.str();
}

TEST(FakeDeviceRegisteredTest, IsKnownFromTheStart) {
  EXPECT_EQ(ops::ones({3}, c10::Device("fake:0")).sum().item<float>(), 3);
}

TEST(FakeDeviceRegisteredDeathTest, WritesWhatWasCopied) {
  const std::string written = WrittenBy([] {
    const at::Tensor there = ops::ones({3}).to(c10::Device("fake:0"));
    there.add(1).cpu();
    there.sum().item<float>();
  });
  EXPECT_THAT(written, HasSubstr("to_host 2\nto_device 1\nbytes_to_host "
                                 "16\nbytes_to_device 12\nwaits 3\n"));
  EXPECT_THAT(written, HasSubstr("last to device: Float [3]\n"));
}

TEST(FakeDeviceRegisteredDeathTest, DrawsAsTheEnvironmentSays) {
  const auto draw = [] {
    const at::Generator used =
        at::globalContext().defaultGenerator(c10::Device("fake:0"));
    // To be seen in the file.
    if (used.device().is_cpu()) ops::ones({77}).to(c10::Device("fake:0"));
  };
  setenv("GRAPNEL_FAKE_GENERATOR", "cpus", 1);
  EXPECT_THAT(WrittenBy(draw), HasSubstr("[77]"));
  setenv("GRAPNEL_FAKE_GENERATOR", "own", 1);
  EXPECT_THAT(WrittenBy(draw), Not(HasSubstr("[77]")));
  unsetenv("GRAPNEL_FAKE_GENERATOR");
}

}  // namespace
}  // namespace grapnel
