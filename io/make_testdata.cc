// Writes testdata/v1/epoch_2. Run once, when the format was released:
//   ./bazelw run //io:make_testdata -- "$PWD/io/testdata/v1"
// Never again: the files prove that what was written then is read today.

#include <cstdio>

#include "absl/status/status.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/testdata_contents.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_testdata DIRECTORY\n");
    return 2;
  }
  const absl::Status status = grapnel::io::WriteCheckpoint(
      grapnel::io::Env::Posix(), argv[1], "epoch_2", grapnel::io::TestdataV1());
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
