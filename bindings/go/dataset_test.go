package grapnel_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
)

// batches is line with GetBatch.
type batches struct {
	grapnel.Dataset
	failing bool
	calls   atomic.Int32
}

func (d *batches) GetBatch(indices []int64, batch *grapnel.Tensors) error {
	d.calls.Add(1)
	if d.failing {
		return errors.New("no batches today")
	}
	inputs, err := grapnel.AddNew[float32](batch, "input", len(indices), 2)
	if err != nil {
		return err
	}
	targets, err := grapnel.AddNew[float32](batch, "target", len(indices), 1)
	if err != nil {
		return err
	}
	for i, index := range indices {
		inputs[2*i], inputs[2*i+1] = float32(index)/40, float32(index%3)/3
		targets[i] = inputs[2*i] + 2*inputs[2*i+1]
	}
	return nil
}

// rowsOf returns all of a dataset as tensors of rows.
func rowsOf(t testing.TB, dataset grapnel.Dataset) *grapnel.Tensors {
	t.Helper()
	rows := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	t.Cleanup(func() { rows.Close() })
	var inputs, targets []float32
	for i := range dataset.Len() {
		sample := must[*grapnel.Tensors](t)(grapnel.NewTensors())
		check(t, dataset.Get(i, sample))
		inputs = append(inputs, must[[]float32](t)(grapnel.Values[float32](sample.Find("input")))...)
		targets = append(targets, must[[]float32](t)(grapnel.Values[float32](sample.Find("target")))...)
		check(t, sample.Close())
	}
	n := dataset.Len()
	check(t, grapnel.Add(rows, "input", inputs, n, 2))
	check(t, grapnel.Add(rows, "target", targets, n, 1))
	return rows
}

func weightsWith(t *testing.T, data grapnel.Dataset, workers int32) []float32 {
	t.Helper()
	config := lineConfig(t)
	config.TrainDataloader.NumWorkers = proto.Int32(workers)
	options := lineOptions()
	options.TrainData = data
	runner := newRunner(t, config, options)
	check(t, runner.Train(background))
	return tensorOf(t, runner, "0.weight")
}

func TestDataComesTheSameOnEveryWay(t *testing.T) {
	noLeaks(t)
	want := weightsWith(t, line, 0)
	broken := &batches{Dataset: line, failing: true}
	whole := &batches{Dataset: line}
	for name, data := range map[string]grapnel.Dataset{
		"batches": whole, "broken batches": broken, "in memory": grapnel.InMemory(rowsOf(t, line)),
		"concurrent": concurrent{line}, "rows": grapnel.InMemory(rowsOf(t, grapnel.InMemory(rowsOf(t,
			line)))),
	} {
		for _, workers := range []int32{0, 2} {
			if got := weightsWith(t, data, workers); !slices.Equal(got, want) {
				t.Errorf("%s, %d workers: got %v, want %v", name, workers, got, want)
			}
		}
	}
	if whole.calls.Load() == 0 || broken.calls.Load() == 0 {
		t.Error("batches weren't asked for")
	}
}

type concurrent struct{ grapnel.Dataset }

func (concurrent) ConcurrentSafe() bool { return true }

// meeting's Get returns when two calls of it are going on.
type meeting struct {
	grapnel.Dataset
	safe bool
	two  chan struct{}
	once sync.Once
	now  atomic.Int32
	most atomic.Int32
}

func (d *meeting) ConcurrentSafe() bool { return d.safe }

func (d *meeting) Get(index int, sample *grapnel.Tensors) error {
	now := d.now.Add(1)
	defer d.now.Add(-1)
	if now > d.most.Load() {
		d.most.Store(now)
	}
	if d.safe && now == 2 {
		d.once.Do(func() { close(d.two) })
	}
	if d.safe && index > 0 { // The first is of New, and alone.
		<-d.two
	}
	return d.Dataset.Get(index, sample)
}

func TestCallsComeAtOnceWhereTheyMay(t *testing.T) {
	noLeaks(t)
	together := &meeting{Dataset: line, safe: true, two: make(chan struct{})}
	weightsWith(t, together, 2) // Or it would wait for ever.
	alone := &meeting{Dataset: line}
	weightsWith(t, alone, 2)
	if most := alone.most.Load(); most != 1 {
		t.Errorf("%d calls were at once", most)
	}
}

func TestADatasetThatFailsEndsTheRun(t *testing.T) {
	mine := errors.New("the disk is gone")
	for _, workers := range []int32{0, 2} {
		noLeaks(t)
		config := lineConfig(t)
		config.TrainDataloader.NumWorkers = proto.Int32(workers)
		options := lineOptions()
		var broken atomic.Bool
		options.TrainData = grapnel.DatasetFunc(40, func(index int, sample *grapnel.Tensors) error {
			if broken.Load() && index == 20 {
				return mine
			}
			return line.Get(index, sample)
		})
		runner := newRunner(t, config, options)
		broken.Store(true)
		wantError(t, runner.Train(background), mine, "the disk is gone")
		broken.Store(false)
		check(t, runner.Train(background))
	}
}

func TestDataThatCanNotBe(t *testing.T) {
	noLeaks(t)
	closed := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	check(t, closed.Close())
	mine := errors.New("mine")
	for _, test := range []struct {
		data   grapnel.Dataset
		target error
		text   string
	}{
		{grapnel.DatasetFunc(0, line.Get), grapnel.ErrInvalidArgument, "TrainData"},
		{grapnel.InMemory(nil), grapnel.ErrInvalidArgument, "TrainData: tensors: there is none"},
		{grapnel.InMemory(closed), grapnel.ErrClosed, "TrainData: tensors"},
		{grapnel.DatasetFunc(4, func(int, *grapnel.Tensors) error { return mine }), mine, "mine"},
	} {
		options := lineOptions()
		options.TrainData = test.data
		_, err := grapnel.New(lineConfig(t), options)
		wantError(t, err, test.target, test.text)
	}
	if n := grapnel.InMemory(closed).Len(); n != 0 {
		t.Errorf("got %d", n)
	}

	rows := rowsOf(t, line)
	check(t, grapnel.Add(rows, "odd", []float32{1}, 1))
	sample := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer sample.Close()
	wantError(t, grapnel.InMemory(rows).Get(3, sample), grapnel.ErrInvalidArgument,
		"odd: must have 40 rows")
	wantError(t, grapnel.InMemory(rows).Get(40, sample), grapnel.ErrInvalidArgument,
		"index: must be >= 0 and < 40, is 40")
	wantError(t, grapnel.InMemory(rows).Get(1, closed), grapnel.ErrClosed, "input: tensors")
}

// kept is a sample that is used when Get has returned.
func TestASampleIsValidUntilGetReturns(t *testing.T) {
	noLeaks(t)
	var kept *grapnel.Tensors
	options := lineOptions()
	options.TrainData = grapnel.DatasetFunc(40, func(index int, sample *grapnel.Tensors) error {
		kept = sample
		if sample.Len() != 0 {
			return fmt.Errorf("there are %d tensors", sample.Len())
		}
		return line.Get(index, sample)
	})
	newRunner(t, lineConfig(t), options)
	wantError(t, grapnel.AddScalar(kept, "late", float32(1)), grapnel.ErrClosed, "tensors")
}
