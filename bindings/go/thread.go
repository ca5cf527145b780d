package grapnel

/*
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t grapnel_go_thread(void) { return syscall(SYS_gettid); }
*/
import "C"

import (
	"os"
	"runtime"
	"sync/atomic"
)

// onOwnThread calls f on an OS thread that ends with it, and waits.
//
// LibTorch computes with OpenMP, which keeps a team of threads, one per core, for
// every thread that ever asked for one, until that thread ends. Goroutines move
// between Go's threads, which don't end: long calls on them would leave more
// threads behind than there are cores, for each of Go's.
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

// thread returns the number of the OS thread.
func thread() int64 { return int64(C.grapnel_go_thread()) }

// A home is the thread of the call that is going on on a runner, or of one
// before. What comes from there, from a callback, must stay there: the library
// knows by the thread that the call itself asks.
type home struct{ thread atomic.Int64 }

// here says that a call begins on this thread.
func (h *home) here() { h.thread.Store(thread()) }

// compute calls f, which may compute: where it is, if that is home, else on a
// thread of its own.
func (h *home) compute(f func()) {
	if h != nil && h.thread.Load() == thread() {
		f()
		return
	}
	onOwnThread(f)
}
