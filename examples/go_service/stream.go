package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"

	"grapnel.dev/grapnel"
)

// A stream gives the samples to the training, in passes. A pass has those that
// there are when it begins, shuffled by its number: what is posted meanwhile
// waits for the next one.
//
// A pass that is resumed must be what it was. How many samples it has is in the
// stream's state, and so in each checkpoint that has trained on it; a pass of
// which nothing was trained may as well begin with what there is now.
type stream struct {
	log     *sampleLog
	pass    int64
	samples []sample // Of the pass.
	order   []int
	next    int // In order.

	// For learned: the size of the pass, and how many before it had the same
	// samples.
	size, repeats atomic.Int64
}

func newStream(log *sampleLog) *stream { return &stream{log: log, pass: -1} }

// BeginPass is grapnel.Stream's.
func (s *stream) BeginPass(pass int64) error {
	if pass != s.pass { // Else it is gone through again.
		all := s.log.all()
		repeats := int64(0)
		if len(all) == len(s.samples) {
			repeats = s.repeats.Load() + 1
		}
		s.begin(pass, all, repeats)
	}
	s.next = 0
	return nil
}

func (s *stream) begin(pass int64, samples []sample, repeats int64) {
	s.pass, s.samples = pass, samples
	s.order = rand.New(rand.NewPCG(uint64(pass), uint64(len(samples)))).Perm(len(samples))
	s.size.Store(int64(len(samples)))
	s.repeats.Store(repeats)
}

// learned returns how many samples the pass has, and whether there were that
// many passes over the same ones before it; never with 0. Any goroutine may ask.
func (s *stream) learned(passes int64) (n int, learned bool) {
	return int(s.size.Load()), passes > 0 && s.repeats.Load() >= passes
}

// Next is grapnel.Stream's.
func (s *stream) Next(to *grapnel.Tensors) error {
	if s.next == len(s.order) {
		return io.EOF
	}
	it := &s.samples[s.order[s.next]]
	s.next++
	input, err := grapnel.AddNew[float32](to, "input", 1, 8, 8)
	if err != nil {
		return err
	}
	scale(input, it.pixels[:])
	return grapnel.AddScalar(to, "target", int64(it.label))
}

// scale writes pixels as the network gets them.
func scale(input, pixels []float32) {
	for i, pixel := range pixels {
		input[i] = pixel / maxPixel
	}
}

// SaveState is grapnel.Stream's.
func (s *stream) SaveState() ([]byte, error) {
	state := binary.AppendUvarint(nil, uint64(len(s.samples)))
	state = binary.AppendUvarint(state, uint64(s.next))
	return binary.AppendUvarint(state, uint64(s.repeats.Load())), nil
}

// LoadState is grapnel.Stream's.
func (s *stream) LoadState(state []byte) error {
	var values [3]uint64
	for i := range values {
		value, size := binary.Uvarint(state)
		if size <= 0 {
			return grapnel.Errorf(grapnel.ErrDataLoss, "state of the stream: is too short")
		}
		values[i], state = value, state[size:]
	}
	n, next, repeats := values[0], values[1], values[2]
	all := s.log.all()
	if n > uint64(len(all)) || next > n {
		return fmt.Errorf("state of the stream: is behind %d of %d samples, and there are %d",
			next, n, len(all))
	}
	s.begin(s.pass, all[:n], int64(repeats))
	s.next = int(next)
	return nil
}
