#include "grapnel/loggers/record_writer.h"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/loggers/visualizer.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string>& Calls() {
  static auto* calls = new std::vector<std::string>;
  return *calls;
}

// Fails at the call that its config names, and tells Calls() of each.
class FailingBackend : public LogBackend {
 public:
  using Config = google::protobuf::StringValue;

  static absl::StatusOr<std::unique_ptr<FailingBackend>> Create(
      const Config& config, const LogBackendOptions& options) {
    if (config.value() == "create") {
      return absl::InvalidArgumentError("value: must not be create");
    }
    auto backend = std::make_unique<FailingBackend>();
    backend->fails_at_ = config.value();
    return backend;
  }

  absl::Status WriteConfig(absl::string_view config) override {
    return Called("config", " " + std::string(config));
  }
  void NoteOutcome(const absl::Status& outcome) override {
    Called("outcome", " " + std::string(outcome.message())).IgnoreError();
  }
  absl::Status WriteRecord(const Record& record) override {
    return Called("record", "");
  }
  absl::Status Close() override { return Called("close", ""); }

 private:
  absl::Status Called(const std::string& what, const std::string& detail) {
    Calls().push_back(what + detail);
    if (what != fails_at_) return absl::OkStatus();
    return absl::ResourceExhaustedError("no space left on device");
  }

  std::string fails_at_;
};

GRAPNEL_REGISTER(LogBackendRegistry, FailingBackend);

// Throws at the calls whose bits its config has.
class ThrowingBackend : public LogBackend {
 public:
  using Config = google::protobuf::UInt32Value;
  enum At : uint32_t { kCreate = 1, kConfig = 2, kRecord = 4, kClose = 8 };

  static absl::StatusOr<std::unique_ptr<ThrowingBackend>> Create(
      const Config& config, const LogBackendOptions& options) {
    auto backend = std::make_unique<ThrowingBackend>();
    backend->throws_at_ = config.value();
    GRAPNEL_RETURN_IF_ERROR(backend->Called(kCreate));
    return backend;
  }

  absl::Status WriteConfig(absl::string_view config) override {
    return Called(kConfig);
  }
  absl::Status WriteRecord(const Record& record) override {
    return Called(kRecord);
  }
  absl::Status Close() override { return Called(kClose); }

 private:
  absl::Status Called(At at) const {
    if (throws_at_ & at) throw std::runtime_error("not of our making");
    return absl::OkStatus();
  }

  uint32_t throws_at_ = 0;
};

GRAPNEL_REGISTER(LogBackendRegistry, ThrowingBackend);

class RecordWriterTest : public testing::Test {
 protected:
  RecordWriterTest() { Calls().clear(); }

  absl::StatusOr<std::unique_ptr<RecordWriter>> Create(
      const std::vector<std::string>& fails_at) {
    loggers::v1::VisualizerConfig config;
    for (const std::string& value : fails_at) {
      google::protobuf::StringValue backend;
      backend.set_value(value);
      config.add_vis_backends()->mutable_custom()->PackFrom(backend);
    }
    LogBackendOptions options;
    options.log_dir = "run";
    options.timestamp = "t";
    options.env = &env_;
    return RecordWriter::Create(config, options, "seed: 1", log_);
  }

  absl::StatusOr<std::unique_ptr<RecordWriter>> CreateThrowing(uint32_t at) {
    loggers::v1::VisualizerConfig config;
    google::protobuf::UInt32Value throwing;
    throwing.set_value(at);
    config.add_vis_backends()->mutable_custom()->PackFrom(throwing);
    config.add_vis_backends()->mutable_custom()->PackFrom(
        google::protobuf::StringValue());
    LogBackendOptions options;
    options.env = &env_;
    return RecordWriter::Create(config, options, "seed: 1", log_);
  }

  std::vector<std::string> warnings() const {
    return log_.messages(RunLog::Level::kWarning);
  }

  io::MemEnv env_;
  MemoryRunLog log_;
};

TEST_F(RecordWriterTest, JsonLinesAreTheDefault) {
  auto writer = Create({});
  ASSERT_THAT(writer, IsOk());
  (*writer)->Write({Record::Kind::kVal, {{"acc", 0.5}}, 1});
  EXPECT_EQ(io::ReadFile(env_, "run/vis_data/scalars.json").value_or(""),
            "{\"acc\": 0.5, \"step\": 1}\n");
  EXPECT_EQ(io::ReadFile(env_, "run/vis_data/config.textproto").value_or(""),
            "seed: 1");
}

