package grapnel_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// savingConfig saves after every epoch.
func savingConfig(t testing.TB) *grapnelpb.RunnerConfig {
	config := lineConfig(t)
	config.DefaultHooks = &grapnelpb.DefaultHooksConfig{
		Checkpoint: &grapnelpb.CheckpointHookConfig{Interval: proto.Int64(1)},
	}
	return config
}

func TestCheckpointsWithoutARunner(t *testing.T) {
	noLeaks(t)
	config := savingConfig(t)
	runner := newRunner(t, config, lineOptions())
	check(t, runner.Train(background))
	dir := config.GetWorkDir()
	if names := must[[]string](t)(grapnel.ListCheckpoints(dir)); !slices.Equal(names,
		[]string{"epoch_2", "epoch_1"}) {
		t.Errorf("got %v", names)
	}
	path := must[string](t)(grapnel.LatestCheckpoint(dir))
	if path != filepath.Join(dir, "epoch_2") {
		t.Errorf("got %q", path)
	}
	check(t, grapnel.VerifyCheckpoint(path))

	checkpoint := must[*grapnel.Checkpoint](t)(grapnel.OpenCheckpoint(path))
	if checkpoint.Epoch() != 2 || checkpoint.Iter() != lineIters {
		t.Errorf("got %d, %d", checkpoint.Epoch(), checkpoint.Iter())
	}
	manifest := must[*grapnelpb.CheckpointManifest](t)(checkpoint.Manifest())
	if manifest.GetProgress().GetIter() != lineIters {
		t.Errorf("got %v", manifest)
	}
	sections := must[[]string](t)(checkpoint.Sections())
	if !slices.Contains(sections, "model") {
		t.Errorf("got %v", sections)
	}
	model := must[*grapnel.Tensors](t)(checkpoint.Tensors("model"))
	if again := must[*grapnel.Tensors](t)(checkpoint.Tensors("model")); again != model {
		t.Error("it is another one")
	}
	weight := model.Find("0.weight")
	if got := must[[]float32](t)(grapnel.Values[float32](weight)); !slices.Equal(got, tensorOf(t,
		runner, "0.weight")) {
		t.Errorf("got %v", got)
	}
	wantError(t, grapnel.SetValues(weight, []float32{1, 2}), grapnel.ErrFailedPrecondition,
		"read only")
	check(t, model.Close()) // It is borrowed: nothing happens.
	_, err := checkpoint.Tensors("none")
	wantError(t, err, grapnel.ErrNotFound, "none")
	check(t, checkpoint.Close())
	check(t, checkpoint.Close())
	_, err = grapnel.Values[float32](weight)
	wantError(t, err, grapnel.ErrClosed, "")
	_, err = checkpoint.Tensors("model")
	wantError(t, err, grapnel.ErrClosed, "checkpoint")
	_, err = checkpoint.Sections()
	wantError(t, err, grapnel.ErrClosed, "")
	_, err = checkpoint.Manifest()
	wantError(t, err, grapnel.ErrClosed, "")
	if checkpoint.Epoch() != 0 || checkpoint.Iter() != 0 {
		t.Error("a closed one has progress")
	}
}

func TestADamagedCheckpointIsKnown(t *testing.T) {
	noLeaks(t)
	config := savingConfig(t)
	check(t, newRunner(t, config, lineOptions()).Train(background))
	path := filepath.Join(config.GetWorkDir(), "epoch_2")
	file := filepath.Join(path, "model.safetensors")
	content := must[[]byte](t)(os.ReadFile(file))
	content[len(content)-1] ^= 1
	check(t, os.WriteFile(file, content, 0o666))
	wantError(t, grapnel.VerifyCheckpoint(path), grapnel.ErrDataLoss, "model.safetensors")
	latest := must[string](t)(grapnel.LatestCheckpoint(config.GetWorkDir()))
	if filepath.Base(latest) != "epoch_1" {
		t.Errorf("got %q", latest)
	}
}

func TestACheckpointThatNobodyClosesIsCollected(t *testing.T) {
	config := savingConfig(t)
	runner := newRunner(t, config, lineOptions())
	check(t, runner.Train(background))
	check(t, runner.Close())
	before := liveAfterCollection(0)
	func() {
		path := filepath.Join(config.GetWorkDir(), "epoch_2")
		checkpoint := must[*grapnel.Checkpoint](t)(grapnel.OpenCheckpoint(path))
		must[*grapnel.Tensors](t)(checkpoint.Tensors("model")).Find("0.weight")
	}()
	if live := liveAfterCollection(before); live > before {
		t.Errorf("objects alive: %d before, %d now", before, live)
	}
}

func TestNoCheckpoints(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	if names := must[[]string](t)(grapnel.ListCheckpoints(dir)); names != nil {
		t.Errorf("got %v", names)
	}
	_, err := grapnel.LatestCheckpoint(dir)
	wantError(t, err, grapnel.ErrNotFound, dir)
	wantError(t, grapnel.VerifyCheckpoint(dir+"/none"), grapnel.ErrNotFound, "none")
}

func TestARunBeginsWithAPth(t *testing.T) {
	noLeaks(t)
	config := savingConfig(t)
	config.DefaultHooks.Checkpoint.AlsoWrite = []string{"pth"}
	trained := newRunner(t, config, lineOptions())
	check(t, trained.Train(background))
	path := filepath.Join(config.GetWorkDir(), "epoch_2.pth")

	config = lineConfig(t)
	config.LoadFrom = proto.String(path)
	runner := newRunner(t, config, lineOptions())
	must[*grapnel.Scalars](t)(runner.Test(background))
	for _, name := range []string{"0.weight", "0.bias"} {
		got, want := tensorOf(t, runner, name), tensorOf(t, trained, name)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}

	content := must[[]byte](t)(os.ReadFile(path))
	content[100] ^= 1 // Of the pickle.
	check(t, os.WriteFile(path, content, 0o666))
	config = lineConfig(t)
	config.LoadFrom = proto.String(path)
	_, err := grapnel.New(config, lineOptions())
	wantError(t, err, grapnel.ErrDataLoss, "epoch_2.pth")
}

func TestSafetensorsComeBack(t *testing.T) {
	noLeaks(t)
	ts := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	check(t, grapnel.Add(ts, "b", []float32{1, 2}, 2))
	check(t, grapnel.Add(ts, "a", []int64{3}, 1))
	path := filepath.Join(t.TempDir(), "some.safetensors")
	check(t, grapnel.WriteSafetensors(path, ts))
	check(t, ts.Close())
	wantError(t, grapnel.WriteSafetensors(path, ts), grapnel.ErrClosed, "tensors")
	read := must[*grapnel.Tensors](t)(grapnel.ReadSafetensors(path))
	defer read.Close()
	if got := must[[]float32](t)(grapnel.Data[float32](read.Find("b"))); !slices.Equal(got,
		[]float32{1, 2}) {
		t.Errorf("got %v", got)
	}
	if read.Len() != 2 {
		t.Errorf("got %d", read.Len())
	}
	_, err := grapnel.ReadSafetensors(path + ".none")
	wantError(t, err, grapnel.ErrNotFound, "none")
}
