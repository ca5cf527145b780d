// A RunContext for tests of hooks, of anybody's: no model, no data, no loop,
// but what the test puts there.
// tests/external/workspace/hooks/check_loss_hook_test.cc is a test that another
// project would write.

#ifndef GRAPNEL_RUNNER_FAKE_RUN_CONTEXT_H_
#define GRAPNEL_RUNNER_FAKE_RUN_CONTEXT_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Generator.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/runner/log_processor.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/run_context.h"

namespace grapnel {

struct FakeRunContext : public RunContext {
  FakeRunContext() { mem_env->CreateDir(logs).IgnoreError(); }  // In memory.

  int64_t epoch() const override { return epochs; }
  int64_t iter() const override { return iters; }
  int64_t updates() const override { return num_updates; }
  int64_t iter_in_epoch() const override { return iters_in_epoch; }
  int64_t max_epochs() const override { return total_epochs; }
  int64_t max_iters() const override { return total_iters; }
  bool by_epoch() const override { return counts_epochs; }
  Mode mode() const override { return current_mode; }
  bool training() const override { return in_training; }
  Model& model() override { return *the_model; }
  const LogVars& log_vars() const override { return step_vars; }
  ProcessGroup& process_group() override { return *group; }
  bool is_master() override { return group->rank() == 0; }
  OptimWrapper* optim_wrapper() override { return wrapper; }
  absl::Span<const std::unique_ptr<ParamScheduler>> param_schedulers()
      override {
    return schedulers;
  }
  const std::string& resumed_from() const override { return resumed; }
  c10::Device device() const override { return the_device; }
  at::Generator generator() override { return the_generator; }
  at::Generator device_generator() override { return {}; }
  DataLoader* dataloader(Mode mode) override {
    return loaders[static_cast<int>(mode)];
  }
  void SetSamplerEpoch(int64_t epoch) override { sampler_epoch = epoch; }
  MessageHub& message_hub() override { return hub; }
  LogProcessor& log_processor() override { return *processor; }
  RunLog& log() override { return run_log; }
  void WriteRecord(const Record& record) override { records.push_back(record); }
  void LogLater(std::function<void()> work) override { work(); }
  const Clock& clock() const override { return fake_clock; }
  io::Env& env() override { return *mem_env; }
  const std::string& base_dir() const override { return base; }
  const std::string& work_dir() const override { return work; }
  const std::string& checkpoint_dir() const override {
    return checkpoints.empty() ? work : checkpoints;
  }
  const std::string& log_dir() const override { return logs; }
  const std::string& timestamp() const override { return time; }
  const std::string& experiment_name() const override { return experiment; }
  int64_t seed() const override { return the_seed; }
  const std::string& config_text() const override { return config; }
  absl::StatusOr<int64_t> RequestSave(SaveRequest request) override {
    saves.push_back({std::move(request), ++num_saves});
    return num_saves;
  }
  using RunContext::RequestStop;
  void RequestStop(absl::string_view reason, StopAt) override {
    if (stopped.empty()) stopped = std::string(reason);
  }
  std::string stop_reason() const override { return stopped; }

  int64_t epochs = 0;
  int64_t iters = 0;
  int64_t num_updates = 0;
  int64_t iters_in_epoch = 0;
  int64_t total_epochs = 0;
  int64_t total_iters = 0;
  bool counts_epochs = true;
  Mode current_mode = Mode::kTrain;
  bool in_training = true;
  Model* the_model = nullptr;
  LogVars step_vars;
  SingleProcessGroup alone;
  ProcessGroup* group = &alone;
  OptimWrapper* wrapper = nullptr;
  std::vector<std::unique_ptr<ParamScheduler>> schedulers;
  std::string resumed;
  c10::Device the_device = c10::DeviceType::CPU;
  at::Generator the_generator;
  DataLoader* loaders[3] = {};
  int64_t sampler_epoch = 0;
  MessageHub hub;
  std::unique_ptr<LogProcessor> processor;
  MemoryRunLog run_log;
  std::vector<Record> records;
  FakeClock fake_clock{absl::Milliseconds(250)};
  std::unique_ptr<io::Env> mem_env = std::make_unique<io::MemEnv>();
  std::string base = "/base";
  std::string work = "/work_dir";
  std::string checkpoints;  // "" for `work`.
  std::string logs = "/work_dir/20260102_030405";
  std::string time = "20260102_030405";
  std::string experiment = "experiment_20260102_030405";
  int64_t the_seed = 0;
  std::string config;
  struct Asked : SaveRequest {
    int64_t id;
  };
  std::vector<Asked> saves;
  int64_t num_saves = 0;
  std::string stopped;
};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_FAKE_RUN_CONTEXT_H_
