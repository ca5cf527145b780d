#include "grapnel/tools/launch/sockets.h"

#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kTimeout = absl::Seconds(10);

TEST(ReservePortTest, OnlyAServerThatKnowsItGetsIt) {
  const auto reserved = ReservePort(0);
  ASSERT_THAT(reserved, IsOk());
  EXPECT_GT(reserved->port, 0);
  // One that asks for any port gets others, while it isn't listened on.
  std::set<int> others;
  std::vector<ReservedPort> kept;
  for (int i = 0; i < 200; ++i) {
    auto other = ReservePort(0);
    ASSERT_THAT(other, IsOk());
    others.insert(other->port);
    kept.push_back(*std::move(other));
  }
  EXPECT_EQ(others.count(reserved->port), 0u);
  EXPECT_EQ(others.size(), 200u);

  const auto server = Listen(reserved->port);
  EXPECT_THAT(server, IsOk());
  EXPECT_THAT(Connect("127.0.0.1", reserved->port, kTimeout), IsOk());
  EXPECT_THAT(Connect("[::ffff:127.0.0.1]", reserved->port, kTimeout), IsOk());
  EXPECT_THAT(Connect("localhost", reserved->port, kTimeout), IsOk());
}

TEST(ReservePortTest, OneThatIsListenedOnIsNamed) {
  const auto free = ReservePort(0);
  ASSERT_THAT(free, IsOk());
  const auto server = Listen(free->port);
  ASSERT_THAT(server, IsOk());
  const auto in_use = HasSubstr(absl::StrCat("port ", free->port, ": Address"));
  EXPECT_THAT(ReservePort(free->port),
              StatusIs(absl::StatusCode::kFailedPrecondition, in_use));
  EXPECT_THAT(Listen(free->port),
              StatusIs(absl::StatusCode::kFailedPrecondition, in_use));
}

TEST(ConnectTest, SaysWhoCannotBeReached) {
  const auto free = ReservePort(0);
  ASSERT_THAT(free, IsOk());
  EXPECT_THAT(
      Connect("127.0.0.1", free->port, kTimeout),
      StatusIs(absl::StatusCode::kUnavailable,
               absl::StrCat("127.0.0.1:", free->port, ": Connection refused")));
  EXPECT_THAT(
      Connect("no such host", 1, kTimeout),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no such host: ")));
}

class LineSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_), 0);
  }

  void Say(absl::string_view bytes) {
    ASSERT_EQ(write(ends_[1], bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  }

  int ends_[2];
};

TEST_F(LineSocketTest, GivesLinesHoweverTheyCome) {
  LineSocket socket{OwnedFd(ends_[0])};
  std::vector<std::string> lines;
  EXPECT_TRUE(socket.Read(&lines));
  Say("a\nb");
  EXPECT_TRUE(socket.Read(&lines));
  EXPECT_THAT(lines, ElementsAre("a"));
  Say("c\n\nd");
  close(ends_[1]);
  EXPECT_FALSE(socket.Read(&lines));
  EXPECT_THAT(lines, ElementsAre("a", "bc", ""));
}

TEST_F(LineSocketTest, EndsWithAPeerThatKnowsNoLines) {
  LineSocket socket{OwnedFd(ends_[0])};
  Say(std::string(LineSocket::kMaxLine + 1, 'x'));
  std::vector<std::string> lines;
  EXPECT_FALSE(socket.Read(&lines));
  EXPECT_THAT(lines, IsEmpty());
  close(ends_[1]);
}

TEST_F(LineSocketTest, APeerThatDoesntListenIsNotWaitedFor) {
  LineSocket socket{OwnedFd(ends_[0])};
  const std::string line(1000, 'x');
  for (int i = 0; i < 5000; ++i) socket.Send(line);
  EXPECT_TRUE(socket.has_output());
  EXPECT_FALSE(socket.IsDelivered());
  close(ends_[1]);
  socket.Write();
  std::vector<std::string> lines;
  EXPECT_FALSE(socket.Read(&lines));
}

}  // namespace
}  // namespace grapnel
