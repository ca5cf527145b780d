// What the C API costs, against the same in C++ in the same process.
//
//   bazel run //tools/bench:capi [-- BLOCKS]
//
// Both are measured by turns, so that what disturbs the machine disturbs both.
// Figures are medians over the blocks; without an A/A ratio, of C++ to itself,
// near 1 they are no result, and no goal is printed. The library is linked in:
// a host that loads libgrapnel.so calls its functions through a table besides.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/dlpack.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grapnel/capi/dataset_callbacks.h"
#include "grapnel/capi/guard.h"
#include "grapnel/capi/runner_handle.h"
#include "grapnel/capi/runner_options.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sampler.pb.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/tools/bench/iterations.h"
#include "grapnel/tools/bench/measure.h"
#include "torch/torch.h"

namespace grapnel {
namespace {

void CheckC(grapnel_status* status) { Check(capi::FromC(status)); }

// -------------------------------------------------------------------- runs

struct DestroyRunner {
  void operator()(grapnel_runner* runner) const {
    grapnel_runner_destroy(runner);
  }
};
using RunnerHandle = std::unique_ptr<grapnel_runner, DestroyRunner>;

// Of the empty model, with what `add` adds and no other hooks.
RunnerHandle NewRunner(
    const std::string& dir,
    const std::function<void(grapnel_runner_options*)>& add) {
  grapnel_runner_options* options = nullptr;
  CheckC(grapnel_runner_options_create(&options));
  options->config = QuietConfig(dir, DefaultSlots(), kNever);
  options->core.model = EmptyModel();
  options->core.train_dataset = EmptyData();
  options->core.terminal_fd = NullTerminal();
  add(options);
  grapnel_runner* runner = nullptr;
  CheckC(grapnel_runner_create(options, &runner));
  grapnel_runner_options_destroy(options);
  return RunnerHandle(runner);
}

void StepInCxx(const grapnel_runner& runner) {
  if (!runner.runner->Step().ok()) abort();
}

void StepInC(grapnel_runner* runner) {
  int32_t more = 0;
  if (grapnel_runner_step(runner, &more) != nullptr) abort();
}

void MeasureStep(const std::string& dir, int blocks) {
  constexpr int kSteps = 500;
  const RunnerHandle runner = NewRunner(dir, [](grapnel_runner_options*) {});
  const auto cxx = [&] { StepInCxx(*runner); };
  const auto times =
      TakeTurns(blocks, kSteps, {cxx, [&] { StepInC(runner.get()); }, cxx});
  const double a_a = MedianRatio(times[2], times[0]);
  printf("a step of the empty model, %d blocks of %d\n", blocks, kSteps);
  printf("  Runner::Step                          %6.0f ns   (A/A %.4f)%s\n",
         Median(times[0]) * 1e9, a_a, NoResult(a_a));
  printf("  (b)  grapnel_runner_step, more than that  %.1f ns%s\n",
         MedianDifference(times[1], times[0]) * 1e9,
         Goal(a_a, "   (below 200)"));
}

// ------------------------------------------------------------------- hooks

class DoesNothingAfter : public Hook {
 public:
  explicit DoesNothingAfter(std::string name) : name_(std::move(name)) {}
  absl::string_view name() const override { return name_; }
  absl::Status AfterTrainIter(RunContext&, const IterInfo&,
                              const LogVars&) override {
    return absl::OkStatus();
  }

