package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"unicode"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/internal/trials/internal/hexfloat"
)

// tracer writes down each event, with what there is to see.
type tracer struct {
	trace  *bytes.Buffer
	events int64 // What is kept in checkpoints.
}

func (t *tracer) Name() string               { return "tracer" }
func (t *tracer) Priority() grapnel.Priority { return grapnel.PriorityLowest }

// Stages are all.
func (t *tracer) Stages() (stages []grapnel.Stage) {
	for stage := grapnel.Setup; stage <= grapnel.AfterRun; stage++ {
		stages = append(stages, stage)
	}
	return stages
}

func (t *tracer) OnStage(run *grapnel.Run) error {
	training := 0
	if run.Training() {
		training = 1
	}
	fmt.Fprintf(t.trace, "%s epoch %d of %d iter %d of %d mode %d training %d batch %d of %d\n",
		snakeCase(run.Stage().String()), run.Epoch(), run.MaxEpochs(), run.Iter(), run.MaxIters(),
		int(run.Mode()), training, run.BatchIndex(), run.NumBatches())
	t.events++
	switch run.Stage() {
	case grapnel.BeforeTrainIter, grapnel.BeforeValIter:
		return t.noteBatch(run)
	case grapnel.AfterTrainIter:
		return t.noteAfterTrainIter(run)
	case grapnel.AfterOptimizerStep:
		return t.noteTensor(run)
	case grapnel.AfterTrainEpoch:
		if run.Epoch()+1 == 2 {
			return run.Save("extra_2")
		}
	case grapnel.AfterValIter:
		return t.notePredictions(run)
	case grapnel.AfterValEpoch:
		metrics, err := run.Metrics()
		if err != nil {
			return err
		}
		t.noteScalars(metrics)
	case grapnel.AfterSaveCheckpoint:
		path, err := run.SavedPath()
		if err != nil {
			return err
		}
		fmt.Fprintf(t.trace, "  saved %s\n", filepath.Base(path))
	case grapnel.AfterRun:
		return run.Log(slog.LevelInfo, "the tracer is done")
	case grapnel.OnError:
		failed := new(grapnel.Error)
		if !errors.As(run.Err(), &failed) {
			return errors.New("there is no error")
		}
		fmt.Fprintf(t.trace, "  error %s\n", failed.Message)
	}
	return nil
}

func (t *tracer) SaveState() ([]byte, error) {
	return binary.LittleEndian.AppendUint64(nil, uint64(t.events)), nil
}

func (t *tracer) LoadState(state []byte) error {
	if len(state) != 8 {
		return errors.New("no state of ours")
	}
	t.events = int64(binary.LittleEndian.Uint64(state))
	t.note("loaded", float64(t.events))
	return nil
}

func (t *tracer) note(name string, value float64) {
	fmt.Fprintf(t.trace, "  %s %s\n", name, hexfloat.Format(value))
}

func (t *tracer) noteScalars(scalars *grapnel.Scalars) {
	for name, value := range scalars.All() {
		t.note(name, value)
	}
}

func (t *tracer) noteBatch(run *grapnel.Run) error {
	batch, err := run.Batch()
	if err != nil {
		return err
	}
	input, target := batch.Find("input"), batch.Find("target")
	if input == nil || target == nil {
		return errors.New("the batch isn't as it should be")
	}
	pixels, err := grapnel.Data[float32](input)
	if err != nil {
		return err
	}
	labels, err := grapnel.Data[int64](target)
	if err != nil {
		return err
	}
	sum := 0.0
	for _, pixel := range pixels {
		sum += float64(pixel)
	}
	t.note("size", float64(input.Shape()[0]))
	t.note("pixels", sum)
	t.note("label", float64(labels[0]))
	return nil
}

func (t *tracer) noteAfterTrainIter(run *grapnel.Run) error {
	logVars, err := run.LogVars()
	if err != nil {
		return err
	}
	t.noteScalars(logVars)
	loss, err := run.Scalar("train/loss")
	if err != nil {
		return err
	}
	t.note("train/loss", loss)
	return run.AddScalar("train/twice", 2*loss)
}

func (t *tracer) notePredictions(run *grapnel.Run) error {
	predictions, err := run.Predictions()
	if err != nil {
		return err
	}
	output := predictions.Find("output")
	if output == nil {
		return errors.New("there is no output")
	}
	logits, err := grapnel.Data[float32](output)
	if err != nil {
		return err
	}
	t.note("logit", float64(logits[0]))
	return nil
}

func (t *tracer) noteTensor(run *grapnel.Run) error {
	bias, err := run.Tensor("1.bias")
	if err != nil {
		return err
	}
	values, err := grapnel.Data[float32](bias)
	if err != nil {
		return err
	}
	t.note("bias", float64(values[0]))
	return nil
}

// snakeCase: "AfterTrainIter" is "after_train_iter".
func snakeCase(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
