// A program with a protobuf of its own, and libgrapnel.so in it: three times it
// loads it, trains with it, and uses its own protobuf in between.
//
//   host VERSION                    linked with the library
//   host VERSION LIBRARY [global]   by dlopen, RTLD_GLOBAL if asked for
//
// VERSION is that of the protobuf that the host should have, as in 3021012, or
// "any".

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "grapnel/grapnel.h"
#include "grapnel/tests/capi/shared/own_protobuf.h"

namespace {

#define FUNCTIONS(F)                     \
  F(grapnel_bytes_clear)                 \
  F(grapnel_checkpoint_destroy)          \
  F(grapnel_checkpoint_latest)           \
  F(grapnel_checkpoint_manifest)         \
  F(grapnel_checkpoint_open)             \
  F(grapnel_live_objects)                \
  F(grapnel_runner_create)               \
  F(grapnel_runner_destroy)              \
  F(grapnel_runner_iter)                 \
  F(grapnel_runner_options_create)       \
  F(grapnel_runner_options_destroy)      \
  F(grapnel_runner_options_set_base_dir) \
  F(grapnel_runner_options_set_config)   \
  F(grapnel_runner_options_set_tensors)  \
  F(grapnel_runner_train)                \
  F(grapnel_status_code)                 \
  F(grapnel_status_destroy)              \
  F(grapnel_status_message)              \
  F(grapnel_tensors_add_copy)            \
  F(grapnel_tensors_create)              \
  F(grapnel_tensors_destroy)             \
  F(grapnel_version)

struct Api {
#define MEMBER(name) decltype(&::name) name;
  FUNCTIONS(MEMBER)
#undef MEMBER
};

#define REQUIRE(condition) Require(condition, __LINE__, #condition)

void Require(bool holds, int line, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "host.cc:%d: %s\n", line, what);
  std::exit(1);
}

// ----------------------------------------------------------------- the library

#ifdef GRAPNEL_HOST_LINKED

Api Load(const char*, int) {
  Api api;
#define TAKE(name) api.name = &::name;
  FUNCTIONS(TAKE)
#undef TAKE
  return api;
}

void Unload(const char*) {}

#else

void* handle = nullptr;

