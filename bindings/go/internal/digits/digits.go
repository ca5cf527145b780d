// Package digits reads the handwritten digits of examples/digits.
package digits

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"grapnel.dev/grapnel"
)

// Pixels of an image.
const Pixels = 64

// Data is a pair of IDX files as a dataset: (1, 8, 8) float32, and int64 labels.
type Data struct {
	pixels []byte // Of 0 to 16.
	labels []byte
}

// Read reads a part, "train" or "test".
func Read(dir, part string) (*Data, error) {
	pixels, err := readIDX(filepath.Join(dir, part+"-images-idx3-ubyte"), 3)
	if err != nil {
		return nil, err
	}
	labels, err := readIDX(filepath.Join(dir, part+"-labels-idx1-ubyte"), 1)
	if err != nil {
		return nil, err
	}
	if len(pixels) != Pixels*len(labels) {
		return nil, fmt.Errorf("%s: there are %d pixels and %d labels", dir, len(pixels), len(labels))
	}
	return &Data{pixels, labels}, nil
}

// readIDX returns the bytes behind the header of an IDX file.
func readIDX(path string, rank int) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	header := 4 + 4*rank
	if len(content) < header || binary.BigEndian.Uint32(content) != 0x0800|uint32(rank) {
		return nil, fmt.Errorf("%s: is no IDX file of %d dimensions of bytes", path, rank)
	}
	size := 1
	for i := range rank {
		size *= int(binary.BigEndian.Uint32(content[4+4*i:]))
	}
	if len(content) != header+size {
		return nil, fmt.Errorf("%s: has %d bytes, must have %d", path, len(content), header+size)
	}
	return content[header:], nil
}

// Len returns the number of images.
func (d *Data) Len() int { return len(d.labels) }

// Get adds an image and its label.
func (d *Data) Get(index int, sample *grapnel.Tensors) error {
	image, err := grapnel.AddNew[float32](sample, "input", 1, 8, 8)
	if err != nil {
		return err
	}
	d.write(index, image)
	return grapnel.AddScalar(sample, "target", int64(d.labels[index]))
}

// GetBatch adds images and labels.
func (d *Data) GetBatch(indices []int64, batch *grapnel.Tensors) error {
	images, err := grapnel.AddNew[float32](batch, "input", len(indices), 1, 8, 8)
	if err != nil {
		return err
	}
	labels, err := grapnel.AddNew[int64](batch, "target", len(indices))
	if err != nil {
		return err
	}
	for i, index := range indices {
		d.write(int(index), images[i*Pixels:(i+1)*Pixels])
		labels[i] = int64(d.labels[index])
	}
	return nil
}

// ConcurrentSafe says that nothing is written.
func (d *Data) ConcurrentSafe() bool { return true }

func (d *Data) write(index int, image []float32) {
	for i, pixel := range d.pixels[index*Pixels : (index+1)*Pixels] {
		image[i] = float32(pixel) * 0.0625
	}
}
