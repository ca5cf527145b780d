package grapnel

/*
#cgo LDFLAGS: -ldl
#include "thread.h"
*/
import "C"

import (
	"os"
	"runtime"
	"sync/atomic"
)

// LibTorch computes with OpenMP, which keeps a team of threads, one per core, for
// every thread that ever asked for one, until that thread ends. Goroutines move
// between Go's threads, which don't end: calls on them would leave more threads
// behind than there are cores, for each of Go's. So calls are made on threads
// that end, or end the team where they end themselves.

// onOwnThread calls f on an OS thread that ends with it, and waits.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runOnOwnThread(f)
	}()
	<-done
}

// runOnOwnThread is called by a goroutine that ends behind it.
func runOnOwnThread(f func()) {
	runtime.LockOSThread() // For good: the thread ends with the goroutine.
	if thread() != int64(os.Getpid()) {
		f()
		return
	}
	// The process's first thread doesn't end. Held, it can't be given again.
	onOwnThread(f)
	runtime.UnlockOSThread()
}

// holdThread locks the goroutine to its OS thread, for what computes, until
// leaveThread.
func holdThread() { runtime.LockOSThread() }

// leaveThread leaves the thread without a team of OpenMP's.
func leaveThread() {
	C.grapnel_go_end_team()
	runtime.UnlockOSThread()
}

// inCoroutine reports whether the goroutine is one of iter.Pull's. Those must not
// be locked to a thread when they hand over a value: Go's runtime would end the
// process.
func inCoroutine() bool {
	var pcs [64]uintptr
	for skip := 0; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var frame runtime.Frame
			if frame, more = frames.Next(); frame.Function == "runtime.corostart" {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// thread returns the number of the OS thread.
func thread() int64 { return int64(C.grapnel_go_thread()) }

// A home is the thread of the call that is going on on a runner, or 0. What comes
// from there, from a callback, must stay there: the library knows by the thread
// that the call itself asks.
type home struct{ thread atomic.Int64 }

// enter says that a call begins on this thread, and leave that it ends: another
// thread may get its number.
func (h *home) enter() { h.thread.Store(thread()) }
func (h *home) leave() { h.thread.Store(0) }

// compute calls f, which may compute: where it is, if that is home, else on a
// thread of its own.
func (h *home) compute(f func()) {
	if h != nil && h.thread.Load() == thread() {
		f()
		return
	}
	onOwnThread(f)
}
