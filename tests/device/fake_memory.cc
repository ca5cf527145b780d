#include "grapnel/tests/device/fake_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#include "c10/core/CachingDeviceAllocator.h"
#include "c10/util/Exception.h"
#include "grapnel/tests/device/fake_order.h"
#include "grapnel/tests/device/fake_streams.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

using c10::CachingAllocator::StatType;
using c10::CachingDeviceAllocator::DeviceStats;

constexpr auto kAggregate = static_cast<size_t>(StatType::AGGREGATE);

struct Block {
  size_t mapped = 0;  // Whole pages.
  size_t asked = 0;
  c10::DeviceIndex device = 0;
  int open = 0;  // How often it is.
};

// Never destroyed: tensors may outlive what is static.
struct Memory {
  std::mutex mutex;
  std::map<const char*, Block> blocks;         // By their first byte.
  std::map<const char*, size_t> pinned_sizes;  // The same.
  std::array<DeviceStats, kNumDevices> stats;
  int64_t emptied = 0;
};

Memory& TheMemory() {
  static Memory* const memory = new Memory();
  return *memory;
}

size_t WholePages(size_t size) {
  static const size_t page = sysconf(_SC_PAGESIZE);
  return (size + page - 1) / page * page;
}

void Protect(const char* base, const Block& block, int protection) {
  TORCH_CHECK(mprotect(const_cast<char*>(base), block.mapped, protection) == 0,
              "fake device: mprotect failed");
}

void Add(DeviceStats& stats, int64_t bytes) {
  const auto add = [](auto& kinds, int64_t n) {
    if (n > 0) {
      kinds[kAggregate].increase(n);
    } else {
      kinds[kAggregate].decrease(-n);
    }
  };
  add(stats.allocated_bytes, bytes);
  add(stats.reserved_bytes, bytes);
  add(stats.active_bytes, bytes);
  add(stats.requested_bytes, bytes);
  const int64_t blocks = bytes > 0 ? 1 : -1;
  add(stats.allocation, blocks);
  add(stats.segment, blocks);
  add(stats.active, blocks);
}

void Free(void* pointer) {
  BlockIsFreed(pointer);
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  const auto found = memory.blocks.find(static_cast<const char*>(pointer));
  Add(memory.stats[found->second.device],
      -static_cast<int64_t>(found->second.asked));
  munmap(pointer, found->second.mapped);
  memory.blocks.erase(found);
}

c10::DataPtr Allocate(size_t size) {
  const c10::Device device(kType, CurrentDevice());
  if (size == 0) return {nullptr, device};
  Block block;
  block.mapped = WholePages(size);
  block.asked = size;
  block.device = device.index();
  void* const base = mmap(nullptr, block.mapped, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK_WITH(OutOfMemoryError, base != MAP_FAILED,
                   "fake device: out of memory at ", size, " bytes");
  BlockIsAllocated(base, block.device);
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  memory.blocks.emplace(static_cast<const char*>(base), block);
  Add(memory.stats[block.device], size);
  return {base, base, &Free, device};
}

void CopyWithin(void* to, const void* from, size_t size) {
  OpenBlock(to);
  OpenBlock(from);
  std::memcpy(to, from, size);
  CloseBlock(from);
  CloseBlock(to);
}

class Statistical final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t size) override { return Allocate(size); }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t size) const override {
    CopyWithin(to, from, size);
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {
    const std::lock_guard<std::mutex> lock(TheMemory().mutex);
    ++TheMemory().emptied;
  }
  void recordStream(const c10::DataPtr& data, c10::Stream stream) override {
    BlockIsRecorded(data.get(), stream);
  }
  DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const std::lock_guard<std::mutex> lock(TheMemory().mutex);
    return TheMemory().stats.at(device);
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override {
    ForEach(device, [](auto& stat) { stat.reset_accumulated(); });
  }
  void resetPeakStats(c10::DeviceIndex device) override {
    ForEach(device, [](auto& stat) { stat.reset_peak(); });
  }

