package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The whole life of a service: it learns, predicts meanwhile, is killed, goes on
// where it was, and stops.
func TestItLearnsIsKilledAndGoesOn(t *testing.T) {
	workDir := t.TempDir()
	train, test := readDigits(t, "train"), readDigits(t, "test")
	p := start(t, workDir, "--refresh", "100ms")
	if it := p.progress(); it.State != stateWaiting || it.Samples != 0 {
		t.Errorf("got %+v", it)
	}
	if status, err := p.post("/predict", bodyOf(test[:1], false), nil); status != 503 || err != nil {
		t.Errorf("before anything was learned: %d, %v", status, err)
	}
	if total := p.postSamples(train[:1000]); total != 1000 {
		t.Errorf("got %d", total)
	}
	p.until("trained", func(it progress) bool { return it.Iter >= 250 && it.PredictorIter >= 200 })
	if accuracy := p.accuracy(test); accuracy < 50 {
		t.Errorf("accuracy while it trains: %.1f %%", accuracy)
	}

	// It is killed while samples are posted: each that was acknowledged is there.
	posted := make(chan int)
	go func() {
		n := 1000
		for ; n < len(train); n++ {
			status, err := p.post("/samples", bodyOf(train[n:n+1], true), new(any))
			if err != nil || status != http.StatusOK {
				break
			}
		}
		posted <- n
	}()
	p.until("posted", func(it progress) bool { return it.Samples >= 1100 })
	p.kill()
	acknowledged := <-posted
	newest := newestIter(t, workDir)

	p = start(t, workDir, "--refresh", "100ms")
	it := p.until("begun", func(it progress) bool { return it.State != stateWaiting })
	if it.BeganAt != newest || newest < 200 {
		t.Errorf("it went on from %d, and not from %d", it.BeganAt, newest)
	}
	if it.Samples != acknowledged && it.Samples != acknowledged+1 {
		t.Errorf("there are %d samples, and %d were acknowledged", it.Samples, acknowledged)
	}
	if it.Samples < len(train) {
		p.postSamples(train[it.Samples:])
	}
	it = p.until("idle", func(it progress) bool { return it.State == stateIdle })
	if it.Samples != len(train) || it.PredictorIter != it.Iter {
		t.Errorf("got %+v", it)
	}
	accuracy := p.accuracy(test)
	t.Logf("accuracy %.1f %% after %d iterations", accuracy, it.Iter)
	if accuracy < 90 {
		t.Errorf("accuracy: %.1f %%", accuracy)
	}
	checkMetrics(t, p, len(train))

	// What it waits for is samples; and a stop, which saves.
	last := it.Iter
	p.postSamples(train[:64])
	p.until("more", func(it progress) bool { return it.Iter >= last+10 })
	p.signal(syscall.SIGTERM)
	if code := p.wait(20 * time.Second); code != exitStopped {
		t.Errorf("exit code %d", code)
	}
	if newest := newestIter(t, workDir); newest < last+10 {
		t.Errorf("saved is iteration %d, and %d were trained", newest, last+10)
	}
}

var metricLine = regexp.MustCompile(
	`^(# (HELP|TYPE) [a-z_]+ \S.*|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+)$`)

func checkMetrics(t *testing.T, p *process, samples int) {
	t.Helper()
	response, err := http.Get(p.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if !metricLine.MatchString(line) {
			t.Errorf("is no line of metrics: %q", line)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("\nservice_samples %d\n", samples),
		"\nservice_state{state=\"idle\"} 1\n",
		"\nservice_requests_total{request=\"POST /samples\",status=\"200\"} ",
		"\nservice_request_seconds_bucket{request=\"POST /predict\",le=\"0.001\"} ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in:\n%s", want, text)
		}
	}
}

// A request that has begun is answered, and no other is taken.
func TestSIGTERMLetsRequestsEnd(t *testing.T) {
	p := start(t, t.TempDir(), "--grace", "30s", "--passes", "0")
	train := readDigits(t, "train")
	p.postSamples(train[:128])
	p.until("training", func(it progress) bool { return it.Iter > 0 })
	rest := beginPrediction(t, p, train[:1])
	p.signal(syscall.SIGTERM)
	address := strings.TrimPrefix(p.url, "http://")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		connection.Close()
		if time.Now().After(end) {
			t.Fatal("it still accepts")
		}
	}
	answer := rest()
	if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || !strings.Contains(answer, "probabilities") {
		t.Errorf("got %q", answer)
	}
	if code := p.wait(25 * time.Second); code != exitStopped {
		t.Errorf("exit code %d", code)
	}
}

