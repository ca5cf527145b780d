package grapnel_test

import (
	"errors"
	"math"
	"os"
	"testing"
	"unsafe"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// What isn't there, as a tensor that Find has not found, is an error to use.
func TestWhatIsNotThereIsAnError(t *testing.T) {
	noLeaks(t)
	ts := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer ts.Close()
	check(t, grapnel.Add(ts, "w", []float32{1}, 1))
	none := ts.Find("inputs")
	runner := newLine(t)
	predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 1))
	defer predictor.Close()
	average := must[*grapnel.Average](t)(grapnel.NewAverage(averaging, ts, nil))
	defer average.Close()
	for name, f := range map[string]func() error{
		"Data":             func() error { _, err := grapnel.Data[float32](none); return err },
		"Values":           func() error { _, err := grapnel.Values[float32](none); return err },
		"SetValues":        func() error { return grapnel.SetValues(none, []float32{1}) },
		"Share":            func() error { _, err := none.Share(); return err },
		"DLPack":           func() error { _, err := none.DLPack(); return err },
		"Tensors.Add":      func() error { return ts.Add("n", none) },
		"Add":              func() error { return grapnel.Add(nil, "n", []float32{1}, 1) },
		"AddNew":           func() error { _, err := grapnel.AddNew[float32](nil, "n", 1); return err },
		"SetTensor":        func() error { return runner.SetTensor("0.weight", none) },
		"Predict":          func() error { _, err := predictor.Predict(background, none); return err },
		"WriteSafetensors": func() error { return grapnel.WriteSafetensors(t.TempDir()+"/n", nil) },
		"NewAverage":       func() error { _, err := grapnel.NewAverage(averaging, nil, nil); return err },
		"LoadState":        func() error { return average.LoadState(nil, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, f(), grapnel.ErrInvalidArgument, "there is none")
		})
	}
	var nobody *grapnel.Tensors
	_, first := nobody.At(0)
	for range nobody.All() {
		t.Error("there is one of none")
	}
	if none.Len() != 0 || none.DType() != 0 || none.Shape() != nil || none.String() != "no tensor" ||
		none.Close() != nil || nobody.Len() != 0 || nobody.Find("w") != nil || first != nil ||
		nobody.Close() != nil {
		t.Error("there is something of none")
	}
}

// averaging has defaults.
var averaging = new(grapnelpb.AveragedModelConfig)

// Closed buffers are not the same as none.
func TestClosedBuffersAreAnError(t *testing.T) {
	noLeaks(t)
	parameters := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer parameters.Close()
	check(t, grapnel.Add(parameters, "w", []float32{1}, 1))
	buffers := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	check(t, buffers.Close())
	_, err := grapnel.NewAverage(averaging, parameters, buffers)
	wantError(t, err, grapnel.ErrClosed, "buffers")
	config := lineConfig(t)
	config.Model = nil
	options := lineOptions()
	options.Model = closedBuffers{newSlope(t), buffers}
	_, err = grapnel.New(config, options)
	wantError(t, err, grapnel.ErrClosed, "Model: Buffers")
}

type closedBuffers struct {
	*slope
	buffers *grapnel.Tensors
}

func (m closedBuffers) Buffers() *grapnel.Tensors { return m.buffers }

