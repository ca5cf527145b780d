#include "grapnel/tools/verify_resume/run_difference.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/message_hub.pb.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/tools/verify_resume/resume_trace.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::Pair;
using ::testing::SizeIs;

// ------------------------------------------------------------------- traces

TraceEvent Start() { return {trace::kStart, 0, 0, 0, {}}; }

TraceEvent Iteration(int64_t iter, const std::string& loss,
                     const std::string& weights) {
  return {trace::kAfterIter,
          iter,
          0,
          0,
          {{"log/loss", loss}, {trace_field::kWeights, weights}}};
}

TEST(CompareTracesTest, ARunInSeveralProcessesIsEqual) {
  const std::vector<TraceEvent> whole = {Start(),
                                         Iteration(1, "3", "a"),
                                         Iteration(2, "2", "b"),
                                         {trace::kBeforeSave, 2, 0, 5, {}},
                                         Iteration(3, "1", "c")};
  // Saves aren't compared: a resumed run has those after it alone.
  const std::vector<TraceEvent> parts = {
      Start(), Iteration(1, "3", "a"), Iteration(2, "2", "b"),
      Start(), Iteration(2, "2", "b"), Iteration(3, "1", "c")};
  EXPECT_THAT(CompareTraces(whole, parts), IsEmpty());
}

TEST(CompareTracesTest, NamesWhatDiffersAndInWhichProcess) {
  const std::vector<TraceEvent> whole = {Start(), Iteration(1, "3", "a"),
                                         Iteration(2, "2", "b")};
  const std::vector<TraceEvent> parts = {Start(), Iteration(1, "3", "a"),
                                         Start(), Iteration(2, "2.5", "x")};
  const auto differences = CompareTraces(whole, parts);
  ASSERT_THAT(differences, SizeIs(2));
  EXPECT_EQ(differences[0].item, "\"loss\" of the training step");
  EXPECT_EQ(differences[0].where, "at the end of iteration 2");
  EXPECT_EQ(differences[0].expected, "2");
  EXPECT_EQ(differences[0].actual, "2.5");
  EXPECT_THAT(differences[0].max_abs, Optional(0.5));
  EXPECT_EQ(differences[0].process, 1);
  EXPECT_EQ(differences[1].item, "the weights");
  EXPECT_EQ(differences[1].expected, "");  // A digest.
}

TEST(CompareTracesTest, NamesWhatCameInOneRunOnly) {
  const std::vector<TraceEvent> shorter = {Start(), Iteration(1, "3", "a")};
  const std::vector<TraceEvent> longer = {Start(), Iteration(1, "3", "a"),
                                          Iteration(2, "2", "b")};
  const auto missing = CompareTraces(longer, shorter);
  ASSERT_THAT(missing, SizeIs(1));
  EXPECT_EQ(missing[0].iter, 2);
  EXPECT_EQ(missing[0].expected, "yes");
  EXPECT_EQ(missing[0].actual, "no");
  const auto extra = CompareTraces(shorter, longer);
  ASSERT_THAT(extra, SizeIs(1));
  EXPECT_EQ(extra[0].iter, 2);
  EXPECT_EQ(extra[0].actual, "yes");
}

TEST(CompareTracesTest, LibTorchsDefaultGeneratorIsNoPartOfARun) {
  const std::vector<TraceEvent> a = {
      {trace::kBeforeIter, 1, 0, 0, {{trace_field::kDefaultGenerator, "1"}}}};
  const std::vector<TraceEvent> b = {
      {trace::kBeforeIter, 1, 0, 0, {{trace_field::kDefaultGenerator, "2"}}}};
  EXPECT_THAT(CompareTraces(a, b), IsEmpty());
}

// ------------------------------------------------------------------ records

std::vector<std::pair<std::string, std::string>> Parsed(
    const std::string& line) {
  const auto record = ParseRecord(line);
  EXPECT_THAT(record, IsOk());
  return record.ok() ? *record
                     : std::vector<std::pair<std::string, std::string>>();
}

