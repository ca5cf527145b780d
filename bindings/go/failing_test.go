package grapnel_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// hostile is an error that can't say what it is.
type hostile struct{ text string }

func (e *hostile) Error() string { return e.text } // Panics where e is nil.

// itself is a panic that panics again when it is printed.
type itself struct{}

func (itself) Error() string { panic(itself{}) }

// fallible has callbacks that return an error.
type fallible struct{ err error }

func (f fallible) Name() string                        { return "fallible" }
func (f fallible) AfterTrainIter(*grapnel.Run) error   { return f.err }
func (f fallible) SaveState() ([]byte, error)          { return nil, f.err }
func (f fallible) LoadState([]byte) error              { return f.err }
func (f fallible) Len() int                            { return 40 }
func (f fallible) Get(int, *grapnel.Tensors) error     { return f.err }
func (f fallible) BeginPass(int64) error               { return f.err }
func (f fallible) Next(*grapnel.Tensors) error         { return f.err }
func (f fallible) Reset()                              {}
func (f fallible) Process(_, _ *grapnel.Tensors) error { return f.err }
func (f fallible) Compute(*grapnel.Scalars) error      { return f.err }
func (f fallible) TrainStep(_, _ *grapnel.Tensors, _ *grapnel.Scalars) error {
	return f.err
}
func (f fallible) Parameters() *grapnel.Tensors {
	ts, _ := grapnel.NewTensors()
	_ = grapnel.Add(ts, "w", []float32{0, 0}, 2)
	return ts
}

type fallibleState struct{ fallible }

func (fallibleState) AfterTrainIter(*grapnel.Run) error { return nil }

// roles are the kinds of callbacks that return errors.
var roles = map[string]func(f fallible, config *grapnelpb.RunnerConfig, o *grapnel.Options){
	"hook": func(f fallible, _ *grapnelpb.RunnerConfig, o *grapnel.Options) {
		o.Hooks = []grapnel.Hook{f}
	},
	"state": func(f fallible, _ *grapnelpb.RunnerConfig, o *grapnel.Options) {
		o.Hooks = []grapnel.Hook{fallibleState{f}}
	},
	"dataset": func(f fallible, _ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.TrainData = f },
	"stream": func(f fallible, config *grapnelpb.RunnerConfig, o *grapnel.Options) {
		config.TrainCfg = &grapnelpb.TrainConfig{ByEpoch: proto.Bool(false), MaxIters: proto.Int64(13)}
		o.TrainData, o.TrainStream = nil, f
	},
	"metric": func(f fallible, _ *grapnelpb.RunnerConfig, o *grapnel.Options) {
		o.ValMetrics = []grapnel.Metric{f}
	},
	"model": func(f fallible, config *grapnelpb.RunnerConfig, o *grapnel.Options) {
		config.Model, o.Model = nil, f
		config.ValDataloader, config.ValEvaluator, o.ValData = nil, nil, nil
	},
	"loss": func(f fallible, config *grapnelpb.RunnerConfig, o *grapnel.Options) {
		config.Model.GetSequential().Loss = nil
		o.Loss = grapnel.LossFunc(func(*grapnel.Tensor, *grapnel.Tensors, *grapnel.Tensor) (float64,
			error) {
			return 0, f.err
		})
	},
}

func trainFailing(t *testing.T, role string, failure error) error {
	config, options := lineConfig(t), lineOptions()
	roles[role](fallible{failure}, config, options)
	runner, err := grapnel.New(config, options)
	if err != nil {
		return err // It gets a sample, for the shapes.
	}
	defer runner.Close()
	return runner.Train(background)
}