// A method that is nearly an optional one is an error, and not passed over.
func TestMethodsThatAreNearlyRightAreErrors(t *testing.T) {
	noLeaks(t)
	for name, test := range map[string]struct {
		set  func(*grapnelpb.RunnerConfig, *grapnel.Options)
		text string
	}{
		"a pointer's stage": {
			func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.Hooks = []grapnel.Hook{halfPointer{}} },
			"AfterTrainIter with a pointer receiver: give a pointer, &halfPointer{...}",
		},
		"a pointer's state": {
			func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.Hooks = []grapnel.Hook{pointerState{}} },
			"SaveState with a pointer receiver",
		},
		"a stage twice": {
			func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.Hooks = []grapnel.Hook{twice{}} },
			"has a method BeforeTrain, and its Stages has that stage too",
		},
		"Buffers": {setModel(wrongBuffers{newSlope(t)}), "Buffers() *Tensors"},
		"TensorsWritten": {
			setModel(wrongWritten{newSlope(t)}), "TensorsWritten() error",
		},
		"ValStep":     {setModel(wrongValStep{bareModel{newSlope(t)}}), "ValStep(batch"},
		"SetTraining": {setModel(wrongTraining{newSlope(t)}), "SetTraining(bool)"},
		"ExportModel": {setModel(wrongExport{newSlope(t)}), "ExportModel(string) error"},
		"GetBatch": {
			func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.TrainData = wrongBatch{line} },
			"TrainData: grapnel_test.wrongBatch has a method GetBatch, and must have GetBatch([]int64",
		},
		"ConcurrentSafe": {
			func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.ValData = wrongSafe{line} },
			"ConcurrentSafe() bool",
		},
		"a stream's state": {
			func(config *grapnelpb.RunnerConfig, o *grapnel.Options) {
				config.TrainCfg = streamConfig(t).TrainCfg
				o.TrainData, o.TrainStream = nil, &halfStream{}
			},
			"TrainStream: *grapnel_test.halfStream has a method SaveState",
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, options := lineConfig(t), lineOptions()
			test.set(config, options)
			_, err := grapnel.New(config, options)
			wantError(t, err, grapnel.ErrInvalidArgument, test.text)
		})
	}
}

func setModel(model grapnel.Model) func(*grapnelpb.RunnerConfig, *grapnel.Options) {
	return func(config *grapnelpb.RunnerConfig, o *grapnel.Options) {
		config.Model, o.Model = nil, model
	}
}

type halfPointer struct{}

func (halfPointer) Name() string                       { return "half" }
func (halfPointer) BeforeTrain(*grapnel.Run) error     { return nil }
func (*halfPointer) AfterTrainIter(*grapnel.Run) error { return nil }

type pointerState struct{}

func (pointerState) Name() string                   { return "half" }
func (pointerState) BeforeTrain(*grapnel.Run) error { return nil }
func (*pointerState) SaveState() ([]byte, error)    { return nil, nil }
func (*pointerState) LoadState([]byte) error        { return nil }

type twice struct{}

func (twice) Name() string                   { return "twice" }
func (twice) BeforeTrain(*grapnel.Run) error { return nil }
func (twice) Stages() []grapnel.Stage        { return []grapnel.Stage{grapnel.BeforeTrain} }
func (twice) OnStage(*grapnel.Run) error     { return nil }

// bareModel has no optional methods.
type bareModel struct{ grapnel.Model }

type (
	wrongBuffers  struct{ grapnel.Model }
	wrongWritten  struct{ grapnel.Model }
	wrongValStep  struct{ grapnel.Model }
	wrongTraining struct{ grapnel.Model }
	wrongExport   struct{ grapnel.Model }
	wrongBatch    struct{ grapnel.Dataset }
	wrongSafe     struct{ grapnel.Dataset }
	halfStream    struct{ endless }
)

func (wrongBuffers) Buffers() (*grapnel.Tensors, error)   { return nil, nil }
func (wrongWritten) TensorsWritten()                      {}
func (wrongValStep) ValStep(_, _ *grapnel.Tensors) error  { return nil }
func (wrongTraining) SetTraining()                        {}
func (wrongExport) ExportModel(string)                    {}
func (wrongBatch) GetBatch([]int, *grapnel.Tensors) error { return nil }
func (wrongSafe) ConcurrentSafe()                         {}
func (*halfStream) SaveState() ([]byte, error)            { return nil, nil }

