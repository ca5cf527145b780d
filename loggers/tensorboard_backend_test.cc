#include "grapnel/loggers/tensorboard_backend.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/loggers/tensorboard_event.pb.h"
#include "grapnel/loggers/visualizer.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using loggers::tensorboard::Event;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::SizeIs;
using ::testing::ValuesIn;

// That TensorBoard itself reads these files is for
// tests/interop:tensorboard_read_test to say.
class TensorBoardBackendTest : public testing::Test {
 protected:
  TensorBoardBackendTest() {
    options_.log_dir = "run";
    options_.timestamp = "20260102_030405";
    options_.env = &env_;
    options_.clock = &clock_;
    clock_.wall = absl::FromUnixMillis(1700000000250);
  }

  std::unique_ptr<LogBackend> New(const std::string& suffix = "") {
    TensorBoardBackend::Config config;
    if (!suffix.empty()) config.set_filename_suffix(suffix);
    auto backend = TensorBoardBackend::Create(config, options_);
    EXPECT_THAT(backend, IsOk());
    return *std::move(backend);
  }

  std::vector<std::string> Files() {
    return env_.ListDir("run/vis_data").value_or(std::vector<std::string>());
  }

  std::string Content(const std::string& name) {
    auto content = io::ReadFile(env_, io::JoinPath("run/vis_data", name));
    EXPECT_THAT(content, IsOk());
    return content.value_or("");
  }

  // The events of a file, whose checksums are left to TensorBoard.
  static std::vector<Event> Events(absl::string_view content) {
    std::vector<Event> events;
    while (!content.empty()) {
      if (content.size() < 16) {
        ADD_FAILURE() << "a frame ends early";
        break;
      }
      const size_t size = static_cast<unsigned char>(content[0]) +
                          256 * static_cast<unsigned char>(content[1]);
      Event event;
      EXPECT_TRUE(event.ParseFromArray(content.data() + 12, size));
      events.push_back(event);
      content.remove_prefix(16 + size);
    }
    return events;
  }

  io::MemEnv env_;
  FakeClock clock_;
  LogBackendOptions options_;
};

TEST_F(TensorBoardBackendTest, FramesAreThoseOfTensorFlow) {
  auto backend = New();
  ASSERT_THAT(backend->WriteRecord({Record::Kind::kTrain, {}, 0}), IsOk());
  ASSERT_THAT(backend->Close(), IsOk());
  ASSERT_THAT(Files(), SizeIs(1));
  const std::string content = Content(Files()[0]);
  // The first event of a file of TensorFlow's own writer at that time.
  const std::string version(
      "\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22\x09\0\0\x10\x40\xfc\x54\xd9\x41"
      "\x1a\x0d"
      "brain.Event:2\x33\x8d\x2f\xe9",
      40);
  EXPECT_EQ(content.substr(0, version.size()), version);
}

TEST_F(TensorBoardBackendTest, NumbersAreScalarsWithStepAndTime) {
  auto backend = New();
  ASSERT_THAT(backend->WriteRecord({Record::Kind::kTrain,
                                    {{"loss", 0.1},
                                     {"train/iter", int64_t{16777217}},
                                     {"nan", std::nan("")},
                                     {"no utf-8: \xff", 1.0}},
                                    int64_t{1} << 40}),
              IsOk());
  clock_.wall += absl::Milliseconds(1500);
  ASSERT_THAT(
      backend->WriteRecord({Record::Kind::kVal, {{"acc", -INFINITY}}, 3}),
      IsOk());
  ASSERT_THAT(backend->Close(), IsOk());
  const std::vector<Event> events = Events(Content(Files()[0]));
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].step(), int64_t{1} << 40);
  EXPECT_EQ(events[1].wall_time(), 1700000000.25);
  ASSERT_EQ(events[1].summary().value_size(), 4);
  EXPECT_EQ(events[1].summary().value(0).tag(), "loss");
  EXPECT_EQ(events[1].summary().value(0).simple_value(), 0.1f);
  EXPECT_EQ(events[1].summary().value(1).tag(), "train/iter");
  EXPECT_EQ(events[1].summary().value(1).simple_value(), 16777216.0f);
  EXPECT_TRUE(std::isnan(events[1].summary().value(2).simple_value()));
  EXPECT_EQ(events[1].summary().value(3).tag(), "no utf-8: \\xff");
  EXPECT_EQ(events[2].step(), 3);
  EXPECT_EQ(events[2].wall_time(), 1700000001.75);
  ASSERT_EQ(events[2].summary().value_size(), 1);
  EXPECT_EQ(events[2].summary().value(0).simple_value(), -INFINITY);
}

