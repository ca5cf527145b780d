#include "grapnel/io/sharded_weights.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/safetensors.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalidArgument =
    absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kDataLoss = absl::StatusCode::kDataLoss;

TEST(ParseShardIndexTest, ListsTensorsByShard) {
  const auto index = ParseShardIndex(R"( {
    "metadata": {"total_size": 1.5e10, "more": [{"x": [null, true, -1]}, "y"]},
    "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors",
                   "\u00e9.c": "m-2.safetensors"},
    "version": 1
  } )");
  ASSERT_THAT(index, IsOk());
  ASSERT_EQ(index->shards.size(), 2u);
  EXPECT_EQ(index->shards[0].file, "m-2.safetensors");
  EXPECT_THAT(index->shards[0].tensors, ElementsAre("a", "\xc3\xa9.c"));
  EXPECT_EQ(index->shards[1].file, "m-1.safetensors");
  EXPECT_THAT(index->shards[1].tensors, ElementsAre("b"));
}

TEST(ParseShardIndexTest, MayBeEmpty) {
  const auto index = ParseShardIndex(R"({"weight_map":{}})");
  ASSERT_THAT(index, IsOk());
  EXPECT_TRUE(index->shards.empty());
}

struct BadIndexCase {
  std::string name;
  std::string json;
  std::string message;
};

// An index with this for a file.
std::string File(absl::string_view file) {
  return absl::StrCat("{\"weight_map\":{\"a\":\"", file, "\"}}");
}

std::vector<BadIndexCase> BadIndexCases() {
  const auto nested = [](int depth) {
    return absl::StrCat("{\"metadata\":", std::string(depth, '['), "1",
                        std::string(depth, ']'), ",\"weight_map\":{}}");
  };
  EXPECT_THAT(ParseShardIndex(nested(16)), IsOk());
  const std::string no_file = " is not the name of one beside the index";
  return {
      {"Empty", "", "byte 0: not JSON"},
      {"NotJson", "{\"weight_map\":{\"a\":\"f\"},}", "byte 24: not JSON"},
      {"CutOff", "{\"weight_map\":{\"a\":\"f\"", "not JSON"},
      {"TextBehind", "{\"weight_map\":{}} x", "byte 18: not JSON"},
      {"HoldsANul", std::string("{\"weight_map\":{}}\0", 18), "holds a NUL"},
      {"NotUtf8", File("\xff"), "not JSON"},
      {"RootIsAnArray", "[]", "an array where an object is expected"},
      {"NoMap", "{\"metadata\":{}}", "has no \"weight_map\""},
      {"MapIsAString", "{\"weight_map\":\"f\"}",
       "weight_map: a string where an object is expected"},
      {"MapIsNull", "{\"weight_map\":null}",
       "weight_map: null where an object is expected"},
      {"MapTwice", "{\"weight_map\":{},\"weight_map\":{}}",
       "key \"weight_map\" comes twice"},
      {"FileIsANumber", "{\"weight_map\":{\"a\":1}}",
       "tensor \"a\": a number where a file's name is expected"},
      {"FileIsAnArray", "{\"weight_map\":{\"a\":[\"f\"]}}",
       "tensor \"a\": an array where a file's name is expected"},
      {"TensorTwice", R"({"weight_map":{"a":"f","a":"f"}})",
       "tensor \"a\" comes twice"},
      {"TensorTwiceByEscape", R"({"weight_map":{"a":"f","\u0061":"g"}})",
       "tensor \"a\" comes twice"},
      {"TensorWithoutName", R"({"weight_map":{"":"f"}})", "name is empty"},
      {"TensorWithNul", R"({"weight_map":{"a\u0000":"f"}})",
       "control character"},
      {"TensorLeavesTheDirectory", R"({"weight_map":{"../a":"f"}})",
       "holds \"..\""},
      {"Row058NameOf10Mb",
       absl::StrCat("{\"weight_map\":{\"", std::string(10 << 20, 'n'),
                    "\":\"f\"}}"),
       "has more than 4096 bytes"},
      {"NestedTooDeep", nested(17), "nested deeper than 16"},
      {"NestedVeryDeep", "{\"metadata\":" + std::string(1'000'000, '['),
       "nested deeper than 16"},
      // As of a manifest's files: row 47 of the list of bad inputs.
      {"Row047Absolute", File("/etc/passwd"),
       absl::StrCat("tensor \"a\": file \"/etc/passwd\"", no_file)},
      {"Row047Parent", File(".."), absl::StrCat("\"..\"", no_file)},
      {"Row047Directory", File("a/b"), absl::StrCat("\"a/b\"", no_file)},
      {"Row047LeadingDot", File(".f"), absl::StrCat("\".f\"", no_file)},
      {"Row047Long", File(std::string(300, 'f')), no_file},
      {"Row047NoName", File(""), no_file},
      {"Row047ControlCharacter", File("f\\u001b[2J"), no_file},
  };
}

class BadShardIndexTest : public ::testing::TestWithParam<BadIndexCase> {};

