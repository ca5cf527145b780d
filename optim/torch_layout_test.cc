#include "grapnel/optim/torch_layout.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "gtest/gtest.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr char kPath[] = "optimizer.pth";

OptimWrapperConfig Parse(const std::string& text) {
  OptimWrapperConfig config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

// Parameters of one model: "a" and "c" are of one shape.
std::vector<NamedTensor> Params() {
  std::vector<NamedTensor> params;
  for (const auto& [name, size] :
       {std::pair("a", 3), std::pair("b.bias", 2), std::pair("c", 3)}) {
    params.push_back(
        {name, torch::linspace(-1, 1, size, at::kFloat).requires_grad_()});
  }
  return params;
}

std::vector<TorchParam> InPython(const std::vector<NamedTensor>& params) {
  std::vector<TorchParam> all;
  for (const NamedTensor& param : params) {
    all.push_back({param.name, absl::StrCat("net.", param.name)});
  }
  return all;
}

struct Training {
  explicit Training(const std::string& text) : config(Parse(text)) {
    auto created = OptimWrapper::Create(config, params);
    EXPECT_THAT(created, IsOk()) << text;
    if (created.ok()) wrapper = *std::move(created);
  }

  void Steps(int from, int to) {
    for (int i = from; i < to; ++i) {
      at::Tensor loss = torch::zeros({});
      for (const NamedTensor& param : params) {
        loss = loss + (param.tensor * (param.tensor + i)).sum();
      }
      ASSERT_THAT(wrapper->Update(loss), IsOk());
    }
  }

  OptimWrapperState Save(TensorMap* slots) const {
    OptimWrapperState state;
    TensorMap gradients;
    EXPECT_THAT(wrapper->SaveState(&state, slots, &gradients), IsOk());
    return state;
  }

  OptimWrapperConfig config;
  std::vector<NamedTensor> params = Params();
  std::unique_ptr<OptimWrapper> wrapper;
};

io::PthFile File(io::Env& env) {
  auto file = io::PthFile::Read(env, kPath);
  EXPECT_THAT(file, IsOk());
  return *std::move(file);
}

void WriteFile(io::Env& env, const std::function<void(io::PthWriter*)>& write) {
  auto writer = io::PthWriter::Create(env, kPath);
  ASSERT_THAT(writer, IsOk());
  write(writer->get());
  ASSERT_THAT((*writer)->Finish(), IsOk());
}

struct RoundTripCase {
  std::string name;
  std::string config;
  std::vector<std::vector<std::string>> groups;
};

class TorchLayoutRoundTripTest
    : public ::testing::TestWithParam<RoundTripCase> {};

TEST_P(TorchLayoutRoundTripTest, NextStepsAreTheSame) {
  io::MemEnv env;
  Training first(GetParam().config);
  first.Steps(0, 3);
  TensorMap slots;
  const OptimWrapperState saved = first.Save(&slots);
  WriteFile(env, [&](io::PthWriter* writer) {
    ASSERT_THAT(WriteTorchOptimizer(saved, slots, first.config,
                                    {GetParam().groups, {}, {}}, writer),
                IsOk());
  });

  Training second(GetParam().config);
  TensorMap none, read_slots;
  OptimWrapperState state = second.Save(&none);
  std::vector<std::string> warnings;
  const io::PthFile file = File(env);
  ASSERT_THAT(ReadTorchOptimizer(file.root(), InPython(second.params),
                                 second.config, /*lr_has_moved=*/false, &state,
                                 &read_slots, &warnings),
              IsOk());
  EXPECT_THAT(warnings, IsEmpty());
  ASSERT_THAT(second.wrapper->LoadState(state, read_slots, {}), IsOk());
  for (size_t i = 0; i < first.params.size(); ++i) {
    const torch::NoGradGuard no_grad;
    second.params[i].tensor.copy_(first.params[i].tensor);
  }
  first.Steps(3, 6);
  second.Steps(3, 6);
  for (size_t i = 0; i < first.params.size(); ++i) {
    EXPECT_TRUE(torch::equal(first.params[i].tensor, second.params[i].tensor))
        << first.params[i].name;
  }
}

const std::vector<std::vector<std::string>> kOneGroup = {{"a", "b.bias", "c"}};

INSTANTIATE_TEST_SUITE_P(
    Optimizers, TorchLayoutRoundTripTest,
    ::testing::ValuesIn(std::vector<RoundTripCase>{
        {"AdamW", "optimizer { adamw { lr: 0.1 } }", kOneGroup},
        {"AdamAmsgrad", "optimizer { adam { lr: 0.1 amsgrad: true } }",
         kOneGroup},
        {"SgdNesterov",
         "optimizer { sgd { lr: 0.1 momentum: 0.9 nesterov: true } }",
         kOneGroup},
        {"SgdWithoutMomentum",
         "optimizer { sgd { lr: 0.1 weight_decay: 0.01 } }", kOneGroup},
        {"GroupForEachParameter",
         "optimizer { adamw { lr: 0.1 } } paramwise_cfg { bias_lr_mult: 2 }",
         {{"a"}, {"b.bias"}, {"c"}}},
        {"OwnGroups",
         "optimizer { adamw { lr: 0.1 } } paramwise_cfg { bias_lr_mult: 2 }",
         {{"a", "c"}, {"b.bias"}}},
        {"LossScale",
         "optimizer { adamw { lr: 0.1 } } "
         "amp { dtype: FLOAT16 loss_scale { init_scale: 8 } }",
         kOneGroup}}),
    [](const auto& info) { return info.param.name; });

TEST(TorchLayoutTest, HasAllThatPythonsOptimizerHas) {
  io::MemEnv env;
  Training sgd("optimizer { sgd { lr: 0.1 momentum: 0.9 nesterov: true } }");
  sgd.Steps(0, 1);
  TensorMap slots;
  OptimWrapperState state = sgd.Save(&slots);
  // A frozen parameter is one of the group, without a state.
  WriteFile(env, [&](io::PthWriter* writer) {
    TorchGroups groups = {{{"frozen", "a", "b.bias", "c"}}, {}, {}};
    groups.initial["lr"] = {{"a", 0.5}};
    groups.kept["max_lr"] = {{"a", 0.75}};
    ASSERT_THAT(WriteTorchOptimizer(state, slots, sgd.config, groups, writer),
                IsOk());
  });
  const io::PthFile file = File(env);
  const io::PthValue group = file.root().Find("param_groups")->item(0);
  std::vector<std::string> keys;
  for (int64_t i = 0; i < group.size(); ++i) {
    keys.emplace_back(group.key(i).string_value());
  }
  EXPECT_THAT(keys, UnorderedElementsAre("lr", "momentum", "dampening",
                                         "weight_decay", "nesterov", "maximize",
                                         "foreach", "differentiable", "fused",
                                         "initial_lr", "max_lr", "params"));
  EXPECT_EQ(group.Find("lr")->float_value(), 0.1);
  EXPECT_EQ(group.Find("initial_lr")->float_value(), 0.5);
  EXPECT_EQ(group.Find("max_lr")->float_value(), 0.75);
  EXPECT_TRUE(group.Find("nesterov")->bool_value());
  EXPECT_EQ(group.Find("params")->size(), 4);
  const io::PthValue states = *file.root().Find("state");
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < states.size(); ++i) {
    numbers.push_back(states.key(i).int_value());
  }
  EXPECT_THAT(numbers, ElementsAre(1, 2, 3));
}

