package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

// facts are what doesn't change as long as a runner lives, for any time.
type facts struct {
	encoded     []byte // The config.
	tensorNames []string
	stageTable  string
	workDir     string

	rank, localRank, worldSize int
	isMaster                   bool
}

func (f *facts) read(c *C.grapnel_runner) (err error) {
	if f.encoded, err = dataOf(C.grapnel_go_runner_config(c), take); err != nil {
		return err
	}
	if f.tensorNames, err = linesOf(C.grapnel_go_runner_tensor_names(c), take); err != nil {
		return err
	}
	if f.stageTable, err = textOf(C.grapnel_go_runner_stage_table(c), take); err != nil {
		return err
	}
	f.rank = int(C.grapnel_runner_rank(c))
	f.localRank = int(C.grapnel_runner_local_rank(c))
	f.worldSize = int(C.grapnel_runner_world_size(c))
	f.isMaster = C.grapnel_runner_is_master(c) != 0
	f.workDir, err = textOf(C.grapnel_go_runner_work_dir(c), take)
	return err
}

func (f *facts) config() (*grapnelpb.RunnerConfig, error) {
	config := new(grapnelpb.RunnerConfig)
	if err := proto.Unmarshal(f.encoded, config); err != nil {
		return nil, &Error{Code: ErrInternal, Message: "config: " + err.Error(), cause: err}
	}
	return config, nil
}

// TensorNames returns the names of the model's parameters, then of its buffers.
func (r *Runner) TensorNames() (names []string, err error) {
	err = r.anyTime(func() error {
		names = slices.Clone(r.facts.tensorNames)
		return nil
	})
	return names, err
}

// Config returns the config that is run: overrides and the work_dir are in it, with
// absolute paths. A field that nobody set stays unset.
func (r *Runner) Config() (config *grapnelpb.RunnerConfig, err error) {
	err = r.anyTime(func() error {
		config, err = r.facts.config()
		return err
	})
	return config, err
}

// StageTable returns, for people, a line for each stage where hooks act, with
// those in order. "go_progress" is this package's own, which Epoch, Iter and the
// contexts of evaluations are of.
func (r *Runner) StageTable() (table string, err error) {
	err = r.anyTime(func() error {
		table = r.facts.stageTable
		return nil
	})
	return table, err
}

// WorkDir returns where the run writes.
func (r *Runner) WorkDir() (path string, err error) {
	err = r.anyTime(func() error {
		path = r.facts.workDir
		return nil
	})
	return path, err
}

// Rank returns the place of this process among those that train together, as the
// config's launcher found them: 0 to WorldSize() - 1; 0 where it trains alone.
func (r *Runner) Rank() (rank int, err error) {
	err = r.anyTime(func() error {
		rank = r.facts.rank
		return nil
	})
	return rank, err
}

// LocalRank returns the same among those of this machine: for a device of its own.
func (r *Runner) LocalRank() (rank int, err error) {
	err = r.anyTime(func() error {
		rank = r.facts.localRank
		return nil
	})
	return rank, err
}

// WorldSize returns how many processes train together; 1 where this one trains
// alone.
func (r *Runner) WorldSize() (size int, err error) {
	err = r.anyTime(func() error {
		size = r.facts.worldSize
		return nil
	})
	return size, err
}

// IsMaster reports whether this is the rank that writes files and logs.
func (r *Runner) IsMaster() (isMaster bool, err error) {
	err = r.anyTime(func() error {
		isMaster = r.facts.isMaster
		return nil
	})
	return isMaster, err
}
