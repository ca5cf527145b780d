package grapnel

/*
#include "native.h"
*/
import "C"

import (
	"runtime"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

// New makes a runner of a config. options may be nil. A panic in a method that is
// called once, such as Dataset.Len or Hook.Name, is a [*PanicError].
func New(config *grapnelpb.RunnerConfig, options *Options) (*Runner, error) {
	encoded, err := proto.Marshal(config)
	if err != nil {
		return nil, invalid("config: %v", err)
	}
	return newOfBytes(encoded, C.GRAPNEL_BINARY, options)
}

// NewFromText makes a runner of a grapnel.runner.v1.RunnerConfig in protobuf's
// text format. options may be nil.
func NewFromText(config string, options *Options) (*Runner, error) {
	return newOfBytes([]byte(config), C.GRAPNEL_TEXT, options)
}

// NewFromJSON is NewFromText for protobuf's JSON.
func NewFromJSON(config string, options *Options) (*Runner, error) {
	return newOfBytes([]byte(config), C.GRAPNEL_JSON, options)
}

// Open makes a runner of a config's file, as the command grapnel reads it.
// Relative paths of the config start at the file's folder. options may be nil.
func Open(path string, options *Options) (*Runner, error) {
	return newRunner(options, func(c *C.grapnel_runner_options) *C.grapnel_status {
		p, n := chars(path)
		return C.grapnel_runner_options_set_config_file(c, p, n)
	})
}

func newOfBytes(config []byte, encoding C.grapnel_encoding, options *Options) (*Runner, error) {
	return newRunner(options, func(c *C.grapnel_runner_options) *C.grapnel_status {
		p, n := bytesOf(config)
		return C.grapnel_runner_options_set_config(c, p, n, encoding)
	})
}

// numRunners numbers them, from 1.
var numRunners atomic.Uint32

func newRunner(options *Options,
	setConfig func(*C.grapnel_runner_options) *C.grapnel_status) (runner *Runner, err error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	made := C.grapnel_go_runner_options_create()
	if made.status != nil {
		return nil, take(made.status)
	}
	c := (*C.grapnel_runner_options)(made.object)
	r := &Runner{
		errors:   &callbackErrors{runner: numRunners.Add(1)},
		home:     new(home),
		single:   new(stepper),
		progress: C.grapnel_go_progress_create(),
	}
	returned := false
	defer func() {
		if !returned {
			if value := recover(); value != nil { // nil: runtime.Goexit, which goes on.
				err = panicked("an option", value)
			}
		}
		C.grapnel_runner_options_destroy(c)
		if !returned || err != nil {
			runner = nil
			r.destroy()
		}
	}()
	err = r.build(c, options, setConfig)
	returned = true
	// A net, for who forgets Close. It may wait for threads, as finalizers mustn't.
	runtime.SetFinalizer(r, func(r *Runner) { go r.Close() })
	return r, err
}

func (r *Runner) build(c *C.grapnel_runner_options, options *Options,
	setConfig func(*C.grapnel_runner_options) *C.grapnel_status) error {
	if r.progress == nil {
		return &Error{Code: ErrResourceExhausted, Message: "no memory"}
	}
	if err := take(setConfig(c)); err != nil {
		return err
	}
	if err := take(C.grapnel_go_progress_add(r.progress, c)); err != nil {
		return err
	}
	if err := options.apply(c, r.errors, &r.loan); err != nil {
		return err
	}
	var err error
	onOwnThread(func() { // It may get a sample, and run the model on it.
		out := C.grapnel_go_runner_create(c)
		r.c, err = (*C.grapnel_runner)(out.object), r.errors.take(out.status)
	})
	if err != nil {
		return err
	}
	return r.facts.read(r.c)
}