// ---- Files as Python has them ----

void Number(const char* name, double value, io::PthWriter* writer) {
  writer->String(name);
  writer->Float(value);
}

struct PythonGroup {
  std::vector<int64_t> params;
  double lr = 0.1;
  std::vector<std::string> names = {};
};

// torch.optim.SGD's state_dict, with a momentum of 0.9. `buffers` are filled
// with 10 and the parameter's number.
void WriteSgd(const std::vector<PythonGroup>& groups,
              const std::vector<int64_t>& buffers, io::PthWriter* writer) {
  writer->BeginDict();
  writer->String("state");
  writer->BeginDict();
  for (const int64_t number : buffers) {
    writer->Int(number);
    writer->BeginDict();
    writer->String("momentum_buffer");
    writer->Tensor(torch::full({3}, 10 + number, at::kFloat));
    writer->End();
  }
  writer->End();
  writer->String("param_groups");
  writer->BeginList();
  for (const PythonGroup& group : groups) {
    writer->BeginDict();
    Number("lr", group.lr, writer);
    Number("momentum", 0.9, writer);
    Number("dampening", 0, writer);
    Number("weight_decay", 0, writer);
    writer->String("nesterov");
    writer->Bool(true);
    Number("initial_lr", 2 * group.lr, writer);
    writer->String("params");
    writer->BeginList();
    for (const int64_t number : group.params) writer->Int(number);
    writer->End();
    if (!group.names.empty()) {
      writer->String("param_names");
      writer->BeginList();
      for (const std::string& name : group.names) writer->String(name);
      writer->End();
    }
    writer->End();
  }
  writer->End();
  writer->End();
}

