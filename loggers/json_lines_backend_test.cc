#include "grapnel/loggers/json_lines_backend.h"

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/visualizer.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr char kLine[] = "{\"loss\": 0.5, \"step\": 2}\n";

LogBackendOptions Options(io::Env* env) {
  LogBackendOptions options;
  options.log_dir = "run";
  options.timestamp = "20260821_025841";
  options.env = env;
  return options;
}

std::unique_ptr<LogBackend> NewBackend(io::Env* env) {
  auto backend = JsonLinesBackend::Create({}, Options(env));
  EXPECT_THAT(backend, IsOk());
  return *std::move(backend);
}

std::string Contents(io::Env& env, const std::string& path) {
  auto contents = io::ReadFile(env, path);
  EXPECT_THAT(contents, IsOk());
  return contents.value_or("");
}

Record TrainRecord() { return {Record::Kind::kTrain, {{"loss", 0.5}}, 2}; }

TEST(JsonLinesBackendTest, RecordsAreInBothFilesAtOnce) {
  io::MemEnv env;
  auto backend = NewBackend(&env);
  for (int i = 1; i <= 2; ++i) {
    ASSERT_THAT(backend->WriteRecord(TrainRecord()), IsOk());
    std::string expected;
    for (int line = 0; line < i; ++line) expected += kLine;
    EXPECT_EQ(Contents(env, "run/vis_data/20260821_025841.json"), expected);
    EXPECT_EQ(Contents(env, "run/vis_data/scalars.json"), expected);
  }
  EXPECT_THAT(backend->Close(), IsOk());
}

TEST(JsonLinesBackendTest, WritesTheConfig) {
  io::MemEnv env;
  auto backend = NewBackend(&env);
  ASSERT_THAT(backend->WriteConfig("work_dir: \"x\"\n"), IsOk());
  EXPECT_EQ(Contents(env, "run/vis_data/config.textproto"),
            "work_dir: \"x\"\n");
}

TEST(JsonLinesBackendTest, WithoutRecordsThereAreNoFiles) {
  io::MemEnv env;
  auto backend = NewBackend(&env);
  EXPECT_THAT(backend->Close(), IsOk());
  EXPECT_FALSE(env.FileExists("run"));
}

TEST(JsonLinesBackendTest, KeepsWhatARunOfTheSameSecondWrote) {
  io::MemEnv env;
  for (int run = 0; run < 2; ++run) {
    auto backend = NewBackend(&env);
    ASSERT_THAT(backend->WriteRecord(TrainRecord()), IsOk());
    ASSERT_THAT(backend->Close(), IsOk());
  }
  EXPECT_EQ(Contents(env, "run/vis_data/scalars.json"),
            std::string(kLine) + kLine);
}

TEST(JsonLinesBackendTest, AFullDiskIsAnError) {
  io::MemEnv env(/*capacity=*/10);
  auto backend = NewBackend(&env);
  EXPECT_THAT(backend->WriteRecord(TrainRecord()),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("20260821_025841.json")));
  EXPECT_THAT(NewBackend(&env)->WriteConfig("longer than what is free"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("config.textproto")));
}

TEST(JsonLinesBackendTest, AFileInPlaceOfTheFolderIsAnError) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("run"), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env, "run/vis_data", ""), IsOk());
  EXPECT_THAT(NewBackend(&env)->WriteRecord(TrainRecord()),
              testing::Not(IsOk()));
}

TEST(JsonLinesBackendTest, IsRegistered) {
  io::MemEnv env;
  loggers::v1::LogBackendConfig config;
  config.mutable_json_lines();
  EXPECT_THAT(LogBackendRegistry::Create(config, Options(&env)), IsOk());
}

}  // namespace
}  // namespace grapnel
