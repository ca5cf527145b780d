// A device without hardware, "fake:0" and "fake:1", in LibTorch's slot for
// backends from outside (PrivateUse1): for tests of what happens on a GPU.
//
// Its memory is the host's, closed to the host (PROT_NONE) except while
// LibTorch copies or an operator runs. Operators are the CPU's, run on that
// memory as it lies. So what forgets to move a tensor, makes one on the CPU or
// reads data_ptr on the host fails here as on a GPU, and everything else has
// the CPU's bits.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_DEVICE_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_DEVICE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "c10/core/Device.h"

namespace grapnel {

// "fake:0". The first call registers the backend with LibTorch, for the rest of
// the process: before its first backward pass, since autograd starts a thread
// for each device that it knows then, and dies at others. A program that links
// :fake_device_registered has it from its start.
c10::Device FakeDevice();

// What operators on the device draw from if they aren't given a generator.
enum class FakeGenerator {
  kCpus,  // The CPU's default generator, so that numbers are the CPU's too. A
          // CPU generator may be given to any operator.
  kOwn,   // One of the device, as on a GPU: it has a seed of its own, which
          // at::manual_seed doesn't reach, and operators refuse the CPU's.
};

// From now on, in all threads. kOwn before the first call.
void UseFakeGenerator(FakeGenerator generator);

// Copies between host and device since the process began, of all threads, that
// the program asked for; what operators do within themselves isn't one. Reading
// a value (item, equal) and asking for a size that depends on values (nonzero,
// a mask as an index) are copies to the host, as they are on a GPU.
struct FakeCopies {
  int64_t to_host = 0;
  int64_t to_device = 0;
  int64_t bytes_to_host = 0;
  int64_t bytes_to_device = 0;
};

FakeCopies CountFakeCopies();

// The last of them, oldest first, at most 64: "to host: float32 [32, 10]", for
// the message of a test that counted too many.
std::vector<std::string> LastFakeCopies();

// Memory of both devices that tensors hold.
int64_t FakeBytesInUse();

// Calls of emptyCache since the process began. The device caches nothing.
int64_t NumEmptiedFakeCaches();

// Whether the allocator is one that LibTorch's interface for devices
// (c10::DeviceAllocator) doesn't know: no statistics and no emptyCache. False
// before the first call.
void UsePlainFakeAllocator(bool plain);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_DEVICE_H_
