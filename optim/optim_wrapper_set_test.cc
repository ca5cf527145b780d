// Several optimizers as one OptimWrapper.

#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/param_groups.h"
#include "gtest/gtest.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char kTwo[] = R"pb(
  optimizers {
    name: "generator"
    pattern: "^g\\."
    optimizer { sgd { lr: 0.5 momentum: 0.9 } }
    accumulative_counts: 2
    paramwise_cfg { bias_lr_mult: 2 }
  }
  optimizers {
    name: "critic"
    pattern: "^c\\."
    optimizer { adamw { lr: 0.25 } }
    clip_grad { max_norm: 1 }
  }
)pb";

OptimWrapperConfig Parse(const std::string& text) {
  OptimWrapperConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

struct Net {
  explicit Net(const std::string& config = kTwo) {
    for (const char* name : {"g.weight", "g.bias", "c.weight"}) {
      params.push_back({name, torch::ones({2}, at::kDouble).requires_grad_()});
    }
    params.push_back({"table", torch::ones({2})});
    auto made = OptimWrapper::Create(Parse(config), params);
    EXPECT_THAT(made, IsOk());
    wrapper = *std::move(made);
  }

  OptimWrapper& Get(const char* name) {
    auto one = wrapper->Get(name);
    EXPECT_THAT(one, IsOk());
    return **one;
  }

  void Iterate(int64_t iter) {
    const double x = 1 + static_cast<double>(iter % 3);
    wrapper->BeginStep();
    ASSERT_THAT(Get("critic").Update((params[2].tensor * x).square().sum()),
                IsOk());
    ASSERT_THAT(Get("generator")
                    .Update((params[0].tensor * params[1].tensor * x).sum()),
                IsOk());
  }

  std::vector<NamedTensor> params;
  std::unique_ptr<OptimWrapper> wrapper;
};

class RecordingObserver : public StepObserver {
 public:
  absl::Status BeforeOptimizerStep() override {
    if (skip != nullptr) skip->SkipStep();
    return absl::OkStatus();
  }
  absl::Status AfterOptimizerStep(const StepResult& result) override {
    events.push_back(std::to_string(result.optimizer) +
                     (result.stepped ? " stepped" : " skipped") +
                     (result.grad_norm.defined() ? ", clipped" : ""));
    return absl::OkStatus();
  }

  OptimWrapper* skip = nullptr;
  std::vector<std::string> events;
};

TEST(OptimWrapperSetTest, EachStepsItsOwnParameters) {
  Net net;
  const at::Tensor& g = net.params[0].tensor;
  const at::Tensor& c = net.params[2].tensor;
  ASSERT_THAT(net.Get("critic").Update(c.sum()), IsOk());
  EXPECT_NE(c[0].item<double>(), 1);
  EXPECT_EQ(g[0].item<double>(), 1);
  const double before = c[0].item<double>();
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(net.Get("generator").Update(g.sum()), IsOk());
  }
  EXPECT_EQ(g[0].item<double>(), 0.5);
  EXPECT_EQ(c[0].item<double>(), before);
  EXPECT_EQ(net.Get("critic").optimizer()->type(), "AdamW");
  EXPECT_EQ(net.wrapper->optimizer(), nullptr);
  EXPECT_EQ(net.wrapper->accumulative_counts(), 2);
}

TEST(OptimWrapperSetTest, UpdatingThemAllSaysWhatToDo) {
  Net net;
  EXPECT_THAT(net.wrapper->Update(net.params[0].tensor.sum()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "there are several optimizers (generator, critic): the "
                       "model must override TrainStep and update each of them, "
                       "optim.Get(\"generator\")"));
  EXPECT_FALSE(net.params[0].tensor.grad().defined());
}

TEST(OptimWrapperSetTest, WantsTheWeightIfOneOfThemDoes) {
  Net by_iterations;
  EXPECT_FALSE(by_iterations.wrapper->wants_weight());
  std::string config = kTwo;
  config.insert(config.find("accumulative_counts"), "accumulate_by: SAMPLES ");
  Net by_samples(config);
  EXPECT_TRUE(by_samples.wrapper->wants_weight());
  EXPECT_TRUE(by_samples.Get("generator").wants_weight());
  EXPECT_FALSE(by_samples.Get("critic").wants_weight());
}

TEST(OptimWrapperSetTest, SuggestsANameThatIsThere) {
  Net net;
  EXPECT_THAT(
      net.wrapper->Get("generatr"),
      StatusIs(absl::StatusCode::kNotFound,
               "optimizer \"generatr\": there are generator, critic; did you "
               "mean \"generator\"?"));
}

