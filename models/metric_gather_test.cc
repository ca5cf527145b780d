// An evaluation that many ranks share comes to what one process comes to.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "c10/core/Device.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/gathered_counts.pb.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/model.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

using models::v1::AccuracyCounts;
using models::v1::GatheredCounts;
using models::v1::MeanErrorCounts;

const c10::Device kCpu(c10::kCPU);

std::unique_ptr<Evaluator> NewEvaluator(
    const std::vector<std::string>& texts,
    std::vector<std::unique_ptr<Metric>> more = {}) {
  google::protobuf::RepeatedPtrField<models::v1::MetricConfig> configs;
  for (const std::string& text : texts) {
    EXPECT_TRUE(
        google::protobuf::TextFormat::ParseFromString(text, configs.Add()))
        << text;
  }
  auto evaluator = Evaluator::Create(configs, std::move(more));
  EXPECT_THAT(evaluator, IsOk());
  return *std::move(evaluator);
}

struct Step {
  Predictions predictions;
  Batch batch;
};

Step NewStep(const at::Tensor& outputs, const at::Tensor& targets) {
  Step step;
  step.predictions.outputs = outputs;
  step.batch.targets = targets;
  step.batch.indices.resize(outputs.size(0));
  return step;
}

// `num_samples` samples without any error but for a loss.
Step LossStep(int64_t num_samples, const std::string& name, double mean,
              const at::Tensor& weight = at::Tensor()) {
  Step step =
      NewStep(ops::zeros({num_samples, 1}), ops::zeros({num_samples, 1}));
  step.predictions.losses.Add(name, ops::full({}, mean, at::kDouble), weight);
  return step;
}

at::Tensor Weight(double weight, c10::Device device = kCpu) {
  return ops::full({}, weight, at::kDouble).to(device);
}

void ProcessAll(Evaluator& evaluator, const std::vector<Step>& steps) {
  for (const Step& step : steps) {
    ASSERT_THAT(evaluator.Process(step.predictions, step.batch), IsOk());
  }
}

using Evaluators = std::vector<std::unique_ptr<Evaluator>>;

std::vector<absl::Status> GatherAll(const Evaluators& ranks) {
  return RunRanks(static_cast<int>(ranks.size()), [&](ProcessGroup& group) {
    return ranks[group.rank()]->Gather(group);
  });
}

// What one rank, or one process, has in the end, with all bits of it.
struct Result {
  Metrics metrics;
  std::vector<std::string> notes;

  std::string Bits() const {
    std::string bits = absl::StrJoin(notes, "\n");
    for (const auto& [name, value] : metrics) {
      uint64_t of_value = 0;
      if (const double* number = std::get_if<double>(&value)) {
        std::memcpy(&of_value, number, sizeof of_value);
      }
      absl::StrAppend(&bits, "\n", name, " ", absl::Hex(of_value));
    }
    return bits;
  }
};

Result Compute(Evaluator& evaluator) {
  Result result;
  auto metrics = evaluator.Compute("val", &result.notes);
  EXPECT_THAT(metrics, IsOk());
  if (metrics.ok()) result.metrics = *std::move(metrics);
  return result;
}

// What every rank has after Gather: the same.
Result GatherAndCompute(const Evaluators& ranks) {
  EXPECT_THAT(GatherAll(ranks), Each(IsOk()));
  const Result first = Compute(*ranks[0]);
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    EXPECT_EQ(Compute(*ranks[rank]).Bits(), first.Bits()) << "rank " << rank;
  }
  return first;
}

// Of a rank each: its steps.
Result GatherSteps(const std::vector<std::string>& metrics,
                   const std::vector<std::vector<Step>>& steps) {
  Evaluators ranks;
  for (const std::vector<Step>& of_rank : steps) {
    ranks.push_back(NewEvaluator(metrics));
    ProcessAll(*ranks.back(), of_rank);
  }
  return GatherAndCompute(ranks);
}

double Value(const Result& result, const std::string& name) {
  const MetricValue* const value = FindMetric(result.metrics, name);
  EXPECT_NE(value, nullptr) << name;
  return value == nullptr ? 0 : std::get<double>(*value);
}

