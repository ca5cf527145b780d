#include "grapnel/io/env_conformance.h"

#include <cstddef>

#include "absl/status/status.h"
#include "gmock/gmock.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_P(EnvTest, PiecesOfAnySizeMakeUpTheFile) {
  auto file = env_.NewWritableFile(Path("f"));
  ASSERT_THAT(file, IsOk());
  std::string expected;
  for (const size_t size : {0, 1, 65535, 1, 65536, 65537, 3, 200000, 64}) {
    const std::string piece(size, static_cast<char>('a' + size % 26));
    ASSERT_THAT((*file)->Append(piece), IsOk());
    expected += piece;
  }
  ASSERT_THAT((*file)->Sync(), IsOk());
  EXPECT_EQ(Read("f"), expected);
  ASSERT_THAT((*file)->Append("end"), IsOk());
  ASSERT_THAT((*file)->Close(), IsOk());
  EXPECT_EQ(Read("f"), expected + "end");
}

TEST_P(EnvTest, FlushMakesContentVisible) {
  auto file = env_.NewAppendableFile(Path("log"));
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT((*file)->Append("line"), IsOk());
  ASSERT_THAT((*file)->Flush(), IsOk());
  EXPECT_EQ(Read("log"), "line");
}

TEST_P(EnvTest, WritableEmptiesAndAppendableKeeps) {
  Write("f", "old");
  Write("f", "new");
  EXPECT_EQ(Read("f"), "new");
  auto file = env_.NewAppendableFile(Path("f"));
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT((*file)->Append("er"), IsOk());
  ASSERT_THAT((*file)->Close(), IsOk());
  EXPECT_EQ(Read("f"), "newer");
}

TEST_P(EnvTest, NothingWorksAfterClose) {
  auto file = env_.NewWritableFile(Path("f"));
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT((*file)->Close(), IsOk());
  EXPECT_THAT((*file)->Append("x"),
              StatusIs(Code::kFailedPrecondition, HasSubstr(Path("f"))));
}

TEST_P(EnvTest, ReadsAnyRangeAndRefusesOneBeyondTheEnd) {
  Write("f", "0123456789");
  auto file = env_.NewRandomAccessFile(Path("f"));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->size(), 10);
  char buffer[10];
  ASSERT_THAT((*file)->Read(3, 4, buffer), IsOk());
  EXPECT_EQ(std::string(buffer, 4), "3456");
  EXPECT_THAT((*file)->Read(10, 0, buffer), IsOk());
  EXPECT_THAT((*file)->Read(7, 4, buffer),
              StatusIs(Code::kDataLoss, HasSubstr(Path("f"))));
  EXPECT_THAT((*file)->Read(1000, 1, buffer),
              StatusIs(Code::kDataLoss, HasSubstr(Path("f"))));
  EXPECT_THAT((*file)->Read(-1, 1, buffer),
              StatusIs(Code::kInvalidArgument, HasSubstr("-1")));
  EXPECT_THAT((*file)->Read(1, -1, buffer),
              StatusIs(Code::kInvalidArgument, HasSubstr("-1")));
}

TEST_P(EnvTest, AFileCutAfterOpeningIsDataLoss) {
  Write("f", "0123456789");
  auto file = env_.NewRandomAccessFile(Path("f"));
  ASSERT_THAT(file, IsOk());
  Write("f", "01");
  char buffer[10];
  EXPECT_THAT((*file)->Read(0, 10, buffer),
              StatusIs(Code::kDataLoss, HasSubstr("ends at byte 2")));
}

TEST_P(EnvTest, AnOpenFileOutlivesItsName) {
  Write("f", "content");
  auto file = env_.NewRandomAccessFile(Path("f"));
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(env_.DeleteFile(Path("f")), IsOk());
  char buffer[7];
  ASSERT_THAT((*file)->Read(0, 7, buffer), IsOk());
  EXPECT_EQ(std::string(buffer, 7), "content");
}

