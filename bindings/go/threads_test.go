package grapnel_test

import (
	"fmt"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
	"grapnel.dev/grapnel/internal/process"
)

// wideConfig is a run that computes on all threads that OpenMP has.
func wideConfig(t testing.TB) (*grapnelpb.RunnerConfig, *grapnel.Options) {
	const width, batch = 256, 64
	config := lineConfig(t)
	config.Model.GetSequential().Layers[0].GetLinear().OutFeatures = proto.Int64(width)
	config.TrainDataloader.BatchSize = proto.Int64(batch)
	config.TrainCfg.MaxEpochs = proto.Int64(1)
	rows := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	t.Cleanup(func() { rows.Close() })
	for _, name := range []string{"input", "target"} {
		check(t, grapnel.Add(rows, name, make([]float32, 4*batch*width), 4*batch, width))
	}
	options := &grapnel.Options{Logger: discard, TrainData: grapnel.InMemory(rows)}
	config.ValDataloader, config.ValEvaluator = nil, nil
	config.TestDataloader, config.TestEvaluator = nil, nil
	return config, options
}

// forms are those that a run can be trained in.
var forms = map[string]func(t *testing.T, runner *grapnel.Runner){
	"Train": func(t *testing.T, runner *grapnel.Runner) { check(t, runner.Train(background)) },
	"Steps": func(t *testing.T, runner *grapnel.Runner) {
		for _, err := range runner.Steps(background) {
			check(t, err)
		}
	},
	"Step": func(t *testing.T, runner *grapnel.Runner) {
		for range 3 {
			must[grapnel.Step](t)(runner.Step(background))
		}
	},
	"Pull": func(t *testing.T, runner *grapnel.Runner) {
		next, stop := iter.Pull2(runner.Steps(background))
		defer stop()
		for range 3 {
			if _, err, ok := next(); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
	},
}

// LibTorch keeps a team of threads for each one that it has computed on. Of no
// form of training it stays with the caller's.
func TestNoFormOfTrainingLeavesATeam(t *testing.T) {
	const variable, team = "GRAPNEL_TEST_TEAMS", 32
	if os.Getenv(variable) == "" {
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		command.Env = append(os.Environ(), variable+"=1", fmt.Sprint("OMP_NUM_THREADS=", team),
			"MKL_DYNAMIC=false") // Also where there are fewer cores.
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		return
	}
	runtime.LockOSThread() // It would stay with this one.
	threads := func() int { return must[int](t)(process.Threads()) }
	train := func(form string) {
		config, options := wideConfig(t)
		runner := must[*grapnel.Runner](t)(grapnel.New(config, options))
		forms[form](t, runner)
		check(t, runner.Close())
	}
	train("Train") // What LibTorch has once in a process is there then.
	for form := range forms {
		before := threads()
		train(form)
		most := before + team/2 // Go's own come and go.
		if after := process.Settled(most, threads, time.Minute); after > most {
			t.Errorf("%s: %d threads before, %d now", form, before, after)
		}
	}
}

// A loop that is pulled is the same run.
func TestStepsCanBePulled(t *testing.T) {
	noLeaks(t)
	runner := newLine(t)
	next, stop := iter.Pull2(runner.Steps(background))
	for want := int64(1); want <= 3; want++ {
		if step, err, ok := next(); step.Iter != want || err != nil || !ok {
			t.Errorf("got %v, %v, %v", step, err, ok)
		}
		must[*grapnel.Scalars](t)(runner.Val(background))
	}
	stop()
	check(t, runner.Train(background))
	whole := newLine(t)
	check(t, whole.Train(background))
	if got, want := tensorOf(t, runner, "0.weight"), tensorOf(t, whole, "0.weight"); got[0] != want[0] {
		t.Errorf("got %v, want %v", got, want)
	}
}
