// Batches to a device, the next one while the one before is used.

#ifndef GRAPNEL_DATA_DEVICE_COPIER_H_
#define GRAPNEL_DATA_DEVICE_COPIER_H_

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c10/core/Device.h"
#include "c10/core/Event.h"
#include "c10/core/Stream.h"
#include "c10/core/impl/VirtualGuardImpl.h"
#include "grapnel/data/dense_tensor.h"
#include "grapnel/data/sample.h"

namespace grapnel {

// What a loader does to give its batches on a device: its workers Pin each, and
// its Next delivers one and launches the copy of the one behind it.
//
// Every tensor of a batch is copied once. Memory on the device is that of the
// batch which was delivered last and of the one ahead, even where the host is
// many iterations before the device: the one ahead is allocated on the stream
// that will use it, so it takes the memory of the batch before last at once,
// and the copy waits on the device until that one is used up. So it goes on
// while the batch between the two is used.
//
// The host waits for nothing, except of a backend without events or pinned
// memory, whose copies are plain ones on the current stream, and none ahead;
// nor is one ahead of a backend without a pool of streams.
//
// Thread-compatible, and for the thread that calls the loader, but memory() and
// Pin, which are for all.
class DeviceCopier {
 public:
  // Null for the CPU, where batches are already. kFailedPrecondition if
  // LibTorch has no such backend; other errors are its own, and name the device
  // too.
  static absl::StatusOr<std::unique_ptr<DeviceCopier>> Create(
      c10::Device device);

  DeviceCopier(const DeviceCopier&) = delete;
  DeviceCopier& operator=(const DeviceCopier&) = delete;

  // Waits for the copies that are on their way, whose memory may go then.
  ~DeviceCopier();

  // Where to stack batches, and what else is copied to the device.
  const PinnedMemory& memory() const { return memory_; }

  // Moves the tensors of `*batch` that lie elsewhere in the host's memory
  // there, strides and all. On an error, which names the tensor and the device
  // and is never kOutOfRange, some may have been moved.
  absl::Status Pin(Batch* batch) const;

  // Launches the copy of `*batch`, pinned, beside what the current stream does,
  // and replaces its tensors by those on the device, which nobody may use
  // before it is delivered. It must be the next one that is, unless Forget is
  // called. If that fails `*batch` is as it was, and Deliver tries again.
  void LaunchAhead(Batch* batch);

  // Sees to it that the tensors of `*batch` are on the device, and there when
  // what the current stream is given from now on uses them. On an error, which
  // names the tensor and the device and is never kOutOfRange, `*batch` is as it
  // was.
  absl::Status Deliver(Batch* batch);

  // The batch that was launched ahead, if one was, will not be delivered: call
  // it before its tensors go.
  void Forget();

 private:
  // What a copy reads, until it has ended. LibTorch's own allocators of pinned
  // memory wait for that too, but not a dataset that writes to memory again as
  // soon as nobody else has it.
  struct Source {
    std::vector<at::Tensor> tensors;
    c10::Event copied;
  };

  explicit DeviceCopier(c10::Device device);

  // What the backend has. Throws if it can't be used at all.
  void Probe();

  // Copies on `stream` into memory of `current`.
  absl::Status Copy(const c10::Stream& current, const c10::Stream& stream,
                    Batch* batch);
  absl::Status CopyTensors(const c10::Stream& current,
                           const c10::Stream& stream,
                           std::vector<at::Tensor>* sources, Batch* copy);
  void DropEndedSources();
  Source NewSource();
  void RecordUse(const at::Tensor& tensor, const c10::Stream& stream) const;

  const c10::Device device_;
  const c10::impl::VirtualGuardImpl guard_;
  PinnedMemory memory_;
  bool has_events_ = false;
  std::optional<c10::Stream> side_;
  std::optional<c10::Event> used_up_;  // What the memory held before.

  // The stream whose memory the batch ahead is in, if there is one; its copy is
  // the last of `sources_`.
  std::optional<c10::Stream> ahead_;
  std::deque<Source> sources_;
  std::vector<Source> spare_sources_;  // Empty ones, for their events.
};

}  // namespace grapnel

#endif  // GRAPNEL_DATA_DEVICE_COPIER_H_
