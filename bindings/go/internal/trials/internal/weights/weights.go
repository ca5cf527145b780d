// Package weights writes down a model.
package weights

import (
	"encoding/binary"
	"fmt"
	"io"

	"grapnel.dev/grapnel"
)

// Write writes name and bytes of each tensor of a runner's model.
func Write(runner *grapnel.Runner, to io.Writer) error {
	names, err := runner.TensorNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		tensor, err := runner.Tensor(name)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(to, name); err != nil {
			return err
		}
		var values any
		switch tensor.DType() {
		case grapnel.DTypeFloat32:
			values, err = grapnel.Values[float32](tensor)
		case grapnel.DTypeInt64:
			values, err = grapnel.Values[int64](tensor)
		default:
			err = fmt.Errorf("%s: is %v", name, tensor)
		}
		if err != nil {
			return err
		}
		if err := binary.Write(to, binary.LittleEndian, values); err != nil {
			return err
		}
	}
	return nil
}
