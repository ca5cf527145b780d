#include "grapnel/hooks/checkpoint/best_checkpoints.h"

#include <cmath>
#include <string>

#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr char kUuid[] = "0123456789abcdef";

BestCheckpointList List(double score) {
  BestCheckpointList best;
  auto* record = best.Add();
  record->set_indicator("accuracy/top1");
  record->set_score(score);
  record->set_name("best_accuracy_top1_epoch_5");
  return best;
}

TEST(BestCheckpointsTest, ReadsWhatWasWritten) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/w"), IsOk());
  for (const double score : {0.1, 1e-300, std::nextafter(0.3, 1), -2.0}) {
    ASSERT_THAT(WriteBestCheckpoints(env, "/w", kUuid, List(score)), IsOk());
    const auto best = ReadBestCheckpoints(env, "/w", kUuid);
    ASSERT_THAT(best, IsOk());
    ASSERT_EQ(best->size(), 1);
    EXPECT_EQ(best->Get(0).indicator(), "accuracy/top1");
    EXPECT_EQ(best->Get(0).score(), score);
    EXPECT_EQ(best->Get(0).name(), "best_accuracy_top1_epoch_5");
  }
}

TEST(BestCheckpointsTest, IsTextForPeople) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/w"), IsOk());
  ASSERT_THAT(WriteBestCheckpoints(env, "/w", kUuid, List(0.5)), IsOk());
  const auto text = io::ReadFile(env, "/w/best_checkpoints");
  ASSERT_THAT(text, IsOk());
  EXPECT_EQ(*text,
            "run_uuid: \"30313233343536373839616263646566\"\n"
            "best {\n"
            "  indicator: \"accuracy/top1\"\n"
            "  score: 0.5\n"
            "  name: \"best_accuracy_top1_epoch_5\"\n"
            "}\n");
}

TEST(BestCheckpointsTest, AnotherRunsIsNotFound) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/w"), IsOk());
  EXPECT_THAT(ReadBestCheckpoints(env, "/w", kUuid),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  ASSERT_THAT(WriteBestCheckpoints(env, "/w", kUuid, List(0.5)), IsOk());
  EXPECT_THAT(ReadBestCheckpoints(env, "/w", "another"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("/w/best_checkpoints: is of another run")));
}

TEST(BestCheckpointsTest, DamageIsDataLoss) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/w"), IsOk());
  for (const char* text : {"best { indicator: ", "score: 1", "\x01\x02"}) {
    ASSERT_THAT(io::WriteFileAtomically(env, "/w/best_checkpoints", text),
                IsOk());
    EXPECT_THAT(
        ReadBestCheckpoints(env, "/w", kUuid),
        StatusIs(absl::StatusCode::kDataLoss, HasSubstr("/w/best_checkpoints")))
        << text;
  }
}

}  // namespace
}  // namespace grapnel
