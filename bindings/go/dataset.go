package grapnel

/*
#include "callbacks.h"
#include "native.h"
*/
import "C"

import (
	"sync"
	"unsafe"
)

// A Dataset has samples by position. Batches, shuffling and resuming are the
// library's. With num_workers > 0 calls come on goroutines of the library's
// threads, ahead of the iteration that is going on; one at a time, unless the
// dataset says otherwise.
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
			return int(shape[0])
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
	if len(shape) == 0 || shape[0] != int64(n) {
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
	return take(C.grapnel_go_tensors_add_copy(sample.c, p, length, elements.dtype, sizes, rank,
		unsafe.Add(elements.data, index*size), C.size_t(size)))
}

type batchGetter interface {
	GetBatch(indices []int64, batch *Tensors) error
}

type datasetSlot struct {
	dataset Dataset
	batches batchGetter // Or nil.
	errors  *callbackErrors
	lent    sync.Pool // Of *Tensors: calls may come several at once.
}

var datasetSlots slots[datasetSlot]

// setDataset gives a dataset to options. name is what errors call it.
func setDataset(options *C.grapnel_runner_options, name string, mode Mode, dataset Dataset,
	errors *callbackErrors) error {
	if dataset == nil {
		return nil
	}
	if it, ok := dataset.(*inMemory); ok {
		if it.tensors == nil || it.tensors.c == nil {
			return within(name, gone("tensors"))
		}
		return within(name, take(C.grapnel_runner_options_set_tensors(options, C.grapnel_mode(mode),
			it.tensors.c)))
	}
	slot := &datasetSlot{dataset: dataset, errors: errors}
	slot.lent.New = func() any { return new(Tensors) }
	var hasBatch, threadSafe C.int32_t
	if it, ok := dataset.(batchGetter); ok {
		slot.batches, hasBatch = it, 1
	}
	if it, ok := dataset.(interface{ ConcurrentSafe() bool }); ok && it.ConcurrentSafe() {
		threadSafe = 1
	}
	index := datasetSlots.add(slot)
	status := C.grapnel_go_set_dataset(options, C.grapnel_mode(mode), C.int64_t(dataset.Len()),
		threadSafe, hasBatch, C.uintptr_t(index))
	if status != nil {
		datasetSlots.remove(index)
	}
	return within(name, take(status))
}

//export grapnelGoGet
func grapnelGoGet(slot C.uintptr_t, index C.int64_t, sample *C.grapnel_tensors) *C.grapnel_status {
	s := datasetSlots.get(uintptr(slot))
	lent := s.lent.Get().(*Tensors).borrow(sample, false)
	status := s.errors.guard("Dataset.Get", func() error { return s.dataset.Get(int(index), lent) })
	lent.expire()
	s.lent.Put(lent)
	return status
}

//export grapnelGoGetBatch
func grapnelGoGetBatch(slot C.uintptr_t, indices *C.int64_t, count C.size_t,
	batch *C.grapnel_tensors) *C.grapnel_status {
	s := datasetSlots.get(uintptr(slot))
	lent := s.lent.Get().(*Tensors).borrow(batch, false)
	status := s.errors.guard("Dataset.GetBatch", func() error {
		return s.batches.GetBatch(unsafe.Slice((*int64)(indices), count), lent)
	})
	lent.expire()
	s.lent.Put(lent)
	return status
}

//export grapnelGoDestroyDataset
func grapnelGoDestroyDataset(slot C.uintptr_t) { datasetSlots.remove(uintptr(slot)) }
