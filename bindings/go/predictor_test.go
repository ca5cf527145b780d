package grapnel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
)

func predict(t testing.TB, predictor *grapnel.Predictor, x ...float32) float32 {
	t.Helper()
	input := must[*grapnel.Tensor](t)(grapnel.NewTensor(x, 1, len(x)))
	defer input.Close()
	output := must[*grapnel.Tensor](t)(predictor.Predict(background, input))
	defer output.Close()
	return must[[]float32](t)(grapnel.Values[float32](output))[0]
}

func TestAPredictorHasTheRunsWeights(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	runner := newRunner(t, config, lineOptions())
	predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsEvaluated, 1))
	defer predictor.Close()
	check(t, runner.Train(background))
	check(t, predictor.Refresh())
	if iter := predictor.Iter(); iter != lineIters {
		t.Errorf("got %d", iter)
	}
	w, b := tensorOf(t, runner, "0.weight"), tensorOf(t, runner, "0.bias")
	want := w[0]*1 + w[1]*2 + b[0]
	if got := predict(t, predictor, 1, 2); got < want-1e-5 || got > want+1e-5 {
		t.Errorf("got %v, want %v", got, want)
	}
	got := predict(t, predictor, 1, 2)
	check(t, runner.Close())

	// From the checkpoint alone it is the same, and when the run is gone.
	opened := must[*grapnel.Predictor](t)(grapnel.OpenPredictor(config.GetWorkDir(),
		grapnel.WeightsTrained, 1))
	defer opened.Close()
	check(t, opened.Refresh())
	for _, it := range []*grapnel.Predictor{predictor, opened} {
		if again := predict(t, it, 1, 2); again != got {
			t.Errorf("got %v, want %v", again, got)
		}
	}
	wantError(t, predictor.Refresh(), grapnel.ErrFailedPrecondition, "")
}

func TestPredictorsThatCanNotBe(t *testing.T) {
	noLeaks(t)
	_, err := grapnel.OpenPredictor(t.TempDir(), grapnel.WeightsTrained, 1)
	wantError(t, err, grapnel.ErrNotFound, "")
	runner := newLine(t)
	_, err = runner.Predictor(grapnel.WeightsTrained, 0)
	wantError(t, err, grapnel.ErrInvalidArgument, "replicas")
	_, err = runner.Predictor(9, 1)
	wantError(t, err, grapnel.ErrInvalidArgument, "weights")
	predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 1))
	input := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 2, 3}, 1, 3))
	_, err = predictor.Predict(background, input)
	wantError(t, err, grapnel.ErrFailedPrecondition, "") // There are no weights yet.
	must[grapnel.Step](t)(runner.Step(background))
	check(t, predictor.Refresh())
	_, err = predictor.Predict(background, input)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
	check(t, input.Close())
	_, err = predictor.Predict(background, input)
	wantError(t, err, grapnel.ErrClosed, "inputs")
	check(t, predictor.Close())
	check(t, predictor.Close())
	_, err = predictor.Predict(background, input)
	wantError(t, err, grapnel.ErrClosed, "predictor")
	wantError(t, predictor.Refresh(), grapnel.ErrClosed, "predictor")
	if iter := predictor.Iter(); iter != 0 {
		t.Errorf("got %d", iter)
	}
}

// Goroutines predict, refresh and ask while the run trains.
func TestPredictionsWhileTheRunTrains(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	config.TrainCfg.MaxEpochs = proto.Int64(30)
	runner := newRunner(t, config, lineOptions())
	must[grapnel.Step](t)(runner.Step(background))
	predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 2))
	ctx, cancel := context.WithCancel(background)
	var all sync.WaitGroup
	fails := make(chan error, 8)
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			last := int64(0)
			for ctx.Err() == nil {
				input, err := grapnel.NewTensor([]float32{1, 2}, 1, 2)
				if err != nil {
					fails <- err
					return
				}
				output, err := predictor.Predict(ctx, input)
				input.Close()
				if err == nil {
					output.Close()
				} else if !errors.Is(err, context.Canceled) {
					fails <- err
					return
				}
				now := predictor.Iter()
				if now < last {
					fails <- fmt.Errorf("iteration %d came after %d", now, last)
					return
				}
				last = now
			}
		}()
	}
	all.Add(1)
	go func() {
		defer all.Done()
		for ctx.Err() == nil {
			if err := predictor.Refresh(); err != nil {
				fails <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	check(t, runner.Train(background))
	cancel()
	all.Wait()
	select {
	case err := <-fails:
		t.Error(err)
	default:
	}
	check(t, predictor.Close())
}

// Close waits for what is being predicted; what comes later is an error.
func TestAPredictorIsClosedWhileOthersPredict(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	must[grapnel.Step](t)(runner.Step(background))
	for range 10 {
		predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 2))
		var all sync.WaitGroup
		for range 4 {
			all.Add(1)
			go func() {
				defer all.Done()
				for {
					input, err := grapnel.NewTensor([]float32{1, 2}, 1, 2)
					if err != nil {
						t.Error(err)
						return
					}
					output, err := predictor.Predict(background, input)
					input.Close()
					if err != nil {
						if !errors.Is(err, grapnel.ErrClosed) {
							t.Error(err)
						}
						return
					}
					output.Close()
				}
			}()
		}
		time.Sleep(time.Millisecond)
		check(t, predictor.Close())
		all.Wait()
	}
}

