// Package emptyrun is a run that does next to nothing, to measure what is around
// it: its model computes nothing, and what writes and counts is off.
package emptyrun

import (
	"fmt"
	"io"
	"log/slog"

	"grapnel.dev/grapnel"
)

const config = `
work_dir: %q
train_cfg { by_epoch: false max_iters: 1000000000 }
train_dataloader { batch_size: 64 sampler { type: INFINITE } }
optim_wrapper { optimizer { sgd { lr: 0.01 } } }
default_hooks {
  off: "runtime_info" off: "timer" off: "sampler_seed" off: "logger" off: "param_scheduler"
  off: "checkpoint"
}
randomness { seed: 0 }
`

// New makes one with that data, and those hooks alone.
func New(workDir string, data grapnel.Dataset, hooks ...grapnel.Hook) (*grapnel.Runner, error) {
	parameters, err := grapnel.NewTensors()
	if err != nil {
		return nil, err
	}
	if err := grapnel.Add(parameters, "w", []float32{0}, 1); err != nil {
		return nil, err
	}
	return grapnel.NewFromText(fmt.Sprintf(config, workDir), &grapnel.Options{
		TrainData: data,
		Model:     model{parameters},
		Hooks:     hooks,
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

type model struct{ parameters *grapnel.Tensors }

func (m model) Parameters() *grapnel.Tensors { return m.parameters }

func (m model) TrainStep(_, gradients *grapnel.Tensors, losses *grapnel.Scalars) error {
	gradient, err := grapnel.AddNew[float32](gradients, "w", 1)
	if err != nil {
		return err
	}
	gradient[0] = 0
	return losses.Add("loss", 0)
}

// Rows and Floats are what a table has.
const Rows, Floats = 1797, 64

// A Table is rows of numbers, and their classes: data of Go's.
type Table struct {
	inputs  []float32
	targets []int64
}

// NewTable makes one.
func NewTable() *Table {
	t := &Table{make([]float32, Rows*Floats), make([]int64, Rows)}
	for i := range t.inputs {
		t.inputs[i] = float32(i%97) / 97
	}
	for i := range t.targets {
		t.targets[i] = int64(i % 10)
	}
	return t
}

// InMemory returns the same as data of the library's.
func (t *Table) InMemory() (grapnel.Dataset, error) {
	tensors, err := grapnel.NewTensors()
	if err != nil {
		return nil, err
	}
	if err := grapnel.Add(tensors, "input", t.inputs, Rows, Floats); err != nil {
		return nil, err
	}
	if err := grapnel.Add(tensors, "target", t.targets, Rows); err != nil {
		return nil, err
	}
	return grapnel.InMemory(tensors), nil
}

// Len returns the number of rows.
func (t *Table) Len() int { return Rows }

// Get adds a row.
func (t *Table) Get(index int, sample *grapnel.Tensors) error {
	if err := grapnel.Add(sample, "input", t.inputs[index*Floats:(index+1)*Floats],
		Floats); err != nil {
		return err
	}
	return grapnel.AddScalar(sample, "target", t.targets[index])
}

// GetBatch adds rows.
func (t *Table) GetBatch(indices []int64, batch *grapnel.Tensors) error {
	inputs, err := grapnel.AddNew[float32](batch, "input", len(indices), Floats)
	if err != nil {
		return err
	}
	targets, err := grapnel.AddNew[int64](batch, "target", len(indices))
	if err != nil {
		return err
	}
	for i, index := range indices {
		copy(inputs[i*Floats:(i+1)*Floats], t.inputs[index*Floats:])
		targets[i] = t.targets[index]
	}
	return nil
}
