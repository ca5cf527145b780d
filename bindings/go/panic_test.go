package grapnel_test

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// panicky panics in the callback of that name.
type panicky struct {
	where string
	value any
}

func (p *panicky) in(where string) {
	if p.where == where {
		panic(p.value)
	}
}

type panickyHook struct{ *panicky }

func (h panickyHook) Name() string                      { return "panicky" }
func (h panickyHook) AfterTrainIter(*grapnel.Run) error { h.in("AfterTrainIter"); return nil }
func (h panickyHook) SaveState() ([]byte, error) {
	h.in("Hook.SaveState")
	return []byte{1}, nil
}
func (h panickyHook) LoadState([]byte) error { h.in("Hook.LoadState"); return nil }

type panickyData struct{ *panicky }

func (d panickyData) Len() int { return 40 }
func (d panickyData) Get(index int, sample *grapnel.Tensors) error {
	d.in("Get")
	return line.Get(index, sample)
}

type panickyBatches struct{ *panicky }

func (d panickyBatches) Len() int { return 40 }
func (d panickyBatches) Get(index int, sample *grapnel.Tensors) error {
	d.in("GetBatch")
	return line.Get(index, sample)
}
func (d panickyBatches) GetBatch([]int64, *grapnel.Tensors) error {
	d.in("GetBatch")
	return errors.New("one by one")
}

type panickyStream struct {
	*panicky
	seekable
}

func (s *panickyStream) BeginPass(pass int64) error {
	s.in("BeginPass")
	return s.seekable.BeginPass(pass)
}
func (s *panickyStream) Next(sample *grapnel.Tensors) error {
	s.in("Next")
	return s.seekable.Next(sample)
}
func (s *panickyStream) SaveState() ([]byte, error) {
	s.in("Stream.SaveState")
	return s.seekable.SaveState()
}
func (s *panickyStream) LoadState(state []byte) error {
	s.in("Stream.LoadState")
	return s.seekable.LoadState(state)
}

type panickyModel struct {
	*panicky
	*slope
}

func (m *panickyModel) TrainStep(b, g *grapnel.Tensors, l *grapnel.Scalars) error {
	m.in("TrainStep")
	return m.slope.TrainStep(b, g, l)
}
func (m *panickyModel) ValStep(b, p *grapnel.Tensors, l *grapnel.Scalars) error {
	m.in("ValStep")
	return m.slope.ValStep(b, p, l)
}
func (m *panickyModel) TensorsWritten() error { m.in("TensorsWritten"); return nil }
func (m *panickyModel) SetTraining(bool)      { m.in("SetTraining") }
func (m *panickyModel) ExportModel(string) error {
	m.in("ExportModel")
	return nil
}

type panickyMetric struct{ *panicky }

func (m panickyMetric) Reset()                              { m.in("Reset") }
func (m panickyMetric) Process(_, _ *grapnel.Tensors) error { m.in("Process"); return nil }
func (m panickyMetric) Compute(metrics *grapnel.Scalars) error {
	m.in("Compute")
	return metrics.Add("m", 1)
}

func TestAPanicInAnyCallbackIsAnError(t *testing.T) {
	cause := errors.New("the cause")
	for _, test := range []struct {
		where string
		set   func(t *testing.T, p *panicky, config *grapnelpb.RunnerConfig, options *grapnel.Options)
		call  func(*grapnel.Runner) error
	}{
		{where: "AfterTrainIter"},
		{where: "Hook.SaveState"},
		{where: "Hook.LoadState"},
		{where: "Get"},
		{where: "GetBatch", set: func(_ *testing.T, p *panicky, _ *grapnelpb.RunnerConfig,
			o *grapnel.Options) {
			o.TrainData = panickyBatches{p}
		}},
		{where: "BeginPass", set: setPanickyStream},
		{where: "Next", set: setPanickyStream},
		{where: "Stream.SaveState", set: setPanickyStream},
		{where: "Stream.LoadState", set: setPanickyStream},
		{where: "TrainStep", set: setPanickyModel},
		{where: "ValStep", set: setPanickyModel},
		{where: "TensorsWritten", set: setPanickyModel},
		{where: "SetTraining", set: setPanickyModel},
		{where: "ExportModel", set: setPanickyModel, call: func(r *grapnel.Runner) error {
			return r.Export("model")
		}},
		{where: "Loss", set: func(_ *testing.T, p *panicky, config *grapnelpb.RunnerConfig,
			o *grapnel.Options) {
			config.Model.GetSequential().Loss = nil
			o.Loss = grapnel.LossFunc(func(*grapnel.Tensor, *grapnel.Tensors, *grapnel.Tensor) (float64,
				error) {
				p.in("Loss")
				return 0, nil
			})
		}},
		{where: "Reset"},
		{where: "Process"},
		{where: "Compute"},
	} {
		t.Run(test.where, func(t *testing.T) {
			noLeaks(t)
			p := &panicky{value: cause}
			config := lineConfig(t)
			options := lineOptions(panickyHook{p})
			options.TrainData = panickyData{p}
			options.ValMetrics = []grapnel.Metric{panickyMetric{p}}
			if test.set != nil {
				test.set(t, p, config, options)
			}
			if strings.HasSuffix(test.where, "LoadState") { // Which needs something to load.
				saved := newRunner(t, config, options)
				must[grapnel.Step](t)(saved.Step(background))
				check(t, saved.Save("iter_1"))
				check(t, saved.Close())
				config.Resume = proto.Bool(true)
			}
			err := callPanicking(t, p, test.where, config, options, test.call)
			wantError(t, err, cause, "panic: the cause")
			var panicked *grapnel.PanicError
			if !errors.As(err, &panicked) || panicked.Value != cause {
				t.Fatalf("got %v", panicked)
			}
			if !strings.Contains(string(panicked.Stack), "panic_test.go") {
				t.Errorf("the stack isn't of here: %s", panicked.Stack)
			}
			wantError(t, err, grapnel.ErrInternal, "")
		})
	}
}