TEST_P(BadShardIndexTest, IsRefusedWithAReason) {
  EXPECT_THAT(ParseShardIndex(GetParam().json),
              StatusIs(kInvalidArgument, HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(All, BadShardIndexTest,
                         ::testing::ValuesIn(BadIndexCases()),
                         [](const auto& info) { return info.param.name; });

TEST(ParseShardIndexTest, Row057AMillionTensorsAreRefused) {
  const auto index = [](int count) {
    std::string json = "{\"weight_map\":{";
    for (int i = 0; i < count; ++i) {
      absl::StrAppend(&json, i == 0 ? "" : ",", "\"", i, "\":\"f\"");
    }
    return ParseShardIndex(json + "}}");
  };
  EXPECT_THAT(index(262'144), IsOk());
  EXPECT_THAT(index(1'000'000), StatusIs(absl::StatusCode::kResourceExhausted,
                                         "lists more than 262144 tensors"));
}

// Every file has a byte too many for an index, and none may be read.
class TooLargeFile : public RandomAccessFile {
 public:
  int64_t size() const override { return 100'000'001; }
  absl::Status Read(int64_t, int64_t, char*) const override {
    ADD_FAILURE() << "is read";
    return absl::OkStatus();
  }
};

class TooLargeEnv : public EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> NewRandomAccessFile(
      const std::string&) override {
    return std::make_unique<TooLargeFile>();
  }
};

TEST(ReadShardIndexTest, MoreThan100MbAreNotRead) {
  MemEnv empty;
  TooLargeEnv env(empty);
  EXPECT_THAT(ReadShardIndex(env, "/m/i.json"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "/m/i.json: has 100000001 bytes, more than 100000000"));
}

TEST(ReadShardIndexTest, WhatIsWrongNamesTheFile) {
  MemEnv env;
  ASSERT_THAT(env.CreateDir("/m"), IsOk());
  ASSERT_THAT(WriteFileAtomically(env, "/m/i.json", "[]"), IsOk());
  EXPECT_THAT(ReadShardIndex(env, "/m/i.json"),
              StatusIs(kInvalidArgument, HasSubstr("/m/i.json: an array")));
}

class ReadShardedWeightsTest : public ::testing::Test {
 protected:
  ReadShardedWeightsTest() {
    EXPECT_THAT(env_.CreateDir("/m"), IsOk());
    PutShard("/m/1", {"a", "b"});
    PutShard("/m/2", {"c"});
  }

  void PutShard(const std::string& path,
                const std::vector<std::string>& names) {
    TensorMap tensors;
    for (const std::string& name : names) {
      EXPECT_THAT(tensors.Add(name, ops::full({2}, name[0])), IsOk());
    }
    EXPECT_THAT(WriteSafetensors(env_, path, tensors), IsOk());
  }

  // With the members of a weight_map.
  absl::StatusOr<TensorMap> Read(const std::string& map) {
    GRAPNEL_RETURN_IF_ERROR(WriteFileAtomically(
        env_, "/m/i.json", absl::StrCat("{\"weight_map\":{", map, "}}")));
    return ReadShardedWeights(env_, "/m/i.json", [&](const std::string& path) {
      read_.push_back(path);
      return ReadSafetensors(env_, path);
    });
  }

  MemEnv env_;
  std::vector<std::string> read_;
};

TEST_F(ReadShardedWeightsTest, PutsTheShardsTogether) {
  const auto tensors = Read(R"("a":"1","c":"2","b":"1")");
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 3u);
  for (const char* const name : {"a", "b", "c"}) {
    ASSERT_NE(tensors->Find(name), nullptr);
    EXPECT_TRUE(tensors->Find(name)->equal(ops::full({2}, name[0])));
  }
  EXPECT_THAT(read_, ElementsAre("/m/1", "/m/2"));
}

TEST_F(ReadShardedWeightsTest, IndexAndShardsThatDifferAreNamed) {
  EXPECT_THAT(Read(R"("a":"1","b":"1","c":"2","d":"2")"),
              StatusIs(kDataLoss,
                       "/m/i.json: shard \"2\": tensor \"d\" isn't there, "
                       "but in the index"));
  EXPECT_THAT(Read(R"("a":"1","c":"2")"),
              StatusIs(kDataLoss,
                       "/m/i.json: shard \"1\": tensor \"b\" is there, but "
                       "in the index nowhere"));
  PutShard("/m/2", {"b", "c"});
  EXPECT_THAT(Read(R"("a":"1","b":"1","c":"2")"),
              StatusIs(kDataLoss,
                       "/m/i.json: shard \"2\": tensor \"b\" is there, but "
                       "in the index in \"1\""));
}

TEST_F(ReadShardedWeightsTest, AMissingShardIsNamedBeforeAnyIsRead) {
  EXPECT_THAT(Read(R"("a":"1","b":"1","c":"2","d":"3")"),
              StatusIs(kDataLoss,
                       "/m/i.json: shard \"3\", with tensor \"d\": isn't "
                       "there"));
  EXPECT_TRUE(read_.empty());
}

TEST_F(ReadShardedWeightsTest, WhatIsWrongWithAFileNamesIt) {
  EXPECT_THAT(WriteFileAtomically(env_, "/m/2", "x"), IsOk());
  EXPECT_THAT(
      Read(R"("a":"1","b":"1","c":"2")"),
      StatusIs(kInvalidArgument, AllOf(HasSubstr("/m/i.json: "),
                                       HasSubstr("/m/2: is not a safe"))));
  EXPECT_THAT(Read(R"("a":"/m/1")"),
              StatusIs(kInvalidArgument, HasSubstr("/m/i.json: tensor \"a\"")));
  EXPECT_THAT(ReadShardedWeights(env_, "/m/none", nullptr),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/m/none")));
}

}  // namespace
}  // namespace io
}  // namespace grapnel
