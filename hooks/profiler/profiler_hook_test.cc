#include "grapnel/hooks/profiler/profiler_hook.h"

#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "torch/csrc/autograd/profiler_kineto.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::TestWithParam;
using ::testing::ValuesIn;
using Json = nlohmann::json;

absl::StatusOr<std::unique_ptr<ProfilerHook>> Create(const std::string& text) {
  ProfilerHook::Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return ProfilerHook::Create(config);
}

std::unique_ptr<ProfilerHook> NewHook(const std::string& text) {
  auto hook = Create(text);
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

// A training loop whose iterations are one linear layer.
struct Loop {
  explicit Loop(const std::string& config) : hook(NewHook(config)) {
    run.total_epochs = 2;
    run.total_iters = 20;
    info.num_batches = 10;
  }

  absl::Status Begin() {
    const absl::Status status = hook->BeforeTrain(run);
    return status.ok() ? hook->BeforeTrainEpoch(run) : status;
  }
  void Iterate() { functional::linear(ops::ones({4, 3}), ops::ones({2, 3})); }
  absl::Status Iterations(int n) {
    for (int i = 0; i < n; ++i) {
      Iterate();
      const absl::Status status = hook->AfterTrainIter(run, info, LogVars());
      if (!status.ok()) return status;
      ++run.iters;
      ++info.batch_idx;
    }
    return absl::OkStatus();
  }
  // One epoch, from begin to end.
  void Epoch(int iterations) {
    info.batch_idx = 0;
    info.num_batches = iterations;
    ASSERT_THAT(Begin(), IsOk());
    ASSERT_THAT(Iterations(iterations), IsOk());
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  }

  // Events of a trace in the log folder.
  Json Events(const std::string& name = "trace.json") {
    const auto text = io::ReadFile(*run.mem_env, io::JoinPath(run.logs, name));
    EXPECT_THAT(text, IsOk());
    return Json::parse(*text)["traceEvents"];
  }
  // The log folder's files.
  std::vector<std::string> Files() { return *run.mem_env->ListDir(run.logs); }

  FakeRunContext run;
  IterInfo info;  // Of a long epoch.
  std::unique_ptr<ProfilerHook> hook;
};

// Events that took time, of that name.
std::vector<Json> Named(const Json& events, const std::string& name) {
  std::vector<Json> named;
  for (const Json& event : events) {
    if (event["ph"] == "X" && event["name"] == name) named.push_back(event);
  }
  return named;
}

// Numbers of the steps in a trace.
std::vector<int> Steps(const Json& events) {
  std::set<int> steps;
  const std::string prefix = "ProfilerStep#";
  for (const Json& event : events) {
    const std::string name = event.value("name", "");
    if (event["ph"] != "X" || name.rfind(prefix, 0) != 0) continue;
    EXPECT_EQ(event["cat"], "user_annotation");
    EXPECT_TRUE(steps.insert(std::stoi(name.substr(prefix.size()))).second)
        << name << " is there twice";
  }
  return std::vector<int>(steps.begin(), steps.end());
}

bool IsInside(const Json& event, const Json& outer) {
  return event["ts"] >= outer["ts"] &&
         event["ts"].get<double>() + event["dur"].get<double>() <=
             outer["ts"].get<double>() + outer["dur"].get<double>();
}

TEST(ProfilerHookTest, EpochIsATraceWithAStepForEachIteration) {
  Loop loop("");
  loop.Epoch(3);
  const Json events = loop.Events();
  EXPECT_THAT(Steps(events), ElementsAre(0, 1, 2));
  const auto linears = Named(events, "aten::linear");
  ASSERT_EQ(linears.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const auto step = Named(events, absl::StrCat("ProfilerStep#", i));
    ASSERT_EQ(step.size(), 1u);
    EXPECT_TRUE(IsInside(linears[i], step[0])) << i;
  }
  EXPECT_THAT(loop.run.run_log.messages(),
              Contains("Profile written to /work_dir/20260102_030405/"
                       "trace.json"));
}

TEST(ProfilerHookTest, OnlyTheFirstEpochIsProfiled) {
  Loop loop("");
  loop.Epoch(2);
  loop.Epoch(3);
  EXPECT_THAT(Steps(loop.Events()), ElementsAre(0, 1));
  EXPECT_THAT(loop.Files(), ElementsAre("trace.json"));
}

TEST(ProfilerHookTest, IterationsEndTheProfile) {
  Loop loop("by_epoch: false profile_times: 2");
  ASSERT_THAT(loop.Begin(), IsOk());
  ASSERT_THAT(loop.Iterations(2), IsOk());
  EXPECT_THAT(Steps(loop.Events()), ElementsAre(0, 1));
  ASSERT_THAT(loop.Iterations(3), IsOk());
  ASSERT_THAT(loop.hook->AfterTrainEpoch(loop.run), IsOk());
  EXPECT_THAT(Steps(loop.Events()), ElementsAre(0, 1));
}

TEST(ProfilerHookTest, EndOfTheEpochEndsIterationsToo) {
  Loop loop("by_epoch: false profile_times: 9");
  loop.Epoch(2);
  EXPECT_THAT(Steps(loop.Events()), ElementsAre(0, 1));
}

struct ScheduleCase {
  std::string name;
  std::string schedule;
  int iterations;
  std::vector<std::vector<int>> traces;  // Steps in each.
};

void PrintTo(const ScheduleCase& c, std::ostream* os) { *os << c.schedule; }

class ProfilerScheduleTest : public TestWithParam<ScheduleCase> {};

INSTANTIATE_TEST_SUITE_P(
    , ProfilerScheduleTest,
    ValuesIn(std::vector<ScheduleCase>{
        {"ActiveAgainAndAgain", "active: 2", 5, {{0, 1}, {2, 3}, {4}}},
        {"OneOfEach", "wait: 1 warmup: 1 active: 1", 7, {{2}, {5}}},
        {"RepeatEndsIt", "wait: 1 active: 1 repeat: 2", 9, {{1}, {3}}},
        {"SkipFirst",
         "skip_first: 3 warmup: 1 active: 2 repeat: 1",
         9,
         {{4, 5}}},
        {"CutInTheWarmUp", "warmup: 2 active: 2", 5, {{2, 3}}},
        {"CutWhileActive", "warmup: 1 active: 9", 3, {{1, 2}}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(ProfilerScheduleTest, WritesATraceForEachActivePart) {
  const ScheduleCase& c = GetParam();
  Loop loop("schedule { " + c.schedule + " }");
  loop.Epoch(c.iterations);
  EXPECT_EQ(loop.Files().size(), c.traces.size());
  for (size_t i = 0; i < c.traces.size(); ++i) {
    const Json events = loop.Events(
        i == 0 ? "trace.json" : absl::StrCat("trace_", i + 1, ".json"));
    EXPECT_EQ(Steps(events), c.traces[i]);
    EXPECT_EQ(Named(events, "aten::linear").size(), c.traces[i].size())
        << "what was warm-up is in the trace";
  }
}

TEST(ProfilerHookTest, LastIterationOfARunBeginsNoStep) {
  for (const bool stopped : {false, true}) {
    Loop loop("");
    loop.run.counts_epochs = false;
    loop.run.total_iters = 3;
    ASSERT_THAT(loop.Begin(), IsOk());
    ASSERT_THAT(loop.Iterations(1), IsOk());
    if (stopped) loop.run.RequestStop("test");
    ASSERT_THAT(loop.Iterations(stopped ? 1 : 2), IsOk());
    ASSERT_THAT(loop.hook->AfterTrainEpoch(loop.run), IsOk());
    EXPECT_EQ(Steps(loop.Events()).size(), stopped ? 2u : 3u);
  }
}

TEST(ProfilerHookTest, TooShortAnEpochForTheScheduleIsAWarning) {
  Loop loop("schedule { wait: 2 warmup: 2 active: 1 }");
  loop.Epoch(3);
  EXPECT_THAT(loop.Files(), IsEmpty());
  EXPECT_THAT(loop.run.run_log.messages(),
              ElementsAre("profiler: nothing was recorded in 3 iterations"));
}

TEST(ProfilerHookTest, TableGoesToTheLog) {
  Loop loop("log_trace { sort_by: 'count' row_limit: 2 }");
  ASSERT_THAT(loop.Begin(), IsOk());
  for (int i = 0; i < 9; ++i) functional::relu(ops::ones({1}));
  ASSERT_THAT(loop.Iterations(1), IsOk());
  ASSERT_THAT(loop.hook->AfterTrainEpoch(loop.run), IsOk());
  ASSERT_EQ(loop.run.run_log.messages().size(), 1u);
  const std::string table = loop.run.run_log.messages()[0];
  EXPECT_THAT(table, HasSubstr("Profile of experiment_20260102_030405:\nName"));
  EXPECT_THAT(table, Not(HasSubstr("aten::linear"))) << "a third row";
  EXPECT_THAT(loop.Files(), IsEmpty()) << "nobody asked for a file";
}

TEST(ProfilerHookTest, TensorBoardFindsItsFile) {
  Loop loop("tb_trace { worker_name: 'me' } json_trace_path: 'mine.txt'");
  loop.Epoch(1);
  EXPECT_THAT(loop.Files(), ElementsAre("mine.txt", "tf_tracing_logs"));
  const auto traces =
      loop.run.mem_env->ListDir(io::JoinPath(loop.run.logs, "tf_tracing_logs"));
  ASSERT_THAT(traces, IsOk());
  EXPECT_THAT(
      *traces,
      ElementsAre(testing::MatchesRegex("me\\.[0-9]+\\.pt\\.trace\\.json")));
  EXPECT_THAT(Steps(loop.Events(io::JoinPath("tf_tracing_logs", (*traces)[0]))),
              ElementsAre(0));
  EXPECT_THAT(Steps(loop.Events("mine.txt")), ElementsAre(0));
}

TEST(ProfilerHookTest, AbsolutePathsAreTaken) {
  Loop loop(
      "tb_trace { dir_name: '/else/tb' } json_trace_path: '/else/t.json'");
  loop.Epoch(1);
  EXPECT_THAT(*loop.run.mem_env->ListDir("/else"), ElementsAre("t.json", "tb"));
}

TEST(ProfilerHookTest, FolderOfTheTraceIsMade) {
  Loop loop("json_trace_path: 'a/b/t.json'");
  loop.Epoch(1);
  EXPECT_THAT(Steps(loop.Events("a/b/t.json")), ElementsAre(0));
}

TEST(ProfilerHookTest, RanksHaveFilesOfTheirOwn) {
  // One after the other: Kineto is one for the process.
  const auto groups = CreateFakeProcessGroups(2);
  for (const auto& group : groups) {
    Loop loop("schedule { active: 1 }");
    loop.run.group = group.get();
    loop.Epoch(2);
    const std::string name = absl::StrCat("trace_rank", group->rank());
    EXPECT_THAT(loop.Files(), ElementsAre(name + ".json", name + "_2.json"));
  }
}

TEST(ProfilerHookTest, ShapesAreRecordedIfAsked) {
  for (const bool asked : {false, true}) {
    Loop loop(absl::StrCat("record_shapes: ", asked));
    loop.Epoch(1);
    const auto linears = Named(loop.Events(), "aten::linear");
    ASSERT_EQ(linears.size(), 1u);
    const Json& args = linears[0]["args"];
    EXPECT_EQ(args.contains("Input Dims"), asked) << args;
    if (asked) {
      EXPECT_EQ(args["Input Dims"][0], Json({4, 3}));
    }
  }
}

TEST(ProfilerHookTest, AllocationsAreRecordedIfAsked) {
  for (const bool asked : {false, true}) {
    Loop loop(absl::StrCat("profile_memory: ", asked));
    loop.Epoch(1);
    bool found = false;
    for (const Json& event : loop.Events()) {
      found = found || event.value("name", "") == "[memory]";
    }
    EXPECT_EQ(found, asked);
  }
}

TEST(ProfilerHookTest, FailedRunLeavesItsTraceAndNoProfiler) {
  Loop loop("");
  ASSERT_THAT(loop.Begin(), IsOk());
  ASSERT_THAT(loop.Iterations(2), IsOk());
  loop.Iterate();
  loop.hook->OnError(loop.run, absl::InternalError("test"));
  EXPECT_FALSE(torch::profiler::impl::profilerEnabled());
  const Json events = loop.Events();
  EXPECT_THAT(Steps(events), ElementsAre(0, 1, 2));
  EXPECT_EQ(Named(events, "aten::linear").size(), 3u);
  // The next run can profile.
  Loop next("");
  next.Epoch(1);
  EXPECT_THAT(Steps(next.Events()), ElementsAre(0));
}

TEST(ProfilerHookTest, HookThatGoesAwayLeavesNoProfiler) {
  for (const char* schedule : {"", "schedule { warmup: 3 active: 1 }"}) {
    {
      Loop loop(schedule);
      ASSERT_THAT(loop.Begin(), IsOk());
      ASSERT_THAT(loop.Iterations(1), IsOk());
    }
    EXPECT_FALSE(torch::profiler::impl::profilerEnabled());
    Loop next("");
    next.Epoch(1);
    EXPECT_THAT(Steps(next.Events()), ElementsAre(0));
  }
}

TEST(ProfilerHookTest, FullDiskEndsTheRunAndTheProfile) {
  Loop loop("");
  io::MemEnv files;
  ASSERT_THAT(files.CreateDir(loop.run.logs), IsOk());
  auto faults = std::make_unique<io::FaultInjectionEnv>(files, "/");
  faults->FailOperation(0, absl::ResourceExhaustedError("disk full"),
                        io::FaultInjectionEnv::Times::kFromThenOn);
  loop.run.mem_env = std::move(faults);
  ASSERT_THAT(loop.Begin(), IsOk());
  ASSERT_THAT(loop.Iterations(1), IsOk());
  EXPECT_THAT(loop.hook->AfterTrainEpoch(loop.run),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("json_trace_path: ")));
  EXPECT_FALSE(torch::profiler::impl::profilerEnabled());
}

TEST(ProfilerHookTest, TwoProfilesAtOnceAreRefused) {
  Loop first("");
  ASSERT_THAT(first.Begin(), IsOk());
  Loop second("");
  EXPECT_THAT(second.Begin(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another runner of this process")));
  first.info.num_batches = 1;
  ASSERT_THAT(first.Iterations(1), IsOk());
  EXPECT_THAT(Steps(first.Events()), ElementsAre(0));
  Loop third("");
  third.Epoch(1);
}

TEST(ProfilerHookTest, ProfilerOfTheProgramIsLeftAlone) {
  namespace kineto = torch::autograd::profiler;
  const kineto::ProfilerConfig config(kineto::ProfilerState::KINETO);
  const std::set<kineto::ActivityType> activities = {kineto::ActivityType::CPU};
  kineto::prepareProfiler(config, activities);
  kineto::enableProfiler(config, activities);
  Loop loop("");
  EXPECT_THAT(loop.Begin(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     HasSubstr("another profiler is active")));
  // Also when it is another thread's.
  std::thread([] {
    Loop other("");
    EXPECT_THAT(other.Begin(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("another profiler is active")));
  }).join();
  EXPECT_TRUE(kineto::profilerEnabled());
  EXPECT_NE(kineto::disableProfiler(), nullptr);
  Loop next("");
  next.Epoch(1);
}

TEST(ProfilerHookTest, MoreIterationsThanTheRunHasAreRefused) {
  Loop loop("by_epoch: false profile_times: 21");
  EXPECT_THAT(loop.Begin(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "profile_times: must be at most the run's 20, is 21"));
}

TEST(ProfilerHookTest, CudaIsRefusedWhereThereIsNone) {
  if (at::hasCUDA()) GTEST_SKIP() << "there is a CUDA device";
  Loop loop("activity_with_cuda: true");
  EXPECT_THAT(loop.Begin(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("activity_with_cuda: there is no CUDA")));
}

struct BadCase {
  std::string error;
  std::string config;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class ProfilerBadConfigTest : public TestWithParam<BadCase> {};

// The options of options; the others are in testdata/conformance.textproto.
INSTANTIATE_TEST_SUITE_P(
    , ProfilerBadConfigTest,
    ValuesIn(std::vector<BadCase>{
        {"schedule: wait: must be in [0, 1000000000]",
         "schedule { wait: -1 active: 1 }"},
        {"schedule: warmup: must be in [0, 1000000000]",
         "schedule { warmup: -1 active: 1 }"},
        {"schedule: active: must be in [1, 1000000000]",
         "schedule { active: 0 }"},
        {"schedule: active: must be in", "schedule { active: 1000000001 }"},
        {"schedule: repeat: must be in [0, 1000000000]",
         "schedule { repeat: -1 active: 1 }"},
        {"schedule: skip_first: must be in [0, 1000000000]",
         "schedule { skip_first: -1 active: 1 }"},
        {"profile_times: must be > 3",
         "by_epoch: false profile_times: 3 "
         "schedule { skip_first: 1 wait: 1 warmup: 1 active: 1 }"},
        {"log_trace: row_limit: must be >= 1", "log_trace { row_limit: 0 }"},
        {"tb_trace: dir_name: must not be empty", "tb_trace { dir_name: '' }"},
    }));

TEST_P(ProfilerBadConfigTest, NamesTheField) {
  EXPECT_THAT(Create(GetParam().config),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().error)));
}

TEST(ProfilerHookTest, TraceOfARunHoldsForwardBackwardAndStep) {
  runner::v1::RunnerConfig config;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(
        work_dir: "/run"
        model {
          sequential {
            layers { linear { out_features: 1 } }
            loss { mse {} }
          }
        }
        train_dataloader { batch_size: 4 }
        train_cfg { max_epochs: 1 }
        optim_wrapper { optimizer { sgd { lr: 0.1 } } }
      )pb",
      &config));
  io::MemEnv env;
  MemoryRunLog log;
  RunnerOptions options;
  options.env = &env;
  options.log = &log;
  auto data =
      TensorDataset::Create(ops::full({12, 2}, 0.5), ops::ones({12, 1}));
  ASSERT_THAT(data, IsOk());
  options.train_dataset = *std::move(data);
  options.hooks.push_back(Schedule(NewHook("json_trace_path: '/run/t.json'")));
  const auto runner = Runner::Create(config, std::move(options));
  ASSERT_THAT(runner, IsOk());
  ASSERT_THAT((*runner)->Train(), IsOk());
  const auto text = io::ReadFile(env, "/run/t.json");
  ASSERT_THAT(text, IsOk());
  const Json events = Json::parse(*text)["traceEvents"];
  EXPECT_THAT(Steps(events), ElementsAre(0, 1, 2));
  for (const char* name : {"aten::linear", "aten::mse_loss", "AddmmBackward0",
                           "aten::_fused_sgd_"}) {
    EXPECT_GE(Named(events, name).size(), 3u) << name;
  }
}

}  // namespace
}  // namespace grapnel
