#include "grapnel/io/zip_reader.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/crc32.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth_builder.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::_;
using testing::HasSubstr;

// A file that holds `bytes`, and what it lives in.
struct OpenFile {
  explicit OpenFile(absl::string_view bytes) {
    EXPECT_THAT(WriteFileAtomically(env, "/f", bytes), IsOk());
    auto opened = env.NewRandomAccessFile("/f");
    EXPECT_THAT(opened, IsOk());
    file = *std::move(opened);
  }

  MemEnv env;
  std::unique_ptr<RandomAccessFile> file;
};

class ZipReaderFormTest : public testing::TestWithParam<ZipLayout> {};

TEST_P(ZipReaderFormTest, FindsRecords) {
  const OpenFile open(BuildZip(
      {{"model/data.pkl", "pickle"}, {"model/data/0", ""}, {"model/x", "yz"}},
      GetParam()));
  const auto zip = ZipReader::Open(*open.file);
  ASSERT_THAT(zip, IsOk());
  EXPECT_EQ(zip->folder(), "model");
  ASSERT_EQ(zip->records().size(), 3);
  EXPECT_EQ(zip->Find("data"), nullptr);
  EXPECT_EQ(zip->Find("y"), nullptr);
  ASSERT_NE(zip->Find("data/0"), nullptr);
  EXPECT_EQ(zip->Find("data/0")->num_bytes, 0);
  EXPECT_TRUE(zip->Find("data/0")->has_crc());
  const ZipRecord* const record = zip->Find("x");
  ASSERT_NE(record, nullptr);
  std::string bytes(2, ' ');
  ASSERT_EQ(record->num_bytes, 2);
  ASSERT_THAT(open.file->Read(record->offset, 2, &bytes[0]), IsOk());
  EXPECT_EQ(bytes, "yz");
  EXPECT_THAT(record->CheckCrc(Crc32("yz")), IsOk());
  EXPECT_THAT(record->CheckCrc(Crc32("yy")),
              StatusIs(Code::kDataLoss, HasSubstr("is damaged: CRC-32 is ")));
}

ZipLayout WithComment() {
  ZipLayout layout;
  layout.comment = std::string(1000, 'c');
  return layout;
}

ZipLayout Wide() {
  ZipLayout layout;
  layout.zip64 = true;
  return layout;
}

INSTANTIATE_TEST_SUITE_P(All, ZipReaderFormTest,
                         testing::Values(ZipLayout(), WithComment(), Wide()),
                         [](const auto& info) {
                           return info.param.zip64             ? "Zip64"
                                  : info.param.comment.empty() ? "Plain"
                                                               : "Comment";
                         });

TEST(ZipReaderTest, RecordWithoutCrcIsNotChecked) {
  ZipEntry entry{"a/x", "yz"};
  entry.crc32 = 0;
  const OpenFile open(BuildZip({entry}));
  const auto zip = ZipReader::Open(*open.file);
  ASSERT_THAT(zip, IsOk());
  EXPECT_FALSE(zip->Find("x")->has_crc());
  EXPECT_THAT(zip->Find("x")->CheckCrc(1), IsOk());
}

TEST(ZipReaderTest, Row091CompressedRecordIsNamed) {
  ZipEntry compressed{"a/y", "z"};
  compressed.method = 8;
  const OpenFile open(BuildZip({{"a/x", "1"}, compressed}));
  const auto zip = ZipReader::Open(*open.file);
  ASSERT_THAT(zip, IsOk());
  EXPECT_FALSE(zip->Find("x")->is_compressed);
  EXPECT_TRUE(zip->Find("y")->is_compressed);
  EXPECT_THAT(
      zip->CheckStored(),
      StatusIs(Code::kUnimplemented, HasSubstr("record \"y\": is compressed")));
}

TEST(ZipReaderTest, EmptyDirectoryIsNoError) {
  const OpenFile open(BuildZip({}));
  const auto zip = ZipReader::Open(*open.file);
  ASSERT_THAT(zip, IsOk());
  EXPECT_TRUE(zip->records().empty());
}

// Row061 and the like are numbers of our list of bad inputs.
struct BadCase {
  const char* name;
  std::string file;
  Code code;
  const char* message;
};

class ZipReaderBadTest : public testing::TestWithParam<BadCase> {};

