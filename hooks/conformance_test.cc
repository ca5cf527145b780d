// What holds for every hook there is. A hook takes part by being in :all_hooks
// and having a testdata/conformance.textproto.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/text_proto.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/hooks/conformance.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MessageFactory;
using ::google::protobuf::TextFormat;
using ::grapnel::hooks::testing::HookConformance;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;

// Everything in hooks/*/testdata.
std::vector<HookConformance> AllConformance() {
  std::vector<HookConformance> all;
  const auto hooks = io::Env::Posix().ListDir("hooks");
  EXPECT_THAT(hooks, IsOk());
  for (const std::string& hook : *hooks) {
    const std::string path =
        absl::StrCat("hooks/", hook, "/testdata/conformance.textproto");
    if (!io::Env::Posix().FileExists(path)) continue;
    const auto text = io::ReadFile(io::Env::Posix(), path);
    EXPECT_THAT(text, IsOk());
    HookConformance conformance;
    EXPECT_TRUE(TextFormat::ParseFromString(*text, &conformance)) << path;
    all.push_back(std::move(conformance));
  }
  return all;
}

const Descriptor& ConfigOf(const HookConformance& conformance) {
  const Descriptor* descriptor =
      DescriptorPool::generated_pool()->FindMessageTypeByName(
          conformance.config());
  EXPECT_NE(descriptor, nullptr) << conformance.config();
  return *descriptor;
}

// Parses a config and makes the hook.
absl::StatusOr<ScheduledHook> MakeHook(const HookConformance& conformance,
                                       const std::string& text, Any* any) {
  std::unique_ptr<Message> config(MessageFactory::generated_factory()
                                      ->GetPrototype(&ConfigOf(conformance))
                                      ->New());
  GRAPNEL_RETURN_IF_ERROR(ParseTextProto(text, config.get()));
  any->PackFrom(*config);
  return CreateHook(*any);
}

TEST(HookConformanceTest, EveryRegisteredHookTakesPart) {
  std::vector<std::string> configs;
  for (const HookConformance& c : AllConformance()) {
    configs.push_back(c.config());
  }
  EXPECT_THAT(configs, UnorderedElementsAreArray(RegisteredHookConfigs()));
}

TEST(HookConformanceTest, ValidConfigsAreTaken) {
  for (const HookConformance& c : AllConformance()) {
    EXPECT_GT(c.valid_size(), 0) << c.config();
    for (const std::string& text : c.valid()) {
      Any any;
      EXPECT_THAT(MakeHook(c, text, &any), IsOk())
          << c.config() << ": " << text;
    }
  }
}

TEST(HookConformanceTest, EveryFieldHasABadValueThatIsRefused) {
  int fields = 0;
  for (const HookConformance& c : AllConformance()) {
    const Descriptor& descriptor = ConfigOf(c);
    for (int i = 0; i < descriptor.field_count(); ++i) {
      const std::string& field = descriptor.field(i)->name();
      ++fields;
      bool covered = false;
      for (const auto& bad : c.bad()) covered = covered || bad.field() == field;
      EXPECT_TRUE(covered) << c.config() << "." << field
                           << " has no bad value in testdata";
    }
    for (const auto& bad : c.bad()) {
      EXPECT_NE(descriptor.FindFieldByName(bad.field()), nullptr)
          << c.config() << " has no field " << bad.field();
      Any any;
      EXPECT_THAT(
          MakeHook(c, bad.config(), &any),
          StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad.error())))
          << c.config() << ": " << bad.config();
    }
  }
  RecordProperty("config_fields", fields);
}

TEST(HookConformanceTest, NamesAreDistinctSnakeCase) {
  std::map<std::string, std::string> names;
  for (const HookConformance& c : AllConformance()) {
    Any any;
    const auto hook = MakeHook(c, c.valid(0), &any);
    ASSERT_THAT(hook, IsOk());
    const std::string name(hook->hook->name());
    EXPECT_TRUE(names.emplace(name, c.config()).second) << name;
    for (const char ch : name) {
      EXPECT_TRUE((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ||
                  ch == '_')
          << name;
    }
  }
}

// ------------------------------------------------------------- in whole runs

constexpr int kEpochs = 3;
constexpr int kBatches = 3;
constexpr char kAtTheEnd[] = "at_the_end";

// Stops the process, as a signal would, after training iteration `at`, or, if
// negative, validation iteration -at.
class InterruptAt : public Hook {
 public:
  InterruptAt(int64_t at, std::atomic<int>* flag) : at_(at), flag_(flag) {}
  absl::string_view name() const override { return "interrupt_at"; }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    if (run.iter() + 1 == at_) *flag_ = 1;
    return absl::OkStatus();
  }
  absl::Status AfterValIter(RunContext&, const IterInfo&,
                            const Predictions&) override {
    if (--validated_ == at_) *flag_ = 1;
    return absl::OkStatus();
  }

 private:
  int64_t validated_ = 0;
  const int64_t at_;
  std::atomic<int>* const flag_;
};

