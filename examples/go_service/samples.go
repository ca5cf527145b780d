package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const (
	numPixels  = 64 // Of an image of 8x8, row by row.
	maxPixel   = 16 // Pixels are 0 to 16.
	numClasses = 10

	// All samples are kept in memory too: 260 bytes each.
	maxSamples = 1 << 20
)

// A sample is an image and its class.
type sample struct {
	pixels [numPixels]float32
	label  uint8
}

// Bytes of a sample in the file.
const sampleSize = 4*numPixels + 1

// Of what one request may post.
const maxRecordSamples = 4096

var (
	errFull = fmt.Errorf("samples: there is room for %d", maxSamples)

	crcTable = crc32.MakeTable(crc32.Castagnoli)
)

// A sampleLog has the samples that were posted, in order: in memory, and in a
// file, where they are once append has returned. Any goroutine may use it.
//
// The file has a record for each append: the number of its samples, and a
// CRC-32C of that and of them; then pixels, as float32, and label of each. All
// is little-endian.
type sampleLog struct {
	mu      sync.Mutex
	file    *os.File
	size    int64 // Of the records that are whole.
	broken  error // Why no more can be appended.
	samples []sample
	grown   chan struct{} // Closed when there are more.
}

// openSampleLog reads a file, or makes it. A record at its end that was being
// written when the process was killed is dropped: nobody was told that it is
// there. dropped is its size in bytes.
func openSampleLog(path string) (l *sampleLog, dropped int64, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, 0, fmt.Errorf("%s: another process uses it: %w", path, err)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, 0, err
	}
	l = &sampleLog{file: file, grown: make(chan struct{})}
	for {
		size, ok := readRecord(content[l.size:], &l.samples)
		if !ok {
			break
		}
		l.size += size
	}
	dropped = int64(len(content)) - l.size
	for at := l.size + 1; at < int64(len(content)); at++ {
		if _, ok := readRecord(content[at:], new([]sample)); ok {
			return nil, 0, fmt.Errorf("%s: is damaged at byte %d: there is a record behind, at %d",
				path, l.size, at)
		}
	}
	if err := l.cut(); err != nil {
		return nil, 0, err
	}
	return l, dropped, syncDir(filepath.Dir(path)) // That has the file's name.
}

// readRecord appends the samples of the record that content begins with, and
// returns its size; false if there is none that is whole.
func readRecord(content []byte, samples *[]sample) (size int64, ok bool) {
	if len(content) < 8 {
		return 0, false
	}
	n := binary.LittleEndian.Uint32(content)
	size = 8 + int64(n)*sampleSize
	if n == 0 || n > maxRecordSamples || size > int64(len(content)) ||
		checksum(content[:size]) != binary.LittleEndian.Uint32(content[4:]) {
		return 0, false
	}
	for body := content[8:size]; len(body) > 0; body = body[sampleSize:] {
		var it sample
		for i := range it.pixels {
			it.pixels[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:]))
		}
		it.label = body[sampleSize-1]
		*samples = append(*samples, it)
	}
	return size, true
}

func writeRecord(samples []sample) []byte {
	record := make([]byte, 8, 8+len(samples)*sampleSize)
	binary.LittleEndian.PutUint32(record, uint32(len(samples)))
	for i := range samples {
		for _, pixel := range samples[i].pixels {
			record = binary.LittleEndian.AppendUint32(record, math.Float32bits(pixel))
		}
		record = append(record, samples[i].label)
	}
	binary.LittleEndian.PutUint32(record[4:], checksum(record))
	return record
}

// checksum is of all of a record but the checksum.
func checksum(record []byte) uint32 {
	return crc32.Update(crc32.Checksum(record[:4], crcTable), crcTable, record[8:])
}

// append adds 1 to maxRecordSamples samples, all or none, and returns how many
// there are then. They are on the disk when it returns.
func (l *sampleLog) append(samples []sample) (total int, err error) {
	record := writeRecord(samples)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	if len(l.samples)+len(samples) > maxSamples {
		return 0, errFull
	}
	if _, err := l.file.WriteAt(record, l.size); err != nil {
		if failed := l.cut(); failed != nil {
			l.broken = failed
		}
		return 0, err
	}
	if err := l.file.Sync(); err != nil {
		// What is on the disk nobody knows now; the next start will read it.
		l.broken = err
		return 0, err
	}
	l.size += int64(len(record))
	l.samples = append(l.samples, samples...)
	close(l.grown)
	l.grown = make(chan struct{})
	return len(l.samples), nil
}

// cut makes the file end behind the records that are whole.
func (l *sampleLog) cut() error {
	return errors.Join(l.file.Truncate(l.size), l.file.Sync())
}

// all returns the samples that there are, to be read only.
func (l *sampleLog) all() []sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.samples
}

func (l *sampleLog) len() int { return len(l.all()) }

// wait returns when there are n samples, or ctx is done.
func (l *sampleLog) wait(ctx context.Context, n int) {
	for {
		l.mu.Lock()
		have, grown := len(l.samples), l.grown
		l.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return
		}
	}
}

func (l *sampleLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = os.ErrClosed
	return l.file.Close()
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
