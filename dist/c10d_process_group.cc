#include "grapnel/dist/c10d_process_group.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/DeviceAccelerator.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "c10/core/Device.h"
#include "c10/core/DeviceType.h"
#include "c10/core/GradMode.h"
#include "gloo/context.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/base/version.h"
#include "grapnel/dist/bounded_thread.h"
#include "grapnel/dist/c10d_handle.h"
#include "grapnel/dist/c10d_nccl.h"
#include "grapnel/dist/check_collective.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/dist/through_cpu.h"
#include "torch/csrc/distributed/c10d/Backend.hpp"
#include "torch/csrc/distributed/c10d/PrefixStore.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroup.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
#include "torch/csrc/distributed/c10d/Store.hpp"
#include "torch/csrc/distributed/c10d/TCPStore.hpp"
#include "torch/csrc/distributed/c10d/Types.hpp"
#include "torch/csrc/distributed/c10d/Work.hpp"

namespace grapnel {
namespace {

// How long a rank that fails looks for the reason, one that leaves waits for
// the others, and any question to the store may take.
constexpr absl::Duration kExplainLimit = absl::Milliseconds(1500);
constexpr absl::Duration kLeaveLimit = absl::Seconds(2);
constexpr absl::Duration kStoreLimit = absl::Seconds(2);
// How much longer than join_timeout joining may take, for what of c10d has
// limits of its own.
constexpr absl::Duration kJoinGrace = absl::Seconds(8);

std::chrono::milliseconds ToChrono(absl::Duration duration) {
  return std::chrono::milliseconds(
      std::max<int64_t>(1, absl::ToInt64Milliseconds(duration)));
}

// -------------------------------------------------------------- the store

// Keys, each with a rank behind it but the first.
constexpr char kFailureKey[] = "failure";
constexpr char kCameKey[] = "came/";  // How many processes came as it.
constexpr char kWhoKey[] = "who/";    // What it was told and built with.
constexpr char kDownKey[] = "down/";  // How a collective failed.
constexpr char kLeftKey[] = "left/";  // It ends.

// Values of kDownKey: it waited too long, or its connections broke, as they do
// because another one waited too long.
constexpr char kLate[] = "late";
constexpr char kBroken[] = "broken";

std::string Key(const char* key, int rank) { return absl::StrCat(key, rank); }

void Set(c10d::Store& store, const std::string& key, absl::string_view value) {
  store.set(key, std::vector<uint8_t>(value.begin(), value.end()));
}

std::string Read(c10d::Store& store, const std::string& key) {
  const std::vector<uint8_t> value = store.get(key);
  return std::string(value.begin(), value.end());
}

// The first failure: its code, the rank, the message.
std::string Encode(const absl::Status& failure, int rank) {
  return absl::StrCat(static_cast<int>(failure.code()), "\n", rank, "\n",
                      failure.message());
}

absl::Status Decode(const std::string& text) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('\n', 2));
  int code;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &code) || code <= 0) {
    return absl::InternalError("a failure in the store that isn't ours");
  }
  return absl::Status(static_cast<absl::StatusCode>(code),
                      absl::StrCat("rank ", parts[1], ": ", parts[2]));
}

absl::Status ReadFailure(c10d::Store& store) {
  if (!store.check({kFailureKey})) return absl::OkStatus();
  return Decode(Read(store, kFailureKey));
}

// The one that is there first.
absl::Status WriteFailure(c10d::Store& store, const absl::Status& failure,
                          int rank) {
  const std::string text = Encode(failure, rank);
  const std::vector<uint8_t> first = store.compareSet(
      kFailureKey, {}, std::vector<uint8_t>(text.begin(), text.end()));
  return Decode(std::string(first.begin(), first.end()));
}

// Asks, less and less often, until `over` says so or it is `deadline`.
template <typename Over>
bool WaitUntil(absl::Time deadline, Over over) {
  absl::Duration pause = absl::Milliseconds(1);
  while (!over()) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    absl::SleepFor(std::min(pause, left));
    pause = std::min(2 * pause, absl::Milliseconds(50));
  }
  return true;
}