// Who never ends a request is not waited for, and what was learned is saved.
func TestSIGTERMWithinItsGrace(t *testing.T) {
	workDir := t.TempDir()
	p := start(t, workDir, "--grace", "5s", "--passes", "0")
	train := readDigits(t, "train")
	p.postSamples(train[:128])
	it := p.until("training", func(it progress) bool { return it.Iter > 10 })
	beginPrediction(t, p, train[:1])
	p.signal(syscall.SIGINT)
	if code := p.wait(20 * time.Second); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(p.stderr.String(), "not answered within 5s") {
		t.Errorf("it says %s", p.stderr)
	}
	if newest := newestIter(t, workDir); newest < it.Iter {
		t.Errorf("saved is iteration %d, and %d were trained", newest, it.Iter)
	}
}

// beginPrediction sends a request but for its last byte, once the server has
// begun to read it. What it returns sends that too, and reads the answer.
func beginPrediction(t *testing.T, p *process, samples []sample) func() string {
	t.Helper()
	body, err := json.Marshal(bodyOf(samples, false))
	if err != nil {
		t.Fatal(err)
	}
	connection, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	send := func(text string) {
		if _, err := io.WriteString(connection, text); err != nil {
			t.Error(err)
		}
	}
	end := len(body) - 1
	send(fmt.Sprintf("POST /predict HTTP/1.1\r\nHost: service\r\nConnection: close\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body)))
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	said := make([]byte, len(goOn))
	if _, err := io.ReadFull(connection, said); err != nil || string(said) != goOn {
		t.Fatalf("got %q, %v", said, err)
	}
	send(string(body[:end]))
	return func() string {
		send(string(body[end:]))
		answer, err := io.ReadAll(connection)
		if err != nil {
			t.Error(err)
		}
		return string(answer)
	}
}

// What it can't begin with it says, with exit code 2.
func TestItSaysWhatIsWrong(t *testing.T) {
	workDir := t.TempDir()
	start(t, workDir)
	damaged := t.TempDir()
	one := writeRecord(make([]sample, 1))
	two := append(append([]byte{}, one...), one...)
	two[20] ^= 1
	write(t, filepath.Join(damaged, "samples"), two)
	config := filepath.Join(t.TempDir(), "typo.textproto")
	write(t, config, []byte("train_cfg { max_iter: 5 }"))
	for name, it := range map[string]struct {
		says string
		args []string
	}{
		"an argument":        {`unexpected argument "x"`, []string{"x"}},
		"no grace":           {"--grace: must be > 0, is 0s", []string{"--grace", "0"}},
		"no refresh":         {"--refresh: must be > 0, is -1s", []string{"--refresh", "-1s"}},
		"no replicas":        {"--replicas: must be >= 1, is 0", []string{"--replicas", "0"}},
		"negative passes":    {"--passes: must be >= 0, is -1", []string{"--passes", "-1"}},
		"no such config":     {"no such file", []string{"--config", "no/such"}},
		"a misspelt field":   {"max_iter", []string{"--config", config, "--work-dir", t.TempDir()}},
		"an address":         {"no-port", []string{"--addr", "no-port", "--work-dir", t.TempDir()}},
		"a used work_dir":    {"another process uses it", []string{"--work-dir", workDir}},
		"a damaged file":     {"is damaged at byte 0", []string{"--work-dir", damaged}},
		"a work_dir in file": {"not a directory", []string{"--work-dir", filepath.Join(config, "x")}},
	} {
		t.Run(name, func(t *testing.T) {
			command, stderr := newCommand(t, it.args...)
			command.Run()
			if code := command.ProcessState.ExitCode(); code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(strings.ReplaceAll(stderr.String(), `\"`, `"`), it.says) {
				t.Errorf("it doesn't say %q: %s", it.says, stderr)
			}
		})
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
