package grapnel_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
	"grapnel.dev/grapnel/internal/barecallback"
)

// everywhere has the method of every stage.
type everywhere struct{ seen []grapnel.Stage }

func (h *everywhere) Name() string { return "everywhere" }
func (h *everywhere) see(run *grapnel.Run, stage grapnel.Stage) error {
	if run.Stage() != stage {
		return fmt.Errorf("%v was called at %v", stage, run.Stage())
	}
	h.seen = append(h.seen, stage)
	return nil
}

func (h *everywhere) Setup(r *grapnel.Run) error     { return h.see(r, grapnel.Setup) }
func (h *everywhere) BeforeRun(r *grapnel.Run) error { return h.see(r, grapnel.BeforeRun) }
func (h *everywhere) AfterLoadCheckpoint(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterLoadCheckpoint)
}
func (h *everywhere) AfterRestore(r *grapnel.Run) error { return h.see(r, grapnel.AfterRestore) }
func (h *everywhere) BeforeTrain(r *grapnel.Run) error  { return h.see(r, grapnel.BeforeTrain) }
func (h *everywhere) BeforeTrainEpoch(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeTrainEpoch)
}
func (h *everywhere) BeforeTrainIter(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeTrainIter)
}
func (h *everywhere) BeforeOptimizerStep(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeOptimizerStep)
}
func (h *everywhere) AfterOptimizerStep(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterOptimizerStep)
}
func (h *everywhere) AfterTrainIter(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterTrainIter)
}
func (h *everywhere) AfterTrainEpoch(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterTrainEpoch)
}
func (h *everywhere) BeforeVal(r *grapnel.Run) error { return h.see(r, grapnel.BeforeVal) }
func (h *everywhere) BeforeValEpoch(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeValEpoch)
}
func (h *everywhere) BeforeValIter(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeValIter)
}
func (h *everywhere) AfterValIter(r *grapnel.Run) error { return h.see(r, grapnel.AfterValIter) }
func (h *everywhere) AfterValEpoch(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterValEpoch)
}
func (h *everywhere) AfterVal(r *grapnel.Run) error   { return h.see(r, grapnel.AfterVal) }
func (h *everywhere) BeforeTest(r *grapnel.Run) error { return h.see(r, grapnel.BeforeTest) }
func (h *everywhere) BeforeTestEpoch(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeTestEpoch)
}
func (h *everywhere) BeforeTestIter(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeTestIter)
}
func (h *everywhere) AfterTestIter(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterTestIter)
}
func (h *everywhere) AfterTestEpoch(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterTestEpoch)
}
func (h *everywhere) AfterTest(r *grapnel.Run) error { return h.see(r, grapnel.AfterTest) }
func (h *everywhere) BeforeSaveCheckpoint(r *grapnel.Run) error {
	return h.see(r, grapnel.BeforeSaveCheckpoint)
}
func (h *everywhere) AfterSaveCheckpoint(r *grapnel.Run) error {
	return h.see(r, grapnel.AfterSaveCheckpoint)
}
func (h *everywhere) BeforeExport(r *grapnel.Run) error { return h.see(r, grapnel.BeforeExport) }
func (h *everywhere) AfterExport(r *grapnel.Run) error  { return h.see(r, grapnel.AfterExport) }
func (h *everywhere) AfterTrain(r *grapnel.Run) error   { return h.see(r, grapnel.AfterTrain) }
func (h *everywhere) OnError(r *grapnel.Run) error      { return h.see(r, grapnel.OnError) }
func (h *everywhere) AfterRun(r *grapnel.Run) error     { return h.see(r, grapnel.AfterRun) }

func TestAHookActsAtEveryStage(t *testing.T) {
	noLeaks(t)
	model := newSlope(t)
	hook := &everywhere{}
	options := lineOptions(hook)
	options.Model = model
	config := lineConfig(t)
	config.Model = nil
	runner := newRunner(t, config, options)
	model.fail = errors.New("once")
	wantError(t, runner.Train(background), model.fail, "once")
	model.fail = nil
	check(t, runner.Train(background))
	must[*grapnel.Scalars](t)(runner.Test(background))
	check(t, runner.Export(t.TempDir()+"/model"))
	check(t, runner.Close())

	config.Resume = proto.Bool(true) // For the two that come with a checkpoint.
	resumed := newRunner(t, config, options)
	check(t, resumed.Train(background))
	seen := map[grapnel.Stage]int{}
	for _, stage := range hook.seen {
		seen[stage]++
	}
	for stage := grapnel.Setup; stage <= grapnel.AfterRun; stage++ {
		if seen[stage] == 0 {
			t.Errorf("%v: it was not called", stage)
		}
	}
	if n := seen[grapnel.AfterTrainIter]; n != lineIters {
		t.Errorf("got %d iterations, want %d", n, lineIters)
	}
}

