package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
)

// A pass has the samples of when it began, and all of them.
func TestAPassHasWhatThereWas(t *testing.T) {
	log := openLog(t, filepath.Join(t.TempDir(), "samples"))
	appendTo(t, log, numbered(20))
	s := newStream(log)
	begin(t, s, 0)
	first := read(t, s, 20)
	appendTo(t, log, numbered(10))
	end(t, s)
	begin(t, s, 0)
	if again := read(t, s, 20); !slices.Equal(again, first) {
		t.Error("the pass has another order now")
	}
	end(t, s)
	begin(t, s, 1)
	if second := read(t, s, 30); slices.Equal(second[:20], first) {
		t.Error("the second pass has the order of the first one")
	}
	end(t, s)
}

func TestAStreamGoesOnWhereItWas(t *testing.T) {
	log := openLog(t, filepath.Join(t.TempDir(), "samples"))
	appendTo(t, log, numbered(20))
	s := newStream(log)
	for pass := range int64(3) {
		begin(t, s, pass)
		read(t, s, 20)
	}
	begin(t, s, 3)
	read(t, s, 7)
	state, err := s.SaveState()
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, s, 13)

	appendTo(t, log, numbered(5))
	s = newStream(log)
	begin(t, s, 3)
	if err := s.LoadState(state); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, 13); !slices.Equal(got, want) {
		t.Error("it goes on with others")
	}
	end(t, s)
	if n, learned := s.learned(3); n != 20 || !learned {
		t.Errorf("got %d, %v", n, learned)
	}
	if _, learned := s.learned(4); learned {
		t.Error("the fourth pass counts before it is over")
	}
	if _, learned := s.learned(0); learned {
		t.Error("0 is a limit")
	}
	begin(t, s, 4)
	if n, learned := s.learned(1); n != 25 || learned {
		t.Errorf("got %d, %v", n, learned)
	}
}

func TestStatesThatCanNotBe(t *testing.T) {
	log := openLog(t, filepath.Join(t.TempDir(), "samples"))
	appendTo(t, log, numbered(3))
	for _, it := range []struct {
		state []byte
		says  string
	}{
		{nil, "too short"},
		{[]byte{3, 1}, "too short"},
		{[]byte{4, 1, 0}, "is behind 1 of 4 samples, and there are 3"},
		{[]byte{2, 3, 0}, "is behind 3 of 2 samples"},
	} {
		s := newStream(log)
		begin(t, s, 0)
		if err := s.LoadState(it.state); err == nil || !strings.Contains(err.Error(), it.says) {
			t.Errorf("%v: got %v", it.state, err)
		}
	}
}

func begin(t *testing.T, s *stream, pass int64) {
	t.Helper()
	if err := s.BeginPass(pass); err != nil {
		t.Fatal(err)
	}
}

// read returns the next n targets and the first pixels that aren't 0.
func read(t *testing.T, s *stream, n int) (got []float32) {
	t.Helper()
	for range n {
		to, err := grapnel.NewTensors()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Next(to); err != nil {
			t.Fatal(err)
		}
		target, err := grapnel.Values[int64](to.Find("target"))
		if err != nil {
			t.Fatal(err)
		}
		input, err := grapnel.Values[float32](to.Find("input"))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, float32(target[0]), slices.Max(input))
		to.Close()
	}
	return got
}

func end(t *testing.T, s *stream) {
	t.Helper()
	to, err := grapnel.NewTensors()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := s.Next(to); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

// A training that is saved within a pass and goes on when more was posted has
// the weights, to the bit, of one that went on at once: for both read ahead and
// not.
func TestAResumedTrainingIsTheSame(t *testing.T) {
	digits := readDigits(t, "train")
	for _, workers := range []int32{0, 1} {
		whole := trainInParts(t, digits, workers, false)
		parts := trainInParts(t, digits, workers, true)
		if !slices.Equal(whole, parts) {
			t.Errorf("%d workers: the weights are others", workers)
		}
	}
}

// trainInParts trains 20 iterations; after 7, within the second pass, more
// samples come, and maybe a new runner.
func trainInParts(t *testing.T, digits []sample, workers int32, resume bool) []float32 {
	t.Helper()
	dir := t.TempDir()
	log := openLog(t, filepath.Join(dir, "samples"))
	appendTo(t, log, digits[:300])
	config, err := readConfig("", dir)
	if err != nil {
		t.Fatal(err)
	}
	config.TrainCfg.MaxIters = proto.Int64(20)
	config.TrainDataloader.NumWorkers = proto.Int32(workers)
	open := func() *grapnel.Runner {
		runner, err := grapnel.New(config, &grapnel.Options{TrainStream: newStream(log)})
		if err != nil {
			t.Fatal(err)
		}
		return runner
	}
	runner := open()
	defer func() { runner.Close() }()
	for step, err := range runner.Steps(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		if step.Iter == 7 {
			break
		}
	}
	if resume {
		if err := runner.Save("iter_7"); err != nil {
			t.Fatal(err)
		}
		runner.Close()
		appendTo(t, log, digits[300:500])
		runner = open()
	} else {
		appendTo(t, log, digits[300:500])
	}
	if err := runner.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	weights, err := runner.Tensor("0.weight")
	if err != nil {
		t.Fatal(err)
	}
	defer weights.Close()
	values, err := grapnel.Values[float32](weights)
	if err != nil {
		t.Fatal(err)
	}
	return values
}
