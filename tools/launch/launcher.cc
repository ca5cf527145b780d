#include "grapnel/tools/launch/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/env.h"
#include "grapnel/tools/launch/node_protocol.h"
#include "grapnel/tools/launch/processes.h"
#include "grapnel/tools/launch/rank_group.h"
#include "grapnel/tools/launch/rank_output.h"
#include "grapnel/tools/launch/sockets.h"
#include "grapnel/tools/launch/start_program.h"

extern char** environ;

namespace grapnel {
namespace {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;

constexpr int kBadOptions = 2;
constexpr int kPassedOn[] = {SIGINT, SIGTERM, SIGHUP};
// What ranks leave behind, as a `tee` that has the last lines, gets so long to
// end by itself.
constexpr auto kLinger = std::chrono::milliseconds(1000);
constexpr absl::Duration kKillTimeout = absl::Seconds(10);
constexpr auto kPingInterval = std::chrono::seconds(2);
constexpr auto kConnectInterval = std::chrono::milliseconds(200);
constexpr absl::Duration kConnectTimeout = absl::Seconds(1);
// More would be no launchers.
constexpr size_t kMaxPeers = 2 * kMaxNodes;
constexpr auto kLastWords = std::chrono::seconds(1);
constexpr auto kGoodbye = std::chrono::seconds(5);

Clock::duration ToClock(absl::Duration duration) {
  return std::chrono::duration_cast<Clock::duration>(
      absl::ToChronoNanoseconds(duration));
}

// The first to have ended is the reason for the others' end. Of those found in
// one look it isn't known which it was: one that was killed hasn't lost another
// one, and a plain error is what losing another one gives.
int Precedence(int exit_code) {
  if (exit_code > 128) return 0;
  return exit_code > 1 ? 1 : 2;
}

std::string RunId() {
  uint64_t id = 0;
  if (getrandom(&id, sizeof(id), 0) != sizeof(id)) id = getpid();
  return absl::StrCat("grapnel_", absl::Hex(id, absl::kZeroPad16));
}

// A peer of a launcher on another node.
struct Peer {
  explicit Peer(OwnedFd socket)
      : connection(std::move(socket)), last_heard(Clock::now()) {}

  LineSocket connection;
  TimePoint last_heard;
  int node = -1;  // Of node 0's peers: not known before Hello.
  bool gone = false;
};

class Keeper {
 public:
  // `front`: a byte for each signal, until the launching process is gone.
  Keeper(const LaunchOptions& options, OwnedFd front, SignalState signals)
      : options_(options),
        front_(std::move(front)),
        signals_(std::move(signals)),
        out_(STDOUT_FILENO),
        err_(STDERR_FILENO),
        several_nodes_(options.nnodes > 1),
        coordinator_(options.nnodes, options.max_restarts,
                     options.final_exit_codes) {}

  // Returns the exit code.
  int Run();

 private:
  enum class Phase {
    kIdle,       // No attempt.
    kRunning,    // Ranks run.
    kStopping,   // They were told to end.
    kLingering,  // They have ended, and maybe not what they had started.
  };

  bool is_first() const { return options_.node_rank == 0; }
  int world_size() const { return options_.nnodes * options_.nproc_per_node; }

  void Say(absl::string_view text) {
    err_.Add(0, absl::StrCat("grapnel: ", text, "\n"));
  }

  // Ends the run with `exit_code`, once nothing is left of its ranks.
  void End(int exit_code) {
    if (!exit_code_.has_value()) exit_code_ = exit_code;
  }

  absl::Status Prepare();
  void Loop();
  std::vector<pollfd> Polls() const;
  int PollTimeout() const;
  void OnSignal(int signal);
  void OnFrontGone();
  void ReapChildren();

  // Node 0 to all nodes, itself among them.
  void Broadcast(std::vector<Command> commands);
  void Complete(Command* start);
  // This node to node 0.
  void SendReport(const Report& report);
  void OnCommand(const Command& command);
  void SayWhy(const Failure& failure);

  void StartAttempt(const Command& command);
  void StopRanks(int signal);
  void KillRanks();
  void OnRankFailed(int rank);
  void Advance();
  void EndAttempt();
  std::vector<std::string> Environment(const Command& command) const;