std::vector<int> RanksWithout(c10d::Store& store, const char* key,
                              int world_size) {
  std::vector<int> ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    if (!store.check({Key(key, rank)})) ranks.push_back(rank);
  }
  return ranks;
}

bool AnyIsLate(c10d::Store& store, int world_size) {
  for (int rank = 0; rank < world_size; ++rank) {
    const std::string key = Key(kDownKey, rank);
    if (store.check({key}) && Read(store, key) == kLate) return true;
  }
  return false;
}

// "rank 2", or "ranks 1, 2".
std::string RanksText(const std::vector<int>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ",
                      absl::StrJoin(ranks, ", "));
}

// --------------------------------------------------------------- joining

std::string Address(const Place& place) {
  return absl::StrCat(place.master_address, ":", place.master_port);
}

bool IsLoopback(const Place& place) {
  return place.master_address == "localhost" || place.master_address == "::1" ||
         absl::StartsWith(place.master_address, "127.");
}

// c10d looks up the names of all addresses that it connects, on the thread that
// serves every rank. It listens by IPv6, and as a name server alone could know
// 127.0.0.1 there, a rank would wait 5 s for one that doesn't answer.
std::string Host(const Place& place) {
  return IsLoopback(place) ? "localhost" : place.master_address;
}

bool RankZeroListens(const Place& place) { return !place.launcher_listens; }

// A connection to the master, closed again; "" or why there is none. c10d's own
// takes two and a half times as long as it is told to.
std::string TryToConnect(const addrinfo& address, absl::Time deadline) {
  const int fd =
      socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::strerror(errno);
  int error = 0;
  if (connect(fd, address.ai_addr, address.ai_addrlen) != 0) error = errno;
  if (error == EINPROGRESS) {
    pollfd waiting = {fd, POLLOUT, 0};
    const absl::Duration left = std::clamp(
        deadline - absl::Now(), absl::ZeroDuration(), absl::Seconds(60));
    const int ready =
        poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
    socklen_t size = sizeof(error);
    if (ready == 0) {
      error = ETIMEDOUT;
    } else if (ready < 0 ||
               getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      error = errno;
    }
  }
  close(fd);
  return error == 0 ? "" : std::strerror(error);
}

absl::Status WaitForMaster(const Place& place, absl::Duration timeout,
                           absl::Time deadline) {
  std::string reason;
  bool known = false;  // Does its host have an address?
  const bool found = WaitUntil(deadline, [&] {
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* addresses = nullptr;
    const int error = getaddrinfo(Host(place).c_str(),
                                  std::to_string(place.master_port).c_str(),
                                  &hints, &addresses);
    if (error != 0) {
      reason = gai_strerror(error);
      return false;
    }
    known = true;
    bool connected = false;
    for (const addrinfo* a = addresses; a != nullptr && !connected;
         a = a->ai_next) {
      reason = TryToConnect(*a, deadline);
      connected = reason.empty();
    }
    freeaddrinfo(addresses);
    return connected;
  });
  if (found) return absl::OkStatus();
  if (!known) {
    return absl::FailedPreconditionError(
        absl::StrCat("MASTER_ADDR: \"", place.master_address,
                     "\" is no host that is known here: ", reason));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      RankZeroListens(place) ? "rank 0 does not answer at "
                             : "the launcher does not answer at ",
      Address(place), " within ", absl::FormatDuration(timeout), ": ", reason));
}

c10::intrusive_ptr<c10d::Store> OpenStore(const Place& place, bool listen,
                                          absl::Time deadline) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(place.master_port);
  options.isServer = listen;
  options.numWorkers = place.world_size;
  options.waitWorkers = false;
  options.timeout =
      ToChrono(std::max(deadline - absl::Now(), absl::Seconds(1)));
  return c10::make_intrusive<c10d::TCPStore>(Host(place), options);
}

