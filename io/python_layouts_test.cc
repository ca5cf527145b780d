#include "grapnel/io/python_layouts.h"

#include <functional>
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
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_builder.h"
#include "grapnel/io/pth_writer.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

using Write = std::function<void(PthWriter&)>;

// What `write` writes, read and looked at.
absl::StatusOr<PythonWeights> Find(const Write& write) {
  MemEnv env;
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<PthWriter> writer,
                           PthWriter::Create(env, "/f"));
  write(*writer);
  GRAPNEL_RETURN_IF_ERROR(writer->Finish());
  GRAPNEL_ASSIGN_OR_RETURN(const PthFile file, PthFile::Read(env, "/f"));
  return FindPythonWeights(file.root());
}

// A dict of these tensors, whose numbers are `value`.
void Tensors(PthWriter& writer, const std::vector<std::string>& names,
             double value = 1) {
  writer.BeginOrderedDict();
  for (const std::string& name : names) {
    writer.String(name);
    writer.Tensor(ops::full({2}, value));
  }
  writer.End();
}

std::vector<std::string> NamesOf(const PythonWeights& weights) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : weights.tensors) {
    names.push_back(tensor.name);
  }
  return names;
}

struct LayoutCase {
  std::string name;
  Write write;
  bool averaged = false;
};

std::vector<LayoutCase> LayoutCases() {
  const auto state_dict = [](PthWriter& w, const char* key) {
    w.String(key);
    Tensors(w, {"a", "b.c"});
  };
  return {
      {"StateDict",
       [](PthWriter& w) {
         Tensors(w, {"a", "b.c"});
       }},
      {"DataParallel",
       [](PthWriter& w) {
         Tensors(w, {"module.a", "module.b.c"});
       }},
      {"Compiled",
       [](PthWriter& w) {
         Tensors(w, {"_orig_mod.a", "_orig_mod.b.c"});
       }},
      {"CompiledInDataParallel",
       [](PthWriter& w) {
         Tensors(w, {"module._orig_mod.a", "module._orig_mod.b.c"});
       }},
      {"DataParallelCompiled",
       [](PthWriter& w) {
         Tensors(w, {"_orig_mod.module.a", "_orig_mod.module.b.c"});
       }},
      {"AveragedModel",
       [](PthWriter& w) {
         w.BeginOrderedDict();
         w.String("n_averaged");
         w.Tensor(ops::full({}, 7, at::kLong));
         for (const char* const name : {"module.a", "module.b.c"}) {
           w.String(name);
           w.Tensor(ops::ones({2}));
         }
         w.End();
       },
       /*averaged=*/true},
      {"ExtraState",
       [](PthWriter& w) {
         w.BeginDict();
         w.String("a");
         w.Tensor(ops::ones({2}));
         w.String("b._extra_state");
         w.BeginDict();
         w.String("version");
         w.Int(1);
         w.End();
         w.String("b.c");
         w.Tensor(ops::ones({2}));
         w.String("_extra_state");
         w.Tensor(ops::ones({3}));
         w.End();
       }},
      {"ExtraStatesInDataParallel",
       [](PthWriter& w) {
         Tensors(w, {"module._extra_state", "module.a", "module.b.c",
                     "module.b._extra_state"});
       }},
      {"MMEngine",
       [=](PthWriter& w) {
         w.BeginDict();
         w.String("meta");
         w.BeginDict();
         w.String("epoch");
         w.Int(2);
         w.End();
         state_dict(w, "state_dict");
         w.String("message_hub");
         w.BeginDict();
         w.End();
         w.End();
       }},
      {"MMEngineWithAnAverage",
       [=](PthWriter& w) {
         w.BeginDict();
         state_dict(w, "state_dict");
         w.String("ema_state_dict");
         Tensors(w, {"module.a", "module.b.c", "steps"}, 3);
         w.End();
       },
       /*averaged=*/true},
      {"Lightning",
       [=](PthWriter& w) {
         w.BeginDict();
         w.String("epoch");
         w.Int(1);
         w.String("pytorch-lightning_version");
         w.String("2.6.0");
         state_dict(w, "state_dict");
         w.String("loops");
         w.None();
         w.End();
       }},
      {"LightningWithAnAverage",
       [=](PthWriter& w) {
         w.BeginDict();
         state_dict(w, "state_dict");
         w.String("current_model_state");
         Tensors(w, {"a", "b.c"}, 3);
         w.End();
       },
       /*averaged=*/true},
      {"Model",
       [=](PthWriter& w) {
         w.BeginDict();
         state_dict(w, "model");
         w.String("optimizer");
         w.BeginDict();
         w.End();
         w.End();
       }},
      {"ModelStateDict",
       [=](PthWriter& w) {
         w.BeginDict();
         w.String("epoch");
         w.Int(1);
         state_dict(w, "model_state_dict");
         w.End();
       }},
      {"ModelIsADescription",
       [=](PthWriter& w) {
         w.BeginDict();
         w.String("state_dict");
         w.BeginDict();
         w.End();
         w.String("model");
         w.BeginDict();
         w.String("name");
         w.String("resnet");
         w.End();
         state_dict(w, "model_state_dict");
         w.End();
       }},
      {"StateDictIsNoModelsName",
       [=](PthWriter& w) {
         w.BeginDict();
         w.String("model");
         w.String("resnet18");
         state_dict(w, "state_dict");
         w.End();
       }},
  };
}

