#include "grapnel/io/manifest_codec.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/digest.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::HasSubstr;

std::string LittleEndian(uint64_t number, int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) bytes += static_cast<char>(number >> 8 * i);
  return bytes;
}

// The documented frame, made here once more.
std::string Frame(absl::string_view body, uint32_t version = 1) {
  return absl::StrCat("GRPNLCK1", LittleEndian(version, 4),
                      LittleEndian(body.size(), 8),
                      LittleEndian(Xxh3Digest64(body), 8), body);
}

v1::CheckpointManifest Good() {
  v1::CheckpointManifest manifest;
  manifest.set_schema_version(1);
  manifest.set_name("epoch_1");
  manifest.set_checkpoint_uuid(std::string(16, 'u'));
  manifest.set_world_size(1);
  v1::FileRecord* const file = manifest.add_files();
  file->set_name("model.safetensors");
  file->set_num_bytes(100);
  file->set_xxh3_128(std::string(16, 'd'));
  v1::TensorRecord* const tensor = manifest.add_tensors();
  tensor->set_name("w");
  tensor->set_dtype("F32");
  tensor->add_shape(5);
  tensor->set_file_offset(80);
  tensor->set_num_bytes(20);
  return manifest;
}

TEST(ManifestCodecTest, WritesTheDocumentedFrameAndReadsItBack) {
  const v1::CheckpointManifest manifest = Good();
  const auto bytes = EncodeManifest(manifest);
  ASSERT_THAT(bytes, IsOk());
  EXPECT_EQ(*bytes, Frame(manifest.SerializeAsString()));
  const auto decoded = DecodeManifest(*bytes);
  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(decoded->SerializeAsString(), manifest.SerializeAsString());
}

TEST(ManifestCodecTest, TextThatCannotBeReadBackIsNotWritten) {
  v1::CheckpointManifest manifest = Good();
  manifest.set_config("work_dir: \"caf\xe9\"");
  EXPECT_THAT(EncodeManifest(manifest),
              StatusIs(Code::kInvalidArgument,
                       HasSubstr("manifest: config: not UTF-8 from byte 14")));
}

TEST(ManifestCodecTest, KeepsFieldsThatItDoesNotKnow) {
  const std::string unknown = "\xa2\x06\x03new";  // Field 100.
  const std::string body = Good().SerializeAsString() + unknown;
  const auto decoded = DecodeManifest(Frame(body));
  ASSERT_THAT(decoded, IsOk());
  EXPECT_THAT(decoded->SerializeAsString(), testing::EndsWith(unknown));
}

TEST(ManifestCodecTest, FeaturesThatItKnowsAreRead) {
  v1::CheckpointManifest manifest = Good();
  manifest.add_required_features("epoch_parts");
  manifest.add_required_features("rank_windows");
  const auto bytes = EncodeManifest(manifest);
  ASSERT_THAT(bytes, IsOk());
  const auto read = DecodeManifest(*bytes);
  ASSERT_THAT(read, IsOk());
  EXPECT_THAT(read->required_features(),
              testing::ElementsAre("epoch_parts", "rank_windows"));
}

TEST(ManifestCodecTest, EveryFlippedBitAndEveryCutIsNoticed) {
  const std::string bytes = *EncodeManifest(Good());
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_FALSE(DecodeManifest(bytes.substr(0, i)).ok()) << i << " bytes";
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = bytes;
      changed[i] ^= static_cast<char>(1 << bit);
      EXPECT_FALSE(DecodeManifest(changed).ok()) << i << "." << bit;
    }
  }
  EXPECT_FALSE(DecodeManifest(bytes + "x").ok());
}

// "Row038..." are those of a numbered list of bad inputs that all readers here
// are tested with. Rows 48, 50, 53, 55 and 59 are in checkpoint_test.cc and
// runner/run_generators_test.cc, row 60 in run_checkpoints_test.cc; there is
// nothing that rows 51 and 52 could be about, and of row 54 no number that is
// no integer.
struct BytesCase {
  const char* name;
  std::string bytes;
  Code code;
  const char* message;
};

