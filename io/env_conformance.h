// What holds of every Env. The test of an Env includes this and says
// INSTANTIATE_TEST_SUITE_P(Posix, EnvTest, testing::Values(&MakePosix)).

#ifndef GRAPNEL_IO_ENV_CONFORMANCE_H_
#define GRAPNEL_IO_ENV_CONFORMANCE_H_

#include <memory>
#include <string>
#include <vector>

#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {

struct EnvUnderTest {
  Env* env;
  std::string dir;  // Empty.
  std::shared_ptr<void> owner;
};

class EnvTest : public testing::TestWithParam<EnvUnderTest (*)()> {
 protected:
  std::string Path(const std::string& name) const {
    return JoinPath(under_test_.dir, name);
  }

  void Write(const std::string& name, absl::string_view content) {
    auto file = env_.NewWritableFile(Path(name));
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Append(content), IsOk());
    ASSERT_THAT((*file)->Close(), IsOk());
  }

  std::string Read(const std::string& name) {
    const absl::StatusOr<std::string> content = ReadFile(env_, Path(name));
    return content.ok() ? *content : content.status().ToString();
  }

  std::vector<std::string> List(const std::string& name = "") {
    const auto names = env_.ListDir(Path(name));
    return names.ok() ? *names
                      : std::vector<std::string>{names.status().ToString()};
  }

  EnvUnderTest under_test_ = GetParam()();
  Env& env_ = *under_test_.env;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_ENV_CONFORMANCE_H_
