// Which work on the fake device comes after which: streams, events, and what
// goes wrong between them.
//
// Works are run when they are launched, all on the host's memory, so a missing
// wait would never be seen. Therefore each stream, each event and the host have
// a clock: how many works of each stream they come after. A work that touches
// what another one wrote, and doesn't come after it, is a race. Copies that
// nobody waits for may be carried out late, too: as late as clocks allow.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_ORDER_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_ORDER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"
#include "c10/core/Stream.h"
#include "grapnel/tests/device/fake_streams.h"

namespace grapnel {
namespace internal_fake_device {

// All streams of all devices, in a row.
constexpr int kNumLanes = kNumDevices * kNumStreams;

// For each stream of each device, how many of its works are before.
using Clock = std::array<int64_t, kNumLanes>;

// Makes `to` come after `from`, too.
void Merge(const Clock& from, Clock* to);

struct Copy;

// One work, on the stream of a device that is the thread's current one.
class Work {
 public:
  // `name` lives as long as the process.
  Work(c10::DeviceIndex device, absl::string_view name);

  // Does the copies that it comes after.
  void Start();

  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  // Of the block that begins at `base`. Null is taken and does nothing.
  void Reads(const void* base);
  void Writes(const void* base);

  // The host waits until it is done, and all before it.
  void Wait();

  // A copy that the host doesn't wait for, of `size` bytes, to a place in the
  // block that begins at `base` or to pinned memory. It is done when somebody
  // looks who comes after it; until then there is garbage. At once, unless
  // copies are late. What is in `from` is nobody else's, or pinned.
  void CopyPinned(void* to, const void* base, const void* from, size_t size);
  void CopyOwned(void* to, const void* base, at::Tensor from);
  void CopyToPinned(void* to, at::Tensor from);

 private:
  void Launch(Copy copy);

  const int lane_;
  const absl::string_view name_;
  int64_t number_;
};

// What the allocators tell: a block was given out to, or taken back from, the
// current stream of the device; a stream was recorded for it.
void BlockIsAllocated(const void* base, c10::DeviceIndex device);
void BlockIsFreed(const void* base);
void BlockIsRecorded(const void* base, const c10::Stream& stream);

// Before pinned memory is freed: copies that have it have done with it after.
void PinnedIsFreed(const void* base, size_t size);

// Of streams and events; an event is a clock.
Clock ClockOf(const c10::Stream& stream);
void ComeAfter(const c10::Stream& stream, const Clock& clock);
void HostWaits(const Clock& clock);

// Whether all of it is done. If copies are late, the first time that one asks
// they aren't, and the host doesn't wait by asking.
bool IsDone(const Clock& clock);

void SetLate(bool is_late);
std::vector<std::string> TakeRaces();
int64_t NumWaits();

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_ORDER_H_