TEST_P(ZipReaderBadTest, IsRefused) {
  const OpenFile open(GetParam().file);
  EXPECT_THAT(ZipReader::Open(*open.file),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
}

std::vector<BadCase> BadCases() {
  const ZipEntry x{"a/x", "12345678"};
  const ZipEntry y{"a/y", "abcdefgh"};
  std::vector<BadCase> cases;
  const auto add = [&](const char* name, const std::vector<ZipEntry>& entries,
                       const char* message, const ZipLayout& layout = {}) {
    cases.push_back(
        {name, BuildZip(entries, layout), Code::kInvalidArgument, message});
  };
  ZipEntry bad;
  add("Row092Duplicate", {x, y, x}, "record \"x\" comes twice");
  ZipLayout layout;
  layout.directory_offset = 1 << 20;
  add("Row093DirectoryPastEnd", {x}, "bytes at byte 1048576 is not in the file",
      layout);
  bad = y;
  bad.header_offset = 1 << 20;
  add("Row094HeaderPastEnd", {x, bad},
      "record \"a/y\": begins at byte 1048576, the directory at ");
  bad = y;
  bad.header_offset = 1;
  add("Row094HeaderElsewhere", {x, bad}, "record \"a/y\": isn't at byte 1");
  bad = y;
  bad.num_bytes = 1 << 20;
  add("Row095SizePastEnd", {x, bad}, "runs into the directory");
  add("Row096TwoFolders", {x, {"b/y", "z"}},
      "record \"b/y\": isn't in the folder \"a\" of the others");
  add("Row096NoFolder", {{"x", "z"}}, "record \"x\": is in no folder");
  bad = y;
  bad.flags = 1;
  add("Row097Encrypted", {x, bad}, "record \"a/y\": is encrypted");
  const std::string whole = BuildZip({x, y});
  cases.push_back({"Row098HalfAFile", whole.substr(0, whole.size() / 2),
                   Code::kDataLoss,
                   "has no ZIP directory at its end: cut off"});
  cases.push_back({"Row098LastByte", whole.substr(0, whole.size() - 1),
                   Code::kDataLoss,
                   "has no ZIP directory at its end: cut off"});
  cases.push_back({"Row098ThreeBytes", whole.substr(0, 3),
                   Code::kInvalidArgument, "is not a ZIP file"});
  cases.push_back(
      {"Row099Empty", "", Code::kInvalidArgument, "has no ZIP directory"});
  cases.push_back({"Row099RandomBytes", std::string(70'000, '\x07'),
                   Code::kInvalidArgument, "has no ZIP directory"});
  cases.push_back({"BytesBehindTheEnd", absl::StrCat(whole, "more"),
                   Code::kDataLoss, "cut off, or with bytes behind it"});
  bad = y;
  bad.local_name = "a/z";
  add("OtherNameInFront", {x, bad},
      "record \"a/y\": has another name in front of its bytes");
  bad = y;
  bad.header_offset = 0;
  bad.name = "a/x";
  ZipEntry longer = x;
  longer.num_bytes = 20;
  add("Overlap", {longer, y}, "records \"x\" and \"y\" overlap");
  add("SameBytesTwice", {x, bad}, "overlap");
  bad = y;
  bad.local_flags = 1;
  add("EncryptedInFrontAlone", {x, bad}, "record \"a/y\": is encrypted");
  bad = y;
  bad.local_method = 8;
  add("CompressedInFrontAlone", {x, bad},
      "record \"a/y\": is compressed by method 8, the directory has 0");
  layout = ZipLayout();
  layout.count = 1;
  add("HiddenEntry", {x, y}, "ZIP directory has 49 bytes behind its 1 entries",
      layout);
  layout.count = 3;
  const ZipEntry long_name{absl::StrCat("a/", std::string(60, 'z')), "1"};
  add("EntriesMissing", {x, long_name}, "ends before its last entry", layout);
  layout.count = 60'000;
  add("MoreEntriesThanFit", {x, y}, "can't have 60000 entries", layout);
  layout = ZipLayout();
  layout.zip64 = true;
  layout.directory_offset = 0xfffffff0;
  add("Zip64DirectoryPastEnd", {x}, "is not in the file", layout);
  layout = ZipLayout();
  layout.zip64 = true;
  layout.count = 0xffff;
  add("Zip64MoreEntriesThanFit", {x}, "can't have 65535 entries", layout);
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, ZipReaderBadTest, testing::ValuesIn(BadCases()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(ZipReaderTest, EveryCutIsRefused) {
  const std::string whole = BuildZip({{"a/x", "12345678"}, {"a/y", "z"}});
  for (size_t size = 0; size < whole.size(); ++size) {
    const OpenFile open(absl::string_view(whole).substr(0, size));
    EXPECT_THAT(
        ZipReader::Open(*open.file),
        StatusIs(size < 4 ? Code::kInvalidArgument : Code::kDataLoss, _))
        << size;
  }
}

TEST(ZipReaderTest, MoreRecordsThanMemoryIsForAreRefused) {
  // ZIP64's own count, without so many entries.
  ZipLayout layout;
  layout.zip64 = true;
  layout.count = 262'145;
  const OpenFile open(BuildZip({{"a/x", "1"}}, layout));
  EXPECT_THAT(ZipReader::Open(*open.file),
              StatusIs(Code::kResourceExhausted,
                       HasSubstr("262145 records, may have 262144")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