  void AcceptPeers();
  void ReadPeers();
  void OnLineOfNode(Peer* peer, absl::string_view line);
  void OnLineOfFirst(Peer* peer, absl::string_view line);
  void OnPeerGone(Peer* peer, absl::string_view why);
  void TryToConnect();
  void KeepInTouch();
  std::string MissingNodes() const;
  std::string MasterAddress() const {
    return absl::StrCat(options_.master_addr, ":", options_.master_port);
  }

  const LaunchOptions& options_;
  OwnedFd front_;
  const SignalState signals_;
  OutputSink out_;
  OutputSink err_;
  OwnedFd child_signals_;
  std::optional<int> exit_code_;
  bool hurry_ = false;  // Nothing is waited for any more.
  int asked_ = 0;       // The first signal.

  Phase phase_ = Phase::kIdle;
  std::unique_ptr<RankGroup> group_;
  int attempt_ = 0;
  bool killed_ = false;
  bool stopped_ = false;            // Ranks had to end.
  std::optional<int> own_failure_;  // The first failing rank of this node.
  std::string own_failure_text_;
  TimePoint kill_at_;
  TimePoint linger_until_;

  const bool several_nodes_;
  Coordinator coordinator_;  // Node 0's.
  std::optional<ReservedPort> port_;
  const std::string run_id_ = RunId();
  OwnedFd listening_;
  std::vector<std::unique_ptr<Peer>> peers_;
  bool joined_ = false;  // Node 0: all nodes have. Others: node 0 let us.
  TimePoint join_until_;
  TimePoint next_connect_;
  TimePoint next_ping_;
  std::string connect_error_;
};

int Keeper::Run() {
  const absl::Status status = Prepare();
  if (!status.ok()) {
    Say(status.message());
    End(kBadOptions);
  }
  Loop();
  // To a reader who is slow; not to one who has stopped while we are to end.
  const auto start = Clock::now();
  while (!(out_.empty() && err_.empty())) {
    const auto waited = Clock::now() - start;
    if (hurry_ && waited > kLastWords) break;
    if (asked_ != 0 && waited > ToClock(options_.grace)) break;
    std::vector<pollfd> polls = {{front_.get(), POLLIN, 0}};
    for (const OutputSink* sink : {&out_, &err_}) {
      if (!sink->empty()) polls.push_back({sink->fd(), POLLOUT, 0});
    }
    poll(polls.data(), polls.size(), 100);
    out_.Write();
    err_.Write();
    char byte;
    if (polls[0].revents != 0 && read(front_.get(), &byte, 1) >= 0) {
      hurry_ = true;
      front_ = OwnedFd();
    }
  }
  return *exit_code_;
}

absl::Status Keeper::Prepare() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  child_signals_ = OwnedFd(signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC));
  if (child_signals_.get() < 0) return absl::ErrnoToStatus(errno, "signalfd");
  if (!options_.log_dir.empty()) {
    GRAPNEL_RETURN_IF_ERROR(
        WithContext(io::Env::Posix().CreateDir(options_.log_dir), "--log-dir"));
    Say(absl::StrCat("output of ranks is appended to ", options_.log_dir,
                     "/rank_N.stdout.log and .stderr.log"));
  }
  if (options_.nproc_per_node > 1 && getenv("OMP_NUM_THREADS") == nullptr) {
    Say("OMP_NUM_THREADS is 1 for each rank, because it isn't set");
  }
  join_until_ = Clock::now() + ToClock(options_.join_timeout);
  next_connect_ = next_ping_ = Clock::now();
  if (!several_nodes_) {
    joined_ = true;
    Broadcast(coordinator_.Begin());
  } else if (is_first()) {
    absl::StatusOr<OwnedFd> listening = Listen(options_.master_port);
    if (!listening.ok()) {
      return WithContext(listening.status(), "--master-port");
    }
    listening_ = *std::move(listening);
    Say(absl::StrCat("waiting for ", MissingNodes(), " at port ",
                     options_.master_port));
  }
  return absl::OkStatus();
}

