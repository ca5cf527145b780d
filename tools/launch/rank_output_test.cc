#include "grapnel/tools/launch/rank_output.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/tools/launch/sockets.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct SplitCase {
  const char* name;
  const char* prefix;
  std::vector<std::string> pieces;
  std::string while_written;
  std::string at_the_end;
};

class LineSplitterTest : public testing::TestWithParam<SplitCase> {};

TEST_P(LineSplitterTest, GivesWholeLines) {
  LineSplitter splitter(GetParam().prefix);
  std::string lines;
  for (const std::string& piece : GetParam().pieces) {
    splitter.Add(piece, &lines);
  }
  EXPECT_EQ(lines, GetParam().while_written);
  lines.clear();
  splitter.Finish(&lines);
  EXPECT_EQ(lines, GetParam().at_the_end);
}

const std::string& Long() {
  static const std::string& line =
      *new std::string(LineSplitter::kMaxLine + 1, 'x');
  return line;
}

INSTANTIATE_TEST_SUITE_P(
    All, LineSplitterTest,
    testing::Values(
        SplitCase{"AsItIs", "", {"a\nb", "c\n\n", "d"}, "a\nbc\n\n", "d"},
        SplitCase{"Prefixed",
                  "> ",
                  {"a\nb", "c\n\n", "d"},
                  "> a\n> bc\n> \n",
                  "> d\n"},
        SplitCase{"ProgressBar", "", {"1%\r2%\r", "3%"}, "1%\r2%\r", "3%"},
        SplitCase{"PrefixedProgressBar", "> ", {"1%\r2%\n"}, "> 1%\r2%\n", ""},
        SplitCase{"Nothing", "> ", {}, "", ""},
        SplitCase{"LongAsItIs", "", {Long(), "y\n"}, Long() + "y\n", ""},
        SplitCase{"LongPrefixed",
                  "> ",
                  {Long(), "y\n"},
                  absl::StrCat("> ", Long().substr(1), "\n> xy\n"),
                  ""}),
    [](const auto& info) { return info.param.name; });

TEST(LastLinesTest, AreThoseThatSaySomething) {
  EXPECT_THAT(LastLines("", 3, 10), IsEmpty());
  EXPECT_THAT(LastLines("\n \n", 3, 10), IsEmpty());
  EXPECT_THAT(LastLines("a\nb\n\nc\n\n", 2, 10), ElementsAre("b", "c"));
  EXPECT_THAT(LastLines("a\nno end", 5, 10), ElementsAre("a", "no end"));
  EXPECT_THAT(LastLines("0123456789x\n", 1, 10), ElementsAre("0123456789..."));
  EXPECT_THAT(LastLines("1%\r2%\r\n", 1, 10), ElementsAre("2%"));
}

class OutputSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    reader_ = OwnedFd(ends[0]);
    writer_ = OwnedFd(ends[1]);
  }

  std::string Read(size_t size) {
    std::string read_bytes(size, '\0');
    const ssize_t n = read(reader_.get(), read_bytes.data(), size);
    read_bytes.resize(n < 0 ? 0 : n);
    return read_bytes;
  }

  OwnedFd reader_;
  OwnedFd writer_;
};

TEST_F(OutputSinkTest, AnotherSourceBeginsANewLine) {
  OutputSink sink(writer_.get());
  sink.Add(1, "a");
  sink.Add(1, "b");
  sink.Add(2, "c\n");
  sink.Add(3, "d\r");
  sink.Add(1, "e");
  sink.Write();
  EXPECT_TRUE(sink.empty());
  EXPECT_EQ(Read(100), "ab\nc\nd\re");
}

TEST_F(OutputSinkTest, WhatTheReaderDoesntTakeWaits) {
  OutputSink sink(writer_.get());
  const std::string bytes(1 << 20, 'x');
  EXPECT_FALSE(sink.full());
  sink.Add(1, bytes);
  EXPECT_TRUE(sink.full());
  sink.Write();
  EXPECT_FALSE(sink.empty());
  size_t size = 0;
  while (!sink.empty() || size < bytes.size()) {
    size += Read(bytes.size()).size();
    sink.Write();
  }
  EXPECT_EQ(size, bytes.size());
  EXPECT_FALSE(sink.full());
  EXPECT_EQ(fcntl(writer_.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(OutputSinkTest, WithoutAReaderAllIsDropped) {
  reader_ = OwnedFd();
  signal(SIGPIPE, SIG_IGN);
  OutputSink sink(writer_.get());
  sink.Add(1, "a\n");
  sink.Write();
  EXPECT_TRUE(sink.empty());
  sink.Add(1, "b\n");
  EXPECT_TRUE(sink.empty());
  OutputSink none(-1);
  none.Add(1, "a\n");
  EXPECT_TRUE(none.empty());
}

TEST(OutputSinkOfSocketTest, DoesntWaitEither) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const OwnedFd reader(ends[0]);
  const OwnedFd writer(ends[1]);
  OutputSink sink(writer.get());
  sink.Add(1, std::string(4 << 20, 'x'));
  sink.Write();
  EXPECT_TRUE(sink.full());
  char byte;
  EXPECT_EQ(read(reader.get(), &byte, 1), 1);
}

}  // namespace
}  // namespace grapnel
