#include "grapnel/runner/out_dir.h"

#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace grapnel {
namespace {

struct OutDirCase {
  std::string name;
  std::string work_dir;
  std::string out_dir;
  std::string base_dir;
  std::string expected;
};

void PrintTo(const OutDirCase& c, std::ostream* os) { *os << c.expected; }

class OutDirTest : public testing::TestWithParam<OutDirCase> {};

INSTANTIATE_TEST_SUITE_P(
    , OutDirTest,
    testing::ValuesIn(std::vector<OutDirCase>{
        {"Unset", "/runs/exp", "", "/base", "/runs/exp"},
        {"RelativeToTheConfig", "/runs/exp", "out", "/base", "/base/out/exp"},
        {"Absolute", "/runs/exp", "/out", "/base", "/out/exp"},
        {"SlashAtTheEnd", "/runs/exp/", "/out/", "/base", "/out/exp"},
        {"SlashesAtTheEnd", "/runs/exp//", "/out", "/base", "/out/exp"},
        {"DotAtTheEnd", "/runs/exp/.", "/out", "/base", "/out/exp"},
        {"DotsInBetween", "/runs/./a/../exp", "/out", "/base", "/out/exp"},
        {"UpAtTheEnd", "/runs/exp/a/..", "/out", "/base", "/out/exp"},
        {"SameAsWorkDir", "/runs/exp", "/runs/../runs/exp/", "/base",
         "/runs/exp"},
        {"ParentOfWorkDir", "/runs/exp", "/runs", "/base", "/runs/exp"},
        {"RelativeWorkDir", "conf/runs/exp", "out", "conf", "conf/out/exp"},
        {"RelativeWorkDirAbsoluteOut", "conf/exp/", "/out", "conf", "/out/exp"},
        {"WithoutABase", "exp", "out", "", "out/exp"},
        {"OutInWorkDir", "exp", "exp/ck", "", "exp/ck/exp"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(OutDirTest, IsJoinedWithTheRunsName) {
  const OutDirCase& c = GetParam();
  EXPECT_TRUE(
      IsSamePath(RunFolderIn(c.out_dir, c.base_dir, c.work_dir), c.expected))
      << RunFolderIn(c.out_dir, c.base_dir, c.work_dir);
  // It can be written beside an absolute work_dir.
  if (c.work_dir[0] == '/') {
    EXPECT_EQ(RunFolderIn(c.out_dir, c.base_dir, c.work_dir)[0], '/');
  }
}

TEST(RunFolderInTest, TheCurrentFolderHasAName) {
  const std::string folder = RunFolderIn("/out", "", ".");
  EXPECT_EQ(folder.rfind("/out/", 0), 0u);
  EXPECT_GT(folder.size(), 5u);
  EXPECT_EQ(folder.find('.', 5), std::string::npos) << folder;
}

TEST(IsSamePathTest, IsOfTheText) {
  EXPECT_TRUE(IsSamePath("/a/b", "/a//./c/../b/"));
  EXPECT_TRUE(IsSamePath("a", "./a/."));
  EXPECT_FALSE(IsSamePath("/a", "/a/b"));
}

}  // namespace
}  // namespace grapnel