// callPanicking makes a runner, which calls may be part of, and lets it train, or
// do what call does.
func callPanicking(t *testing.T, p *panicky, where string, config *grapnelpb.RunnerConfig,
	options *grapnel.Options, call func(*grapnel.Runner) error) error {
	if strings.HasSuffix(where, "LoadState") {
		p.where = where
	}
	runner, err := grapnel.New(config, options)
	if err != nil {
		return err
	}
	defer runner.Close()
	p.where = where
	if call != nil {
		return call(runner)
	}
	return runner.Train(background)
}

func setPanickyStream(_ *testing.T, p *panicky, config *grapnelpb.RunnerConfig,
	o *grapnel.Options) {
	config.TrainCfg = &grapnelpb.TrainConfig{ByEpoch: proto.Bool(false), MaxIters: proto.Int64(13)}
	o.TrainData, o.TrainStream = nil, &panickyStream{panicky: p}
}

func setPanickyModel(t *testing.T, p *panicky, config *grapnelpb.RunnerConfig, o *grapnel.Options) {
	config.Model = nil
	o.Model = &panickyModel{p, newSlope(t)}
}

func TestAPanicOfNoErrorHasNoCause(t *testing.T) {
	noLeaks(t)
	err := newLine(t, grapnel.HookFunc("panics", func(*grapnel.Run) error { panic(17) },
		grapnel.BeforeTrain)).Train(background)
	var panicked *grapnel.PanicError
	if !errors.As(err, &panicked) || panicked.Value != 17 || panicked.Unwrap() != nil ||
		panicked.Error() != "panic: 17" {
		t.Errorf("got %v", err)
	}
}

// failing is a handler that panics.
type failing struct{ slog.Handler }

func (failing) Write([]byte) (int, error) { panic("the handler") }

func TestAPanicOfALogHandlerGoesToStderr(t *testing.T) {
	noLeaks(t)
	stderr := os.Stderr
	read, write, err := os.Pipe()
	check(t, err)
	defer read.Close()
	os.Stderr = write
	defer func() { os.Stderr = stderr }()
	options := lineOptions(grapnel.HookFunc("talks", func(run *grapnel.Run) error {
		return run.Log(slog.LevelWarn, "what is said")
	}, grapnel.BeforeTrain))
	options.Logger = slog.New(slog.NewTextHandler(failing{},
		&slog.HandlerOptions{Level: slog.LevelWarn}))
	check(t, newRunner(t, lineConfig(t), options).Train(background))
	check(t, write.Close())
	text := make([]byte, 4096)
	n, _ := read.Read(text)
	if got := string(text[:n]); !strings.Contains(got,
		"panic: the handler, in a log handler, at: what is said") {
		t.Errorf("got %q", got)
	}
}

// runtime.Goexit can't be stopped, and C can't be left by it: the process ends,
// and says why.
func TestAGoroutineThatExitsInACallbackEndsTheProcess(t *testing.T) {
	if os.Getenv("GRAPNEL_TEST_GOEXIT") != "" {
		_ = newLine(t, grapnel.HookFunc("exits", func(*grapnel.Run) error {
			runtime.Goexit()
			return nil
		}, grapnel.BeforeTrain)).Train(background)
		os.Exit(0)
	}
	command := exec.Command(os.Args[0], "-test.run=^TestAGoroutineThatExitsInACallbackEndsTheProcess$")
	command.Env = append(os.Environ(), "GRAPNEL_TEST_GOEXIT=1")
	output, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(output),
		`hook "exits", BeforeTrain, called runtime.Goexit, as testing.T.FailNow and Fatal do`) {
		t.Errorf("got %v, %s", err, output)
	}
}