// Whatever a callback returns, an error it stays.
func TestOddErrorsOfAnyCallbackAreErrors(t *testing.T) {
	for role := range roles {
		for _, test := range []struct {
			name string
			err  error
			code grapnel.Code
			text string
		}{
			{"a nil pointer", (*hostile)(nil), grapnel.ErrInternal, "panic: runtime error"},
			{"no Error", (*grapnel.Error)(nil), grapnel.ErrUnknown, "a nil *Error"},
			{"no Error, wrapped", fmt.Errorf("wrapped: %w", (*grapnel.Error)(nil)), grapnel.ErrUnknown,
				"wrapped: "},
			{"no code", &grapnel.Error{Message: "the disk is full"}, grapnel.ErrUnknown,
				"the disk is full"},
			{"Errorf of no code", grapnel.Errorf(0, "the disk is full"), grapnel.ErrUnknown,
				"the disk is full"},
			{"a code of none", grapnel.Code(0), grapnel.ErrUnknown, "ok"},
			{"a panic in Error", itself{}, grapnel.ErrInternal, "that can't be printed"},
		} {
			t.Run(role+"/"+test.name, func(t *testing.T) {
				if role != "model" { // Whose parameters nobody closes.
					noLeaks(t)
				}
				wantError(t, trainFailing(t, role, test.err), test.code, test.text)
			})
		}
	}
}

// Of workers that all fail, whichever is told of is found again.
func TestErrorsOfManyWorkersAreFoundAgain(t *testing.T) {
	noLeaks(t)
	mine := errors.New("mine")
	var fail atomic.Bool
	config := lineConfig(t)
	config.TrainDataloader.NumWorkers = proto.Int32(8)
	options := lineOptions()
	options.TrainData = manyAtOnce{grapnel.DatasetFunc(400, func(i int, s *grapnel.Tensors) error {
		if fail.Load() {
			return fmt.Errorf("sample %d: %w", i, mine)
		}
		return line.Get(i%40, s)
	})}
	runner := newRunner(t, config, options)
	fail.Store(true)
	wantError(t, runner.Train(background), mine, "sample")
}

type manyAtOnce struct{ grapnel.Dataset }

func (manyAtOnce) ConcurrentSafe() bool { return true }

// What OnError returns is logged, and the cause of nothing; nor is what an
// earlier call has returned.
func TestAnErrorIsTheCauseOfItsOwnCallOnly(t *testing.T) {
	noLeaks(t)
	first, second := errors.New("first"), errors.New("second")
	fail := first
	runner := newLine(t,
		grapnel.HookFunc("fails", func(*grapnel.Run) error { return fail }, grapnel.AfterTrainIter),
		grapnel.HookFunc("talks", func(run *grapnel.Run) error {
			if !errors.Is(run.Err(), fail) {
				t.Errorf("got %v", run.Err())
			}
			return errors.New("st")
		}, grapnel.OnError))
	wantError(t, runner.Train(background), first, "first")
	fail = second
	err := runner.Train(background)
	wantError(t, err, second, "second")
	if errors.Is(err, first) {
		t.Errorf("%v is of the call before", err)
	}
	fail = errors.New("anything: second")
	if err := runner.Train(background); errors.Is(err, second) || !errors.Is(err, fail) {
		t.Errorf("%v is of the call before", err)
	}
}

// An io.EOF that is wrapped is no end, but what went wrong.
func TestAWrappedEOFIsAnError(t *testing.T) {
	noLeaks(t)
	stream := &endless{fail: fmt.Errorf("record 16 is cut off: %w", io.EOF)}
	_, err := grapnel.New(streamConfig(t), streamOptions(stream))
	wantError(t, err, io.EOF, "record 16 is cut off")
}

// The runner that a callback of data or of a log may hold up is not for that
// callback.
func TestCallbacksOnThreadsOfTheLibraryMayNotCallTheRunner(t *testing.T) {
	for _, where := range []string{"Get", "Next", "record", "log"} {
		t.Run(where, func(t *testing.T) {
			noLeaks(t)
			var runner atomic.Pointer[grapnel.Runner]
			asked := make(chan error, 1)
			var once sync.Once
			ask := func() {
				it := runner.Load()
				if it == nil {
					return
				}
				once.Do(func() {
					time.Sleep(20 * time.Millisecond) // Then the step is over, mostly.
					_, err := it.Val(background)
					if errors.Is(err, grapnel.ErrBusy) {
						err = it.Close()
					}
					asked <- err
				})
			}
			config, options := lineConfig(t), lineOptions()
			config.TrainDataloader.NumWorkers = proto.Int32(1)
			switch where {
			case "Get":
				options.TrainData = grapnel.DatasetFunc(40, func(i int, s *grapnel.Tensors) error {
					ask()
					return line.Get(i, s)
				})
			case "Next":
				config.TrainCfg = streamConfig(t).TrainCfg
				options.TrainData, options.TrainStream = nil, &asking{ask: ask}
			case "record":
				options.Overrides = []string{"default_hooks.logger.interval=1"}
				options.Records = func(grapnel.Mode, int64, *grapnel.Scalars) error {
					ask()
					return nil
				}
			case "log":
				options.Overrides = []string{"default_hooks.logger.interval=1"}
				options.Logger = loggerOf(func(string) { ask() })
			}
			it := newRunner(t, config, options)
			runner.Store(it)
			for step, err := range it.Steps(background) {
				check(t, err)
				if step.Iter == 2 {
					wantError(t, <-asked, grapnel.ErrBusy, "")
				}
			}
		})
	}
}