void Keeper::Loop() {
  while (true) {
    Advance();
    out_.Write();
    err_.Write();
    if (exit_code_.has_value() && phase_ == Phase::kIdle) break;
    std::vector<pollfd> polls = Polls();
    if (group_ != nullptr) group_->AddPolls(&polls);
    poll(polls.data(), polls.size(), PollTimeout());
    for (const pollfd& ready : polls) {
      if (ready.revents == 0) continue;
      if (ready.fd == front_.get()) {
        unsigned char signal;
        const ssize_t n = read(front_.get(), &signal, 1);
        if (n == 1) OnSignal(signal);
        if (n == 0) OnFrontGone();
      } else if (group_ != nullptr && (ready.events & POLLIN) != 0) {
        group_->OnReadable(ready.fd);
      }
    }
    ReapChildren();
    if (several_nodes_) {
      AcceptPeers();
      ReadPeers();
      KeepInTouch();
    }
  }
  // The others have to hear how it ended before they see that we are gone.
  const auto until = Clock::now() + kGoodbye;
  while (!hurry_ && Clock::now() < until &&
         std::any_of(peers_.begin(), peers_.end(), [](const auto& peer) {
           return !peer->connection.IsDelivered();
         })) {
    for (const auto& peer : peers_) peer->connection.Write();
    poll(nullptr, 0, 5);
  }
}

std::vector<pollfd> Keeper::Polls() const {
  // A descriptor of -1 is passed over.
  std::vector<pollfd> polls = {{child_signals_.get(), POLLIN, 0},
                               {front_.get(), POLLIN, 0},
                               {listening_.get(), POLLIN, 0}};
  for (const OutputSink* sink : {&out_, &err_}) {
    if (!sink->empty()) polls.push_back({sink->fd(), POLLOUT, 0});
  }
  for (const auto& peer : peers_) {
    const short events =
        peer->connection.has_output() ? POLLIN | POLLOUT : POLLIN;
    polls.push_back({peer->connection.fd(), events, 0});
  }
  return polls;
}

int Keeper::PollTimeout() const {
  const auto now = Clock::now();
  TimePoint next = now + std::chrono::hours(1);
  if (phase_ == Phase::kStopping && !killed_) next = std::min(next, kill_at_);
  if (phase_ == Phase::kLingering) {
    next = std::min(next, now + std::chrono::milliseconds(10));
  }
  if (several_nodes_) next = std::min(next, now + kConnectInterval);
  const auto wait =
      std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::max<int64_t>(wait, 0));
}

void Keeper::OnSignal(int signal) {
  Report report;
  report.kind = Report::Kind::kSignal;
  report.signal = signal;
  if (asked_ != 0) {
    hurry_ = true;
    KillRanks();
    SendReport(report);
    End(128 + asked_);
    return;
  }
  asked_ = signal;
  if (phase_ == Phase::kRunning) StopRanks(signal);
  SendReport(report);
  if (!joined_) End(128 + signal);
}

void Keeper::OnFrontGone() {
  front_ = OwnedFd();
  hurry_ = true;
  KillRanks();
  End(1);
}

void Keeper::ReapChildren() {
  signalfd_siginfo info;
  while (read(child_signals_.get(), &info, sizeof(info)) > 0) {
  }
  std::vector<int> failed;
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (group_ == nullptr) continue;
    const int rank = group_->OnEnded(pid, status);
    if (rank < 0) continue;
    // What it wrote comes before what we say about it.
    group_->Drain(rank);
    if (ExitCodeOfStatus(status) != 0) failed.push_back(rank);
  }
  if (failed.empty() || phase_ != Phase::kRunning) return;
  OnRankFailed(
      *std::min_element(failed.begin(), failed.end(), [this](int a, int b) {
        const auto precedence = [this](int rank) {
          return Precedence(ExitCodeOfStatus(group_->wait_status(rank)));
        };
        return std::pair(precedence(a), a) < std::pair(precedence(b), b);
      }));
}

void Keeper::Broadcast(std::vector<Command> commands) {
  for (Command& command : commands) {
    if (command.kind == Command::Kind::kStart) Complete(&command);
    for (const auto& peer : peers_) {
      if (peer->node >= 0) peer->connection.Send(Encode(command));
    }
    OnCommand(command);
  }
}

void Keeper::Complete(Command* start) {
  start->run_id = run_id_;
  if (start->attempt > 0 && options_.can_resume != nullptr) {
    start->resume = options_.can_resume();
  }
  port_.reset();
  absl::StatusOr<ReservedPort> port =
      ReservePort(several_nodes_ ? 0 : options_.master_port);
  if (port.ok()) {
    port_ = *std::move(port);
    start->master_port = port_->port;
    return;
  }
  *start = Command();
  start->kind = Command::Kind::kEnd;
  start->exit_code = kBadOptions;
  start->failure.text =
      absl::StrCat("--master-port: ", port.status().message());
}

