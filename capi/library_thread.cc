#include "grapnel/capi/library_thread.h"

namespace grapnel::capi {
namespace {

thread_local int calls = 0;
thread_local int callbacks = 0;

}  // namespace

bool OnLibraryThread() { return callbacks > 0 && calls == 0; }

CallScope::CallScope() { ++calls; }
CallScope::~CallScope() { --calls; }

CallbackScope::CallbackScope() { ++callbacks; }
CallbackScope::~CallbackScope() { --callbacks; }

}  // namespace grapnel::capi
