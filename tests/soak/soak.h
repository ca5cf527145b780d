// What tests that run for long look at.

#ifndef GRAPNEL_TESTS_SOAK_SOAK_H_
#define GRAPNEL_TESTS_SOAK_SOAK_H_

#include <dirent.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "gtest/gtest.h"

namespace grapnel {

// GRAPNEL_SOAK_ITERS, or `otherwise`.
inline int64_t SoakIters(int64_t otherwise) {
  const char* const text = std::getenv("GRAPNEL_SOAK_ITERS");
  int64_t iters = otherwise;
  if (text != nullptr && !absl::SimpleAtoi(text, &iters)) {
    ADD_FAILURE() << "GRAPNEL_SOAK_ITERS: is no number: " << text;
  }
  return iters;
}

// Bytes of this process that are in memory.
inline int64_t ResidentBytes() {
  FILE* const file = std::fopen("/proc/self/statm", "r");
  long total = 0, resident = 0;
  EXPECT_EQ(std::fscanf(file, "%ld %ld", &total, &resident), 2);
  std::fclose(file);
  return resident * sysconf(_SC_PAGESIZE);
}

// Threads of this process.
inline int NumThreads() {
  DIR* const stream = opendir("/proc/self/task");
  if (stream == nullptr) return -1;
  int threads = 0;
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] != '.') ++threads;
  }
  closedir(stream);
  return threads;
}

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_SOAK_SOAK_H_
