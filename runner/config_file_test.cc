#include "grapnel/runner/config_file.h"

#include <unistd.h>

#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/message_differencer.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/runner/config_file_test.pb.h"
#include "grapnel/runner/config_paths.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::google::protobuf::Any;
using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::util::MessageDifferencer;
using runner::config_file_test::v1::LooseConfig;
using runner::config_file_test::v1::Other;
using runner::config_file_test::v1::ShadowHookConfig;
using runner::config_file_test::v1::TwinHookConfig;
using runner::v1::RunnerConfig;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

template <typename C>
class HookOf : public Hook {
 public:
  using Config = C;
  static absl::StatusOr<std::unique_ptr<HookOf>> Create(const Config&) {
    return std::make_unique<HookOf>();
  }
  absl::string_view name() const override { return "test"; }
};

using ShadowHook = HookOf<ShadowHookConfig>;
using TwinHook = HookOf<TwinHookConfig>;
using OtherTwinHook = HookOf<Other::TwinHookConfig>;
GRAPNEL_REGISTER_HOOK(ShadowHook);
GRAPNEL_REGISTER_HOOK(TwinHook);
GRAPNEL_REGISTER_HOOK(OtherTwinHook);

constexpr char kShadowType[] =
    "type.googleapis.com/grapnel.runner.config_file_test.v1.ShadowHookConfig";

// The digits, and every way of nesting.
constexpr char kDigits[] = R"pb(
  work_dir: "work_dirs/digits"
  model {
    sequential {
      layers { conv2d { out_channels: 32 kernel_size: 3 padding: 1 } }
      layers { batch_norm2d {} }
      layers { relu {} }
      layers { max_pool2d { kernel_size: 2 } }
      layers { flatten {} }
      layers { dropout { p: 0.3 } }
      layers { linear { out_features: 10 } }
      loss { cross_entropy {} }
    }
  }
  train_dataloader {
    batch_size: 64
    num_workers: 1
    sampler { shuffle: true }
    dataset {
      idx { images: "train-images" labels: "train-labels" scale: 0.0625 }
    }
  }
  val_dataloader {
    batch_size: 64
    dataset {
      idx { images: "test-images" labels: "test-labels" scale: 0.0625 }
    }
  }
  train_cfg { by_epoch: true max_epochs: 20 val_interval: 1 }
  optim_wrapper { optimizer { adamw { lr: 0.002 weight_decay: 0.05 } } }
  param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 45 } }
  param_scheduler { cosine_annealing { t_max: 19 by_epoch: true begin: 1 } }
  val_evaluator { accuracy { topk: 1 } }
  default_hooks {
    checkpoint { interval: 1 max_keep_ckpts: 3 }
    logger { interval: 10 }
    off: "timer"
    priority { key: "logger" value: "LOW" }
    priority { key: "checkpoint" value: "95" }
  }
  custom_hooks {
    config {
      [hooks/ShadowHook] {
        momentum: 0.001
        mode: COSINE
        limit_by_name {
          key: "b"
          value { high: 2 }
        }
        limit_by_name {
          key: "a"
          value { low: 1 }
        }
        inner {
          [any.where/ShadowHookConfig] { names: "h\303\251" }
        }
      }
    }
    priority: "NORMAL"
  }
  randomness { seed: 0 }
)pb";

absl::StatusOr<RunnerConfig> ParseText(absl::string_view text) {
  return ParseRunnerConfig(text, ConfigFormat::kText, "x.textproto");
}

RunnerConfig Digits() {
  absl::StatusOr<RunnerConfig> config = ParseText(kDigits);
  EXPECT_THAT(config, IsOk());
  return config.value_or(RunnerConfig());
}

ShadowHookConfig Shadow(const RunnerConfig& config, int i = 0) {
  ShadowHookConfig shadow;
  EXPECT_TRUE(config.custom_hooks(i).config().UnpackTo(&shadow));
  return shadow;
}

// ----------------------------------------------------------------------
// formats

TEST(ConfigFormatTest, IsChosenByEnding) {
  EXPECT_EQ(*ConfigFormatOf("a/b.textproto"), ConfigFormat::kText);
  EXPECT_EQ(*ConfigFormatOf("b.pbtxt"), ConfigFormat::kText);
  EXPECT_EQ(*ConfigFormatOf("b.v2.json"), ConfigFormat::kJson);
  EXPECT_EQ(*ConfigFormatOf("b.binpb"), ConfigFormat::kBinary);
  EXPECT_THAT(ConfigFormatOf("digits.py"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(StartsWith("digits.py: "), HasSubstr(".textproto"),
                             HasSubstr(".json"))));
  EXPECT_FALSE(ConfigFormatOf("json").ok());
}

TEST(ConfigNameTest, IsTheFileWithoutFolderAndEnding) {
  EXPECT_EQ(ConfigName("examples/digits/digits.textproto"), "digits");
  EXPECT_EQ(ConfigName("/a.b/c.v2.json"), "c.v2");
  EXPECT_EQ(ConfigName("plain"), "plain");
}

TEST(ParseRunnerConfigTest, GivesEveryAnyItsFullTypeName) {
  const RunnerConfig config = Digits();
  EXPECT_EQ(config.custom_hooks(0).config().type_url(), kShadowType);
  EXPECT_EQ(Shadow(config).inner().type_url(), kShadowType);
}

// A name that a user may write in brackets.
class TypeNameTest : public testing::TestWithParam<const char*> {};

