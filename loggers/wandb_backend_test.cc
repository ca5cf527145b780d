#include "grapnel/loggers/wandb_backend.h"

#include <zlib.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/visualizer.pb.h"
#include "grapnel/loggers/wandb_record.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using loggers::wandb::Item;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using ::testing::ValuesIn;
using WandbRecord = loggers::wandb::Record;

constexpr char kDir[] = "run/vis_data/wandb/offline-run-20260102_030405-id7";

WandbBackend::Config Parse(const std::string& text) {
  WandbBackend::Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

// What stands in a .wandb file; fails if it isn't a whole one.
std::vector<WandbRecord> ReadRecords(const std::string& content) {
  std::vector<WandbRecord> records;
  EXPECT_EQ(content.substr(0, 7), std::string(":W&B\xe1\xbe\0", 7));
  const auto byte = [&content](size_t i) {
    return static_cast<unsigned char>(content.at(i));
  };
  std::string data;
  size_t at = 7;
  while (at < content.size()) {
    const size_t left = 32768 - at % 32768;
    if (left < 7) {
      EXPECT_EQ(content.substr(at, left), std::string(left, '\0'));
      at += left;
      continue;
    }
    const size_t size = byte(at + 4) + 256 * byte(at + 5);
    const int type = byte(at + 6);
    const std::string part = content.substr(at + 7, size);
    EXPECT_LE(7 + size, left);
    const uLong crc = byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16 |
                      static_cast<uLong>(byte(at + 3)) << 24;
    EXPECT_EQ(::crc32(0, reinterpret_cast<const Bytef*>(&content[at + 6]),
                      static_cast<uInt>(1 + size)),
              crc);
    EXPECT_EQ(data.empty(), type == 1 || type == 2) << type;
    data += part;
    at += 7 + size;
    if (type == 2 || type == 3) continue;
    records.emplace_back();
    EXPECT_TRUE(records.back().ParseFromString(data));
    EXPECT_EQ(records.back().num(), static_cast<int64_t>(records.size()));
    data.clear();
  }
  EXPECT_EQ(data, "");
  return records;
}

std::map<std::string, std::string> ToMap(
    const google::protobuf::RepeatedPtrField<Item>& items) {
  std::map<std::string, std::string> map;
  for (const Item& item : items) {
    EXPECT_EQ(item.nested_key_size(), 1);
    map[item.nested_key(0)] = item.value_json();
  }
  return map;
}

// That wandb itself reads and uploads these files is for
// tests/interop:wandb_sync_test to say.
class WandbBackendTest : public testing::Test {
 protected:
  WandbBackendTest() {
    options_.log_dir = "run";
    options_.timestamp = "20260102_030405";
    options_.experiment_name = "digits_20260102_030405";
    options_.env = &env_;
    options_.clock = &clock_;
  }

  std::unique_ptr<LogBackend> New(const std::string& config) {
    auto backend = WandbBackend::Create(Parse(config), options_);
    EXPECT_THAT(backend, IsOk());
    return *std::move(backend);
  }

  std::vector<WandbRecord> Records() {
    auto content = io::ReadFile(env_, absl::StrCat(kDir, "/run-id7.wandb"));
    EXPECT_THAT(content, IsOk());
    return ReadRecords(content.value_or(""));
  }

  io::MemEnv env_;
  FakeClock clock_;
  LogBackendOptions options_;
};

TEST_F(WandbBackendTest, TheRunIsWhatTheConfigSays) {
  options_.config_fields = {{"train_cfg", "{\"max_epochs\": 20}"},
                            {"x", "\"y\""}};
  auto backend =
      New("run_id: 'id7' project: 'p' entity: 'e' name: 'n' group: 'g' "
          "job_type: 'j' tags: 'a' tags: 'b' notes: 'l1\\nl2'");
  ASSERT_THAT(backend->WriteConfig("train_cfg { max_epochs: 20 }\nx: 'y'\n"),
              IsOk());
  // At once: the first row may be far off.
  const std::vector<WandbRecord> records = Records();
  ASSERT_THAT(records, SizeIs(3));
  EXPECT_EQ(records[0].header().version_info().producer(), "grapnel");
  const auto& run = records[1].run();
  EXPECT_EQ(run.run_id(), "id7");
  EXPECT_EQ(run.project(), "p");
  EXPECT_EQ(run.entity(), "e");
  EXPECT_EQ(run.display_name(), "n");
  EXPECT_EQ(run.run_group(), "g");
  EXPECT_EQ(run.job_type(), "j");
  EXPECT_THAT(run.tags(), ElementsAre("a", "b"));
  EXPECT_EQ(run.notes(), "l1\nl2");
  EXPECT_EQ(run.start_time().seconds(), absl::ToUnixSeconds(clock_.wall));
  EXPECT_THAT(ToMap(run.config().update()),
              UnorderedElementsAre(Pair("train_cfg", "{\"max_epochs\": 20}"),
                                   Pair("x", "\"y\"")));
  ASSERT_EQ(records[2].files().files_size(), 1);
  EXPECT_EQ(records[2].files().files(0).path(), "config.textproto");
  EXPECT_EQ(
      io::ReadFile(env_, absl::StrCat(kDir, "/files/config.textproto")).value(),
      "train_cfg { max_epochs: 20 }\nx: 'y'\n");
}

TEST_F(WandbBackendTest, DefaultsAreTheExperimentsNameAndARandomId) {
  for (int i = 0; i < 2; ++i) {
    auto backend = New("");
    ASSERT_THAT(backend->WriteConfig("x: 1"), IsOk());
    ASSERT_THAT(backend->Close(), IsOk());
  }
  auto dirs = env_.ListDir("run/vis_data/wandb");
  ASSERT_THAT(dirs, IsOk());
  ASSERT_THAT(*dirs, SizeIs(2));  // Two ids.
  for (const std::string& dir : *dirs) {
    EXPECT_THAT(dir, MatchesRegex("offline-run-20260102_030405-[a-z0-9]{8}"));
    const std::string id = dir.substr(dir.rfind('-') + 1);
    auto content = io::ReadFile(
        env_, absl::StrCat("run/vis_data/wandb/", dir, "/run-", id, ".wandb"));
    ASSERT_THAT(content, IsOk());
    const auto run = ReadRecords(*content)[1].run();
    EXPECT_EQ(run.run_id(), id);
    EXPECT_EQ(run.project(), "uncategorized");
    EXPECT_EQ(run.display_name(), "digits_20260102_030405");
    EXPECT_EQ(run.entity(), "");
  }
}

TEST_F(WandbBackendTest, RecordsAreRows) {
  auto backend = New("run_id: 'id7'");
  ASSERT_THAT(
      backend->WriteRecord(
          {Record::Kind::kTrain, {{"loss", 0.1}, {"epoch", int64_t{1}}}, 10}),
      IsOk());
  clock_.wall += absl::Milliseconds(2500);
  // A validation's step is its epoch: less than the iteration before.
  ASSERT_THAT(
      backend->WriteRecord(
          {Record::Kind::kVal, {{"acc", std::nan("")}, {"\xff", 1.0}}, 1}),
      IsOk());
  ASSERT_THAT(
      backend->WriteRecord({Record::Kind::kTest, {{"acc", -INFINITY}}, 5}),
      IsOk());
  ASSERT_THAT(backend->Close(), IsOk());

  const std::vector<WandbRecord> records = Records();
  ASSERT_THAT(records, SizeIs(2 + 3 * 2 + 1));
  auto row = ToMap(records[2].history().item());
  double timestamp;
  ASSERT_TRUE(absl::SimpleAtod(row["_timestamp"], &timestamp));
  EXPECT_EQ(timestamp, absl::ToUnixSeconds(clock_.wall) - 2);
  EXPECT_THAT(ToMap(records[3].summary().update()), row);
  row.erase("_timestamp");
  EXPECT_THAT(row, UnorderedElementsAre(Pair("loss", "0.1"), Pair("epoch", "1"),
                                        Pair("step", "10"), Pair("_step", "0"),
                                        Pair("_runtime", "0.0")));
  EXPECT_EQ(records[2].history().step().num(), 0);
  row = ToMap(records[4].history().item());
  EXPECT_EQ(row["acc"], "NaN");
  EXPECT_EQ(row.count("\\xff"), 1u);
  EXPECT_EQ(row["step"], "1");
  EXPECT_EQ(row["_step"], "1");
  EXPECT_EQ(row["_runtime"], "2.5");
  EXPECT_EQ(records[4].history().step().num(), 1);
  row = ToMap(records[6].history().item());
  EXPECT_EQ(row["acc"], "-Infinity");
  EXPECT_EQ(row.count("step"), 0u);
  EXPECT_EQ(row.count("loss"), 0u);
  EXPECT_EQ(records[6].history().step().num(), 2);
  EXPECT_TRUE(records[8].has_exit());
  EXPECT_EQ(records[8].exit().exit_code(), 0);
  EXPECT_EQ(records[8].exit().runtime(), 2);
}

TEST_F(WandbBackendTest, ARowIsWithTheSystemAtOnceAndARunThatCrashedHasNoExit) {
  auto backend = New("run_id: 'id7'");
  ASSERT_THAT(backend->WriteRecord({Record::Kind::kTrain, {{"a", 1.0}}, 1}),
              IsOk());
  const std::vector<WandbRecord> records = Records();
  ASSERT_THAT(records, SizeIs(4));
  EXPECT_EQ(ToMap(records[3].summary().update()).at("a"), "1.0");
}

// A block is 32768 bytes. Records of every size near what is left of one, and
// longer ones, come back whole.
TEST_F(WandbBackendTest, RecordsLieAcrossBlocks) {
  const std::string big(70000, 'x');
  options_.config_fields = {{"notes", absl::StrCat("\"", big, "\"")}};
  auto backend = New("run_id: 'id7'");
  ASSERT_THAT(backend->WriteConfig("notes: '...'"), IsOk());
  std::vector<std::string> names;
  for (int i = 0; i < 3000; ++i) {
    names.emplace_back(1 + i % 97, 'n');
    ASSERT_THAT(
        backend->WriteRecord({Record::Kind::kTrain, {{names.back(), 1.0}}, i}),
        IsOk());
  }
  ASSERT_THAT(backend->Close(), IsOk());
  const std::vector<WandbRecord> records = Records();
  ASSERT_THAT(records, SizeIs(3 + 2 * 3000 + 1));
  EXPECT_EQ(ToMap(records[1].run().config().update()).at("notes"),
            absl::StrCat("\"", big, "\""));
  for (int i = 0; i < 3000; ++i) {
    const auto row = ToMap(records[3 + 2 * i].history().item());
    EXPECT_EQ(row.count(names[i]), 1u) << i;
    EXPECT_EQ(row.at("step"), absl::StrCat(i));
  }
}

TEST_F(WandbBackendTest, ARunThatEndedWithAnErrorHasFailed) {
  auto backend = New("run_id: 'id7'");
  ASSERT_THAT(backend->WriteConfig("seed: 1"), IsOk());
  backend->NoteOutcome(absl::OkStatus());
  backend->NoteOutcome(absl::OutOfRangeError("loss is nan"));
  ASSERT_THAT(backend->Close(), IsOk());
  EXPECT_EQ(Records().back().exit().exit_code(), 1);
}

TEST_F(WandbBackendTest, ARunThatIsThereIsNotOverwritten) {
  auto first = New("run_id: 'id7'");
  ASSERT_THAT(first->WriteConfig("seed: 1"), IsOk());
  const size_t records = Records().size();
  auto second = New("run_id: 'id7' name: 'second'");
  EXPECT_THAT(second->WriteConfig("seed: 2"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("-id7")));
  EXPECT_THAT(Records(), SizeIs(records));
}

TEST_F(WandbBackendTest, WithoutAnythingToSayThereIsNoRun) {
  auto backend = New("");
  EXPECT_THAT(backend->Close(), IsOk());
  EXPECT_FALSE(env_.FileExists("run"));
}

TEST_F(WandbBackendTest, AFullDiskIsAnError) {
  io::MemEnv full(/*capacity=*/5);
  options_.env = &full;
  auto backend = New("run_id: 'id7'");
  EXPECT_THAT(backend->WriteRecord({Record::Kind::kTrain, {{"a", 1.0}}, 1}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("run-id7.wandb")));
}

TEST_F(WandbBackendTest, IsRegistered) {
  loggers::v1::LogBackendConfig config;
  config.mutable_wandb();
  EXPECT_THAT(LogBackendRegistry::Create(config, options_), IsOk());
}

struct BadConfigCase {
  std::string name;
  std::string config;
  std::string message;
};

class WandbBadConfigTest : public WandbBackendTest,
                           public testing::WithParamInterface<BadConfigCase> {};

TEST_P(WandbBadConfigTest, IsRefusedByField) {
  EXPECT_THAT(WandbBackend::Create(Parse(GetParam().config), options_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::StartsWith(GetParam().message)));
}

const std::string& Long() {
  static const auto& text = *new std::string(129, 'x');
  return text;
}

INSTANTIATE_TEST_SUITE_P(
    , WandbBadConfigTest,
    ValuesIn<BadConfigCase>({
        {"EmptyProject", "project: ''", "project: must be 1..128 bytes"},
        {"SlashInProject", "project: 'a/b'",
         "project: must be 1..128 bytes without control characters and "
         "/\\#?%:, is \"a/b\""},
        {"LongProject", absl::StrCat("project: '", Long(), "'"), "project: "},
        {"ColonInEntity", "entity: 'a:b'", "entity: must be 1..128 bytes"},
        {"EmptyName", "name: ''", "name: must be 1..128 bytes"},
        {"LineInName", "name: 'a\\nb'", "name: must be 1..128 bytes"},
        {"BlankInRunId", "run_id: 'a b'",
         "run_id: must be 1..64 letters, digits, \"_\" and \"-\", is \"a b\""},
        {"EmptyRunId", "run_id: ''", "run_id: "},
        {"PathAsRunId", "run_id: '../x'", "run_id: "},
        {"LongRunId", absl::StrCat("run_id: '", Long().substr(64), "'"),
         "run_id: "},
        {"EmptyGroup", "group: ''", "group: "},
        {"LongJobType", absl::StrCat("job_type: '", Long(), "'"), "job_type: "},
        {"EmptyTag", "tags: 'a' tags: ''", "tags[1]: must be 1..64 bytes"},
        {"LongTag", absl::StrCat("tags: '", Long().substr(64), "'"),
         "tags[0]: "},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