// --- One process's metrics ---

// S samples: outputs (S, 5), and targets.
struct Samples {
  at::Tensor outputs;
  at::Tensor targets;
};

using Random = std::mt19937;

at::Tensor Normal(Random& random, int64_t rows, int64_t columns) {
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(rows * columns));
  for (double& value : values) value = normal(random);
  return ops::tensor(values).reshape({rows, columns});
}

Samples Classes(Random& random, int64_t count) {
  std::uniform_int_distribution<int64_t> label(0, 4);
  std::vector<int64_t> labels(static_cast<size_t>(count));
  for (int64_t& value : labels) value = label(random);
  return {Normal(random, count, 5), ops::tensor(labels)};
}

Samples ClassesWithNaN(Random& random, int64_t count) {
  Samples samples = Classes(random, count);
  samples.outputs[count / 2][3] = std::nan("");
  return samples;
}

Samples Values(Random& random, int64_t count) {
  return {Normal(random, count, 5), Normal(random, count, 5)};
}

Samples ValuesWithInfinity(Random& random, int64_t count) {
  Samples samples = Values(random, count);
  samples.targets[count / 2][3] = HUGE_VAL;
  return samples;
}

struct SharedCase {
  std::string name;
  std::vector<std::string> metrics;
  std::string loss;  // Its config.
  Samples (*draw)(Random& random, int64_t count);
};

void PrintTo(const SharedCase& c, std::ostream* os) { *os << c.name; }

std::vector<SharedCase> SharedCases() {
  const std::string weighted =
      "cross_entropy { ignore_index: 1 class_weight: [1, 0.3, 2, 0.7, 5] }";
  return {
      {"Accuracy",
       {"accuracy { topk: [1, 3] }"},
       "cross_entropy { ignore_index: -100 }",
       Classes},
      {"AccuracyAndWhatCounts",
       {"accuracy { topk: [2, 1] }"},
       weighted,
       Classes},
      {"AccuracyOfNaN", {"accuracy {}"}, weighted, ClassesWithNaN},
      {"Errors", {"mse {}", "mae {}"}, "mse {}", Values},
      {"ErrorsOfInfinity", {"mae {}", "mse {}"}, "l1 {}", ValuesWithInfinity},
  };
}

// The samples of one rank in batches of random sizes, on a device.
std::vector<Step> Cut(const SharedCase& test_case, const Samples& samples,
                      int64_t rank, int64_t world_size, c10::Device device,
                      Random& random) {
  models::v1::LossConfig config;
  EXPECT_TRUE(
      google::protobuf::TextFormat::ParseFromString(test_case.loss, &config));
  const auto loss = LossRegistry::Create(config);
  EXPECT_THAT(loss, IsOk());
  const int64_t count = samples.outputs.size(0);
  std::vector<Step> steps;
  if (!loss.ok() || rank >= count) return steps;
  const auto of_rank = [&](const at::Tensor& all) {
    return all.slice(0, rank, count, world_size).to(device);
  };
  const at::Tensor outputs = of_rank(samples.outputs);
  const at::Tensor targets = of_rank(samples.targets);
  int64_t end = 0;
  for (int64_t begin = 0; begin < outputs.size(0); begin = end) {
    end = std::min<int64_t>(
        begin + std::uniform_int_distribution<int64_t>(1, 4)(random),
        outputs.size(0));
    Step step =
        NewStep(outputs.slice(0, begin, end), targets.slice(0, begin, end));
    const auto mean = (*loss)->Compute(step.predictions.outputs, step.batch);
    const auto weight = (*loss)->Weight(step.predictions.outputs, step.batch);
    EXPECT_THAT(mean, IsOk());
    EXPECT_THAT(weight, IsOk());
    if (!mean.ok() || !weight.ok()) return {};
    step.predictions.losses.Add("loss", *mean, *weight);
    // One that counts by samples.
    step.predictions.losses.Add(
        "size", step.predictions.outputs.nan_to_num().abs().mean());
    step.predictions.ignore_index = (*loss)->ignore_index();
    steps.push_back(std::move(step));
  }
  return steps;
}

