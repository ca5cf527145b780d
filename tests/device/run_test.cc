// The digits example on a device without hardware, by the command line: where
// the device draws the CPU's random numbers it is the CPU's run, to the bit;
// where it has numbers of its own, a run that was killed and resumed is the run
// that was never interrupted.

#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/tests/e2e/compare_runs.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

constexpr char kGrapnel[] = "tests/device/killable_grapnel";
constexpr char kConfig[] = "examples/digits/digits.textproto";

struct RunCase {
  std::string name;
  std::vector<std::string> options;  // For --cfg-options.
};

void PrintTo(const RunCase& c, std::ostream* os) { *os << c.name; }

std::vector<RunCase> RunCases() {
  // LibTorch's dropout on a device rounds in another place than the CPU's,
  // which shows in 16 bits.
  const std::string no_dropout = "model.sequential.layers.9.dropout.p=0";
  return {
      {"AsConfigured", {}},
      {"AllOfTheStep",
       {"optim_wrapper.accumulative_counts=3",
        "optim_wrapper.clip_grad.max_norm=1",
        "custom_hooks.0.config={[hooks/EMAHook] {momentum: 0.01 "
        "update_buffers: true}}",
        "default_hooks.checkpoint.keep_best=2"}},
      {"SamplesInFewerBits",
       {no_dropout, "optim_wrapper.amp.dtype=BFLOAT16",
        "optim_wrapper.accumulative_counts=5",
        "optim_wrapper.accumulate_by=SAMPLES"}},
      {"HalfWithAScaleThatMoves",
       {no_dropout,
        "optim_wrapper.amp={dtype: FLOAT16 loss_scale {init_scale: 1e9 "
        "growth_interval: 10}}"}},
      {"SgdAndAnAverageByWindows",
       {"optim_wrapper.optimizer={sgd {lr: 0.05 momentum: 0.9 nesterov: true}}",
        "custom_hooks.0.config={[hooks/EMAHook] {interval: 2 ema_type "
        "{stochastic_weight_average {}}}}"}},
      {"ByIteration",
       {"train_cfg={by_epoch: false max_iters: 60 val_interval: 30}",
        "param_scheduler.0.linear.end=20",
        "param_scheduler.1={cosine_annealing {by_epoch: false begin: 20}}",
        "train_dataloader.sampler.type=INFINITE",
        "log_processor.custom_cfg.0={data_src: \"loss\" log_name: \"loss_all\" "
        "window_size: \"global\"}"}},
  };
}

std::string ReadLog(const std::string& work_dir) {
  io::Env& env = io::Env::Posix();
  std::string text;
  const auto names = env.ListDir(work_dir);
  EXPECT_THAT(names, IsOk());
  for (const std::string& name : *names) {
    const std::string path =
        absl::StrCat(work_dir, "/", name, "/", name, ".log");
    if (env.FileExists(path)) {
      absl::StrAppend(&text, io::ReadFile(env, path).value_or(""));
    }
  }
  return text;
}

class DeviceRunTest : public TestWithParam<RunCase> {
 protected:
  std::string Dir(const std::string& name) {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string test = info->name();
    for (char& c : test) c = c == '/' ? '_' : c;
    return absl::StrCat(::testing::TempDir(), "/", test, "/", name);
  }

  // Runs `grapnel train`, of ranks_ processes; returns what waitpid() says.
  int Train(const std::string& work_dir, const std::string& device,
            std::vector<std::string> extra = {}) {
    std::vector<std::string> args = {kGrapnel};
    if (ranks_ > 1) {
      args.insert(args.end(),
                  {"launch", absl::StrCat("--nproc-per-node=", ranks_), "--"});
    }
    args.insert(
        args.end(),
        {"train", kConfig, absl::StrCat("--work-dir=", work_dir),
         absl::StrCat("--device=", device), "--threads=1", "--cfg-options",
         "train_cfg={max_epochs: 2}", "train_dataloader.num_workers=2",
         "default_hooks.logger.interval=4",
         "default_hooks.checkpoint.max_keep_ckpts=-1"});
    for (const std::string& option : GetParam().options) args.push_back(option);
    for (std::string& argument : extra) args.push_back(std::move(argument));
    return RunProgram(std::move(args));
  }

