#include "grapnel/tools/launch/rank_group.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

constexpr size_t kReadSize = 64 << 10;
constexpr size_t kTailSize = 8 << 10;
// What is taken at once from a rank whose sink is full: more than a pipe holds.
constexpr int kDrainReads = 32;
constexpr size_t kLastLines = 5;
constexpr size_t kLastLineSize = 400;
constexpr const char* kStreamNames[] = {"stdout", "stderr"};

absl::Status Failed(int rank, absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat("rank ", rank, ": ", what));
}

}  // namespace

RankGroup::RankGroup(const RankGroupOptions& options, OutputSink& out,
                     OutputSink& err)
    : options_(options), out_(out), err_(err), ranks_(options.size) {}

RankGroup::~RankGroup() { Kill(); }

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::Start(
    const RankGroupOptions& options, OutputSink& out, OutputSink& err) {
  std::unique_ptr<RankGroup> group(new RankGroup(options, out, err));
  for (int i = 0; i < options.size; ++i) {
    GRAPNEL_RETURN_IF_ERROR(group->StartRank(i));
  }
  return group;
}

absl::Status RankGroup::StartRank(int local_rank) {
  Rank& rank = ranks_[local_rank];
  const int number = options_.first_rank + local_rank;
  OwnedFd files[3];  // Of the rank.
  files[0] = OwnedFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (files[0].get() < 0) return Failed(number, "/dev/null");
  for (int i = 0; i < 2; ++i) {
    Stream& stream = rank.streams[i];
    if (options_.log_dir.empty()) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) return Failed(number, "pipe");
      stream.pipe = OwnedFd(ends[0]);
      files[i + 1] = OwnedFd(ends[1]);
      fcntl(ends[0], F_SETFL, O_NONBLOCK);
      stream.source = 1 + 2 * local_rank + i;
      stream.sink = i == 0 && number == 0 ? &out_ : &err_;
      stream.lines = std::make_unique<LineSplitter>(
          number == 0 ? "" : absl::StrCat("[rank ", number, "] "));
      continue;
    }
    stream.log_path = absl::StrCat(options_.log_dir, "/rank_", number, ".",
                                   kStreamNames[i], ".log");
    files[i + 1] =
        OwnedFd(open(stream.log_path.c_str(),
                     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    struct stat info;
    if (files[i + 1].get() < 0 || fstat(files[i + 1].get(), &info) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(stream.log_path, ": ", strerror(errno)));
    }
    stream.log_start = info.st_size;
  }

  ProgramOptions program;
  program.command = options_.command;
  program.environment = options_.environment;
  program.environment.push_back(absl::StrCat("RANK=", number));
  program.environment.push_back(absl::StrCat("ROLE_RANK=", number));
  program.environment.push_back(absl::StrCat("LOCAL_RANK=", local_rank));
  for (int i = 0; i < 3; ++i) program.fds[i] = files[i].get();
  // Keys of a terminal reach the launcher alone, which passes them on.
  program.own_group = true;
  program.signals = &options_.signals;
  const absl::StatusOr<pid_t> pid = StartProgram(std::move(program));
  if (!pid.ok()) {
    return WithContext(pid.status(), absl::StrCat("rank ", number));
  }
  rank.pid = *pid;
  ++running_;
  return absl::OkStatus();
}

int RankGroup::OnEnded(pid_t pid, int wait_status) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (ranks_[i].pid != pid || ranks_[i].ended) continue;
    ranks_[i].ended = true;
    ranks_[i].wait_status = wait_status;
    --running_;
    return options_.first_rank + static_cast<int>(i);
  }
  return -1;
}

void RankGroup::Signal(int signal) {
  for (const Rank& rank : ranks_) {
    if (rank.pid > 0 && !rank.ended) kill(rank.pid, signal);
  }
}

void RankGroup::Kill() {
  for (const Rank& rank : ranks_) {
    if (rank.pid <= 0 || rank.ended) continue;
    kill(-rank.pid, SIGKILL);
    kill(rank.pid, SIGKILL);
  }
}

void RankGroup::AddPolls(std::vector<pollfd>* polls) {
  ++first_polled_;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    for (const Stream& stream :
         ranks_[(first_polled_ + i) % ranks_.size()].streams) {
      if (stream.pipe.get() >= 0 && !stream.sink->full()) {
        polls->push_back({stream.pipe.get(), POLLIN, 0});
      }
    }
  }
}

bool RankGroup::ReadOnce(Stream* stream) {
  static char buffer[kReadSize];
  const ssize_t n = read(stream->pipe.get(), buffer, sizeof(buffer));
  if (n < 0) return errno == EINTR;
  std::string lines;
  if (n == 0) {
    stream->lines->Finish(&lines);
    stream->pipe = OwnedFd();
  } else {
    stream->lines->Add(absl::string_view(buffer, n), &lines);
    stream->tail.append(buffer, n);
    if (stream->tail.size() > 2 * kTailSize) {
      stream->tail.erase(0, stream->tail.size() - kTailSize);
    }
  }
  stream->sink->Add(stream->source, lines);
  return n > 0;
}

void RankGroup::OnReadable(int fd) {
  for (Rank& rank : ranks_) {
    for (Stream& stream : rank.streams) {
      if (stream.pipe.get() == fd) ReadOnce(&stream);
    }
  }
}

void RankGroup::Drain(int rank) {
  for (Stream& stream : ranks_[rank - options_.first_rank].streams) {
    for (int i = 0; i < kDrainReads && stream.pipe.get() >= 0; ++i) {
      if (!ReadOnce(&stream)) break;
    }
  }
}

void RankGroup::Finish() {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Drain(options_.first_rank + static_cast<int>(i));
    for (Stream& stream : ranks_[i].streams) {
      if (stream.pipe.get() < 0) continue;
      std::string lines;
      stream.lines->Finish(&lines);
      stream.sink->Add(stream.source, lines);
      stream.pipe = OwnedFd();
    }
  }
}

std::vector<std::string> RankGroup::LastLinesOf(int rank) const {
  for (const int i : {1, 0}) {
    const Stream& stream = at(rank).streams[i];
    std::string tail = stream.tail;
    if (!stream.log_path.empty()) {
      const OwnedFd log(open(stream.log_path.c_str(), O_RDONLY | O_CLOEXEC));
      struct stat info;
      if (log.get() < 0 || fstat(log.get(), &info) != 0) continue;
      const off_t begin = std::max<off_t>(
          stream.log_start, info.st_size - static_cast<off_t>(kTailSize));
      tail.resize(kTailSize);
      const ssize_t n = pread(log.get(), tail.data(), tail.size(), begin);
      tail.resize(std::max<ssize_t>(n, 0));
    }
    std::vector<std::string> lines = LastLines(tail, kLastLines, kLastLineSize);
    if (!lines.empty()) return lines;
  }
  return {};
}

}  // namespace grapnel
