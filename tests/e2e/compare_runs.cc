#include "grapnel/tests/e2e/compare_runs.h"

#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/verify_resume/run_difference.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {

using Json = nlohmann::ordered_json;

int RunProgram(std::vector<std::string> args) {
  std::vector<char*> argv;
  for (std::string& argument : args) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

std::vector<std::string> RecordsOf(const std::string& work_dir) {
  io::Env& env = io::Env::Posix();
  std::string newest;
  const auto names = env.ListDir(work_dir);
  EXPECT_THAT(names, IsOk());
  for (const std::string& name : *names) {
    if (env.FileExists(absl::StrCat(work_dir, "/", name, "/vis_data"))) {
      newest = name;
    }
  }
  const auto text = io::ReadFile(
      env, absl::StrCat(work_dir, "/", newest, "/vis_data/scalars.json"));
  EXPECT_THAT(text, IsOk());
  std::vector<std::string> records;
  for (absl::string_view line :
       absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    Json record = Json::parse(line);
    for (const char* key : {"time", "data_time", "eta", "memory"}) {
      record.erase(key);
    }
    records.push_back(record.dump());
  }
  return records;
}

void ExpectSameCheckpoints(const io::CheckpointContents& expected,
                           const io::CheckpointContents& actual) {
  const auto differences = CompareCheckpoints(expected, actual);
  ASSERT_THAT(differences, IsOk());
  for (const RunDifference& difference : *differences) {
    ADD_FAILURE() << difference.item;
  }
}

}  // namespace grapnel
