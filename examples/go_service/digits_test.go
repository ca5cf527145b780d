package main

import (
	"os"
	"path/filepath"
	"testing"
)

// readDigits reads the part "train" or "test" of examples/digits.
func readDigits(t testing.TB, part string) []sample {
	t.Helper()
	dir := os.Getenv("GRAPNEL_DIGITS_DIR")
	if dir == "" {
		dir = "../digits"
	}
	body := func(name string, header int) []byte { // Of an IDX file.
		content, err := os.ReadFile(filepath.Join(dir, part+name))
		if err != nil {
			t.Fatal(err)
		}
		return content[header:]
	}
	pixels, labels := body("-images-idx3-ubyte", 16), body("-labels-idx1-ubyte", 8)
	samples := make([]sample, len(labels))
	for i := range samples {
		for j := range numPixels {
			samples[i].pixels[j] = float32(pixels[i*numPixels+j])
		}
		samples[i].label = labels[i]
	}
	return samples
}
