// Every function of runs, runners and their options with what a caller must not
// give it: a status that names the argument, nothing taken, and never a crash.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/capi/runs/took.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr size_t kHuge = size_t{3} << 30;

// What is wrong, and what is said of it.
struct Bad {
  std::string message;
  std::function<grapnel_status*()> call;
};

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

void ExpectEach(const std::vector<Bad>& cases,
                absl::StatusCode code = kInvalid) {
  for (const Bad& bad : cases) {
    EXPECT_THAT(Took(bad.call()), StatusIs(code, HasSubstr(bad.message)))
        << bad.message;
  }
}

// Callbacks that are never called.
grapnel_status* Never(const char* name) {
  ADD_FAILURE() << name << " was called";
  return nullptr;
}

void CountDestroyed(void* user_data) { ++*static_cast<int*>(user_data); }

grapnel_hook_callbacks Hook() {
  grapnel_hook_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.stages = 1;
  callbacks.priority = 50;
  callbacks.on_stage = [](void*, grapnel_stage, grapnel_run*) {
    return Never("on_stage");
  };
  callbacks.destroy = CountDestroyed;
  return callbacks;
}

grapnel_dataset_callbacks Dataset() {
  grapnel_dataset_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.size = 4;
  callbacks.get = [](void*, int64_t, grapnel_tensors*) { return Never("get"); };
  callbacks.destroy = CountDestroyed;
  return callbacks;
}

grapnel_stream_callbacks Stream() {
  grapnel_stream_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.begin_pass = [](void*, int64_t) { return Never("begin_pass"); };
  callbacks.next = [](void*, grapnel_tensors*) { return Never("next"); };
  callbacks.destroy = CountDestroyed;
  return callbacks;
}

grapnel_model_callbacks Model() {
  grapnel_model_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.train_step = [](void*, const grapnel_tensors*, grapnel_tensors*,
                            grapnel_scalars*) { return Never("train_step"); };
  callbacks.destroy = CountDestroyed;
  return callbacks;
}

grapnel_loss_callbacks Loss() {
  grapnel_loss_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.compute = [](void*, const grapnel_tensor*, const grapnel_tensors*,
                         double*,
                         grapnel_tensor**) { return Never("compute"); };
  callbacks.destroy = CountDestroyed;
  return callbacks;
}

grapnel_metric_callbacks Metric() {
  grapnel_metric_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.reset = [](void*) { return Never("reset"); };
  callbacks.process = [](void*, const grapnel_tensors*,
                         const grapnel_tensors*) { return Never("process"); };
  callbacks.compute = [](void*, grapnel_scalars*) { return Never("compute"); };
  callbacks.destroy = CountDestroyed;
  return callbacks;
}

class ArgumentsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_THAT(Took(grapnel_runner_options_create(&options_)), IsOk());
    ASSERT_THAT(Took(grapnel_tensors_create(&tensors_)), IsOk());
  }
  void TearDown() override {
    grapnel_tensors_destroy(tensors_);
    grapnel_runner_options_destroy(options_);
    EXPECT_EQ(grapnel_live_objects(), 0);
  }

  // A float32 vector of ones.
  void AddTensor(const std::string& name, int64_t size) {
    const std::vector<float> ones(size, 1);
    ASSERT_THAT(Took(grapnel_tensors_add_copy(
                    tensors_, name.data(), name.size(), GRAPNEL_FLOAT32, &size,
                    1, ones.data(), ones.size() * sizeof(float))),
                IsOk());
  }

  grapnel_status* AddHook(const grapnel_hook_callbacks& callbacks) {
    return grapnel_runner_options_add_hook(options_, "a", 1, &callbacks,
                                           &destroyed_);
  }
  grapnel_status* SetDataset(const grapnel_dataset_callbacks& callbacks) {
    return grapnel_runner_options_set_dataset(options_, GRAPNEL_TRAIN,
                                              &callbacks, &destroyed_);
  }
  grapnel_status* SetStream(const grapnel_stream_callbacks& callbacks) {
    return grapnel_runner_options_set_stream(options_, &callbacks, &destroyed_);
  }
  grapnel_status* SetModel(const grapnel_model_callbacks& callbacks,
                           const grapnel_tensors* buffers = nullptr) {
    return grapnel_runner_options_set_model(options_, &callbacks, tensors_,
                                            buffers, &destroyed_);
  }
  grapnel_status* SetLoss(const grapnel_loss_callbacks& callbacks) {
    return grapnel_runner_options_set_loss(options_, &callbacks, &destroyed_);
  }
  grapnel_status* AddMetric(const grapnel_metric_callbacks& callbacks) {
    return grapnel_runner_options_add_metric(options_, GRAPNEL_VAL, &callbacks,
                                             &destroyed_);
  }

  // Every function of options, with good arguments but for the options.
  std::vector<Bad> OptionsCalls(grapnel_runner_options* options,
                                const std::string& message) {
    std::vector<std::function<grapnel_status*()>> calls = {
        [=] {
          return grapnel_runner_options_set_config(options, "", 0,
                                                   GRAPNEL_TEXT);
        },
        [=] {
          return grapnel_runner_options_set_config_file(options, "x.json", 6);
        },
        [=] { return grapnel_runner_options_override(options, "a=1", 3); },
        [=] { return grapnel_runner_options_set_base_dir(options, "a", 1); },
        [=] { return grapnel_runner_options_set_for_training(options, 1); },
        [=] { return grapnel_runner_options_set_wait_for_lock(options, 1); },
        [=] { return grapnel_runner_options_set_terminal_fd(options, -1); },
        [=] {
          return grapnel_runner_options_set_log_callback(
              options, [](void*, grapnel_severity, const char*, size_t) {},
              nullptr);
        },
        [=] {
          const grapnel_dataset_callbacks callbacks = Dataset();
          return grapnel_runner_options_set_dataset(options, GRAPNEL_TRAIN,
                                                    &callbacks, &destroyed_);
        },
        [=] {
          return grapnel_runner_options_set_tensors(options, GRAPNEL_TRAIN,
                                                    tensors_);
        },
        [=] {
          const grapnel_stream_callbacks callbacks = Stream();
          return grapnel_runner_options_set_stream(options, &callbacks,
                                                   &destroyed_);
        },
        [=] {
          const grapnel_model_callbacks callbacks = Model();
          return grapnel_runner_options_set_model(options, &callbacks, tensors_,
                                                  nullptr, &destroyed_);
        },
        [=] {
          const grapnel_loss_callbacks callbacks = Loss();
          return grapnel_runner_options_set_loss(options, &callbacks,
                                                 &destroyed_);
        },
        [=] {
          const grapnel_metric_callbacks callbacks = Metric();
          return grapnel_runner_options_add_metric(options, GRAPNEL_VAL,
                                                   &callbacks, &destroyed_);
        },
        [=] {
          const grapnel_hook_callbacks callbacks = Hook();
          return grapnel_runner_options_add_hook(options, "a", 1, &callbacks,
                                                 &destroyed_);
        },
        [=] {
          grapnel_runner* runner = nullptr;
          return grapnel_runner_create(options, &runner);
        },
    };
    std::vector<Bad> cases;
    for (auto& call : calls) cases.push_back({message, std::move(call)});
    return cases;
  }

  grapnel_runner_options* options_ = nullptr;
  grapnel_tensors* tensors_ = nullptr;
  int destroyed_ = 0;
};

