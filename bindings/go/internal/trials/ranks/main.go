// Command ranks is one rank of a training. Its twins in C (tests/capi/runs/ranks.c)
// and Rust come to the same bytes:
//
//	ranks CONFIG WORK_DIR OUT FAILING_RANK
//
// It trains for two epochs, and to the end with a second runner. What its hook and
// the runners say of its place is in OUT.RANK.trace, name and bytes of each tensor
// in OUT.RANK.weights. On FAILING_RANK, -1 for none, the hook fails in the third
// epoch.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/trials/internal/weights"
)

var errPlanted = errors.New("planted")

// train trains to that epoch, hands over the runner, and closes it.
func train(config, workDir string, maxEpochs int, hook grapnel.Hook,
	use func(*grapnel.Runner) error) (err error) {
	runner, err := grapnel.Open(config, &grapnel.Options{
		Overrides: []string{
			"work_dir=" + workDir, fmt.Sprint("train_cfg.max_epochs=", maxEpochs), "resume=true",
		},
		Hooks: []grapnel.Hook{hook},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.Close()) }()
	if err := runner.Train(context.Background()); err != nil {
		return err
	}
	return use(runner)
}

// notePlace writes down what a runner says of its rank, which it returns.
func notePlace(runner *grapnel.Runner, trace *bytes.Buffer) (rank int, err error) {
	rank, err = runner.Rank()
	if err != nil {
		return 0, err
	}
	size, err := runner.WorldSize()
	if err != nil {
		return 0, err
	}
	localRank, err := runner.LocalRank()
	if err != nil {
		return 0, err
	}
	isMaster, err := runner.IsMaster()
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(trace, "runner: rank %d of %d, local %d, master %d\n", rank, size, localRank, bit(isMaster))
	return rank, nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func run(args []string) error {
	failingRank, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	trace := new(bytes.Buffer)
	hook := grapnel.HookFunc("place", func(run *grapnel.Run) error {
		epoch := run.Epoch() + 1
		fmt.Fprintf(trace, "epoch %d: rank %d of %d, master %d\n",
			epoch, run.Rank(), run.WorldSize(), bit(run.IsMaster()))
		if run.Rank() == failingRank && epoch == 3 {
			return errPlanted
		}
		return nil
	}, grapnel.AfterTrainEpoch)

	config, workDir, out := args[1], args[2], args[3]
	err = train(config, workDir, 2, hook, func(runner *grapnel.Runner) error {
		_, err := notePlace(runner, trace)
		return err
	})
	if err != nil {
		return err
	}
	return train(config, workDir, 4, hook, func(runner *grapnel.Runner) error {
		rank, err := notePlace(runner, trace)
		if err != nil {
			return err
		}
		values := new(bytes.Buffer)
		if err := weights.Write(runner, values); err != nil {
			return err
		}
		prefix := fmt.Sprintf("%s.%d.", out, rank)
		return errors.Join(os.WriteFile(prefix+"trace", trace.Bytes(), 0o666),
			os.WriteFile(prefix+"weights", values.Bytes(), 0o666))
	})
}

func main() {
	if len(os.Args) != 5 {
		os.Exit(99)
	}
	err := run(os.Args)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	// What failed here has its cause, what failed on another rank its message alone.
	if errors.Is(err, errPlanted) {
		fmt.Fprintln(os.Stderr, "it is this rank's own")
	} else if errors.Is(err, grapnel.ErrUnavailable) {
		fmt.Fprintln(os.Stderr, "it is another rank's")
	}
	os.Exit(1)
}
