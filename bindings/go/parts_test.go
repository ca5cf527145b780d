package grapnel_test

import (
	"math"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

func linear(end int64) *grapnelpb.ParamSchedulerConfig {
	return &grapnelpb.ParamSchedulerConfig{Kind: &grapnelpb.ParamSchedulerConfig_Linear{
		Linear: &grapnelpb.LinearSchedulerConfig{StartFactor: proto.Float64(0.5), End: proto.Int64(end)},
	}}
}

func close64(got, want []float64) bool {
	return slices.EqualFunc(got, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-12 })
}

func TestASchedulerMovesNumbers(t *testing.T) {
	noLeaks(t)
	start := []float64{1, 2}
	scheduler := must[*grapnel.Scheduler](t)(grapnel.NewScheduler(linear(5), start, -1, -1))
	defer scheduler.Close()
	if got := scheduler.Values(); !close64(got, start) {
		t.Errorf("got %v: it is moved before Apply", got)
	}
	check(t, scheduler.Apply())
	for _, want := range []float64{0.5, 0.625, 0.75, 0.875, 1, 1} {
		if got := scheduler.Values(); !close64(got, []float64{want, 2 * want}) {
			t.Errorf("got %v, want %v", got, want)
		}
		check(t, scheduler.Step())
	}
	if start[0] != 1 {
		t.Error("the caller's own were moved")
	}
}

func TestASchedulerIsResumed(t *testing.T) {
	noLeaks(t)
	one := must[*grapnel.Scheduler](t)(grapnel.NewScheduler(linear(5), []float64{1}, -1, -1))
	defer one.Close()
	check(t, one.Apply())
	check(t, one.Step())
	state := must[[]byte](t)(one.SaveState())
	other := must[*grapnel.Scheduler](t)(grapnel.NewScheduler(linear(5), []float64{1}, -1, -1))
	defer other.Close()
	check(t, other.SetValues(one.Values()))
	check(t, other.LoadState(state))
	check(t, one.Step())
	check(t, other.Step())
	if one.Value(0) != other.Value(0) || one.Value(0) != 0.75 {
		t.Errorf("got %v and %v", one.Value(0), other.Value(0))
	}
	wantError(t, other.SetValues([]float64{1, 2}), grapnel.ErrInvalidArgument,
		"values: there are 1, not 2")
	if err := other.LoadState([]byte("no state")); err == nil {
		t.Error("it loaded something")
	}
}

func TestASchedulerFollowsAMetric(t *testing.T) {
	noLeaks(t)
	plateau := &grapnelpb.ParamSchedulerConfig{Kind: &grapnelpb.ParamSchedulerConfig_ReduceOnPlateau{
		ReduceOnPlateau: &grapnelpb.ReduceOnPlateauSchedulerConfig{Patience: proto.Int64(0)},
	}}
	scheduler := must[*grapnel.Scheduler](t)(grapnel.NewScheduler(plateau, []float64{1}, -1, -1))
	defer scheduler.Close()
	check(t, scheduler.Apply())
	for range 2 {
		check(t, scheduler.Step())
		check(t, scheduler.StepMetric(7))
	}
	if got := scheduler.Value(0); math.Abs(got-0.1) > 1e-12 {
		t.Errorf("got %v, want 0.1", got)
	}
}

func TestSchedulersThatCanNotBe(t *testing.T) {
	noLeaks(t)
	_, err := grapnel.NewScheduler(nil, []float64{1}, -1, -1)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
	_, err = grapnel.NewScheduler(linear(-1), nil, -1, -1)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
	scheduler := must[*grapnel.Scheduler](t)(grapnel.NewScheduler(linear(5), []float64{1}, -1, -1))
	check(t, scheduler.Close())
	check(t, scheduler.Close())
	_, saved := scheduler.SaveState()
	for _, err := range []error{
		scheduler.Apply(), scheduler.Step(), scheduler.StepMetric(1), scheduler.LoadState(nil),
		scheduler.SetValues(nil), saved,
	} {
		wantError(t, err, grapnel.ErrClosed, "scheduler")
	}
	if got := scheduler.Values(); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestAnAverageOfTensors(t *testing.T) {
	noLeaks(t)
	parameters := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer parameters.Close()
	w := must[[]float32](t)(grapnel.AddNew[float32](parameters, "w", 1))
	w[0] = 2
	config := &grapnelpb.AveragedModelConfig{Strategy: &grapnelpb.AveragingStrategyConfig{
		Kind: &grapnelpb.AveragingStrategyConfig_ExponentialMovingAverage{
			ExponentialMovingAverage: &grapnelpb.ExponentialMovingAverageConfig{
				Momentum: proto.Float64(0.5),
			},
		},
	}}
	average := must[*grapnel.Average](t)(grapnel.NewAverage(config, parameters, nil))
	defer average.Close()
	check(t, average.Update()) // The first one is a copy.
	w[0] = 4
	check(t, average.Update())
	if average.Steps() != 2 {
		t.Errorf("got %d", average.Steps())
	}
	check(t, average.SwapIn())
	if w[0] != 3 {
		t.Errorf("got %v, want 3", w[0])
	}
	check(t, average.SwapOut())
	if w[0] != 4 {
		t.Errorf("got %v, want 4", w[0])
	}
	state := must[*grapnel.Tensors](t)(average.State())
	defer state.Close()
	if got := must[[]float32](t)(grapnel.Values[float32](state.Find("w"))); got[0] != 3 {
		t.Errorf("got %v", got)
	}

	buffers := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer buffers.Close()
	other := must[*grapnel.Average](t)(grapnel.NewAverage(config, parameters, buffers))
	check(t, other.LoadState(state, 2))
	check(t, other.SwapIn())
	if other.Steps() != 2 || w[0] != 3 {
		t.Errorf("got %d, %v", other.Steps(), w[0])
	}
	check(t, other.Close()) // Swaps out first.
	check(t, other.Close())
	if w[0] != 4 {
		t.Errorf("got %v, want 4", w[0])
	}
	_, err := other.State()
	for _, err := range []error{
		other.Update(), other.SwapIn(), other.SwapOut(), other.LoadState(state, 1), err,
	} {
		wantError(t, err, grapnel.ErrClosed, "average")
	}
	check(t, state.Close())
	wantError(t, average.LoadState(state, 1), grapnel.ErrClosed, "state")
	_, err = grapnel.NewAverage(config, state, nil)
	wantError(t, err, grapnel.ErrClosed, "parameters")
	bad := &grapnelpb.AveragedModelConfig{Interval: proto.Int64(0)}
	_, err = grapnel.NewAverage(bad, parameters, nil)
	wantError(t, err, grapnel.ErrInvalidArgument, "interval")
}
