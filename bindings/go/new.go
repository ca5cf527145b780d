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

// New makes a runner of a config. options may be nil.
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
func NewFromJSON(config []byte, options *Options) (*Runner, error) {
	return newOfBytes(config, C.GRAPNEL_JSON, options)
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

func newRunner(options *Options,
	setConfig func(*C.grapnel_runner_options) *C.grapnel_status) (*Runner, error) {
	if err := compatible(); err != nil {
		return nil, err
	}
	made := C.grapnel_go_runner_options_create()
	if made.status != nil {
		return nil, take(made.status)
	}
	c := (*C.grapnel_runner_options)(made.object)
	r := &Runner{errors: new(callbackErrors), home: new(home)}
	err := take(setConfig(c))
	if err == nil {
		err = options.apply(c, r.errors, &r.loan)
	}
	if err == nil {
		// It may get a sample, and run the model on it.
		onOwnThread(func() {
			out := C.grapnel_go_runner_create(c)
			r.c, err = (*C.grapnel_runner)(out.object), r.errors.take(out.status)
		})
	}
	C.grapnel_runner_options_destroy(c)
	if err != nil {
		r.loan.end()
		return nil, err
	}
	// A net, for who forgets Close. It may wait for threads, as finalizers mustn't.
	runtime.SetFinalizer(r, func(r *Runner) { go r.Close() })
	return r, nil
}
