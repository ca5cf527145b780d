#include "grapnel/tests/e2e/compare_runs.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
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

std::string StateText(const io::CheckpointContents& contents) {
  const auto state = ReadRunState(contents);
  EXPECT_THAT(state, IsOk());
  runner::v1::RunState scrubbed = *state;
  auto* hub = scrubbed.mutable_message_hub();
  for (auto& history : *hub->mutable_scalars()) {
    if (!absl::EndsWith(history.name(), "time")) continue;
    for (double& value : *history.mutable_values()) value = 0;
    history.clear_total();
    history.clear_epoch_total();
  }
  hub->mutable_infos()->erase("eta");
  hub->mutable_infos()->erase("experiment_name");
  return scrubbed.DebugString();
}

void ExpectSameTensors(const io::CheckpointContents& a,
                       const io::CheckpointContents& b) {
  ASSERT_EQ(a.sections.size(), b.sections.size());
  for (size_t i = 0; i < a.sections.size(); ++i) {
    ASSERT_EQ(a.sections[i].first, b.sections[i].first);
    const TensorMap& other = b.sections[i].second;
    ASSERT_EQ(a.sections[i].second.size(), other.size());
    for (const NamedTensor& tensor : a.sections[i].second) {
      const at::Tensor* found = other.Find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      ASSERT_EQ(tensor.tensor.nbytes(), found->nbytes()) << tensor.name;
      EXPECT_EQ(memcmp(tensor.tensor.const_data_ptr(), found->const_data_ptr(),
                       found->nbytes()),
                0)
          << a.sections[i].first << ": " << tensor.name;
    }
  }
}

}  // namespace grapnel
