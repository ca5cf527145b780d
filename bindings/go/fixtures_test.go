package grapnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

func TestMain(m *testing.M) {
	grapnel.SetLogger(discard) // Warnings that tests ask for.
	code := m.Run()
	if live := liveAfterCollection(0); live != 0 && code == 0 {
		fmt.Fprintln(os.Stderr, "objects are alive at the end:", live)
		code = 1
	}
	os.Exit(code)
}

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

// liveAfterCollection collects until there are that many objects, or for long.
func liveAfterCollection(want int) int {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		if live := grapnel.LiveObjects(); live <= want || time.Now().After(end) {
			return live
		}
	}
}

// noLeaks fails a test that doesn't close what it opens. Not for parallel tests.
func noLeaks(t *testing.T) {
	t.Helper()
	live, goroutines := grapnel.LiveObjects(), runtime.NumGoroutine()
	t.Cleanup(func() {
		if now := grapnel.LiveObjects(); now > live {
			t.Errorf("objects alive: %d before, %d now", live, now)
		}
		end := time.Now().Add(time.Minute)
		for runtime.NumGoroutine() > goroutines && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
		}
		if now := runtime.NumGoroutine(); now > goroutines {
			t.Errorf("goroutines: %d before, %d now", goroutines, now)
		}
	})
}

func must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError fails unless err is target, and says text.
func wantError(t testing.TB, err error, target error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %v: %q", target, text)
	}
	if !errors.Is(err, target) || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %q, want %v: %q", err, target, text)
	}
}

func digitsDir() string {
	if dir := os.Getenv("GRAPNEL_DIGITS_DIR"); dir != "" {
		return dir
	}
	return "../../examples/digits"
}

// lineConfig is a run of 20 iterations, 2 epochs, in which a small network
// learns y = x0 + 2 x1. Its data is Go's: line.
func lineConfig(t testing.TB) *grapnelpb.RunnerConfig {
	mse := []*grapnelpb.MetricConfig{{
		Kind: &grapnelpb.MetricConfig_Mse{Mse: &grapnelpb.MeanSquaredErrorConfig{}},
	}}
	return &grapnelpb.RunnerConfig{
		WorkDir: proto.String(t.TempDir()),
		Model: &grapnelpb.ModelConfig{Kind: &grapnelpb.ModelConfig_Sequential{
			Sequential: &grapnelpb.SequentialConfig{
				Layers: []*grapnelpb.LayerConfig{{Kind: &grapnelpb.LayerConfig_Linear{
					Linear: &grapnelpb.LinearLayerConfig{OutFeatures: proto.Int64(1)},
				}}},
				Loss: &grapnelpb.LossConfig{Kind: &grapnelpb.LossConfig_Mse{Mse: &grapnelpb.MseLossConfig{}}},
			},
		}},
		TrainDataloader: &grapnelpb.DataLoaderConfig{BatchSize: proto.Int64(4)},
		ValDataloader:   &grapnelpb.DataLoaderConfig{BatchSize: proto.Int64(8)},
		TestDataloader:  &grapnelpb.DataLoaderConfig{BatchSize: proto.Int64(8)},
		TrainCfg:        &grapnelpb.TrainConfig{MaxEpochs: proto.Int64(2)},
		OptimWrapper: &grapnelpb.OptimWrapperConfig{Optimizer: &grapnelpb.OptimizerConfig{
			Kind: &grapnelpb.OptimizerConfig_Sgd{Sgd: &grapnelpb.SgdConfig{Lr: proto.Float64(0.1)}},
		}},
		ValEvaluator:  mse,
		TestEvaluator: mse,
		Randomness:    &grapnelpb.RandomnessConfig{Seed: proto.Int64(7)},
	}
}

const lineIters = 20

// line is the data.
var line = grapnel.DatasetFunc(40, func(index int, sample *grapnel.Tensors) error {
	input := []float32{float32(index) / 40, float32(index%3) / 3}
	if err := grapnel.Add(sample, "input", input, 2); err != nil {
		return err
	}
	return grapnel.Add(sample, "target", []float32{input[0] + 2*input[1]}, 1)
})

// lineOptions are those of such a run.
func lineOptions(hooks ...grapnel.Hook) *grapnel.Options {
	return &grapnel.Options{TrainData: line, ValData: line, TestData: line, Hooks: hooks,
		Logger: discard}
}

// newLine makes one, which is closed with the test.
func newLine(t testing.TB, hooks ...grapnel.Hook) *grapnel.Runner {
	t.Helper()
	return newRunner(t, lineConfig(t), lineOptions(hooks...))
}

func newRunner(t testing.TB, config *grapnelpb.RunnerConfig,
	options *grapnel.Options) *grapnel.Runner {
	t.Helper()
	runner := must[*grapnel.Runner](t)(grapnel.New(config, options))
	t.Cleanup(func() { check(t, runner.Close()) })
	return runner
}

// tensorOf copies a tensor of a runner's model.
func tensorOf(t testing.TB, runner *grapnel.Runner, name string) []float32 {
	t.Helper()
	tensor := must[*grapnel.Tensor](t)(runner.Tensor(name))
	defer tensor.Close()
	return must[[]float32](t)(grapnel.Values[float32](tensor))
}

var background = context.Background()
