// Whether a training that is killed and resumed is the one that never was.

#ifndef GRAPNEL_TOOLS_VERIFY_RESUME_VERIFY_RESUME_H_
#define GRAPNEL_TOOLS_VERIFY_RESUME_VERIFY_RESUME_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/tools/verify_resume/run_difference.h"

namespace grapnel {

struct VerifyResumeOptions {
  // The program that trains: its main() is //tools:grapnel_main's, whatever
  // else is linked into it. Not empty.
  std::string program;

  // Its configuration and flags, as they follow "train", without --work-dir and
  // a bare --resume.
  std::vector<std::string> train_args;

  int kills = 5;  // >= 1

  // Of what is killed when. Default: drawn.
  std::optional<uint64_t> kill_seed;

  // Train so many iterations, or as many epochs as have them. >= 1. Default:
  // all that is configured.
  std::optional<int64_t> iters;

  // Save after every so many iterations, whatever is configured. >= 1.
  std::optional<int64_t> save_every;

  // Where the folder of the runs is made: a directory. Not empty.
  std::string dir;
  bool keep = false;  // Else it is deleted where all was equal.

  // Hears, line by line, what is being done.
  std::function<void(const std::string& line)> progress;

  // Null, or outlives the call: once it isn't 0, the runs end, and their folder
  // goes as it does after an error.
  const std::atomic<int>* interrupt = nullptr;
};

struct VerifyResumeReport {
  enum class Verdict {
    kEqual,
    kDifferent,
    kNotDeterministic,  // Two uninterrupted runs already differ.
    kRunFailed,         // One that was resumed did; see `message`.
  };
  Verdict verdict = Verdict::kEqual;

  int64_t seed = 0;  // Of the run.
  uint64_t kill_seed = 0;
  int64_t iters = 0;   // Of the run.
  std::string saves;   // "every epoch, as configured"
  std::string folder;  // Of the runs; "" if it was deleted.

  struct Kill {
    int run = 0;        // Of those that were killed, the first is 0.
    int process = 0;    // Of that run.
    std::string where;  // "inside the save after iteration 23"
    std::string next;   // What the next one goes on from; "" for the beginning.
  };
  std::vector<Kill> kills;

  // Of the first run that isn't the same. The first one is the first that
  // differs, the owner is likely.
  std::vector<RunDifference> differences;
  std::string owner;
  std::string message;
};

// For a process without other threads that could be in its way: it starts
// others. The folder of the runs is left with a verdict that isn't kEqual, or
// if options.keep.
//   kInvalidArgument: the options, the configuration, or what it names; a user
//                     can set it right.
//   kCancelled: options.interrupt.
//   Any other: it couldn't be tested, since the system doesn't let it, or the
//              run fails also when nothing interrupts it.
absl::StatusOr<VerifyResumeReport> VerifyResume(
    const VerifyResumeOptions& options);

// For people, and one JSON object.
std::string ReportText(const VerifyResumeReport& report);
std::string ReportJson(const VerifyResumeReport& report);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_VERIFY_RESUME_VERIFY_RESUME_H_