TEST(ManifestCodecTest, BadBytesAreRefused) {
  const std::string body = Good().SerializeAsString();
  std::string wrong_magic = Frame(body);
  wrong_magic[7] = '2';
  std::string wrong_digest = Frame(body);
  wrong_digest[20] ^= 1;
  std::string nested;  // Groups, which proto3 skips, 200 deep.
  for (int i = 0; i < 200; ++i) nested += "\xa3\x06";
  for (int i = 0; i < 200; ++i) nested += "\xa4\x06";
  const BytesCase cases[] = {
      {"empty", "", Code::kDataLoss, "has 0 bytes"},
      {"Row038 empty body", Frame(""), Code::kDataLoss, "schema_version"},
      {"Row039 wrong magic", wrong_magic, Code::kDataLoss, "begins with"},
      {"frame version 0", Frame(body, 0), Code::kDataLoss, "version is 0"},
      {"frame version 2", Frame(body, 2), Code::kUnimplemented, "newer"},
      {"Row040 frame shorter than file", Frame(body) + "x", Code::kDataLoss,
       "frame says"},
      {"Row041 wrong digest", wrong_digest, Code::kDataLoss, "digest"},
      {"no protobuf", Frame("\xff\xff\xff"), Code::kDataLoss,
       "not a CheckpointManifest"},
      {"Row044 nested too deep", Frame(body + nested), Code::kDataLoss,
       "not a CheckpointManifest"},
      {"Row045 field of 2^40 bytes", Frame("\x1a\x80\x80\x80\x80\x80\x20x"),
       Code::kDataLoss, "not a CheckpointManifest"},
      {"name isn't UTF-8", Frame(body + "\x1a\x01\xff"), Code::kDataLoss,
       "not a CheckpointManifest"},
  };
  testing::internal::CaptureStderr();
  for (const BytesCase& c : cases) {
    EXPECT_THAT(DecodeManifest(c.bytes), StatusIs(c.code, HasSubstr(c.message)))
        << c.name;
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(ManifestCodecTest, Row046OfAFieldThatComesTwiceTheLastCounts) {
  v1::CheckpointManifest last;
  last.set_name("epoch_2");
  const auto decoded = DecodeManifest(
      Frame(Good().SerializeAsString() + last.SerializeAsString()));
  ASSERT_THAT(decoded, IsOk());
  EXPECT_EQ(decoded->name(), "epoch_2");
}

struct FieldCase {
  const char* name;
  std::function<void(v1::CheckpointManifest&)> change;
  Code code;
  const char* message;
};

class ManifestFieldTest : public testing::TestWithParam<FieldCase> {};

TEST_P(ManifestFieldTest, IsRefusedByReaderAndWriter) {
  v1::CheckpointManifest manifest = Good();
  GetParam().change(manifest);
  EXPECT_THAT(DecodeManifest(Frame(manifest.SerializeAsString())),
              StatusIs(GetParam().code, HasSubstr(GetParam().message)));
  EXPECT_THAT(EncodeManifest(manifest),
              StatusIs(Code::kInvalidArgument, HasSubstr(GetParam().message)));
}

FieldCase FileName(const char* name, std::string file) {
  return {name, [file](auto& m) { m.mutable_files(0)->set_name(file); },
          Code::kDataLoss, "is not that of a file"};
}

FieldCase Negative(const char* name, void (v1::Progress::*set)(int64_t)) {
  return {name, [set](auto& m) { (m.mutable_progress()->*set)(-1); },
          Code::kDataLoss, "must be >= 0, is -1"};
}

INSTANTIATE_TEST_SUITE_P(
    All, ManifestFieldTest,
    testing::Values(
        FieldCase{"SchemaVersionZero",
                  [](auto& m) { m.clear_schema_version(); }, Code::kDataLoss,
                  "schema_version: must be >= 1"},
        FieldCase{"Row042SchemaVersionNewer",
                  [](auto& m) { m.set_schema_version(2); },
                  Code::kUnimplemented, "schema_version 2 is newer"},
        FieldCase{"Row043UnknownFeature",
                  [](auto& m) {
                    m.add_required_features("epoch_parts");
                    m.add_required_features("holograms");
                  },
                  Code::kUnimplemented, "\"holograms\" is unknown"},
        FieldCase{"NoName", [](auto& m) { m.clear_name(); }, Code::kDataLoss,
                  "name: \"\""},
        FieldCase{"NameWithSlash", [](auto& m) { m.set_name("../x"); },
                  Code::kDataLoss, "name: \"../x\""},
        FieldCase{"ShortUuid", [](auto& m) { m.set_checkpoint_uuid("u"); },
                  Code::kDataLoss, "checkpoint_uuid"},
        FieldCase{"Row056WorldSizeZero", [](auto& m) { m.clear_world_size(); },
                  Code::kDataLoss, "world_size: must be >= 1, is 0"},
        FieldCase{"NoFile", [](auto& m) { m.clear_files(), m.clear_tensors(); },
                  Code::kDataLoss, "lists no file"},
        FieldCase{"Row047FileTwice",
                  [](auto& m) { *m.add_files() = m.files(0); }, Code::kDataLoss,
                  "listed twice"},
        FileName("Row047FileAbsolute", "/etc/passwd"),
        FileName("Row047FileDots", ".."), FileName("Row047FileBelow", "a/b"),
        FileName("FileEmpty", ""), FileName("Row047FileHidden", ".x"),
        FileName("Row047FileLong", std::string(300, 'x')),
        FileName("FileNul", std::string("a\0b", 3)),
        FieldCase{"FileOf2To63Bytes",
                  [](auto& m) {
                    m.mutable_files(0)->set_num_bytes(uint64_t{1} << 63);
                  },
                  Code::kDataLoss, "num_bytes"},
        FieldCase{"FileDigestShort",
                  [](auto& m) { m.mutable_files(0)->set_xxh3_128("d"); },
                  Code::kDataLoss, "xxh3_128: must have 16 bytes, has 1"},
        FieldCase{"TensorInUnknownFile",
                  [](auto& m) { m.mutable_tensors(0)->set_file(1); },
                  Code::kDataLoss, "tensor \"w\": file: must be below 1, is 1"},
        FieldCase{"Row049TensorBehindTheEnd",
                  [](auto& m) { m.mutable_tensors(0)->set_num_bytes(21); },
                  Code::kDataLoss, "21 bytes at 80 of a file of 100"},
        FieldCase{"Row049TensorOffsetOverflows",
                  [](auto& m) {
                    m.mutable_tensors(0)->set_file_offset(~uint64_t{0});
                  },
                  Code::kDataLoss, "of a file of 100"},
        FieldCase{"TensorNegativeDim",
                  [](auto& m) { m.mutable_tensors(0)->set_shape(0, -5); },
                  Code::kDataLoss, "shape: must be >= 0, has -5"},
        FieldCase{"TensorRank65",
                  [](auto& m) {
                    m.mutable_tensors(0)->mutable_shape()->Resize(65, 1);
                  },
                  Code::kDataLoss, "65 dimensions"},
        FieldCase{"TensorNameEmpty",
                  [](auto& m) { m.mutable_tensors(0)->clear_name(); },
                  Code::kDataLoss, "name: must have 1 to 4096"},
        FieldCase{"Row058TensorNameOf10Mb",
                  [](auto& m) {
                    m.mutable_tensors(0)->set_name(std::string(10 << 20, 'n'));
                  },
                  Code::kDataLoss, "name: must have 1 to 4096"},
        FieldCase{"Row057AMillionTensors",
                  [](auto& m) {
                    for (int i = 0; i < 1'000'000; ++i) m.add_tensors();
                  },
                  Code::kResourceExhausted, "1000001 tensors"},
        FieldCase{"TooManyFiles",
                  [](auto& m) {
                    for (int i = 0; i < 10'000; ++i) m.add_files();
                  },
                  Code::kResourceExhausted, "10001 files"},
        Negative("Row054Epoch", &v1::Progress::set_epoch),
        Negative("Row054Iter", &v1::Progress::set_iter),
        Negative("Row054IterInEpoch", &v1::Progress::set_iter_in_epoch),
        Negative("Row054Updates", &v1::Progress::set_updates),
        Negative("Row054Samples", &v1::Progress::set_samples),
        Negative("Row054MaxEpochs", &v1::Progress::set_max_epochs),
        Negative("Row054MaxIters", &v1::Progress::set_max_iters),
        Negative("Row054Pass", &v1::Progress::set_pass),
        Negative("Row054SamplesInPass", &v1::Progress::set_samples_in_pass),
        FieldCase{"EpochLengthWithoutBatches",
                  [](auto& m) { m.mutable_progress()->add_epoch_lengths(); },
                  Code::kDataLoss, "progress.epoch_lengths[0]"},
        FieldCase{"EpochLengthBehindFewerThanNoSamples",
                  [](auto& m) {
                    auto* length = m.mutable_progress()->add_epoch_lengths();
                    length->set_num_batches(4);
                    length->set_samples(-1);
                  },
                  Code::kDataLoss, "progress.epoch_lengths[0]"},
        FieldCase{"EpochLengthWithFewerThanNoBatchesLeft",
                  [](auto& m) {
                    auto* length = m.mutable_progress()->add_epoch_lengths();
                    length->set_num_batches(4);
                    length->set_batches_left(-1);
                  },
                  Code::kDataLoss, "progress.epoch_lengths[0]"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ManifestCodecTest, NamesOfCheckpointsAndParts) {
  for (const char* name : {"epoch_5", "best_coco bbox-mAP_epoch_1", "a.b"}) {
    EXPECT_TRUE(IsCheckpointName(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."),
        std::string(".tmp-x"), std::string("a/b"), std::string("a\nb"),
        std::string("\xc3\xa9"), std::string(201, 'x')}) {
    EXPECT_FALSE(IsCheckpointName(name)) << name;
  }
  for (const char* name : {"model", "state_2"}) {
    EXPECT_TRUE(IsPartName(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("Model"), std::string("a.b"),
        std::string("a-b"), std::string(65, 'x')}) {
    EXPECT_FALSE(IsPartName(name)) << name;
  }
}

}  // namespace
}  // namespace io
}  // namespace grapnel
