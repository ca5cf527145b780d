// What a training iteration asks of a device: which copies to and from it, and
// what it waits for: each copy to the host, and nothing else.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Ge;
using ::testing::SizeIs;

constexpr int64_t kBatchTensors = 2;  // Inputs and targets.

struct IterCopies {
  int64_t to_host;
  int64_t to_device;
  int64_t waits;
  std::string last;  // For messages.
};

// Counts from one iteration's beginning, the wait for its batch aside, to the
// next one's, so that the copy ahead of the next batch is among them.
class CopyCounter : public Hook {
 public:
  explicit CopyCounter(std::vector<IterCopies>* out) : out_(out) {}
  absl::string_view name() const override { return "copy_counter"; }
  absl::Status BeforeTrainIter(RunContext&, const IterInfo&) override {
    const FakeCopies now = CountFakeCopies();
    if (before_.has_value()) {
      out_->push_back(
          {now.to_host - before_->to_host, now.to_device - before_->to_device,
           now.waits - before_->waits, absl::StrJoin(LastFakeCopies(), "; ")});
    }
    before_ = now;
    return absl::OkStatus();
  }

 private:
  std::vector<IterCopies>* const out_;
  std::optional<FakeCopies> before_;
};

// Trains 40 iterations of 4 samples on the device, with the default hooks and
// the average of every iteration, and no interval that fires.
std::vector<IterCopies> CountCopies(const std::string& more) {
  const auto config = ParseRunnerConfig(
      absl::StrCat(R"pb(
                     work_dir: "/run"
                     device: "fake"
                     randomness { seed: 1 }
                     model {
                       sequential {
                         layers { linear { out_features: 16 } }
                         layers { batch_norm1d {} }
                         layers { relu {} }
                         layers { dropout { p: 0.2 } }
                         layers { linear { out_features: 3 } }
                         loss { cross_entropy {} }
                       }
                     }
                     train_dataloader {
                       batch_size: 4
                       num_workers: 1
                       sampler { shuffle: true type: INFINITE }
                     }
                     train_cfg { by_epoch: false max_iters: 40 }
                     param_scheduler { linear { by_epoch: false end: 40 } }
                     default_hooks {
                       logger { interval: 1000 }
                       checkpoint { by_epoch: false interval: 1000 }
                     }
                     custom_hooks {
                       config {
                         [hooks/EMAHook] { momentum: 0.01 }
                       }
                     }
                   )pb",
                   more),
      ConfigFormat::kText, "config");
  EXPECT_THAT(config, IsOk());
  const auto env = std::make_unique<io::MemEnv>();
  MemoryRunLog log;
  RunnerOptions options;
  options.env = env.get();
  options.log = &log;
  std::vector<IterCopies> copies;
  options.hooks.push_back(Schedule(std::make_unique<CopyCounter>(&copies)));
  // More than are used: at the end of a pass the logger writes a line.
  constexpr int64_t kSamples = 256;
  auto dataset = TensorDataset::Create(
      ops::arange(kSamples * 5, at::kFloat).reshape({kSamples, 5}).div_(1000),
      ops::arange(kSamples, at::kLong).remainder(3));
  EXPECT_THAT(dataset, IsOk());
  options.train_dataset = *std::move(dataset);
  auto runner = Runner::Create(*config, std::move(options));
  EXPECT_THAT(runner, IsOk());
  if (!runner.ok()) return copies;
  EXPECT_THAT((*runner)->Train(), IsOk());
  return copies;
}

// The first iterations make the optimizer's and the average's state; the last
// is followed by checkpoints.
void ExpectSteadyCopies(const std::vector<IterCopies>& copies,
                        int64_t to_host) {
  ASSERT_THAT(copies, SizeIs(Ge(39u)));
  int64_t to_device = 0;
  const size_t first = 2;
  const size_t end = copies.size() - 1;
  for (size_t i = first; i < end; ++i) {
    EXPECT_EQ(copies[i].to_host, to_host)
        << "iteration " << i + 1 << ": " << copies[i].last;
    EXPECT_EQ(copies[i].waits, to_host) << "iteration " << i + 1;
    to_device += copies[i].to_device;
  }
  // A batch is copied ahead in the iteration before if it was ready.
  const auto batches = static_cast<int64_t>(end - first);
  EXPECT_GE(to_device, (batches - 1) * kBatchTensors) << copies[end - 1].last;
  EXPECT_LE(to_device, (batches + 1) * kBatchTensors) << copies[end - 1].last;
}

TEST(CopiesTest, AnIterationCopiesItsBatchAndWaitsForNothing) {
  FakeDevice();
  ExpectSteadyCopies(CountCopies(R"pb(
                       optim_wrapper { optimizer { adamw {} } }
                     )pb"),
                     0);
}

TEST(CopiesTest, NorWithAccumulationAndClipping) {
  FakeDevice();
  ExpectSteadyCopies(CountCopies(R"pb(
                       optim_wrapper {
                         optimizer { sgd { lr: 0.01 momentum: 0.9 } }
                         accumulative_counts: 2
                         clip_grad { max_norm: 1 }
                       }
                     )pb"),
                     0);
}

TEST(CopiesTest, NorWithAFixedLossScale) {
  FakeDevice();
  ExpectSteadyCopies(CountCopies(R"pb(
                       optim_wrapper {
                         optimizer { adamw {} }
                         amp {
                           dtype: FLOAT16
                           loss_scale { init_scale: 128 dynamic: false }
                         }
                       }
                     )pb"),
                     0);
}

TEST(CopiesTest, ADynamicLossScaleIsOneWait) {
  FakeDevice();
  ExpectSteadyCopies(CountCopies(R"pb(
                       optim_wrapper {
                         optimizer { adamw {} }
                         amp { dtype: FLOAT16 }
                       }
                     )pb"),
                     1);
}

TEST(CopiesTest, AndSoIsTheCheckOfALossThatIsToBeSkipped) {
  FakeDevice();
  ExpectSteadyCopies(CountCopies(R"pb(
                       optim_wrapper { optimizer { adamw {} } }
                       custom_hooks {
                         config {
                           [hooks/CheckInvalidLossHook] { action: SKIP }
                         }
                       }
                     )pb"),
                     1);
}

TEST(CopiesTest, OtherOptimizersOfOneModelWaitForNothingEither) {
  FakeDevice();
  for (const char* const optimizer :
       {"adam {}", "adamw { amsgrad: true }", "sgd { lr: 0.01 }"}) {
    SCOPED_TRACE(optimizer);
    ExpectSteadyCopies(CountCopies(absl::StrCat("optim_wrapper { optimizer { ",
                                                optimizer, " } }")),
                       0);
  }
}

TEST(CopiesTest, AHistoryReadsAllThatNobodyAskedForInOneCopy) {
  const c10::Device device = FakeDevice();
  MessageHub hub;
  HistoryBuffer& loss = hub.Scalar("train/loss");
  const int64_t before = CountFakeCopies().to_host;
  double sum = 0;
  for (int i = 0; i < 1005; ++i) {  // The ring isn't full of them at the end.
    loss.Add(ops::full({}, 0.5 * i, at::TensorOptions().device(device)));
    sum += 0.5 * i;
  }
  EXPECT_EQ(CountFakeCopies().to_host, before);
  EXPECT_EQ(loss.Current().value(), 0.5 * 1004);
  EXPECT_EQ(CountFakeCopies().to_host, before + 1);
  EXPECT_EQ(loss.GlobalMean().value(), sum / 1005);
  EXPECT_EQ(loss.Mean(10).value(), 0.5 * (1004 - 4.5));
}

}  // namespace
}  // namespace grapnel
