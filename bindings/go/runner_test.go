package grapnel_test

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

func TestTheLibraryTellsWhatItIs(t *testing.T) {
	if got := grapnel.Version(); !regexp.MustCompile(`^\d+\.\d+$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
	if got := grapnel.BuildInfo(); !strings.Contains(got, "libtorch") {
		t.Errorf("got %q", got)
	}
	names := must[[]string](t)(grapnel.RegisteredConfigs())
	if !slices.Contains(names, "grapnel.hooks.v1.EMAHookConfig") || !slices.IsSorted(names) {
		t.Errorf("got %v", names)
	}
}

// A config in Go, in text, in JSON and in a file is the same run.
func TestAConfigComesInEachForm(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	text := must[[]byte](t)(prototext.Marshal(config))
	path := filepath.Join(t.TempDir(), "line.textproto")
	check(t, os.WriteFile(path, text, 0o666))
	var want []float32
	for name, make := range map[string]func(*grapnel.Options) (*grapnel.Runner, error){
		"New": func(o *grapnel.Options) (*grapnel.Runner, error) {
			return grapnel.New(config, o)
		},
		"NewFromText": func(o *grapnel.Options) (*grapnel.Runner, error) {
			return grapnel.NewFromText(string(text), o)
		},
		"NewFromJSON": func(o *grapnel.Options) (*grapnel.Runner, error) {
			return grapnel.NewFromJSON(string(must[[]byte](t)(protojson.Marshal(config))), o)
		},
		"Open": func(o *grapnel.Options) (*grapnel.Runner, error) { return grapnel.Open(path, o) },
	} {
		options := lineOptions()
		options.Overrides = []string{"train_cfg.max_epochs=1"}
		runner := must[*grapnel.Runner](t)(make(options))
		got := must[*grapnelpb.RunnerConfig](t)(runner.Config())
		if got.GetTrainCfg().GetMaxEpochs() != 1 ||
			got.GetWorkDir() != config.GetWorkDir() {
			t.Errorf("%s: got %v", name, got)
		}
		check(t, runner.Train(background))
		weights := tensorOf(t, runner, "0.weight")
		check(t, runner.Close())
		if want == nil {
			want = weights
		}
		if !slices.Equal(weights, want) {
			t.Errorf("%s: got %v, want %v", name, weights, want)
		}
	}
}

func TestConfigsThatCanNotBe(t *testing.T) {
	noLeaks(t)
	_, err := grapnel.NewFromText("modle {}", nil)
	wantError(t, err, grapnel.ErrInvalidArgument, "model")
	_, err = grapnel.NewFromJSON("{", nil)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
	_, err = grapnel.New(nil, nil)
	wantError(t, err, grapnel.ErrInvalidArgument, "sets nothing")
	_, err = grapnel.New(&grapnelpb.RunnerConfig{WorkDir: proto.String("\xff")}, nil)
	wantError(t, err, grapnel.ErrInvalidArgument, "config")
	_, err = grapnel.Open(t.TempDir()+"/none.textproto", nil)
	wantError(t, err, grapnel.ErrNotFound, "none.textproto")
	options := lineOptions()
	options.Overrides = []string{"no_such=1"}
	_, err = grapnel.New(lineConfig(t), options)
	wantError(t, err, grapnel.ErrInvalidArgument, "no_such")
	options = lineOptions()
	options.WaitForLock = -time.Second
	_, err = grapnel.New(lineConfig(t), options)
	wantError(t, err, grapnel.ErrInvalidArgument, "WaitForLock")
}

func TestBaseDirIsWhereRelativePathsStart(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	config.WorkDir = proto.String("here")
	options := lineOptions()
	options.BaseDir = t.TempDir()
	runner := newRunner(t, config, options)
	if got := must[string](t)(runner.WorkDir()); got != options.BaseDir+"/here" {
		t.Errorf("got %q", got)
	}
}

// With others: //tests/bindings:ranks_test.
func TestAProcessAloneIsRankZeroOfOne(t *testing.T) {
	noLeaks(t)
	for _, launcher := range []string{"none", "auto"} {
		type place struct {
			rank, size int
			isMaster   bool
		}
		var seen place
		options := lineOptions(grapnel.HookFunc("looks", func(run *grapnel.Run) error {
			seen = place{run.Rank(), run.WorldSize(), run.IsMaster()}
			return nil
		}, grapnel.AfterTrain))
		options.Overrides = []string{"launcher=" + launcher}
		runner := newRunner(t, lineConfig(t), options)
		check(t, runner.Train(background))
		if want := (place{0, 1, true}); seen != want {
			t.Errorf("%s: a hook sees %v, want %v", launcher, seen, want)
		}
		if must[int](t)(runner.Rank()) != 0 || must[int](t)(runner.LocalRank()) != 0 ||
			must[int](t)(runner.WorldSize()) != 1 || !must[bool](t)(runner.IsMaster()) {
			t.Errorf("%s: the runner says another place", launcher)
		}
		check(t, runner.Close())
		_, err := runner.Rank()
		wantError(t, err, grapnel.ErrClosed, "runner")
	}
	options := lineOptions()
	options.Overrides = []string{"launcher=torchrun"}
	_, err := grapnel.New(lineConfig(t), options)
	wantError(t, err, grapnel.ErrFailedPrecondition, "launcher: WORLD_SIZE: is missing")
}

func TestAnotherRunInTheWorkDir(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	runner := newRunner(t, config, lineOptions())
	must[grapnel.Step](t)(runner.Step(background))
	_, err := grapnel.New(config, lineOptions())
	wantError(t, err, grapnel.ErrAborted, config.GetWorkDir())

	// One that only evaluates may.
	options := lineOptions()
	options.EvaluateOnly = true
	beside := newRunner(t, config, options)
	must[*grapnel.Scalars](t)(beside.Test(background))
	wantError(t, beside.Train(background), grapnel.ErrFailedPrecondition, "for_training")

	// And one that waits gets it.
	go func() {
		time.Sleep(50 * time.Millisecond)
		runner.Close()
	}()
	options = lineOptions()
	options.WaitForLock = time.Minute
	next := newRunner(t, config, options)
	check(t, next.Train(background))
}

func TestARunnerHasWhatItDid(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	check(t, runner.Train(background))
	if epoch := must[int64](t)(runner.Epoch()); epoch != 2 {
		t.Errorf("got %d", epoch)
	}
	if iter := must[int64](t)(runner.Iter()); iter != lineIters {
		t.Errorf("got %d", iter)
	}
	names := must[[]string](t)(runner.ScalarNames())
	if !slices.Contains(names, "train/loss") {
		t.Errorf("got %v", names)
	}
	if loss := must[float64](t)(runner.Scalar("train/loss")); loss <= 0 || math.IsNaN(loss) {
		t.Errorf("got %v", loss)
	}
	_, err := runner.Scalar("train/gain")
	wantError(t, err, grapnel.ErrNotFound, "train/gain")
	if name := must[string](t)(runner.Info("experiment_name")); !strings.HasPrefix(name, "grapnel") {
		t.Errorf("got %q", name)
	}
	_, err = runner.Info("no_name")
	wantError(t, err, grapnel.ErrNotFound, "no_name")
	if names := must[[]string](t)(runner.TensorNames()); !slices.Equal(names, []string{"0.weight",
		"0.bias"}) {
		t.Errorf("got %v", names)
	}
	if reason := must[string](t)(runner.StopReason()); reason != "" {
		t.Errorf("got %q", reason)
	}
}

func TestATensorIsSet(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	value := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{3, 4}, 1, 2))
	check(t, runner.SetTensor("0.weight", value))
	if got := tensorOf(t, runner, "0.weight"); !slices.Equal(got, []float32{3, 4}) {
		t.Errorf("got %v", got)
	}
	wantError(t, runner.SetTensor("0.bias", value), grapnel.ErrInvalidArgument, "0.bias")
	_, err := runner.Tensor("0.other")
	wantError(t, err, grapnel.ErrNotFound, "0.other")
	check(t, value.Close())
	wantError(t, runner.SetTensor("0.weight", value), grapnel.ErrClosed, "value")
}

func TestAConfigsModelHasNoFormatOfItsOwn(t *testing.T) {
	noLeaks(t)
	wantError(t, newLine(t).Export(t.TempDir()+"/model"), grapnel.ErrUnimplemented, "")
}

func TestSavesAreBetweenSteps(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	wantError(t, runner.Save("early"), grapnel.ErrFailedPrecondition, "")
	must[grapnel.Step](t)(runner.Step(background))
	check(t, runner.Save("iter_1"))
	wantError(t, runner.Save("a/b"), grapnel.ErrInvalidArgument, "a/b")
}

// What a closed runner says to everything.
func TestAClosedRunnerIsAnError(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	check(t, runner.Close())
	check(t, runner.Close())
	value := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1}, 1))
	defer value.Close()
	errs := everyCall(runner, value)
	maps.Copy(errs, everyLook(runner))
	for name, err := range errs {
		if !errors.Is(err, grapnel.ErrClosed) || !strings.Contains(err.Error(), "runner") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	wantError(t, runner.RequestStop(grapnel.StopNow, "late"), grapnel.ErrClosed, "")
	_, err := runner.Predictor(grapnel.WeightsTrained, 1)
	wantError(t, err, grapnel.ErrClosed, "")
}

// everyCall makes every call of a runner's that isn't for any time.
func everyCall(runner *grapnel.Runner, value *grapnel.Tensor) map[string]error {
	errs := map[string]error{}
	errs["Train"] = runner.Train(background)
	_, errs["TrainUntil"] = runner.TrainUntil(background, time.Now())
	_, errs["Step"] = runner.Step(background)
	for _, err := range runner.Steps(background) {
		errs["Steps"] = err
	}
	_, errs["Val"] = runner.Val(background)
	_, errs["Test"] = runner.Test(background)
	errs["Export"] = runner.Export("model")
	errs["Save"] = runner.Save("iter_1")
	_, errs["StopReason"] = runner.StopReason()
	_, errs["Scalar"] = runner.Scalar("train/loss")
	_, errs["ScalarNames"] = runner.ScalarNames()
	_, errs["Info"] = runner.Info("experiment_name")
	_, errs["Tensor"] = runner.Tensor("0.weight")
	errs["SetTensor"] = runner.SetTensor("0.weight", value)
	return errs
}

// everyLook makes every call of a runner's that only looks, for any time.
func everyLook(runner *grapnel.Runner) map[string]error {
	errs := map[string]error{}
	_, errs["Epoch"] = runner.Epoch()
	_, errs["Iter"] = runner.Iter()
	_, errs["TensorNames"] = runner.TensorNames()
	_, errs["Config"] = runner.Config()
	_, errs["StageTable"] = runner.StageTable()
	_, errs["WorkDir"] = runner.WorkDir()
	return errs
}

// While a call is going on, others are an error, but for those that only look:
// from a callback of it, and from other goroutines.
func TestABusyRunnerIsAnError(t *testing.T) {
	noLeaks(t)
	value := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1}, 1))
	defer value.Close()
	var runner *grapnel.Runner
	asked := 0
	ask := func(run *grapnel.Run) error {
		errs := everyCall(runner, value)
		errs["Close"] = runner.Close()
		for name, err := range errs {
			if !errors.Is(err, grapnel.ErrBusy) || !errors.Is(err, grapnel.ErrFailedPrecondition) {
				return grapnel.Errorf(grapnel.ErrInternal, "%s: got %v", name, err)
			}
			asked++
		}
		for name, err := range everyLook(runner) {
			if err != nil {
				return grapnel.Errorf(grapnel.ErrInternal, "%s: got %w", name, err)
			}
		}
		return nil
	}
	runner = newLine(t, grapnel.HookFunc("asks", func(run *grapnel.Run) error {
		if run.Iter() != 3 {
			return nil
		}
		if err := ask(run); err != nil {
			return err
		}
		done := make(chan error)
		go func() { done <- ask(run) }()
		return <-done
	}, grapnel.AfterTrainIter))
	check(t, runner.Train(background))
	if asked != 2*15 {
		t.Errorf("got %d answers", asked)
	}
}

func TestAStopFromAnyGoroutineAlsoWhileCloseRuns(t *testing.T) {
	noLeaks(t)
	for range 10 {
		runner := newLine(t)
		must[grapnel.Step](t)(runner.Step(background))
		var all sync.WaitGroup
		for range 4 {
			all.Add(1)
			go func() {
				defer all.Done()
				for range 100 {
					err := runner.RequestStop(grapnel.StopAfterEpoch, "somebody")
					if err != nil && !errors.Is(err, grapnel.ErrClosed) {
						t.Error(err)
					}
				}
			}()
		}
		runtime.Gosched()
		check(t, runner.Close())
		all.Wait()
	}
}

func TestARequestedStopIsNoError(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	must[grapnel.Step](t)(runner.Step(background))
	wantError(t, runner.RequestStop(7, "odd"), grapnel.ErrInvalidArgument, "at")
	check(t, runner.RequestStop(grapnel.StopAfterEpoch, "enough"))
	check(t, runner.Train(background))
	if epoch := must[int64](t)(runner.Epoch()); epoch != 1 {
		t.Errorf("got %d epochs, want 1", epoch)
	}
	if reason := must[string](t)(runner.StopReason()); reason != "enough" {
		t.Errorf("got %q", reason)
	}
}

func TestTrainUntilATime(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	more := must[bool](t)(runner.TrainUntil(background, time.Now().Add(-time.Hour)))
	if iter := must[int64](t)(runner.Iter()); !more || iter >= lineIters {
		t.Errorf("got %v after %d", more, iter)
	}
	more = must[bool](t)(runner.TrainUntil(background, time.Time{})) // Long ago.
	if iter := must[int64](t)(runner.Iter()); !more || iter >= lineIters {
		t.Errorf("got %v after %d", more, iter)
	}
	// Later than nanoseconds of 64 bits can tell.
	more = must[bool](t)(runner.TrainUntil(background, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)))
	if iter := must[int64](t)(runner.Iter()); more || iter != lineIters {
		t.Errorf("got %v after %d", more, iter)
	}
}

// Epoch and Iter go on while a run does, for whoever looks.
func TestHowFarARunIsCanBeReadAnyTime(t *testing.T) {
	noLeaks(t)
	var runner *grapnel.Runner
	var iters, epochs []int64
	runner = newLine(t, grapnel.HookFunc("looks", func(run *grapnel.Run) error {
		iter, err := runner.Iter()
		if err != nil {
			return err
		}
		epoch, err := runner.Epoch()
		iters, epochs = append(iters, iter), append(epochs, epoch)
		if iter != run.Iter() || epoch != run.Epoch() {
			t.Errorf("got %d and %d, want %d and %d", iter, epoch, run.Iter(), run.Epoch())
		}
		return err
	}, grapnel.BeforeTrainIter))
	check(t, runner.Train(background))
	if len(iters) != lineIters || iters[19] != 19 || epochs[9] != 0 || epochs[19] != 1 {
		t.Errorf("got %v and %v", iters, epochs)
	}
	if iter := must[int64](t)(runner.Iter()); iter != lineIters {
		t.Errorf("got %d", iter)
	}
}

// A run that goes on from a checkpoint is as far as that one was.
func TestHowFarARunIsAfterAResume(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	first := newRunner(t, config, lineOptions())
	for step, err := range first.Steps(background) {
		check(t, err)
		if step.Iter == 13 {
			break
		}
	}
	check(t, first.Save("iter_13"))
	check(t, first.Close())
	config.Resume = proto.Bool(true)
	var second *grapnel.Runner
	second = newRunner(t, config, lineOptions(grapnel.HookFunc("looks", func(run *grapnel.Run) error {
		iter, epoch := must[int64](t)(second.Iter()), must[int64](t)(second.Epoch())
		if iter != 13 || epoch != 1 {
			t.Errorf("got %d and %d, want 13 and 1", iter, epoch)
		}
		return nil
	}, grapnel.BeforeTrain)))
	check(t, second.Train(background))
}

// Any mixture of Train and steps is the same run.
func TestTrainAndStepsAreTheSameRun(t *testing.T) {
	noLeaks(t)
	whole := newLine(t)
	check(t, whole.Train(background))
	want := tensorOf(t, whole, "0.weight")
	for _, n := range []int64{1, 9, 10, 11, 20} {
		runner := newLine(t)
		last := grapnel.Step{More: true}
		for step, err := range runner.Steps(background) {
			check(t, err)
			last = step
			if step.Iter == n {
				break
			}
			// Between two steps a validation leaves no trace.
			must[*grapnel.Scalars](t)(runner.Val(background))
		}
		if last.Iter != n || last.Epoch != n/10 || last.More != (n < lineIters) {
			t.Errorf("after %d: got %+v", n, last)
		}
		if n < lineIters-1 {
			step := must[grapnel.Step](t)(runner.Step(background))
			if step.Iter != n+1 || !step.More {
				t.Errorf("after %d: got %+v", n+1, step)
			}
			check(t, runner.Train(background))
		}
		if got := tensorOf(t, runner, "0.weight"); !slices.Equal(got, want) {
			t.Errorf("%d: got %v, want %v", n, got, want)
		}
		// At its end there is nothing to do.
		for step, err := range runner.Steps(background) {
			check(t, err)
			if step.More || step.Iter != lineIters {
				t.Errorf("got %+v", step)
			}
		}
	}
}

func TestARunnerThatNobodyClosesIsCollected(t *testing.T) {
	before := liveAfterCollection(0)
	func() {
		runner := must[*grapnel.Runner](t)(grapnel.New(lineConfig(t), lineOptions()))
		must[grapnel.Step](t)(runner.Step(background))
		predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 1))
		input := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 1}, 1, 2))
		must[*grapnel.Tensor](t)(predictor.Predict(background, input))
	}()
	if live := liveAfterCollection(before); live > before {
		t.Errorf("objects alive: %d before, %d now", before, live)
	}
}

// The file of records is JSON that Go reads.
func TestTheRunWritesRecords(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	check(t, newRunner(t, config, lineOptions()).Train(background))
	files := must[[]string](t)(filepath.Glob(config.GetWorkDir() + "/*/vis_data/scalars.json"))
	if len(files) != 1 {
		t.Fatalf("got %v", files)
	}
	line, _, _ := strings.Cut(string(must[[]byte](t)(os.ReadFile(files[0]))), "\n")
	record := map[string]any{}
	check(t, json.Unmarshal([]byte(line), &record))
	if _, ok := record["loss"]; !ok {
		t.Errorf("got %v", record)
	}
}
