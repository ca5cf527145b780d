// Command killed trains, from where it was before if it was. Its twins in C
// (tests/capi/runs/killed.c) and Rust come to the same bytes, however often
// each was killed:
//
//	killed WORK_DIR MAX_ITERS OUTCOME
//
// The file OUTCOME has name and bytes of each tensor, then the hook's state.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"grapnel.dev/grapnel/internal/trials/internal/guest"
	"grapnel.dev/grapnel/internal/trials/internal/weights"
)

func run(args []string) (err error) {
	maxIters, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	it, err := guest.New(guest.Plan{
		WorkDir: args[1], MaxIters: maxIters, Seed: 3, NumWorkers: 1, Interval: 20, Resume: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Runner.Close()) }()
	if err := it.Runner.Train(context.Background()); err != nil {
		return err
	}
	out := new(bytes.Buffer)
	if err := weights.Write(it.Runner, out); err != nil {
		return err
	}
	state, err := it.Hook.SaveState()
	if err != nil {
		return err
	}
	return os.WriteFile(args[3], append(out.Bytes(), state...), 0o666)
}

func main() {
	if len(os.Args) != 4 {
		os.Exit(99)
	}
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
