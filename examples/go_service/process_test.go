package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"grapnel.dev/grapnel"
)

var (
	buildFlags = []string{"build"}

	buildDir string
	program  = sync.OnceValues(func() (string, error) {
		path := filepath.Join(buildDir, "go_service")
		args := append(slices.Clone(buildFlags), "-o", path, ".")
		output, err := exec.Command("go", args...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("go build: %w: %s", err, output)
		}
		return path, nil
	})
)

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "go_service"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

// A process is the real program, listening.
type process struct {
	t       testing.TB
	command *exec.Cmd
	stderr  *lockedBuffer
	url     string
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func newCommand(t testing.TB, args ...string) (*exec.Cmd, *lockedBuffer) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, append([]string{"--addr", "127.0.0.1:0"}, args...)...)
	stderr := new(lockedBuffer)
	command.Stderr = stderr
	return command, stderr
}

// start runs the program until it listens. It is killed with the test.
func start(t testing.TB, workDir string, args ...string) *process {
	t.Helper()
	command, stderr := newCommand(t, append([]string{"--work-dir", workDir}, args...)...)
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, command: command, stderr: stderr}
	t.Cleanup(func() {
		if command.ProcessState == nil {
			p.kill()
		}
		if t.Failed() {
			t.Logf("its stderr:\n%s", stderr)
		}
		if strings.Contains(stderr.String(), "DATA RACE") {
			t.Errorf("it has a data race:\n%s", stderr)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("it doesn't listen: %v", err)
	}
	p.url = "http://" + strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	return p
}

// kill is SIGKILL.
func (p *process) kill() {
	p.command.Process.Kill()
	p.command.Wait()
}

func (p *process) signal(signal syscall.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code, and fails if it takes longer.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	begin := time.Now()
	timer := time.AfterFunc(limit+30*time.Second, func() { p.command.Process.Kill() })
	defer timer.Stop()
	if err := p.command.Wait(); err != nil && p.command.ProcessState == nil {
		p.t.Fatal(err)
	}
	if took := time.Since(begin); took > limit {
		p.t.Errorf("it took %v to end, must be %v at most", took, limit)
	}
	return p.command.ProcessState.ExitCode()
}

// post returns the status, and the answer in into. An error is the
// connection's.
func (p *process) post(path string, body, into any) (int, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	response, err := http.Post(p.url+path, "application/json", bytes.NewReader(encoded))
	if err != nil {
		return 0, err
	}
	return readAnswer(response, into)
}

func readAnswer(response *http.Response, into any) (int, error) {
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, nil
	}
	return response.StatusCode, json.Unmarshal(content, into)
}

func (p *process) progress() progress {
	p.t.Helper()
	response, err := http.Get(p.url + "/progress")
	if err != nil {
		p.t.Fatal(err)
	}
	var it progress
	if status, err := readAnswer(response, &it); err != nil || status != http.StatusOK {
		p.t.Fatalf("progress: %d, %v", status, err)
	}
	return it
}

// until waits for a progress.
func (p *process) until(what string, is func(progress) bool) progress {
	p.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		it := p.progress()
		if is(it) {
			return it
		}
		if it.State == stateFailed || time.Now().After(end) {
			p.t.Fatalf("not %s: %+v", what, it)
		}
	}
}

// bodyOf makes a request of samples.
func bodyOf(samples []sample, labels bool) map[string]any {
	images := make([][]float32, len(samples))
	of := make([]int, len(samples))
	for i := range samples {
		images[i], of[i] = samples[i].pixels[:], int(samples[i].label)
	}
	body := map[string]any{"images": images}
	if labels {
		body["labels"] = of
	}
	return body
}

func (p *process) postSamples(samples []sample) (total int) {
	p.t.Helper()
	var answer struct{ Samples int }
	status, err := p.post("/samples", bodyOf(samples, true), &answer)
	if err != nil || status != http.StatusOK {
		p.t.Fatalf("samples: %d, %v", status, err)
	}
	return answer.Samples
}

func (p *process) predict(samples []sample) (right int, err error) {
	var answer struct{ Predictions []prediction }
	status, err := p.post("/predict", bodyOf(samples, false), &answer)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	if err == nil && len(answer.Predictions) != len(samples) {
		err = errors.New("another number of predictions")
	}
	if err != nil {
		return 0, err
	}
	for i, it := range answer.Predictions {
		sum := 0.0
		for _, p := range it.Probabilities {
			sum += p
		}
		if len(it.Probabilities) != numClasses || sum < 0.999 || sum > 1.001 {
			return 0, fmt.Errorf("probabilities: %v", it.Probabilities)
		}
		if it.Class == int(samples[i].label) {
			right++
		}
	}
	return right, nil
}

// accuracy is in percent.
func (p *process) accuracy(samples []sample) float64 {
	p.t.Helper()
	right := 0
	for at := 0; at < len(samples); at += maxPredictImages {
		n, err := p.predict(samples[at:min(at+maxPredictImages, len(samples))])
		if err != nil {
			p.t.Fatal(err)
		}
		right += n
	}
	return 100 * float64(right) / float64(len(samples))
}

// newestIter returns the iteration of the newest checkpoint.
func newestIter(t testing.TB, workDir string) int64 {
	t.Helper()
	path, err := grapnel.LatestCheckpoint(filepath.Join(workDir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := grapnel.OpenCheckpoint(path)
	if err != nil {
		t.Fatal(err)
	}
	defer checkpoint.Close()
	return checkpoint.Iter()
}
