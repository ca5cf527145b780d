// spiral [DIR [ITERATIONS]]: trains, or goes on with what is in DIR.

#include <cstdlib>
#include <iostream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "grapnel/base/log.h"
#include "grapnel/examples/hand_written_loop/spiral_loop.h"
#include "grapnel/io/env.h"

int main(int argc, char** argv) {
  grapnel::InitLogging(argv[0]);
  const char* const user_dir = getenv("BUILD_WORKING_DIRECTORY");
  examples::SpiralOptions options;
  options.dir = grapnel::io::JoinPath(user_dir == nullptr ? "" : user_dir,
                                      argc > 1 ? argv[1] : "work_dirs/spiral");
  if (argc > 2 && (!absl::SimpleAtoi(argv[2], &options.iterations) ||
                   options.iterations < 1)) {
    std::cerr << "ITERATIONS: must be >= 1, is " << argv[2] << std::endl;
    return 2;
  }
  const absl::StatusOr<examples::SpiralResult> result =
      examples::TrainSpiral(options);
  if (!result.ok()) {
    std::cerr << result.status().message() << std::endl;
    return 1;
  }
  std::cout << "iterations " << result->resumed_from << " + "
            << result->iterations << ", accuracy " << result->accuracy
            << ", of the averaged weights " << result->averaged_accuracy
            << std::endl;
}