absl::StatusOr<c10::intrusive_ptr<c10d::Store>> Connect(
    const Place& place, const JoinOptions& options, absl::Time deadline) {
  const bool listen = place.rank == 0 && RankZeroListens(place);
  if (!listen) {
    GRAPNEL_RETURN_IF_ERROR(
        WaitForMaster(place, options.join_timeout, deadline));
  }
  c10::intrusive_ptr<c10d::Store> store;
  const absl::Status opened = CatchAsStatus([&] {
    store = OpenStore(place, listen, deadline);
    return absl::OkStatus();
  });
  if (opened.ok()) {
    // Another job's keys, and an earlier attempt's, may be there too.
    return c10::intrusive_ptr<c10d::Store>(
        c10::make_intrusive<c10d::PrefixStore>(
            absl::StrCat("grapnel/", place.job, "/", place.attempt), store));
  }
  if (listen) {
    if (absl::StrContains(opened.message(), "EADDRINUSE")) {
      return absl::FailedPreconditionError(absl::StrCat(
          "MASTER_PORT: ", place.master_port,
          " is in use by another program on this machine: take another"));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "can't listen at port ", place.master_port, ": ", opened.message()));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("what listens at ", Address(place),
                   " is no store of c10d, or ended: ", opened.message()));
}

// What all ranks have to agree on, before they say anything else to each other.
std::string WhoIs(const Place& place, const JoinOptions& options) {
  return absl::StrCat(place.world_size, "\n", kGrapnelVersion,
                      " with LibTorch ", kLibTorchVersion, "\n",
                      options.own_connections ? "true" : "false");
}

absl::Status Compare(const Place& place, const JoinOptions& options, int other,
                     const std::string& who) {
  const std::vector<std::string> ours =
      absl::StrSplit(WhoIs(place, options), '\n');
  const std::vector<std::string> theirs = absl::StrSplit(who, '\n');
  GRAPNEL_RET_CHECK(theirs.size() >= 2);
  if (theirs[0] != ours[0]) {
    return absl::InvalidArgumentError(absl::StrCat("world size: is ", ours[0],
                                                   " here, and ", theirs[0],
                                                   " for rank ", other));
  }
  if (theirs[1] != ours[1]) {
    return absl::FailedPreconditionError(absl::StrCat("version: is ", ours[1],
                                                      " here, and ", theirs[1],
                                                      " for rank ", other));
  }
  GRAPNEL_RET_CHECK(theirs.size() == ours.size());
  if (theirs[2] != ours[2]) {
    return absl::FailedPreconditionError(absl::StrCat(
        "own_connections, which a run has for sync_batch_norm: is ", ours[2],
        " here, and ", theirs[2], " for rank ", other));
  }
  return absl::OkStatus();
}

// Waits for all ranks, each of which is there once.
absl::Status CallRoll(c10d::Store& store, const Place& place,
                      const JoinOptions& options, absl::Time deadline) {
  if (store.add(Key(kCameKey, place.rank), 1) != 1) {
    return absl::AlreadyExistsError(absl::StrCat(
        "rank ", place.rank, ": another process has joined as it already at ",
        Address(place)));
  }
  Set(store, Key(kWhoKey, place.rank), WhoIs(place, options));
  absl::Status status;
  for (int rank = 0; rank < place.world_size && status.ok(); ++rank) {
    bool there = false;
    WaitUntil(deadline, [&] {
      there = store.check({Key(kWhoKey, rank)});
      if (!there) status = ReadFailure(store);
      return there || !status.ok();
    });
    if (!status.ok()) return absl::UnavailableError(status.message());
    if (!there) {
      // Not told to the others: they find it out by themselves.
      return absl::DeadlineExceededError(absl::StrCat(
          RanksText(RanksWithout(store, kWhoKey, place.world_size)), " of ",
          place.world_size, " did not come to ", Address(place), " within ",
          absl::FormatDuration(options.join_timeout)));
    }
    status = Compare(place, options, rank, Read(store, Key(kWhoKey, rank)));
  }
  if (!status.ok()) WriteFailure(store, status, place.rank).IgnoreError();
  return status;
}

