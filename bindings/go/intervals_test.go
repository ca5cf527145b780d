package grapnel_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
)

func TestIntervals(t *testing.T) {
	var at []int64
	note := func(run *grapnel.Run) error {
		at = append(at, run.Iter()+1)
		return nil
	}
	for _, test := range []struct {
		hook grapnel.Hook
		want []int64
	}{
		{grapnel.EveryN("hook", 7, note), []int64{7, 14}},
		{grapnel.EveryN("hook", 20, note), []int64{20}},
		{grapnel.NTimes("hook", 3, note), []int64{7, 14, 20}},
		{grapnel.NTimes("hook", 4, note), []int64{5, 10, 15, 20}},
		{grapnel.NTimes("hook", 1, note), []int64{20}},
		{grapnel.Exponential("hook", 2, 2, note), []int64{2, 4, 8, 16, 20}},
		{grapnel.Exponential("hook", 1, 1.5, note), []int64{1, 2, 3, 4, 6, 8, 12, 18, 20}},
		{grapnel.Exponential("hook", 30, 2, note), []int64{20}},
		{grapnel.Periodic("hook", time.Hour, note), []int64{20}},
	} {
		noLeaks(t)
		at = nil
		config := lineConfig(t)
		runner := newRunner(t, config, lineOptions(test.hook))
		check(t, runner.Train(background))
		if !slices.Equal(at, test.want) {
			t.Errorf("got %v, want %v", at, test.want)
		}

		// A run that is resumed has them where it would have had them.
		at = nil
		config.WorkDir = proto.String(t.TempDir())
		runner = newRunner(t, config, lineOptions(test.hook))
		for step, err := range runner.Steps(background) {
			check(t, err)
			if step.Iter == 11 {
				break
			}
		}
		check(t, runner.Save("iter_11"))
		check(t, runner.Close())
		config.Resume = proto.Bool(true)
		resumed := newRunner(t, config, lineOptions(test.hook))
		check(t, resumed.Train(background))
		if !slices.Equal(at, test.want) {
			t.Errorf("resumed: got %v, want %v", at, test.want)
		}
	}
}

func TestEachOfFewIterations(t *testing.T) {
	noLeaks(t)
	calls := 0
	count := func(*grapnel.Run) error { calls++; return nil }
	check(t, newLine(t, grapnel.NTimes("hook", 100, count)).Train(background))
	if calls != lineIters {
		t.Errorf("got %d", calls)
	}
}

func TestPeriodicallyByTheClock(t *testing.T) {
	noLeaks(t)
	calls := 0
	check(t, newLine(t,
		grapnel.Periodic("hook", 30*time.Millisecond, func(*grapnel.Run) error { calls++; return nil }),
		grapnel.HookFunc("slow", func(run *grapnel.Run) error {
			if run.Iter() == 3 || run.Iter() == 9 {
				time.Sleep(40 * time.Millisecond)
			}
			return nil
		}, grapnel.BeforeTrainIter)).Train(background))
	if calls < 3 || calls == lineIters { // Two pauses, and the last; more on a slow machine.
		t.Errorf("got %d", calls)
	}
}

func TestIntervalsThatCanNotBe(t *testing.T) {
	noLeaks(t)
	nothing := func(*grapnel.Run) error { return nil }
	for _, hook := range []grapnel.Hook{
		grapnel.EveryN("odd", 0, nothing),
		grapnel.NTimes("odd", -1, nothing),
		grapnel.Exponential("odd", 0, 2, nothing),
		grapnel.Exponential("odd", 1, 1, nothing),
		grapnel.Exponential("odd", 1, math.NaN(), nothing),
		grapnel.Exponential("odd", 1, math.Inf(1), nothing),
		grapnel.Periodic("odd", 0, nothing),
	} {
		if hook.Name() != "odd" {
			t.Errorf("got %q", hook.Name())
		}
		_, err := grapnel.New(lineConfig(t), lineOptions(hook))
		wantError(t, err, grapnel.ErrInvalidArgument, `hook "odd": `)
	}
}

func TestAnIntervalsErrorEndsTheRun(t *testing.T) {
	noLeaks(t)
	mine := errors.New("mine")
	fails := func(*grapnel.Run) error { return mine }
	for _, hook := range []grapnel.Hook{
		grapnel.EveryN("a", 2, fails), grapnel.NTimes("a", 2, fails), grapnel.Exponential("a", 2, 2,
			fails),
		grapnel.Periodic("a", time.Nanosecond, fails),
	} {
		wantError(t, newLine(t, hook).Train(background), mine, "mine")
	}
}
