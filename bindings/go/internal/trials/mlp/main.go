// Command mlp trains the MLP of tools/bench on demand: for each number that a
// line of stdin has, it makes as many steps and prints the nanoseconds that one
// took. Data and a hook that does nothing are Go's. tools/bench/languages.py
// lets it take turns with others.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"strconv"
	"time"

	"grapnel.dev/grapnel"
)

const config = `
work_dir: %q
model {
  sequential {
    layers { linear { out_features: 128 } }
    layers { relu {} }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_cfg { by_epoch: false max_iters: 1000000000 }
train_dataloader { batch_size: 32 sampler { type: INFINITE } }
optim_wrapper { optimizer { sgd { lr: 0.01 } } }
default_hooks {
  checkpoint { save_last: false }
  logger { interval: 1000000000 interval_exp_name: 1000000000 }
}
randomness { seed: 0 }
`

const rows, floats, classes = 2048, 784, 10

type table struct {
	inputs  []float32
	targets []int64
}

func newTable() *table {
	t := &table{make([]float32, rows*floats), make([]int64, rows)}
	for i := range t.inputs {
		t.inputs[i] = float32(i*7919%2001)/1000 - 1
	}
	for i := range t.targets {
		t.targets[i] = int64(i * 31 % classes)
	}
	return t
}

func (t *table) Len() int { return rows }

func (t *table) Get(index int, sample *grapnel.Tensors) error {
	return errors.Join(
		grapnel.Add(sample, "input", t.inputs[index*floats:(index+1)*floats], floats),
		grapnel.AddScalar(sample, "target", t.targets[index]))
}

func (t *table) GetBatch(indices []int64, batch *grapnel.Tensors) error {
	inputs, err := grapnel.AddNew[float32](batch, "input", len(indices), floats)
	if err != nil {
		return err
	}
	targets, err := grapnel.AddNew[int64](batch, "target", len(indices))
	if err != nil {
		return err
	}
	for i, index := range indices {
		copy(inputs[i*floats:(i+1)*floats], t.inputs[index*floats:])
		targets[i] = t.targets[index]
	}
	return nil
}

type noop struct{}

func (noop) Name() string                        { return "nothing" }
func (noop) AfterTrainIter(_ *grapnel.Run) error { return nil }

func run() error {
	dir, err := os.MkdirTemp("", "grapnel_mlp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	runner, err := grapnel.NewFromText(fmt.Sprintf(config, dir), &grapnel.Options{
		TrainData: newTable(),
		Hooks:     []grapnel.Hook{noop{}},
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return err
	}
	defer runner.Close()
	return serve(runner.Steps(context.Background()))
}

// serve makes the steps that stdin asks for, all of one loop.
func serve(steps iter.Seq2[grapnel.Step, error]) error {
	lines := bufio.NewScanner(os.Stdin)
	asked, left := 0, 0
	var begin time.Time
	next := func() bool {
		if !lines.Scan() {
			return false
		}
		var err error
		if asked, err = strconv.Atoi(lines.Text()); err != nil || asked < 1 {
			return false
		}
		left, begin = asked, time.Now()
		return true
	}
	if !next() {
		return lines.Err()
	}
	for _, err := range steps {
		if err != nil {
			return err
		}
		if left--; left > 0 {
			continue
		}
		fmt.Printf("%.1f\n", float64(time.Since(begin).Nanoseconds())/float64(asked))
		if !next() {
			return lines.Err()
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