TEST_P(EnvTest, CodesSayWhatIsWrong) {
  Write("file", "x");
  ASSERT_THAT(env_.CreateDir(Path("dir/inner")), IsOk());
  const std::string missing = Path("missing");
  const std::string long_name = Path(std::string(300, 'n'));
  struct Case {
    const char* what;
    absl::Status status;
    Code code;
  };
  const Case cases[] = {
      {"read missing", env_.NewRandomAccessFile(missing).status(),
       Code::kNotFound},
      {"read directory", env_.NewRandomAccessFile(Path("dir")).status(),
       Code::kInvalidArgument},
      {"read below file", env_.NewRandomAccessFile(Path("file/x")).status(),
       Code::kInvalidArgument},
      {"read long name", env_.NewRandomAccessFile(long_name).status(),
       Code::kInvalidArgument},
      {"write in missing", env_.NewWritableFile(missing + "/f").status(),
       Code::kNotFound},
      {"write directory", env_.NewWritableFile(Path("dir")).status(),
       Code::kInvalidArgument},
      {"append directory", env_.NewAppendableFile(Path("dir")).status(),
       Code::kInvalidArgument},
      {"list missing", env_.ListDir(missing).status(), Code::kNotFound},
      {"list file", env_.ListDir(Path("file")).status(),
       Code::kInvalidArgument},
      {"new dir again", env_.CreateNewDir(Path("dir")), Code::kAlreadyExists},
      {"new dir on file", env_.CreateNewDir(Path("file")),
       Code::kAlreadyExists},
      {"new dir in missing", env_.CreateNewDir(missing + "/d"),
       Code::kNotFound},
      {"dir on file", env_.CreateDir(Path("file")), Code::kAlreadyExists},
      {"rename missing", env_.Rename(missing, Path("y")), Code::kNotFound},
      {"rename file on dir", env_.Rename(Path("file"), Path("dir")),
       Code::kInvalidArgument},
      {"rename dir on file", env_.Rename(Path("dir"), Path("file")),
       Code::kInvalidArgument},
      {"rename into itself", env_.Rename(Path("dir"), Path("dir/inner/x")),
       Code::kInvalidArgument},
      {"delete missing", env_.DeleteFile(missing), Code::kNotFound},
      {"unlink directory", env_.DeleteFile(Path("dir")),
       Code::kInvalidArgument},
      {"rmdir file", env_.DeleteDir(Path("file")), Code::kInvalidArgument},
      {"rmdir full", env_.DeleteDir(Path("dir")), Code::kAlreadyExists},
      {"lock in missing", env_.LockFile(missing + "/l").status(),
       Code::kNotFound},
      {"lock directory", env_.LockFile(Path("dir")).status(),
       Code::kInvalidArgument},
      {"sync missing", env_.SyncDir(missing), Code::kNotFound},
      {"space of missing", env_.FreeSpace(missing).status(), Code::kNotFound},
      {"NUL", env_.CreateNewDir(Path(std::string("a\0b", 3))),
       Code::kInvalidArgument},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(c.status.code(), c.code) << c.what << ": " << c.status;
  }
  EXPECT_THAT(cases[0].status, StatusIs(Code::kNotFound, HasSubstr(missing)));
  EXPECT_THAT(List(), ElementsAre("dir", "file"));
}

TEST_P(EnvTest, DirectoriesAreMadeListedAndDeleted) {
  EXPECT_THAT(env_.CreateDir(Path("a/b//c/")), IsOk());
  EXPECT_THAT(env_.CreateDir(Path("a/b")), IsOk());
  Write("a/z", "");
  Write("a/.hidden", "");
  EXPECT_THAT(List("a"), ElementsAre(".hidden", "b", "z"));
  EXPECT_TRUE(env_.IsDirectory(Path("a/b/c")));
  EXPECT_TRUE(env_.FileExists(Path("a/b/c")));
  EXPECT_FALSE(env_.IsDirectory(Path("a/z")));
  EXPECT_TRUE(env_.FileExists(Path("a/z")));
  EXPECT_FALSE(env_.FileExists(Path("a/y")));
  EXPECT_FALSE(env_.IsSymlink(Path("a/z")));
  EXPECT_THAT(env_.SyncDir(Path("a")), IsOk());
  EXPECT_THAT(env_.DeleteDir(Path("a/b/c")), IsOk());
  EXPECT_THAT(DeleteRecursively(env_, Path("a")), IsOk());
  EXPECT_THAT(List(), IsEmpty());
  EXPECT_THAT(DeleteRecursively(env_, Path("a")),
              StatusIs(Code::kNotFound, HasSubstr("a")));
}

