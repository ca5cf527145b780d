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

// The state of a checkpoint, without what depends on the clock.
std::string StateText(const io::CheckpointContents& contents);

// The same sections of the same tensors, to the bit.
void ExpectSameTensors(const io::CheckpointContents& a,
                       const io::CheckpointContents& b);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_E2E_COMPARE_RUNS_H_
