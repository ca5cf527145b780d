package grapnel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel"
	"grapnel.dev/grapnel/grapnelpb"
)

// circle is 1,000 points of a square, and whether each is in a circle.
type circle struct{}

func (circle) Len() int { return 1000 }

func (circle) Get(index int, sample *grapnel.Tensors) error {
	x, y := math.Mod(float64(index)*0.7548777, 2)-1, math.Mod(float64(index)*0.5698403, 2)-1
	point, err := grapnel.AddNew[float32](sample, "input", 2)
	if err != nil {
		return err
	}
	point[0], point[1] = float32(x), float32(y)
	inside := int64(0)
	if x*x+y*y < 0.5 {
		inside = 1
	}
	return grapnel.AddScalar(sample, "target", inside)
}

// patient stops a training whose loss is low enough.
type patient struct{ loss float64 }

func (patient) Name() string { return "patient" }

func (p patient) AfterTrainIter(run *grapnel.Run) error {
	vars, err := run.LogVars()
	if err != nil {
		return err
	}
	if loss, ok := vars.Find("loss"); ok && loss < p.loss {
		return run.RequestStop(grapnel.StopNow, "it is good enough")
	}
	return nil
}

// A config in Go, a dataset and a hook.
func Example() {
	dir, err := os.MkdirTemp("", "circle")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	layer := func(outputs int64) *grapnelpb.LayerConfig {
		return &grapnelpb.LayerConfig{Kind: &grapnelpb.LayerConfig_Linear{
			Linear: &grapnelpb.LinearLayerConfig{OutFeatures: proto.Int64(outputs)},
		}}
	}
	relu := &grapnelpb.LayerConfig{Kind: &grapnelpb.LayerConfig_Relu{
		Relu: &grapnelpb.ReluLayerConfig{},
	}}
	config := &grapnelpb.RunnerConfig{
		WorkDir: proto.String(dir),
		Model: &grapnelpb.ModelConfig{Kind: &grapnelpb.ModelConfig_Sequential{
			Sequential: &grapnelpb.SequentialConfig{
				Layers: []*grapnelpb.LayerConfig{layer(32), relu, layer(2)},
				Loss: &grapnelpb.LossConfig{Kind: &grapnelpb.LossConfig_CrossEntropy{
					CrossEntropy: &grapnelpb.CrossEntropyLossConfig{},
				}},
			},
		}},
		TrainDataloader: &grapnelpb.DataLoaderConfig{
			BatchSize: proto.Int64(50),
			Sampler:   &grapnelpb.SamplerConfig{Shuffle: proto.Bool(true)},
		},
		ValDataloader: &grapnelpb.DataLoaderConfig{BatchSize: proto.Int64(500)},
		ValEvaluator: []*grapnelpb.MetricConfig{{Kind: &grapnelpb.MetricConfig_Accuracy{
			Accuracy: &grapnelpb.AccuracyConfig{Topk: []int32{1}},
		}}},
		TrainCfg: &grapnelpb.TrainConfig{MaxEpochs: proto.Int64(50)},
		OptimWrapper: &grapnelpb.OptimWrapperConfig{Optimizer: &grapnelpb.OptimizerConfig{
			Kind: &grapnelpb.OptimizerConfig_Adam{Adam: &grapnelpb.AdamConfig{Lr: proto.Float64(0.01)}},
		}},
		Randomness: &grapnelpb.RandomnessConfig{Seed: proto.Int64(1)},
	}
	runner, err := grapnel.New(config, &grapnel.Options{
		TrainData: circle{},
		ValData:   circle{},
		Hooks:     []grapnel.Hook{patient{0.05}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer runner.Close()
	if err := runner.Train(context.Background()); err != nil {
		log.Fatal(err)
	}
	reason, err := runner.StopReason()
	if err != nil {
		log.Fatal(err)
	}
	metrics, err := runner.Val(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	accuracy, _ := metrics.Find("accuracy/top1")
	fmt.Println(reason, accuracy > 95)
	// Output: it is good enough true
}

const smallConfig = `
model { sequential { layers { linear { out_features: 2 } } loss { cross_entropy {} } } }
train_dataloader { batch_size: 100 }
train_cfg { max_epochs: 2 }
optim_wrapper { optimizer { sgd { lr: 0.1 } } }
`

// smallRunner is a run of 20 iterations, in a folder that the function deletes.
func smallRunner(options *grapnel.Options) (*grapnel.Runner, func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	options.TrainData = circle{}
	options.BaseDir = dir
	runner, err := grapnel.NewFromText(smallConfig, options)
	if err != nil {
		log.Fatal(err)
	}
	return runner, func() {
		if err := errors.Join(runner.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleRunner_Steps() {
	runner, done := smallRunner(&grapnel.Options{})
	defer done()
	for step, err := range runner.Steps(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		if step.Iter%10 == 0 {
			fmt.Println(step.Iter, "of epoch", step.Epoch, step.More)
		}
	}
	// Output:
	// 10 of epoch 1 true
	// 20 of epoch 2 false
}

// A deadline stops the run at once, and saves it.
func ExampleRunner_Train_context() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	runner, done := smallRunner(&grapnel.Options{
		Hooks: []grapnel.Hook{grapnel.HookFunc("slow", func(*grapnel.Run) error {
			time.Sleep(50 * time.Millisecond)
			return nil
		}, grapnel.AfterTrainIter)},
	})
	defer done()
	err := runner.Train(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

func ExampleNTimes() {
	runner, done := smallRunner(&grapnel.Options{
		Hooks: []grapnel.Hook{grapnel.NTimes("progress", 4, func(run *grapnel.Run) error {
			fmt.Println(run.Iter()+1, "of", run.MaxIters())
			return nil
		})},
	})
	defer done()
	if err := runner.Train(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 5 of 20
	// 10 of 20
	// 15 of 20
	// 20 of 20
}

func ExampleRunner_Predictor() {
	runner, done := smallRunner(&grapnel.Options{})
	defer done()
	if err := runner.Train(context.Background()); err != nil {
		log.Fatal(err)
	}
	predictor, err := runner.Predictor(grapnel.WeightsEvaluated, 2)
	if err != nil {
		log.Fatal(err)
	}
	defer predictor.Close()
	points, err := grapnel.NewTensor([]float32{0, 0, 0.9, 0.9, -0.1, 0.2}, 3, 2)
	if err != nil {
		log.Fatal(err)
	}
	scores, err := predictor.Predict(context.Background(), points)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(scores)
	// Output: float32 [3 2]
}

func ExampleErrorf() {
	runner, done := smallRunner(&grapnel.Options{
		Hooks: []grapnel.Hook{grapnel.HookFunc("disk", func(run *grapnel.Run) error {
			return grapnel.Errorf(grapnel.ErrUnavailable, "the disk: %w", os.ErrDeadlineExceeded)
		}, grapnel.BeforeTrain)},
	})
	defer done()
	err := runner.Train(context.Background())
	fmt.Println(errors.Is(err, grapnel.ErrUnavailable), errors.Is(err, os.ErrDeadlineExceeded))
	// Output: true true
}