// Saves what hooks have come to, whatever checkpoints there are otherwise.
class SaveAtTheEnd : public Hook {
 public:
  absl::string_view name() const override { return "save_at_the_end"; }
  absl::Status AfterTrain(RunContext& run) override {
    SaveRequest request;
    request.dir = run.work_dir();
    request.name = kAtTheEnd;
    request.update_last_checkpoint = false;
    return run.Save(std::move(request));
  }
};

// A linear regression with every hook on: default hooks in their slots, the
// others as custom hooks, each with its `valid`-th config, or its last.
struct TestRun {
  absl::Status Create(io::Env* env, bool resume, int64_t interrupt_at,
                      int valid = 0) {
    runner::v1::RunnerConfig config;
    const bool parsed = TextFormat::ParseFromString(
        R"pb(
          work_dir: "/run"
          experiment_name: "conformance"
          randomness { seed: 1 }
          model {
            sequential {
              layers { linear { out_features: 8 } }
              layers { dropout { p: 0.5 } }
              layers { linear { out_features: 1 } }
              loss { mse {} }
            }
          }
          train_dataloader {
            batch_size: 4
            sampler { shuffle: true }
          }
          val_dataloader { batch_size: 4 }
          test_dataloader { batch_size: 4 }
          train_cfg { max_epochs: 3 }
          optim_wrapper {
            optimizer { adamw { lr: 0.01 } }
            accumulative_counts: 2
          }
          param_scheduler { linear { by_epoch: false end: 4 } }
          param_scheduler { cosine_annealing {} }
          val_evaluator { mse {} }
          test_evaluator { mse {} }
        )pb",
        &config);
    EXPECT_TRUE(parsed);
    config.set_resume(resume);
    // Where this is built for a device without hardware.
    const char* const device = std::getenv("GRAPNEL_TEST_DEVICE");
    if (device != nullptr) config.set_device(device);

    std::vector<const FieldDescriptor*> slots;
    auto* hooks = config.mutable_default_hooks();
    for (const HookConformance& c : AllConformance()) {
      Any any;
      const auto hook =
          MakeHook(c, c.valid(std::min(valid, c.valid_size() - 1)), &any);
      if (!hook.ok()) return hook.status();
      bool is_default = false;
      for (int i = 0; i < hooks->GetDescriptor()->field_count(); ++i) {
        const FieldDescriptor* slot = hooks->GetDescriptor()->field(i);
        if (slot->message_type() != &ConfigOf(c)) continue;
        is_default = true;
        EXPECT_TRUE(
            any.UnpackTo(hooks->GetReflection()->MutableMessage(hooks, slot)));
        break;  // A second one is its other name.
      }
      if (!is_default) *config.add_custom_hooks()->mutable_config() = any;
    }

    RunnerOptions options;
    options.env = env;
    options.clock = &clock;
    options.log = &log;
    options.interrupt = &interrupt;
    for (auto* dataset : {&options.train_dataset, &options.val_dataset,
                          &options.test_dataset}) {
      auto tensors = TensorDataset::Create(ops::full({4 * kBatches, 2}, 0.5),
                                           ops::ones({4 * kBatches, 1}));
      if (!tensors.ok()) return tensors.status();
      *dataset = *std::move(tensors);
    }
    options.hooks.push_back(Schedule(std::make_unique<SaveAtTheEnd>()));
    if (interrupt_at != 0) {
      options.hooks.push_back(
          Schedule(std::make_unique<InterruptAt>(interrupt_at, &interrupt)));
    }
    auto created = Runner::Create(config, std::move(options));
    if (!created.ok()) return created.status();
    runner = *std::move(created);
    return absl::OkStatus();
  }

  FakeClock clock{absl::Milliseconds(250)};
  MemoryRunLog log;
  std::atomic<int> interrupt{0};
  std::unique_ptr<Runner> runner;
};

