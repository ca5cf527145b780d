// What two runs have in common, for tests.

#ifndef GRAPNEL_TESTS_E2E_COMPARE_RUNS_H_
#define GRAPNEL_TESTS_E2E_COMPARE_RUNS_H_

#include <string>
#include <vector>

#include "grapnel/io/checkpoint.h"

namespace grapnel {

// Runs a program with these arguments, itself first, and waits for it; returns
// what waitpid() says.
int RunProgram(std::vector<std::string> args);

// The records of the newest run in `work_dir`, without what differs from run to
// run.
std::vector<std::string> RecordsOf(const std::string& work_dir);

// The same tensors, to the bit, and the same state, progress and metrics, but
// for what depends on the clock.
void ExpectSameCheckpoints(const io::CheckpointContents& expected,
                           const io::CheckpointContents& actual);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_E2E_COMPARE_RUNS_H_
