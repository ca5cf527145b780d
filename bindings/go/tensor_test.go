package grapnel_test

import (
	"slices"
	"testing"

	"grapnel.dev/grapnel"
)

func testElements[T grapnel.Element](t *testing.T, dtype grapnel.DType, a, b T) {
	t.Run(dtype.String(), func(t *testing.T) {
		noLeaks(t)
		if got := grapnel.DTypeOf[T](); got != dtype {
			t.Errorf("got %v", got)
		}
		values := []T{a, b, a, a, b, b}
		tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor(values, 2, 3))
		defer tensor.Close()
		values[0] = b // It was copied.
		want := []T{a, b, a, a, b, b}
		if tensor.DType() != dtype || tensor.Len() != 6 || !slices.Equal(tensor.Shape(), []int{2, 3}) {
			t.Errorf("got %v", tensor)
		}
		if got := tensor.String(); got != dtype.String()+" [2 3]" {
			t.Errorf("got %q", got)
		}
		if got := must[[]T](t)(grapnel.Values[T](tensor)); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		data := must[[]T](t)(grapnel.Data[T](tensor))
		data[5] = a
		want[5] = a
		if got := must[[]T](t)(grapnel.Values[T](tensor)); !slices.Equal(got, want) {
			t.Errorf("written in place: got %v, want %v", got, want)
		}
		slices.Reverse(want)
		check(t, grapnel.SetValues(tensor, want))
		if !slices.Equal(data, want) {
			t.Errorf("SetValues: got %v, want %v", data, want)
		}
	})
}

func TestElementsOfEveryType(t *testing.T) {
	testElements(t, grapnel.DTypeBool, true, false)
	testElements(t, grapnel.DTypeUint8, uint8(7), 255)
	testElements(t, grapnel.DTypeInt8, int8(-7), 127)
	testElements(t, grapnel.DTypeInt16, int16(-7), 32767)
	testElements(t, grapnel.DTypeInt32, int32(-7), 1<<30)
	testElements(t, grapnel.DTypeInt64, int64(-7), 1<<60)
	testElements(t, grapnel.DTypeFloat16, grapnel.ToFloat16(0.5), grapnel.ToFloat16(-3))
	testElements(t, grapnel.DTypeBFloat16, grapnel.ToBFloat16(0.5), grapnel.ToBFloat16(-3))
	testElements(t, grapnel.DTypeFloat32, float32(0.5), -3)
	testElements(t, grapnel.DTypeFloat64, 0.5, -3)
}

func TestTypesHaveNamesAndSizes(t *testing.T) {
	if got := grapnel.DTypeBFloat16.Size(); got != 2 {
		t.Errorf("got %d", got)
	}
	if got := grapnel.DType(77); got.String() != "dtype 77" || got.Size() != 0 {
		t.Errorf("got %v", got)
	}
}

func TestTensorsThatCanNotBe(t *testing.T) {
	noLeaks(t)
	_, err := grapnel.NewTensor([]float32{1, 2}, 3)
	wantError(t, err, grapnel.ErrInvalidArgument, "size")
	_, err = grapnel.NewTensor([]float32{1}, -1)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
	_, err = grapnel.NewTensor([]float32{1}, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	wantError(t, err, grapnel.ErrInvalidArgument, "has 9 dimensions, at most 8")

	tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 2}, 2))
	defer tensor.Close()
	_, err = grapnel.Values[float64](tensor)
	wantError(t, err, grapnel.ErrInvalidArgument, "its elements are float32, not float64")
	_, err = grapnel.Data[int64](tensor)
	wantError(t, err, grapnel.ErrInvalidArgument, "float32")
	wantError(t, grapnel.SetValues(tensor, []float32{1}), grapnel.ErrInvalidArgument, "size")
	wantError(t, grapnel.SetValues(tensor, []bool{true, true}), grapnel.ErrInvalidArgument, "not bool")
}

func TestTensorsOfNothing(t *testing.T) {
	noLeaks(t)
	none := must[*grapnel.Tensor](t)(grapnel.NewTensor([]int32(nil), 0, 3))
	defer none.Close()
	if got := must[[]int32](t)(grapnel.Data[int32](none)); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if got := must[[]int32](t)(grapnel.Values[int32](none)); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	one := must[*grapnel.Tensor](t)(grapnel.NewTensor([]int32{5}))
	defer one.Close()
	if len(one.Shape()) != 0 || one.Len() != 1 {
		t.Errorf("got %v", one)
	}
	if got := one.AppendShape([]int{9}); !slices.Equal(got, []int{9}) {
		t.Errorf("got %v", got)
	}
}

func TestASharedTensorIsTheSameMemory(t *testing.T) {
	noLeaks(t)
	tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 2}, 2))
	shared := must[*grapnel.Tensor](t)(tensor.Share())
	defer shared.Close()
	check(t, grapnel.SetValues(tensor, []float32{3, 4}))
	check(t, tensor.Close())
	if got := must[[]float32](t)(grapnel.Values[float32](shared)); !slices.Equal(got, []float32{3,
		4}) {
		t.Errorf("got %v", got)
	}
}

func TestAClosedTensorIsAnError(t *testing.T) {
	noLeaks(t)
	tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 2}, 2))
	check(t, tensor.Close())
	check(t, tensor.Close())
	_, err := grapnel.Values[float32](tensor)
	wantError(t, err, grapnel.ErrClosed, "tensor: it is closed")
	wantError(t, err, grapnel.ErrFailedPrecondition, "")
	_, err = grapnel.Data[float32](tensor)
	wantError(t, err, grapnel.ErrClosed, "")
	wantError(t, grapnel.SetValues(tensor, []float32{1, 2}), grapnel.ErrClosed, "")
	_, err = tensor.Share()
	wantError(t, err, grapnel.ErrClosed, "")
	_, err = tensor.DLPack()
	wantError(t, err, grapnel.ErrClosed, "")
	if tensor.DType() != 0 || tensor.Len() != 0 || tensor.Shape() != nil ||
		tensor.String() != "closed tensor" {
		t.Errorf("got %v %v %v %v", tensor.DType(), tensor.Len(), tensor.Shape(), tensor)
	}
}

func TestATensorThatNobodyClosesIsCollected(t *testing.T) {
	before := liveAfterCollection(0)
	for range 100 {
		tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor(make([]float32, 100), 100))
		tensors := must[*grapnel.Tensors](t)(grapnel.NewTensors())
		check(t, tensors.Add("a", tensor))
		tensors.Find("a") // A cycle, but for the owner.
	}
	if live := liveAfterCollection(before); live > before {
		t.Errorf("objects alive: %d before, %d now", before, live)
	}
}

func TestDLPackSharesMemory(t *testing.T) {
	noLeaks(t)
	tensor := must[*grapnel.Tensor](t)(grapnel.NewTensor([]float32{1, 2}, 2))
	managed, err := tensor.DLPack()
	check(t, err)
	check(t, tensor.Close())
	again := must[*grapnel.Tensor](t)(grapnel.FromDLPack(managed))
	defer again.Close()
	if got := must[[]float32](t)(grapnel.Data[float32](again)); !slices.Equal(got, []float32{1, 2}) {
		t.Errorf("got %v", got)
	}
	_, err = grapnel.FromDLPack(nil)
	wantError(t, err, grapnel.ErrInvalidArgument, "")
}