void Keeper::SendReport(const Report& report) {
  if (is_first()) {
    Broadcast(coordinator_.OnReport(0, report));
    return;
  }
  for (const auto& peer : peers_) peer->connection.Send(Encode(report));
}

void Keeper::SayWhy(const Failure& failure) {
  if (failure.text.empty()) return;
  // Its own node has said more.
  const int first = options_.node_rank * options_.nproc_per_node;
  if (failure.rank >= first && failure.rank < first + options_.nproc_per_node) {
    return;
  }
  Say(failure.text);
}

void Keeper::OnCommand(const Command& command) {
  switch (command.kind) {
    case Command::Kind::kStart:
      if (phase_ != Phase::kIdle || exit_code_.has_value()) return;
      SayWhy(command.failure);
      if (command.attempt > 0) {
        Say(absl::StrCat("restart ", command.attempt, " of ",
                         options_.max_restarts,
                         command.resume ? ", from the newest checkpoint" : ""));
      }
      StartAttempt(command);
      return;
    case Command::Kind::kStop:
      if (command.signal == SIGKILL) {
        KillRanks();
      } else if (phase_ == Phase::kRunning) {
        StopRanks(command.signal);
      }
      return;
    case Command::Kind::kEnd:
      SayWhy(command.failure);
      if (phase_ == Phase::kRunning) StopRanks(SIGTERM);
      End(command.exit_code);
      return;
  }
}

std::vector<std::string> Keeper::Environment(const Command& command) const {
  const int nproc = options_.nproc_per_node;
  std::vector<std::pair<std::string, std::string>> ours = {
      {"RANK", ""},
      {"ROLE_RANK", ""},
      {"LOCAL_RANK", ""},
      {"WORLD_SIZE", absl::StrCat(world_size())},
      {"LOCAL_WORLD_SIZE", absl::StrCat(nproc)},
      {"GROUP_RANK", absl::StrCat(options_.node_rank)},
      {"GROUP_WORLD_SIZE", absl::StrCat(options_.nnodes)},
      {"ROLE_NAME", "default"},
      {"ROLE_WORLD_SIZE", absl::StrCat(world_size())},
      {"MASTER_ADDR",
       options_.master_addr.empty() ? "127.0.0.1" : options_.master_addr},
      {"MASTER_PORT", absl::StrCat(command.master_port)},
      {"TORCHELASTIC_RESTART_COUNT", absl::StrCat(command.attempt)},
      {"TORCHELASTIC_MAX_RESTARTS", absl::StrCat(options_.max_restarts)},
      {"TORCHELASTIC_RUN_ID", command.run_id},
      // Rank 0 hosts the store.
      {"TORCHELASTIC_USE_AGENT_STORE", "False"}};
  if (getenv("TORCH_NCCL_ASYNC_ERROR_HANDLING") == nullptr) {
    ours.emplace_back("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1");
  }
  if (nproc > 1 && getenv("OMP_NUM_THREADS") == nullptr) {
    ours.emplace_back("OMP_NUM_THREADS", "1");
  }
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const auto is_ours = [&](const auto& name_and_value) {
      return absl::StartsWith(*variable,
                              absl::StrCat(name_and_value.first, "="));
    };
    if (std::none_of(ours.begin(), ours.end(), is_ours)) {
      environment.emplace_back(*variable);
    }
  }
  for (const auto& [name, value] : ours) {
    if (!value.empty()) environment.push_back(absl::StrCat(name, "=", value));
  }
  return environment;
}