// This rank is going, and reads nothing any more. With `all`, waits for the
// others to say so too; a host of the store always does.
void Leave(c10d::Store& store, const Place& place, bool all) {
  Set(store, Key(kLeftKey, place.rank), "1");
  if (!all && !(place.rank == 0 && RankZeroListens(place))) return;
  WaitUntil(absl::Now() + kLeaveLimit, [&] {
    for (int rank = 0; rank < place.world_size; ++rank) {
      if (!store.check({Key(kLeftKey, rank)})) return false;
    }
    return true;
  });
}

// ------------------------------------------------------------------ gloo

// Lets its connections be closed: gloo knows no other way to tell the peers
// that nothing comes any more.
class Gloo final : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;

  void CloseConnections() {
    for (const auto& context : contexts_) context->closeConnections();
  }
};

// `name`: not twice in a store.
c10::intrusive_ptr<Gloo> MakeGloo(const c10::intrusive_ptr<c10d::Store>& store,
                                  const char* name, const Place& place,
                                  const JoinOptions& join_options,
                                  absl::Time deadline) {
  const absl::Duration join_timeout =
      std::max(deadline - absl::Now(), absl::Seconds(1));
  const char* const interface = std::getenv("GLOO_SOCKET_IFNAME");
  const bool given = interface != nullptr && *interface != '\0';
  auto options =
      given || !IsLoopback(place)
          ? c10d::ProcessGroupGloo::Options::create_default(
                ToChrono(join_timeout))
          : c10d::ProcessGroupGloo::Options::create(ToChrono(join_timeout));
  if (options->devices.empty()) {
    options->devices.push_back(
        c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  }
  auto gloo = c10::make_intrusive<Gloo>(
      c10::make_intrusive<c10d::PrefixStore>(name, store), place.rank,
      place.world_size, std::move(options));
  gloo->setTimeout(ToChrono(join_options.timeout));
  return gloo;
}

struct Joined {
  std::atomic<bool> ended{false};  // Has Join returned?
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<Gloo> gloo;           // Of the group's own collectives.
  c10::intrusive_ptr<Gloo> lent_gloo;      // Of `group`; may be the same.
  c10::intrusive_ptr<c10d::Backend> nccl;  // Or null.
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

// That has no backend of its own. A model may be on a device though `device` is
// the CPU.
std::optional<c10::DeviceType> DeviceThroughCpu(c10::Device device) {
  if (device.is_cuda()) return std::nullopt;
  return device.is_cpu() ? at::accelerator::getAccelerator() : device.type();
}

absl::Status Meet(const Place& place, const JoinOptions& options,
                  absl::Time deadline, Joined& joined) {
  GRAPNEL_RETURN_IF_ERROR(CallRoll(*joined.store, place, options, deadline));
  absl::Status connected = CatchAsStatus([&] {
    joined.gloo = MakeGloo(joined.store, "gloo", place, options, deadline);
    joined.lent_gloo =
        options.own_connections
            ? MakeGloo(joined.store, "lent_gloo", place, options, deadline)
            : joined.gloo;
    joined.group = c10::make_intrusive<c10d::ProcessGroup>(
        joined.store, place.rank, place.world_size);
    joined.group->setBackend(
        c10::kCPU, c10d::ProcessGroup::BackendType::GLOO,
        c10::intrusive_ptr<c10d::Backend>(joined.lent_gloo));
    joined.group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    return absl::OkStatus();
  });
  const std::optional<c10::DeviceType> through_cpu =
      DeviceThroughCpu(options.device);
  if (connected.ok() && through_cpu.has_value()) {
    joined.group->setBackend(*through_cpu,
                             c10d::ProcessGroup::BackendType::CUSTOM,
                             MakeThroughCpu(joined.lent_gloo));
  }
  if (connected.ok() && options.device.is_cuda()) {
    GRAPNEL_ASSIGN_OR_RETURN(
        joined.nccl,
        MakeNccl(joined.store, place.rank, place.world_size, options.timeout));
    joined.group->setBackend(c10::kCUDA, c10d::ProcessGroup::BackendType::NCCL,
                             joined.nccl);
  }
  if (connected.ok()) return connected;
  return absl::UnavailableError(
      absl::StrCat("the ranks can't connect to each other, or one ended: ",
                   connected.message()));
}

absl::Status Join(const Place& place, const JoinOptions& options,
                  absl::Time deadline, Joined& joined) {
  GRAPNEL_ASSIGN_OR_RETURN(joined.store, Connect(place, options, deadline));
  absl::Status status =
      CatchAsStatus([&] { return Meet(place, options, deadline, joined); });
  if (status.ok()) return status;
  if (status.code() == absl::StatusCode::kInternal) {
    status = absl::UnavailableError(absl::StrCat(
        "the store at ", Address(place), " is gone: ", status.message()));
  }
  // A host that went at once would take its message with it. Who is one too
  // many has nothing to say.
  if (status.code() != absl::StatusCode::kAlreadyExists) {
    CatchAsStatus([&] {
      Leave(*joined.store, place, /*all=*/false);
      return absl::OkStatus();
    }).IgnoreError();
  }
  return status;
}

absl::Status CheckDuration(const char* name, absl::Duration value,
                           absl::Duration min) {
  if (value >= min && value <= absl::Hours(24)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": must be from ", absl::FormatDuration(min),
                   " to 24h, is ", absl::FormatDuration(value)));
}

// ------------------------------------------------------------- the group

c10d::ReduceOp ToC10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::kMin:
      return c10d::ReduceOp::MIN;
    case ReduceOp::kMax:
      return c10d::ReduceOp::MAX;
    case ReduceOp::kSum:
      break;
  }
  return c10d::ReduceOp::SUM;
}

