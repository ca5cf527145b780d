package grapnel

/*
#include "callbacks.h"
#include "native.h"
*/
import "C"

import (
	"reflect"
	"runtime"
	"sync"
	"unsafe"
)

// A Dataset has samples by position. Batches, shuffling and resuming are the
// library's. With num_workers > 0 calls come on goroutines of the library's
// threads, ahead of the iteration that is going on; one at a time, unless the
// dataset says otherwise, also where one value is several of a Runner's datasets,
// but not where it is those of several Runners. A call must not close the Runner
// nor call it: ErrBusy.
//
// Optional are
//
//	GetBatch(indices []int64, batch *grapnel.Tensors) error
//	ConcurrentSafe() bool // Whether Get and GetBatch may be called at once.
//
// GetBatch adds tensors (len(indices), ...); indices are valid until it returns.
// It isn't used where the config has transforms. If it fails, the samples are
// got one by one.
type Dataset interface {
	// Len returns how many samples there are: at least one. It is called once.
	Len() int

	// Get adds to sample the tensors of sample index: "input", and maybe "target"
	// and extras of other names. Use [AddNew] or [Add].
	Get(index int, sample *Tensors) error
}

// DatasetFunc makes a dataset of n samples of a function.
func DatasetFunc(n int, get func(index int, sample *Tensors) error) Dataset {
	return &funcDataset{n, get}
}

type funcDataset struct {
	n   int
	get func(int, *Tensors) error
}

func (d *funcDataset) Len() int                             { return d.n }
func (d *funcDataset) Get(index int, sample *Tensors) error { return d.get(index, sample) }

// InMemory makes a dataset of tensors with a row for each sample: "input",
// (N, ...), and the like. Their memory is shared, and Go is not called for
// samples. The tensors may be closed once the Runner is made.
func InMemory(tensors *Tensors) Dataset { return &inMemory{tensors} }

type inMemory struct{ tensors *Tensors }

func (d *inMemory) Len() int {
	if _, first := d.tensors.At(0); first != nil {
		if shape := first.Shape(); len(shape) > 0 {
			return shape[0]
		}
	}
	return 0
}

// Get copies a row of each tensor.
func (d *inMemory) Get(index int, sample *Tensors) error {
	n := d.Len()
	if index < 0 || index >= n {
		return invalid("index: must be >= 0 and < %d, is %d", n, index)
	}
	for name, t := range d.tensors.All() {
		if err := addRow(sample, name, t, index, n); err != nil {
			return within(name, err)
		}
	}
	return nil
}

// addRow adds row index of n of t.
func addRow(sample *Tensors, name string, t *Tensor, index, n int) error {
	shape := t.Shape()
	if len(shape) == 0 || shape[0] != n {
		return invalid("must have %d rows, is %v", n, t)
	}
	elements, err := t.elements(t.DType())
	if err != nil {
		return err
	}
	if err := sample.check(); err != nil {
		return err
	}
	sizes, rank, err := shapeOf(shape[1:])
	if err != nil {
		return err
	}
	size := t.Len() / n * t.DType().Size()
	if elements.data == nil && size > 0 {
		return invalid("its elements don't lie in host memory, row-major and without gaps")
	}
	p, length := chars(name)
	status := C.grapnel_go_tensors_add_copy(sample.c, p, length, elements.dtype, sizes, rank,
		unsafe.Add(elements.data, index*size), C.size_t(size))
	runtime.KeepAlive(t)
	runtime.KeepAlive(sample)
	return take(status)
}

type batchGetter interface {
	GetBatch(indices []int64, batch *Tensors) error
}

type concurrentSafe interface{ ConcurrentSafe() bool }

type datasetSlot struct {
	dataset Dataset
	batches batchGetter // Or nil.
	mu      *sync.Mutex // Of calls, where another slot has the same dataset; or nil.
	errors  *callbackErrors
	lent    sync.Pool // Of *Tensors: calls may come several at once.
}

