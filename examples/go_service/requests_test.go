package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

// newService makes one that listens nowhere, and doesn't train yet.
func newService(t *testing.T) *service {
	t.Helper()
	dir := t.TempDir()
	config, err := readConfig("", dir)
	if err != nil {
		t.Fatal(err)
	}
	samples := openLog(t, filepath.Join(dir, "samples"))
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	trainer := &trainer{config: config, samples: samples, log: log, refresh: time.Second,
		replicas: 1, progress: progress{State: stateWaiting}}
	t.Cleanup(trainer.close)
	return &service{trainer: trainer, samples: samples, metrics: newMetrics(), log: log}
}

// ask returns the status and what the error is called.
func ask(t *testing.T, s *service, method, path, body string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	s.newServer().Handler.ServeHTTP(answer, request)
	var it struct{ Error string }
	if answer.Code != http.StatusMethodNotAllowed && answer.Code != http.StatusNotFound {
		if err := json.Unmarshal(answer.Body.Bytes(), &it); err != nil {
			t.Errorf("%s: %v", answer.Body, err)
		}
	}
	return answer.Code, it.Error
}

// says reports whether text has what is wanted, and nothing where that is "".
func says(text, want string) bool {
	return strings.Contains(text, want) && (text == "") == (want == "")
}

const zeros = "[0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0," +
	"0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0]"

func TestRequestsThatAreRefused(t *testing.T) {
	s := newService(t)
	images := func(images string) string { return `{"images": [` + images + `]}` }
	first := func(pixel string) string { return images("[" + pixel + zeros[2:]) }
	label := func(label string) string {
		return `{"images": [` + zeros + `], "labels": [` + label + `]}`
	}
	many := func(n int) string { return images(strings.Repeat(zeros+",", n-1) + zeros) }
	for name, it := range map[string]struct {
		request, body string
		status        int
		says          string
	}{
		"nothing":   {"/samples", ``, 400, "body: is not a whole JSON object"},
		"half":      {"/samples", `{"images": [[0`, 400, "body: is not a whole JSON object"},
		"not JSON":  {"/samples", `images=1`, 400, "body: invalid character 'i'"},
		"an array":  {"/samples", `[]`, 400, "body: must be an object, got array at byte 1"},
		"more":      {"/predict", images(zeros) + ` {}`, 400, "body: there is more behind"},
		"misspelt":  {"/samples", `{"image": []}`, 400, `body: unknown field "image"`},
		"too large": {"/samples", many(20000), 413, "body: must have at most 2097152 bytes"},

		"no images":    {"/predict", `{}`, 400, "images: must be 1 to 256, are 0"},
		"many images":  {"/predict", many(257), 400, "images: must be 1 to 256, are 257"},
		"no array":     {"/predict", `{"images": 5}`, 400, "images: must be an array, got number"},
		"no row":       {"/predict", images(`null`), 400, "images[0]: must have 64 numbers, has 0"},
		"a short row":  {"/predict", images(zeros + `, [1]`), 400, "images[1]: must have 64 numbers"},
		"a text":       {"/predict", images(`["x"]`), 400, "images: must be a number, got string at"},
		"null":         {"/predict", first(`null`), 400, "images[0][0]: must be a number, is null"},
		"too light":    {"/predict", first(`16.5`), 400, "images[0][0]: must be >= 0 and <= 16, is 16.5"},
		"negative":     {"/predict", first(`-1`), 400, "images[0][0]: must be >= 0 and <= 16, is -1"},
		"out of range": {"/predict", first(`1e99`), 400, "images: must be a number, got number 1e99"},

		"no labels":         {"/samples", images(zeros), 400, "labels: must be one for each of 1 images"},
		"a large label":     {"/samples", label(`10`), 400, "labels[0]: must be >= 0 and < 10, is 10"},
		"a negative label":  {"/samples", label(`-1`), 400, "labels[0]: must be >= 0 and < 10, is -1"},
		"half a label":      {"/samples", label(`1.5`), 400, "labels: must be a whole number, got number 1.5"},
		"null for a label":  {"/samples", label(`null`), 400, "labels[0]: must be a number, is null"},
		"labels to predict": {"/predict", label(`1`), 400, "labels: are not for a prediction"},

		"before it learned":  {"/predict", images(zeros), 503, "there are no weights yet"},
		"a path there isn't": {"/learn", `{}`, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := ask(t, s, "POST", it.request, it.body)
			if status != it.status || !says(text, it.says) {
				t.Errorf("got %d %q, want %d %q", status, text, it.status, it.says)
			}
		})
	}
	if n := s.samples.len(); n != 0 {
		t.Errorf("%d samples were kept", n)
	}
	for _, request := range []string{"GET /samples", "POST /progress", "PUT /predict"} {
		method, path, _ := strings.Cut(request, " ")
		if status, _ := ask(t, s, method, path, ""); status != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d", request, status)
		}
	}
}

func TestThereIsNoRoom(t *testing.T) {
	s := newService(t)
	s.samples.samples = make([]sample, maxSamples)
	body := `{"images": [` + zeros + `], "labels": [1]}`
	status, says := ask(t, s, "POST", "/samples", body)
	if status != 507 || !strings.Contains(says, "1048576") {
		t.Errorf("got %d %q", status, says)
	}
}

// A training that fails says why, and is not healthy. One that is done still
// predicts.
func TestHowATrainingEnds(t *testing.T) {
	for _, it := range []struct {
		state  string
		change func(*grapnelpb.RunnerConfig)
		says   string
		health int
	}{
		{stateDone, func(config *grapnelpb.RunnerConfig) {
			config.TrainCfg.MaxIters = proto.Int64(3)
		}, "", 200},
		{stateFailed, func(config *grapnelpb.RunnerConfig) {
			config.OptimWrapper.Optimizer.GetAdamw().Lr = proto.Float64(-1)
		}, "lr: must be", 503},
	} {
		t.Run(it.state, func(t *testing.T) {
			s := newService(t)
			if status, _ := ask(t, s, "GET", "/healthz", ""); status != 200 {
				t.Errorf("before it began: %d", status)
			}
			it.change(s.trainer.config)
			appendTo(t, s.samples, numbered(100))
			s.trainer.run(context.Background())
			now := s.trainer.now()
			if now.State != it.state || !says(now.Error, it.says) {
				t.Errorf("got %+v", now)
			}
			if status, _ := ask(t, s, "GET", "/healthz", ""); status != it.health {
				t.Errorf("got %d", status)
			}
			status, _ := ask(t, s, "POST", "/predict", `{"images": [`+zeros+`]}`)
			if want := map[string]int{stateDone: 200, stateFailed: 503}[it.state]; status != want {
				t.Errorf("got %d, want %d", status, want)
			}
		})
	}
}

// A training that is stopped before it has samples has not failed.
func TestAStopBeforeThereIsASample(t *testing.T) {
	s := newService(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.trainer.run(ctx)
	if now := s.trainer.now(); now.State != stateStopped || now.Error != "" {
		t.Errorf("got %+v", now)
	}
}