void Keeper::StartAttempt(const Command& command) {
  attempt_ = command.attempt;
  stopped_ = killed_ = false;
  own_failure_.reset();
  RankGroupOptions group;
  group.command = command.resume ? options_.resume_command : options_.command;
  group.environment = Environment(command);
  group.first_rank = options_.node_rank * options_.nproc_per_node;
  group.size = options_.nproc_per_node;
  group.log_dir = options_.log_dir;
  group.signals = signals_;
  absl::StatusOr<std::unique_ptr<RankGroup>> started =
      RankGroup::Start(group, out_, err_);
  if (started.ok()) {
    group_ = *std::move(started);
    phase_ = Phase::kRunning;
    return;
  }
  Say(started.status().message());
  stopped_ = true;
  phase_ = Phase::kLingering;
  linger_until_ = Clock::now();
  Report report;
  report.kind = Report::Kind::kFailed;
  report.attempt = attempt_;
  report.failure.rank = group.first_rank;
  report.failure.exit_code =
      absl::IsInvalidArgument(started.status()) ||
              absl::IsFailedPrecondition(started.status())
          ? kBadOptions
          : 1;
  report.failure.is_final = true;
  report.failure.text = absl::StrCat("node ", options_.node_rank, ": ",
                                     started.status().message());
  SendReport(report);
}

void Keeper::StopRanks(int signal) {
  stopped_ = true;
  phase_ = Phase::kStopping;
  kill_at_ = Clock::now() + ToClock(options_.grace);
  if (group_ != nullptr) group_->Signal(signal);
}

void Keeper::KillRanks() {
  if (group_ != nullptr) group_->Kill();
  stopped_ = killed_ = true;
  if (phase_ == Phase::kRunning) phase_ = Phase::kStopping;
  if (phase_ == Phase::kLingering) linger_until_ = Clock::now();
}

void Keeper::OnRankFailed(int rank) {
  const int status = group_->wait_status(rank);
  own_failure_ = rank;
  own_failure_text_ = absl::StrCat(
      "rank ", rank,
      several_nodes_ ? absl::StrCat(" on node ", options_.node_rank) : "", " ",
      HowItEnded(status));
  Report report;
  report.kind = Report::Kind::kFailed;
  report.attempt = attempt_;
  report.failure.rank = rank;
  report.failure.exit_code = ExitCodeOfStatus(status);
  const std::vector<std::string> lines = group_->LastLinesOf(rank);
  report.failure.text =
      lines.empty() ? own_failure_text_
                    : absl::StrCat(own_failure_text_, ": ", lines.back());
  if (world_size() > 1) {
    Say(absl::StrCat(own_failure_text_, "; stopping the others"));
  }
  StopRanks(SIGTERM);
  SendReport(report);
}

void Keeper::Advance() {
  if (phase_ == Phase::kRunning || phase_ == Phase::kStopping) {
    if (group_->running() == 0) {
      phase_ = Phase::kLingering;
      linger_until_ = Clock::now() + kLinger;
    } else if (phase_ == Phase::kStopping && !killed_ &&
               Clock::now() >= kill_at_) {
      Say(absl::StrCat(group_->running(), " of ", options_.nproc_per_node,
                       " ranks did not end within ",
                       absl::FormatDuration(options_.grace),
                       " and are killed"));
      KillRanks();
    }
  }
  if (phase_ == Phase::kLingering &&
      (hurry_ || killed_ || Clock::now() >= linger_until_ ||
       Children().empty())) {
    EndAttempt();
  }
}

void Keeper::EndAttempt() {
  const std::vector<pid_t> left = KillDescendants({}, kKillTimeout);
  if (!left.empty()) {
    Say(absl::StrCat("the system doesn't end processes ",
                     absl::StrJoin(left, ", ")));
  }
  if (group_ != nullptr) group_->Finish();
  if (own_failure_.has_value()) {
    const std::vector<std::string> lines = group_->LastLinesOf(*own_failure_);
    Say(absl::StrCat(own_failure_text_,
                     lines.empty() ? "" : "; its last lines:"));
    for (const std::string& line : lines) {
      err_.Add(0, absl::StrCat("[rank ", *own_failure_, "] ", line, "\n"));
    }
  }
  group_.reset();
  phase_ = Phase::kIdle;
  Report report;
  report.kind = stopped_ ? Report::Kind::kStopped : Report::Kind::kDone;
  report.attempt = attempt_;
  SendReport(report);
}

std::string Keeper::MissingNodes() const {
  std::vector<int> missing;
  for (int node = 1; node < options_.nnodes; ++node) {
    if (std::none_of(peers_.begin(), peers_.end(), [&](const auto& peer) {
          return peer->node == node && !peer->gone;
        })) {
      missing.push_back(node);
    }
  }
  return absl::StrCat(missing.size() == 1 ? "node " : "nodes ",
                      absl::StrJoin(missing, ", "));
}

