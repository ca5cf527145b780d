// Handlers of signals, for programs.

#ifndef GRAPNEL_TOOLS_HANDLE_SIGNAL_H_
#define GRAPNEL_TOOLS_HANDLE_SIGNAL_H_

namespace grapnel {

// Has `handler` called at `signal`; calls of the system go on after it. A
// signal that our parent has us ignore, as nohup does, stays ignored.
void HandleSignal(int signal, void (*handler)(int));

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_HANDLE_SIGNAL_H_