// Which buffer each parameter gets, "a 10"; an error's message.
std::vector<std::string> ReadBuffers(
    const std::string& config, const std::vector<TorchParam>& params,
    const std::function<void(io::PthWriter*)>& write,
    OptimWrapperState* state = nullptr) {
  io::MemEnv env;
  WriteFile(env, write);
  const Training training(config);
  TensorMap none, slots;
  OptimWrapperState own = training.Save(&none);
  if (state == nullptr) state = &own;
  *state = training.Save(&none);
  const io::PthFile file = File(env);
  std::vector<std::string> warnings;
  const absl::Status status =
      ReadTorchOptimizer(file.root(), params, training.config,
                         /*lr_has_moved=*/false, state, &slots, &warnings);
  if (!status.ok()) return {std::string(status.message())};
  std::vector<std::string> buffers;
  for (const NamedTensor& slot : slots) {
    buffers.push_back(absl::StrCat(slot.name.substr(0, slot.name.find('/')),
                                   " ", slot.tensor[0].item<int>()));
  }
  for (std::string& warning : warnings) buffers.push_back(std::move(warning));
  return buffers;
}

constexpr char kNesterov[] =
    "optimizer { sgd { lr: 0.1 momentum: 0.9 nesterov: true } }";

TEST(ReadTorchOptimizerTest, NumbersAreByTheModelsOrder) {
  EXPECT_THAT(ReadBuffers(kNesterov, InPython(Params()),
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1, 2}}}, {0, 2}, writer);
                          }),
              ElementsAre("a 10", "c 12"));
  // Of the file's model, which may have another one.
  EXPECT_THAT(ReadBuffers(kNesterov,
                          {{"c", "net.c"}, {"b.bias", "net.b"}, {"a", "net.a"}},
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1, 2}}}, {0, 2}, writer);
                          }),
              ElementsAre("a 12", "c 10"));
}

TEST(ReadTorchOptimizerTest, FileMayHaveParametersThatAreNotHere) {
  std::vector<TorchParam> params = InPython(Params());
  params.insert(params.begin(), {"", "net.stem"});
  EXPECT_THAT(ReadBuffers(kNesterov, params,
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1, 2, 3}}}, {0, 1, 3}, writer);
                          }),
              ElementsAre("a 11", "c 13"));
  // The optimizer is of those that are trained here.
  EXPECT_THAT(ReadBuffers(kNesterov, params,
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1, 2}}}, {0, 2}, writer);
                          }),
              ElementsAre("a 10", "c 12"));
}

TEST(ReadTorchOptimizerTest, NamesGoBeforeNumbers) {
  EXPECT_THAT(ReadBuffers(kNesterov, InPython(Params()),
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1}, 0.1, {"net.c", "net.b.bias"}},
                                      {{2}, 0.1, {"net.a"}}},
                                     {0, 2}, writer);
                          }),
              ElementsAre("a 12", "c 10"));
}

TEST(ReadTorchOptimizerTest, GroupsLikeOursHaveTheirOwnOrder) {
  const std::string config =
      absl::StrCat(kNesterov, " paramwise_cfg { bias_lr_mult: 2 }");
  EXPECT_THAT(ReadBuffers(config, InPython(Params()),
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1}}, {{2}, 0.2}}, {0, 1}, writer);
                          }),
              ElementsAre("a 10", "c 11"));
}

