package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"grapnel.dev/grapnel"
)

const loadClients = 8

// Clients ask all the time, each one question after the other, while it trains
// all the time: no prediction fails. Then it is killed, and goes on.
//
//	GRAPNEL_LOAD_SECONDS=120 go test -v -run TestPredictionsUnderLoad
func TestPredictionsUnderLoad(t *testing.T) {
	seconds := 5
	if text := os.Getenv("GRAPNEL_LOAD_SECONDS"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil || seconds < 1 {
			t.Fatalf("GRAPNEL_LOAD_SECONDS: must be a number >= 1, is %q", text)
		}
	}
	workDir := t.TempDir()
	train, test := readDigits(t, "train"), readDigits(t, "test")
	p := start(t, workDir, "--passes", "0", "--refresh", "200ms")
	p.postSamples(train)
	begin := p.until("training", func(it progress) bool { return it.Iter > 0 })

	took := make([][]time.Duration, loadClients)
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var clients sync.WaitGroup
	for client := range loadClients {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for i := client; time.Now().Before(end); i++ {
				one := test[i%len(test):][:1]
				asked := time.Now()
				if _, err := p.predict(one); err != nil {
					t.Errorf("client %d, prediction %d: %v", client, len(took[client]), err)
					return
				}
				took[client] = append(took[client], time.Since(asked))
			}
		}()
	}
	clients.Wait()
	now := p.progress()
	all := slices.Concat(took...)
	slices.Sort(all)
	percentile := func(p int) time.Duration {
		return all[(len(all)-1)*p/100].Round(10 * time.Microsecond)
	}
	t.Logf("%d clients for %d s: %d predictions, none failed, %.0f/s; p50 %v, p99 %v, longest %v; "+
		"%.0f iterations/s of training meanwhile", loadClients, seconds, len(all),
		float64(len(all))/float64(seconds), percentile(50), percentile(99), percentile(100),
		float64(now.Iter-begin.Iter)/float64(seconds))
	if now.State != stateTraining || now.PredictorIter <= begin.Iter {
		t.Errorf("it doesn't train: %+v", now)
	}

	p.until("saved", func(progress) bool {
		_, err := grapnel.LatestCheckpoint(filepath.Join(workDir, "run"))
		return err == nil
	})
	p.kill()
	newest := newestIter(t, workDir)
	p = start(t, workDir, "--passes", "0")
	it := p.until("begun", func(it progress) bool { return it.Iter > it.BeganAt })
	if it.BeganAt != newest || it.Samples != len(train) {
		t.Errorf("after iteration %d it went on with %+v", newest, it)
	}
	t.Logf("killed after iteration %d, it went on after %d", now.Iter, it.BeganAt)
	p.signal(syscall.SIGTERM)
	if code := p.wait(20 * time.Second); code != exitStopped {
		t.Errorf("exit code %d", code)
	}
}
