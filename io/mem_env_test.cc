#include "grapnel/io/mem_env.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_conformance.h"
#include "grapnel/io/env_wrapper.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::HasSubstr;

EnvUnderTest MakeMem() {
  const auto env = std::make_shared<MemEnv>();
  EXPECT_THAT(env->CreateDir("/some/dir"), IsOk());
  return {env.get(), "/some/dir", env};
}

EnvUnderTest MakeMemRelative() {
  const auto env = std::make_shared<MemEnv>();
  EXPECT_THAT(env->CreateDir("dir"), IsOk());
  return {env.get(), "dir", env};
}

INSTANTIATE_TEST_SUITE_P(Mem, EnvTest,
                         testing::Values(&MakeMem, &MakeMemRelative));

struct Wrapped {
  MemEnv mem;
  EnvWrapper wrapper{mem};
};

EnvUnderTest MakeWrapped() {
  const auto wrapped = std::make_shared<Wrapped>();
  EXPECT_THAT(wrapped->mem.CreateDir("/dir"), IsOk());
  return {&wrapped->wrapper, "/dir", wrapped};
}

INSTANTIATE_TEST_SUITE_P(Wrapped, EnvTest, testing::Values(&MakeWrapped));

TEST(MemEnvTest, PathsOfOneThingAreManyAndLeadToIt) {
  MemEnv env;
  ASSERT_THAT(env.CreateDir("/a/b"), IsOk());
  ASSERT_THAT(WriteFileAtomically(env, "/a/f", "x"), IsOk());
  for (const char* path : {"a/f", "/a//f", "/a/./f", "/a/b/../f", "/../a/f"}) {
    EXPECT_EQ(*ReadFile(env, path), "x") << path;
  }
  EXPECT_TRUE(env.IsDirectory("/"));
  EXPECT_FALSE(env.FileExists(""));
}

TEST(MemEnvTest, AFullOneTakesWhatFitsAndSaysSo) {
  MemEnv env(10);
  auto file = env.NewWritableFile("/f");
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->Append("1234567"), IsOk());
  EXPECT_EQ(*env.FreeSpace("/"), 3);
  EXPECT_THAT((*file)->Append("89012"),
              StatusIs(Code::kResourceExhausted, HasSubstr("/f")));
  EXPECT_EQ(*ReadFile(env, "/f"), "1234567890");
  ASSERT_THAT(env.DeleteFile("/f"), IsOk());
  EXPECT_EQ(*env.FreeSpace("/"), 10);
}

// Files that say they are larger than any memory.
class HugeEnv : public MemEnv {
 public:
  static constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string& path) override {
    return std::make_unique<File>();
  }

 private:
  class File : public RandomAccessFile {
   public:
    int64_t size() const override { return kHuge; }
    absl::Status Read(int64_t offset, int64_t n, char* buffer) const override {
      return absl::OkStatus();
    }
  };
};

TEST(ReadFileTest, MoreThanMemoryHoldsIsResourceExhausted) {
  HugeEnv env;
  EXPECT_THAT(ReadFile(env, "/f", HugeEnv::kHuge),
              StatusIs(Code::kResourceExhausted, HasSubstr("/f: out of")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