TEST(ParseRecordTest, KeepsValuesAsTheyStand) {
  EXPECT_THAT(
      Parsed(
          R"({"lr": 1e-05, "loss": NaN, "a,\"b": [1, {"c": 2}], "t": "x, y"})"),
      ElementsAre(Pair("lr", "1e-05"), Pair("loss", "NaN"),
                  Pair("a,\\\"b", "[1, {\"c\": 2}]"), Pair("t", "\"x, y\"")));
  EXPECT_THAT(Parsed("{}"), IsEmpty());
}

TEST(ParseRecordTest, RefusesWhatIsNone) {
  for (const char* line : {"", "{", R"({"a": 1)", R"({"a"})", "{a: 1}"}) {
    EXPECT_THAT(
        ParseRecord(line).status(),
        StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is no record")))
        << line;
  }
}

std::string RecordOf(int iter, const std::string& loss, double time) {
  return absl::StrCat("{\"loss\": ", loss, ", \"time\": ", time,
                      ", \"iter\": ", iter, ", \"step\": ", iter, "}");
}

TEST(CompareRecordsTest, TimesMayDifferAndLinesBeThereTwice) {
  const auto differences =
      CompareRecords({RecordOf(1, "3", 1), RecordOf(2, "NaN", 2)},
                     {{RecordOf(1, "3", 8), RecordOf(2, "NaN", 7), "{\"loss"},
                      {RecordOf(2, "NaN", 4)}});
  ASSERT_THAT(differences, IsOk());
  EXPECT_THAT(*differences, IsEmpty());
}

TEST(CompareRecordsTest, NamesTheField) {
  const auto differences = CompareRecords(
      {RecordOf(1, "3", 1), RecordOf(2, "2", 1), "{\"acc\": 0.5}"},
      {{RecordOf(1, "3", 1)}, {RecordOf(2, "2.25", 1), "{\"acc\": 0.25}"}});
  ASSERT_THAT(differences, IsOk());
  ASSERT_THAT(*differences, SizeIs(2));
  EXPECT_EQ((*differences)[0].item, "the record \"loss\"");
  EXPECT_EQ((*differences)[0].where, "of iteration 2");
  EXPECT_THAT((*differences)[0].max_abs, Optional(0.25));
  EXPECT_EQ((*differences)[0].process, 1);
  // A validation's stands behind those of its epoch.
  EXPECT_EQ((*differences)[1].item, "the record \"acc\"");
  EXPECT_EQ((*differences)[1].iter, 2);
}

TEST(CompareRecordsTest, NamesOneThatIsMissingOrNew) {
  const auto missing = CompareRecords(
      {RecordOf(1, "3", 1), RecordOf(2, "2", 1)}, {{RecordOf(1, "3", 1)}});
  ASSERT_THAT(missing, IsOk());
  ASSERT_THAT(*missing, SizeIs(1));
  EXPECT_EQ((*missing)[0].actual, "none");
  const auto extra = CompareRecords(
      {RecordOf(1, "3", 1)}, {{RecordOf(1, "3", 1), RecordOf(2, "2", 1)}});
  ASSERT_THAT(extra, IsOk());
  ASSERT_THAT(*extra, SizeIs(1));
  EXPECT_EQ((*extra)[0].expected, "none");
}

// -------------------------------------------------------------- checkpoints

struct Checkpoint {
  TensorMap model;
  runner::v1::RunState state;
  int64_t iter = 8;

  io::CheckpointContents Contents() const {
    io::CheckpointContents contents;
    contents.sections.emplace_back("model", model);
    contents.blobs.emplace_back("state", state.SerializeAsString());
    contents.manifest().mutable_progress()->set_iter(iter);
    return contents;
  }
};

Checkpoint NewCheckpoint() {
  Checkpoint checkpoint;
  EXPECT_THAT(checkpoint.model.Add("a", ops::zeros({2})), IsOk());
  EXPECT_THAT(checkpoint.model.Add("b", ops::zeros({2})), IsOk());
  checkpoint.state.add_hooks()->set_name("counter");
  auto* const hub = checkpoint.state.mutable_message_hub();
  for (const char* name : {"train/loss", "train/time"}) {
    auto* const scalar = hub->add_scalars();
    scalar->set_name(name);
    scalar->add_values(1);
  }
  (*hub->mutable_infos())["epoch"].set_int_value(3);
  (*hub->mutable_infos())["eta"].set_double_value(1);
  return checkpoint;
}

std::vector<std::string> Items(const Checkpoint& a, const Checkpoint& b) {
  const auto differences = CompareCheckpoints(a.Contents(), b.Contents());
  EXPECT_THAT(differences, IsOk());
  std::vector<std::string> items;
  if (!differences.ok()) return items;
  for (const RunDifference& difference : *differences) {
    items.push_back(difference.item);
  }
  return items;
}

TEST(CompareCheckpointsTest, TheClockIsNotCompared) {
  Checkpoint other = NewCheckpoint();
  auto* const hub = other.state.mutable_message_hub();
  hub->mutable_scalars(1)->set_values(0, 5);
  (*hub->mutable_infos())["eta"].set_double_value(9);
  (*hub->mutable_infos())["experiment_name"].set_string_value("x");
  EXPECT_THAT(Items(NewCheckpoint(), other), IsEmpty());
}

TEST(CompareCheckpointsTest, NamesTheFirstTensorAndHowMany) {
  Checkpoint other = NewCheckpoint();
  other.model = TensorMap();
  EXPECT_THAT(other.model.Add("a", ops::full({2}, 0.5)), IsOk());
  EXPECT_THAT(other.model.Add("b", ops::full({2}, -2)), IsOk());
  const auto differences =
      CompareCheckpoints(NewCheckpoint().Contents(), other.Contents());
  ASSERT_THAT(differences, IsOk());
  ASSERT_THAT(*differences, SizeIs(1));
  EXPECT_EQ((*differences)[0].item,
            "section \"model\": tensor \"a\" and 1 more of 2");
  EXPECT_THAT((*differences)[0].max_abs, Optional(2));
}

TEST(CompareCheckpointsTest, NamesThePartOfTheState) {
  Checkpoint other = NewCheckpoint();
  other.state.mutable_hooks(0)->set_bytes("9");
  auto* const hub = other.state.mutable_message_hub();
  hub->mutable_scalars(0)->set_values(0, 5);
  (*hub->mutable_infos())["epoch"].set_int_value(4);
  (*hub->mutable_infos())["new"].set_int_value(4);
  other.state.mutable_rng()->set_cpu("x");
  other.state.add_ranks();
  other.iter = 9;
  EXPECT_THAT(
      Items(NewCheckpoint(), other),
      ElementsAre(
          "the state of the run's generator",
          HasSubstr("the saved state of hook \"counter\""),
          HasSubstr("the message hub's scalar \"train/loss\" (modified"),
          HasSubstr("the message hub's info \"epoch\""),
          "the message hub's info \"new\", which is new",
          HasSubstr("the rest of the state"), HasSubstr("the progress")));
}

TEST(InOrderTest, IsByIterationWithTheCheckpointLastAndEachItemOnce) {
  using Source = RunDifference::Source;
  const auto difference = [](Source source, int64_t iter,
                             const std::string& item) {
    RunDifference made;
    made.source = source;
    made.iter = iter;
    made.item = item;
    return made;
  };
  std::vector<std::string> items;
  for (const RunDifference& one :
       InOrder({difference(Source::kCheckpoint, 1, "model"),
                difference(Source::kTrace, 9, "weights"),
                difference(Source::kRecord, 4, "loss"),
                difference(Source::kTrace, 4, "weights")})) {
    items.push_back(absl::StrCat(one.item, one.iter));
  }
  EXPECT_THAT(items, ElementsAre("weights4", "loss4", "model1"));
}

}  // namespace
}  // namespace grapnel
