#include "grapnel/tools/launch/node_protocol.h"

#include <signal.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

// With the launcher's version of what is said here.
constexpr char kHello[] = "grapnel-launch-1";
constexpr size_t kMaxText = 800;

std::string Words(std::initializer_list<absl::AlphaNum> words) {
  return absl::StrJoin(words, " ",
                       [](std::string* out, const absl::AlphaNum& word) {
                         absl::StrAppend(out, word);
                       });
}

// One line, whatever a rank wrote.
std::string OneLine(absl::string_view text) {
  std::string line(text.substr(0, kMaxText));
  for (char& c : line) {
    if (absl::ascii_iscntrl(c)) c = '?';
  }
  return line;
}

// Takes a message apart, word by word.
class MessageReader {
 public:
  explicit MessageReader(absl::string_view line) : line_(line), rest_(line) {}

  absl::string_view Word() {
    const size_t space = std::min(rest_.find(' '), rest_.size());
    const absl::string_view word = rest_.substr(0, space);
    rest_.remove_prefix(std::min(space + 1, rest_.size()));
    return word;
  }

  int Int(int min, int max = std::numeric_limits<int>::max()) {
    int value = 0;
    if (!absl::SimpleAtoi(Word(), &value) || value < min || value > max) {
      good_ = false;
      return min;
    }
    return value;
  }

  // All that is left.
  std::string Text() { return std::string(std::exchange(rest_, "")); }

  absl::Status Finish(bool known = true) const {
    if (known && good_ && rest_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "no message of a launcher: \"", OneLine(line_.substr(0, 100)), "\""));
  }

 private:
  const absl::string_view line_;
  absl::string_view rest_;
  bool good_ = true;
};

std::string Encode(const Failure& failure) {
  return Words({failure.rank, failure.exit_code, int{failure.is_final},
                OneLine(failure.text)});
}

Failure ReadFailure(MessageReader& words) {
  Failure failure;
  failure.rank = words.Int(-1);
  failure.exit_code = words.Int(0, 255);
  failure.is_final = words.Int(0, 1) == 1;
  failure.text = words.Text();
  return failure;
}

}  // namespace

std::string Encode(const Hello& hello) {
  return Words({kHello, hello.node_rank, hello.nnodes, hello.nproc_per_node,
                hello.max_restarts});
}

absl::StatusOr<Hello> DecodeHello(absl::string_view line) {
  MessageReader words(line);
  const bool known = words.Word() == kHello;
  Hello hello;
  hello.node_rank = words.Int(0);
  hello.nnodes = words.Int(1);
  hello.nproc_per_node = words.Int(1);
  hello.max_restarts = words.Int(0);
  GRAPNEL_RETURN_IF_ERROR(words.Finish(known));
  return hello;
}

absl::Status CheckHello(const Hello& mine, const Hello& theirs) {
  struct Flag {
    const char* name;
    int mine;
    int theirs;
  };
  for (const Flag& flag :
       {Flag{"nnodes", mine.nnodes, theirs.nnodes},
        Flag{"nproc-per-node", mine.nproc_per_node, theirs.nproc_per_node},
        Flag{"max-restarts", mine.max_restarts, theirs.max_restarts}}) {
    if (flag.mine != flag.theirs) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag.name, ": is ", flag.theirs, " on node ",
                       theirs.node_rank, " and ", flag.mine, " on node 0"));
    }
  }
  if (theirs.node_rank < 1 || theirs.node_rank >= mine.nnodes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--node-rank: must be in 1..", mine.nnodes - 1,
                     " to join node 0, is ", theirs.node_rank));
  }
  return absl::OkStatus();
}

std::string Encode(const Report& report) {
  switch (report.kind) {
    case Report::Kind::kSignal:
      return Words({"signal", report.signal});
    case Report::Kind::kFailed:
      return Words({"failed", report.attempt, Encode(report.failure)});
    case Report::Kind::kDone:
      return Words({"done", report.attempt});
    case Report::Kind::kStopped:
      break;
  }
  return Words({"stopped", report.attempt});
}

absl::StatusOr<Report> DecodeReport(absl::string_view line) {
  MessageReader words(line);
  const absl::string_view kind = words.Word();
  Report report;
  bool known = true;
  if (kind == "signal") {
    report.kind = Report::Kind::kSignal;
    report.signal = words.Int(1, 64);
  } else if (kind == "failed") {
    report.kind = Report::Kind::kFailed;
    report.attempt = words.Int(0);
    report.failure = ReadFailure(words);
  } else if (kind == "done" || kind == "stopped") {
    report.kind = kind == "done" ? Report::Kind::kDone : Report::Kind::kStopped;
    report.attempt = words.Int(0);
  } else {
    known = false;
  }
  GRAPNEL_RETURN_IF_ERROR(words.Finish(known));
  return report;
}