TEST_P(TypeNameTest, FindsTheConfig) {
  absl::StatusOr<RunnerConfig> config = ParseText(absl::StrCat(
      "custom_hooks { config { [", GetParam(), "] { momentum: 0.5 } } }"));
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->custom_hooks(0).config().type_url(), kShadowType);
  EXPECT_EQ(Shadow(*config).momentum(), 0.5);
}

INSTANTIATE_TEST_SUITE_P(
    All, TypeNameTest,
    testing::Values("hooks/ShadowHook", "hooks/ShadowHookConfig",
                    "x.y.z/ShadowHook", "any/v1.ShadowHook",
                    "any/config_file_test.v1.ShadowHookConfig",
                    "type.googleapis.com/grapnel.runner.config_file_test.v1."
                    "ShadowHookConfig"));

TEST(ParseRunnerConfigTest, AcceptsALinkedTypeThatIsNotRegisteredByFullName) {
  absl::StatusOr<RunnerConfig> config = ParseText(
      "custom_hooks { config { [t/grapnel.runner.config_file_test.v1."
      "LooseConfig] { x: 3 } } }");
  ASSERT_THAT(config, IsOk());
  LooseConfig loose;
  ASSERT_TRUE(config->custom_hooks(0).config().UnpackTo(&loose));
  EXPECT_EQ(loose.x(), 3);
}

// "Row109..." are those of a numbered list of bad inputs that all readers here
// are tested with. Rows 114 and 115, numbers that are infinite or no numbers,
// and what of 120 only shows when hooks are made: tests/e2e/runner_test.cc.
struct BadText {
  const char* name;
  std::string text;
  std::string message;  // All of it.
};

class BadTextTest : public testing::TestWithParam<BadText> {};

