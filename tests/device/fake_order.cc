#include "grapnel/tests/device/fake_order.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "ATen/EmptyTensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/tests/device/fake_memory.h"

namespace grapnel {
namespace internal_fake_device {

struct Copy {
  int lane = 0;
  int64_t number = 0;  // In its stream.
  bool is_done = false;
  void* to = nullptr;
  const void* base = nullptr;  // The device's block; null: it is to the host.
  const void* pinned = nullptr;
  at::Tensor owned;  // If it isn't from pinned memory.
  size_t size = 0;
  uint64_t sum = 0;  // Of what was in pinned memory.
};

namespace {

constexpr size_t kMaxRaces = 100;
constexpr int kGarbage = 0xFF;  // NaN; -1.

// The last work of a stream that used a block.
struct Use {
  int64_t number = 0;
  absl::string_view name;
};

struct Uses {
  int allocated_on = 0;
  int written_on = 0;
  Use write;
  std::array<Use, kNumLanes> last;
  std::array<bool, kNumLanes> is_recorded = {};
};

struct Order {
  std::mutex mutex;
  std::array<Clock, kNumLanes> streams = {};
  Clock host = {};
  std::unordered_map<const void*, Uses> blocks;
  std::vector<Uses> freed;  // And not yet given out again.

  // In the order in which they were launched; those that are done, as long as
  // the host can't know that: it may not write yet what they read.
  std::list<Copy> copies;

  std::vector<std::string> races;
  bool is_late = false;
  bool is_asked = false;  // Whether copies are done, since one was launched.
  int64_t waits = 0;
};

// Never destroyed: tensors may outlive what is static.
Order& TheOrder() {
  static Order* const order = new Order();
  return *order;
}

int LaneOf(const c10::Stream& stream) {
  return stream.device_index() * kNumStreams + static_cast<int>(stream.id());
}

std::string Name(int lane) {
  return absl::StrCat("stream ", lane % kNumStreams,
                      " of fake:", lane / kNumStreams);
}

uint64_t Sum(const void* bytes, size_t size) {
  uint64_t sum = 14695981039346656037u;  // FNV-1a.
  for (size_t i = 0; i < size; ++i) {
    sum = (sum ^ static_cast<const unsigned char*>(bytes)[i]) * 1099511628211u;
  }
  return sum;
}

void AddRace(Order& order, std::string race) {
  if (order.races.size() < kMaxRaces) order.races.push_back(std::move(race));
}

void CheckSource(Order& order, const Copy& copy) {
  if (copy.pinned == nullptr || Sum(copy.pinned, copy.size) == copy.sum) return;
  AddRace(order, absl::StrCat("pinned memory is written that a copy of ",
                              copy.size, " bytes on ", Name(copy.lane),
                              " reads, and the host doesn't wait for it"));
}

void Do(Order& order, Copy& copy) {
  CheckSource(order, copy);
  OpenBlock(copy.base);
  std::memcpy(
      copy.to,
      copy.pinned != nullptr ? copy.pinned : copy.owned.const_data_ptr(),
      copy.size);
  CloseBlock(copy.base);
  if (copy.pinned != nullptr) copy.sum = Sum(copy.pinned, copy.size);
  copy.is_done = true;
}

// Before a work that has this clock.
void DoCopiesToDevice(Order& order, const Clock& clock) {
  for (auto copy = order.copies.begin(); copy != order.copies.end();) {
    if (copy->base != nullptr && !copy->is_done &&
        copy->number <= clock[copy->lane]) {
      Do(order, *copy);
    }
    copy = copy->is_done && copy->pinned == nullptr ? order.copies.erase(copy)
                                                    : std::next(copy);
  }
}

void LetHostKnow(Order& order, const Clock& clock) {
  Merge(clock, &order.host);
  for (auto copy = order.copies.begin(); copy != order.copies.end();) {
    if (copy->number > order.host[copy->lane]) {
      ++copy;
      continue;
    }
    if (copy->is_done) {
      CheckSource(order, *copy);
    } else {
      Do(order, *copy);
    }
    copy = order.copies.erase(copy);
  }
}

}  // namespace

void Merge(const Clock& from, Clock* to) {
  for (int i = 0; i < kNumLanes; ++i) (*to)[i] = std::max((*to)[i], from[i]);
}

Work::Work(c10::DeviceIndex device, absl::string_view name)
    : lane_(LaneOf(CurrentStream(device))), name_(name) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  Clock& clock = order.streams[lane_];
  Merge(order.host, &clock);
  number_ = ++clock[lane_];
}

void Work::Start() {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  DoCopiesToDevice(order, order.streams[lane_]);
}

void Work::Reads(const void* base) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  const auto found = order.blocks.find(base);
  if (found == order.blocks.end()) return;
  Uses& uses = found->second;
  if (uses.write.number > order.streams[lane_][uses.written_on]) {
    AddRace(order,
            absl::StrCat(name_, " on ", Name(lane_), " reads what ",
                         uses.write.name, " writes on ", Name(uses.written_on),
                         ", and doesn't wait for it"));
  }
  uses.last[lane_] = {number_, name_};
}

void Work::Writes(const void* base) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  const auto found = order.blocks.find(base);
  if (found == order.blocks.end()) return;
  Uses& uses = found->second;
  for (int lane = 0; lane < kNumLanes; ++lane) {
    if (uses.last[lane].number <= order.streams[lane_][lane]) continue;
    AddRace(order, absl::StrCat(name_, " on ", Name(lane_), " writes what ",
                                uses.last[lane].name, " uses on ", Name(lane),
                                ", and doesn't wait for it"));
  }
  uses.written_on = lane_;
  uses.write = uses.last[lane_] = {number_, name_};
}

