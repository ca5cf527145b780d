// Command bench prints what callbacks cost, as a line of JSON, in nanoseconds.
// All is measured by turns in one process, so that what disturbs the machine
// disturbs all; figures are medians over the blocks.
//
//	bench [BLOCKS]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/barecallback"
	"grapnel.dev/grapnel/internal/emptyrun"
)

const (
	steps = 200
	hooks = 64 // So many that a call isn't lost among the step around it.
	bare  = 5000
)

type results struct {
	// A callback into Go that does nothing, called by a loop in C,
	BareCallback float64 `json:"bare_callback_ns"`
	// and as a hook of C's, at AfterTrainIter: what the library does around it is in it.
	BareHook float64 `json:"bare_hook_ns"`
	// A hook of Go's that does nothing there.
	Hook         float64 `json:"hook_ns"`
	HookOverBare float64 `json:"hook_over_bare_hook"` // The median of the blocks' ratios.
	// A step of an empty run, with batches of 64 rows of the library's,
	Step float64 `json:"step_ns"`
	// and how much more it is with those of GetBatch.
	GetBatchMore float64 `json:"get_batch_more_ns"`
	// The same step measured twice, as a ratio. Where it isn't near 1, nothing is a result.
	StepOverItself float64 `json:"step_over_itself"`
}

func measure(dir string, blocks int) (*results, error) {
	ctx := context.Background()
	table := emptyrun.NewTable()
	inMemory, err := table.InMemory()
	if err != nil {
		return nil, err
	}
	var added, bareHooks []grapnel.Hook
	for i := range hooks {
		name := fmt.Sprint("hook", i)
		added = append(added, noop{name})
		bareHooks = append(bareHooks, barecallback.Hook(name))
	}
	type kind struct {
		data  grapnel.Dataset
		hooks []grapnel.Hook
	}
	var runs []func() error
	for i, it := range []kind{{inMemory, nil}, {inMemory, added}, {inMemory, bareHooks}, {table, nil},
		{inMemory, nil}} {
		runner, err := emptyrun.New(filepath.Join(dir, fmt.Sprint(i)), it.data, it.hooks...)
		if err != nil {
			return nil, err
		}
		defer runner.Close()
		runs = append(runs, func() error {
			left := steps
			for _, err := range runner.Steps(ctx) {
				if left--; err != nil || left == 0 {
					return err
				}
			}
			return errors.New("the run is at its end")
		})
	}
	runs = append(runs, func() error {
		barecallback.Run(bare)
		return nil
	})
	times := make([][]float64, len(runs))
	for block := range blocks + 1 {
		for i, run := range runs {
			begin := time.Now()
			if err := run(); err != nil {
				return nil, err
			}
			if block > 0 { // The first is to get warm.
				times[i] = append(times[i], float64(time.Since(begin).Nanoseconds()))
			}
		}
	}
	of := func(figure func(block int) float64) float64 {
		figures := make([]float64, blocks)
		for block := range figures {
			figures[block] = figure(block)
		}
		slices.Sort(figures)
		return figures[blocks/2]
	}
	perHook := func(run, b int) float64 { return (times[run][b] - times[0][b]) / steps / hooks }
	return &results{
		BareCallback:   of(func(b int) float64 { return times[5][b] / bare }),
		BareHook:       of(func(b int) float64 { return perHook(2, b) }),
		Hook:           of(func(b int) float64 { return perHook(1, b) }),
		HookOverBare:   of(func(b int) float64 { return perHook(1, b) / perHook(2, b) }),
		Step:           of(func(b int) float64 { return times[0][b] / steps }),
		GetBatchMore:   of(func(b int) float64 { return (times[3][b] - times[0][b]) / steps }),
		StepOverItself: of(func(b int) float64 { return times[4][b] / times[0][b] }),
	}, nil
}

// noop is a hook that does nothing.
type noop struct{ name string }

func (h noop) Name() string                        { return h.name }
func (h noop) AfterTrainIter(_ *grapnel.Run) error { return nil }

func run() error {
	blocks := 101
	if len(os.Args) > 1 {
		var err error
		if blocks, err = strconv.Atoi(os.Args[1]); err != nil || blocks < 1 {
			return fmt.Errorf("BLOCKS: must be >= 1, is %q", os.Args[1])
		}
	}
	dir, err := os.MkdirTemp("", "grapnel_bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	found, err := measure(dir, blocks)
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
