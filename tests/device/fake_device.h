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
  kOwn,   // One of the device, as on a GPU; operators refuse the CPU's.
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

  // How often the host waited for the device: in copies that aren't
  // non_blocking, or whose memory on the host isn't pinned; in reads; and where
  // it was asked to (synchronize).
  int64_t waits = 0;
};

FakeCopies CountFakeCopies();

// The last of them, oldest first, at most 64: "to host: float32 [32, 10]", for
// the message of a test that counted too many.
std::vector<std::string> LastFakeCopies();

// Whether non_blocking copies with pinned memory, from now on, are carried out
// as late as a GPU might: one to the device when an operator runs, or the host
// waits, on a stream that comes after it (it is of that stream, or waited for
// an event that was recorded after the copy); one to the host when the host
// waits for it so. Until then there are NaNs in its destination (-1 in
// integers), and it reads what its source holds then. An event or stream that
// is asked if it is done says no at first, and yes the next time. False before
// the first call.
void DelayFakeCopies(bool delay);

// What was wrong between streams, each in a line, since this was last called:
// an operator or copy that uses what another stream's writes, or writes what it
// uses, without waiting for it; new memory that another stream than the one it
// is given to uses without waiting for that one's work until then, which may
// have used it before; memory that is freed while another stream than its own
// uses it, with neither record_stream nor a wait before its own stream
// allocates again; and, while copies are delayed, pinned memory that is written
// before the host has waited for the copy that reads it. Freeing that is no
// mistake: LibTorch keeps it for the copy. Within one stream all is in order.
std::vector<std::string> TakeFakeRaces();

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
