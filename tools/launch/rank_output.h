// Output of ranks on its way to the streams of the launcher.

#ifndef GRAPNEL_TOOLS_LAUNCH_RANK_OUTPUT_H_
#define GRAPNEL_TOOLS_LAUNCH_RANK_OUTPUT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace grapnel {

// One of this process's streams, which it shares with others: they don't find
// it changed (O_NONBLOCK is theirs too), and a reader that is slow or stopped
// doesn't stop who writes. When its reader is gone, what is added is dropped.
// Thread-compatible.
class OutputSink {
 public:
  // `fd` stays the caller's. One that isn't open drops all.
  explicit OutputSink(int fd);
  ~OutputSink();

  OutputSink(const OutputSink&) = delete;
  OutputSink& operator=(const OutputSink&) = delete;

  // Queues `bytes`. Those of another `source` than the last ones begin a new
  // line.
  void Add(int source, absl::string_view bytes);

  bool full() const { return queue_.size() - written_ >= kFull; }
  bool empty() const { return written_ == queue_.size(); }
  int fd() const { return fd_; }  // To poll for POLLOUT unless empty().

  // Writes what can be written at once.
  void Write();

 private:
  static constexpr size_t kFull = 256 << 10;

  enum class Kind {
    kFile,         // Doesn't block.
    kNonBlocking,  // Opened anew, so that it doesn't.
    kSocket,
    kBlocking,  // Takes a little at once when poll says so.
    kGone,
  };

  Kind kind_ = Kind::kFile;
  int fd_;
  bool owns_fd_ = false;
  std::string queue_;
  size_t written_ = 0;
  int last_source_ = 0;
  bool in_line_ = false;
};

// Takes what a rank writes, in whatever pieces, and gives whole lines.
// Thread-compatible.
class LineSplitter {
 public:
  // Longer ones come in pieces.
  static constexpr size_t kMaxLine = 64 << 10;

  // Without `prefix`, bytes are what they were, and a carriage return ends a
  // line too, as a progress bar's. With it, each line starts with `prefix` and
  // ends with a newline.
  explicit LineSplitter(std::string prefix) : prefix_(std::move(prefix)) {}

  // Appends the lines that are complete to `*lines`.
  void Add(absl::string_view bytes, std::string* lines);

  // The last line, which has no end.
  void Finish(std::string* lines);

 private:
  const std::string prefix_;
  std::string rest_;
};

// The end of `text`, at most `count` lines that aren't blank, without their
// newlines and shortened to `max_size` bytes.
std::vector<std::string> LastLines(absl::string_view text, size_t count,
                                   size_t max_size);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_LAUNCH_RANK_OUTPUT_H_
