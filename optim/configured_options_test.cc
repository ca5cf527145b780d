// Options of a run that goes on with another configuration, group by group.

#include "grapnel/optim/configured_options.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/param_groups.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kSgd[] = "optimizer { sgd { lr: 0.1 } } ";

std::vector<NamedTensor> Params(const std::vector<std::string>& names) {
  std::vector<NamedTensor> params;
  for (const std::string& name : names) {
    params.push_back({name, ops::ones({2}).requires_grad_()});
  }
  return params;
}

std::unique_ptr<OptimWrapper> Make(const std::string& text,
                                   const std::vector<std::string>& names = {
                                       "a", "b"}) {
  OptimWrapperConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
  auto wrapper = OptimWrapper::Create(config, Params(names));
  EXPECT_THAT(wrapper, IsOk());
  return *std::move(wrapper);
}

std::string Rule(const std::string& pattern, const std::string& mult) {
  return absl::StrCat("paramwise_cfg { rules { pattern: '", pattern,
                      "' lr_mult: ", mult, " } } ");
}

std::vector<double> Lrs(OptimWrapper& wrapper) {
  std::vector<double> lrs;
  ParamGroups& groups = wrapper.scheduled_groups();
  for (int i = 0; i < groups.num_groups(); ++i) {
    lrs.push_back(*groups.option(i, "lr"));
  }
  return lrs;
}

// As a schedule or a hook does.
void Move(OptimWrapper& wrapper, double factor) {
  ParamGroups& groups = wrapper.scheduled_groups();
  for (int i = 0; i < groups.num_groups(); ++i) {
    *groups.option(i, "lr") *= factor;
  }
}

struct Loaded {
  RestoredOptions options;
  std::vector<std::string> notes;
};

Loaded Load(OptimWrapper& from, OptimWrapper& to,
            bool without_configured = false) {
  OptimWrapperState state;
  TensorMap tensors, gradients;
  EXPECT_THAT(from.SaveState(&state, &tensors, &gradients), IsOk());
  if (without_configured) {
    state.clear_base_configured();
    for (auto& group : *state.mutable_optimizer()->mutable_groups()) {
      group.clear_configured();
    }
  }
  Loaded loaded;
  EXPECT_THAT(
      to.LoadState(state, tensors, gradients, &loaded.options, &loaded.notes),
      IsOk());
  return loaded;
}

TEST(ConfiguredOptionsTest, WhatIsConfiguredAsItWasKeepsItsBits) {
  auto before = Make(absl::StrCat(kSgd, Rule("a", "0.5")));
  Move(*before, 1.0 / 3);
  auto after = Make(absl::StrCat(kSgd, Rule("a", "0.5")));
  const Loaded loaded = Load(*before, *after);
  EXPECT_EQ(Lrs(*after), Lrs(*before));
  EXPECT_THAT(loaded.options.reset, IsEmpty());
  EXPECT_THAT(loaded.notes, IsEmpty());
}

// The same groups the other way round, since b comes first.
TEST(ConfiguredOptionsTest, GroupsAreFoundByTheirParameters) {
  auto before = Make(absl::StrCat(kSgd, Rule("a", "0.5")));
  Move(*before, 0.5);
  EXPECT_THAT(Lrs(*before), ElementsAre(0.025, 0.05, 0.05));
  auto after = Make(absl::StrCat(kSgd, Rule("a", "0.5")), {"b", "a"});
  const Loaded loaded = Load(*before, *after);
  EXPECT_THAT(Lrs(*after), ElementsAre(0.05, 0.025, 0.05));
  EXPECT_THAT(loaded.notes, IsEmpty());
}

TEST(ConfiguredOptionsTest, AGroupThatIsConfiguredOtherwiseIsReset) {
  auto before = Make(absl::StrCat(kSgd, Rule("a", "0")));
  Move(*before, 0.5);
  auto after = Make(absl::StrCat(kSgd, Rule("a", "0.25")));
  const Loaded loaded = Load(*before, *after);
  EXPECT_THAT(Lrs(*after), ElementsAre(0.025, 0.05, 0.05));
  EXPECT_THAT(loaded.options.reset,
              ElementsAre(after->scheduled_groups().option(0, "lr")));
  EXPECT_THAT(loaded.notes, ElementsAre("lr of group 0 (\"a\"): 0 -> 0.025"));
}

TEST(ConfiguredOptionsTest, AGroupThatIsSplitKeepsWhatStays) {
  auto before = Make(kSgd);
  Move(*before, 0.5);
  auto after = Make(absl::StrCat(kSgd, Rule("a", "0.5")));
  const Loaded loaded = Load(*before, *after);
  // The one group was the base group too.
  EXPECT_THAT(Lrs(*after), ElementsAre(0.05, 0.05, 0.05));
  EXPECT_THAT(loaded.options.reset,
              Not(Contains(after->scheduled_groups().option(2, "lr"))));
  EXPECT_THAT(loaded.options.reset,
              Not(Contains(after->scheduled_groups().option(1, "lr"))));
  EXPECT_THAT(loaded.notes, ElementsAre("lr of group 0 (\"a\"): 0.1 -> 0.05"));
}