void Work::Wait() {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  ++order.waits;
  LetHostKnow(order, Clock(order.streams[lane_]));
}

void Work::CopyPinned(void* to, const void* base, const void* from,
                      size_t size) {
  Copy copy;
  copy.to = to;
  copy.base = base;
  copy.pinned = from;
  copy.size = size;
  copy.sum = Sum(from, size);
  Launch(std::move(copy));
}

void Work::CopyOwned(void* to, const void* base, at::Tensor from) {
  Copy copy;
  copy.to = to;
  copy.base = base;
  copy.size = from.nbytes();
  copy.owned = std::move(from);
  Launch(std::move(copy));
}

void Work::CopyToPinned(void* to, at::Tensor from) {
  CopyOwned(to, nullptr, std::move(from));
}

void Work::Launch(Copy copy) {
  copy.lane = lane_;
  copy.number = number_;
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  if (!order.is_late) return Do(order, copy);
  OpenBlock(copy.base);
  std::memset(copy.to, kGarbage, copy.size);
  CloseBlock(copy.base);
  order.copies.push_back(std::move(copy));
  order.is_asked = false;
}

void BlockIsAllocated(const void* base, c10::DeviceIndex device) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  const int lane = LaneOf(CurrentStream(device));
  Clock& clock = order.streams[lane];
  Merge(order.host, &clock);
  // A caching allocator might give out memory that the last work of this stream
  // used: another stream has to wait for that.
  Uses& uses = order.blocks[base];
  uses.allocated_on = uses.written_on = lane;
  uses.write = uses.last[lane] = {clock[lane], "whoever had the memory before"};

  // And any block that this stream has given back.
  const auto is_given_out = [&](const Uses& uses) {
    if (uses.allocated_on != lane) return false;
    for (int other = 0; other < kNumLanes; ++other) {
      if (uses.last[other].number <= clock[other]) continue;
      AddRace(order, absl::StrCat("memory that ", uses.last[other].name,
                                  " uses on ", Name(other),
                                  " was freed without record_stream and "
                                  "may be given out again on ",
                                  Name(lane), ", which doesn't wait for it"));
    }
    return true;
  };
  order.freed.erase(
      std::remove_if(order.freed.begin(), order.freed.end(), is_given_out),
      order.freed.end());
}

void BlockIsFreed(const void* base) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  order.copies.remove_if(
      [base](const Copy& copy) { return copy.base == base && !copy.is_done; });
  const auto found = order.blocks.find(base);
  if (found == order.blocks.end()) return;
  Uses uses = std::move(found->second);
  order.blocks.erase(found);
  bool is_used_elsewhere = false;
  for (int lane = 0; lane < kNumLanes; ++lane) {
    // The allocator waits for what was recorded.
    if (uses.is_recorded[lane] || lane == uses.allocated_on) {
      uses.last[lane] = Use();
    }
    is_used_elsewhere |= uses.last[lane].number > order.host[lane];
  }
  if (is_used_elsewhere) order.freed.push_back(std::move(uses));
}

void BlockIsRecorded(const void* base, const c10::Stream& stream) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  const auto found = order.blocks.find(base);
  if (found == order.blocks.end()) return;
  found->second.is_recorded[LaneOf(stream)] = true;
}

void PinnedIsFreed(const void* base, size_t size) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  const char* const begin = static_cast<const char*>(base);
  order.copies.remove_if([&](Copy& copy) {
    const char* const memory =
        static_cast<const char*>(copy.base == nullptr ? copy.to : copy.pinned);
    if (memory < begin || memory >= begin + size) return false;
    CheckSource(order, copy);
    if (copy.is_done || copy.base == nullptr) return true;
    // LibTorch's allocator of pinned memory gives it to nobody else as long as
    // a copy reads it.
    copy.owned =
        at::detail::empty_cpu({static_cast<int64_t>(copy.size)}, at::kByte);
    std::memcpy(copy.owned.mutable_data_ptr(), copy.pinned, copy.size);
    copy.pinned = nullptr;
    return false;
  });
}

Clock ClockOf(const c10::Stream& stream) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  Clock& clock = order.streams[LaneOf(stream)];
  Merge(order.host, &clock);
  return clock;
}

void ComeAfter(const c10::Stream& stream, const Clock& clock) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  Merge(clock, &order.streams[LaneOf(stream)]);
}

void HostWaits(const Clock& clock) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  ++order.waits;
  LetHostKnow(order, clock);
}

bool IsDone(const Clock& clock) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  const bool is_waited_for = std::any_of(
      order.copies.begin(), order.copies.end(), [&clock](const Copy& copy) {
        return !copy.is_done && copy.number <= clock[copy.lane];
      });
  if (is_waited_for && !std::exchange(order.is_asked, true)) return false;
  LetHostKnow(order, clock);
  return true;
}

void SetLate(bool is_late) {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  order.is_late = is_late;
  if (is_late) return;
  for (Copy& copy : order.copies) {
    if (!copy.is_done) Do(order, copy);
  }
  order.copies.clear();
}

std::vector<std::string> TakeRaces() {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  return std::exchange(order.races, {});
}

int64_t NumWaits() {
  Order& order = TheOrder();
  const std::lock_guard<std::mutex> lock(order.mutex);
  return order.waits;
}

}  // namespace internal_fake_device
}  // namespace grapnel
