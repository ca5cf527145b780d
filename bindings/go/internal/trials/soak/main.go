// Command soak trains for long, with a dataset, a hook and a metric of Go's, and
// prints what has grown as a line of JSON:
//
//	soak STEPS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/process"
	"grapnel.dev/grapnel/internal/trials/internal/guest"
)

const wait = 5 * time.Second // For what ends in its own time.

type results struct {
	Steps                  int   `json:"steps"`
	ResidentAfterTenth     int64 `json:"resident_bytes_after_tenth"`
	ResidentAtEnd          int64 `json:"resident_bytes_at_end"`
	ThreadsAfter100        int   `json:"threads_after_100"`
	ThreadsAtEnd           int   `json:"threads_at_end"`
	ThreadsBefore16Runners int   `json:"threads_before_16_runners"`
	ThreadsAfter16Runners  int   `json:"threads_after_16_runners"`
	GoroutinesBefore       int   `json:"goroutines_before"`
	GoroutinesAfter        int   `json:"goroutines_after"`
	LiveObjectsAtEnd       int   `json:"live_objects_at_end"`
}

// worst is the largest error of an evaluation.
type worst struct{ max float32 }

func (m *worst) Reset() { m.max = 0 }

func (m *worst) Process(predictions, batch *grapnel.Tensors) error {
	out, err := grapnel.Data[float32](predictions.Find("output"))
	if err != nil {
		return err
	}
	target, err := grapnel.Data[float32](batch.Find("target"))
	if err != nil {
		return err
	}
	for i := range out {
		m.max = max(m.max, out[i]-target[i], target[i]-out[i])
	}
	return nil
}

func (m *worst) Compute(metrics *grapnel.Scalars) error {
	return metrics.Add("worst", float64(m.max))
}

func newGuest(dir string, steps int) (*guest.Guest, error) {
	return guest.New(guest.Plan{
		WorkDir: dir, MaxIters: steps, Seed: 1, NumWorkers: 2, Interval: max(1, steps/100),
		Metrics: []grapnel.Metric{&worst{}},
	})
}

func threads() int {
	n, err := process.Threads()
	if err != nil {
		panic(err)
	}
	return n
}

// train makes the steps, and looks while it does.
func (r *results) train(dir string) error {
	it, err := newGuest(dir, r.Steps)
	if err != nil {
		return err
	}
	defer it.Runner.Close()
	for step, err := range it.Runner.Steps(context.Background()) {
		if err != nil {
			return err
		}
		if step.Iter == 100 {
			r.ThreadsAfter100 = threads()
		}
		if step.Iter == int64(r.Steps/10) {
			if r.ResidentAfterTenth, err = process.ResidentBytes(); err != nil {
				return err
			}
		}
	}
	if r.ResidentAtEnd, err = process.ResidentBytes(); err != nil {
		return err
	}
	r.ThreadsAtEnd = process.Settled(r.ThreadsAfter100, threads, wait)
	return nil
}

// runInTurn opens and closes a runner on a goroutine of its own.
func runInTurn(dir string) error {
	done := make(chan error)
	go func() {
		it, err := newGuest(dir, 20)
		if err == nil {
			err = it.Runner.Train(context.Background())
			it.Runner.Close()
		}
		done <- err
	}()
	return <-done
}

func measure(dir string, steps int) (*results, error) {
	r := &results{Steps: steps, GoroutinesBefore: runtime.NumGoroutine()}
	if err := process.FillThreadPool(runtime.GOMAXPROCS(0) + 2); err != nil {
		return nil, err
	}
	if err := r.train(filepath.Join(dir, "long")); err != nil {
		return nil, err
	}
	for i := range 32 {
		if err := runInTurn(filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return nil, err
		}
		if i < 16 { // Go's own come and go: the most that there are between two.
			r.ThreadsBefore16Runners = max(r.ThreadsBefore16Runners,
				process.Settled(r.ThreadsBefore16Runners, threads, 100*time.Millisecond))
		}
	}
	r.ThreadsAfter16Runners = process.Settled(r.ThreadsBefore16Runners, threads, wait)
	r.GoroutinesAfter = process.Settled(r.GoroutinesBefore, runtime.NumGoroutine, wait)
	r.LiveObjectsAtEnd = grapnel.LiveObjects()
	return r, nil
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: soak STEPS")
	}
	steps, err := strconv.Atoi(os.Args[1])
	if err != nil || steps < 1000 {
		return fmt.Errorf("STEPS: must be >= 1000, is %q", os.Args[1])
	}
	dir, err := os.MkdirTemp("", "grapnel_soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	found, err := measure(dir, steps)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