type asking struct {
	endless
	ask func()
}

func (a *asking) Next(sample *grapnel.Tensors) error {
	a.ask()
	return a.endless.Next(sample)
}

// One dataset in two loops has one call at a time too.
func TestOneDatasetInTwoLoopsTakesTurns(t *testing.T) {
	noLeaks(t)
	data := new(counting)
	config := lineConfig(t)
	config.TrainDataloader.NumWorkers = proto.Int32(1)
	config.ValDataloader.NumWorkers = proto.Int32(1)
	options := lineOptions()
	options.TrainData, options.ValData = data, data
	runner := newRunner(t, config, options)
	for step, err := range runner.Steps(background) {
		check(t, err)
		if step.Iter%10 == 1 {
			must[*grapnel.Scalars](t)(runner.Val(background))
		}
	}
	if most := data.most.Load(); most != 1 {
		t.Errorf("%d calls came at once", most)
	}
}

type counting struct{ now, most atomic.Int32 }

func (c *counting) Len() int { return 40 }

func (c *counting) Get(index int, sample *grapnel.Tensors) error {
	if now := c.now.Add(1); now > c.most.Load() {
		c.most.Store(now)
	}
	defer c.now.Add(-1)
	time.Sleep(time.Millisecond)
	return line.Get(index, sample)
}

// Tensors that only the call has live as long as it.
func TestParametersThatNobodyKeepsAreThereForTheCall(t *testing.T) {
	stop := make(chan struct{})
	var collecting sync.WaitGroup
	collecting.Add(1)
	go func() {
		defer collecting.Done()
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	defer collecting.Wait()
	defer close(stop)
	const n = 20000
	for range 4 {
		config, options := lineConfig(t), lineOptions()
		setModel(fleeting(n))(config, options)
		config.ValDataloader, config.ValEvaluator, options.ValData = nil, nil, nil
		config.TestDataloader, config.TestEvaluator, options.TestData = nil, nil, nil
		runner := newRunner(t, config, options)
		names := must[[]string](t)(runner.TensorNames())
		if len(names) != n || names[n-1] != fmt.Sprint("w", n-1) {
			t.Fatalf("got %d names", len(names))
		}
		check(t, runner.Close())
	}
}

// fleeting is a model of that many parameters, of which it keeps none.
type fleeting int

func (n fleeting) Parameters() *grapnel.Tensors {
	ts, _ := grapnel.NewTensors()
	for i := range int(n) {
		_ = grapnel.Add(ts, fmt.Sprint("w", i), []float32{1}, 1)
	}
	return ts
}

func (fleeting) TrainStep(_, _ *grapnel.Tensors, losses *grapnel.Scalars) error {
	return losses.Add("loss", 0)
}

func TestErrorfWrapsSeveral(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	err := grapnel.Errorf(grapnel.ErrUnavailable, "%w and %w", a, b)
	if !errors.Is(err, a) || !errors.Is(err, b) || !strings.Contains(err.Error(), "a and b") {
		t.Errorf("got %v", err)
	}
}

// lineWriter has a function for each line of a log.
type lineWriter func(string)

func (f lineWriter) Write(text []byte) (int, error) {
	f(string(text))
	return len(text), nil
}

func loggerOf(f func(string)) *slog.Logger {
	return slog.New(slog.NewTextHandler(lineWriter(f), nil))
}
