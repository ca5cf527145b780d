// One of the programs that load.py measures.
//
//   load_program make FOLDER          writes model.pth and model.safetensors
//   load_program pth|safetensors FILE
//   load_program write_pth|write_safetensors FOLDER
//
// The latter print "ready", then read or write once for each line of stdin, and
// print the seconds that it took, and those of processors.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/tools/bench/measure.h"

namespace grapnel {
namespace {

// The parameters of a ResNet-50 that is 2.25 times as wide: 161 tensors, 0.5
// GB.
TensorMap Model() {
  TensorMap tensors;
  const auto add = [&](std::vector<int64_t> shape) {
    Check(tensors.Add(absl::StrCat("layer.", tensors.size(), ".weight"),
                      ops::randn(shape)));
  };
  const auto add_conv = [&](int64_t out, int64_t in, int64_t kernel) {
    add({out, in, kernel, kernel});
    add({out});  // The batch norm behind it.
    add({out});
  };
  constexpr int64_t kWidth = 144;
  add_conv(kWidth, 3, 7);
  int64_t in = kWidth;
  for (int stage = 0; stage < 4; ++stage) {
    const int64_t planes = kWidth << stage;
    constexpr int kBlocks[] = {3, 4, 6, 3};
    for (int block = 0; block < kBlocks[stage]; ++block) {
      add_conv(planes, in, 1);
      add_conv(planes, planes, 3);
      add_conv(4 * planes, planes, 1);
      if (block == 0) add_conv(4 * planes, in, 1);
      in = 4 * planes;
    }
  }
  add({1000, in});
  add({1000});
  return tensors;
}

// Reads as ReadCheckpoint does: each byte goes into a digest, which is that of
// the first time.
void ReadSafetensorsVerified(const std::string& path) {
  static std::string* const first = new std::string;
  const std::unique_ptr<io::RandomAccessFile> file =
      Value(io::Env::Posix().NewRandomAccessFile(path));
  io::SafetensorsFile read;
  Value(io::ReadSafetensors(*file, path, &read));
  if (first->empty()) *first = read.xxh3_128;
  if (read.xxh3_128 != *first) {
    std::fprintf(stderr, "%s has changed\n", path.c_str());
    std::exit(1);
  }
}

void ReadPthVerified(const std::string& path) {
  if (!Value(io::PthFile::Read(io::Env::Posix(), path)).verified()) {
    std::fprintf(stderr, "%s has no checksums\n", path.c_str());
    std::exit(1);
  }
}

int Main(const std::string& command, const std::string& path) {
  io::Env& env = io::Env::Posix();
  TensorMap model;
  if (command == "make" || command == "write_pth" ||
      command == "write_safetensors") {
    model = Model();
  }
  const std::string pth = io::JoinPath(path, "model.pth");
  const std::string safetensors = io::JoinPath(path, "model.safetensors");
  const auto write_pth = [&] { Check(io::WritePthWeights(env, pth, model)); };
  const auto write_safetensors = [&] {
    Value(io::WriteSafetensors(env, safetensors, model));
  };
  std::function<void()> work;
  if (command == "make") {
    write_pth();
    write_safetensors();
    return 0;
  }
  if (command == "pth") work = [&] { ReadPthVerified(path); };
  if (command == "safetensors") work = [&] { ReadSafetensorsVerified(path); };
  if (command == "write_pth") work = write_pth;
  if (command == "write_safetensors") work = write_safetensors;
  if (work == nullptr) return 1;
  std::printf("ready\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const double start = Now();
    const std::clock_t cpu = std::clock();  // Of all threads.
    work();
    std::printf("%.6f %.6f\n", Now() - start,
                static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  if (argc == 3) return grapnel::Main(argv[1], argv[2]);
  std::fprintf(stderr, "usage: load_program COMMAND PATH\n");
  return 1;
}
