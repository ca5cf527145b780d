package grapnel

/*
#include "native.h"
*/
import "C"

import "log/slog"

// A Run is what a hook sees of a run, and acts on. It is valid until the call
// returns that it was handed to: then its methods return ErrClosed, or zeros. The
// next call of the same hook is handed the same Run, and objects that it gives,
// which are of that call then: keep none of them.
type Run struct {
	c      *C.grapnel_run // nil outside of a call.
	stage  Stage
	errors *callbackErrors

	// What was handed out, which goes with the call.
	batch, predictions Tensors
	logVars, metrics   Scalars
	tensors            []*Tensor // Those of before stay, to be handed out again.
	numTensors         int
}

// Stage returns where the run is.
func (r *Run) Stage() Stage { return r.stage }

// Epoch returns the completed epochs: in the hooks of an epoch, it isn't counted
// yet.
func (r *Run) Epoch() int64 { return int64(C.grapnel_run_epoch(r.c)) }

// Iter returns the completed iterations: in the hooks of an iteration, it isn't
// counted yet.
func (r *Run) Iter() int64 { return int64(C.grapnel_run_iter(r.c)) }

// MaxEpochs returns how many epochs the training has: 1 where it is counted in
// iterations, 0 where the runner doesn't train.
func (r *Run) MaxEpochs() int64 { return int64(C.grapnel_run_max_epochs(r.c)) }

// MaxIters returns how many iterations the training has: what is done and what
// is left.
func (r *Run) MaxIters() int64 { return int64(C.grapnel_run_max_iters(r.c)) }

// Mode returns which loop runs.
func (r *Run) Mode() Mode { return Mode(C.grapnel_run_mode(r.c)) }

// Training reports whether a training is going on, its validations included.
func (r *Run) Training() bool { return C.grapnel_run_training(r.c) != 0 }

// BatchIndex returns the place of the iteration in its loop, from 0; -1 at
// stages that are none of an iteration.
func (r *Run) BatchIndex() int64 { return int64(C.grapnel_run_batch_idx(r.c)) }

// NumBatches returns how many iterations the loop has; -1 as BatchIndex.
func (r *Run) NumBatches() int64 { return int64(C.grapnel_run_num_batches(r.c)) }

// Rank returns the place of this process among those that train together, as the
// config's launcher found them: 0 to WorldSize() - 1; 0 where it trains alone.
func (r *Run) Rank() int { return int(C.grapnel_run_rank(r.c)) }

// WorldSize returns how many processes train together; 1 where this one trains
// alone.
func (r *Run) WorldSize() int { return int(C.grapnel_run_world_size(r.c)) }

// IsMaster reports whether this is the rank that writes files and logs. A hook is
// called on every rank and is to do the same on each, but for this: one that
// writes a file of its own asks first. Save, Log and AddScalar see to it by
// themselves.
func (r *Run) IsMaster() bool { return C.grapnel_run_is_master(r.c) != 0 }

// Batch returns the batch of an iteration, "input", "target" and extras, each
// (N, ...), at its stages. To be read only.
func (r *Run) Batch() (*Tensors, error) {
	if r.c == nil {
		return nil, gone("run")
	}
	return lentTensors(C.grapnel_go_run_batch(r.c), &r.batch)
}

// LogVars returns what the step gave to log, at AfterTrainIter. Waits for the
// device: called in every iteration, it takes away what the device computes
// ahead.
func (r *Run) LogVars() (*Scalars, error) {
	if r.c == nil {
		return nil, gone("run")
	}
	return lentScalars(C.grapnel_go_run_log_vars(r.c), &r.logVars)
}

// Predictions returns "output" and the losses by name, at AfterValIter and
// AfterTestIter. To be read only.
func (r *Run) Predictions() (*Tensors, error) {
	if r.c == nil {
		return nil, gone("run")
	}
	return lentTensors(C.grapnel_go_run_predictions(r.c), &r.predictions)
}

// Metrics returns what an evaluation came to, at AfterValEpoch and
// AfterTestEpoch; metrics that are texts are left out.
func (r *Run) Metrics() (*Scalars, error) {
	if r.c == nil {
		return nil, gone("run")
	}
	return lentScalars(C.grapnel_go_run_metrics(r.c), &r.metrics)
}