Api Load(const char* path, int flags) {
  handle = dlopen(path, RTLD_NOW | flags);
  if (handle == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(1);
  }
  Api api;
#define TAKE(name)                                                      \
  api.name = reinterpret_cast<decltype(&::name)>(dlsym(handle, #name)); \
  REQUIRE(api.name != nullptr);
  FUNCTIONS(TAKE)
#undef TAKE
  return api;
}

void Unload(const char* path) {
  REQUIRE(dlclose(handle) == 0);
  // Threads and what LibTorch has registered outlive that: it stays.
  void* const still = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(still != nullptr);
  REQUIRE(dlclose(still) == 0);
}

#endif

// ------------------------------------------------------------------ a training

constexpr char kConfig[] =
    "work_dir: \"run\"\n"
    "model {\n"
    "  sequential {\n"
    "    layers { embedding { num_embeddings: 2 embedding_dim: 3 } }\n"
    "    layers { flatten {} }\n"
    "    layers { linear { out_features: 2 } }\n"
    "    loss { cross_entropy {} }\n"
    "  }\n"
    "}\n"
    "train_dataloader { batch_size: 4 }\n"
    "train_cfg { max_epochs: 3 }\n"
    "optim_wrapper { optimizer { sgd { lr: 0.1 } } }\n";

constexpr int64_t kSamples = 8;
constexpr int64_t kIters = 6;

class Host {
 public:
  Host(const Api& api, std::string dir) : api_(api), dir_(std::move(dir)) {}

  // Which of 0 and `largest` a word is, is to be learned.
  grapnel_status* Train(int64_t largest) {
    std::vector<int64_t> inputs;
    std::vector<int64_t> targets;
    for (int64_t i = 0; i < kSamples; ++i) {
      inputs.push_back(i % 2 * largest);
      targets.push_back(i % 2);
    }
    const int64_t shape[] = {kSamples, 1};
    grapnel_tensors* tensors = nullptr;
    Ok(api_.grapnel_tensors_create(&tensors));
    Ok(api_.grapnel_tensors_add_copy(tensors, "input", 5, GRAPNEL_INT64, shape,
                                     2, inputs.data(),
                                     inputs.size() * sizeof(int64_t)));
    Ok(api_.grapnel_tensors_add_copy(tensors, "target", 6, GRAPNEL_INT64, shape,
                                     1, targets.data(),
                                     targets.size() * sizeof(int64_t)));
    grapnel_runner_options* options = nullptr;
    Ok(api_.grapnel_runner_options_create(&options));
    Ok(api_.grapnel_runner_options_set_base_dir(options, dir_.data(),
                                                dir_.size()));
    Ok(api_.grapnel_runner_options_set_config(
        options, kConfig, std::strlen(kConfig), GRAPNEL_TEXT));
    Ok(api_.grapnel_runner_options_set_tensors(options, GRAPNEL_TRAIN,
                                               tensors));
    api_.grapnel_tensors_destroy(tensors);
    grapnel_runner* runner = nullptr;
    Ok(api_.grapnel_runner_create(options, &runner));
    api_.grapnel_runner_options_destroy(options);
    grapnel_status* const status = api_.grapnel_runner_train(runner);
    REQUIRE(status != nullptr || api_.grapnel_runner_iter(runner) == kIters);
    api_.grapnel_runner_destroy(runner);
    return status;
  }

  // What the training has left, by the library.
  std::string Manifest(grapnel_encoding encoding) {
    const std::string run = dir_ + "/run";
    grapnel_bytes path = {nullptr, 0};
    Ok(api_.grapnel_checkpoint_latest(run.data(), run.size(), &path));
    grapnel_checkpoint* checkpoint = nullptr;
    Ok(api_.grapnel_checkpoint_open(path.data, path.size, &checkpoint));
    grapnel_bytes manifest = {nullptr, 0};
    Ok(api_.grapnel_checkpoint_manifest(checkpoint, encoding, &manifest));
    std::string bytes(manifest.data, manifest.size);
    api_.grapnel_bytes_clear(&manifest);
    api_.grapnel_checkpoint_destroy(checkpoint);
    api_.grapnel_bytes_clear(&path);
    return bytes;
  }

  void Ok(grapnel_status* status) {
    if (status == nullptr) return;
    std::fprintf(stderr, "%s\n", api_.grapnel_status_message(status));
    std::exit(1);
  }

 private:
  const Api& api_;
  const std::string dir_;
};

void OwnMessages() {
  std::string name;
  int64_t iter = 0;
  REQUIRE(own_protobuf::ReadManifest(own_protobuf::WriteManifest("iter_7", 7),
                                     &name, &iter));
  REQUIRE(name == "iter_7");
  REQUIRE(iter == 7);
  REQUIRE(!own_protobuf::ReadManifest("\xff", &name, &iter));
}

void Round(const char* path, int flags, const std::string& dir) {
  OwnMessages();
  const Api api = Load(path, flags);
  REQUIRE(api.grapnel_version() != 0);
  OwnMessages();

  Host host(api, dir);
  host.Ok(host.Train(1));
  std::string name;
  int64_t iter = 0;
  REQUIRE(
      own_protobuf::ReadManifest(host.Manifest(GRAPNEL_BINARY), &name, &iter));
  REQUIRE(name == "epoch_3");
  REQUIRE(iter == kIters);
  REQUIRE(host.Manifest(GRAPNEL_JSON).find("\"epoch_3\"") != std::string::npos);

  // LibTorch throws, and the library catches it.
  Host wrong(api, dir + "_wrong");
  grapnel_status* const status = wrong.Train(7);
  REQUIRE(status != nullptr);
  // By the type of the exception, which both have.
  REQUIRE(api.grapnel_status_code(status) == GRAPNEL_OUT_OF_RANGE);
  api.grapnel_status_destroy(status);

  REQUIRE(api.grapnel_live_objects() == 0);
  Unload(path);
  OwnMessages();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string version = argc > 1 ? argv[1] : "";
  const int own = own_protobuf::Version();
  if (version != "any" && version != std::to_string(own)) {
    std::fprintf(stderr, "protobuf is %d, not %s: run ./bazelw setup --all\n",
                 own, version.c_str());
    return 1;
  }
  const char* const tmp = std::getenv("TEST_TMPDIR");
  for (int i = 0; i < 3; ++i) {
    Round(argc > 2 ? argv[2] : nullptr, argc > 3 ? RTLD_GLOBAL : RTLD_LOCAL,
          std::string(tmp == nullptr ? "." : tmp) + "/round_" +
              std::to_string(i));
  }
  return 0;
}
