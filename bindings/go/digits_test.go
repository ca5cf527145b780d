package grapnel_test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/digits"
	"grapnel.dev/grapnel/internal/process"
)

const digitsConfig = `
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 32 } }
    layers { relu {} }
    layers { dropout { p: 0.1 } }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_dataloader { batch_size: 64 num_workers: 1 sampler { shuffle: true } }
val_dataloader { batch_size: 90 }
train_cfg { max_epochs: 4 }
optim_wrapper { optimizer { adamw { lr: 0.01 } } }
val_evaluator { accuracy { topk: 1 } }
`

func newDigits(t testing.TB, seed string, hooks ...grapnel.Hook) *grapnel.Runner {
	t.Helper()
	runner := must[*grapnel.Runner](t)(grapnel.NewFromText(digitsConfig, &grapnel.Options{
		Overrides: []string{"work_dir='" + t.TempDir() + "'", "randomness.seed=" + seed},
		TrainData: must[*digits.Data](t)(digits.Read(digitsDir(), "train")),
		ValData:   must[*digits.Data](t)(digits.Read(digitsDir(), "test")),
		Hooks:     hooks,
		Logger:    discard,
	}))
	t.Cleanup(func() { check(t, runner.Close()) })
	return runner
}

func TestDigitsAreLearned(t *testing.T) {
	noLeaks(t)
	runner := newDigits(t, "0")
	check(t, runner.Train(background))
	metrics := must[*grapnel.Scalars](t)(runner.Val(background))
	if accuracy, ok := metrics.Find("accuracy/top1"); !ok || accuracy < 80 {
		t.Errorf("got %v, %v", accuracy, ok)
	}
}

// Two runs at once, one by Train and one by steps, have the bits of each alone.
func TestTwoRunsAtOnceAreAsEachAlone(t *testing.T) {
	noLeaks(t)
	seeds := []string{"1", "2"}
	want := map[string][]float32{}
	for _, seed := range seeds {
		runner := newDigits(t, seed)
		check(t, runner.Train(background))
		want[seed] = tensorOf(t, runner, "1.weight")
	}
	if slices.Equal(want["1"], want["2"]) {
		t.Fatal("the seed makes no difference")
	}
	// Each waits in its first iteration until the other one is there.
	var together sync.WaitGroup
	together.Add(len(seeds))
	meet := func() grapnel.Hook {
		return grapnel.HookFunc("meets", func(run *grapnel.Run) error {
			if run.Iter() == 0 {
				together.Done()
				together.Wait()
			}
			return nil
		}, grapnel.BeforeTrainIter)
	}
	var all sync.WaitGroup
	for i, seed := range seeds {
		runner := newDigits(t, seed, meet())
		all.Add(1)
		go func() {
			defer all.Done()
			var err error
			if i == 0 {
				err = runner.Train(background)
			} else {
				for _, err = range runner.Steps(background) {
					if err != nil {
						break
					}
				}
			}
			if err != nil {
				t.Error(err)
			}
		}()
		defer func() {
			if got := tensorOf(t, runner, "1.weight"); !slices.Equal(got, want[seed]) {
				t.Errorf("seed %s: its weights are others", seed)
			}
		}()
	}
	all.Wait()
}

// osThreads counts those of the process, and waits so long for some that are ending.
func osThreads(t testing.TB, atMost int, wait time.Duration) int {
	return process.Settled(atMost, func() int { return must[int](t)(process.Threads()) }, wait)
}

// LibTorch keeps a team of threads for each thread that it computed on. The test
// is a process of its own, where a team is so large that it is seen.
func TestRunsLeaveNoThreads(t *testing.T) {
	const team = 16
	if os.Getenv("GRAPNEL_TEST_THREADS") == "" {
		command := exec.Command(os.Args[0], "-test.run=^TestRunsLeaveNoThreads$", "-test.v")
		command.Env = append(os.Environ(), "GRAPNEL_TEST_THREADS=1",
			fmt.Sprint("OMP_NUM_THREADS=", team+1), fmt.Sprint("MKL_NUM_THREADS=", team+1),
			"MKL_DYNAMIC=FALSE")
		if output, err := command.CombinedOutput(); err != nil || !strings.Contains(string(output),
			"--- PASS") {
			t.Errorf("%v, %s", err, output)
		}
		return
	}
	most := 0
	run := func() {
		done := make(chan struct{})
		go func() { // On another goroutine each time.
			defer close(done)
			runner := newWide(t, grapnel.HookFunc("counts", func(*grapnel.Run) error {
				most = max(most, osThreads(t, math.MaxInt, 0))
				return nil
			}, grapnel.AfterTrainIter))
			check(t, runner.Train(background))
			must[*grapnel.Scalars](t)(runner.Val(background))
			predictor := must[*grapnel.Predictor](t)(runner.Predictor(grapnel.WeightsTrained, 2))
			input := must[*grapnel.Tensor](t)(grapnel.NewTensor(make([]float32, 512*256), 512, 256))
			output := must[*grapnel.Tensor](t)(predictor.Predict(background, input))
			output.Close()
			input.Close()
			check(t, predictor.Close())
			check(t, runner.Close())
		}()
		<-done
	}
	before := osThreads(t, 0, 200*time.Millisecond)
	for range 16 {
		run()
	}
	// Go's own come and go, but they are fewer than a team.
	if most < before+team {
		t.Errorf("LibTorch had no team: %d threads before, %d at most", before, most)
	}
	if after := osThreads(t, before+team-1, time.Minute); after >= before+team {
		t.Errorf("threads: %d before, %d after 16 runs", before, after)
	}
}

// newWide makes a run whose batches are large enough for several threads.
func newWide(t testing.TB, hooks ...grapnel.Hook) *grapnel.Runner {
	t.Helper()
	rows := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer rows.Close()
	must[[]float32](t)(grapnel.AddNew[float32](rows, "input", 1024, 256))
	must[[]float32](t)(grapnel.AddNew[float32](rows, "target", 1024, 256))
	for _, tensor := range rows.All() {
		clear(must[[]float32](t)(grapnel.Data[float32](tensor)))
	}
	config := lineConfig(t)
	config.TrainCfg.MaxEpochs = nil
	options := &grapnel.Options{
		Overrides: []string{
			"train_dataloader.batch_size=512", "val_dataloader.batch_size=512", "train_cfg.max_epochs=1",
			"model.sequential.layers[0].linear.out_features=256",
		},
		TrainData: grapnel.InMemory(rows), ValData: grapnel.InMemory(rows), Hooks: hooks, Logger: discard,
	}
	config.TestDataloader, config.TestEvaluator = nil, nil
	return must[*grapnel.Runner](t)(grapnel.New(config, options))
}