// What panics when a runner is made is an error, and leaves nothing behind.
func TestAPanicOfAnOptionIsAnError(t *testing.T) {
	for name, set := range map[string]func(*grapnelpb.RunnerConfig, *grapnel.Options){
		"Name": func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) {
			o.Hooks = []grapnel.Hook{panickyOption{Dataset: line}}
		},
		"Len": func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) { o.TrainData = panickyOption{} },
		"ConcurrentSafe": func(_ *grapnelpb.RunnerConfig, o *grapnel.Options) {
			o.TrainData = panickySafe{line}
		},
		"Parameters": setModel(panickyParameters{bareModel{newSlope(t)}}),
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			config, options := lineConfig(t), lineOptions()
			options.Records = func(grapnel.Mode, int64, *grapnel.Scalars) error { return nil }
			set(config, options)
			_, err := grapnel.New(config, options)
			wantError(t, err, grapnel.ErrInternal, "panic: the option")
			var panicked *grapnel.PanicError
			if !errors.As(err, &panicked) {
				t.Errorf("got %v", err)
			}
		})
	}
}

type panickyOption struct{ grapnel.Dataset }

func (panickyOption) Name() string                   { panic("the option") }
func (panickyOption) BeforeTrain(*grapnel.Run) error { return nil }
func (panickyOption) Len() int                       { panic("the option") }

type panickySafe struct{ grapnel.Dataset }

func (panickySafe) ConcurrentSafe() bool { panic("the option") }

type panickyParameters struct{ grapnel.Model }

func (panickyParameters) Parameters() *grapnel.Tensors { panic("the option") }

func TestHooksThatCanNotBe(t *testing.T) {
	noLeaks(t)
	for _, test := range []struct {
		hook grapnel.Hook
		text string
	}{
		{nil, "hook: is nil"},
		{grapnel.WithPriority(nil, 1), "hook: is nil"},
		{grapnel.EveryN("e", 1, nil), `hook "e": needs a function`},
		{grapnel.NTimes("e", 1, nil), `hook "e": needs a function`},
		{grapnel.Exponential("e", 1, 2, nil), `hook "e": needs a function`},
		{grapnel.Periodic("e", 1, nil), `hook "e": needs a function`},
		{grapnel.HookFunc("e", nil, grapnel.BeforeTrain), `hook "e": needs a function`},
		{grapnel.WithPriority(grapnel.NativeHook("c", unsafe.Pointer(nil), nil), 1),
			`hook "c": is of C: its priority is that of its callbacks`},
	} {
		_, err := grapnel.New(lineConfig(t), lineOptions(test.hook))
		wantError(t, err, grapnel.ErrInvalidArgument, test.text)
	}
}

func TestAClosedTerminalIsAnError(t *testing.T) {
	noLeaks(t)
	file := must[*os.File](t)(os.Create(t.TempDir() + "/terminal"))
	check(t, file.Close())
	options := lineOptions()
	options.Terminal = file
	_, err := grapnel.New(lineConfig(t), options)
	wantError(t, err, grapnel.ErrClosed, "Terminal")
}

func TestAClosedSchedulerHasNoValues(t *testing.T) {
	noLeaks(t)
	scheduler := must[*grapnel.Scheduler](t)(grapnel.NewScheduler(linear(5), []float64{1}, -1, -1))
	if !math.IsNaN(scheduler.Value(1)) || !math.IsNaN(scheduler.Value(-1)) || scheduler.Value(0) != 1 {
		t.Errorf("got %v, %v", scheduler.Value(1), scheduler.Value(0))
	}
	check(t, scheduler.Close())
	if !math.IsNaN(scheduler.Value(0)) || len(scheduler.Values()) != 0 {
		t.Errorf("got %v", scheduler.Value(0))
	}
}

// Scalars of one's own are for tests of models and metrics.
func TestScalarsOfOnesOwn(t *testing.T) {
	noLeaks(t)
	scalars := grapnel.NewScalars()
	check(t, scalars.Add("loss", 2))
	check(t, scalars.Add("more", 3))
	wantError(t, scalars.Add("loss", 4), grapnel.ErrAlreadyExists, "loss")
	loss, ok := scalars.Find("loss")
	name, value := scalars.At(1)
	none, zero := scalars.At(2)
	if !ok || loss != 2 || name != "more" || value != 3 || scalars.Len() != 2 || none != "" ||
		zero != 0 {
		t.Errorf("got %v, %v, %q, %v", loss, ok, name, value)
	}
}