void Keeper::AcceptPeers() {
  while (listening_.get() >= 0) {
    OwnedFd accepted(accept4(listening_.get(), nullptr, nullptr,
                             SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (accepted.get() < 0) return;
    if (peers_.size() < kMaxPeers) {
      peers_.push_back(std::make_unique<Peer>(std::move(accepted)));
    }
  }
}

void Keeper::ReadPeers() {
  for (size_t i = 0; i < peers_.size(); ++i) {
    Peer* const peer = peers_[i].get();
    peer->connection.Write();
    std::vector<std::string> lines;
    const bool open = peer->connection.Read(&lines);
    for (const std::string& line : lines) {
      if (peer->gone) break;
      peer->last_heard = Clock::now();
      if (line == kPing) continue;
      if (is_first()) {
        OnLineOfNode(peer, line);
      } else {
        OnLineOfFirst(peer, line);
      }
    }
    if (!open) OnPeerGone(peer, "its launcher has gone");
  }
  peers_.erase(std::remove_if(peers_.begin(), peers_.end(),
                              [](const auto& peer) { return peer->gone; }),
               peers_.end());
}

void Keeper::OnLineOfNode(Peer* peer, absl::string_view line) {
  if (peer->node >= 0) {
    const absl::StatusOr<Report> report = DecodeReport(line);
    if (report.ok()) {
      Broadcast(coordinator_.OnReport(peer->node, *report));
    } else {
      OnPeerGone(peer, report.status().message());
    }
    return;
  }
  const absl::StatusOr<Hello> hello = DecodeHello(line);
  absl::Status status = hello.status();
  if (status.ok()) {
    status = CheckHello(
        {0, options_.nnodes, options_.nproc_per_node, options_.max_restarts},
        *hello);
  }
  if (status.ok() && joined_) {
    status = absl::FailedPreconditionError("the run has begun");
  }
  for (const auto& other : peers_) {
    if (status.ok() && other->node == hello->node_rank && !other->gone) {
      status = absl::AlreadyExistsError(absl::StrCat(
          "--node-rank: node ", hello->node_rank, " has joined already"));
    }
  }
  if (!status.ok()) {
    Say(absl::StrCat("a launcher was refused: ", status.message()));
    peer->connection.Send(absl::StrCat(kRefused, status.message()));
    peer->gone = true;
    return;
  }
  peer->node = hello->node_rank;
  peer->connection.Send(kWelcome);
  const auto joined = std::count_if(
      peers_.begin(), peers_.end(),
      [](const auto& other) { return other->node >= 0 && !other->gone; });
  if (joined + 1 < options_.nnodes) return;
  joined_ = true;
  Broadcast(coordinator_.Begin());
}

void Keeper::OnLineOfFirst(Peer* peer, absl::string_view line) {
  if (joined_) {
    const absl::StatusOr<Command> command = DecodeCommand(line);
    if (command.ok()) {
      OnCommand(*command);
    } else {
      OnPeerGone(peer, command.status().message());
    }
    return;
  }
  absl::string_view rest = line;
  if (line == kWelcome) {
    joined_ = true;
  } else if (absl::ConsumePrefix(&rest, kRefused)) {
    Say(absl::StrCat("node 0 refused this node: ", rest));
    End(kBadOptions);
  } else {
    Say(absl::StrCat("--master-port: what listens at ", MasterAddress(),
                     " is no launcher"));
    End(kBadOptions);
  }
}

void Keeper::OnPeerGone(Peer* peer, absl::string_view why) {
  if (peer->gone) return;
  peer->gone = true;
  if (exit_code_.has_value()) return;
  if (is_first()) {
    if (peer->node >= 0 && joined_) {
      Broadcast(coordinator_.OnLost(peer->node, why));
    } else if (peer->node >= 0) {
      Say(absl::StrCat("node ", peer->node, " has left: ", why));
    }
    return;
  }
  connect_error_ = std::string(why);
  if (!joined_) return;
  Say(absl::StrCat("node 0 is lost: ", why));
  if (phase_ == Phase::kRunning) StopRanks(SIGTERM);
  End(asked_ != 0 ? 128 + asked_ : 1);
}

void Keeper::TryToConnect() {
  if (is_first() || joined_ || exit_code_.has_value() || !peers_.empty() ||
      Clock::now() < next_connect_) {
    return;
  }
  absl::StatusOr<OwnedFd> connected =
      Connect(options_.master_addr, options_.master_port, kConnectTimeout);
  next_connect_ = Clock::now() + kConnectInterval;
  if (!connected.ok()) {
    connect_error_ = std::string(connected.status().message());
    return;
  }
  peers_.push_back(std::make_unique<Peer>(*std::move(connected)));
  peers_.back()->connection.Send(
      Encode(Hello{options_.node_rank, options_.nnodes, options_.nproc_per_node,
                   options_.max_restarts}));
}

void Keeper::KeepInTouch() {
  TryToConnect();
  const auto now = Clock::now();
  if (now >= next_ping_) {
    next_ping_ = now + kPingInterval;
    for (const auto& peer : peers_) {
      if (joined_ || peer->node >= 0) peer->connection.Send(kPing);
    }
  }
  for (const auto& peer : peers_) {
    if (now - peer->last_heard > ToClock(options_.silence_timeout)) {
      OnPeerGone(peer.get(),
                 absl::StrCat("nothing was heard of it for ",
                              absl::FormatDuration(options_.silence_timeout)));
    }
  }
  if (joined_ || exit_code_.has_value() || now < join_until_) return;
  const std::string within =
      absl::StrCat(" within ", absl::FormatDuration(options_.join_timeout));
  if (is_first()) {
    Command end;
    end.kind = Command::Kind::kEnd;
    end.exit_code = 1;
    end.failure.text = absl::StrCat(MissingNodes(), " did not join", within);
    Broadcast({end});
  } else {
    Say(absl::StrCat("node 0 can't be reached", within, ": ", connect_error_));
    End(1);
  }
}

}  // namespace

int Launch(const LaunchOptions& options) {
  SignalState before;
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGCHLD);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD}) {
    struct sigaction action;
    sigaction(signal, nullptr, &action);
    before.actions.emplace_back(signal, action);
    // What our parent has us ignore, as nohup does, stays ignored.
    const bool passed_on =
        std::count(std::begin(kPassedOn), std::end(kPassedOn), signal) > 0;
    if (passed_on && action.sa_handler != SIG_IGN) sigaddset(&ours, signal);
  }
  sigprocmask(SIG_BLOCK, &ours, &before.mask);
  // One that is ignored leaves nothing to wait for.
  signal(SIGCHLD, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);

  const auto fail = [](const char* what) {
    const std::string line =
        absl::StrCat("grapnel: ", what, ": ", strerror(errno), "\n");
    [[maybe_unused]] const ssize_t n =
        write(STDERR_FILENO, line.data(), line.size());
    return 1;
  };
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail("pipe");
  OwnedFd read_end(ends[0]);
  OwnedFd write_end(ends[1]);
  const std::vector<pid_t> others = Children();
  // For what ranks have started, if the keeper is killed.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t keeper = fork();
  if (keeper < 0) return fail("fork");
  if (keeper == 0) {
    write_end = OwnedFd();
    // Neither the terminal's keys nor a signal to the group of the launching
    // process, SIGKILL among them, are for the keeper. Signals to itself stay
    // blocked: who tells every process to end tells its parent too.
    setsid();
    prctl(PR_SET_NAME, "grapnel-keeper");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int exit_code;
    {
      Keeper run(options, std::move(read_end), std::move(before));
      exit_code = run.Run();
    }
    _exit(exit_code);
  }
  read_end = OwnedFd();

  while (true) {
    siginfo_t info;
    const int signal = sigwaitinfo(&ours, &info);
    int status;
    if (waitpid(keeper, &status, WNOHANG) == keeper) {
      if (WIFEXITED(status)) return WEXITSTATUS(status);
      const std::string line = absl::StrCat("grapnel: the keeper of the ranks ",
                                            HowItEnded(status), "\n");
      [[maybe_unused]] const ssize_t n =
          write(STDERR_FILENO, line.data(), line.size());
      KillDescendants(others, kKillTimeout);
      return ExitCodeOfStatus(status);
    }
    if (signal > 0 && signal != SIGCHLD) {
      const auto byte = static_cast<unsigned char>(signal);
      [[maybe_unused]] const ssize_t n = write(write_end.get(), &byte, 1);
    }
  }
}

}  // namespace grapnel