 private:
  template <typename F>
  static void ForEach(c10::DeviceIndex device, F&& f) {
    const std::lock_guard<std::mutex> lock(TheMemory().mutex);
    DeviceStats& stats = TheMemory().stats.at(device);
    for (auto* kinds : {&stats.allocated_bytes, &stats.reserved_bytes,
                        &stats.active_bytes, &stats.requested_bytes,
                        &stats.allocation, &stats.segment, &stats.active}) {
      f((*kinds)[kAggregate]);
    }
  }
};

class Plain final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override { return Allocate(size); }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t size) const override {
    CopyWithin(to, from, size);
  }
};

class Pinned final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    void* const base =
        std::aligned_alloc(64, (std::max<size_t>(size, 1) + 63) / 64 * 64);
    if (base == nullptr) throw std::bad_alloc();
    const std::lock_guard<std::mutex> lock(TheMemory().mutex);
    TheMemory().pinned_sizes.emplace(static_cast<const char*>(base), size);
    return {base, base, &FreePinned, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &FreePinned; }
  void copy_data(void* to, const void* from, size_t size) const override {
    std::memcpy(to, from, size);
  }

 private:
  static void FreePinned(void* pointer) {
    Memory& memory = TheMemory();
    size_t size;
    {
      const std::lock_guard<std::mutex> lock(memory.mutex);
      const auto found =
          memory.pinned_sizes.find(static_cast<const char*>(pointer));
      size = found->second;
      memory.pinned_sizes.erase(found);
    }
    PinnedIsFreed(pointer, size);
    std::free(pointer);
  }
};

// The entry of the block that `pointer` is in.
template <typename Blocks, typename Size>
auto Find(Blocks& blocks, const void* pointer, Size&& size) {
  const char* const byte = static_cast<const char*>(pointer);
  auto found = blocks.upper_bound(byte);
  if (found == blocks.begin()) return blocks.end();
  --found;
  return byte < found->first + std::max<size_t>(size(found->second), 1)
             ? found
             : blocks.end();
}

}  // namespace

c10::Allocator* DeviceAllocator() {
  static Statistical* const allocator = new Statistical();
  return allocator;
}

c10::Allocator* PlainAllocator() {
  static Plain* const allocator = new Plain();
  return allocator;
}

c10::Allocator* PinnedAllocator() {
  static Pinned* const allocator = new Pinned();
  return allocator;
}

bool IsPinned(const void* pointer) {
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  return Find(memory.pinned_sizes, pointer, [](size_t size) { return size; }) !=
         memory.pinned_sizes.end();
}

c10::Device DeviceOf(const void* pointer) {
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  const auto found = Find(memory.blocks, pointer,
                          [](const Block& block) { return block.mapped; });
  TORCH_CHECK(found != memory.blocks.end(),
              "fake device: the pointer is none of its memory");
  return {kType, found->second.device};
}

void OpenBlock(const void* base) {
  if (base == nullptr) return;
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  const auto found = memory.blocks.find(static_cast<const char*>(base));
  TORCH_CHECK(found != memory.blocks.end(),
              "fake device: a tensor's memory is none of the device");
  if (found->second.open++ == 0) {
    Protect(found->first, found->second, PROT_READ | PROT_WRITE);
  }
}

void CloseBlock(const void* base) {
  if (base == nullptr) return;
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  const auto found = memory.blocks.find(static_cast<const char*>(base));
  if (--found->second.open == 0) {
    Protect(found->first, found->second, PROT_NONE);
  }
}

void ResizeStorage(const c10::Storage& storage, size_t size) {
  c10::StorageImpl* const impl = storage.unsafeGetStorageImpl();
  const OnDevice on(impl->device().index());
  c10::DataPtr fresh = Allocate(size);
  const size_t kept = std::min(size, impl->nbytes());
  if (kept > 0) CopyWithin(fresh.get(), impl->data_ptr().get(), kept);
  impl->set_data_ptr_noswap(std::move(fresh));
  impl->set_nbytes(size);
}

int64_t BytesInUse() {
  Memory& memory = TheMemory();
  const std::lock_guard<std::mutex> lock(memory.mutex);
  int64_t bytes = 0;
  for (const auto& entry : memory.blocks) bytes += entry.second.asked;
  return bytes;
}

int64_t NumEmptied() {
  const std::lock_guard<std::mutex> lock(TheMemory().mutex);
  return TheMemory().emptied;
}

}  // namespace internal_fake_device
}  // namespace grapnel