TEST_F(TensorBoardBackendTest, TheConfigIsATextLeftAsItIs) {
  auto backend = New();
  ASSERT_THAT(backend->WriteConfig("work_dir: \"_x_\"\na { b: 1 }"), IsOk());
  // At once: the run's first record may be far off.
  const std::vector<Event> events = Events(Content(Files()[0]));
  ASSERT_THAT(events, SizeIs(2));
  const auto& value = events[1].summary().value(0);
  EXPECT_EQ(value.tag(), "config/text_summary");
  EXPECT_EQ(value.metadata().plugin_data().plugin_name(), "text");
  EXPECT_EQ(value.tensor().string_val(0),
            "    work_dir: \"_x_\"\n    a { b: 1 }\n");
}

TEST_F(TensorBoardBackendTest, FilesAreNamedAsTensorBoardLooksForThem) {
  for (const char* const suffix : {"", ".v2", ""}) {
    auto backend = New(suffix);
    ASSERT_THAT(backend->WriteRecord({}), IsOk());
    ASSERT_THAT(backend->Close(), IsOk());
  }
  const std::vector<std::string> files = Files();
  ASSERT_THAT(files, SizeIs(3));
  for (const std::string& file : files) {
    EXPECT_THAT(file, MatchesRegex("events\\.out\\.tfevents\\.1700000000\\."
                                   "[-._A-Za-z0-9]+\\.[0-9]+\\.[01](\\.v2)?"));
  }
  EXPECT_THAT(files[0], EndsWith(".0"));
  EXPECT_THAT(files[1], EndsWith(".0.v2"));
  EXPECT_THAT(files[2], EndsWith(".1"));
}

TEST_F(TensorBoardBackendTest, WithoutAnythingToSayThereIsNoFile) {
  auto backend = New();
  EXPECT_THAT(backend->Close(), IsOk());
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(TensorBoardBackendTest, AFullDiskIsAnError) {
  io::MemEnv full(/*capacity=*/10);
  options_.env = &full;
  auto backend = New();
  EXPECT_THAT(backend->WriteRecord({}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("events.out.tfevents.")));
}

TEST_F(TensorBoardBackendTest, IsRegistered) {
  loggers::v1::LogBackendConfig config;
  config.mutable_tensorboard();
  EXPECT_THAT(LogBackendRegistry::Create(config, options_), IsOk());
}

class TensorBoardBadSuffixTest
    : public TensorBoardBackendTest,
      public testing::WithParamInterface<std::pair<std::string, std::string>> {
};

TEST_P(TensorBoardBadSuffixTest, IsRefused) {
  TensorBoardBackend::Config config;
  config.set_filename_suffix(GetParam().second);
  EXPECT_THAT(TensorBoardBackend::Create(config, options_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("filename_suffix: must be at most 64 letters, "
                                 "digits, \"_\", \"-\" and \".\", is \"")));
}

INSTANTIATE_TEST_SUITE_P(
    , TensorBoardBadSuffixTest,
    ValuesIn(std::vector<std::pair<std::string, std::string>>{
        {"Slash", "a/b"},
        {"Blank", "a b"},
        {"NotAscii", "\xc3\xa4"},
        {"Long", std::string(65, 'x')}}),
    [](const auto& info) { return info.param.first; });

}  // namespace
}  // namespace grapnel
