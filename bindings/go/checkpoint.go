package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"runtime"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

// ListCheckpoints returns the names of the complete checkpoints in a folder, the
// newest first.
func ListCheckpoints(dir string) ([]string, error) {
	p, n := chars(dir)
	return linesOf(C.grapnel_go_checkpoint_list(p, n), take)
}

// LatestCheckpoint returns the path of the newest checkpoint in a folder that
// can be read whole, as `resume` finds it; ErrNotFound if there is none.
func LatestCheckpoint(dir string) (string, error) {
	p, n := chars(dir)
	return textOf(C.grapnel_go_checkpoint_latest(p, n), take)
}

// VerifyCheckpoint reads all of a checkpoint and checks every digest:
// ErrDataLoss, naming the file, if one is wrong.
func VerifyCheckpoint(path string) error {
	p, n := chars(path)
	return take(C.grapnel_checkpoint_verify(p, n))
}

// A Checkpoint is one that is read, all of it. It is for one goroutine at a time.
type Checkpoint struct {
	c       *C.grapnel_checkpoint // nil once closed.
	owner   *checkpointOwner
	tensors map[string]*Tensors // By section: lent until Close.
}

// OpenCheckpoint reads a checkpoint.
func OpenCheckpoint(path string) (*Checkpoint, error) {
	p, n := chars(path)
	out := C.grapnel_go_checkpoint_open(p, n)
	if out.status != nil {
		return nil, take(out.status)
	}
	owner := &checkpointOwner{(*C.grapnel_checkpoint)(out.object)}
	runtime.SetFinalizer(owner, (*checkpointOwner).destroy)
	return &Checkpoint{c: owner.c, owner: owner, tensors: map[string]*Tensors{}}, nil
}

// checkpointOwner has the finalizer, and no pointers back: cycles with one are
// not collected.
type checkpointOwner struct{ c *C.grapnel_checkpoint }

func (o *checkpointOwner) destroy() { C.grapnel_checkpoint_destroy(o.c) }

// Epoch returns the epochs that were completed when it was made.
func (c *Checkpoint) Epoch() int64 {
	defer runtime.KeepAlive(c)
	return int64(C.grapnel_checkpoint_epoch(c.c))
}

// Iter returns the iterations that were completed when it was made.
func (c *Checkpoint) Iter() int64 {
	defer runtime.KeepAlive(c)
	return int64(C.grapnel_checkpoint_iter(c.c))
}

// Manifest returns what the checkpoint says of itself.
func (c *Checkpoint) Manifest() (*grapnelpb.CheckpointManifest, error) {
	if c.c == nil {
		return nil, gone("checkpoint")
	}
	encoded, err := dataOf(C.grapnel_go_checkpoint_manifest(c.c), take)
	runtime.KeepAlive(c)
	if err != nil {
		return nil, err
	}
	manifest := new(grapnelpb.CheckpointManifest)
	if err := proto.Unmarshal(encoded, manifest); err != nil {
		return nil, &Error{Code: ErrDataLoss, Message: "manifest: " + err.Error(), cause: err}
	}
	return manifest, nil
}

// Sections returns the names of its sections of tensors: "model", "optimizer",
// "ema" and the like.
func (c *Checkpoint) Sections() ([]string, error) {
	if c.c == nil {
		return nil, gone("checkpoint")
	}
	names, err := linesOf(C.grapnel_go_checkpoint_sections(c.c), take)
	runtime.KeepAlive(c)
	return names, err
}

// Tensors returns a section, borrowed until Close, and to be read only;
// ErrNotFound if there is none of that name.
func (c *Checkpoint) Tensors(section string) (*Tensors, error) {
	if c.c == nil {
		return nil, gone("checkpoint")
	}
	if ts, ok := c.tensors[section]; ok {
		return ts, nil
	}
	p, n := chars(section)
	out := C.grapnel_go_checkpoint_tensors(c.c, p, n)
	runtime.KeepAlive(c)
	if out.status != nil {
		return nil, take(out.status)
	}
	ts := (&Tensors{owner: c.owner}).borrow((*C.grapnel_tensors)(out.object), true)
	c.tensors[section] = ts
	return ts, nil
}

// Close lets go of what was read. It may be called twice.
func (c *Checkpoint) Close() error {
	if c.c == nil {
		return nil
	}
	runtime.SetFinalizer(c.owner, nil)
	c.owner.destroy()
	c.c = nil
	for _, ts := range c.tensors {
		ts.expire()
	}
	return nil
}
