package grapnel_test

import (
	"slices"
	"testing"

	"grapnel.dev/grapnel"
)

func TestTensorsByNameAndInOrder(t *testing.T) {
	noLeaks(t)
	ts := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer ts.Close()
	filled := must[[]int64](t)(grapnel.AddNew[int64](ts, "filled", 2, 2))
	copy(filled, []int64{1, 2, 3, 4})
	check(t, grapnel.Add(ts, "copied", []float32{5, 6}, 2))
	check(t, grapnel.AddScalar(ts, "scalar", uint8(7)))
	tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float64{8}, 1))
	check(t, ts.Add("shared", tensor))
	check(t, tensor.Close())

	var names []string
	for name, tensor := range ts.All() {
		names = append(names, name)
		if ts.Find(name) != tensor {
			t.Errorf("%s: it is another one by name", name)
		}
	}
	if want := []string{"filled", "copied", "scalar", "shared"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	for range ts.All() {
		break
	}
	if got := must[[]int64](t)(grapnel.Values[int64](ts.Find("filled"))); !slices.Equal(got,
		[]int64{1, 2, 3, 4}) {
		t.Errorf("got %v", got)
	}
	name, scalar := ts.At(2)
	if name != "scalar" || scalar.Len() != 1 || len(scalar.Shape()) != 0 {
		t.Errorf("got %s %v", name, scalar)
	}
	if got := must[[]float64](t)(grapnel.Data[float64](ts.Find("shared"))); !slices.Equal(got,
		[]float64{8}) {
		t.Errorf("got %v", got)
	}
	check(t, scalar.Close()) // It is borrowed: nothing happens.
	if ts.Len() != 4 || ts.Find("scalar") == nil {
		t.Error("a borrowed tensor was closed")
	}
	if ts.Find("other") != nil {
		t.Error("there is one of another name")
	}
	for _, i := range []int{-1, 4} {
		if name, tensor := ts.At(i); name != "" || tensor != nil {
			t.Errorf("got %s %v at %d", name, tensor, i)
		}
	}
}

func TestNewBoolsAreFalse(t *testing.T) {
	noLeaks(t)
	ts := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer ts.Close()
	for _, b := range must[[]bool](t)(grapnel.AddNew[bool](ts, "flags", 1000)) {
		if b {
			t.Fatal("got true")
		}
	}
	if none := must[[]bool](t)(grapnel.AddNew[bool](ts, "none", 0)); none != nil {
		t.Errorf("got %v", none)
	}
}

func TestTensorsThatCanNotBeAdded(t *testing.T) {
	noLeaks(t)
	ts := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	defer ts.Close()
	tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1}, 1))
	check(t, ts.Add("a", tensor))
	wantError(t, ts.Add("a", tensor), grapnel.ErrAlreadyExists, "a")
	wantError(t, grapnel.Add(ts, "a", []float32{1}, 1), grapnel.ErrAlreadyExists, "a")
	wantError(t, grapnel.Add(ts, "b", []float32{1}, 2), grapnel.ErrInvalidArgument, "")
	_, err := grapnel.AddNew[float32](ts, "b", -1)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
	nine := make([]int, 9)
	_, err = grapnel.AddNew[float32](ts, "b", nine...)
	wantError(t, err, grapnel.ErrInvalidArgument, "dimensions")
	wantError(t, grapnel.Add(ts, "b", []float32{}, nine...), grapnel.ErrInvalidArgument, "dimensions")
	wantError(t, grapnel.AddScalar(ts, "a", float32(1)), grapnel.ErrAlreadyExists, "")
	check(t, tensor.Close())
	wantError(t, ts.Add("b", tensor), grapnel.ErrClosed, "tensor")
}

func TestClosedTensorsAreAnError(t *testing.T) {
	noLeaks(t)
	ts := must[*grapnel.Tensors](t)(grapnel.NewTensors())
	check(t, grapnel.AddScalar(ts, "a", float32(1)))
	lent := ts.Find("a")
	check(t, ts.Close())
	check(t, ts.Close())
	_, err := grapnel.Values[float32](lent)
	wantError(t, err, grapnel.ErrClosed, "")
	_, err = grapnel.AddNew[float32](ts, "b")
	wantError(t, err, grapnel.ErrClosed, "tensors")
	if _, tensor := ts.At(0); ts.Len() != 0 || ts.Find("a") != nil || tensor != nil {
		t.Error("there is something in it")
	}
}