TEST(ReadTorchOptimizerTest, ConfiguredIsWhatSchedulesBeganWith) {
  OptimWrapperState state;
  ReadBuffers(
      kNesterov, InPython(Params()),
      [](io::PthWriter* writer) {
        WriteSgd({{{0, 1, 2}, 0.05}}, {0, 1, 2}, writer);
      },
      &state);
  ASSERT_EQ(state.optimizer().groups_size(), 1);
  const auto& group = state.optimizer().groups(0);
  EXPECT_EQ(group.options().at("lr"), 0.05);
  EXPECT_EQ(group.configured().at("lr"), 0.1);
  EXPECT_EQ(group.configured().at("momentum"), 0.9);
}

TEST(ReadTorchOptimizerTest, OneGroupHereOfSeveralThereIsTheirs) {
  OptimWrapperState state;
  ReadBuffers(
      kNesterov, InPython(Params()),
      [](io::PthWriter* writer) {
        WriteSgd({{{0}, 0.1}, {{1}, 0.2}, {{2}, 0.1}}, {}, writer);
      },
      &state);
  ASSERT_EQ(state.optimizer().groups_size(), 2);
  EXPECT_THAT(state.optimizer().groups(0).params(), ElementsAre("a", "c"));
  EXPECT_THAT(state.optimizer().groups(1).params(), ElementsAre("b.bias"));
  EXPECT_THAT(state.optimizer().groups(1).without_slots(),
              ElementsAre("b.bias"));
}

TEST(ReadTorchOptimizerTest, OtherFlagsAreSaid) {
  EXPECT_THAT(
      ReadBuffers("optimizer { sgd { lr: 0.1 momentum: 0.9 } }",
                  InPython(Params()),
                  [](io::PthWriter* writer) {
                    WriteSgd({{{0, 1, 2}}}, {}, writer);
                  }),
      ElementsAre("optimizer: nesterov: is true in the file and false in the "
                  "configuration, which counts"));
}

TEST(ReadTorchOptimizerTest, MomentumThatIsGoneIsSaid) {
  EXPECT_THAT(ReadBuffers("optimizer { sgd { lr: 0.1 } }", InPython(Params()),
                          [](io::PthWriter* writer) {
                            WriteSgd({{{0, 1, 2}}}, {}, writer);
                          }),
              ElementsAre("optimizer: momentum: is 0.9 in the file and 0 in "
                          "the configuration, which counts",
                          HasSubstr("optimizer: nesterov: is true")));
}

struct BadCase {
  std::string name;
  std::string config;
  std::function<void(io::PthWriter*)> write;
  std::string message;
};

class ReadTorchOptimizerBadTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(ReadTorchOptimizerBadTest, SaysWhy) {
  EXPECT_THAT(
      ReadBuffers(GetParam().config, InPython(Params()), GetParam().write),
      ElementsAre(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Files, ReadTorchOptimizerBadTest,
    ::testing::ValuesIn(std::vector<BadCase>{
        {"NoOptimizer", kNesterov,
         [](io::PthWriter* writer) {
           writer->BeginDict();
           writer->End();
         },
         "there is no list \"param_groups\""},
        {"OtherKind", "optimizer { adamw {} }",
         [](io::PthWriter* writer) {
           WriteSgd({{{0, 1, 2}}}, {}, writer);
         },
         "of another kind than the run's, which is AdamW: it has no betas"},
        {"OtherNumber", kNesterov,
         [](io::PthWriter* writer) {
           WriteSgd({{{0, 1}}}, {}, writer);
         },
         "it is of 2 parameters; the file's model has 3, of which 3 are "
         "trained here"},
        {"OtherGroups", kNesterov,
         [](io::PthWriter* writer) {
           WriteSgd({{{0, 1}}, {{2}}}, {}, writer);
         },
         "groups of 2, 1 parameters, and nobody can tell"},
        {"NumberTwice", kNesterov,
         [](io::PthWriter* writer) {
           WriteSgd({{{0, 1, 1}}}, {}, writer);
         },
         "param_groups[0]: params[2]"},
        {"NameMissing", kNesterov,
         [](io::PthWriter* writer) {
           WriteSgd({{{0, 1}, 0.1, {"net.a", "net.c"}}}, {}, writer);
         },
         "parameter \"b.bias\": the file's optimizer doesn't have it"}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