const char* Name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kMin:
      return "minimum";
    case ReduceOp::kMax:
      return "maximum";
    case ReduceOp::kSum:
      break;
  }
  return "sum";
}

// "(2, 3) Float": what must be the same on all ranks.
std::string Describe(const at::Tensor& tensor) {
  return absl::StrCat("(", absl::StrJoin(tensor.sizes(), ", "), ") ",
                      c10::toString(tensor.scalar_type()));
}

// What gloo can add up.
bool IsReducible(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
    case at::kChar:
    case at::kByte:
    case at::kInt:
    case at::kLong:
      return true;
    default:
      return false;
  }
}

// What each rank sends before anything else. Peers that send each other
// different numbers of bytes end gloo's thread, and the process with it.
struct Call {
  char name[248];  // Padded by zeros; what is longer is cut.
  int64_t size;    // Of AllGather's bytes, else 0.
};

class C10dGroup final : public C10dProcessGroup {
 public:
  C10dGroup(const Place& place, const JoinOptions& options,
            const std::shared_ptr<Joined>& joined,
            std::unique_ptr<BoundedThread> thread)
      : place_(place),
        timeout_(options.timeout),
        store_(std::move(joined->store)),
        gloo_(std::move(joined->gloo)),
        lent_gloo_(std::move(joined->lent_gloo)),
        through_cpu_(MakeThroughCpu(gloo_)),
        nccl_(std::move(joined->nccl)),
        group_(std::move(joined->group)),
        thread_(std::move(thread)) {}

  ~C10dGroup() override {
    const bool failed = !broken().ok();
    if (failed) CloseConnections();
    const auto leave = [this, failed] {
      thread_
          ->Run(
              [store = store_, place = place_, failed] {
                Leave(*store, place, /*all=*/!failed);
                return absl::OkStatus();
              },
              kLeaveLimit + absl::Milliseconds(500))
          .IgnoreError();  // Who is gone can't be waited for.
    };
    if (!failed) leave();
    CatchAsStatus([this] {
      group_.reset();
      nccl_.reset();
      through_cpu_.reset();
      lent_gloo_.reset();
      gloo_.reset();
      return absl::OkStatus();
    }).IgnoreError();
    // After its connections are closed: by that the others notice, and read.
    if (failed) leave();
    // The last reference goes where a wait for the peer hurts nobody.
    thread_
        ->Run([store = std::move(store_)] { return absl::OkStatus(); },
              kStoreLimit)
        .IgnoreError();
  }

