package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func numbered(n int) []sample {
	samples := make([]sample, n)
	for i := range samples {
		samples[i].pixels[i%numPixels] = float32(i%maxPixel) + 0.5
		samples[i].label = uint8(i % numClasses)
	}
	return samples
}

func openLog(t *testing.T, path string) *sampleLog {
	t.Helper()
	log, _, err := openSampleLog(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.close() })
	return log
}

func appendTo(t *testing.T, log *sampleLog, samples []sample) {
	t.Helper()
	if _, err := log.append(samples); err != nil {
		t.Fatal(err)
	}
}

func TestSamplesAreThereAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	want := numbered(10)
	log := openLog(t, path)
	appendTo(t, log, want[:3])
	appendTo(t, log, want[3:4])
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.append(want); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	log = openLog(t, path)
	appendTo(t, log, want[4:])
	if !slices.Equal(log.all(), want) {
		t.Error("the samples are others")
	}
	log.close()
	if log = openLog(t, path); !slices.Equal(log.all(), want) {
		t.Error("the samples are others after a second start")
	}
}

// Wherever the last record ends, and whatever is there of it, those before are
// kept, and new ones come behind them.
func TestATornTailIsDropped(t *testing.T) {
	first, second := writeRecord(numbered(3)), writeRecord(numbered(2))
	for cut := range second {
		zeroed := slices.Concat(second[:cut], make([]byte, len(second)-cut))
		for name, tail := range map[string][]byte{"cut": second[:cut], "zeroed": zeroed} {
			path := filepath.Join(t.TempDir(), "samples")
			write(t, path, slices.Concat(first, tail))
			log, dropped, err := openSampleLog(path)
			if bytes.Equal(tail, second) { // Its last bytes are zeros.
				log.close()
				continue
			}
			if err != nil || dropped != int64(len(tail)) || !slices.Equal(log.all(), numbered(3)) {
				t.Fatalf("%s at %d: dropped %d, %v", name, cut, dropped, err)
			}
			appendTo(t, log, numbered(5))
			log.close()
			if log = openLog(t, path); !slices.Equal(log.all(), append(numbered(3), numbered(5)...)) {
				t.Fatalf("%s at %d: what was appended isn't there", name, cut)
			}
			log.close()
		}
	}
}

// A byte that is another one is found. In the last record it is as if that had
// been torn.
func TestDamageIsNotDropped(t *testing.T) {
	first, second := writeRecord(numbered(3)), writeRecord(numbered(2))
	for at := range first {
		path := filepath.Join(t.TempDir(), "samples")
		content := slices.Concat(first, second)
		content[at] ^= 0x40
		write(t, path, content)
		_, _, err := openSampleLog(path)
		if err == nil || !strings.Contains(err.Error(), "is damaged at byte 0") {
			t.Fatalf("byte %d: %v", at, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Fatalf("byte %d: the file was changed, %v", at, err)
		}
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	openLog(t, path)
	_, _, err := openSampleLog(path)
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("got %v", err)
	}
}

func TestThereIsRoomForSoMany(t *testing.T) {
	log := openLog(t, filepath.Join(t.TempDir(), "samples"))
	log.samples = make([]sample, maxSamples-1)
	if _, err := log.append(numbered(2)); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
	appendTo(t, log, numbered(1))
}

// A disk that is full costs that request, and nothing else.
func TestAppendFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	log := openLog(t, path)
	appendTo(t, log, numbered(2))
	limited(t, log.size+100, func() {
		if _, err := log.append(numbered(3)); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("got %v", err)
		}
	})
	appendTo(t, log, numbered(4))
	log.close()
	if log = openLog(t, path); !slices.Equal(log.all(), append(numbered(2), numbered(4)...)) {
		t.Error("the samples are others")
	}
}

// limited calls f while files can't be larger. Go has SIGXFSZ ignored.
func limited(t *testing.T, size int64, f func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: uint64(size), Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)
	f()
}

func TestManyAppendAndOneWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	log := openLog(t, path)
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 10 {
				if _, err := log.append(numbered(2)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	log.wait(context.Background(), 160)
	if n := log.len(); n != 160 {
		t.Errorf("got %d", n)
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	log.wait(ctx, 161)
	log.close()
	if n := openLog(t, path).len(); n != 160 {
		t.Errorf("got %d", n)
	}
}