func (s *datasetSlot) lock() {
	if s.mu != nil {
		s.mu.Lock()
	}
}

func (s *datasetSlot) unlock() {
	if s.mu != nil {
		s.mu.Unlock()
	}
}

var datasetSlots slots[datasetSlot]

// setDatasets gives the datasets of each loop to options.
func (o *Options) setDatasets(options *C.grapnel_runner_options, errors *callbackErrors) error {
	given := [...]struct {
		name    string // What errors call it.
		mode    Mode
		dataset Dataset
	}{
		{"TrainData", ModeTrain, o.TrainData},
		{"ValData", ModeVal, o.ValData},
		{"TestData", ModeTest, o.TestData},
	}
	var slots []*datasetSlot
	for _, it := range given {
		if it.dataset == nil {
			continue
		}
		slot := &datasetSlot{dataset: it.dataset, errors: errors}
		if err := within(it.name, slot.set(options, it.mode, slots)); err != nil {
			return err
		}
		slots = append(slots, slot)
	}
	return nil
}

// set gives the dataset to options. others are those that were given before.
func (s *datasetSlot) set(options *C.grapnel_runner_options, mode Mode,
	others []*datasetSlot) error {
	if it, ok := s.dataset.(*inMemory); ok {
		if err := it.tensors.there("tensors"); err != nil {
			return err
		}
		status := C.grapnel_runner_options_set_tensors(options, C.grapnel_mode(mode), it.tensors.c)
		runtime.KeepAlive(it.tensors)
		return take(status)
	}
	if err := checkDataset(s.dataset); err != nil {
		return err
	}
	s.lent.New = func() any { return new(Tensors) }
	size := s.dataset.Len()
	var hasBatch bool
	s.batches, hasBatch = s.dataset.(batchGetter)
	it, ok := s.dataset.(concurrentSafe)
	safe := ok && it.ConcurrentSafe()
	if !safe {
		s.takeTurnsWith(others)
	}
	index := datasetSlots.add(s, s.errors.runner)
	status := C.grapnel_go_set_dataset(options, C.grapnel_mode(mode), C.int64_t(size), flag(safe),
		flag(hasBatch), C.uintptr_t(index))
	if status != nil {
		datasetSlots.remove(index)
	}
	return take(status)
}

// takeTurnsWith has the calls of one dataset in several loops come one at a time.
func (s *datasetSlot) takeTurnsWith(others []*datasetSlot) {
	if !reflect.TypeOf(s.dataset).Comparable() {
		return
	}
	for _, other := range others {
		if other.dataset != s.dataset {
			continue
		}
		if other.mu == nil {
			other.mu = new(sync.Mutex)
		}
		s.mu = other.mu
		return
	}
}

//export grapnelGoGet
func grapnelGoGet(slot C.uintptr_t, index C.int64_t, sample *C.grapnel_tensors) *C.grapnel_status {
	s := datasetSlots.get(uintptr(slot))
	lent := s.lent.Get().(*Tensors).borrow(sample, false)
	s.lock()
	status := s.errors.guardData("Dataset.Get", func() error {
		return s.dataset.Get(int(index), lent)
	})
	s.unlock()
	lent.expire()
	s.lent.Put(lent)
	return status
}

//export grapnelGoGetBatch
func grapnelGoGetBatch(slot C.uintptr_t, indices *C.int64_t, count C.size_t,
	batch *C.grapnel_tensors) *C.grapnel_status {
	s := datasetSlots.get(uintptr(slot))
	lent := s.lent.Get().(*Tensors).borrow(batch, false)
	s.lock()
	status := s.errors.guardData("Dataset.GetBatch", func() error {
		return s.batches.GetBatch(unsafe.Slice((*int64)(indices), count), lent)
	})
	s.unlock()
	lent.expire()
	s.lent.Put(lent)
	return status
}

//export grapnelGoDestroyDataset
func grapnelGoDestroyDataset(slot C.uintptr_t) { datasetSlots.remove(uintptr(slot)) }
