// What `grapnel ckpt` was asked to do.

#ifndef GRAPNEL_TOOLS_CKPT_CKPT_COMMAND_H_
#define GRAPNEL_TOOLS_CKPT_CKPT_COMMAND_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grapnel {

// Fits a terminal of 24 lines by 80 columns.
extern const char kCkptHelp[];

struct CkptCommand {
  enum class Verb {
    kLs,
    kShow,
    kVerify,
    kDiff,
    kDu,
    kGc,
    kPin,
    kRepairLast,
    kExport,
    kImport,
    kAverage
  };
  enum class Format { kPth, kSafetensors };

  Verb verb = Verb::kLs;
  // Set if that is asked for, of `grapnel ckpt` or of the verb; the rest was
  // not read.
  std::string help;

  std::vector<std::string> paths;  // As many as the verb takes.
  bool json = false;
  bool all = false;     // show, diff: as many lines as there are.
  bool config = false;  // show.
  std::optional<std::string> section;  // diff.
  bool dry_run = false;                // gc.
  bool remove = false;                 // pin.

  // gc: the rules. > 0 where set.
  std::optional<int64_t> keep_last;
  std::optional<int64_t> keep_best;
  std::optional<int64_t> keep_every;
  std::optional<absl::Duration> keep_per;
  std::optional<std::string> metric;  // Set with keep_best, and only then.
  std::optional<std::string> rule;    // "greater" or "less".
  std::optional<std::string> run;     // Digits of its id, as ls prints them.

  std::optional<Format> format;        // export.
  std::optional<std::string> average;  // export: a section.
  bool training = false;               // export: all of it.

  // import: the file of a configuration; the rest only with that. >= 0.
  std::optional<std::string> training_config;
  std::optional<int64_t> epoch;
  std::optional<int64_t> iter;
  bool no_optimizer = false;

  std::optional<std::string> output;  // average: always set.
  std::vector<double> weights;        // average: as many as paths, or none.
};

// Reads the arguments that follow "ckpt". The verb comes first; flags stand
// anywhere behind it, with dashes or underscores, and "=" or a space before
// their value; "--" ends them. kInvalidArgument names the argument.
absl::StatusOr<CkptCommand> ParseCkptCommand(
    const std::vector<std::string>& args);

// Of a verb, for tests: the same size.
std::vector<std::string> CkptHelps();

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_CKPT_CKPT_COMMAND_H_
