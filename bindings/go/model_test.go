package grapnel_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

func anyOf(t testing.TB, message proto.Message) *anypb.Any {
	t.Helper()
	return must[*anypb.Any](t)(anypb.New(message))
}

// slope is a model that Go computes: y = x . w.
type slope struct {
	parameters, buffers *grapnel.Tensors
	fail                error // What the next step fails with.
	written             int
	training            []bool
}

func newSlope(t testing.TB) *slope {
	m := &slope{
		parameters: must[*grapnel.Tensors](t)(grapnel.NewTensors()),
		buffers:    must[*grapnel.Tensors](t)(grapnel.NewTensors()),
	}
	t.Cleanup(func() { m.parameters.Close(); m.buffers.Close() })
	check(t, grapnel.Add(m.parameters, "w", []float32{0, 0}, 2))
	check(t, grapnel.Add(m.buffers, "steps", []int64{0}, 1))
	return m
}

func (m *slope) Parameters() *grapnel.Tensors { return m.parameters }
func (m *slope) Buffers() *grapnel.Tensors    { return m.buffers }
func (m *slope) TensorsWritten() error        { m.written++; return nil }
func (m *slope) SetTraining(training bool)    { m.training = append(m.training, training) }
func (m *slope) ExportModel(path string) error {
	return os.WriteFile(path, []byte("a slope"), 0o666)
}

func (m *slope) forward(batch *grapnel.Tensors) (x, y, out []float32, err error) {
	x, errX := grapnel.Data[float32](batch.Find("input"))
	y, errY := grapnel.Data[float32](batch.Find("target"))
	w, errW := grapnel.Data[float32](m.parameters.Find("w"))
	if err := errors.Join(errX, errY, errW, m.fail); err != nil {
		return nil, nil, nil, err
	}
	out = make([]float32, len(y))
	for i := range y {
		out[i] = w[0]*x[2*i] + w[1]*x[2*i+1]
	}
	return x, y, out, nil
}

func squares(out, y []float32) (mean float64) {
	for i := range y {
		mean += float64((out[i] - y[i]) * (out[i] - y[i]))
	}
	return mean / float64(len(y))
}

func (m *slope) TrainStep(batch, gradients *grapnel.Tensors, losses *grapnel.Scalars) error {
	x, y, out, err := m.forward(batch)
	if err != nil {
		return err
	}
	gradient, err := grapnel.AddNew[float32](gradients, "w", 2)
	if err != nil {
		return err
	}
	clear(gradient)
	for i := range y {
		for k := range gradient {
			gradient[k] += 2 * (out[i] - y[i]) * x[2*i+k] / float32(len(y))
		}
	}
	steps, err := grapnel.Data[int64](m.buffers.Find("steps"))
	if err != nil {
		return err
	}
	steps[0]++
	if err := losses.Add("loss", squares(out, y)); err != nil {
		return err
	}
	if err := losses.Add("loss", 0); !errors.Is(err, grapnel.ErrAlreadyExists) {
		return fmt.Errorf("there are two of a name: %v", err)
	}
	if losses.Len() != 1 {
		return fmt.Errorf("there are %d losses", losses.Len())
	}
	return losses.Add("half", squares(out, y)/2)
}

func (m *slope) ValStep(batch, predictions *grapnel.Tensors, losses *grapnel.Scalars) error {
	_, y, out, err := m.forward(batch)
	if err != nil {
		return err
	}
	if err := losses.Add("loss", squares(out, y)); err != nil {
		return err
	}
	return grapnel.Add(predictions, "output", out, len(out), 1)
}

