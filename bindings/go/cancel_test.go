package grapnel_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
)

// At which iteration a test cancels.
const cancelledAt = 13

// cancelling calls f in the middle of an iteration. context.AfterFunc's goroutine
// has the time of seven iterations then to ask for the stop.
func cancelling(f func()) grapnel.Hook {
	return grapnel.HookFunc("cancels", func(run *grapnel.Run) error {
		if run.Iter()+1 == cancelledAt {
			f()
		}
		if run.Iter()+1 >= cancelledAt {
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	}, grapnel.AfterTrainIter)
}

func TestACancelledContextStopsAndSaves(t *testing.T) {
	whole := newLine(t)
	check(t, whole.Train(background))
	want := tensorOf(t, whole, "0.weight")
	mine := errors.New("the house is on fire")

	for name, train := range map[string]func(*grapnel.Runner, context.Context) error{
		"Train": (*grapnel.Runner).Train,
		"TrainUntil": func(r *grapnel.Runner, ctx context.Context) error {
			_, err := r.TrainUntil(ctx, time.Now().Add(time.Hour))
			return err
		},
		"Steps": func(r *grapnel.Runner, ctx context.Context) error {
			for _, err := range r.Steps(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"Step": func(r *grapnel.Runner, ctx context.Context) error {
			for {
				if step, err := r.Step(ctx); err != nil || !step.More {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			ctx, cancel := context.WithCancelCause(background)
			config := lineConfig(t)
			runner := newRunner(t, config, lineOptions(cancelling(func() { cancel(mine) })))
			err := train(runner, ctx)
			wantError(t, err, mine, "the house is on fire")
			iter := must[int64](t)(runner.Iter())
			if iter < cancelledAt || iter == lineIters {
				t.Errorf("got iteration %d, want %d or soon after", iter, cancelledAt)
			}
			// For good, whatever the context.
			wantError(t, runner.Train(background), mine, "the house is on fire")
			_, err = runner.Step(background)
			wantError(t, err, mine, "")
			check(t, runner.Close())

			config.Resume = proto.Bool(true)
			resumed := newRunner(t, config, lineOptions())
			check(t, resumed.Train(background))
			if got := tensorOf(t, resumed, "0.weight"); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestAnErrorIsWhyTheContextIsDone(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	err := newLine(t, cancelling(cancel)).Train(ctx)
	wantError(t, err, context.Canceled, "stopped: context canceled")
	wantError(t, err, grapnel.ErrCanceled, "")

	ctx, cancel = context.WithTimeout(background, time.Millisecond)
	defer cancel()
	err = newLine(t, cancelling(func() { <-ctx.Done() })).Train(ctx)
	wantError(t, err, context.DeadlineExceeded, "")
	wantError(t, err, grapnel.ErrDeadlineExceeded, "")
}

// A context that is done in the loop's body, which leaves the loop or goes on.
func TestAContextIsDoneBetweenSteps(t *testing.T) {
	noLeaks(t)
	for _, leaves := range []bool{true, false} {
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		config := lineConfig(t)
		runner := newRunner(t, config, lineOptions())
		var last error
		for step, err := range runner.Steps(ctx) {
			if last = err; err != nil {
				break
			}
			if step.Iter == cancelledAt {
				cancel()
				if leaves {
					break
				}
			}
		}
		if !leaves {
			wantError(t, last, context.Canceled, "")
		}
		wantError(t, runner.Train(background), context.Canceled, "") // Saves, if nothing has.
		check(t, runner.Close())
		path := must[string](t)(grapnel.LatestCheckpoint(config.GetWorkDir()))
		checkpoint := must[*grapnel.Checkpoint](t)(grapnel.OpenCheckpoint(path))
		if iter := checkpoint.Iter(); iter != cancelledAt {
			t.Errorf("got a checkpoint of %d, want %d", iter, cancelledAt)
		}
		check(t, checkpoint.Close())
	}
}

// What is done before anything begins leaves the runner as it is.
func TestAContextIsDoneAtTheStart(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(background)
	cancel()
	runner := newLine(t)
	wantError(t, runner.Train(ctx), context.Canceled, "")
	_, err := runner.Step(ctx)
	wantError(t, err, context.Canceled, "")
	for _, err := range runner.Steps(ctx) {
		wantError(t, err, context.Canceled, "")
	}
	_, err = runner.Val(ctx)
	wantError(t, err, context.Canceled, "")
	check(t, runner.Train(background))
	if iter := must[int64](t)(runner.Iter()); iter != lineIters {
		t.Errorf("got %d", iter)
	}
}

func TestAContextIsDoneAtTheEnd(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancel(background)
	runner := newLine(t, grapnel.HookFunc("cancels", func(*grapnel.Run) error {
		cancel()
		time.Sleep(10 * time.Millisecond)
		return nil
	}, grapnel.AfterTrain))
	check(t, runner.Train(ctx)) // All of it is done.
	check(t, runner.Train(background))
}

// A context ends an evaluation before its next batch; another one is made whole.
func TestAnEvaluationIsCutShort(t *testing.T) {
	noLeaks(t)
	for _, stage := range []grapnel.Stage{grapnel.AfterValIter, grapnel.AfterTestIter} {
		ctx, cancel := context.WithCancelCause(background)
		why := errors.New("enough")
		batches := 0
		runner := newLine(t, grapnel.HookFunc("cancels", func(*grapnel.Run) error {
			if batches++; batches == 1 {
				cancel(why)
				time.Sleep(500 * time.Millisecond) // It is another goroutine that tells.
			}
			return nil
		}, stage))
		evaluate := runner.Val
		if stage == grapnel.AfterTestIter {
			evaluate = runner.Test
		}
		_, err := evaluate(ctx)
		wantError(t, err, why, "stopped: enough")
		if batches != 1 {
			t.Errorf("%v: %d batches", stage, batches)
		}
		if n := must[*grapnel.Scalars](t)(evaluate(background)).Len(); n == 0 || batches != 6 {
			t.Errorf("%v: %d metrics after %d batches", stage, n, batches)
		}
		check(t, runner.Train(background))
	}
}
