package grapnel

/*
#include "callbacks.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"os"
	"time"
)

// Options are what a run has beside its config. The zero value is a run that is
// all in its config.
type Options struct {
	// Fields on top of the config: "train_cfg.max_epochs=20". Applied in order.
	Overrides []string

	// Where relative paths of the config start. "": for Open, at the file's folder,
	// else at the process's current one.
	BaseDir string

	// Behind those of the config, in this order within a priority.
	Hooks []Hook

	// Data of a loop, in place of what the config describes.
	TrainData, ValData, TestData Dataset
	// What is trained on, in place of TrainData. The config's train_cfg.by_epoch is
	// false then.
	TrainStream Stream

	// In place of the config's model.
	Model Model
	// For a model from the config that has no loss there.
	Loss Loss

	// Beside those of the config.
	ValMetrics, TestMetrics []Metric

	// Lines of the run's log go there, and not to a file in the work_dir. They come
	// one after the other, on a goroutine of the runner's. Default: the file.
	Logger *slog.Logger

	// Lines of the run's log go there too; on a terminal, with a line below them
	// that says how far the run is. It must stay open as long as the Runner.
	// Usually os.Stderr. Default: nowhere.
	Terminal *os.File

	// Gets the records of the run too. Default: nobody does. As Logger, it must not
	// close the Runner nor call it: ErrBusy.
	Records RecordFunc

	// How long to wait for another run that trains in the work_dir to end, before
	// ErrAborted. New and Open wait, and nothing interrupts them: a service that
	// must react gives a short time, and tries again. Default: not at all.
	WaitForLock time.Duration

	// The Runner won't train, so that nothing for it is opened or locked: it may
	// evaluate beside a training.
	EvaluateOnly bool
}

// loan is what a runner uses as long as it lives, and does not own.
type loan struct {
	logSlot, recordSlot uintptr
	terminal            *os.File
}

func (l *loan) end() {
	if l.logSlot != 0 {
		logSlots.remove(l.logSlot)
	}
	if l.recordSlot != 0 {
		recordSlots.remove(l.recordSlot)
	}
	*l = loan{}
}

// apply sets all of o, in place of which nil may be.
func (o *Options) apply(options *C.grapnel_runner_options, errors *callbackErrors,
	loan *loan) error {
	if o == nil {
		return nil
	}
	for _, f := range []func() error{
		func() error { return o.applyConfig(options) },
		func() error { return o.applyLogs(options, errors, loan) },
		func() error { return o.setDatasets(options, errors) },
		func() error { return setStream(options, o.TrainStream, errors) },
		func() error { return setModel(options, o.Model, errors) },
		func() error { return setLoss(options, o.Loss, errors) },
		func() error { return addMetrics(options, "ValMetrics", ModeVal, o.ValMetrics, errors) },
		func() error { return addMetrics(options, "TestMetrics", ModeTest, o.TestMetrics, errors) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	for _, hook := range o.Hooks {
		if err := addHook(options, hook, errors); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) applyConfig(options *C.grapnel_runner_options) error {
	if o.BaseDir != "" {
		p, n := chars(o.BaseDir)
		if err := take(C.grapnel_runner_options_set_base_dir(options, p, n)); err != nil {
			return within("BaseDir", err)
		}
	}
	for _, assignment := range o.Overrides {
		p, n := chars(assignment)
		if err := take(C.grapnel_runner_options_override(options, p, n)); err != nil {
			return err
		}
	}
	if o.EvaluateOnly {
		if err := take(C.grapnel_runner_options_set_for_training(options, 0)); err != nil {
			return err
		}
	}
	if o.WaitForLock == 0 {
		return nil
	}
	return within("WaitForLock", take(C.grapnel_runner_options_set_wait_for_lock(options,
		C.double(o.WaitForLock.Seconds()))))
}

func (o *Options) applyLogs(options *C.grapnel_runner_options, errors *callbackErrors,
	loan *loan) error {
	if o.Logger != nil {
		loan.logSlot = logSlots.add(&logSlot{logger: o.Logger}, errors.runner)
		err := take(C.grapnel_go_set_runner_log(options, C.uintptr_t(loan.logSlot)))
		if err != nil {
			return err
		}
	}
	if o.Records != nil {
		loan.recordSlot = recordSlots.add(&recordSlot{f: o.Records}, errors.runner)
		if err := take(C.grapnel_go_set_records(options, C.uintptr_t(loan.recordSlot))); err != nil {
			return err
		}
	}
	if o.Terminal == nil {
		return nil
	}
	loan.terminal = o.Terminal
	if int32(o.Terminal.Fd()) < 0 {
		return within("Terminal", gone("file"))
	}
	return within("Terminal", take(C.grapnel_runner_options_set_terminal_fd(options,
		C.int32_t(o.Terminal.Fd()))))
}

func addMetrics(options *C.grapnel_runner_options, name string, mode Mode, metrics []Metric,
	errors *callbackErrors) error {
	for i, metric := range metrics {
		if err := addMetric(options, fmt.Sprintf("%s[%d]", name, i), mode, metric, errors); err != nil {
			return err
		}
	}
	return nil
}