 private:
  const std::string name_;
};

class DoesNothingAround : public DoesNothingAfter {
 public:
  using DoesNothingAfter::DoesNothingAfter;
  absl::Status BeforeTrainIter(RunContext&, const IterInfo&) override {
    return absl::OkStatus();
  }
  absl::Status AfterTrainIter(RunContext&, const IterInfo&,
                              const LogVars&) override {
    return absl::OkStatus();
  }
};

// So many that a call isn't lost among the step around it.
constexpr int kHooks = 16;

template <typename H>
void AddInCxx(grapnel_runner_options* options) {
  for (int i = 0; i < kHooks; ++i) {
    options->core.hooks.push_back(
        Schedule(std::make_unique<H>(absl::StrCat("hook", i))));
  }
}

void AddInC(uint64_t stages, grapnel_runner_options* options) {
  grapnel_hook_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.stages = stages;
  callbacks.priority = 50;
  callbacks.on_stage = [](void*, grapnel_stage,
                          grapnel_run*) -> grapnel_status* { return nullptr; };
  for (int i = 0; i < kHooks; ++i) {
    const std::string name = absl::StrCat("hook", i);
    CheckC(grapnel_runner_options_add_hook(options, name.data(), name.size(),
                                           &callbacks, nullptr));
  }
}

void MeasureHooks(const std::string& dir, int blocks) {
  constexpr int kSteps = 500;
  constexpr uint64_t kAfter = uint64_t{1} << GRAPNEL_AFTER_TRAIN_ITER;
  constexpr uint64_t kAround = kAfter | uint64_t{1}
                                            << GRAPNEL_BEFORE_TRAIN_ITER;
  const std::vector<std::function<void(grapnel_runner_options*)>> adds = {
      [](grapnel_runner_options*) {},
      AddInCxx<DoesNothingAfter>,
      [](grapnel_runner_options* options) { AddInC(kAfter, options); },
      AddInCxx<DoesNothingAround>,
      [](grapnel_runner_options* options) { AddInC(kAround, options); },
      AddInCxx<DoesNothingAfter>,
  };
  std::vector<RunnerHandle> runners;
  std::vector<std::function<void()>> steps;
  for (const auto& add : adds) {
    runners.push_back(NewRunner(absl::StrCat(dir, runners.size()), add));
    steps.emplace_back([&runner = *runners.back()] { StepInCxx(runner); });
  }
  const auto times = TakeTurns(blocks, kSteps, steps);
  const double a_a = MedianRatio(times[5], times[1]);
  const auto per_call = [&](size_t more, size_t less, int points) {
    return MedianDifference(times[more], times[less]) * 1e9 / kHooks / points;
  };
  printf("%d hooks that do nothing, %d blocks of %d steps\n", kHooks, blocks,
         kSteps);
  printf("  a step with those of C++              %6.0f ns   (A/A %.4f)%s\n",
         Median(times[1]) * 1e9, a_a, NoResult(a_a));
  printf("  a call, AfterTrainIter: C++ %.1f ns, C %.1f ns\n",
         per_call(1, 0, 1), per_call(2, 0, 1));
  printf("  (a)  C, more than C++: AfterTrainIter     %.1f ns%s\n",
         per_call(2, 1, 1), Goal(a_a, "   (below 30)"));
  printf("       BeforeTrainIter too, of each call    %.1f ns%s\n",
         per_call(4, 3, 2), Goal(a_a, "   (below 30)"));
  printf("       A/A, of a call                       %.1f ns\n",
         per_call(5, 1, 1));
}

// -------------------------------------------------------------------- data

// As many as the digits of scikit-learn are.
constexpr int64_t kRows = 1797, kFloats = 64, kBatch = 64;

// Rows of numbers at random, and their classes.
struct Table {
  const float* inputs;
  const int64_t* targets;
};

void Gather(const Table& table, const int64_t* indices, size_t count,
            float* inputs, int64_t* targets) {
  for (size_t i = 0; i < count; ++i) {
    memcpy(inputs + i * kFloats, table.inputs + indices[i] * kFloats,
           kFloats * sizeof(*inputs));
    targets[i] = table.targets[indices[i]];
  }
}

// Gathers in memory of its own, which the library copies.
grapnel_status* CopyBatch(void* user_data, const int64_t* indices, size_t count,
                          grapnel_tensors* batch) {
  static float inputs[kBatch * kFloats];
  static int64_t targets[kBatch];
  Gather(*static_cast<Table*>(user_data), indices, count, inputs, targets);
  const int64_t shape[] = {static_cast<int64_t>(count), kFloats};
  grapnel_status* const status =
      grapnel_tensors_add_copy(batch, "input", 5, GRAPNEL_FLOAT32, shape, 2,
                               inputs, count * kFloats * sizeof(*inputs));
  if (status != nullptr) return status;
  return grapnel_tensors_add_copy(batch, "target", 6, GRAPNEL_INT64, shape, 1,
                                  targets, count * sizeof(*targets));
}

// A DLPack tensor with its elements behind it.
struct Shared {
  DLManagedTensorVersioned managed;
  int64_t shape[2];
  alignas(64) char data[];
};

Shared* NewShared(size_t count, int32_t rank, DLDataType dtype, size_t bytes) {
  const size_t size = (sizeof(Shared) + bytes + 63) / 64 * 64;
  auto* const shared = static_cast<Shared*>(aligned_alloc(64, size));
  if (shared == nullptr) abort();
  shared->shape[0] = static_cast<int64_t>(count);
  shared->shape[1] = kFloats;
  shared->managed = {};
  shared->managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  shared->managed.manager_ctx = shared;
  shared->managed.deleter = [](DLManagedTensorVersioned* managed) {
    free(managed->manager_ctx);
  };
  DLTensor& tensor = shared->managed.dl_tensor;
  tensor.data = shared->data;
  tensor.device = {kDLCPU, 0};
  tensor.ndim = rank;
  tensor.dtype = dtype;
  tensor.shape = shared->shape;
  return shared;
}

grapnel_status* AddShared(grapnel_tensors* batch, absl::string_view name,
                          Shared* shared) {
  grapnel_tensor* tensor = nullptr;
  grapnel_status* const status =
      grapnel_tensor_from_dlpack(&shared->managed, &tensor);
  if (status != nullptr) return status;
  return grapnel_tensors_add(batch, name.data(), name.size(), tensor);
}

// Gathers in memory that becomes the batch's.
grapnel_status* ShareBatch(void* user_data, const int64_t* indices,
                           size_t count, grapnel_tensors* batch) {
  Shared* const inputs =
      NewShared(count, 2, {kDLFloat, 32, 1}, count * kFloats * sizeof(float));
  Shared* const targets =
      NewShared(count, 1, {kDLInt, 64, 1}, count * sizeof(int64_t));
  Gather(*static_cast<Table*>(user_data), indices, count,
         reinterpret_cast<float*>(inputs->data),
         reinterpret_cast<int64_t*>(targets->data));
  grapnel_status* const status = AddShared(batch, "input", inputs);
  if (status != nullptr) return status;
  return AddShared(batch, "target", targets);
}

// Gathers in memory of the library's, which becomes the batch's.
grapnel_status* FillBatch(void* user_data, const int64_t* indices, size_t count,
                          grapnel_tensors* batch) {
  const int64_t shape[] = {static_cast<int64_t>(count), kFloats};
  void* inputs = nullptr;
  void* targets = nullptr;
  grapnel_status* status = grapnel_tensors_add_new(
      batch, "input", 5, GRAPNEL_FLOAT32, shape, 2, &inputs);
  if (status != nullptr) return status;
  status = grapnel_tensors_add_new(batch, "target", 6, GRAPNEL_INT64, shape, 1,
                                   &targets);
  if (status != nullptr) return status;
  Gather(*static_cast<Table*>(user_data), indices, count,
         static_cast<float*>(inputs), static_cast<int64_t*>(targets));
  return nullptr;
}

using GetBatch = decltype(grapnel_dataset_callbacks::get_batch);

std::unique_ptr<Dataset> CDataset(GetBatch get_batch, Table* table) {
  grapnel_dataset_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.size = kRows;
  callbacks.get_batch = get_batch;
  return Value(capi::MakeDataset(&callbacks, table)).product;
}

// As the runner's, without workers.
std::unique_ptr<DataLoader> NewLoader(std::unique_ptr<Dataset> dataset) {
  data::v1::DataLoaderConfig config;
  config.set_batch_size(kBatch);
  config.mutable_sampler()->set_type(data::v1::SamplerConfig::INFINITE);
  DataLoader::Options options;
  options.env = &io::Env::Posix();
  return Value(DataLoader::Create(config, std::move(dataset), options));
}

void PrintBatches(const char* what, const char* letter,
                  const std::vector<std::vector<double>>& times) {
  const double a_a = MedianRatio(times[4], times[0]);
  printf("  %-16s TensorDataset         %6.0f ns   (A/A %.4f)%s\n", what,
         Median(times[0]) * 1e9, a_a, NoResult(a_a));
  const char* const ways[] = {"filled, more than that",
                              "DLPack, more than that",
                              "copied, more than that"};
  for (const size_t i : {1, 2, 3}) {
    printf("  %-5s %-24s    %.0f ns, ratio %.3f%s\n", letter, ways[i - 1],
           MedianDifference(times[i], times[0]) * 1e9,
           MedianRatio(times[i], times[0]), Goal(a_a, "   (at most 1.1)"));
  }
}

void MeasureBatches(int blocks) {
  constexpr int kBatches = 500;
  const torch::Tensor inputs = torch::randn({kRows, kFloats});
  const torch::Tensor targets = torch::randint(10, {kRows}, torch::kLong);
  Table table = {inputs.const_data_ptr<float>(),
                 targets.const_data_ptr<int64_t>()};
  const torch::Tensor order = torch::randperm(kRows, torch::kLong);
  const auto* const indices = order.const_data_ptr<int64_t>();

  const auto make = [&] {
    std::vector<std::unique_ptr<Dataset>> datasets;
    datasets.push_back(Value(TensorDataset::Create(inputs, targets)));
    datasets.push_back(CDataset(FillBatch, &table));
    datasets.push_back(CDataset(ShareBatch, &table));
    datasets.push_back(CDataset(CopyBatch, &table));
    datasets.push_back(Value(TensorDataset::Create(inputs, targets)));
    return datasets;
  };
  std::vector<std::function<void()>> gets, nexts;
  const auto datasets = make();
  for (const auto& dataset : datasets) {
    gets.emplace_back([&, &dataset = *dataset, at = int64_t{0}]() mutable {
      Batch batch;
      if (!dataset.GetBatch(absl::MakeConstSpan(indices + at, kBatch),
                            &batch)) {
        abort();
      }
      at += kBatch;
      if (at + kBatch > kRows) at = 0;
    });
  }
  std::vector<std::unique_ptr<DataLoader>> loaders;
  for (auto& dataset : make()) loaders.push_back(NewLoader(std::move(dataset)));
  for (const auto& loader : loaders) {
    nexts.emplace_back([&loader = *loader, batch = Batch()]() mutable {
      if (!loader.Next(&batch).ok()) abort();
    });
  }
  printf("batches of %d rows of %d floats, %d blocks of %d\n",
         static_cast<int>(kBatch), static_cast<int>(kFloats), blocks, kBatches);
  PrintBatches("GetBatch", "(c)", TakeTurns(blocks, kBatches, gets));
  PrintBatches("DataLoader::Next", "", TakeTurns(blocks, kBatches, nexts));
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const int blocks = argc > 1 ? std::max(1, atoi(argv[1])) : 301;
  at::set_num_threads(1);
  char dir[] = "/tmp/grapnel_capi_XXXXXX";
  if (mkdtemp(dir) == nullptr) return 1;
  grapnel::MeasureHooks(absl::StrCat(dir, "/hooks"), blocks);
  grapnel::MeasureStep(absl::StrCat(dir, "/step"), blocks);
  grapnel::MeasureBatches(blocks);
  return grapnel::io::DeleteRecursively(grapnel::io::Env::Posix(), dir).ok()
             ? 0
             : 1;
}
