package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// A trainer trains on the samples that there are and that come, and has a
// predictor of what was learned.
type trainer struct {
	config  *grapnelpb.RunnerConfig
	samples *sampleLog
	log     *slog.Logger

	refresh  time.Duration // Between two times that the predictor gets newer weights.
	replicas int           // Predictions that are made at the same time.
	passes   int64         // Over the same samples, before it waits for more; 0: no limit.

	predictor atomic.Pointer[grapnel.Predictor] // nil until there is a run.

	mu       sync.Mutex
	progress progress // But for what others know: see now.
}

// What a trainer does.
const (
	stateWaiting  = "waiting" // For the first sample.
	stateTraining = "training"
	stateIdle     = "idle" // There is nothing new to learn.
	stateFailed   = "failed"
	stateDone     = "done"    // All iterations of the config are trained.
	stateStopped  = "stopped" // And saved: the process ends.
)

// progress is what GET /progress shows.
type progress struct {
	State string `json:"state"`
	// Completed iterations, and how many there were when this process began.
	Iter    int64 `json:"iter"`
	BeganAt int64 `json:"began_at"`
	// Of the last iteration; null before it, or if it isn't finite.
	Loss         *float64 `json:"loss"`
	LearningRate *float64 `json:"learning_rate"`
	// That were posted.
	Samples int `json:"samples"`
	// Completed iterations when the weights were taken that predict.
	PredictorIter int64 `json:"predictor_iter"`
	// Why training failed.
	Error string `json:"error,omitempty"`
}

// now returns the progress.
func (t *trainer) now() progress {
	t.mu.Lock()
	p := t.progress
	t.mu.Unlock()
	p.Samples = t.samples.len()
	if predictor := t.predictor.Load(); predictor != nil {
		p.PredictorIter = predictor.Iter()
	}
	return p
}

func (t *trainer) update(change func(*progress)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.progress)
}

func (t *trainer) setState(state string) { t.update(func(p *progress) { p.State = state }) }

// run trains until ctx is done, which saves. The predictor stays.
func (t *trainer) run(ctx context.Context) {
	err := t.train(ctx)
	t.update(func(p *progress) {
		switch {
		case err == nil:
			p.State = stateDone
		case errors.Is(err, context.Cause(ctx)):
			p.State = stateStopped
		default:
			p.State, p.Error = stateFailed, err.Error()
		}
	})
	if p := t.now(); p.State == stateFailed {
		t.log.Error("training failed", "iter", p.Iter, "error", err)
	} else {
		t.log.Info("training ended", "state", p.State, "iter", p.Iter)
	}
}

func (t *trainer) train(ctx context.Context) error {
	// A runner asks for a sample when it is made: layers take their sizes from it.
	t.samples.wait(ctx, 1)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	stream := newStream(t.samples)
	runner, err := grapnel.New(t.config, &grapnel.Options{
		TrainStream: stream,
		Hooks:       []grapnel.Hook{grapnel.HookFunc("begins", t.begin, grapnel.BeforeTrain)},
	})
	if err != nil {
		return err
	}
	defer runner.Close()
	predictor, err := runner.Predictor(grapnel.WeightsEvaluated, t.replicas)
	if err != nil {
		return err
	}
	t.predictor.Store(predictor)

	refreshing, stop := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		t.keepFresh(refreshing, predictor)
	}()
	defer func() {
		stop()
		<-stopped
	}()
	for step, err := range runner.Steps(ctx) {
		if err != nil {
			return err
		}
		if err := t.report(runner, step); err != nil {
			return err
		}
		if n, learned := stream.learned(t.passes); learned && n == t.samples.len() {
			if err := t.idle(ctx, runner, step, n); err != nil {
				return err
			}
		}
	}
	return predictor.Refresh()
}

// begin is called when the run has loaded what it goes on from.
func (t *trainer) begin(run *grapnel.Run) error {
	t.update(func(p *progress) {
		p.State, p.BeganAt, p.Iter = stateTraining, run.Iter(), run.Iter()
	})
	t.log.Info("training", "from_iter", run.Iter(), "samples", t.samples.len())
	return t.predictor.Load().Refresh()
}

// keepFresh gives the predictor newer weights from time to time.
func (t *trainer) keepFresh(ctx context.Context, predictor *grapnel.Predictor) {
	ticker := time.NewTicker(t.refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// It waits for the iteration that is going on. If it fails, as it does
		// before the run has begun, the weights of before stay.
		err := predictor.Refresh()
		if err != nil && !errors.Is(err, grapnel.ErrFailedPrecondition) {
			t.log.Warn("the predictor keeps its weights", "iter", predictor.Iter(), "error", err)
		}
	}
}

// report tells where the training is.
func (t *trainer) report(runner *grapnel.Runner, step grapnel.Step) error {
	loss, err := runner.Scalar("train/loss")
	if err != nil {
		return err
	}
	rate, err := runner.Scalar("train/lr")
	if err != nil {
		return err
	}
	t.update(func(p *progress) {
		p.Iter, p.Loss, p.LearningRate = step.Iter, finite(loss), finite(rate)
	})
	return nil
}

// idle waits until there are more than n samples.
func (t *trainer) idle(ctx context.Context, runner *grapnel.Runner, at grapnel.Step, n int) error {
	// Neither a kill nor a question should find less than was learned.
	if err := runner.Save(fmt.Sprintf("iter_%d", at.Iter)); err != nil {
		return err
	}
	if err := t.predictor.Load().Refresh(); err != nil {
		return err
	}
	t.setState(stateIdle)
	t.log.Info("idle", "iter", at.Iter, "samples", n)
	t.samples.wait(ctx, n+1)
	t.setState(stateTraining)
	return nil
}

// errNoWeights is for a prediction before anything was learned.
var errNoWeights = grapnel.Errorf(grapnel.ErrFailedPrecondition,
	"there are no weights yet: post samples first")

// predict returns what the network gives for each image. Any goroutine may call
// it.
func (t *trainer) predict(ctx context.Context, images []sample) ([][]float32, error) {
	predictor := t.predictor.Load()
	if predictor == nil {
		return nil, errNoWeights
	}
	pixels := make([]float32, len(images)*numPixels)
	for i := range images {
		scale(pixels[i*numPixels:], images[i].pixels[:])
	}
	input, err := grapnel.NewTensor(pixels, len(images), 1, 8, 8)
	if err != nil {
		return nil, err
	}
	defer input.Close()
	output, err := predictor.Predict(ctx, input)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	values, err := grapnel.Values[float32](output)
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, len(images))
	for i := range rows {
		rows[i] = values[i*len(values)/len(rows) : (i+1)*len(values)/len(rows)]
	}
	return rows, nil
}

// close lets go of the predictor. No prediction is going on, nor run.
func (t *trainer) close() {
	if predictor := t.predictor.Load(); predictor != nil {
		predictor.Close()
	}
}

// finite returns nil for what JSON can't have.
func finite(value float64) *float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil
	}
	return &value
}