TEST_F(ArgumentsTest, OptionsThatAreNotThereOrUsedUp) {
  ExpectEach(OptionsCalls(nullptr, "options: must not be null"));
  ExpectEach(
      {{"out", [] { return grapnel_runner_options_create(nullptr); }},
       {"out", [&] { return grapnel_runner_create(options_, nullptr); }}});
  // A config without a model makes no runner, and uses them up.
  grapnel_runner* runner = nullptr;
  EXPECT_THAT(Took(grapnel_runner_create(options_, &runner)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("model")));
  EXPECT_EQ(runner, nullptr);
  ExpectEach(OptionsCalls(options_, "options: are used up"),
             absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(destroyed_, 0);
  grapnel_runner_options_destroy(nullptr);
  grapnel_runner_destroy(nullptr);
}

TEST_F(ArgumentsTest, Configs) {
  const auto config = [&](const char* text, grapnel_encoding encoding) {
    return [=] {
      return grapnel_runner_options_set_config(
          options_, text, std::string(text).size(), encoding);
    };
  };
  ExpectEach({
      {"encoding: there is no value 0", config("", 0)},
      {"encoding: there is no value 4", config("", 4)},
      {"no field \"epochs\"", config("epochs: 3", GRAPNEL_TEXT)},
      {"config", config("{\"epochs\": 3}", GRAPNEL_JSON)},
      {"config", config("\xff\xff", GRAPNEL_BINARY)},
      {"config: must not be null",
       [&] {
         return grapnel_runner_options_set_config(options_, nullptr, 1,
                                                  GRAPNEL_TEXT);
       }},
      {"path: must not be empty",
       [&] { return grapnel_runner_options_set_config_file(options_, "", 0); }},
      {"path: must not be null",
       [&] {
         return grapnel_runner_options_set_config_file(options_, nullptr, 4);
       }},
      {"x.yaml",
       [&] {
         return grapnel_runner_options_set_config_file(options_, "x.yaml", 6);
       }},
      {"assignment: must not be null",
       [&] { return grapnel_runner_options_override(options_, nullptr, 4); }},
      {"assignment_size: is",
       [&] { return grapnel_runner_options_override(options_, "a", kHuge); }},
      {"train_cfg.epochs",
       [&] {
         return grapnel_runner_options_override(options_, "train_cfg.epochs=2",
                                                18);
       }},
      {"dir: not UTF-8",
       [&] {
         return grapnel_runner_options_set_base_dir(options_, "\xff", 1);
       }},
  });
  EXPECT_THAT(Took(grapnel_runner_options_set_config_file(
                  options_, "no_such.textproto", 17)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no_such")));
  // An override that was refused is forgotten.
  EXPECT_THAT(Took(config("train_cfg { max_epochs: 2 }", GRAPNEL_TEXT)()),
              IsOk());
}

TEST_F(ArgumentsTest, NumbersAndTheLog) {
  const auto wait = [&](double seconds) {
    return [=] {
      return grapnel_runner_options_set_wait_for_lock(options_, seconds);
    };
  };
  ExpectEach({
      {"seconds: must be >= 0, is -1", wait(-1)},
      {"seconds: must be >= 0, is nan", wait(std::nan(""))},
      {"fd: must be >= -1, is -2",
       [&] { return grapnel_runner_options_set_terminal_fd(options_, -2); }},
      {"callback: must not be null",
       [&] {
         return grapnel_runner_options_set_log_callback(options_, nullptr,
                                                        nullptr);
       }},
      {"callback: must not be null",
       [&] {
         return grapnel_runner_options_set_record_callback(options_, nullptr,
                                                           nullptr);
       }},
  });
  EXPECT_THAT(Took(wait(std::numeric_limits<double>::infinity())()), IsOk());
}

TEST_F(ArgumentsTest, HookCallbacks) {
  const auto changed = [&](void (*change)(grapnel_hook_callbacks*)) {
    return [=] {
      grapnel_hook_callbacks callbacks = Hook();
      change(&callbacks);
      return AddHook(callbacks);
    };
  };
  ExpectEach({
      {"callbacks: must not be null",
       [&] {
         return grapnel_runner_options_add_hook(options_, "a", 1, nullptr,
                                                &destroyed_);
       }},
      {"name: must not be empty",
       [&] {
         const grapnel_hook_callbacks callbacks = Hook();
         return grapnel_runner_options_add_hook(options_, "", 0, &callbacks,
                                                &destroyed_);
       }},
      {"struct_size: is 0", changed([](auto* c) { c->struct_size = 0; })},
      {"struct_size: is", changed([](auto* c) { c->struct_size -= 8; })},
      {"stages: there are 30",
       changed([](auto* c) { c->stages = uint64_t{1} << 30; })},
      {"stages: there are 30",
       changed([](auto* c) { c->stages = uint64_t{1} << 63; })},
      {"priority: must be in 0..100, is -1",
       changed([](auto* c) { c->priority = -1; })},
      {"priority: must be in 0..100, is 101",
       changed([](auto* c) { c->priority = 101; })},
      {"on_stage: must not be null",
       changed([](auto* c) { c->on_stage = nullptr; })},
      {"save_state and load_state: both must be set", changed([](auto* c) {
         c->save_state = [](void*, grapnel_bytes*) {
           return Never("save_state");
         };
       })},
  });
  EXPECT_EQ(destroyed_, 0);
}

TEST_F(ArgumentsTest, DatasetCallbacks) {
  const auto changed = [&](void (*change)(grapnel_dataset_callbacks*)) {
    return [=] {
      grapnel_dataset_callbacks callbacks = Dataset();
      change(&callbacks);
      return SetDataset(callbacks);
    };
  };
  const auto mode = [&](grapnel_mode mode) {
    return [=] {
      const grapnel_dataset_callbacks callbacks = Dataset();
      return grapnel_runner_options_set_dataset(options_, mode, &callbacks,
                                                &destroyed_);
    };
  };
  ExpectEach({
      {"callbacks: must not be null",
       [&] {
         return grapnel_runner_options_set_dataset(options_, GRAPNEL_TRAIN,
                                                   nullptr, &destroyed_);
       }},
      {"mode: there is no 3", mode(3)},
      {"mode: there is no -1", mode(-1)},
      {"struct_size", changed([](auto* c) { c->struct_size = 8; })},
      {"size: must be >= 1, is 0", changed([](auto* c) { c->size = 0; })},
      {"get: must not be null", changed([](auto* c) { c->get = nullptr; })},
  });
  EXPECT_EQ(destroyed_, 0);
}

TEST_F(ArgumentsTest, StreamCallbacks) {
  const auto changed = [&](void (*change)(grapnel_stream_callbacks*)) {
    return [=] {
      grapnel_stream_callbacks callbacks = Stream();
      change(&callbacks);
      return SetStream(callbacks);
    };
  };
  ExpectEach({
      {"callbacks: must not be null",
       [&] {
         return grapnel_runner_options_set_stream(options_, nullptr,
                                                  &destroyed_);
       }},
      {"struct_size: is 0", changed([](auto* c) { c->struct_size = 0; })},
      {"struct_size: is", changed([](auto* c) { c->struct_size -= 8; })},
      {"begin_pass: must not be null",
       changed([](auto* c) { c->begin_pass = nullptr; })},
      {"next: must not be null", changed([](auto* c) { c->next = nullptr; })},
      {"save_state and load_state: both must be set", changed([](auto* c) {
         c->save_state = [](void*, grapnel_bytes*) {
           return Never("save_state");
         };
       })},
      {"save_state and load_state: both must be set", changed([](auto* c) {
         c->load_state = [](void*, const void*, size_t) {
           return Never("load_state");
         };
       })},
  });
  EXPECT_EQ(destroyed_, 0);
}

TEST_F(ArgumentsTest, Tensors) {
  const auto set = [&] {
    return grapnel_runner_options_set_tensors(options_, GRAPNEL_TRAIN,
                                              tensors_);
  };
  ExpectEach({{"tensors: must not be null",
               [&] {
                 return grapnel_runner_options_set_tensors(
                     options_, GRAPNEL_TRAIN, nullptr);
               }},
              {"there is no \"input\"", set},
              {"mode: there is no 9", [&] {
                 return grapnel_runner_options_set_tensors(options_, 9,
                                                           tensors_);
               }}});
  AddTensor("input", 4);
  AddTensor("extra", 3);
  ExpectEach({{"\"extra\": must have as many rows as the first, 4", set}});
  grapnel_tensors_clear(tensors_);
  AddTensor("input", 0);
  ExpectEach({{"\"input\": must have at least one row", set}});
}

TEST_F(ArgumentsTest, ModelCallbacks) {
  AddTensor("w", 2);
  const auto changed = [&](void (*change)(grapnel_model_callbacks*)) {
    return [=] {
      grapnel_model_callbacks callbacks = Model();
      change(&callbacks);
      return SetModel(callbacks);
    };
  };
  ExpectEach({
      {"callbacks: must not be null",
       [&] {
         return grapnel_runner_options_set_model(options_, nullptr, tensors_,
                                                 nullptr, &destroyed_);
       }},
      {"parameters: must not be null",
       [&] {
         const grapnel_model_callbacks callbacks = Model();
         return grapnel_runner_options_set_model(options_, &callbacks, nullptr,
                                                 nullptr, &destroyed_);
       }},
      {"struct_size", changed([](auto* c) { c->struct_size = 0; })},
      {"train_step: must not be null",
       changed([](auto* c) { c->train_step = nullptr; })},
      {"buffer \"w\": is there twice",
       [&] { return SetModel(Model(), tensors_); }},
  });
  const int64_t count = 3;
  ASSERT_THAT(Took(grapnel_tensors_add_copy(tensors_, "n", 1, GRAPNEL_INT64,
                                            nullptr, 0, &count, sizeof(count))),
              IsOk());
  ExpectEach({{"parameter \"n\": must be floating",
               [&] { return SetModel(Model()); }}});
  EXPECT_EQ(destroyed_, 0);
}

TEST_F(ArgumentsTest, LossAndMetricCallbacks) {
  const auto loss = [&](void (*change)(grapnel_loss_callbacks*)) {
    return [=] {
      grapnel_loss_callbacks callbacks = Loss();
      change(&callbacks);
      return SetLoss(callbacks);
    };
  };
  const auto metric = [&](void (*change)(grapnel_metric_callbacks*)) {
    return [=] {
      grapnel_metric_callbacks callbacks = Metric();
      change(&callbacks);
      return AddMetric(callbacks);
    };
  };
  const auto mode = [&](grapnel_mode mode) {
    return [=] {
      const grapnel_metric_callbacks callbacks = Metric();
      return grapnel_runner_options_add_metric(options_, mode, &callbacks,
                                               &destroyed_);
    };
  };
  ExpectEach({
      {"callbacks: must not be null",
       [&] {
         return grapnel_runner_options_set_loss(options_, nullptr, &destroyed_);
       }},
      {"struct_size", loss([](auto* c) { c->struct_size = 1; })},
      {"compute: must not be null",
       loss([](auto* c) { c->compute = nullptr; })},
      {"struct_size", metric([](auto* c) { c->struct_size = 16; })},
      {"reset: must not be null", metric([](auto* c) { c->reset = nullptr; })},
      {"process: must not be null",
       metric([](auto* c) { c->process = nullptr; })},
      {"compute: must not be null",
       metric([](auto* c) { c->compute = nullptr; })},
      {"must be GRAPNEL_VAL or GRAPNEL_TEST", mode(GRAPNEL_TRAIN)},
      {"mode: there is no 3", mode(3)},
  });
  EXPECT_EQ(destroyed_, 0);
}

TEST_F(ArgumentsTest, WhatIsTakenGoesWithTheOptionsOrIsReplaced) {
  ASSERT_THAT(Took(AddHook(Hook())), IsOk());
  ASSERT_THAT(Took(SetDataset(Dataset())), IsOk());
  ASSERT_THAT(Took(SetDataset(Dataset())), IsOk());
  EXPECT_EQ(destroyed_, 1);  // The first dataset's.
  ASSERT_THAT(Took(SetStream(Stream())), IsOk());
  ASSERT_THAT(Took(SetStream(Stream())), IsOk());
  EXPECT_EQ(destroyed_, 2);
  AddTensor("w", 2);
  ASSERT_THAT(Took(SetModel(Model())), IsOk());
  ASSERT_THAT(Took(SetLoss(Loss())), IsOk());
  ASSERT_THAT(Took(AddMetric(Metric())), IsOk());
  EXPECT_EQ(destroyed_, 2);
  grapnel_runner_options_destroy(options_);
  options_ = nullptr;
  EXPECT_EQ(destroyed_, 8);
}

// A struct of a caller that is newer than the library.
TEST_F(ArgumentsTest, ALargerStructIsTaken) {
  struct {
    grapnel_hook_callbacks known;
    void (*added)(void);
  } callbacks = {Hook(), nullptr};
  callbacks.known.struct_size = sizeof(callbacks);
  ASSERT_THAT(Took(AddHook(callbacks.known)), IsOk());
}

TEST_F(ArgumentsTest, TheModelsTensorsAreSharedAndTheHandlesStayAsTheyAre) {
  AddTensor("w", 2);
  ASSERT_THAT(Took(SetModel(Model())), IsOk());
  // Nothing that requires a gradient would be written in place.
  const float numbers[] = {3, 4};
  grapnel_tensor* w = nullptr;
  ASSERT_THAT(
      Took(grapnel_tensor_share(grapnel_tensors_find(tensors_, "w", 1), &w)),
      IsOk());
  EXPECT_THAT(Took(grapnel_tensor_write(w, numbers, sizeof(numbers))), IsOk());
  grapnel_tensor_destroy(w);
}

TEST_F(ArgumentsTest, ARunnerThatIsNotThere) {
  int32_t more = 0;
  double value = 0;
  grapnel_bytes bytes = {nullptr, 0};
  grapnel_tensor* tensor = nullptr;
  grapnel_predictor* predictor = nullptr;
  const std::vector<std::function<grapnel_status*()>> calls = {
      [&] { return grapnel_runner_config(nullptr, GRAPNEL_TEXT, &bytes); },
      [&] { return grapnel_runner_train(nullptr); },
      [&] { return grapnel_runner_step(nullptr, &more); },
      [&] { return grapnel_runner_train_until(nullptr, 0, &more); },
      [&] { return grapnel_runner_val(nullptr, nullptr); },
      [&] { return grapnel_runner_test(nullptr, nullptr); },
      [&] { return grapnel_runner_export(nullptr, "a", 1); },
      [&] { return grapnel_runner_save(nullptr, "a", 1); },
      [&] {
        return grapnel_runner_request_stop(nullptr, GRAPNEL_STOP_NOW, "a", 1);
      },
      [&] { return grapnel_runner_stop_reason(nullptr, &bytes); },
      [&] { return grapnel_runner_scalar(nullptr, "a", 1, &value); },
      [&] { return grapnel_runner_scalar_names(nullptr, &bytes); },
      [&] { return grapnel_runner_info(nullptr, "a", 1, &bytes); },
      [&] { return grapnel_runner_get_tensor(nullptr, "a", 1, &tensor); },
      [&] { return grapnel_runner_set_tensor(nullptr, "a", 1, tensor); },
      [&] { return grapnel_runner_tensor_names(nullptr, &bytes); },
      [&] { return grapnel_runner_stage_table(nullptr, &bytes); },
      [&] { return grapnel_runner_work_dir(nullptr, &bytes); },
      [&] {
        return grapnel_runner_predictor(nullptr, GRAPNEL_EVALUATED, 1,
                                        &predictor);
      },
  };
  for (const auto& call : calls)
    ExpectEach({{"runner: must not be null", call}});
  EXPECT_EQ(grapnel_runner_epoch(nullptr), 0);
  EXPECT_EQ(grapnel_runner_iter(nullptr), 0);
  EXPECT_EQ(grapnel_runner_rank(nullptr), 0);
  EXPECT_EQ(grapnel_runner_local_rank(nullptr), 0);
  EXPECT_EQ(grapnel_runner_world_size(nullptr), 0);
  EXPECT_EQ(grapnel_runner_is_master(nullptr), 0);
}

TEST_F(ArgumentsTest, Predictors) {
  AddTensor("input", 4);
  const grapnel_tensor* const inputs = grapnel_tensors_at(tensors_, 0);
  grapnel_predictor* predictor = nullptr;
  grapnel_tensor* outputs = nullptr;
  ExpectEach({
      {"path: must not be null",
       [&] {
         return grapnel_predictor_open(nullptr, 4, GRAPNEL_EVALUATED, 1,
                                       &predictor);
       }},
      {"path: must not be empty",
       [&] {
         return grapnel_predictor_open("", 0, GRAPNEL_EVALUATED, 1, &predictor);
       }},
      {"path: not UTF-8",
       [&] {
         return grapnel_predictor_open("\xff", 1, GRAPNEL_EVALUATED, 1,
                                       &predictor);
       }},
      {"weights: there is no value -1",
       [&] { return grapnel_predictor_open("run", 3, -1, 1, &predictor); }},
      {"weights: there is no value 3",
       [&] { return grapnel_predictor_open("run", 3, 3, 1, &predictor); }},
      {"replicas: must be >= 1, is 0",
       [&] {
         return grapnel_predictor_open("run", 3, GRAPNEL_EVALUATED, 0,
                                       &predictor);
       }},
      {"out: must not be null",
       [&] {
         return grapnel_predictor_open("run", 3, GRAPNEL_EVALUATED, 1, nullptr);
       }},
      {"predictor: must not be null",
       [&] { return grapnel_predictor_refresh(nullptr); }},
      {"predictor: must not be null",
       [&] { return grapnel_predictor_predict(nullptr, inputs, &outputs); }},
  });
  EXPECT_EQ(predictor, nullptr);
  EXPECT_EQ(outputs, nullptr);
  EXPECT_EQ(grapnel_predictor_iter(nullptr), 0);
  grapnel_predictor_destroy(nullptr);
}

TEST_F(ArgumentsTest, ARunThatIsNotThere) {
  const grapnel_tensors* tensors = nullptr;
  const grapnel_scalars* scalars = nullptr;
  const grapnel_status* error = nullptr;
  const char* path = nullptr;
  grapnel_tensor* tensor = nullptr;
  double value = 0;
  const std::vector<std::function<grapnel_status*()>> calls = {
      [&] { return grapnel_run_batch(nullptr, &tensors); },
      [&] { return grapnel_run_log_vars(nullptr, &scalars); },
      [&] { return grapnel_run_predictions(nullptr, &tensors); },
      [&] { return grapnel_run_metrics(nullptr, &scalars); },
      [&] { return grapnel_run_saved_path(nullptr, &path); },
      [&] { return grapnel_run_error(nullptr, &error); },
      [&] { return grapnel_run_tensor(nullptr, "a", 1, &tensor); },
      [&] { return grapnel_run_scalar(nullptr, "a", 1, &value); },
      [&] { return grapnel_run_add_scalar(nullptr, "a", 1, 1); },
      [&] { return grapnel_run_save(nullptr, "a", 1); },
      [&] {
        return grapnel_run_request_stop(nullptr, GRAPNEL_STOP_NOW, "a", 1);
      },
      [&] { return grapnel_run_log(nullptr, GRAPNEL_INFO, "a", 1); },
  };
  for (const auto& call : calls) ExpectEach({{"run: must not be null", call}});
  EXPECT_EQ(grapnel_run_epoch(nullptr), 0);
  EXPECT_EQ(grapnel_run_iter(nullptr), 0);
  EXPECT_EQ(grapnel_run_max_epochs(nullptr), 0);
  EXPECT_EQ(grapnel_run_max_iters(nullptr), 0);
  EXPECT_EQ(grapnel_run_mode(nullptr), 0);
  EXPECT_EQ(grapnel_run_training(nullptr), 0);
  EXPECT_EQ(grapnel_run_batch_idx(nullptr), 0);
  EXPECT_EQ(grapnel_run_num_batches(nullptr), 0);
  EXPECT_EQ(grapnel_run_rank(nullptr), 0);
  EXPECT_EQ(grapnel_run_world_size(nullptr), 0);
  EXPECT_EQ(grapnel_run_is_master(nullptr), 0);
}

// One hook, and what it asks wrongly of a run that is there.
grapnel_status* AskWrongly(void*, grapnel_stage, grapnel_run* run) {
  double value = 0;
  grapnel_tensor* tensor = nullptr;
  ExpectEach({
      {"name: must not be empty",
       [&] { return grapnel_run_tensor(run, "", 0, &tensor); }},
      {"out: must not be null",
       [&] { return grapnel_run_tensor(run, "w", 1, nullptr); }},
      {"name: must not be null",
       [&] { return grapnel_run_scalar(run, nullptr, 1, &value); }},
      {"value: must not be null",
       [&] { return grapnel_run_scalar(run, "train/a", 7, nullptr); }},
      {"must begin with \"train/\"",
       [&] { return grapnel_run_add_scalar(run, "loss", 4, 1); }},
      {"must begin with \"train/\"",
       [&] { return grapnel_run_add_scalar(run, "train/", 6, 1); }},
      {"at: there is no 2",
       [&] { return grapnel_run_request_stop(run, 2, "a", 1); }},
      {"reason: must not be null",
       [&] {
         return grapnel_run_request_stop(run, GRAPNEL_STOP_NOW, nullptr, 1);
       }},
      {"severity: there is no 3",
       [&] { return grapnel_run_log(run, 3, "a", 1); }},
      {"message: must not be null",
       [&] { return grapnel_run_log(run, GRAPNEL_INFO, nullptr, 1); }},
      {"batch: must not be null",
       [&] { return grapnel_run_batch(run, nullptr); }},
      {"log_vars: must not be null",
       [&] { return grapnel_run_log_vars(run, nullptr); }},
      {"predictions: must not be null",
       [&] { return grapnel_run_predictions(run, nullptr); }},
      {"metrics: must not be null",
       [&] { return grapnel_run_metrics(run, nullptr); }},
      {"path: must not be null",
       [&] { return grapnel_run_saved_path(run, nullptr); }},
      {"error: must not be null",
       [&] { return grapnel_run_error(run, nullptr); }},
  });
  EXPECT_THAT(Took(grapnel_run_tensor(run, "weight", 6, &tensor)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("weight")));
  EXPECT_THAT(Took(grapnel_run_scalar(run, "train/a", 7, &value)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("train/a")));
  EXPECT_THAT(Took(grapnel_run_save(run, "a", 1)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("can be asked for at")));
  return nullptr;
}

TEST_F(ArgumentsTest, OfARunAndARunner) {
  const std::string config = absl::StrCat(
      "work_dir: \"", io::JoinPath(::testing::TempDir(), "run"), "\" ", R"pb(
        model { sequential { layers { linear { out_features: 1 } } } }
        test_dataloader { batch_size: 2 }
      )pb");
  ASSERT_THAT(Took(grapnel_runner_options_set_config(
                  options_, config.data(), config.size(), GRAPNEL_TEXT)),
              IsOk());
  ASSERT_THAT(Took(grapnel_runner_options_set_for_training(options_, 0)),
              IsOk());
  const float inputs[] = {1, 2, 3, 4};
  const int64_t shape[] = {2, 2};
  ASSERT_THAT(
      Took(grapnel_tensors_add_copy(tensors_, "input", 5, GRAPNEL_FLOAT32,
                                    shape, 2, inputs, sizeof(inputs))),
      IsOk());
  ASSERT_THAT(Took(grapnel_runner_options_set_tensors(options_, GRAPNEL_TEST,
                                                      tensors_)),
              IsOk());
  grapnel_metric_callbacks metric = Metric();
  metric.reset = [](void*) -> grapnel_status* { return nullptr; };
  metric.process = [](void*, const grapnel_tensors*,
                      const grapnel_tensors*) -> grapnel_status* {
    return nullptr;
  };
  metric.compute = [](void*, grapnel_scalars*) -> grapnel_status* {
    return nullptr;
  };
  ASSERT_THAT(Took(grapnel_runner_options_add_metric(options_, GRAPNEL_TEST,
                                                     &metric, &destroyed_)),
              IsOk());
  grapnel_hook_callbacks hook = Hook();
  hook.stages = uint64_t{1} << GRAPNEL_BEFORE_TEST;
  hook.on_stage = AskWrongly;
  ASSERT_THAT(Took(AddHook(hook)), IsOk());
  grapnel_runner* runner = nullptr;
  ASSERT_THAT(Took(grapnel_runner_create(options_, &runner)), IsOk());
  ASSERT_THAT(Took(grapnel_runner_test(runner, nullptr)), IsOk());

  double value = 0;
  int32_t more = 0;
  grapnel_tensor* tensor = nullptr;
  grapnel_predictor* predictor = nullptr;
  grapnel_bytes bytes = {nullptr, 0};
  ExpectEach({
      {"encoding: there is no value 7",
       [&] { return grapnel_runner_config(runner, 7, &bytes); }},
      {"config: must not be null",
       [&] { return grapnel_runner_config(runner, GRAPNEL_TEXT, nullptr); }},
      {"unix_seconds: must be a time, is nan",
       [&] { return grapnel_runner_train_until(runner, std::nan(""), &more); }},
      {"path: must not be empty",
       [&] { return grapnel_runner_export(runner, "", 0); }},
      {"name: must not be empty",
       [&] { return grapnel_runner_save(runner, "", 0); }},
      {"at: there is no -1",
       [&] { return grapnel_runner_request_stop(runner, -1, "a", 1); }},
      {"reason: must not be null",
       [&] {
         return grapnel_runner_request_stop(runner, GRAPNEL_STOP_NOW, nullptr,
                                            1);
       }},
      {"reason: must not be null",
       [&] { return grapnel_runner_stop_reason(runner, nullptr); }},
      {"value: must not be null",
       [&] { return grapnel_runner_scalar(runner, "train/a", 7, nullptr); }},
      {"names: must not be null",
       [&] { return grapnel_runner_scalar_names(runner, nullptr); }},
      {"value: must not be null",
       [&] { return grapnel_runner_info(runner, "a", 1, nullptr); }},
      {"name: must not be empty",
       [&] { return grapnel_runner_info(runner, "", 0, &bytes); }},
      {"out: must not be null",
       [&] { return grapnel_runner_get_tensor(runner, "w", 1, nullptr); }},
      {"value: must not be null",
       [&] { return grapnel_runner_set_tensor(runner, "w", 1, nullptr); }},
      {"names: must not be null",
       [&] { return grapnel_runner_tensor_names(runner, nullptr); }},
      {"table: must not be null",
       [&] { return grapnel_runner_stage_table(runner, nullptr); }},
      {"path: must not be null",
       [&] { return grapnel_runner_work_dir(runner, nullptr); }},
      {"weights: there is no value 3",
       [&] { return grapnel_runner_predictor(runner, 3, 1, &predictor); }},
      {"replicas: must be >= 1, is -1",
       [&] {
         return grapnel_runner_predictor(runner, GRAPNEL_EVALUATED, -1,
                                         &predictor);
       }},
      {"out: must not be null",
       [&] {
         return grapnel_runner_predictor(runner, GRAPNEL_EVALUATED, 1, nullptr);
       }},
  });
  EXPECT_EQ(predictor, nullptr);
  ASSERT_THAT(
      Took(grapnel_runner_predictor(runner, GRAPNEL_EVALUATED, 1, &predictor)),
      IsOk());
  const float one = 1;
  grapnel_tensor* scalar = nullptr;
  ASSERT_THAT(Took(grapnel_tensor_create(GRAPNEL_FLOAT32, nullptr, 0, &one,
                                         sizeof(one), &scalar)),
              IsOk());
  ExpectEach({
      {"inputs: must not be null",
       [&] { return grapnel_predictor_predict(predictor, nullptr, &tensor); }},
      {"out: must not be null",
       [&] { return grapnel_predictor_predict(predictor, scalar, nullptr); }},
      {"inputs: must have the shape (N, ...), have ()",
       [&] { return grapnel_predictor_predict(predictor, scalar, &tensor); }},
  });
  grapnel_tensor_destroy(scalar);
  grapnel_predictor_destroy(predictor);
  EXPECT_THAT(Took(grapnel_runner_train(runner)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("for_training")));
  EXPECT_THAT(Took(grapnel_runner_get_tensor(runner, "w", 1, &tensor)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"w\"")));
  EXPECT_EQ(bytes.data, nullptr);
  EXPECT_EQ(tensor, nullptr);
  EXPECT_EQ(value, 0);
  grapnel_runner_destroy(runner);
  EXPECT_EQ(destroyed_, 2);
}

}  // namespace
}  // namespace grapnel