class LayoutTest : public ::testing::TestWithParam<LayoutCase> {};

TEST_P(LayoutTest, HasTheModelsNamesAndNumbers) {
  const auto weights = Find(GetParam().write);
  ASSERT_THAT(weights, IsOk());
  EXPECT_THAT(NamesOf(*weights), ElementsAre("a", "b.c"));
  for (const NamedTensor& tensor : weights->tensors) {
    EXPECT_TRUE(tensor.tensor.equal(ops::ones({2}))) << tensor.name;
  }
  EXPECT_EQ(weights->averaged, GetParam().averaged);
}

INSTANTIATE_TEST_SUITE_P(All, LayoutTest, ::testing::ValuesIn(LayoutCases()),
                         [](const auto& info) { return info.param.name; });

TEST(FindPythonWeightsTest, APrefixThatNotAllHaveStays) {
  const auto some = Find([](PthWriter& w) {
    Tensors(w, {"module.a", "modules.b"});
  });
  ASSERT_THAT(some, IsOk());
  EXPECT_THAT(NamesOf(*some), ElementsAre("module.a", "modules.b"));
  // A model's own part of that name, in DataParallel.
  const auto twice = Find([](PthWriter& w) {
    Tensors(w, {"module.module.a", "module.module.b"});
  });
  ASSERT_THAT(twice, IsOk());
  EXPECT_THAT(NamesOf(*twice), ElementsAre("module.a", "module.b"));
  // A buffer of a model's own.
  const auto own = Find([](PthWriter& w) {
    Tensors(w, {"n_averaged", "weight"});
  });
  ASSERT_THAT(own, IsOk());
  EXPECT_THAT(NamesOf(*own), ElementsAre("n_averaged", "weight"));
  EXPECT_FALSE(own->averaged);
}

TEST(FindPythonWeightsTest, OnlyAWholeNameIsAnExtraState) {
  const auto weights = Find([](PthWriter& w) {
    Tensors(w, {"a.foo_extra_state", "b._extra_state.c", "_extra_state"});
  });
  ASSERT_THAT(weights, IsOk());
  EXPECT_THAT(NamesOf(*weights),
              ElementsAre("a.foo_extra_state", "b._extra_state.c"));
  EXPECT_THAT(Find([](PthWriter& w) {
                w.BeginDict();
                w.String("foo_extra_state");
                w.Int(1);
                w.End();
              }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"foo_extra_state\" is no tensor")));
}

TEST(FindPythonWeightsTest, NothingIsAStateDictToo) {
  const auto weights = Find([](PthWriter& w) { Tensors(w, {}); });
  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(weights->tensors.empty());
  const auto inside = Find([](PthWriter& w) {
    w.BeginDict();
    w.String("state_dict");
    Tensors(w, {});
    w.End();
  });
  ASSERT_THAT(inside, IsOk());
  EXPECT_TRUE(inside->tensors.empty());
}