func TestStagesHaveNames(t *testing.T) {
	if got := grapnel.AfterTrainIter.String(); got != "AfterTrainIter" {
		t.Errorf("got %q", got)
	}
	if got := grapnel.Stage(30).String(); got != "stage 30" {
		t.Errorf("got %q", got)
	}
	for mode, want := range map[grapnel.Mode]string{
		grapnel.ModeTrain: "train", grapnel.ModeVal: "val", grapnel.ModeTest: "test", 9: "mode 9",
	} {
		if got := mode.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

type ordered struct {
	name  string
	order *[]string
}

func (h ordered) Name() string { return h.name }
func (h ordered) BeforeTrain(*grapnel.Run) error {
	*h.order = append(*h.order, h.name)
	return nil
}

type first struct{ ordered }

func (first) Priority() grapnel.Priority { return grapnel.PriorityHighest }

func TestHooksActByPriority(t *testing.T) {
	noLeaks(t)
	var order []string
	last := grapnel.WithPriority(grapnel.WithPriority(first{ordered{"last", &order}},
		grapnel.PriorityHigh), grapnel.PriorityLowest)
	runner := newLine(t, last, ordered{"a", &order}, first{ordered{"first", &order}},
		ordered{"b", &order}, grapnel.HookFunc("c", ordered{"c", &order}.BeforeTrain,
			grapnel.BeforeTrain))
	must[grapnel.Step](t)(runner.Step(background))
	if want := []string{"first", "a", "b", "c", "last"}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
	table := must[string](t)(runner.StageTable())
	if !strings.Contains(table, "first") {
		t.Errorf("the table has not the hook: %s", table)
	}
}

type (
	nowhere   struct{ named }
	noError   struct{ named }
	halfState struct{ named }
	halfStage struct{ named }
	textRank  struct{ named }
	badStage  struct{ named }
	named     struct{}
)

func (named) Name() string                          { return "odd" }
func (noError) AfterTrainIter(*grapnel.Run)         {}
func (halfState) AfterTrainIter(*grapnel.Run) error { return nil }
func (halfState) SaveState() ([]byte, error)        { return nil, nil }
func (halfStage) OnStage(*grapnel.Run) error        { return nil }
func (textRank) AfterTrainIter(*grapnel.Run) error  { return nil }
func (textRank) Priority() string                   { return "high" }
func (badStage) Stages() []grapnel.Stage            { return []grapnel.Stage{30} }
func (badStage) OnStage(*grapnel.Run) error         { return nil }

func TestAMethodThatWouldNotBeCalledIsAnError(t *testing.T) {
	noLeaks(t)
	nothing := func(*grapnel.Run) error { return nil }
	for _, test := range []struct {
		hook grapnel.Hook
		want string
	}{
		{nil, "hook: is nil"},
		{nowhere{}, `hook "odd": grapnel_test.nowhere acts at no stage`},
		{noError{}, "has a method AfterTrainIter, and must have AfterTrainIter(*Run) error"},
		{halfState{}, "must have SaveState() ([]byte, error) and LoadState([]byte) error"},
		{halfStage{}, "must have Stages() []Stage and OnStage(*Run) error"},
		{textRank{}, "must have Priority() Priority"},
		{badStage{}, "there is no stage 30"},
		{grapnel.HookFunc("none", nothing), "acts at no stage"},
		{grapnel.HookFunc("bad", nothing, -1), "there is no stage -1"},
		{grapnel.HookFunc("nil", nil, grapnel.Setup), "a function"},
		{grapnel.HookFunc("", nothing, grapnel.Setup), "name"},
		{grapnel.WithPriority(ordered{"a", new([]string)}, 101), "priority"},
		{grapnel.NativeHook("native", nil, nil), "callbacks"},
	} {
		_, err := grapnel.New(lineConfig(t), lineOptions(test.hook))
		wantError(t, err, grapnel.ErrInvalidArgument, test.want)
	}
	twice := ordered{"twice", new([]string)}
	_, err := grapnel.New(lineConfig(t), lineOptions(twice, twice))
	wantError(t, err, grapnel.ErrAlreadyExists, "twice")
}

func TestAHookOfCActs(t *testing.T) {
	noLeaks(t)
	hook := barecallback.Hook("bare")
	if hook.Name() != "bare" {
		t.Errorf("got %q", hook.Name())
	}
	check(t, newLine(t, hook).Train(background))
}

// counter keeps the number of iterations in checkpoints.
type counter struct {
	n      byte
	loaded []byte
}

func (h *counter) Name() string                      { return "counter" }
func (h *counter) AfterTrainIter(*grapnel.Run) error { h.n++; return nil }
func (h *counter) SaveState() ([]byte, error)        { return []byte{h.n}, nil }
func (h *counter) LoadState(state []byte) error {
	h.loaded = state
	if len(state) > 0 {
		h.n = state[0]
	}
	return nil
}

func TestAHooksStateIsResumed(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	hook := &counter{}
	runner := newRunner(t, config, lineOptions(hook))
	for step, err := range runner.Steps(background) {
		check(t, err)
		if step.Iter == 13 {
			break
		}
	}
	check(t, runner.Save("iter_13"))
	check(t, runner.Close())

	config.Resume = proto.Bool(true)
	again := &counter{}
	resumed := newRunner(t, config, lineOptions(again))
	check(t, resumed.Train(background))
	if !slices.Equal(again.loaded, []byte{13}) || again.n != lineIters {
		t.Errorf("got %v, %d", again.loaded, again.n)
	}
}

// What a hook sees, and does, of a run.
func TestARunHasWhatThereIs(t *testing.T) {
	noLeaks(t)
	var saved string
	var loss float64
	var lent *grapnel.Tensor
	var keptVars *grapnel.Scalars
	var kept *grapnel.Run
	hook := grapnel.HookFunc("looks", func(run *grapnel.Run) error {
		switch run.Stage() {
		case grapnel.AfterTrainIter:
			batch, err := run.Batch()
			if err != nil {
				return err
			}
			lent = batch.Find("input")
			if shape := lent.Shape(); !slices.Equal(shape, []int{4, 2}) {
				return fmt.Errorf("got a batch %v", shape)
			}
			if err := grapnel.SetValues(lent, make([]float32, 8)); !errors.Is(err,
				grapnel.ErrFailedPrecondition) {
				return fmt.Errorf("a batch was written to: %v", err)
			}
			if err := grapnel.AddScalar(batch, "more", 1.5); !errors.Is(err, grapnel.ErrFailedPrecondition) {
				return fmt.Errorf("a batch was added to: %v", err)
			}
			vars, err := run.LogVars()
			if err != nil {
				return err
			}
			keptVars = vars
			name, value := vars.At(0)
			if found, ok := vars.Find("loss"); name != "loss" || !ok || found != value || vars.Len() != 1 {
				return fmt.Errorf("got %s %v, %v", name, value, found)
			}
			if _, ok := vars.Find("other"); ok {
				return errors.New("there is another loss")
			}
			if err := vars.Add("more", 1); !errors.Is(err, grapnel.ErrClosed) {
				return fmt.Errorf("what was logged was added to: %v", err)
			}
			loss = value
			if run.BatchIndex() != run.Iter()%10 || run.NumBatches() != 10 ||
				run.Mode() != grapnel.ModeTrain {
				return fmt.Errorf("got batch %d of %d, %v", run.BatchIndex(), run.NumBatches(), run.Mode())
			}
			if run.Iter() == 4 {
				if err := run.Save("extra"); err != nil {
					return err
				}
			}
			if err := run.AddScalar("train/double", 2*value); err != nil {
				return err
			}
			double, err := run.Scalar("train/double")
			if err != nil || double != 2*value {
				return fmt.Errorf("got %v, %v", double, err)
			}
			_, err = run.Scalar("train/nothing")
			if !errors.Is(err, grapnel.ErrNotFound) {
				return fmt.Errorf("got %v", err)
			}
			if _, err := run.Predictions(); !errors.Is(err, grapnel.ErrFailedPrecondition) {
				return fmt.Errorf("got %v", err)
			}
			if err := run.Err(); err != nil {
				return err
			}
		case grapnel.AfterValIter:
			predictions, err := run.Predictions()
			if err != nil {
				return err
			}
			if output := predictions.Find("output"); output.Len() != 8 {
				return fmt.Errorf("got %v", output)
			}
		case grapnel.AfterValEpoch:
			if !run.Training() || run.MaxEpochs() != 2 || run.MaxIters() != lineIters {
				return errors.New("it is no training")
			}
			metrics, err := run.Metrics()
			if err != nil {
				return err
			}
			for name, value := range metrics.All() {
				if name != "mse" || value < 0 {
					return fmt.Errorf("got %s %v", name, value)
				}
				break
			}
		case grapnel.AfterSaveCheckpoint:
			path, err := run.SavedPath()
			if strings.HasSuffix(path, "/extra") {
				saved = path
			}
			return err
		case grapnel.AfterTrain:
			kept = run
			return errors.Join(run.Log(slog.LevelDebug, "done"), run.Log(slog.LevelWarn, "done"),
				run.Log(slog.LevelError, "done"))
		}
		return nil
	}, grapnel.AfterTrainIter, grapnel.AfterValIter, grapnel.AfterValEpoch,
		grapnel.AfterSaveCheckpoint,
		grapnel.AfterTrain)
	runner := newLine(t, hook)
	check(t, runner.Train(background))
	if saved == "" || loss == 0 {
		t.Errorf("got %q, %v", saved, loss)
	}
	if got := must[float64](t)(runner.Scalar("train/double")); got != 2*loss {
		t.Errorf("got %v, want %v", got, 2*loss)
	}

	// What was handed out is an error now, and nothing worse.
	_, err := grapnel.Values[float32](lent)
	wantError(t, err, grapnel.ErrClosed, "lent to a callback that has returned")
	for _, f := range []func() error{
		func() error { _, err := kept.Batch(); return err },
		func() error { _, err := kept.LogVars(); return err },
		func() error { _, err := kept.Predictions(); return err },
		func() error { _, err := kept.Metrics(); return err },
		func() error { _, err := kept.SavedPath(); return err },
		func() error { _, err := kept.Tensor("0.weight"); return err },
		func() error { _, err := kept.Scalar("train/loss"); return err },
		func() error { return kept.AddScalar("train/loss", 1) },
		func() error { return kept.Save("late") },
		func() error { return kept.RequestStop(grapnel.StopNow, "late") },
		func() error { return kept.Log(slog.LevelInfo, "late") },
	} {
		wantError(t, f(), grapnel.ErrClosed, "run")
	}
	if keptVars == nil || keptVars.Len() != 0 {
		t.Error("numbers are there when their call is over")
	}
	if kept.Epoch() != 0 || kept.Iter() != 0 || kept.MaxIters() != 0 || kept.Training() ||
		kept.Err() != nil {
		t.Error("a run has something when its call is over")
	}
}

func TestAHookWritesToTheModel(t *testing.T) {
	noLeaks(t)
	var lent *grapnel.Tensor
	runner := newLine(t, grapnel.HookFunc("writes", func(run *grapnel.Run) error {
		for _, name := range []string{"0.weight", "0.bias"} {
			tensor, err := run.Tensor(name)
			if err != nil {
				return err
			}
			values, err := grapnel.Data[float32](tensor)
			if err != nil {
				return err
			}
			for i := range values {
				values[i] = 4
			}
			lent = tensor
		}
		_, err := run.Tensor("1.weight")
		if !errors.Is(err, grapnel.ErrNotFound) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	}, grapnel.AfterTrainEpoch))
	check(t, runner.Train(background))
	if got := tensorOf(t, runner, "0.weight"); !slices.Equal(got, []float32{4, 4}) {
		t.Errorf("got %v", got)
	}
	if _, err := lent.Share(); !errors.Is(err, grapnel.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestAHookStopsTheTraining(t *testing.T) {
	noLeaks(t)
	var heard error
	runner := newLine(t, grapnel.HookFunc("stops", func(run *grapnel.Run) error {
		switch {
		case run.Stage() == grapnel.OnError:
			heard = run.Err()
			return nil
		case run.Iter() == 6:
			return run.RequestStop(grapnel.StopNow, "it is enough")
		default:
			return nil
		}
	}, grapnel.AfterTrainIter, grapnel.OnError))
	check(t, runner.Train(background))
	if reason := must[string](t)(runner.StopReason()); reason != "it is enough" {
		t.Errorf("got %q", reason)
	}
	if iter := must[int64](t)(runner.Iter()); iter != 7 {
		t.Errorf("got %d, want 7", iter)
	}
	wantError(t, heard, grapnel.ErrCanceled, "")
}

func TestOnErrorHasTheCallbacksError(t *testing.T) {
	noLeaks(t)
	mine := errors.New("mine")
	var heard error
	runner := newLine(t, grapnel.HookFunc("fails", func(run *grapnel.Run) error {
		if run.Stage() == grapnel.OnError {
			heard = run.Err()
			return errors.New("is only logged")
		}
		return mine
	}, grapnel.BeforeTrainIter, grapnel.OnError))
	wantError(t, runner.Train(background), mine, "mine")
	wantError(t, heard, mine, "mine")
}

// A config's own hook is a message of grapnelpb in an Any.
func TestHooksOfTheConfig(t *testing.T) {
	noLeaks(t)
	config := lineConfig(t)
	config.CustomHooks = []*grapnelpb.HookSpec{
		{Config: anyOf(t, &grapnelpb.EarlyStoppingHookConfig{Monitor: proto.String("mse"),
			StoppingThreshold: proto.Float64(1e9)})},
	}
	runner := newRunner(t, config, lineOptions())
	check(t, runner.Train(background))
	if iter := must[int64](t)(runner.Iter()); iter != 10 {
		t.Errorf("got %d, want 10: an epoch", iter)
	}
}
