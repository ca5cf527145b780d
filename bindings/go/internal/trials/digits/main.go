// Command digits trains the digits with a hook that writes down all that it
// sees. Its twins in C (tests/capi/runs/digits_train.c) and Rust write the same
// files, to the bit:
//
//	digits DATA_DIR WORK_DIR STEPS RESUME OUT
//
// STEPS are done one by one before the rest is trained in one call; all, if it
// is negative. With RESUME, 0 or 1, the runner is dropped after them, and
// another one resumes. OUT.trace has what the hook saw, OUT.weights name and
// bytes of each tensor, OUT.metrics a validation at the end.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/digits"
	"grapnel.dev/grapnel/internal/trials/internal/hexfloat"
	"grapnel.dev/grapnel/internal/trials/internal/weights"
)

const config = `
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 24 } }
    layers { relu {} }
    layers { dropout { p: 0.2 } }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_dataloader {
  batch_size: 64
  num_workers: 2
  sampler { shuffle: true }
}
val_dataloader { batch_size: 90 }
train_cfg { max_epochs: 3 }
optim_wrapper {
  optimizer { adamw { lr: 0.01 weight_decay: 0.05 } }
  accumulative_counts: 2
}
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 20 } }
val_evaluator { accuracy { topk: 1 } }
default_hooks {
  checkpoint {
    interval: 1
    save_best: "accuracy/top1"
    rule: "greater"
  }
}
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
randomness { seed: 3 }
`

type plan struct {
	dataDir, workDir string
	steps            int
	resume           bool
}

type outcome struct {
	trace, weights, metrics bytes.Buffer
}

// oneByOne hides GetBatch: the twins train by samples, and validate by batches.
type oneByOne struct{ data *digits.Data }

func (d oneByOne) Len() int                                     { return d.data.Len() }
func (d oneByOne) Get(index int, sample *grapnel.Tensors) error { return d.data.Get(index, sample) }

func (p *plan) newRunner(resume bool, out *outcome) (*grapnel.Runner, error) {
	train, err := digits.Read(p.dataDir, "train")
	if err != nil {
		return nil, err
	}
	test, err := digits.Read(p.dataDir, "test")
	if err != nil {
		return nil, err
	}
	return grapnel.NewFromText(config, &grapnel.Options{
		Overrides: []string{
			fmt.Sprintf("work_dir=%q", p.workDir),
			fmt.Sprintf("resume=%v", resume),
		},
		TrainData: oneByOne{train},
		ValData:   test,
		Hooks:     []grapnel.Hook{&tracer{trace: &out.trace}},
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

func (p *plan) train(out *outcome) (err error) {
	ctx := context.Background()
	runner, err := p.newRunner(false, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.Close()) }()
	more := true
	for i := 0; more && (p.steps < 0 || i < p.steps); i++ {
		step, err := runner.Step(ctx)
		if err != nil {
			return err
		}
		more = step.More
	}
	if p.resume {
		if err := runner.Close(); err != nil {
			return err
		}
		if runner, err = p.newRunner(true, out); err != nil {
			return err
		}
	}
	if more {
		if err := runner.Train(ctx); err != nil {
			return err
		}
	}
	if err := weights.Write(runner, &out.weights); err != nil {
		return err
	}
	metrics, err := runner.Val(ctx)
	if err != nil {
		return err
	}
	for name, value := range metrics.All() {
		fmt.Fprintf(&out.metrics, "  %s %s\n", name, hexfloat.Format(value))
	}
	return nil
}

func run(args []string) error {
	if len(args) != 6 {
		return errors.New("usage: digits DATA_DIR WORK_DIR STEPS RESUME OUT")
	}
	steps, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	out := new(outcome)
	it := &plan{dataDir: args[1], workDir: args[2], steps: steps, resume: args[4] != "0"}
	if err := it.train(out); err != nil {
		return err
	}
	for suffix, content := range map[string]*bytes.Buffer{
		".trace": &out.trace, ".weights": &out.weights, ".metrics": &out.metrics,
	} {
		if err := os.WriteFile(args[5]+suffix, content.Bytes(), 0o666); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