  int rank() const override { return place_.rank; }
  int world_size() const override { return place_.world_size; }
  int local_rank() const override { return place_.local_rank; }
  std::string description() const override {
    return absl::StrCat(nccl_ == nullptr ? "gloo" : "nccl", ", rank ", rank(),
                        " of ", world_size());
  }
  c10d::ProcessGroup& c10d_group() override { return *group_; }

  absl::Status AllReduce(const at::Tensor& tensor, ReduceOp op) override {
    GRAPNEL_RETURN_IF_ERROR(CheckCollectiveTensor(tensor));
    if (!IsReducible(tensor.scalar_type())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor: can't be reduced as ", c10::toString(tensor.scalar_type())));
    }
    const std::string call =
        absl::StrCat("AllReduce of ", Describe(tensor), ", ", Name(op));
    GRAPNEL_RETURN_IF_ERROR(Agree(call, 0).status());
    return OnBackend("AllReduce", tensor,
                     [op](c10d::Backend& backend, const at::Tensor& t) {
                       std::vector<at::Tensor> tensors = {t};
                       c10d::AllreduceOptions options;
                       options.reduceOp = ToC10d(op);
                       return backend.allreduce(tensors, options);
                     });
  }

  absl::Status Broadcast(const at::Tensor& tensor, int root) override {
    GRAPNEL_RETURN_IF_ERROR(CheckRoot(root, world_size()));
    GRAPNEL_RETURN_IF_ERROR(CheckCollectiveTensor(tensor));
    GRAPNEL_RETURN_IF_ERROR(
        Agree(absl::StrCat("Broadcast from ", root, " of ", Describe(tensor)),
              0)
            .status());
    return OnBackend("Broadcast", tensor,
                     [root](c10d::Backend& backend, const at::Tensor& t) {
                       std::vector<at::Tensor> tensors = {t};
                       c10d::BroadcastOptions options;
                       options.rootRank = root;
                       return backend.broadcast(tensors, options);
                     });
  }

