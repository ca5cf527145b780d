#include "grapnel/runner/section_weights.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;

// Of one element each, with that value.
void AddSection(const std::string& section,
                const std::vector<std::string>& names, double value,
                io::CheckpointContents* contents) {
  TensorMap tensors;
  for (const std::string& name : names) {
    ASSERT_THAT(tensors.Add(name, ops::full({}, value)), IsOk());
  }
  contents->sections.emplace_back(section, tensors);
}

std::vector<std::string> NamesAndValues(
    const absl::StatusOr<TensorMap>& weights) {
  std::vector<std::string> all;
  EXPECT_THAT(weights.status(), IsOk());
  if (!weights.ok()) return all;
  for (const NamedTensor& named : *weights) {
    all.push_back(absl::StrCat(named.name, " ", named.tensor.item<double>()));
  }
  return all;
}

TEST(SectionWeightsTest, WhatAnAverageLacksAreTheModels) {
  io::CheckpointContents contents;
  AddSection("model", {"weight", "count", "bias"}, 1, &contents);
  AddSection("ema", {"bias", "weight"}, 2, &contents);
  AddSection("more", {"other", "bias"}, 3, &contents);
  EXPECT_THAT(NamesAndValues(SectionWeights(contents, "model")),
              ElementsAre("weight 1", "count 1", "bias 1"));
  EXPECT_THAT(NamesAndValues(SectionWeights(contents, "ema")),
              ElementsAre("weight 2", "count 1", "bias 2"));
  EXPECT_THAT(NamesAndValues(SectionWeights(contents, "more")),
              ElementsAre("weight 1", "count 1", "bias 3", "other 3"));
  EXPECT_THAT(SectionWeights(contents, "swa").status(),
              StatusIs(absl::StatusCode::kNotFound, "has no section \"swa\""));
}

TEST(SectionWeightsTest, AnAverageAloneIsAllThereIs) {
  io::CheckpointContents contents;
  AddSection("ema", {"bias", "weight"}, 2, &contents);
  EXPECT_THAT(NamesAndValues(SectionWeights(contents, "ema")),
              ElementsAre("bias 2", "weight 2"));
}

TEST(SectionWeightsTest, EvaluatedIsWhatTheManifestSaysIfItIsThere) {
  io::CheckpointContents contents;
  AddSection("model", {"weight"}, 1, &contents);
  EXPECT_EQ(EvaluatedSection(contents).value_or("?"), "model");
  AddSection("ema", {"weight"}, 2, &contents);
  EXPECT_EQ(EvaluatedSection(contents).value_or("?"), "ema");
  AddSection("ema_2", {"weight"}, 3, &contents);
  EXPECT_THAT(EvaluatedSection(contents).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "doesn't say which of its averages is evaluated: ema, "
                       "ema_2"));
  contents.manifest().set_evaluated_section("");
  EXPECT_EQ(EvaluatedSection(contents).value_or("?"), "model");
  contents.manifest().set_evaluated_section("ema");
  EXPECT_EQ(EvaluatedSection(contents).value_or("?"), "ema");
  contents.manifest().set_evaluated_section("gone");
  EXPECT_EQ(EvaluatedSection(contents).value_or("?"), "model");
}

}  // namespace
}  // namespace grapnel