void ExpectTheSame(const Result& ranks, const Result& one) {
  EXPECT_EQ(ranks.notes, one.notes);
  ASSERT_EQ(ranks.metrics.size(), one.metrics.size());
  for (size_t i = 0; i < one.metrics.size(); ++i) {
    const std::string& name = one.metrics[i].first;
    EXPECT_EQ(ranks.metrics[i].first, name);
    const double is = std::get<double>(ranks.metrics[i].second);
    const double want = std::get<double>(one.metrics[i].second);
    if (name.find("accuracy") == 0 && !std::isnan(want)) {
      EXPECT_EQ(is, want) << name;
    } else if (std::isfinite(want)) {
      EXPECT_NEAR(is, want, 1e-13 * std::abs(want)) << name;
    } else {
      EXPECT_EQ(absl::StrCat(is), absl::StrCat(want)) << name;
    }
  }
}

class SharedEvaluationTest : public TestWithParam<SharedCase> {
 protected:
  void SetUp() override {
    at::set_num_threads(1);  // Tensors are small, and machines busy.
  }
};

INSTANTIATE_TEST_SUITE_P(, SharedEvaluationTest, ValuesIn(SharedCases()),
                         [](const auto& info) { return info.param.name; });

// However many ranks and batches: with fewer samples than ranks, too.
TEST_P(SharedEvaluationTest, HasTheMetricsOfOneProcess) {
  for (const c10::Device device : {kCpu, FakeDevice()}) {
    for (const int world_size : {1, 2, 3, 5}) {
      Evaluators ranks;
      for (int rank = 0; rank < world_size; ++rank) {
        ranks.push_back(NewEvaluator(GetParam().metrics));
      }
      for (const int64_t count : {1, 4, 7, 23, 60}) {
        SCOPED_TRACE(absl::StrCat(device.str(), ": ", world_size, " ranks, ",
                                  count, " samples"));
        Random random(static_cast<uint32_t>(100 * count + world_size));
        const Samples samples = GetParam().draw(random, count);
        const auto one = NewEvaluator(GetParam().metrics);
        ProcessAll(*one, Cut(GetParam(), samples, 0, 1, kCpu, random));
        for (int rank = 0; rank < world_size; ++rank) {
          ranks[rank]->Reset();
          ProcessAll(*ranks[rank], Cut(GetParam(), samples, rank, world_size,
                                       device, random));
        }
        ExpectTheSame(GatherAndCompute(ranks), Compute(*one));
      }
    }
  }
}

// --- Sums that round ---

TEST(GatherTest, SumsAreAddedUpByRank) {
  // By any other order, or from the last to the first, 1 is lost or is not.
  const std::vector<std::vector<Step>> steps = {
      {LossStep(1, "loss", 1e16)},
      {LossStep(1, "loss", -1e16)},
      {LossStep(1, "loss", 1)},
  };
  EXPECT_EQ(Value(GatherSteps({}, steps), "loss"), 1. / 3);
  EXPECT_EQ(Value(GatherSteps({}, {steps[2], steps[0], steps[1]}), "loss"), 0);
  const auto errors = [](double difference) {
    return std::vector<Step>{NewStep(ops::full({1}, difference, at::kDouble),
                                     ops::zeros({1}, at::kDouble))};
  };
  // 1 + 1 + 1e16 is 1e16 + 2, 1e16 + 1 + 1 is 1e16.
  EXPECT_EQ(Value(GatherSteps({"mae {}"}, {errors(1), errors(1), errors(1e16)}),
                  "mae"),
            (1e16 + 2) / 3);
  EXPECT_EQ(Value(GatherSteps({"mae {}"}, {errors(1e16), errors(1), errors(1)}),
                  "mae"),
            1e16 / 3);
}

// --- Losses ---

TEST(GatherTest, LossIsMeanByTheWeightsOfAllRanks) {
  for (const c10::Device device : {kCpu, FakeDevice()}) {
    const Result result =
        GatherSteps({}, {{LossStep(3, "loss", 1, Weight(0.5, device)),
                          LossStep(3, "loss", std::nan(""), Weight(0, device))},
                         {},
                         {LossStep(1, "loss", 5, Weight(1, device)),
                          LossStep(1, "loss", 5, Weight(0.5, kCpu))}});
    EXPECT_EQ(Value(result, "loss"), 4) << device;
    EXPECT_THAT(result.notes, IsEmpty());
  }
}