  // Copies are as late as they may be, and no streams race.
  void TrainWell(const std::string& work_dir, const std::string& device,
                 std::vector<std::string> extra = {}) {
    const std::string copies = absl::StrCat(work_dir, "_copies");
    setenv("GRAPNEL_FAKE_DELAY", "1", /*overwrite=*/1);
    setenv("GRAPNEL_FAKE_COPIES", copies.c_str(), /*overwrite=*/1);
    const int status = Train(work_dir, device, std::move(extra));
    unsetenv("GRAPNEL_FAKE_COPIES");
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    const auto counted = io::ReadFile(io::Env::Posix(), copies);
    ASSERT_THAT(counted, IsOk());
    EXPECT_THAT(*counted, HasSubstr("to_host "));
    EXPECT_THAT(*counted, Not(HasSubstr("\nrace ")));
  }

  static io::CheckpointContents ReadLast(const std::string& work_dir) {
    io::Env& env = io::Env::Posix();
    const auto last = io::FindLatestCheckpoint(env, work_dir, nullptr);
    EXPECT_THAT(last, IsOk());
    auto contents = io::ReadCheckpoint(env, *last);
    EXPECT_THAT(contents, IsOk());
    return *std::move(contents);
  }

  int ranks_ = 1;
};

TEST_P(DeviceRunTest, IsTheCpusRunWhereItDrawsTheCpusNumbers) {
  setenv("GRAPNEL_FAKE_GENERATOR", "cpus", /*overwrite=*/1);
  TrainWell(Dir("cpu"), "cpu");
  TrainWell(Dir("device"), "fake");
  const io::CheckpointContents cpu = ReadLast(Dir("cpu"));
  const io::CheckpointContents device = ReadLast(Dir("device"));
  ExpectSameCheckpoints(cpu, device);
  EXPECT_EQ(device.manifest().device(), "fake");
  EXPECT_EQ(RecordsOf(Dir("cpu")), RecordsOf(Dir("device")));
}

TEST_P(DeviceRunTest, ResumesWithNumbersOfItsOwnAsIfNothingHadHappened) {
  setenv("GRAPNEL_FAKE_GENERATOR", "own", /*overwrite=*/1);
  const std::vector<std::string> saving = {
      "default_hooks.checkpoint.by_epoch=false",
      "default_hooks.checkpoint.interval=7"};
  TrainWell(Dir("whole"), "fake", saving);
  std::vector<std::string> killed = saving;
  // Behind the hooks of the case.
  killed.push_back(absl::StrCat(
      "custom_hooks.",
      GetParam().name == "AllOfTheStep" ||
              GetParam().name == "SgdAndAnAverageByWindows"
          ? 1
          : 0,
      ".config={[type.googleapis.com/grapnel.testing.KillHookConfig] "
      "{point: AFTER_TRAIN_ITER count: 33}}"));
  const int status = Train(Dir("killed"), "fake", killed);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  std::vector<std::string> resumed = saving;
  resumed.push_back("--resume");
  TrainWell(Dir("killed"), "fake", resumed);
  const io::CheckpointContents whole = ReadLast(Dir("whole"));
  const io::CheckpointContents after = ReadLast(Dir("killed"));
  ExpectSameCheckpoints(whole, after);
  const auto state = ReadRunState(whole);
  ASSERT_THAT(state, IsOk());
  ASSERT_EQ(state->rng().devices_size(), 1);
  EXPECT_EQ(state->rng().devices(0).device(), "fake");
}

INSTANTIATE_TEST_SUITE_P(, DeviceRunTest, ValuesIn(RunCases()),
                         [](const auto& info) { return info.param.name; });

using OneDeviceRunTest = DeviceRunTest;

INSTANTIATE_TEST_SUITE_P(, OneDeviceRunTest,
                         ValuesIn({RunCase{"AsConfigured", {}}}),
                         [](const auto& info) { return info.param.name; });

// What `grapnel test` says of the newest checkpoint, without its times.
std::string Evaluate(const std::string& work_dir, const std::string& device) {
  const std::string out = absl::StrCat(work_dir, "_evaluated");
  const int status = RunProgram(
      {"/bin/sh", "-c",
       absl::StrCat(kGrapnel, " test ", kConfig, " --work-dir=", work_dir,
                    " --device=", device, " --threads=1 > ", out)});
  EXPECT_EQ(status, 0);
  std::string line = io::ReadFile(io::Env::Posix(), out).value_or("");
  for (const char* const key : {"\"time\":", "\"data_time\":"}) {
    const size_t begin = line.find(key);
    if (begin == std::string::npos) continue;
    line.erase(begin, line.find_first_of(",}", begin) - begin);
  }
  return line;
}