TEST(HookConformanceTest, EveryHookRunsInTrainingValidationAndTest) {
  const auto env = std::make_unique<io::MemEnv>();
  TestRun run;
  ASSERT_THAT(run.Create(env.get(), /*resume=*/false, /*interrupt_at=*/0),
              IsOk());
  EXPECT_THAT(run.runner->Train(), IsOk());
  EXPECT_THAT(run.runner->Val(), IsOk());
  EXPECT_THAT(run.runner->Test(), IsOk());
  // Once more, on the same runner: nothing is set up twice.
  EXPECT_THAT(run.runner->Val(), IsOk());
}

TEST(HookConformanceTest, EveryHookRunsInAStandaloneEvaluation) {
  for (const bool test : {false, true}) {
    const auto env = std::make_unique<io::MemEnv>();
    TestRun run;
    ASSERT_THAT(run.Create(env.get(), /*resume=*/false, /*interrupt_at=*/0),
                IsOk());
    EXPECT_THAT(test ? run.runner->Test() : run.runner->Val(), IsOk());
  }
}

// State of the hooks at the end of the run, by hook.
std::map<std::string, std::string> HookStates(io::Env& env) {
  std::map<std::string, std::string> states;
  const auto contents =
      io::ReadCheckpoint(env, absl::StrCat("/run/", kAtTheEnd));
  EXPECT_THAT(contents, IsOk());
  const auto state = ReadRunState(*contents);
  EXPECT_THAT(state, IsOk());
  for (const auto& hook : state->hooks()) {
    if (hook.name() == "interrupt_at") continue;
    std::string state = hook.state().SerializeAsString();
    if (hook.name() == "checkpoint") {
      // An interrupt makes checkpoints of its own: what is kept differs.
      hooks::v1::CheckpointHookState kept;
      EXPECT_TRUE(hook.state().UnpackTo(&kept) || state.empty());
      kept.clear_kept();
      kept.clear_last();
      kept.clear_last_count();
      state = kept.SerializeAsString();
    }
    states[hook.name()] = state;
  }
  if (const TensorMap* tensors = contents->FindSection("hooks")) {
    for (const NamedTensor& tensor : *tensors) {
      const at::Tensor dense = tensor.tensor.contiguous();
      states[tensor.name] = std::string(
          static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
    }
  }
  return states;
}

int MostValidConfigs() {
  int most = 0;
  for (const HookConformance& c : AllConformance()) {
    most = std::max(most, c.valid_size());
  }
  return most;
}

TEST(HookConformanceTest, StateSurvivesAResumeAtEveryCut) {
  for (int valid = 0; valid < MostValidConfigs(); ++valid) {
    const auto whole_env = std::make_unique<io::MemEnv>();
    TestRun whole;
    ASSERT_THAT(whole.Create(whole_env.get(), false, 0, valid), IsOk());
    ASSERT_THAT(whole.runner->Train(), IsOk());
    // A config that saves nothing has nothing to resume from.
    if (!io::FindLatestCheckpoint(*whole_env, "/run", nullptr).ok()) continue;
    const auto expected = HookStates(*whole_env);
    EXPECT_GE(expected.size(), RegisteredHookConfigs().size());

    // Training iterations, and, negative, validation iterations.
    for (int64_t cut = -kEpochs * kBatches + 1; cut < kEpochs * kBatches;
         ++cut) {
      if (cut == 0) continue;
      SCOPED_TRACE(
          absl::StrCat("valid config ", valid, ", interrupted at ", cut));
      const auto env = std::make_unique<io::MemEnv>();
      TestRun before;
      ASSERT_THAT(before.Create(env.get(), false, cut, valid), IsOk());
      ASSERT_THAT(before.runner->Train(),
                  StatusIs(absl::StatusCode::kCancelled, testing::_));
      before.runner.reset();  // The folder is free.
      TestRun after;
      ASSERT_THAT(after.Create(env.get(), true, 0, valid), IsOk());
      ASSERT_THAT(after.runner->Train(), IsOk());
      EXPECT_EQ(HookStates(*env), expected);
    }
  }
}

}  // namespace
}  // namespace grapnel
