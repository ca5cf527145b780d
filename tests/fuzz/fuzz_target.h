// What a fuzz target is: a function that takes any bytes at all. libFuzzer and
// AFL++ call the same one; here driver.cc does.

#ifndef GRAPNEL_TESTS_FUZZ_FUZZ_TARGET_H_
#define GRAPNEL_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"

// The target: parses `data`, and ends the process if what must hold of that
// doesn't. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// A target may have one: changes `data`, which has room for `max_size` bytes,
// and returns how many there are then. It keeps checksums and lengths right, so
// that changes get past them.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed);

namespace grapnel {

// A target may have one: the most bytes of memory that it may have at one time
// for an input of `size` bytes. Without it that is 1 MiB and 64 times the size.
int64_t MaxMemory(int64_t size);

}  // namespace grapnel

// For a custom mutator: one change of the driver's own kinds.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace grapnel {

// LLVMFuzzerMutate of a string, which has at most `max_size` bytes then.
void Mutate(size_t max_size, std::string* bytes);

// Ends the process if `status` is no answer to give for an input: a code that
// says our code is wrong, or a message that is not UTF-8 or would move a
// terminal's cursor.
void CheckStatus(const absl::Status& status);

// A target says what came of its input, once. Checks `status`, too.
void NoteOutcome(const absl::Status& status);

// Inputs by what came of them.
const std::map<absl::StatusCode, int64_t>& Outcomes();

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_FUZZ_FUZZ_TARGET_H_