TEST(GatherTest, LossThatOnlySomeRanksHaveIsAveragedOverThose) {
  const Result result =
      GatherSteps({}, {{LossStep(2, "loss", 1)},
                       {LossStep(1, "loss_aux", 8), LossStep(1, "loss", 4)},
                       {LossStep(1, "accuracy", 7)}});
  EXPECT_THAT(result.metrics,
              ElementsAre(std::make_pair("loss", MetricValue(2.0)),
                          std::make_pair("loss_aux", MetricValue(8.0)),
                          std::make_pair("accuracy", MetricValue(7.0)),
                          std::make_pair("val_loss", MetricValue(10.0))));
}

TEST(GatherTest, LossOfWhichNothingCountsOnAnyRankIsSaidOnAll) {
  const Result result = GatherSteps({}, {{LossStep(2, "loss", 0, Weight(0))},
                                         {LossStep(1, "loss", 0, Weight(0))}});
  EXPECT_TRUE(std::isnan(Value(result, "loss")));
  EXPECT_THAT(result.notes,
              ElementsAre("loss \"loss\" is nan: none of its targets counts"));
}

TEST(GatherTest, NoSamplesOnAnyRankIsEveryRanksError) {
  Evaluators ranks;
  for (int i = 0; i < 2; ++i) ranks.push_back(NewEvaluator({"accuracy {}"}));
  EXPECT_THAT(GatherAll(ranks), Each(IsOk()));
  for (const auto& rank : ranks) {
    EXPECT_THAT(rank->Compute("val"),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("no samples")));
  }
}

// --- Users' metrics ---

// Remembers how many samples each batch had.
class SizesMetric final : public Metric {
 public:
  void Reset() override { sizes_.clear(); }
  absl::Status Process(const Predictions&, const Batch& batch) override {
    absl::StrAppend(&sizes_, batch.size());
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics* metrics) override {
    metrics->emplace_back("sizes", sizes_);
    return absl::OkStatus();
  }
  absl::Status SaveCounts(std::string* counts) override {
    *counts = sizes_;
    return absl::OkStatus();
  }
  absl::Status MergeCounts(absl::Span<const std::string> counts) override {
    sizes_ = absl::StrJoin(counts, "|");
    return absl::OkStatus();
  }

 private:
  std::string sizes_;
};

template <typename T, typename... Args>
std::unique_ptr<Evaluator> EvaluatorOf(const Args&... args) {
  std::vector<std::unique_ptr<Metric>> more;
  more.push_back(std::make_unique<T>(args...));
  return NewEvaluator({"mse {}"}, std::move(more));
}

TEST(GatherTest, UsersMetricGetsAllRanksCountsByRank) {
  Evaluators ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.push_back(EvaluatorOf<SizesMetric>());
  }
  ProcessAll(*ranks[0], {LossStep(3, "loss", 1), LossStep(2, "loss", 1)});
  ProcessAll(*ranks[2], {LossStep(4, "loss", 1)});
  const Result result = GatherAndCompute(ranks);
  EXPECT_EQ(std::get<std::string>(*FindMetric(result.metrics, "sizes")),
            "32||4");
}

// One that knows nothing of ranks.
class LoneMetric : public Metric {
 public:
  void Reset() override {}
  absl::Status Process(const Predictions&, const Batch&) override {
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics* metrics) override {
    metrics->emplace_back("lone", 1.0);
    return absl::OkStatus();
  }
};