TEST(ConfiguredOptionsTest, GroupsThatAreJoinedHaveOneValueAgain) {
  auto before = Make(absl::StrCat(kSgd, Rule("a", "0.5")));
  Move(*before, 0.5);
  auto after = Make(kSgd);
  const Loaded loaded = Load(*before, *after);
  EXPECT_THAT(Lrs(*after), ElementsAre(0.1));
  EXPECT_THAT(loaded.notes, ElementsAre("lr: 0.05 and 0.1 -> 0.1"));

  // Of one rate, and moved apart by a hook.
  auto apart = Make(absl::StrCat(kSgd,
                                 "paramwise_cfg { rules { pattern: 'a' "
                                 "decay_mult: 0.5 } } "));
  *apart->scheduled_groups().option(0, "lr") = 0.07;
  auto joined = Make(kSgd);
  const Loaded again = Load(*apart, *joined);
  EXPECT_THAT(Lrs(*joined), ElementsAre(0.1));
  EXPECT_THAT(again.notes, ElementsAre("lr: 0.07 and 0.1 -> 0.1"));
}

// Of a rule, as of the optimizer itself.
TEST(ConfiguredOptionsTest, OptionsOfAGroupOfItsOwnGoOnAsOthers) {
  const auto config = [](const std::string& option) {
    return absl::StrCat(kSgd, "paramwise_cfg { rules { pattern: 'a' ", option,
                        " } } ");
  };
  auto before = Make(config("lr: 0.4"));
  Move(*before, 0.5);
  EXPECT_THAT(Lrs(*before), ElementsAre(0.2, 0.05, 0.05));

  auto same = Make(config("lr: 0.4"));
  EXPECT_THAT(Load(*before, *same).notes, IsEmpty());
  EXPECT_THAT(Lrs(*same), ElementsAre(0.2, 0.05, 0.05));

  // The same rate, said otherwise.
  auto by_mult = Make(config("lr_mult: 4"));
  EXPECT_THAT(Load(*before, *by_mult).notes, IsEmpty());

  auto other = Make(config("lr: 0.8"));
  const Loaded loaded = Load(*before, *other);
  EXPECT_THAT(Lrs(*other), ElementsAre(0.8, 0.05, 0.05));
  EXPECT_THAT(loaded.options.reset,
              ElementsAre(other->scheduled_groups().option(0, "lr")));
  EXPECT_THAT(loaded.notes, ElementsAre("lr of group 0 (\"a\"): 0.4 -> 0.8"));

  auto decayed = Make(config("weight_decay: 0.1 lr: 0.4"));
  const Loaded again = Load(*before, *decayed);
  EXPECT_THAT(Lrs(*decayed), ElementsAre(0.2, 0.05, 0.05));
  EXPECT_THAT(again.notes,
              ElementsAre("weight_decay of group 0 (\"a\"): 0 -> 0.1"));
}

TEST(ConfiguredOptionsTest, ScalingIsPartOfWhatIsConfigured) {
  auto before = Make(kSgd);
  ASSERT_THAT(before->ScaleLr(2), IsOk());
  Move(*before, 0.5);
  auto same = Make("optimizer { sgd { lr: 0.2 } }");
  EXPECT_THAT(Load(*before, *same).notes, IsEmpty());
  EXPECT_THAT(Lrs(*same), ElementsAre(0.1));
  auto other = Make(kSgd);
  ASSERT_THAT(other->ScaleLr(4), IsOk());
  EXPECT_THAT(Load(*before, *other).notes, ElementsAre("lr: 0.2 -> 0.4"));
  EXPECT_THAT(Lrs(*other), ElementsAre(0.4));
}

TEST(ConfiguredOptionsTest, ParametersComeAndGo) {
  auto before = Make(kSgd, {"a", "b"});
  Move(*before, 0.5);
  auto after = Make(kSgd, {"b", "c", "d"});
  const Loaded loaded = Load(*before, *after);
  // New ones are in a group that goes on.
  EXPECT_THAT(Lrs(*after), ElementsAre(0.05));
  EXPECT_THAT(loaded.notes,
              ElementsAre("2 parameters came; 1 parameters went"));
  // In a group of their own they have what a schedule makes of it.
  auto apart = Make(absl::StrCat(kSgd, Rule("c", "0.5")), {"a", "b", "c"});
  const Loaded again = Load(*before, *apart);
  EXPECT_THAT(Lrs(*apart), ElementsAre(0.05, 0.05, 0.05));
  EXPECT_THAT(again.options.reset,
              Contains(apart->scheduled_groups().option(1, "lr")));
  EXPECT_THAT(again.options.reset,
              Not(Contains(apart->scheduled_groups().option(0, "lr"))));
}

TEST(ConfiguredOptionsTest, OptionsComeAndGo) {
  auto before = Make(kSgd);
  auto after = Make("optimizer { sgd { lr: 0.1 momentum: 0.9 } }");
  EXPECT_THAT(Load(*before, *after).notes,
              ElementsAre("dampening: none -> 0; momentum: none -> 0.9"));
  auto again = Make(kSgd);
  EXPECT_THAT(Load(*after, *again).notes, SizeIs(1));
  EXPECT_EQ(again->scheduled_groups().option(0, "momentum"), nullptr);
}

TEST(ConfiguredOptionsTest, WithoutKnowingWhatWasConfiguredValuesStay) {
  auto before = Make(absl::StrCat(kSgd, Rule("a", "0.5")));
  Move(*before, 0.5);
  auto after =
      Make(absl::StrCat("optimizer { sgd { lr: 0.3 } } ", Rule("a", "0.5")));
  const Loaded loaded = Load(*before, *after, /*without_configured=*/true);
  EXPECT_EQ(Lrs(*after), Lrs(*before));
  EXPECT_FALSE(loaded.options.configured_known);
  EXPECT_THAT(loaded.notes, SizeIs(1));
}

}  // namespace
}  // namespace grapnel
