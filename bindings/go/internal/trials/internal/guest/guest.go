// Package guest is a small run with data and a hook of Go's, as
// tests/capi/runs/guest.c is one with C's.
package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"grapnel.dev/grapnel"
)

const config = `
model {
  sequential {
    layers { linear { out_features: 8 } }
    layers { batch_norm1d {} }
    layers { relu {} }
    layers { dropout { p: 0.25 } }
    layers { linear { out_features: 1 } }
    loss { mse {} }
  }
}
val_dataloader { batch_size: 8 }
val_evaluator { mse {} }
optim_wrapper { optimizer { adamw { lr: 0.01 } } }
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
work_dir: %q
train_dataloader { batch_size: 4 num_workers: %d sampler { shuffle: true } }
train_cfg { by_epoch: false max_iters: %d val_interval: %d }
default_hooks { checkpoint { by_epoch: false interval: %d max_keep_ckpts: 2 } }
randomness { seed: %d }
resume: %v
`

const samples, features = 32, 2

// A Plan is what differs between such runs.
type Plan struct {
	WorkDir    string
	MaxIters   int
	Seed       int
	NumWorkers int
	Interval   int // Iterations between validations, and between saves.
	Resume     bool
	Metrics    []grapnel.Metric // Beside the config's.
}

// A Guest is such a run.
type Guest struct {
	Runner *grapnel.Runner
	Hook   *Sum
}

// New makes one.
func New(plan Plan) (*Guest, error) {
	hook := new(Sum)
	text := fmt.Sprintf(config, plan.WorkDir, plan.NumWorkers, plan.MaxIters, plan.Interval,
		plan.Interval, plan.Seed, plan.Resume)
	runner, err := grapnel.NewFromText(text, &grapnel.Options{
		TrainData:  Data{},
		ValData:    Data{},
		ValMetrics: plan.Metrics,
		Hooks:      []grapnel.Hook{hook},
		Logger:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, err
	}
	return &Guest{runner, hook}, nil
}

// Data is y = x0 + 2 x1.
type Data struct{}

// Len returns the number of samples.
func (Data) Len() int { return samples }

func write(index int64, input, target []float32) {
	input[0] = float32(index) / samples
	input[1] = float32(index % 3)
	target[0] = input[0] + 2*input[1]
}

// Get adds a sample.
func (Data) Get(index int, sample *grapnel.Tensors) error {
	input, err := grapnel.AddNew[float32](sample, "input", features)
	if err != nil {
		return err
	}
	target, err := grapnel.AddNew[float32](sample, "target", 1)
	if err != nil {
		return err
	}
	write(int64(index), input, target)
	return nil
}

// GetBatch adds several.
func (Data) GetBatch(indices []int64, batch *grapnel.Tensors) error {
	inputs, err := grapnel.AddNew[float32](batch, "input", len(indices), features)
	if err != nil {
		return err
	}
	targets, err := grapnel.AddNew[float32](batch, "target", len(indices), 1)
	if err != nil {
		return err
	}
	for i, index := range indices {
		write(index, inputs[features*i:], targets[i:])
	}
	return nil
}

// Sum is a hook whose state is that of its iteration, or the run fails.
type Sum struct {
	Iters int64
	Sum   float64 // Of their losses.
}

// Name is the hook's.
func (*Sum) Name() string { return "sum" }

func (s *Sum) check(run *grapnel.Run) error {
	if run.Iter() != s.Iters {
		return grapnel.Errorf(grapnel.ErrUnavailable, "the hook's state is of another iteration")
	}
	return nil
}

// BeforeTrain looks.
func (s *Sum) BeforeTrain(run *grapnel.Run) error { return s.check(run) }

// BeforeTrainIter looks.
func (s *Sum) BeforeTrainIter(run *grapnel.Run) error { return s.check(run) }

// AfterTrainIter adds.
func (s *Sum) AfterTrainIter(run *grapnel.Run) error {
	if err := s.check(run); err != nil {
		return err
	}
	logVars, err := run.LogVars()
	if err != nil {
		return err
	}
	loss, ok := logVars.Find("loss")
	if !ok {
		return errors.New("there is no loss")
	}
	if err := run.AddScalar("train/sum", s.Sum); err != nil {
		return err
	}
	s.Iters++
	s.Sum += loss
	return nil
}

// SaveState is as C has the struct in memory.
func (s *Sum) SaveState() ([]byte, error) {
	return binary.Append(nil, binary.LittleEndian, s)
}

// LoadState is the other way round.
func (s *Sum) LoadState(state []byte) error {
	if len(state) != 16 {
		return errors.New("no state of ours")
	}
	_, err := binary.Decode(state, binary.LittleEndian, s)
	return err
}