TEST(OptimWrapperSetTest, ObserverHearsWhoseStepItWas) {
  Net net;
  RecordingObserver observer;
  net.wrapper->set_step_observer(&observer);
  net.Iterate(0);
  EXPECT_THAT(observer.events, ElementsAre("1 stepped, clipped"));
  EXPECT_EQ(net.wrapper->accumulated(), 1);
  net.Iterate(1);
  EXPECT_THAT(observer.events, ElementsAre("1 stepped, clipped",
                                           "1 stepped, clipped", "0 stepped"));
  EXPECT_EQ(net.wrapper->accumulated(), 0);
  net.wrapper->set_step_observer(nullptr);
  net.Iterate(2);
  EXPECT_EQ(observer.events.size(), 3u);
}

TEST(OptimWrapperSetTest, SkipStepIsForTheOneThatIsDue) {
  Net net;
  RecordingObserver observer;
  net.wrapper->set_step_observer(&observer);
  net.wrapper->SkipStep();  // None is due.
  net.Iterate(0);
  observer.skip = net.wrapper.get();
  ASSERT_THAT(net.Get("critic").Update(net.params[2].tensor.sum()), IsOk());
  observer.skip = nullptr;
  net.Iterate(1);
  EXPECT_THAT(observer.events, ElementsAre("1 stepped, clipped", "1 skipped",
                                           "1 stepped, clipped", "0 stepped"));
}

TEST(OptimWrapperSetTest, RatesAreLoggedByName) {
  Net net;
  std::vector<std::string> names;
  std::vector<double> rates;
  for (const auto& [name, rate] : net.wrapper->logged_lrs()) {
    names.push_back(name);
    rates.push_back(*rate);
  }
  EXPECT_THAT(names,
              ElementsAre("generator.base_lr", "generator.lr", "critic.lr"));
  EXPECT_THAT(rates, ElementsAre(0.5, 0.5, 0.25));
}

TEST(OptimWrapperSetTest, GroupsAreThoseOfAll) {
  Net net;
  ParamGroups& groups = net.wrapper->scheduled_groups();
  // Two and the base group, then one.
  ASSERT_EQ(groups.num_groups(), 4);
  ASSERT_THAT(net.wrapper->ScaleLr(2), IsOk());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(*groups.option(i, "lr"), i == 3 ? 0.5 : i == 1 ? 2 : 1) << i;
  }
  EXPECT_EQ(groups.option(3, "lr"),
            net.Get("critic").scheduled_groups().option(0, "lr"));
  net.Iterate(0);
  EXPECT_THAT(net.wrapper->ScaleLr(2),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("optimizer \"generator\": ")));
}

TEST(OptimWrapperSetTest, AmpIsOfAll) {
  Net net(std::string(kTwo) + "amp { dtype: BFLOAT16 }");
  EXPECT_TRUE(net.wrapper->autocast().enabled);
  EXPECT_TRUE(net.Get("critic").autocast().enabled);
  EXPECT_EQ(net.wrapper->autocast().dtype, at::kBFloat16);
}

TensorMap Copy(const TensorMap& tensors) {
  TensorMap copy;
  for (const NamedTensor& entry : tensors) {
    EXPECT_THAT(copy.Add(entry.name, entry.tensor.clone()), IsOk());
  }
  return copy;
}

TEST(OptimWrapperSetTest, ResumedAtEveryCutEqualsUninterrupted) {
  constexpr int64_t kIters = 5;
  Net expected;
  expected.wrapper->InitializeCounts(0, kIters);
  for (int64_t i = 0; i < kIters; ++i) expected.Iterate(i);
  for (int64_t cut = 0; cut <= kIters; ++cut) {
    SCOPED_TRACE(cut);
    Net first;
    first.wrapper->InitializeCounts(0, kIters);
    for (int64_t i = 0; i < cut; ++i) first.Iterate(i);
    OptimWrapperState state;
    TensorMap tensors, gradients;
    ASSERT_THAT(first.wrapper->SaveState(&state, &tensors, &gradients), IsOk());
    EXPECT_EQ(gradients.Find("generator/g.weight") != nullptr,
              cut == 1 || cut == 3);
    EXPECT_EQ(tensors.Find("critic/c.weight/exp_avg") != nullptr, cut > 0);

    Net second;
    {
      torch::NoGradGuard no_grad;
      for (int i = 0; i < 3; ++i) {
        second.params[i].tensor.copy_(first.params[i].tensor);
      }
    }
    second.wrapper->InitializeCounts(cut, kIters);
    ASSERT_THAT(
        second.wrapper->LoadState(state, Copy(tensors), Copy(gradients)),
        IsOk());
    for (int64_t i = cut; i < kIters; ++i) second.Iterate(i);
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(
          torch::equal(second.params[i].tensor, expected.params[i].tensor))
          << second.params[i].name;
    }
  }
}