// A hook may make one, and refresh it: it has the weights of then.
func TestAHookPredicts(t *testing.T) {
	noLeaks(t)
	var runner *grapnel.Runner
	var seen []int64
	runner = newLine(t, grapnel.EveryN("predicts", 7, func(*grapnel.Run) error {
		predictor, err := runner.Predictor(grapnel.WeightsTrained, 1)
		if err != nil {
			return err
		}
		defer predictor.Close()
		if err := predictor.Refresh(); err != nil {
			return err
		}
		predict(t, predictor, 1, 2)
		seen = append(seen, predictor.Iter())
		return nil
	}))
	check(t, runner.Train(background))
	if len(seen) != 2 || !slices.IsSorted(seen) {
		t.Errorf("got %v", seen)
	}
}

// Calls between two steps are on threads of their own: the next step's hooks
// still refresh at once.
func TestAHookRefreshesAfterCallsBetweenSteps(t *testing.T) {
	noLeaks(t)
	var predictor *grapnel.Predictor
	refreshed := 0
	var runner *grapnel.Runner
	runner = newLine(t, grapnel.HookFunc("refreshes", func(*grapnel.Run) error {
		if predictor == nil {
			return nil
		}
		refreshed++
		again, err := runner.Predictor(grapnel.WeightsTrained, 1)
		if err != nil {
			return err
		}
		return errors.Join(again.Close(), predictor.Refresh())
	}, grapnel.AfterTrainIter))
	within(t, time.Minute, func() {
		for step, err := range runner.Steps(background) {
			check(t, err)
			if step.Iter == 1 {
				predictor = must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 1))
			}
			must[*grapnel.Scalars](t)(runner.Val(background))
			if step.Iter == 5 {
				break
			}
		}
		must[grapnel.Step](t)(runner.Step(background))
	})
	check(t, predictor.Close())
	if refreshed != 5 {
		t.Errorf("refreshed %d times", refreshed)
	}
}

// within ends the test process, with all stacks, if f hangs.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	watch := time.AfterFunc(limit, func() { panic(t.Name() + " hangs") })
	defer watch.Stop()
	f()
}

// A hook may use and close a predictor that others wait in, or want to close.
func TestAPredictorIsClosedWhileARefreshWaits(t *testing.T) {
	for _, closer := range []string{"a hook", "another goroutine"} {
		t.Run(closer, func(t *testing.T) {
			noLeaks(t)
			var predictor *grapnel.Predictor
			waiting := make(chan struct{})
			refreshed := make(chan error)
			runner := newLine(t, grapnel.HookFunc("uses", func(run *grapnel.Run) error {
				if run.Iter() != 3 {
					return nil
				}
				close(waiting)
				time.Sleep(50 * time.Millisecond) // Then the refresh waits for this iteration.
				if closer == "a hook" {
					check(t, predictor.Close())
				}
				predictor.Iter()
				return nil
			}, grapnel.AfterTrainIter))
			predictor = must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 1))
			go func() {
				<-waiting
				refreshed <- predictor.Refresh()
			}()
			go func() {
				<-waiting
				time.Sleep(20 * time.Millisecond)
				if closer != "a hook" {
					predictor.Close()
				}
			}()
			within(t, time.Minute, func() {
				check(t, runner.Train(background))
				if err := <-refreshed; err != nil && !errors.Is(err, grapnel.ErrClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// A context that is done is looked at first, also where a replica is free.
func TestAPredictionOfADoneContext(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	must[grapnel.Step](t)(runner.Step(background))
	predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 1))
	defer predictor.Close()
	predict(t, predictor, 1, 2)
	input := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 2}, 1, 2))
	defer input.Close()
	ctx, cancel := context.WithCancel(background)
	cancel()
	for range 3 {
		_, err := predictor.Predict(ctx, input)
		wantError(t, err, context.Canceled, "stopped")
		time.Sleep(time.Millisecond)
	}
}