TEST(GatherTest, MetricThatCantBeGatheredIsNamedOnEveryRankAndBefore) {
  Evaluators ranks;
  for (int i = 0; i < 2; ++i) ranks.push_back(EvaluatorOf<LoneMetric>());
  const std::string says =
      "LoneMetric: can't be gathered over ranks: its class has no SaveCounts";
  EXPECT_THAT(ranks[0]->CheckGather(),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr(says)));
  EXPECT_THAT(GatherAll(ranks),
              Each(StatusIs(absl::StatusCode::kUnimplemented,
                            AllOf(HasSubstr("rank 0: "), HasSubstr(says)))));
  EXPECT_THAT(EvaluatorOf<SizesMetric>()->CheckGather(), IsOk());
  EXPECT_THAT(NewEvaluator({"accuracy {}", "mse {}", "mae {}"})->CheckGather(),
              IsOk());
}

// --- What is exchanged ---

// Stands in front of a group: counts what is gathered, and may change it.
class WatchedGroup final : public ProcessGroup {
 public:
  using Change = std::function<void(std::vector<std::string>*)>;

  explicit WatchedGroup(ProcessGroup& group, Change change = nullptr)
      : group_(group), change_(std::move(change)) {}

  int calls() const { return calls_; }

  int rank() const override { return group_.rank(); }
  int world_size() const override { return group_.world_size(); }
  int local_rank() const override { return group_.local_rank(); }
  std::string description() const override { return group_.description(); }
  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override {
    ++calls_;
    return group_.AllReduce(tensor, op);
  }
  absl::Status Broadcast(const at::Tensor& tensor, int root) override {
    ++calls_;
    return group_.Broadcast(tensor, root);
  }
  absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) override {
    ++calls_;
    GRAPNEL_ASSIGN_OR_RETURN(std::vector<std::string> all,
                             group_.AllGather(bytes));
    if (change_) change_(&all);
    return all;
  }
  absl::Status Barrier() override {
    ++calls_;
    return group_.Barrier();
  }
  void ReportFailure(const absl::Status& failure) override {
    group_.ReportFailure(failure);
  }
  absl::Status FirstFailure() override { return group_.FirstFailure(); }

 private:
  ProcessGroup& group_;
  const Change change_;
  int calls_ = 0;
};

TEST(GatherTest, IsOneCollectiveAndNoneForOneRank) {
  for (const int world_size : {1, 3}) {
    Evaluators ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.push_back(world_size == 1 ? EvaluatorOf<LoneMetric>()
                                      : EvaluatorOf<SizesMetric>());
      ProcessAll(*ranks[rank],
                 {LossStep(1, "loss", 1), LossStep(1, "loss_aux", 2)});
    }
    EXPECT_THAT(RunRanks(world_size,
                         [&](ProcessGroup& group) {
                           WatchedGroup watched(group);
                           const absl::Status status =
                               ranks[group.rank()]->Gather(watched);
                           EXPECT_EQ(watched.calls(), world_size == 1 ? 0 : 1);
                           return status;
                         }),
                Each(IsOk()));
    EXPECT_EQ(Value(Compute(*ranks[0]), "val_loss"), 3);
  }
}

TEST(GatherTest, ReadsADeviceOnceForEachMetricAndForTheLosses) {
  Evaluators ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.push_back(NewEvaluator({"mse {}", "mae {}"}));
    Step step = NewStep(ops::zeros({2, 1}).to(FakeDevice()),
                        ops::zeros({2, 1}).to(FakeDevice()));
    for (const char* const name : {"loss", "loss_aux", "loss_mask"}) {
      step.predictions.losses.Add(name, Weight(1, FakeDevice()),
                                  Weight(3, FakeDevice()));
    }
    ProcessAll(*ranks.back(), {step, step});
  }
  const int64_t before = CountFakeCopies().to_host;
  EXPECT_THAT(GatherAll(ranks), Each(IsOk()));
  EXPECT_EQ(CountFakeCopies().to_host - before, 2 * 3)
      << absl::StrJoin(LastFakeCopies(), "; ");
  EXPECT_EQ(Value(Compute(*ranks[1]), "val_loss"), 3);
}

// --- Errors of ranks ---

using Fail = std::function<absl::Status()>;

// Can't give its counts if `fail` does so.
class FailingMetric final : public LoneMetric {
 public:
  explicit FailingMetric(const Fail& fail) : fail_(fail) {}
  absl::Status SaveCounts(std::string*) override { return fail_(); }
  absl::Status MergeCounts(absl::Span<const std::string>) override {
    return absl::OkStatus();
  }

