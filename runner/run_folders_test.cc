#include "grapnel/runner/run_folders.h"

#include <string>

#include "grapnel/runner/parse_config_for_test.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

RunFolders Folders(const std::string& text) {
  return FoldersOf(ParseConfig(text), "/base", "net");
}

TEST(FoldersOfTest, CheckpointsAreInTheWorkDirUnlessTheConfigSaysOtherwise) {
  EXPECT_EQ(Folders("").work_dir, "/base/work_dirs/net");
  EXPECT_EQ(Folders("").checkpoint_dir, "/base/work_dirs/net");
  EXPECT_EQ(Folders("work_dir: 'w/'").work_dir, "/base/w/");
  EXPECT_EQ(Folders("work_dir: 'w/'").checkpoint_dir, "/base/w/");
  EXPECT_EQ(Folders("work_dir: 'w/' "
                    "default_hooks { checkpoint { out_dir: 'ck' } }")
                .checkpoint_dir,
            "/base/ck/w");
}

TEST(FoldersOfTest, ACheckpointHookOfTheUsersListIsAsked) {
  EXPECT_EQ(Folders("work_dir: '/w' default_hooks { off: 'checkpoint' } "
                    "custom_hooks { config { "
                    "[type.googleapis.com/grapnel.hooks.v1.IterTimerHookConfig]"
                    " {} } } custom_hooks { config { "
                    "[type.googleapis.com/"
                    "grapnel.hooks.v1.CheckpointHookConfig] "
                    "{ out_dir: '/ck' } } }")
                .checkpoint_dir,
            "/ck/w");
}

}  // namespace
}  // namespace grapnel
