package grapnel

import (
	"math"
	"time"
)

// Hooks that call f from time to time, at AfterTrainIter, where the iteration is
// not counted yet by Run.Iter. All but Periodic go by the number of the
// iteration alone, so that a run that is resumed has them where it would have
// had them.

// EveryN calls f in every n-th iteration: those that complete n, 2n, and so on.
func EveryN(name string, n int64, f func(*Run) error) Hook {
	if n < 1 {
		return badHook{name, invalid("hook %q: n: must be >= 1, is %d", name, n)}
	}
	if f == nil {
		return badHook{name, noFunction(name)}
	}
	return HookFunc(name, func(run *Run) error {
		if (run.Iter()+1)%n != 0 {
			return nil
		}
		return f(run)
	}, AfterTrainIter)
}

// NTimes calls f n times in a training, evenly spread, the last time in its last
// iteration; in each iteration, if there are fewer than n.
func NTimes(name string, n int64, f func(*Run) error) Hook {
	if n < 1 {
		return badHook{name, invalid("hook %q: n: must be >= 1, is %d", name, n)}
	}
	if f == nil {
		return badHook{name, noFunction(name)}
	}
	return HookFunc(name, func(run *Run) error {
		i, all := run.Iter(), run.MaxIters()
		if i*n/all == (i+1)*n/all {
			return nil
		}
		return f(run)
	}, AfterTrainIter)
}

// Exponential calls f ever more seldom: in the iteration that completes first,
// and each time that their number has grown by factor, and in the last one:
// with 100 and 1.5, those that complete 100, 150, 225, 338.
func Exponential(name string, first int64, factor float64, f func(*Run) error) Hook {
	if first < 1 || !(factor > 1) || math.IsInf(factor, 1) {
		return badHook{name, invalid("hook %q: first must be >= 1 and factor > 1, are %d and %v", name,
			first, factor)}
	}
	if f == nil {
		return badHook{name, noFunction(name)}
	}
	return HookFunc(name, func(run *Run) error {
		done := run.Iter() + 1
		if done != run.MaxIters() && !onCurve(done, first, factor) {
			return nil
		}
		return f(run)
	}, AfterTrainIter)
}

// onCurve reports whether n is first, or first * factor^k rounded up.
func onCurve(n, first int64, factor float64) bool {
	exact := float64(first)
	for math.Ceil(exact) < float64(n) {
		exact *= factor
	}
	return math.Ceil(exact) == float64(n)
}

// Periodic calls f in the first iteration that is complete when that much time
// has passed since the last call, or since the training began, and in the last
// one.
func Periodic(name string, every time.Duration, f func(*Run) error) Hook {
	if every <= 0 {
		return badHook{name, invalid("hook %q: every: must be > 0, is %v", name, every)}
	}
	if f == nil {
		return badHook{name, noFunction(name)}
	}
	return &periodic{name: name, every: every, f: f}
}

type periodic struct {
	name  string
	every time.Duration
	f     func(*Run) error
	last  time.Time
}

func (h *periodic) Name() string { return h.name }

func (h *periodic) BeforeTrain(*Run) error {
	h.last = time.Now()
	return nil
}

func (h *periodic) AfterTrainIter(run *Run) error {
	now := time.Now()
	if now.Sub(h.last) < h.every && run.Iter()+1 != run.MaxIters() {
		return nil
	}
	h.last = now
	return h.f(run)
}

// badHook is what a wrong argument makes: New returns its error.
type badHook struct {
	name string
	err  error
}

func (h badHook) Name() string { return h.name }

func noFunction(name string) error { return invalid("hook %q: needs a function, is nil", name) }
