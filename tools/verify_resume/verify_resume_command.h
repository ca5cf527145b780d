// The command `grapnel verify-resume`.

#ifndef GRAPNEL_TOOLS_VERIFY_RESUME_VERIFY_RESUME_COMMAND_H_
#define GRAPNEL_TOOLS_VERIFY_RESUME_VERIFY_RESUME_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/tools/verify_resume/verify_resume.h"

namespace grapnel {

// Fits a terminal of 24 lines by 80 columns.
extern const char kVerifyResumeHelp[];

struct VerifyResumeCommand {
  bool help = false;  // Nothing else was read.
  bool json = false;
  VerifyResumeOptions options;  // Without `program` and `progress`.
};

// Reads the arguments that follow "verify-resume". What isn't its own is for
// train, and read there, but for the names of flags. kInvalidArgument names the
// flag and the value.
absl::StatusOr<VerifyResumeCommand> ParseVerifyResumeCommand(
    const std::vector<std::string>& args);

// Does it, in this program: /proc/self/exe has a "train" of its own. SIGINT,
// SIGTERM, SIGHUP and SIGPIPE, unless they are ignored, end it, and its folder
// goes first. Returns what the process should: kDone all equal, kRunFailed
// different, kBadInput, kNotTested, or 128 and the signal's number.
int RunVerifyResume(const std::vector<std::string>& args);

// What a process of its runs that ends with the error `status` returns:
// kNotTested for kResourceExhausted and kUnavailable, which are the machine's
// (a full disk, no memory, bad reads), whatever it was doing; files above a
// limit of ours, which are kResourceExhausted too, fail a run without a kill as
// well, and no checkpoint of a run is one. Else, and in any other process,
// `exit_code`.
int ExitCodeForVerifier(const absl::Status& status, int exit_code);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_VERIFY_RESUME_VERIFY_RESUME_COMMAND_H_
