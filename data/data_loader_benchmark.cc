// What a batch costs: 64 images of 8 x 8 from an IDX file, in this thread.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "grapnel/data/data.pb.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"

namespace grapnel {
namespace {

constexpr int kImages = 1797;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

std::string Header(const std::vector<uint32_t>& dims) {
  std::string file("\0\0\x08", 3);
  file += static_cast<char>(dims.size());
  for (const uint32_t dim : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      file += static_cast<char>(dim >> shift);
    }
  }
  return file;
}

void Measure(io::Env& env, const std::string& name, const std::string& fields) {
  data::v1::DataLoaderConfig config;
  google::protobuf::TextFormat::ParseFromString(
      "batch_size: 64 dataset { idx { images: '/i' labels: '/l' } } " + fields,
      &config);
  DataLoader::Options options;
  options.env = &env;
  auto loader = DataLoader::Create(config, options);
  Check(loader.status());
  std::vector<double> micros;
  Batch batch;
  for (int64_t epoch = 0; epoch < 200; ++epoch) {
    (*loader)->Seek(epoch, 0);
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < (*loader)->num_batches(); ++i) {
      Check((*loader)->Next(&batch));
    }
    const std::chrono::duration<double, std::micro> elapsed =
        std::chrono::steady_clock::now() - start;
    micros.push_back(elapsed.count() / (*loader)->num_batches());
  }
  std::sort(micros.begin(), micros.end());
  std::printf("%-32s %8.2f us a batch (median of epochs; best %.2f)\n",
              name.c_str(), micros[micros.size() / 2], micros[0]);
}

void Run() {
  io::MemEnv env;
  Check(io::WriteFileAtomically(
      env, "/i", Header({kImages, 8, 8}) + std::string(kImages * 64, 7)));
  Check(io::WriteFileAtomically(env, "/l",
                                Header({kImages}) + std::string(kImages, 3)));
  Measure(env, "in order", "");
  Measure(env, "shuffled", "sampler { shuffle: true }");
  Measure(env, "normalized", "transforms { normalize { mean: 1 std: 2 } }");
  Measure(env, "affine",
          "transforms { random_affine { degrees: 10 translate: 0.1 } }");
  Measure(env, "one worker", "num_workers: 1 sampler { shuffle: true }");
}

}  // namespace
}  // namespace grapnel

int main() { grapnel::Run(); }