func TestAModelOfGosIsTrained(t *testing.T) {
	noLeaks(t)
	model := newSlope(t)
	config := lineConfig(t)
	config.Model = nil
	config.TrainCfg.MaxEpochs = proto.Int64(40)
	options := lineOptions()
	options.Model = model
	runner := newRunner(t, config, options)
	check(t, runner.Train(background))
	w := tensorOf(t, runner, "w")
	if w[0] < 0.8 || w[0] > 1.2 || w[1] < 1.8 || w[1] > 2.2 {
		t.Errorf("got %v, want about 1, 2", w)
	}
	own := must[[]float32](t)(grapnel.Data[float32](model.parameters.Find("w")))
	if !slices.Equal(own, w) {
		t.Errorf("the model's own are others: %v and %v", own, w)
	}
	if names := must[[]string](t)(runner.TensorNames()); !slices.Equal(names, []string{"w", "steps"}) {
		t.Errorf("got %v", names)
	}
	if model.written < 400 || !slices.Contains(model.training, true) ||
		!slices.Contains(model.training, false) {
		t.Errorf("got %d, %v", model.written, model.training)
	}
	steps := must[*grapnel.Tensor](t)(runner.Tensor("steps"))
	defer steps.Close()
	if got := must[[]int64](t)(grapnel.Values[int64](steps)); got[0] != 400 {
		t.Errorf("got %v steps, want 400", got)
	}
	path := t.TempDir() + "/slope"
	check(t, runner.Export(path))
	if got := must[[]byte](t)(os.ReadFile(path)); string(got) != "a slope" {
		t.Errorf("got %q", got)
	}
	mine := errors.New("mine")
	model.fail = mine
	_, err := runner.Val(background)
	wantError(t, err, mine, "mine")
}

func TestAModelNeedsParameters(t *testing.T) {
	noLeaks(t)
	model := newSlope(t)
	check(t, model.parameters.Close())
	config := lineConfig(t)
	config.Model = nil
	options := lineOptions()
	options.Model = model
	_, err := grapnel.New(config, options)
	wantError(t, err, grapnel.ErrClosed, "Model: Parameters")
}

func TestALossOfGosIsTrained(t *testing.T) {
	noLeaks(t)
	mine := errors.New("mine")
	var fail error
	evaluated := 0
	config := withLossOfCode(t)
	config.TrainCfg.MaxEpochs = proto.Int64(20)
	options := lineOptions()
	options.Loss = grapnel.LossFunc(func(output *grapnel.Tensor, batch *grapnel.Tensors,
		grad *grapnel.Tensor) (float64, error) {
		out, errOut := grapnel.Data[float32](output)
		y, errY := grapnel.Data[float32](batch.Find("target"))
		if err := errors.Join(errOut, errY, fail); err != nil {
			return 0, err
		}
		if grad == nil {
			evaluated++
			return squares(out, y), nil
		}
		gradients, err := grapnel.Data[float32](grad)
		if err != nil {
			return 0, err
		}
		for i := range gradients {
			if gradients[i] != 0 {
				return 0, errors.New("the gradient is not 0 at first")
			}
			gradients[i] = 2 * (out[i] - y[i]) / float32(len(y))
		}
		return squares(out, y), nil
	})
	runner := newRunner(t, config, options)
	check(t, runner.Train(background))
	metrics := must[*grapnel.Scalars](t)(runner.Val(background))
	if mse, ok := metrics.Find("mse"); !ok || mse > 0.02 {
		t.Errorf("got %v, %v", mse, ok)
	}
	if evaluated == 0 {
		t.Error("it was never evaluated without a gradient")
	}

	// The same to the bit as the library's own.
	config = lineConfig(t)
	config.TrainCfg.MaxEpochs = proto.Int64(20)
	own := newRunner(t, config, lineOptions())
	check(t, own.Train(background))
	if got, want := tensorOf(t, runner, "0.weight"), tensorOf(t, own, "0.weight"); !slices.Equal(got,
		want) {
		t.Errorf("got %v, want %v", got, want)
	}

	fail = mine
	again := newRunner(t, withLossOfCode(t), options)
	wantError(t, again.Train(background), mine, "loss callback")
}

func withLossOfCode(t testing.TB) *grapnelpb.RunnerConfig {
	config := lineConfig(t)
	config.Model.GetSequential().Loss = nil
	return config
}