std::string Encode(const Command& command) {
  switch (command.kind) {
    case Command::Kind::kStart:
      return Words({"start", command.attempt, command.master_port,
                    int{command.resume}, command.run_id,
                    Encode(command.failure)});
    case Command::Kind::kStop:
      return Words({"stop", command.signal});
    case Command::Kind::kEnd:
      break;
  }
  return Words({"end", command.exit_code, Encode(command.failure)});
}

absl::StatusOr<Command> DecodeCommand(absl::string_view line) {
  MessageReader words(line);
  const absl::string_view kind = words.Word();
  Command command;
  bool known = true;
  if (kind == "start") {
    command.attempt = words.Int(0);
    command.master_port = words.Int(1, 65535);
    command.resume = words.Int(0, 1) == 1;
    command.run_id = std::string(words.Word());
    command.failure = ReadFailure(words);
  } else if (kind == "stop") {
    command.kind = Command::Kind::kStop;
    command.signal = words.Int(1, 64);
  } else if (kind == "end") {
    command.kind = Command::Kind::kEnd;
    command.exit_code = words.Int(0, 255);
    command.failure = ReadFailure(words);
  } else {
    known = false;
  }
  GRAPNEL_RETURN_IF_ERROR(words.Finish(known));
  return command;
}

Coordinator::Coordinator(int nnodes, int max_restarts,
                         std::vector<int> final_exit_codes)
    : max_restarts_(max_restarts),
      final_exit_codes_(std::move(final_exit_codes)),
      finished_(nnodes, false) {}

Command Coordinator::Stop(int signal) const {
  Command stop;
  stop.kind = Command::Kind::kStop;
  stop.signal = signal;
  return stop;
}

Command Coordinator::End(int exit_code) {
  ended_ = true;
  Command end;
  end.kind = Command::Kind::kEnd;
  end.exit_code = exit_code;
  return end;
}

std::vector<Command> Coordinator::Begin() {
  begun_ = true;
  return {Command()};
}

std::vector<Command> Coordinator::OnReport(int node, const Report& report) {
  if (ended_) return {};
  switch (report.kind) {
    case Report::Kind::kSignal: {
      const bool again = asked_ != 0;
      if (!again) asked_ = report.signal;
      if (again) return {Stop(SIGKILL), End(128 + asked_)};
      if (!begun_) return {End(128 + asked_)};
      // Ranks that are stopping already were told once: a second time would
      // mean at once to them.
      if (stopping_) return {};
      stopping_ = true;
      return {Stop(report.signal)};
    }
    case Report::Kind::kFailed:
      if (report.attempt != attempt_ || failure_.has_value()) return {};
      failure_ = report.failure;
      if (stopping_) return {};
      stopping_ = true;
      return {Stop(SIGTERM)};
    case Report::Kind::kDone:
    case Report::Kind::kStopped:
      if (report.attempt != attempt_) return {};
      finished_[node] = true;
      return Decide();
  }
  return {};
}

std::vector<Command> Coordinator::Decide() {
  if (std::count(finished_.begin(), finished_.end(), false) > 0) return {};
  Command command;
  if (failure_.has_value()) command.failure = *failure_;
  const int code = command.failure.exit_code;
  const bool again =
      asked_ == 0 && failure_.has_value() && attempt_ < max_restarts_ &&
      !failure_->is_final && code != 128 + SIGINT && code != 128 + SIGTERM &&
      code != 128 + SIGHUP &&
      std::count(final_exit_codes_.begin(), final_exit_codes_.end(), code) == 0;
  if (!again) {
    const Failure failure = std::move(command.failure);
    command = End(asked_ != 0 ? 128 + asked_ : code);
    command.failure = failure;
    return {command};
  }
  command.attempt = ++attempt_;
  failure_.reset();
  stopping_ = false;
  std::fill(finished_.begin(), finished_.end(), false);
  return {command};
}

std::vector<Command> Coordinator::OnLost(int node, absl::string_view why) {
  if (ended_) return {};
  Command end = End(asked_ != 0 ? 128 + asked_ : 1);
  end.failure.exit_code = end.exit_code;
  end.failure.text = absl::StrCat("node ", node, " is lost: ", why);
  return {end};
}

}  // namespace grapnel