// SavedPath returns the path of the checkpoint, at AfterSaveCheckpoint.
func (r *Run) SavedPath() (string, error) {
	if r.c == nil {
		return "", gone("run")
	}
	out := C.grapnel_go_run_saved_path(r.c)
	if out.status != nil {
		return "", take(out.status)
	}
	return C.GoString((*C.char)(out.object)), nil
}

// Err returns what the run failed with, at OnError; nil at other stages. It is
// ErrCanceled if the run was cut short and saved, as by a context. An error that
// OnError returns itself is logged.
func (r *Run) Err() error {
	out := C.grapnel_go_run_error(r.c)
	if out.status != nil {
		C.grapnel_status_destroy(out.status)
		return nil
	}
	return r.errors.read((*C.grapnel_status)(out.object))
}

// Tensor returns the model's parameter or buffer of that name: not a copy.
// Writing to it, by [Data] or [SetValues], writes to the model; take it anew in
// each call, so that others notice.
func (r *Run) Tensor(name string) (*Tensor, error) {
	if r.c == nil {
		return nil, gone("run")
	}
	p, n := chars(name)
	out := C.grapnel_go_run_tensor(r.c, p, n)
	if out.status != nil {
		return nil, take(out.status)
	}
	if r.numTensors == len(r.tensors) {
		r.tensors = append(r.tensors, new(Tensor))
	}
	t := r.tensors[r.numTensors]
	r.numTensors++
	t.c = (*C.grapnel_tensor)(out.object)
	return t, nil
}

// Scalar returns the newest value of a history of the run: "train/loss",
// "train/lr", "val/accuracy/top1" and the like. ErrNotFound if there is none.
// Waits for the device, as LogVars.
func (r *Run) Scalar(name string) (float64, error) {
	if r.c == nil {
		return 0, gone("run")
	}
	p, n := chars(name)
	out := C.grapnel_go_run_scalar(r.c, p, n)
	if out.status != nil {
		return 0, take(out.status)
	}
	return float64(out.value), nil
}

// AddScalar adds to a history, which is logged and written to records as the
// others are. Names begin with "train/", "val/" or "test/".
func (r *Run) AddScalar(name string, value float64) error {
	if r.c == nil {
		return gone("run")
	}
	p, n := chars(name)
	return take(C.grapnel_run_add_scalar(r.c, p, n, C.double(value)))
}

// Save saves a checkpoint of that name, "iter_100", once all hooks of this stage
// have acted. At AfterTrainIter, AfterTrainEpoch, AfterTrain and, in training,
// AfterValEpoch.
func (r *Run) Save(name string) error {
	if r.c == nil {
		return gone("run")
	}
	p, n := chars(name)
	return take(C.grapnel_run_save(r.c, p, n))
}

// RequestStop ends the training, which then has come out well. The first reason
// is kept, but that of StopNow takes the place of one of StopAfterEpoch.
func (r *Run) RequestStop(at StopAt, reason string) error {
	if r.c == nil {
		return gone("run")
	}
	p, n := chars(reason)
	return take(C.grapnel_run_request_stop(r.c, C.grapnel_stop(at), p, n))
}

// Log writes a line to the run's log. Levels below slog.LevelWarn are INFO.
func (r *Run) Log(level slog.Level, message string) error {
	if r.c == nil {
		return gone("run")
	}
	p, n := chars(message)
	return take(C.grapnel_run_log(r.c, severityOf(level), p, n))
}

// end lets go of what was handed out.
func (r *Run) end() {
	r.c = nil
	if r.batch.c != nil {
		r.batch.expire()
	}
	if r.predictions.c != nil {
		r.predictions.expire()
	}
	if r.logVars.Len() > 0 {
		r.logVars.expire()
	}
	if r.metrics.Len() > 0 {
		r.metrics.expire()
	}
	if r.numTensors > 0 {
		for _, t := range r.tensors[:r.numTensors] {
			t.destroy()
		}
		r.numTensors = 0
	}
}

func lentTensors(out C.grapnel_go_handle, ts *Tensors) (*Tensors, error) {
	if out.status != nil {
		return nil, take(out.status)
	}
	return ts.borrow((*C.grapnel_tensors)(out.object), true), nil
}

func lentScalars(out C.grapnel_go_handle, s *Scalars) (*Scalars, error) {
	if out.status != nil {
		return nil, take(out.status)
	}
	return s.fill((*C.grapnel_scalars)(out.object)), nil
}
