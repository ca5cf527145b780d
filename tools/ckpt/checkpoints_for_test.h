// A work dir with checkpoints, for tests of the commands.

#ifndef GRAPNEL_TOOLS_CKPT_CHECKPOINTS_FOR_TEST_H_
#define GRAPNEL_TOOLS_CKPT_CHECKPOINTS_FOR_TEST_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/tools/ckpt/ckpt_command.h"
#include "grapnel/tools/exit_code.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {

class CheckpointCommandTest : public testing::Test {
 protected:
  using Command = absl::StatusOr<ExitCode> (*)(const CkptCommand&, io::Env&,
                                               std::ostream&);

  CheckpointCommandTest() : run_(16, '\xab') {
    EXPECT_THAT(env_.CreateDir("/w"), IsOk());
  }

  // What a run has saved after `epoch` epochs of 10 iterations: weights that
  // are `epoch` everywhere.
  io::CheckpointContents Contents(int64_t epoch) const {
    io::CheckpointContents contents;
    io::v1::CheckpointManifest& manifest = contents.manifest();
    manifest.set_run_uuid(run_);
    manifest.set_created_unix_nanos((1'700'000'000 + 60 * epoch) *
                                    1'000'000'000);
    manifest.mutable_progress()->set_epoch(epoch);
    manifest.mutable_progress()->set_iter(10 * epoch);
    manifest.mutable_progress()->set_max_epochs(9);
    (*manifest.mutable_metrics())["accuracy/top1"] =
        0.9 - 0.1 * static_cast<double>((epoch - 2) * (epoch - 2));
    manifest.set_config("model { }\nrandomness { seed: 1 }\n");
    TensorMap model, optimizer, average;
    const double value = static_cast<double>(epoch);
    Add("conv.weight", ops::full({4, 3}, value), &model);
    Add("bn.num_batches_tracked", ops::full({}, value, at::kLong), &model);
    Add("conv.weight/momentum_buffer", ops::full({4, 3}, value), &optimizer);
    Add("conv.weight", ops::full({4, 3}, value / 2), &average);
    contents.sections.emplace_back("model", std::move(model));
    contents.sections.emplace_back("optimizer", std::move(optimizer));
    contents.sections.emplace_back("ema", std::move(average));
    contents.blobs.emplace_back("state", absl::StrCat("state ", epoch));
    return contents;
  }

  static void Add(const std::string& name, at::Tensor tensor, TensorMap* map) {
    EXPECT_THAT(map->Add(name, std::move(tensor)), IsOk());
  }

  // Writes /w/epoch_<epoch>, to be the last one.
  void Save(int64_t epoch) {
    const std::string name = absl::StrCat("epoch_", epoch);
    ASSERT_THAT(io::WriteCheckpoint(env_, "/w", name, Contents(epoch)), IsOk());
    ASSERT_THAT(io::WriteLastCheckpoint(env_, "/w", "/w/" + name), IsOk());
  }

  // Changes the last byte.
  void Damage(const std::string& path) {
    auto bytes = io::ReadFile(env_, path);
    ASSERT_THAT(bytes, IsOk());
    bytes->back() ^= 1;
    ASSERT_THAT(io::WriteFileAtomically(env_, path, *bytes), IsOk());
  }

  void Cut(const std::string& path) {
    const auto bytes = io::ReadFile(env_, path);
    ASSERT_THAT(bytes, IsOk());
    ASSERT_THAT(io::WriteFileAtomically(env_, path,
                                        bytes->substr(0, bytes->size() - 1)),
                IsOk());
  }

  struct Result {
    absl::StatusOr<ExitCode> exit_code;
    std::string out;
  };

  Result Run(Command run, const std::vector<std::string>& args) {
    const absl::StatusOr<CkptCommand> command = ParseCkptCommand(args);
    EXPECT_THAT(command, IsOk());
    if (!command.ok()) return {command.status(), ""};
    std::ostringstream out;
    absl::StatusOr<ExitCode> exit_code = run(*command, *commands_env_, out);
    return {std::move(exit_code), out.str()};
  }

  // What it prints, when it returns `exit_code`.
  std::string Output(Command run, const std::vector<std::string>& args,
                     ExitCode exit_code = kDone) {
    const Result result = Run(run, args);
    EXPECT_THAT(result.exit_code, IsOk());
    if (result.exit_code.ok()) {
      EXPECT_EQ(*result.exit_code, exit_code) << result.out;
    }
    return result.out;
  }

  nlohmann::json JsonOutput(Command run, std::vector<std::string> args,
                            ExitCode exit_code = kDone) {
    args.push_back("--json");
    const std::string out = Output(run, args, exit_code);
    EXPECT_EQ(out.find('\n'), out.size() - 1) << out;
    nlohmann::json json =
        nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false);
    EXPECT_FALSE(json.is_discarded()) << out;
    return json;
  }

  // Everything under `dir`, by path.
  std::map<std::string, std::string> Files(const std::string& dir) {
    std::map<std::string, std::string> files;
    const auto names = env_.ListDir(dir);
    if (!names.ok()) return files;
    for (const std::string& name : *names) {
      const std::string path = io::JoinPath(dir, name);
      if (env_.IsDirectory(path)) {
        files[path] = "folder";
        files.merge(Files(path));
      } else {
        files[path] = io::ReadFile(env_, path).value_or("?");
      }
    }
    return files;
  }

  std::string run_;
  io::MemEnv env_;
  io::Env* commands_env_ = &env_;  // What the commands see of it.
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_CHECKPOINTS_FOR_TEST_H_