TEST_P(EnvTest, RenameReplacesFilesAndEmptyDirectories) {
  Write("from", "new");
  Write("to", "old");
  ASSERT_THAT(env_.Rename(Path("from"), Path("to")), IsOk());
  EXPECT_EQ(Read("to"), "new");
  ASSERT_THAT(env_.CreateDir(Path("d1/x")), IsOk());
  ASSERT_THAT(env_.CreateDir(Path("d2")), IsOk());
  ASSERT_THAT(env_.Rename(Path("d1"), Path("d2")), IsOk());
  EXPECT_THAT(List(), ElementsAre("d2", "to"));
  EXPECT_THAT(List("d2"), ElementsAre("x"));
  ASSERT_THAT(env_.CreateDir(Path("d3/y")), IsOk());
  EXPECT_THAT(env_.Rename(Path("d3"), Path("d2")),
              StatusIs(Code::kAlreadyExists, HasSubstr("d3")));
  EXPECT_THAT(List("d3"), ElementsAre("y"));
}

TEST_P(EnvTest, ALockKeepsOthersOutUntilItGoes) {
  auto lock = env_.LockFile(Path("lock"));
  ASSERT_THAT(lock, IsOk());
  EXPECT_THAT(List(), ElementsAre("lock"));
  EXPECT_THAT(env_.LockFile(Path("lock")),
              StatusIs(Code::kAborted, HasSubstr(Path("lock"))));
  EXPECT_THAT(env_.LockFile(Path("./lock")),
              StatusIs(Code::kAborted, HasSubstr("lock")));
  EXPECT_THAT(env_.LockFile(Path("other")), IsOk());
  // The one that was refused has not taken it along.
  EXPECT_THAT(env_.LockFile(Path("lock")),
              StatusIs(Code::kAborted, HasSubstr(Path("lock"))));
  lock->reset();
  EXPECT_THAT(env_.LockFile(Path("lock")), IsOk());
  EXPECT_THAT(env_.LockFile(Path("lock")), IsOk());
}

TEST_P(EnvTest, ALockSurvivesReadingAndWritingItsFile) {
  auto lock = env_.LockFile(Path("lock"));
  ASSERT_THAT(lock, IsOk());
  EXPECT_EQ(Read("lock"), "");
  ASSERT_THAT((*lock)->Write("a long text"), IsOk());
  EXPECT_EQ(Read("lock"), "a long text");
  ASSERT_THAT((*lock)->Write("short"), IsOk());
  EXPECT_EQ(Read("lock"), "short");
  EXPECT_THAT(env_.LockFile(Path("lock")),
              StatusIs(Code::kAborted, HasSubstr(Path("lock"))));
  lock->reset();
  const auto again = env_.LockFile(Path("lock"));
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(Read("lock"), "short");  // What it said stays.
}

TEST_P(EnvTest, ALockFileThatItsHolderDeletedIsMadeAgain) {
  auto lock = env_.LockFile(Path("lock"));
  ASSERT_THAT(lock, IsOk());
  ASSERT_THAT(env_.DeleteFile(Path("lock")), IsOk());
  const auto other = env_.LockFile(Path("lock"));
  ASSERT_THAT(other, IsOk());
  lock->reset();
  EXPECT_THAT(env_.LockFile(Path("lock")),
              StatusIs(Code::kAborted, HasSubstr(Path("lock"))));
}

TEST_P(EnvTest, ThereIsFreeSpace) {
  const auto space = env_.FreeSpace(under_test_.dir);
  ASSERT_THAT(space, IsOk());
  EXPECT_GT(*space, 1 << 20);
}

TEST_P(EnvTest, WriteFileAtomicallyReplacesAndLeavesNothingElse) {
  ASSERT_THAT(WriteFileAtomically(env_, Path("f"), "one"), IsOk());
  ASSERT_THAT(WriteFileAtomically(env_, Path("f"), "two"), IsOk());
  EXPECT_EQ(Read("f"), "two");
  EXPECT_THAT(List(), ElementsAre("f"));
  ASSERT_THAT(env_.CreateDir(Path("d/x")), IsOk());
  EXPECT_THAT(WriteFileAtomically(env_, Path("d"), "over a directory"),
              StatusIs(Code::kInvalidArgument, HasSubstr("d")));
  EXPECT_THAT(List(), ElementsAre("d", "f"));
}

TEST_P(EnvTest, ReadFileRefusesMoreThanItsLimit) {
  Write("f", "0123456789");
  EXPECT_THAT(ReadFile(env_, Path("f"), 10), IsOk());
  EXPECT_THAT(ReadFile(env_, Path("f"), 9),
              StatusIs(Code::kResourceExhausted, HasSubstr("10 bytes")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