TEST_P(BadTextTest, IsRefusedWithItsPlace) {
  testing::internal::CaptureStderr();
  EXPECT_THAT(
      ParseText(GetParam().text),
      StatusIs(absl::StatusCode::kInvalidArgument, Eq(GetParam().message)));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

INSTANTIATE_TEST_SUITE_P(
    All, BadTextTest,
    testing::ValuesIn(std::vector<BadText>{
        {"Row109UnknownField",
         "optim_wrapper {\n optimizer { sgd {\n  momentun: 0.9\n } } }",
         "x.textproto:3:3: no field \"momentun\" in SgdConfig; did you mean "
         "\"momentum\"?"},
        {"UnknownFieldAtTheTop", "modle { }",
         "x.textproto:1:1: no field \"modle\" in RunnerConfig; did you mean "
         "\"model\"?"},
        {"UnknownFieldUnlikeAnyOther", "qqqqqqqqq: 1",
         "x.textproto:1:1: no field \"qqqqqqqqq\" in RunnerConfig"},
        {"UnknownFieldInAny",
         "custom_hooks { config { [h/ShadowHook] {\n\tmomentun: 1 } } }",
         "x.textproto:2:9: no field \"momentun\" in ShadowHookConfig; did you "
         "mean \"momentum\"?"},
        {"UnknownFieldInAnyInAny",
         "custom_hooks { config { [h/ShadowHook] { inner <[h/ShadowHook] "
         "{\nmomentun: 1 }> } } }",
         "x.textproto:2:1: no field \"momentun\" in ShadowHookConfig; did you "
         "mean \"momentum\"?"},
        {"UnknownFieldInListOfMessages",
         "param_scheduler: [ { linear {} }, { lineer {} } ]",
         "x.textproto:1:37: no field \"lineer\" in ParamSchedulerConfig; did "
         "you mean \"linear\"?"},
        {"UnknownEnumValue",
         "train_dataloader {\n  sampler { type: INFINIT } }",
         "x.textproto:2:19: type: no value INFINIT in Type; did you mean "
         "\"INFINITE\"?"},
        {"UnknownEnumValueOfAFieldWithTheSameName",
         "optim_wrapper { clip_grad { type: VALU } }",
         "x.textproto:1:35: type: no value VALU in Type; did you mean "
         "\"VALUE\"?"},
        {"UnknownEnumNumber", "optim_wrapper { clip_grad { type: 7 } }",
         "x.textproto: optim_wrapper: clip_grad: type: no value 7 in Type"},
        {"UnknownTypeInAny",
         "custom_hooks {\n config { [hooks/ShadwHook] {} } }",
         "x.textproto:2:11: no message type \"ShadwHook\" is linked in; did "
         "you mean \"ShadowHookConfig\"?"},
        {"UnknownTypeUnlikeAnyOther",
         "custom_hooks { config { [a/Zzzzzz] {} } }",
         "x.textproto:1:25: no message type \"Zzzzzz\" is linked in; depend on "
         "the target that defines it"},
        {"AmbiguousType", "custom_hooks { config { [hooks/TwinHook] {} } }",
         "x.textproto:1:25: \"TwinHook\" may be "
         "grapnel.runner.config_file_test.v1.Other.TwinHookConfig or "
         "grapnel.runner.config_file_test.v1.TwinHookConfig; write it in full"},
        {"TypeWithoutPrefix", "custom_hooks { config { [ShadowHook] {} } }",
         "x.textproto:1:36: a type in brackets has a prefix: "
         "[hooks/EarlyStoppingHook]"},
        {"AnyInAny", "custom_hooks { config { [a/google.protobuf.Any] {} } }",
         "x.textproto:1:25: an Any may not hold another one"},
        {"UnlinkedTypeUrl",
         "custom_hooks { config { type_url: \"t/my.Type\" } }",
         "x.textproto: custom_hooks[0]: config: no message type \"my.Type\" is "
         "linked in; depend on the target that defines it"},
        {"WrongType", "train_cfg { max_epochs: \"ten\" }",
         "x.textproto:1:25: expected integer, got: \"ten\""},
        {"Row111Overflow", "train_cfg { max_epochs: 9223372036854775808 }",
         "x.textproto:1:25: integer out of range (9223372036854775808)"},
        {"MissingBrace", "train_cfg { max_epochs: 3",
         "x.textproto:1:26: expected identifier, got: "},
        {"Row110DuplicateScalar", "work_dir: \"a\" work_dir: \"b\"",
         "x.textproto:1:23: non-repeated field \"work_dir\" is specified "
         "multiple times"},
        {"TwoMembersOfAOneof", "optim_wrapper { optimizer { sgd {} adam {} } }",
         "x.textproto:1:41: field \"adam\" is specified along with field "
         "\"sgd\", another member of oneof \"kind\""},
        {"Row112UnterminatedString", "work_dir: \"a\n",
         "x.textproto:1:13: string literals cannot cross line boundaries"},
        {"Row113Nul", std::string("work_dir\0: 'a'", 14),
         "x.textproto:1:9: invalid control characters encountered in text"},
        {"Row116NotUtf8", "# fine\nwork_dir: '\xff'",
         "x.textproto:2:12: not UTF-8"},
        {"Row116EscapedNotUtf8", "work_dir: 'ab\\xff'",
         "x.textproto: work_dir: not UTF-8 from byte 2 on: \"ab\\xff\""},
        {"OverlongUtf8", "work_dir: '\xc0\xaf'", "x.textproto:1:12: not UTF-8"},
        {"NotUtf8InAny",
         "custom_hooks { config { [h/ShadowHook] { names: '\\xff' } } }",
         "x.textproto: custom_hooks[0]: config: not a valid "
         "grapnel.runner.config_file_test.v1.ShadowHookConfig"},
        {"NotUtf8InATypeUrl",
         "custom_hooks { config { type_url: \"t/a\\x1b[2J\\xff\\n\" } }",
         "x.textproto: custom_hooks[0]: config: no message type "
         "\"a?[2J\\xff?\" "
         "is linked in; depend on the target that defines it"},
        {"Surrogate", "work_dir: '\xed\xa0\x80'",
         "x.textproto:1:12: not UTF-8"},
        {"CutUtf8", "work_dir: 'a'#\xe2\x82", "x.textproto:1:15: not UTF-8"},
        {"Row117DuplicateMapKey",
         "default_hooks { priority { key: 'a' value: '1' } "
         "priority { key: 'a' value: '2' } }",
         "x.textproto: default_hooks: priority: key \"a\" is given twice"},
        {"Row118Empty", "", "x.textproto: sets nothing"},
        {"CommentsOnly", "# nothing\n", "x.textproto: sets nothing"},
        {"Row120UnknownHook", "default_hooks { chekpoint {} }",
         "x.textproto:1:17: no field \"chekpoint\" in DefaultHooksConfig; did "
         "you mean \"checkpoint\"?"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ParseRunnerConfigTest, Row107NestingIsLimited) {
  std::string text;
  for (int i = 0; i < 100000; ++i) absl::StrAppend(&text, "c{");
  EXPECT_FALSE(ParseText(text).ok());

  text = "model { sequential { ";
  for (int i = 0; i < 100000; ++i) {
    absl::StrAppend(&text, "layers { sequential {");
  }
  EXPECT_THAT(ParseText(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("too deep")));

  text = "custom_hooks { config { ";
  for (int i = 0; i < 100000; ++i) {
    absl::StrAppend(&text, "[a/google.protobuf.Any] {");
  }
  EXPECT_FALSE(ParseText(text).ok());
}

TEST(ParseRunnerConfigTest, NestingOfBytesInAnyIsLimited) {
  ShadowHookConfig shadow;
  for (int i = 0; i < 150; ++i) {
    ShadowHookConfig outer;
    outer.mutable_inner()->PackFrom(shadow);
    shadow = outer;
  }
  RunnerConfig config;
  config.add_custom_hooks()->mutable_config()->PackFrom(shadow);
  EXPECT_THAT(ParseRunnerConfig(config.SerializeAsString(),
                                ConfigFormat::kBinary, "x.pb"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       EndsWith("nested more than 100 deep")));
}

TEST(ParseRunnerConfigTest, Row108SizeIsLimited) {
  std::string text = "work_dir: 'a'\n#";
  text.resize(kMaxConfigBytes, '#');
  EXPECT_THAT(ParseText(text), IsOk());
  text.push_back('#');
  EXPECT_THAT(ParseText(text), StatusIs(absl::StatusCode::kResourceExhausted,
                                        StartsWith("x.textproto: ")));
}

TEST(ParseRunnerConfigTest, BytesWithUnknownFieldsAreRefused) {
  RunnerConfig config = Digits();
  config.mutable_optim_wrapper()->mutable_optimizer()->mutable_adamw();
  auto* adamw =
      config.mutable_optim_wrapper()->mutable_optimizer()->mutable_adamw();
  adamw->GetReflection()->MutableUnknownFields(adamw)->AddVarint(77, 1);
  EXPECT_THAT(ParseRunnerConfig(config.SerializeAsString(),
                                ConfigFormat::kBinary, "x.pb"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "x.pb: optim_wrapper: optimizer: adamw: no field number "
                       "77 in AdamWConfig"));

  config = Digits();
  ShadowHookConfig shadow;
  shadow.GetReflection()->MutableUnknownFields(&shadow)->AddVarint(77, 1);
  config.mutable_custom_hooks(0)->mutable_config()->PackFrom(shadow);
  EXPECT_THAT(
      ParseRunnerConfig(config.SerializeAsString(), ConfigFormat::kBinary, "x"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "x: custom_hooks[0]: config: no field number 77 in "
               "ShadowHookConfig"));
}

TEST(ParseRunnerConfigTest, BytesThatAreNoConfigAreRefused) {
  EXPECT_THAT(
      ParseRunnerConfig("\xff\xff\xff", ConfigFormat::kBinary, "x.pb"),
      StatusIs(absl::StatusCode::kInvalidArgument, StartsWith("x.pb: ")));
  RunnerConfig config;
  Any* any = config.add_custom_hooks()->mutable_config();
  any->set_type_url(kShadowType);
  any->set_value("\xff\xff\xff");
  EXPECT_THAT(
      ParseRunnerConfig(config.SerializeAsString(), ConfigFormat::kBinary, "x"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("custom_hooks[0]: config: not a valid")));
}

struct BadJson {
  const char* name;
  std::string text;
  const char* message;  // All of it.
};

class BadJsonTest : public testing::TestWithParam<BadJson> {};

TEST_P(BadJsonTest, IsRefusedInOneLine) {
  EXPECT_THAT(
      ParseRunnerConfig(GetParam().text, ConfigFormat::kJson, "x.json"),
      StatusIs(absl::StatusCode::kInvalidArgument, Eq(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadJsonTest,
    testing::ValuesIn(std::vector<BadJson>{
        {"UnknownField",
         R"({"optim_wrapper": {"optimizer": {"sgd": {"momentun": 1}}}})",
         "x.json: optim_wrapper.optimizer.sgd: no field \"momentun\" in "
         "SgdConfig; did you mean \"momentum\"?"},
        {"UnknownFieldInList",
         R"({"paramScheduler": [{"linear": {}}, {"linear": {"ennd": 3}}]})",
         "x.json: param_scheduler[1].linear: no field \"ennd\" in "
         "LinearSchedulerConfig; did you mean \"end\"?"},
        {"UnknownFieldAtTheTop", R"({"modle": {}})",
         "x.json: no field \"modle\"; did you mean \"model\"?"},
        {"WrongType", R"({"train_cfg": {"max_epochs": 1.5}})",
         "x.json: (train_cfg.max_epochs): invalid value 1.5 for type "
         "TYPE_INT64"},
        {"DuplicateMapKey",
         R"({"default_hooks": {"priority": {"a": "1", "a": "2"}}})",
         "x.json: (default_hooks.priority[0]) a: Repeated map key: 'a' is "
         "already set"},
        {"Cut", "{\"work_dir\": ",
         "x.json: unexpected end of string. Expected a value"},
        {"BadToken", R"({"randomness": {"seed": NaN}})",
         "x.json: unexpected token at \"NaN}}\""},
        {"NotUtf8", "{\"work_dir\": \"\xff\"}", "x.json:1:15: not UTF-8"},
        {"NoObject", "[]", "x.json: root element must be a message"},
        {"NoContent", "", "x.json: unexpected end of string. Expected a value"},
        {"EmptyObject", "{}", "x.json: sets nothing"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ParseRunnerConfigTest, NestingOfJsonIsLimited) {
  std::string text = "{\"model\": {\"sequential\": {\"layers\": ";
  for (int i = 0; i < 100000; ++i) {
    absl::StrAppend(&text, "[{\"sequential\": {\"layers\": ");
  }
  EXPECT_THAT(ParseRunnerConfig(text, ConfigFormat::kJson, "x.json"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("x.json: message too deep")));
  EXPECT_FALSE(
      ParseRunnerConfig(std::string(100000, '['), ConfigFormat::kJson, "x")
          .ok());
}

TEST(ParseRunnerConfigTest, AllFormatsGiveTheSame) {
  const RunnerConfig config = Digits();
  absl::StatusOr<RunnerConfig> from_text = ParseText(PrintRunnerConfig(config));
  ASSERT_THAT(from_text, IsOk());
  EXPECT_TRUE(MessageDifferencer::Equals(config, *from_text));

  absl::StatusOr<RunnerConfig> from_bytes = ParseRunnerConfig(
      config.SerializeAsString(), ConfigFormat::kBinary, "x.pb");
  ASSERT_THAT(from_bytes, IsOk());
  EXPECT_TRUE(MessageDifferencer::Equals(config, *from_bytes));

  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(config, &json).ok());
  absl::StatusOr<RunnerConfig> from_json =
      ParseRunnerConfig(json, ConfigFormat::kJson, "x.json");
  ASSERT_THAT(from_json, IsOk());
  EXPECT_EQ(PrintRunnerConfig(*from_json), PrintRunnerConfig(config));
}

TEST(PrintRunnerConfigTest, NamesItsTypeAndExpandsEveryAny) {
  const std::string text = PrintRunnerConfig(Digits());
  EXPECT_THAT(text,
              StartsWith("# proto-file: grapnel/runner/runner_config.proto\n"
                         "# proto-message: grapnel.runner.v1.RunnerConfig\n"
                         "model {\n"));
  EXPECT_THAT(text, HasSubstr(absl::StrCat("    [", kShadowType,
                                           "] {\n"
                                           "      momentum: 0.001\n")));
  EXPECT_THAT(text, HasSubstr("names: \"h\xc3\xa9\""));
  EXPECT_THAT(text, Not(HasSubstr("type_url")));
}

TEST(PrintRunnerConfigTest, DoesNotDependOnTheOrderOfMapEntries) {
  const std::string reordered = absl::StrReplaceAll(
      kDigits,
      {{"key: \"b\" value { high: 2 }", "key: \"a\" value { low: 1 }"},
       {"key: \"a\" value { low: 1 }", "key: \"b\" value { high: 2 }"},
       {"key: \"logger\" value: \"LOW\"", "key: \"checkpoint\" value: \"95\""},
       {"key: \"checkpoint\" value: \"95\"",
        "key: \"logger\" value: \"LOW\""}});
  ASSERT_NE(reordered, kDigits);
  absl::StatusOr<RunnerConfig> config = ParseText(reordered);
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(PrintRunnerConfig(*config), PrintRunnerConfig(Digits()));
  EXPECT_EQ(config->custom_hooks(0).config().value(),
            Digits().custom_hooks(0).config().value());
}

TEST(LoadRunnerConfigTest, ReadsAFileByItsEnding) {
  const std::string path = testing::TempDir() + "/load.textproto";
  ASSERT_THAT(io::WriteFileAtomically(io::Env::Posix(), path, kDigits), IsOk());
  absl::StatusOr<RunnerConfig> config =
      LoadRunnerConfig(io::Env::Posix(), path);
  ASSERT_THAT(config, IsOk());
  EXPECT_TRUE(MessageDifferencer::Equals(*config, Digits()));
}

TEST(LoadRunnerConfigTest, NamesTheFileThatIsNotThere) {
  EXPECT_THAT(
      LoadRunnerConfig(io::Env::Posix(), "/no/such.textproto"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such.textproto")));
  EXPECT_FALSE(LoadRunnerConfig(io::Env::Posix(), testing::TempDir()).ok());
}

struct MisspelledFile {
  std::string name;
  std::string typed;
  std::string error;  // What it ends in.
};

void PrintTo(const MisspelledFile& c, std::ostream* os) { *os << c.typed; }

class MisspelledFileTest : public testing::TestWithParam<MisspelledFile> {};

TEST_P(MisspelledFileTest, OneBesideItIsSuggested) {
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/c"), IsOk());
  ASSERT_THAT(env.CreateDir("/c/folder.textproto"), IsOk());
  for (const char* const file :
       {"/c/digits.json", "/c/digits.textproto", "/c/digits.py",
        "/c/strange\n.txtpb", "/c/my.own.textproto"}) {
    ASSERT_THAT(io::WriteFileAtomically(env, file, ""), IsOk());
  }
  const absl::Status status = LoadRunnerConfig(env, GetParam().typed).status();
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(absl::EndsWith(status.message(), GetParam().error)) << status;
}

INSTANTIATE_TEST_SUITE_P(
    , MisspelledFileTest,
    testing::ValuesIn(std::vector<MisspelledFile>{
        {"Ending", "/c/digits.textprot",
         "; did you mean \"/c/digits.textproto\"?"},
        {"EndingOfAnotherFile", "/c/digits.py",
         "; did you mean \"/c/digits.json\"?"},
        {"NoEnding", "/c/digits", "; did you mean \"/c/digits.json\"?"},
        {"Name", "/c/digts.textproto",
         "; did you mean \"/c/digits.textproto\"?"},
        {"NameOfAnotherFormat", "/c/diigts.json",
         "; did you mean \"/c/digits.json\"?"},
        {"NoEndingBehindADot", "/c/my.own",
         "; did you mean \"/c/my.own.textproto\"?"},
        {"NothingIsObeyedByATerminal", "/c/strange.txtpb",
         "; did you mean \"/c/strange?.txtpb\"?"},
        {"NothingLikeIt", "/c/letters.textproto", "no such file or directory"},
        {"AFolder", "/c/foldr.textproto", "no such file or directory"},
        {"NoSuchFolder", "/d/digits.textprot", ".binpb"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(LoadRunnerConfigTest, SuggestsAFileInTheCurrentFolder) {
  // Of a path as it was typed.
  ASSERT_EQ(chdir(testing::TempDir().c_str()), 0);
  ASSERT_THAT(
      io::WriteFileAtomically(io::Env::Posix(), "nearby.textproto", kDigits),
      IsOk());
  EXPECT_THAT(LoadRunnerConfig(io::Env::Posix(), "nerby.textproto"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("did you mean \"nearby.textproto\"?")));
}

TEST(LoadRunnerConfigTest, Row119RefusesADeviceUnread) {
  const std::string path = testing::TempDir() + "/zero.textproto";
  ASSERT_EQ(symlink("/dev/zero", path.c_str()), 0);
  EXPECT_THAT(LoadRunnerConfig(io::Env::Posix(), path),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path)));
}

TEST(LoadRunnerConfigTest, RefusesALargeFileUnread) {
  const std::string path = testing::TempDir() + "/large.json";
  ASSERT_THAT(io::WriteFileAtomically(io::Env::Posix(), path,
                                      std::string(kMaxConfigBytes + 1, ' ')),
              IsOk());
  EXPECT_THAT(LoadRunnerConfig(io::Env::Posix(), path),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(path)));
}

// --------------------------------------------------------------------
// overrides

struct FieldCase {
  const char* name;
  const char* assignment;
  const char* expected;  // A line of the printed config, from its field on.
};

class OverrideTest : public testing::TestWithParam<FieldCase> {};

TEST_P(OverrideTest, SetsTheField) {
  RunnerConfig config = Digits();
  ASSERT_THAT(ApplyOverride(GetParam().assignment, "", &config), IsOk());
  const std::string before = PrintRunnerConfig(Digits());
  const std::string after = PrintRunnerConfig(config);
  EXPECT_THAT(before, Not(HasSubstr(GetParam().expected)));
  EXPECT_THAT(after, HasSubstr(GetParam().expected));
  EXPECT_THAT(ParseText(after), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    All, OverrideTest,
    testing::ValuesIn(std::vector<FieldCase>{
        {"Integer", "train_cfg.max_epochs=3", "max_epochs: 3\n"},
        {"Double", "optim_wrapper.optimizer.adamw.lr=1e-3", "lr: 0.001\n"},
        {"NegativeDouble", "optim_wrapper.optimizer.adamw.lr=-.5",
         "lr: -0.5\n"},
        {"Bool", "train_dataloader.drop_last=True", "drop_last: true\n"},
        {"String", "work_dir=a b", "work_dir: \"a b\"\n"},
        {"QuotedString", "work_dir=\"a=b\"", "work_dir: \"a=b\"\n"},
        {"StringWithQuoteInside", "work_dir=a\"b", "work_dir: \"a\\\"b\"\n"},
        {"StringWithEquals", "work_dir=a=b", "work_dir: \"a=b\"\n"},
        {"EmptyString", "work_dir=", "work_dir: \"\"\n"},
        {"Enum", "train_dataloader.sampler.type=INFINITE", "type: INFINITE\n"},
        {"ListIndex", "param_scheduler.0.linear.end=10", "end: 10\n"},
        {"ListIndexInBrackets", "param_scheduler[1].cosine_annealing.t_max=7",
         "t_max: 7\n"},
        {"Append", "param_scheduler.2.linear.end=99", "end: 99\n"},
        {"HookByItsName", "default_hooks.iter_timer={}", "timer {\n  }\n"},
        {"HooksPriorityByItsName", "default_hooks.priority.iter_timer=LOW",
         "key: \"timer\"\n    value: \"LOW\"\n"},
        {"HookOffByItsName", "default_hooks.off=[dist_sampler_seed]",
         "off: \"sampler_seed\"\n"},
        {"AppendScalar", "default_hooks.off.1=logger", "off: \"logger\"\n"},
        {"ScalarElement", "val_evaluator.0.accuracy.topk.0=5", "topk: 5\n"},
        {"ListOfNumbers", "val_evaluator.0.accuracy.topk=[1,5]",
         "topk: 1\n    topk: 5\n"},
        {"ListWithoutBrackets", "val_evaluator.0.accuracy.topk=2, 6",
         "topk: 2\n    topk: 6\n"},
        {"ListOfStrings", "default_hooks.off=[logger, \"a,b\"]",
         "off: \"logger\"\n  off: \"a,b\"\n"},
        {"ListOfMessages", "param_scheduler=[{linear{end: 3}}, {linear{}}]",
         "param_scheduler {\n  linear {\n    end: 3\n  }\n}\n"
         "param_scheduler {\n  linear {\n  }\n}\n"},
        {"Message", "train_cfg={max_iters: 5}",
         "train_cfg {\n  max_iters: 5\n}\n"},
        {"EmptyMessage", "auto_scale_lr={}", "auto_scale_lr {\n}\n"},
        {"ElementMessage", "param_scheduler.1={linear{end: 3}}", "end: 3\n"},
        {"OneofMember", "optim_wrapper.optimizer.sgd.momentum=0.9",
         "optimizer {\n    sgd {\n      momentum: 0.9\n    }\n  }\n"},
        {"MapValue", "default_hooks.priority.logger=HIGH", "value: \"HIGH\"\n"},
        {"NewMapKey", "default_hooks.priority[\"a.b\"]=7", "key: \"a.b\"\n"},
        {"InAny", "custom_hooks.0.config.momentum=0.25", "momentum: 0.25\n"},
        {"EnumInAny", "custom_hooks.0.config.mode=LINEAR", "mode: LINEAR\n"},
        {"InAnyInAny", "custom_hooks.0.config.inner.momentum=0.125",
         "momentum: 0.125\n"},
        {"MapOfMessagesInAny", "custom_hooks.0.config.limit_by_name.a.high=31",
         "high: 31\n"},
        {"NewKeyOfMapOfMessages",
         "custom_hooks.0.config.limit_by_name.c.high=31", "key: \"c\"\n"},
        {"NumberAsMapKey", "custom_hooks.0.config.weights.12=0.5", "key: 12\n"},
        {"WholeAny",
         "custom_hooks.0.config={[h/grapnel.runner.config_file_test.v1."
         "TwinHookConfig]{}}",
         "v1.TwinHookConfig] {\n"},
        {"AppendedAny",
         "custom_hooks.1={config{[h/ShadowHook]{momentum: 8}} priority: '3'}",
         "momentum: 8\n"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ApplyOverrideTest, LeavesTheRestAsItWas) {
  RunnerConfig config = Digits();
  ASSERT_THAT(ApplyOverride("custom_hooks.0.config.limit_by_name.a.high=31", "",
                            &config),
              IsOk());
  const ShadowHookConfig shadow = Shadow(config);
  EXPECT_EQ(shadow.limit_by_name().at("a").high(), 31);
  EXPECT_EQ(shadow.limit_by_name().at("a").low(), 1);
  EXPECT_EQ(shadow.limit_by_name().at("b").high(), 2);
  EXPECT_EQ(shadow.momentum(), 0.001);
  config.clear_custom_hooks();
  RunnerConfig rest = Digits();
  rest.clear_custom_hooks();
  EXPECT_TRUE(MessageDifferencer::Equals(config, rest));
}

TEST(ApplyOverrideTest, EmptyListClears) {
  RunnerConfig config = Digits();
  ASSERT_THAT(ApplyOverride("custom_hooks=[]", "", &config), IsOk());
  EXPECT_EQ(config.custom_hooks_size(), 0);
}

TEST(ApplyOverrideTest, ReplacesAMessageAsAWhole) {
  RunnerConfig config = Digits();
  ASSERT_THAT(ApplyOverride("train_cfg={max_iters: 5}", "", &config), IsOk());
  EXPECT_FALSE(config.train_cfg().has_max_epochs());
}

TEST(ApplyOverrideTest, PathsStartAtTheGivenFolder) {
  RunnerConfig config;
  for (const char* assignment :
       {"work_dir=w", "load_from=/l", "model={torch_script{path: 'm.pt'}}",
        "train_dataloader.dataset.idx.images=i",
        "val_dataloader.dataset={image_folder{root: 'r'}}",
        "default_hooks.checkpoint.out_dir=o",
        "default_hooks.logger={out_dir: 'l/'}", "experiment_name=e"}) {
    ASSERT_THAT(ApplyOverride(assignment, "/base", &config), IsOk());
  }
  EXPECT_EQ(config.work_dir(), "/base/w");
  EXPECT_EQ(config.load_from(), "/l");
  EXPECT_EQ(config.model().torch_script().path(), "/base/m.pt");
  EXPECT_EQ(config.train_dataloader().dataset().idx().images(), "/base/i");
  EXPECT_EQ(config.val_dataloader().dataset().image_folder().root(), "/base/r");
  EXPECT_EQ(config.default_hooks().checkpoint().out_dir(), "/base/o");
  EXPECT_EQ(config.default_hooks().logger().out_dir(), "/base/l/");
  EXPECT_EQ(config.experiment_name(), "e");
}

TEST(ApplyOverrideTest, PathsOfAnybodysMessagesStartThereToo) {
  RunnerConfig config = Digits();
  for (const char* assignment :
       {"custom_hooks.0.config.file=f", "custom_hooks.0.config.files=[a, /b]",
        "custom_hooks.0.config.files.2=c", "custom_hooks.0.config.names=n",
        "custom_hooks.0.config.inner.file=i",
        "custom_hooks.1={config{[h/ShadowHook]{file: 'w' files: ['x', ''] "
        "inner{[h/ShadowHook]{file: 'y'}}}}}",
        "custom_hooks.2={config{[h/grapnel.runner.config_file_test.v1."
        "TwinHookConfig]{}}}"}) {
    ASSERT_THAT(ApplyOverride(assignment, "/base", &config), IsOk())
        << assignment;
  }
  const ShadowHookConfig shadow = Shadow(config);
  EXPECT_EQ(shadow.file(), "/base/f");
  EXPECT_THAT(shadow.files(), testing::ElementsAre("/base/a", "/b", "/base/c"));
  EXPECT_THAT(shadow.names(), testing::ElementsAre("n"));
  ShadowHookConfig inner;
  ASSERT_TRUE(shadow.inner().UnpackTo(&inner));
  EXPECT_EQ(inner.file(), "/base/i");
  const ShadowHookConfig whole = Shadow(config, 1);
  EXPECT_EQ(whole.file(), "/base/w");
  EXPECT_THAT(whole.files(), testing::ElementsAre("/base/x", ""));
  ASSERT_TRUE(whole.inner().UnpackTo(&inner));
  EXPECT_EQ(inner.file(), "/base/y");
}

// A field that holds a path and isn't marked is found by this list alone: look
// at it when you add one.
TEST(PathFieldTest, TheseAreMarked) {
  std::set<std::string> marked;
  std::set<const Descriptor*> seen;
  std::vector<const Descriptor*> open = {RunnerConfig::descriptor()};
  while (!open.empty()) {
    const Descriptor* const type = open.back();
    open.pop_back();
    if (!seen.insert(type).second) continue;
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* const field = type->field(i);
      if (IsPathField(*field)) marked.insert(field->full_name());
      if (field->message_type() != nullptr) {
        open.push_back(field->message_type());
      }
    }
  }
  EXPECT_THAT(marked, testing::ElementsAre(
                          "grapnel.data.v1.IdxDatasetConfig.images",
                          "grapnel.data.v1.IdxDatasetConfig.labels",
                          "grapnel.data.v1.ImageFolderConfig.root",
                          "grapnel.hooks.v1.CheckpointHookConfig.out_dir",
                          "grapnel.hooks.v1.LoggerHookConfig.out_dir",
                          "grapnel.models.v1.TorchScriptConfig.path",
                          "grapnel.runner.v1.RunnerConfig.load_from",
                          "grapnel.runner.v1.RunnerConfig.work_dir"));
}

TEST(RebasePathsTest, EveryRelativePathGetsTheBase) {
  absl::StatusOr<RunnerConfig> config = ParseText(R"(
      work_dir: "." load_from: "../l"
      model { torch_script { path: "m.pt" } }
      train_dataloader { dataset { idx { images: "i" labels: "/l" } } }
      val_dataloader { dataset { image_folder { root: "./r" } } }
      experiment_name: "e")");
  ASSERT_THAT(config, IsOk());
  ASSERT_THAT(RebasePaths("/base", &*config), IsOk());
  EXPECT_EQ(config->work_dir(), "/base");
  EXPECT_EQ(config->load_from(), "/base/../l");
  EXPECT_EQ(config->model().torch_script().path(), "/base/m.pt");
  EXPECT_EQ(config->train_dataloader().dataset().idx().images(), "/base/i");
  EXPECT_EQ(config->train_dataloader().dataset().idx().labels(), "/l");
  EXPECT_EQ(config->val_dataloader().dataset().image_folder().root(),
            "/base/r");
  EXPECT_EQ(config->experiment_name(), "e");
  EXPECT_FALSE(config->val_dataloader().dataset().has_idx());

  const RunnerConfig once = *config;
  ASSERT_THAT(RebasePaths("/other", &*config), IsOk());
  EXPECT_TRUE(MessageDifferencer::Equals(*config, once));
}

struct BadOverride {
  const char* name;
  const char* assignment;
  const char* message;  // All of it.
};

class BadOverrideTest : public testing::TestWithParam<BadOverride> {};

TEST_P(BadOverrideTest, IsRefusedAndChangesNothing) {
  RunnerConfig config = Digits();
  EXPECT_THAT(
      ApplyOverride(GetParam().assignment, "", &config),
      StatusIs(absl::StatusCode::kInvalidArgument, Eq(GetParam().message)));
  EXPECT_TRUE(MessageDifferencer::Equals(config, Digits()));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadOverrideTest,
    testing::ValuesIn(std::vector<BadOverride>{
        {"NoEquals", "train_cfg.max_epochs",
         "\"train_cfg.max_epochs\" is not of the form path=value"},
        {"NoPath", "=3", "\"=3\" is not of the form path=value"},
        {"EmptyPart", "train_cfg..max_epochs=3",
         "\"train_cfg..max_epochs=3\" is not of the form path=value"},
        {"OpenBracket", "param_scheduler[0=3",
         "\"param_scheduler[0=3\" is not of the form path=value"},
        {"UnknownField", "optim_wrapper.optimzer.adamw.lr=1",
         "optim_wrapper.optimzer.adamw.lr: no field \"optimzer\" in "
         "OptimWrapperConfig; did you mean \"optimizer\"?"},
        {"LeftOutMemberOfOneof", "optim_wrapper.optimizer.lr=1",
         "optim_wrapper.optimizer.lr: no field \"lr\" in OptimizerConfig; did "
         "you mean \"optim_wrapper.optimizer.adamw.lr\"?"},
        {"UnknownFieldInAny", "custom_hooks.0.config.momentun=1",
         "custom_hooks.0.config.momentun: no field \"momentun\" in "
         "ShadowHookConfig; did you mean \"momentum\"?"},
        {"UnknownFieldInValue", "train_cfg={max_epoch: 3}",
         "train_cfg: no field \"max_epoch\" in TrainConfig; did you mean "
         "\"max_epochs\"?"},
        {"UnknownEnumValue", "train_dataloader.sampler.type=INFINIT",
         "train_dataloader.sampler.type: type: no value INFINIT in Type; did "
         "you mean \"INFINITE\"?"},
        {"WrongType", "train_cfg.max_epochs=ten",
         "train_cfg.max_epochs: expected integer, got: ten"},
        {"FractionForInteger", "train_cfg.max_epochs=1.5",
         "train_cfg.max_epochs: expected integer, got: 1.5"},
        {"TwoWords", "train_cfg.max_epochs=10 epochs",
         "train_cfg.max_epochs: \"10 epochs\" is not one value"},
        {"SecondField", "train_cfg={} work_dir: 'x'",
         "train_cfg: \"{} work_dir: 'x'\" is not one value"},
        {"NoValue", "train_cfg.max_epochs=", "train_cfg.max_epochs: no value"},
        {"IndexTooLarge", "param_scheduler.3.linear.end=1",
         "param_scheduler.3.linear.end: \"param_scheduler\" has 2 elements: "
         "the index must be in 0..2, is \"3\""},
        {"NegativeIndex", "param_scheduler.-1.linear.end=1",
         "param_scheduler.-1.linear.end: \"param_scheduler\" has 2 elements: "
         "the index must be in 0..2, is \"-1\""},
        {"NameForIndex", "param_scheduler.linear.end=1",
         "param_scheduler.linear.end: \"param_scheduler\" has 2 elements: the "
         "index must be in 0..2, is \"linear\""},
        {"ThroughAScalar", "train_cfg.max_epochs.x=1",
         "train_cfg.max_epochs.x: \"train_cfg.max_epochs\" is one value and "
         "has no field \"x\""},
        {"ScalarForMessage", "train_cfg=3",
         "train_cfg: is a TrainConfig: name one of its fields, or set it as a "
         "whole, {...}, not \"3\""},
        {"UnsetAny", "model.custom.x=3",
         "model.custom.x: \"model.custom\" is unset: set it as a whole, "
         "{[prefix/Type] {...}}"},
        {"NotUtf8", "work_dir=\xff", "work_dir: not UTF-8"},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