TEST_P(OneDeviceRunTest, IsTheCpusWhenItWasKilledResumedAndEvaluated) {
  setenv("GRAPNEL_FAKE_GENERATOR", "cpus", /*overwrite=*/1);
  std::vector<std::string> options = {
      "default_hooks.checkpoint.by_epoch=false",
      "default_hooks.checkpoint.interval=7",
      "optim_wrapper.accumulative_counts=3",
      "optim_wrapper.clip_grad.max_norm=1",
      "custom_hooks.0.config={[hooks/EMAHook] {momentum: 0.01 "
      "update_buffers: true}}"};
  TrainWell(Dir("cpu"), "cpu", options);
  std::vector<std::string> killed = options;
  killed.push_back(
      "custom_hooks.1.config={[type.googleapis.com/"
      "grapnel.testing.KillHookConfig] {point: AFTER_TRAIN_ITER count: 33}}");
  const int status = Train(Dir("device"), "fake", killed);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  options.push_back("--resume");
  TrainWell(Dir("device"), "fake", options);
  const io::CheckpointContents cpu = ReadLast(Dir("cpu"));
  const io::CheckpointContents device = ReadLast(Dir("device"));
  ExpectSameCheckpoints(cpu, device);
  const std::string evaluated = Evaluate(Dir("cpu"), "cpu");
  EXPECT_THAT(evaluated, HasSubstr("accuracy/top1"));
  EXPECT_EQ(evaluated, Evaluate(Dir("device"), "fake"));
  EXPECT_EQ(evaluated, Evaluate(Dir("cpu"), "fake"));
}

TEST_P(OneDeviceRunTest, GoesOnFromTheCheckpointOfAnotherDevice) {
  setenv("GRAPNEL_FAKE_GENERATOR", "own", /*overwrite=*/1);
  for (const auto& [from, to] :
       {std::pair("cpu", "fake"), std::pair("fake", "cpu")}) {
    const std::string dir = Dir(from);
    TrainWell(dir, from, {"train_cfg={max_epochs: 1}"});
    TrainWell(dir, to, {"--resume"});
    const std::string log = ReadLog(dir);
    EXPECT_THAT(log, HasSubstr(absl::StrCat("the checkpoint was made on ", from,
                                            ", this run is on ", to)));
    EXPECT_THAT(log, HasSubstr("resumed epoch: 1, iter: 23"));
    EXPECT_EQ(ReadLast(dir).manifest().progress().iter(), 46);
  }
}

// Their gradients go through the CPU, as those of the CPU itself.
TEST_P(OneDeviceRunTest, OfTwoRanksIsTheCpusRunOfTwoRanks) {
  setenv("GRAPNEL_FAKE_GENERATOR", "cpus", /*overwrite=*/1);
  ranks_ = 2;
  const std::vector<std::string> options = {
      "optim_wrapper.accumulative_counts=3",
      "optim_wrapper.clip_grad.max_norm=1",
      "distributed={compression: BFLOAT16 broadcast_buffers: true}"};
  TrainWell(Dir("cpu"), "cpu", options);
  TrainWell(Dir("device"), "fake", options);
  const io::CheckpointContents cpu = ReadLast(Dir("cpu"));
  const io::CheckpointContents device = ReadLast(Dir("device"));
  EXPECT_EQ(device.manifest().world_size(), 2);
  EXPECT_EQ(device.manifest().device(), "fake");
  ExpectSameCheckpoints(cpu, device);
  EXPECT_EQ(RecordsOf(Dir("cpu")), RecordsOf(Dir("device")));
}

TEST_P(OneDeviceRunTest, LogsTheMemoryOfADevice) {
  TrainWell(Dir("cpu"), "cpu");
  TrainWell(Dir("device"), "fake");
  EXPECT_THAT(ReadLog(Dir("cpu")), Not(HasSubstr("memory: ")));
  EXPECT_THAT(ReadLog(Dir("device")), HasSubstr("memory: "));
}

TEST_P(OneDeviceRunTest, NamesADeviceThatIsNotThere) {
  for (const char* const device : {"cuda", "cuda:1", "fake:7", "gpu"}) {
    const int status = Train(Dir("none"), device);
    ASSERT_TRUE(WIFEXITED(status)) << device;
    EXPECT_EQ(WEXITSTATUS(status), 2) << device;
  }
}

}  // namespace
}  // namespace grapnel