// All names of one tensor, which cost memory without it.
TEST(FindPythonWeightsTest, TensorsAreAsManyAsACheckpointMayHave) {
  const auto many = [](int count) -> absl::StatusOr<PythonWeights> {
    std::vector<std::string> entries = {
        pickled::Text("0"),
        absl::StrCat(pickled::TensorOf(pickled::Storage("FloatStorage", "0", 1),
                                       0, {1}, {1}),
                     absl::string_view("q\0", 2))};
    for (int i = 1; i < count; ++i) {
      entries.push_back(pickled::Text(absl::StrCat(i)));
      entries.push_back(std::string("h\0", 2));
    }
    MemEnv env;
    GRAPNEL_RETURN_IF_ERROR(WriteFileAtomically(
        env, "/f",
        BuildPth(pickled::Pickle(pickled::Dict(entries)), {"abcd"})));
    GRAPNEL_ASSIGN_OR_RETURN(const PthFile file, PthFile::Read(env, "/f"));
    return FindPythonWeights(file.root());
  };
  const auto weights = many(262'144);
  ASSERT_THAT(weights, IsOk());
  EXPECT_EQ(weights->tensors.size(), 262'144u);
  EXPECT_THAT(many(262'145), StatusIs(absl::StatusCode::kResourceExhausted,
                                      "has more than 262144 tensors"));
}

TEST(FindPythonWeightsTest, TiedWeightsShareMemory) {
  const at::Tensor tied = ops::rand({3, 2});
  const auto weights = Find([&](PthWriter& w) {
    w.BeginDict();
    w.String("a");
    w.Tensor(tied);
    w.String("b");
    w.Tensor(tied.t());
    w.End();
  });
  ASSERT_THAT(weights, IsOk());
  const at::Tensor* const a = weights->tensors.Find("a");
  const at::Tensor* const b = weights->tensors.Find("b");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_TRUE(a->equal(tied) && b->equal(tied.t()));
  EXPECT_EQ(a->const_data_ptr(), b->const_data_ptr());
}

TEST(FindPythonWeightsTest, SaysWhatWasLookedForAndWhatIsThere) {
  const auto invalid = [](const std::string& message) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message));
  };
  EXPECT_THAT(Find([](PthWriter& w) {
                w.BeginList();
                w.Tensor(ops::ones({2}));
                w.End();
              }),
              invalid("neither a state_dict nor a dict with one under any of "
                      "\"state_dict\", \"model\", \"model_state_dict\", but"));
  EXPECT_THAT(
      Find([](PthWriter& w) {
        w.BeginDict();
        w.String("net");
        Tensors(w, {"a"});
        w.String("epoch");
        w.Int(3);
        w.End();
      }),
      AllOf(invalid("has \"net\", \"epoch\"; a state_dict was looked for"),
            invalid("\"net\" is no tensor")));
  EXPECT_THAT(Find([](PthWriter& w) {
                w.BeginDict();
                w.String("state_dict");
                w.BeginDict();
                w.String("lr");
                w.Float(0.5);
                w.End();
                w.End();
              }),
              invalid("\"state_dict\": \"lr\" is no tensor"));
  EXPECT_THAT(Find([](PthWriter& w) {
                w.BeginDict();
                w.Int(0);
                w.Tensor(ops::ones({2}));
                w.End();
              }),
              invalid("a key of type"));
  // As in a file of safetensors: row 31 of the list of bad inputs.
  EXPECT_THAT(Find([](PthWriter& w) { Tensors(w, {"../../x"}); }),
              invalid("tensor \"../../x\": name holds \"..\""));
  EXPECT_THAT(Find([](PthWriter& w) { Tensors(w, {"module."}); }),
              invalid("name is empty"));
}

struct UnreadCase {
  const char* name;
  const char* function;  // Of torch._utils.
  const char* what;
};

class UnreadTensorTest : public ::testing::TestWithParam<UnreadCase> {
 protected:
  // Of a file with one such tensor, called `name`.
  absl::StatusOr<PythonWeights> Find(const std::string& name) {
    const std::string unread =
        pickled::Call(pickled::Global("torch._utils", GetParam().function), {});
    MemEnv env;
    EXPECT_THAT(WriteFileAtomically(env, "/f",
                                    BuildPth(pickled::Pickle(pickled::Dict(
                                        {pickled::Text(name), unread})))),
                IsOk());
    PthOptions options;
    options.allow_foreign = true;
    GRAPNEL_ASSIGN_OR_RETURN(const PthFile file,
                             PthFile::Read(env, "/f", options));
    return FindPythonWeights(file.root());
  }
};

TEST_P(UnreadTensorTest, IsRefusedByNameButAsExtraStateLeftOut) {
  EXPECT_THAT(Find("fc.weight"),
              StatusIs(absl::StatusCode::kUnimplemented,
                       absl::StrCat("\"fc.weight\" is ", GetParam().what,
                                    ", which isn't read")));
  for (const char* const name : {"_extra_state", "fc._extra_state"}) {
    const auto weights = Find(name);
    ASSERT_THAT(weights, IsOk());
    EXPECT_EQ(weights->tensors.size(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, UnreadTensorTest,
    ::testing::ValuesIn(std::vector<UnreadCase>{
        {"Sparse", "_rebuild_sparse_tensor", "a sparse tensor"},
        {"SparseRows", "_rebuild_sparse_csr_tensor", "a sparse tensor"},
        {"Nested", "_rebuild_nested_tensor", "a nested tensor"},
        {"Quantized", "_rebuild_qtensor", "a quantized tensor"},
        {"Meta", "_rebuild_meta_tensor_no_storage", "a meta tensor"},
        {"Subclass", "_rebuild_wrapper_subclass", "a subclass of tensor"},
        {"DeviceByNumpy", "_rebuild_device_tensor_from_numpy",
         "a device's tensor"},
        {"DeviceByCpu", "_rebuild_device_tensor_from_cpu_tensor",
         "a device's tensor"},
        {"Xla", "_rebuild_xla_tensor", "a tensor of XLA"},
    }),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace io
}  // namespace grapnel