 private:
  const Fail fail_;
};

TEST(GatherTest, ErrorOfOneRankIsEveryRanks) {
  const Fail good = [] { return absl::OkStatus(); };
  const Fail bad = [] { return absl::OutOfRangeError("no \xff counts"); };
  const Fail worse = []() -> absl::Status {
    throw std::runtime_error("thrown");
  };
  const auto statuses_of = [](const std::vector<Fail>& fails) {
    Evaluators ranks;
    for (const auto& fail : fails) {
      ranks.push_back(EvaluatorOf<FailingMetric>(fail));
    }
    return GatherAll(ranks);
  };
  EXPECT_THAT(
      statuses_of({good, good, bad}),
      Each(StatusIs(absl::StatusCode::kOutOfRange,
                    AllOf(HasSubstr("rank 2: "),
                          HasSubstr("FailingMetric: no \xff counts")))));
  // The same one for all.
  EXPECT_THAT(statuses_of({good, worse, bad}),
              Each(StatusIs(absl::StatusCode::kInternal,
                            AllOf(HasSubstr("rank 1: "),
                                  HasSubstr("FailingMetric: thrown")))));
}

TEST(GatherTest, BadWeightOnADeviceIsNamedWithItsRank) {
  Evaluators ranks;
  for (const double weight : {3., -1.}) {
    ranks.push_back(NewEvaluator({}));
    ProcessAll(*ranks.back(),
               {LossStep(1, "loss", 1, Weight(weight, FakeDevice()))});
  }
  EXPECT_THAT(GatherAll(ranks),
              Each(StatusIs(absl::StatusCode::kInvalidArgument,
                            "rank 1: loss \"loss\": weight: must be finite "
                            "and >= 0, is -1")));
}

TEST(GatherTest, RanksOfOtherMetricsAreNamed) {
  const auto statuses_of = [](std::vector<std::vector<std::string>> metrics) {
    Evaluators ranks;
    for (const auto& of_rank : metrics) ranks.push_back(NewEvaluator(of_rank));
    return GatherAll(ranks);
  };
  const auto says = [](const std::string& message) {
    return Each(StatusIs(absl::StatusCode::kInvalidArgument, message));
  };
  EXPECT_THAT(statuses_of({{"accuracy {}", "mse {}"},
                           {"accuracy {}", "mse {}"},
                           {"accuracy {}", "mae {}"}}),
              says("rank 2 has the metrics \"accuracy\", \"mae\", rank 0 has "
                   "the metrics \"accuracy\", \"mse\""));
  EXPECT_THAT(statuses_of({{}, {"mse {}"}}),
              says("rank 1 has the metrics \"mse\", rank 0 has no metrics"));
}

TEST(GatherTest, OtherTopkIsAnError) {
  Evaluators ranks;
  for (const std::string topk : {"[3, 1]", "[3, 1]", "[3]"}) {
    ranks.push_back(NewEvaluator({"accuracy { topk: " + topk + " }"}));
  }
  EXPECT_THAT(
      GatherAll(ranks),
      Each(StatusIs(absl::StatusCode::kInvalidArgument,
                    "accuracy: rank 2: its topk is 3, rank 0's is 3, 1")));
}

TEST(GatherTest, RankThatNeverComesIsAnErrorThatSaysWhatFor) {
  Evaluators ranks;
  for (int i = 0; i < 2; ++i) ranks.push_back(NewEvaluator({"mse {}"}));
  const auto statuses = RunRanks(
      2,
      [&](ProcessGroup& group) {
        return group.rank() == 0 ? ranks[0]->Gather(group) : absl::OkStatus();
      },
      absl::Milliseconds(50));
  EXPECT_THAT(statuses[0], StatusIs(absl::StatusCode::kDeadlineExceeded,
                                    HasSubstr("gathering metrics: ")));
}