TEST_F(RecordWriterTest, EveryBackendGetsConfigRecordsAndClose) {
  auto writer = Create({"", "never"});
  ASSERT_THAT(writer, IsOk());
  (*writer)->Write({});
  (*writer)->NoteOutcome(absl::InternalError("why"));
  (*writer)->Close();
  (*writer)->Close();
  (*writer)->Write({});
  (*writer)->NoteOutcome(absl::OkStatus());
  EXPECT_THAT(Calls(), ElementsAre("config seed: 1", "config seed: 1", "record",
                                   "record", "outcome why", "outcome why",
                                   "close", "close"));
  EXPECT_THAT(warnings(), IsEmpty());
}

TEST_F(RecordWriterTest, ClosesWhenItGoes) {
  { auto writer = Create({""}); }
  EXPECT_THAT(Calls(), ElementsAre("config seed: 1", "close"));
}

TEST_F(RecordWriterTest, OneThatFailsIsOffAndTheOthersGoOn) {
  auto writer = Create({"record", ""});
  ASSERT_THAT(writer, IsOk());
  for (int i = 0; i < 3; ++i) (*writer)->Write({});
  (*writer)->Close();
  EXPECT_THAT(Calls(),
              ElementsAre("config seed: 1", "config seed: 1", "record", "close",
                          "record", "record", "record", "close"));
  EXPECT_THAT(warnings(),
              ElementsAre(AllOf(
                  HasSubstr("vis_backends[0] (google.protobuf.StringValue)"),
                  HasSubstr("no space left on device"))));
}

TEST_F(RecordWriterTest, OneThatCannotWriteTheConfigIsOff) {
  auto writer = Create({"config"});
  ASSERT_THAT(writer, IsOk());
  (*writer)->Write({});
  EXPECT_THAT(Calls(), ElementsAre("config seed: 1", "close"));
  EXPECT_THAT(warnings(), ElementsAre(HasSubstr("failed")));
}

TEST_F(RecordWriterTest, AFailureToCloseIsAWarning) {
  auto writer = Create({"close"});
  ASSERT_THAT(writer, IsOk());
  (*writer)->Close();
  EXPECT_THAT(warnings(), ElementsAre(HasSubstr("could not be closed")));
}

class RecordWriterThrowTest : public RecordWriterTest,
                              public testing::WithParamInterface<uint32_t> {};

TEST_P(RecordWriterThrowTest, HasFailedAndTheOthersGoOn) {
  {
    auto writer = CreateThrowing(GetParam());
    ASSERT_THAT(writer, IsOk());
    (*writer)->Write({});
    (*writer)->Write({});
  }
  EXPECT_THAT(Calls(),
              ElementsAre("config seed: 1", "record", "record", "close"));
  EXPECT_THAT(warnings(), ElementsAre(AllOf(HasSubstr("vis_backends[0]"),
                                            HasSubstr("not of our making"))));
}

INSTANTIATE_TEST_SUITE_P(
    At, RecordWriterThrowTest,
    testing::Values(ThrowingBackend::kConfig, ThrowingBackend::kRecord,
                    ThrowingBackend::kClose,
                    ThrowingBackend::kConfig | ThrowingBackend::kClose,
                    ThrowingBackend::kRecord | ThrowingBackend::kClose));

TEST_F(RecordWriterTest, OneThatThrowsWhenItIsMadeIsAnError) {
  EXPECT_THAT(CreateThrowing(ThrowingBackend::kCreate),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr("vis_backends[0]: not of our making")));
}

TEST_F(RecordWriterTest, ErrorsNameTheBackend) {
  EXPECT_THAT(Create({"", "create"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("vis_backends[1]: value: must not be")));
  EXPECT_THAT(Create({"", "record", ""}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("vis_backends[2]: must be another one than "
                                 "vis_backends[0]")));
  loggers::v1::VisualizerConfig unset;
  unset.add_vis_backends();
  LogBackendOptions options;
  options.env = &env_;
  EXPECT_THAT(RecordWriter::Create(unset, options, "", log_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("vis_backends[0]")));
}

}  // namespace
}  // namespace grapnel
