// Whether a callback came on a thread of the library's own: of a loader, or of
// a run's log. Such a thread can't wait for itself to end.

#ifndef GRAPNEL_CAPI_LIBRARY_THREAD_H_
#define GRAPNEL_CAPI_LIBRARY_THREAD_H_

namespace grapnel::capi {

// This thread is in a callback, and in no call of a caller's.
bool OnLibraryThread();

// As long as it lives, this thread is in a call of a caller's that may call
// callbacks back.
class CallScope {
 public:
  CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;
  ~CallScope();
};

// The same for a callback that may come on a thread of the library's own.
class CallbackScope {
 public:
  CallbackScope();
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;
  ~CallbackScope();
};

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_LIBRARY_THREAD_H_