  absl::StatusOr<std::vector<std::string>> AllGather(
      absl::string_view bytes) override {
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::vector<int64_t> sizes,
        Agree("AllGather", static_cast<int64_t>(bytes.size())));
    const int64_t longest = *std::max_element(sizes.begin(), sizes.end());
    std::vector<std::string> result(sizes.size());
    if (longest == 0) return result;
    at::Tensor all;
    GRAPNEL_RETURN_IF_ERROR(
        Wait("AllGather", c10::kCPU, [&](c10d::Backend& backend) {
          at::Tensor mine = ops::zeros({longest}, at::kByte);
          std::memcpy(mine.data_ptr(), bytes.data(), bytes.size());
          all = ops::empty({longest * world_size()}, at::kByte);
          return backend._allgather_base(all, mine);
        }));
    const char* const first = static_cast<const char*>(all.data_ptr());
    for (size_t rank = 0; rank < result.size(); ++rank) {
      result[rank].assign(first + rank * longest, sizes[rank]);
    }
    return result;
  }

  // To agree is to have met.
  absl::Status Barrier() override { return Agree("Barrier", 0).status(); }

  void ReportFailure(const absl::Status& failure) override {
    if (failure.ok() || !broken().ok()) return;
    absl::StatusOr<absl::Status> written =
        Ask<absl::Status>([failure, rank = rank()](c10d::Store& store) {
          return WriteFailure(store, failure, rank);
        });
    // Without a store the others see at least that this rank ends.
    const absl::Status first =
        written.ok()
            ? *std::move(written)
            : absl::Status(failure.code(), absl::StrCat("rank ", rank(), ": ",
                                                        failure.message()));
    Break(absl::UnavailableError(first.message()), first);
    // By the first to fail alone: what others have left there ends by that, and
    // would wait on, up to its timeout, if they closed their ends themselves.
    if (lent_gloo_ != gloo_) lent_gloo_->CloseConnections();
  }

  absl::Status FirstFailure() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!first_failure_.ok()) return first_failure_;
    }
    return Ask<absl::Status>(ReadFailure).value_or(absl::OkStatus());
  }

  absl::Status Explain(const absl::Status& failure,
                       absl::string_view call) override {
    GRAPNEL_RETURN_IF_ERROR(broken());
    // By that the ranks that wait for this one fail, too, and say that they
    // live.
    CloseConnections();
    struct Found {
      absl::Status first;
      std::vector<int> silent;
      bool late = false;  // Was one of those that aren't?
    };
    const bool was_late = absl::StrContains(failure.message(), "imed out") ||
                          absl::StrContains(failure.message(), "timeout");
    const absl::StatusOr<Found> found = Ask<Found>(
        [rank = rank(), n = world_size(), was_late](c10d::Store& store) {
          Set(store, Key(kDownKey, rank), was_late ? kLate : kBroken);
          Found found;
          WaitUntil(absl::Now() + kExplainLimit, [&] {
            found.first = ReadFailure(store);
            found.silent = RanksWithout(store, kDownKey, n);
            return !found.first.ok() || found.silent.empty();
          });
          found.late = AnyIsLate(store, n);
          return found;
        });
    const bool late = found.ok() ? found->late : was_late;
    const std::string limit = absl::FormatDuration(timeout_);
    std::string reason;
    if (!found.ok()) {
      reason = absl::StrCat(RankZeroListens(place_) ? "rank 0" : "the launcher",
                            " has ended or stands still: its store at ",
                            Address(place_), " does not answer");
    } else if (!found->first.ok()) {
      reason = std::string(found->first.message());
    } else if (!found->silent.empty()) {
      reason =
          absl::StrCat(RanksText(found->silent),
                       late ? absl::StrCat(" gave no answer within ", limit)
                            : " ended without a message");
    } else {
      reason = late ? absl::StrCat("a rank gave no answer within ", limit)
                    : "a connection broke";
    }
    // gloo's own words say nothing that a reported failure doesn't.
    if (!found.ok() || found->first.ok()) {
      absl::StrAppend(&reason, " (", failure.message(), ")");
    }
    const bool is_late = late && (!found.ok() || found->first.ok());
    const absl::Status explained(is_late ? absl::StatusCode::kDeadlineExceeded
                                         : absl::StatusCode::kUnavailable,
                                 absl::StrCat(call, ": ", reason));
    Break(explained, found.ok() ? found->first : absl::OkStatus());
    return explained;
  }

 private:
  absl::Status broken() const {
    absl::MutexLock lock(&mutex_);
    return broken_;
  }

  void Break(const absl::Status& status, const absl::Status& first) {
    {
      absl::MutexLock lock(&mutex_);
      if (broken_.ok()) broken_ = status;
      if (first_failure_.ok()) first_failure_ = first;
    }
    CloseConnections();
  }

  // Of the group's own collectives.
  void CloseConnections() {
    gloo_->CloseConnections();
    if (nccl_ == nullptr) return;
    CatchAsStatus([this] {
      nccl_->abort();
      return absl::OkStatus();
    }).IgnoreError();  // It is broken already.
  }

  // What the store answers to `ask`, which must own what it uses.
  template <typename T>
  absl::StatusOr<T> Ask(std::function<T(c10d::Store&)> ask) {
    const auto answer = std::make_shared<T>();
    GRAPNEL_RETURN_IF_ERROR(thread_->Run(
        [store = store_, ask = std::move(ask), answer] {
          *answer = ask(*store);
          return absl::OkStatus();
        },
        kStoreLimit));
    return std::move(*answer);
  }

  c10d::Backend& OwnBackend(c10::DeviceType device) const {
    if (device == c10::kCPU) return *gloo_;
    return device == c10::kCUDA && nccl_ != nullptr ? *nccl_ : *through_cpu_;
  }

  // Runs what `start` starts on the backend of `device`: by NCCL until what is
  // launched after it waits for it, else to its end.
  template <typename Start>
  absl::Status Wait(absl::string_view call, c10::DeviceType device,
                    Start start) {
    GRAPNEL_RETURN_IF_ERROR(broken());
    const absl::Status status = CatchAsStatus([&] {
      const c10::AutoGradMode no_grad(false);
      start(OwnBackend(device))->wait();
      return absl::OkStatus();
    });
    return status.ok() ? status : Explain(status, call);
  }

  template <typename Start>
  absl::Status OnBackend(absl::string_view call, const at::Tensor& tensor,
                         Start start) {
    if (tensor.numel() == 0) return absl::OkStatus();
    const at::Tensor own = tensor.detach();
    return Wait(call, own.device().type(),
                [&](c10d::Backend& backend) { return start(backend, own); });
  }

  // The ranks' sizes, once all of them call `name`.
  absl::StatusOr<std::vector<int64_t>> Agree(absl::string_view name,
                                             int64_t size) {
    Call mine = {};
    std::memcpy(mine.name, name.data(),
                std::min(name.size(), sizeof(mine.name) - 1));
    mine.size = size;
    std::vector<Call> calls(world_size());
    at::Tensor all;
    GRAPNEL_RETURN_IF_ERROR(Wait(
        name.substr(0, name.find(' ')), c10::kCPU, [&](c10d::Backend& backend) {
          at::Tensor sent = ops::empty({sizeof(Call)}, at::kByte);
          std::memcpy(sent.data_ptr(), &mine, sizeof(Call));
          all = ops::empty({static_cast<int64_t>(sizeof(Call)) * world_size()},
                           at::kByte);
          return backend._allgather_base(all, sent);
        }));
    std::memcpy(calls.data(), all.data_ptr(), sizeof(Call) * calls.size());
    std::vector<int64_t> sizes;
    for (int rank = 0; rank < world_size(); ++rank) {
      if (std::memcmp(calls[rank].name, calls[0].name, sizeof(mine.name)) !=
          0) {
        const absl::Status status = absl::InvalidArgumentError(
            absl::StrCat("rank ", rank, " calls ", calls[rank].name,
                         ", rank 0 calls ", calls[0].name));
        Break(status, absl::OkStatus());
        // All ranks see it: none waits for what another one has left there.
        if (lent_gloo_ != gloo_) lent_gloo_->CloseConnections();
        return status;
      }
      sizes.push_back(calls[rank].size);
    }
    return sizes;
  }

  const Place place_;
  const absl::Duration timeout_;
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<Gloo> gloo_;       // Never null, as lent_gloo_.
  c10::intrusive_ptr<Gloo> lent_gloo_;  // The same but for own_connections.
  c10::intrusive_ptr<c10d::Backend> through_cpu_;  // Over gloo_.
  c10::intrusive_ptr<c10d::Backend> nccl_;
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  const std::unique_ptr<BoundedThread> thread_;

  mutable absl::Mutex mutex_;
  // Of all collectives from now on.
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  absl::Status first_failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinProcessGroup(
    const Place& place, const JoinOptions& options) {
  GRAPNEL_RETURN_IF_ERROR(
      CheckDuration("join_timeout", options.join_timeout, absl::Seconds(1)));
  GRAPNEL_RETURN_IF_ERROR(
      CheckDuration("timeout", options.timeout, absl::Milliseconds(1)));
  if (place.world_size == 1) {
    return std::unique_ptr<ProcessGroup>(new SingleProcessGroup());
  }
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<BoundedThread> thread,
                           BoundedThread::Start("grapnel-store"));
  const absl::Time deadline = absl::Now() + options.join_timeout;
  const auto joined = std::make_shared<Joined>();
  absl::Status status = thread->Run(
      [joined, place, options, deadline] {
        const absl::Status status = Join(place, options, deadline, *joined);
        joined->ended = true;
        return status;
      },
      options.join_timeout + kJoinGrace, options.interrupt);
  if (!status.ok()) {
    if (status.code() == absl::StatusCode::kDeadlineExceeded &&
        !joined->ended) {
      status = absl::DeadlineExceededError(absl::StrCat(
          Address(place), " takes connections, and does not answer within ",
          absl::FormatDuration(options.join_timeout),
          ": it has stopped, or is no store of c10d"));
    }
    return WithContext(status, absl::StrCat("joining as rank ", place.rank,
                                            " of ", place.world_size));
  }
  return std::unique_ptr<ProcessGroup>(
      new C10dGroup(place, options, joined, std::move(thread)));
}

}  // namespace grapnel