TEST(GatherTest, NextEvaluationKnowsNothingOfAnError) {
  Evaluators ranks;
  for (int i = 0; i < 2; ++i) ranks.push_back(NewEvaluator({"mse {}"}));
  const at::Tensor bad = Weight(-1, FakeDevice());
  ProcessAll(*ranks[1], {LossStep(1, "loss_aux", 1, bad)});
  const auto statuses = RunRanks(2, [&](ProcessGroup& group) {
    Evaluator& own = *ranks[group.rank()];
    EXPECT_FALSE(own.Gather(group).ok());
    own.Reset();
    const Step step = LossStep(1, "loss", 2);
    GRAPNEL_RETURN_IF_ERROR(own.Process(step.predictions, step.batch));
    return own.Gather(group);  // By the same group.
  });
  EXPECT_THAT(statuses, Each(IsOk()));
  const Result result = Compute(*ranks[0]);
  EXPECT_EQ(Value(result, "loss"), 2);
  EXPECT_EQ(FindMetric(result.metrics, "loss_aux"), nullptr);
}

// --- Bytes that no rank of this program sends ---

struct BytesCase {
  std::string name;
  absl::StatusCode code;
  std::string says;
  // Of what rank 1 sends; its metrics are accuracy and mse.
  std::function<void(GatheredCounts*)> change;
};

void PrintTo(const BytesCase& c, std::ostream* os) { *os << c.name; }

// Replaces a metric's counts by `text`.
template <typename T>
std::function<void(GatheredCounts*)> Counts(int metric, const char* text) {
  return [metric, text](GatheredCounts* counts) {
    T changed;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &changed));
    counts->mutable_metrics(metric)->set_counts(changed.SerializeAsString());
  };
}

std::vector<BytesCase> BytesCases() {
  using Code = absl::StatusCode;
  return {
      {"Version", Code::kFailedPrecondition,
       "rank 1: its counts are of version 7, this program's of 1",
       [](GatheredCounts* counts) { counts->set_version(7); }},
      {"NoVersion", Code::kFailedPrecondition,
       "rank 1: its counts are of version 0, this program's of 1",
       [](GatheredCounts* counts) { counts->Clear(); }},
      {"CodeThatIsNone", Code::kUnknown, "rank 1: odd",
       [](GatheredCounts* counts) {
         counts->set_error_code(-3);
         counts->set_error_message("odd");
       }},
      {"NoSampleCount", Code::kDataLoss,
       "rank 1: its number of samples: must be >= 0, is unset",
       [](GatheredCounts* counts) { counts->clear_num_samples(); }},
      {"NegativeSampleCount", Code::kDataLoss,
       "rank 1: its number of samples: must be >= 0, is -5",
       [](GatheredCounts* counts) { counts->set_num_samples(-5); }},
      {"SamplesWithoutEnd", Code::kDataLoss,
       "rank 1: 9223372036854775807 samples are too many",
       [](GatheredCounts* counts) {
         counts->set_num_samples(std::numeric_limits<int64_t>::max());
       }},
      {"LossWithoutSum", Code::kDataLoss, "rank 1: its losses can't be read",
       [](GatheredCounts* counts) {
         counts->add_losses()->set_name("loss");
         counts->mutable_losses(0)->set_weight(1);
       }},
      {"LossWeight", Code::kInvalidArgument,
       "rank 1: loss \"loss\": weight: must be finite and >= 0, is nan",
       [](GatheredCounts* counts) {
         counts->add_losses()->set_name("loss");
         counts->mutable_losses(0)->set_sum(1);
         counts->mutable_losses(0)->set_weight(std::nan(""));
       }},
      {"NamesThatLookAlike", Code::kInvalidArgument,
       "rank 1 has the metrics \"accuracy\", \"mse\", rank 0 has the metrics "
       "\"accuracy\", \"mse\"",
       [](GatheredCounts* counts) {
         counts->mutable_metrics()->RemoveLast();
         counts->mutable_metrics(0)->set_name("accuracy\", \"mse");
       }},
      {"MetricsBytes", Code::kDataLoss,
       "accuracy: rank 1: its counts can't be read",
       [](GatheredCounts* counts) {
         counts->mutable_metrics(0)->set_counts("\xff");
       }},
      {"MetricsNothing", Code::kDataLoss,
       "mse: rank 1: its counts can't be read",
       [](GatheredCounts* counts) {
         counts->mutable_metrics(1)->set_counts("");
       }},
      {"NoCounts", Code::kDataLoss, "accuracy: rank 1: has 0 counts, 3 are due",
       Counts<AccuracyCounts>(0, "topk: 1 num_samples: 4")},
      {"TooManyCounts", Code::kDataLoss,
       "accuracy: rank 1: has 4 counts, 3 are due",
       Counts<AccuracyCounts>(0,
                              "topk: 1 num_samples: 4 counts: [0, 0, 0, 0]")},
      {"MoreHitsThanSamples", Code::kDataLoss,
       "accuracy: rank 1: counts 5 of 4 samples",
       Counts<AccuracyCounts>(0, "topk: 1 num_samples: 4 counts: [0, 5, 0]")},
      {"NegativeHits", Code::kDataLoss,
       "accuracy: rank 1: counts -1 of 4 samples",
       Counts<AccuracyCounts>(0, "topk: 1 num_samples: 4 counts: [-1, 0, 0]")},
      {"NegativeCount", Code::kDataLoss,
       "mse: rank 1: its counts can't be read",
       Counts<MeanErrorCounts>(1, "sum: 3 count: -4")},
  };
}

