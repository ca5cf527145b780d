// Package grapnel trains LibTorch models: a runner with hooks, parameter
// schedulers, averaged models, checkpoints that survive a crash, and logs. Its
// data, hooks, losses, metrics and models may be Go's. It needs libgrapnel, which
// cgo finds by pkg-config.
//
// A run is a config, a grapnel.runner.v1.RunnerConfig: a file that [Open] reads,
// text for [NewFromText], or Go structs of package grapnelpb for [New]. What is
// Go's comes in [Options].
//
//	runner, err := grapnel.Open("digits.textproto", nil)
//	if err != nil {
//		return err
//	}
//	defer runner.Close()
//	if err := runner.Train(ctx); err != nil {
//		return err
//	}
//
// # Errors
//
// Every error of the library is an [*Error]: errors.Is finds its [Code], such as
// ErrNotFound, and what a callback returned that was its cause. A panic in a
// callback ends the call that it was part of with a [*PanicError]. A callback
// must not call runtime.Goexit, as testing.T.FailNow and Fatal do: C code below
// it can't be left that way, and the process ends.
//
// # Memory
//
// What is handed to a callback is valid until it returns; then its methods return
// errors that are ErrClosed, until the next call is handed the same Go object,
// which is of that call then: keep none. What functions return is the caller's:
// Go lets go of it when it is unreachable, Close does so at once. No tensor of an
// iteration needs a Close. Slices that [Data] and [AddNew] give are C's memory:
// see there.
//
// # Threads
//
// Calls that compute do so on OS threads of their own, which end with them, but
// for [Runner.Steps], which locks its goroutine to its thread meanwhile, and
// [Runner.Step], whose thread ends with the Runner. LibTorch takes a thread for
// each core, for each thread that computes: of none of these calls do they stay.
// No signal handler is installed.
package grapnel
