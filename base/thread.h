// Threads of the library's own, in a process that belongs to somebody else.

#ifndef GRAPNEL_BASE_THREAD_H_
#define GRAPNEL_BASE_THREAD_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace grapnel {

// A thread that does `body` and is called `name`, at most 15 characters. It
// takes none of the process's signals, whose handlers expect the threads of the
// program that installed them; those of a fault of its own it does.
// kResourceExhausted if the system has none to give. What `body` throws ends
// the process, as in any std::thread.
absl::StatusOr<std::thread> StartThread(const std::string& name,
                                        std::function<void()> body);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_THREAD_H_