class GatheredBytesTest : public TestWithParam<BytesCase> {};

INSTANTIATE_TEST_SUITE_P(, GatheredBytesTest, ValuesIn(BytesCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(GatheredBytesTest, AreRefused) {
  Evaluators ranks;
  for (int i = 0; i < 2; ++i) {
    ranks.push_back(NewEvaluator({"accuracy {}", "mse {}"}));
  }
  EXPECT_THAT(RunRanks(2,
                       [&](ProcessGroup& group) {
                         WatchedGroup watched(
                             group, [](std::vector<std::string>* all) {
                               GatheredCounts counts;
                               ASSERT_TRUE(counts.ParseFromString((*all)[0]));
                               counts.set_num_samples(4);
                               (*all)[0] = counts.SerializeAsString();
                               GetParam().change(&counts);
                               (*all)[1] = counts.SerializeAsString();
                             });
                         return ranks[group.rank()]->Gather(watched);
                       }),
              Each(StatusIs(GetParam().code, GetParam().says)));
}

// Not a test of messages: of no crash, and of nothing undefined under
// --config=ubsan.
TEST(GatherTest, AnyBytesMayCome) {
  Random random(5);
  const Samples samples = Classes(random, 8);
  std::string sent;
  Evaluators ranks;
  for (int i = 0; i < 2; ++i) {
    ranks.push_back(NewEvaluator({"accuracy {}"}));
    Step step = NewStep(samples.outputs, samples.targets);
    step.predictions.losses.Add("loss", Weight(2), Weight(3));
    ProcessAll(*ranks[i], {step});
  }
  EXPECT_THAT(RunRanks(2,
                       [&](ProcessGroup& group) {
                         WatchedGroup watched(
                             group, [&](std::vector<std::string>* all) {
                               if (group.rank() == 0) sent = (*all)[1];
                             });
                         return ranks[group.rank()]->Gather(watched);
                       }),
              Each(IsOk()));
  int refused = 0;
  EXPECT_THAT(
      RunRanks(2,
               [&](ProcessGroup& group) {
                 Random own(7);
                 WatchedGroup watched(
                     group, [&](std::vector<std::string>* all) {
                       std::string& bytes = (*all)[1] = sent;
                       for (int i = 0; i < 2; ++i) {
                         bytes[own() % bytes.size()] = static_cast<char>(own());
                       }
                       if (own() % 4 == 0) bytes.resize(own() % bytes.size());
                     });
                 Evaluator& evaluator = *ranks[group.rank()];
                 for (int i = 0; i < 1000; ++i) {
                   evaluator.Reset();
                   const absl::Status status = evaluator.Gather(watched);
                   // Either is right, for what can be read.
                   if (status.ok())
                     evaluator.Compute("val").status().IgnoreError();
                   if (!status.ok() && group.rank() == 0) ++refused;
                 }
                 return absl::OkStatus();
               }),
      Each(IsOk()));
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace grapnel
