package grapnel_test

import (
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// endless has passes of 10 samples of line, each one further on.
type endless struct {
	pass int64
	at   int
	fail error
}

func (s *endless) BeginPass(pass int64) error {
	s.pass, s.at = pass, 0
	return nil
}

func (s *endless) Next(sample *grapnel.Tensors) error {
	if s.fail != nil {
		return s.fail
	}
	if s.at == 10 {
		// What is added at the end doesn't count.
		if err := grapnel.AddScalar(sample, "input", float32(1)); err != nil {
			return err
		}
		return io.EOF
	}
	s.at++
	return line.Get((int(s.pass)*10+s.at)%40, sample)
}

// seekable can go where it was.
type seekable struct{ endless }

func (s *seekable) SaveState() ([]byte, error)   { return []byte{byte(s.at)}, nil }
func (s *seekable) LoadState(state []byte) error { s.at = int(state[0]); return nil }

func streamConfig(t testing.TB) *grapnelpb.RunnerConfig {
	config := lineConfig(t)
	config.TrainCfg = &grapnelpb.TrainConfig{ByEpoch: proto.Bool(false), MaxIters: proto.Int64(13)}
	return config
}

func streamOptions(stream grapnel.Stream, hooks ...grapnel.Hook) *grapnel.Options {
	options := lineOptions(hooks...)
	options.TrainData, options.TrainStream = nil, stream
	return options
}

func TestAStreamIsTrainedAndResumed(t *testing.T) {
	noLeaks(t)
	whole := newRunner(t, streamConfig(t), streamOptions(&endless{}))
	check(t, whole.Train(background))
	want := tensorOf(t, whole, "0.weight")

	for _, make := range []func() grapnel.Stream{
		func() grapnel.Stream { return &endless{} },
		func() grapnel.Stream { return &seekable{} },
	} {
		for _, workers := range []int32{0, 1} {
			config := streamConfig(t)
			config.TrainDataloader.NumWorkers = proto.Int32(workers)
			runner := newRunner(t, config, streamOptions(make()))
			for step, err := range runner.Steps(background) {
				check(t, err)
				if step.Iter == 7 {
					break
				}
			}
			check(t, runner.Save("iter_7"))
			check(t, runner.Close())
			config.Resume = proto.Bool(true)
			resumed := newRunner(t, config, streamOptions(make()))
			check(t, resumed.Train(background))
			if got := tensorOf(t, resumed, "0.weight"); !slices.Equal(got, want) {
				t.Errorf("%T, %d workers: got %v, want %v", make(), workers, got, want)
			}
		}
	}
}

// silent adds nothing.
type silent struct{ endless }

func (*silent) Next(*grapnel.Tensors) error { return nil }

func TestAStreamThatFails(t *testing.T) {
	noLeaks(t)
	mine := errors.New("the line is dead")
	stream := &endless{}
	runner := newRunner(t, streamConfig(t), streamOptions(stream))
	stream.fail = mine
	wantError(t, runner.Train(background), mine, "the line is dead")
	stream.fail = nil
	check(t, runner.Train(background))

	_, err := grapnel.New(streamConfig(t), streamOptions(&silent{}))
	wantError(t, err, grapnel.ErrInvalidArgument, "must return io.EOF")
}