TEST(OptimWrapperSetTest, RefusesStatesOfOthers) {
  Net net;
  net.Iterate(0);
  OptimWrapperState good;
  TensorMap tensors, gradients;
  ASSERT_THAT(net.wrapper->SaveState(&good, &tensors, &gradients), IsOk());

  OptimWrapperState bad = good;
  bad.mutable_optimizers(1)->set_name("judge");
  EXPECT_THAT(net.wrapper->LoadState(bad, tensors, gradients),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "optimizers: the state is of generator, judge, these "
                       "are generator, critic"));
  EXPECT_THAT(net.wrapper->LoadState(OptimWrapperState(), tensors, gradients),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("the state is of one without a name")));
  bad = good;
  bad.mutable_optimizers(1)->mutable_state()->set_inner_count(-1);
  EXPECT_THAT(net.wrapper->LoadState(bad, tensors, gradients),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "optimizer \"critic\": inner_count: must be >= 0, is "
                       "-1"));
  TensorMap strange = Copy(tensors);
  ASSERT_THAT(strange.Add("critics/c.weight/step", torch::ones({})), IsOk());
  EXPECT_THAT(net.wrapper->LoadState(good, strange, gradients),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "tensor \"critics/c.weight/step\": is of no optimizer"));
}

struct ErrorCase {
  const char* name;
  const char* config;
  const char* message;
};

void PrintTo(const ErrorCase& test, std::ostream* out) { *out << test.name; }

class OptimWrapperSetErrorTest : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(OptimWrapperSetErrorTest, NamesTheField) {
  std::vector<NamedTensor> params;
  for (const char* name : {"g.weight", "c.weight"}) {
    params.push_back({name, torch::ones({2}).requires_grad_()});
  }
  params.push_back({"table", torch::ones({2})});
  EXPECT_THAT(OptimWrapper::Create(Parse(GetParam().config), params),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

#define G "optimizers { name: 'g' pattern: '^g' optimizer { sgd {} } } "

INSTANTIATE_TEST_SUITE_P(
    Configs, OptimWrapperSetErrorTest,
    ::testing::Values(
        ErrorCase{"NoName", "optimizers { pattern: 'g' }",
                  "optimizers[0]: name: must be of letters"},
        ErrorCase{"BadName", G "optimizers { name: 'a.b' pattern: 'c' }",
                  "optimizers[1]: name: must be of letters, digits, \"_\" and "
                  "\"-\", is \"a.b\""},
        ErrorCase{"NameTwice", G "optimizers { name: 'g' pattern: 'c' }",
                  "optimizers[1]: name: \"g\" is there twice"},
        ErrorCase{"NoPattern", "optimizers { name: 'g' }",
                  "optimizers[0]: pattern: must be set"},
        ErrorCase{"BadPattern", "optimizers { name: 'g' pattern: 'a(' }",
                  "optimizers[0]: pattern: \"a(\": missing )"},
        ErrorCase{"PatternOfFrozenParameters",
                  G "optimizers { name: 't' pattern: 'table' }",
                  "optimizers[1]: pattern: \"table\" matches no parameter that "
                  "requires a gradient"},
        ErrorCase{"SharedParameter", G "optimizers { name: 'c' pattern: '.' }",
                  "optimizers[1]: pattern: \".\" matches \"g.weight\", which "
                  "is of \"g\" already"},
        ErrorCase{"ParameterOfNone", G,
                  "optimizers: no pattern matches parameter \"c.weight\""},
        ErrorCase{"NoOptimizer", "optimizers { name: 'a' pattern: '.' }",
                  "optimizers[0]: optimizer: must be set"},
        ErrorCase{"OptimizersField",
                  "optimizers { name: 'a' pattern: '.' optimizer { sgd { lr: "
                  "-1 } } }",
                  "optimizers[0]: optimizer: sgd: lr: must be finite"},
        ErrorCase{"OneBesidesThem", G "optimizer { sgd {} }",
                  "optimizers: beside them only amp may be set"},
        ErrorCase{"ClipBesidesThem", G "clip_grad { max_norm: 1 }",
                  "optimizers: beside them only amp may be set"},
        ErrorCase{"Amp",
                  G "optimizers { name: 'c' pattern: 'c' optimizer { "
                    "sgd {} } } amp {}",
                  "amp: dtype: must be set"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace grapnel
