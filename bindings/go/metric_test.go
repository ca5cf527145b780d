package grapnel_test

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"grapnel.dev/grapnel"
)

// worst is the largest error of an evaluation.
type worst struct {
	max  float64
	fail error
	lent *grapnel.Scalars
}

func (m *worst) Reset() { m.max = 0 }
func (m *worst) Process(predictions, batch *grapnel.Tensors) error {
	out, errOut := grapnel.Data[float32](predictions.Find("output"))
	y, errY := grapnel.Data[float32](batch.Find("target"))
	for i := range out {
		m.max = max(m.max, float64(out[i]-y[i]), float64(y[i]-out[i]))
	}
	return errors.Join(errOut, errY, m.fail)
}
func (m *worst) Compute(metrics *grapnel.Scalars) error {
	m.lent = metrics
	return metrics.Add("worst", m.max)
}

func TestAMetricOfGos(t *testing.T) {
	noLeaks(t)
	metric := &worst{}
	options := lineOptions()
	options.ValMetrics = []grapnel.Metric{metric}
	options.TestMetrics = []grapnel.Metric{metric}
	runner := newRunner(t, lineConfig(t), options)
	check(t, runner.Train(background))
	val := must[*grapnel.Scalars](t)(runner.Val(background))
	test := must[*grapnel.Scalars](t)(runner.Test(background))
	for _, metrics := range []*grapnel.Scalars{val, test} {
		value, ok := metrics.Find("worst")
		mse, _ := metrics.Find("mse")
		if !ok || value*value < mse {
			t.Errorf("got %v, %v of %d", value, mse, metrics.Len())
		}
	}
	wantError(t, metric.lent.Add("late", 1), grapnel.ErrClosed, "scalars")
	metric.fail = errors.New("mine")
	_, err := runner.Test(background)
	wantError(t, err, metric.fail, "mine")

	options.ValMetrics = []grapnel.Metric{metric, nil}
	_, err = grapnel.New(lineConfig(t), options)
	wantError(t, err, grapnel.ErrInvalidArgument, "ValMetrics[1]: is nil")
}

func TestRecordsComeOneByOne(t *testing.T) {
	noLeaks(t)
	var trained, validated []int64
	var names []string
	config := lineConfig(t)
	options := lineOptions()
	options.Overrides = []string{"default_hooks.logger.interval=5"}
	options.Records = func(mode grapnel.Mode, step int64, record *grapnel.Scalars) error {
		if mode == grapnel.ModeTrain {
			trained = append(trained, step)
			names = names[:0]
			for name := range record.All() {
				names = append(names, name)
			}
		} else {
			validated = append(validated, step)
		}
		return nil
	}
	runner := newRunner(t, config, options)
	check(t, runner.Train(background))
	if !slices.Equal(trained, []int64{5, 10, 15, 20}) || !slices.Equal(validated, []int64{1, 2}) {
		t.Errorf("got %v, %v", trained, validated)
	}
	if !slices.Contains(names, "loss") || !slices.Contains(names, "lr") {
		t.Errorf("got %v", names)
	}
}

// An error of Records is logged, and they end; the run doesn't.
func TestRecordsThatFail(t *testing.T) {
	noLeaks(t)
	calls := 0
	log := new(lines)
	options := lineOptions()
	options.Logger = slog.New(slog.NewTextHandler(log, nil))
	options.Overrides = []string{"default_hooks.logger.interval=5"}
	options.Records = func(grapnel.Mode, int64, *grapnel.Scalars) error {
		calls++
		return errors.New("the table is full")
	}
	check(t, newRunner(t, lineConfig(t), options).Train(background))
	if calls != 1 || !strings.Contains(log.String(), "the table is full") {
		t.Errorf("got %d calls, %s", calls, log.String())
	}
}

// lines is what was logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestTheLogHasLevels(t *testing.T) {
	noLeaks(t)
	log := new(lines)
	options := lineOptions(grapnel.HookFunc("talks", func(run *grapnel.Run) error {
		return errors.Join(run.Log(slog.LevelDebug, "low"), run.Log(slog.LevelWarn, "middle"),
			run.Log(slog.LevelError, "high"))
	}, grapnel.BeforeTrain))
	options.Logger = slog.New(slog.NewTextHandler(log, nil))
	check(t, newRunner(t, lineConfig(t), options).Train(background))
	for _, want := range []string{"level=INFO msg=low", "level=WARN msg=middle",
		"level=ERROR msg=high"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("there is no %q in %s", want, log.String())
		}
	}
}

func TestTheTerminalHasTheLogToo(t *testing.T) {
	noLeaks(t)
	file := must[*os.File](t)(os.CreateTemp(t.TempDir(), "terminal"))
	defer file.Close()
	options := lineOptions()
	options.Logger, options.Terminal = nil, file
	runner := newRunner(t, lineConfig(t), options)
	check(t, runner.Train(background))
	text := string(must[[]byte](t)(os.ReadFile(file.Name())))
	if !strings.Contains(text, "Epoch(train)") || strings.Contains(text, "\x1b") {
		t.Errorf("got %q", text)
	}
}

func TestTheProcessHasALog(t *testing.T) {
	noLeaks(t)
	log := new(lines)
	grapnel.SetLogger(slog.New(slog.NewTextHandler(log, nil)))
	defer grapnel.SetLogger(discard)
	broken := &batches{Dataset: line, failing: true} // What is warned of.
	weightsWith(t, broken, 0)
	if !strings.Contains(log.String(), "no batches today") {
		t.Errorf("got %q", log.String())
	}
	grapnel.SetLogger(nil)
}
