package grapnel_test

import (
	"errors"
	"fmt"
	"testing"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/barecallback"
	"grapnel.dev/grapnel/internal/emptyrun"
)

// inquisitive does all that a hook of every iteration may do.
type inquisitive struct{ sum float64 }

func (*inquisitive) Name() string { return "inquisitive" }

func (h *inquisitive) AfterTrainIter(run *grapnel.Run) error {
	batch, err := run.Batch()
	if err != nil {
		return err
	}
	input := batch.Find("input")
	if input == nil || input.Len() != 64*emptyrun.Floats || input.DType() != grapnel.DTypeFloat32 {
		return errors.New("the batch isn't as it should be")
	}
	values, err := grapnel.Data[float32](input)
	if err != nil {
		return err
	}
	for name, tensor := range batch.All() {
		h.sum += float64(len(name) + tensor.Len())
	}
	vars, err := run.LogVars()
	if err != nil {
		return err
	}
	loss, _ := vars.Find("loss")
	for _, value := range vars.All() {
		h.sum += value
	}
	if err := run.AddScalar("train/mine", loss); err != nil {
		return err
	}
	mine, err := run.Scalar("train/mine")
	if err != nil {
		return err
	}
	weight, err := run.Tensor("w")
	if err != nil {
		return err
	}
	var shape [4]int
	sizes := weight.AppendShape(shape[:0])
	w, err := grapnel.Data[float32](weight)
	if err != nil {
		return err
	}
	w[0] = 0
	h.sum += float64(values[0]) + mine + float64(len(sizes)) +
		float64(run.Epoch()+run.Iter()+run.MaxEpochs()+run.MaxIters()+run.BatchIndex()+run.NumBatches()) +
		float64(run.Mode()) + float64(run.Stage())
	return nil
}

// No iteration allocates: not the hook, what it looks at, the dataset, the
// model, nor the step.
func TestAnIterationAllocatesNothing(t *testing.T) {
	for name, hooks := range map[string][]grapnel.Hook{
		"no hook": nil,
		"a hook": {grapnel.HookFunc("none", func(*grapnel.Run) error { return nil },
			grapnel.AfterTrainIter)},
		"a busy hook":      {&inquisitive{}},
		"an interval hook": {grapnel.EveryN("each", 1, func(*grapnel.Run) error { return nil })},
	} {
		runner := must[*grapnel.Runner](t)(emptyrun.New(t.TempDir(), emptyrun.NewTable(), hooks...))
		step := func() {
			if _, err := runner.Step(background); err != nil {
				t.Fatal(err)
			}
		}
		step() // What is kept from call to call is made in the first.
		if allocations := testing.AllocsPerRun(200, step); allocations != 0 {
			t.Errorf("%s: a step allocates %v times", name, allocations)
		}
		check(t, runner.Close())
	}
}

// steps does b.N, with the loop's costs in none of them.
func steps(b *testing.B, runner *grapnel.Runner) {
	b.Helper()
	left := b.N
	b.ResetTimer()
	for _, err := range runner.Steps(background) {
		if err != nil {
			b.Fatal(err)
		}
		if left--; left == 0 {
			break
		}
	}
	b.StopTimer()
}

const manyHooks = 1000 // So that a step is little beside them.

func benchmarkHooks(b *testing.B, make func(name string) grapnel.Hook) {
	table := must[grapnel.Dataset](b)(emptyrun.NewTable().InMemory())
	var hooks []grapnel.Hook
	for i := range manyHooks {
		hooks = append(hooks, make(fmt.Sprint("hook", i)))
	}
	runner := must[*grapnel.Runner](b)(emptyrun.New(b.TempDir(), table, hooks...))
	defer runner.Close()
	steps(b, runner)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/manyHooks, "ns/hook")
}

// A hook that does nothing, and a thousandth of a step with it.
func BenchmarkHook(b *testing.B) {
	benchmarkHooks(b, func(name string) grapnel.Hook {
		return grapnel.HookFunc(name, func(*grapnel.Run) error { return nil }, grapnel.AfterTrainIter)
	})
}

// A hook of C's that calls back into Go, where nothing is done: the least that
// it could be.
func BenchmarkBareCallbackAsHook(b *testing.B) { benchmarkHooks(b, barecallback.Hook) }

// Such a callback called by a loop in C.
func BenchmarkBareCallback(b *testing.B) { barecallback.Run(b.N) }

func BenchmarkStepOfInMemory(b *testing.B) {
	table := must[grapnel.Dataset](b)(emptyrun.NewTable().InMemory())
	runner := must[*grapnel.Runner](b)(emptyrun.New(b.TempDir(), table))
	defer runner.Close()
	steps(b, runner)
}

// By Step, which hands over to another thread and back.
func BenchmarkSingleStepOfInMemory(b *testing.B) {
	table := must[grapnel.Dataset](b)(emptyrun.NewTable().InMemory())
	runner := must[*grapnel.Runner](b)(emptyrun.New(b.TempDir(), table))
	defer runner.Close()
	b.ResetTimer()
	for range b.N {
		must[grapnel.Step](b)(runner.Step(background))
	}
}

func BenchmarkStepOfGetBatch(b *testing.B) {
	runner := must[*grapnel.Runner](b)(emptyrun.New(b.TempDir(), emptyrun.NewTable()))
	defer runner.Close()
	steps(b, runner)
}
