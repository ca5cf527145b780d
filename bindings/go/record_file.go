package grapnel

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"
)

// ReadRecords goes through the records of a run, in order, as it wrote them to a
// file: scalars.json in the folder vis_data of one of the folders in its
// work_dir. "step", the x of a plot, is one of a record's numbers. The run may be
// going on: a record that is not written whole yet isn't there yet. An error is
// the last that comes: ErrDataLoss for a line that is no record.
//
//	for record, err := range grapnel.ReadRecords(path) {
//		if err != nil {
//			return err
//		}
//		...
//	}
func ReadRecords(path string) iter.Seq2[*Scalars, error] {
	return func(yield func(*Scalars, error) bool) {
		file, err := os.Open(path)
		if err != nil {
			yield(nil, fileError(err))
			return
		}
		defer file.Close()
		lines := bufio.NewReader(file)
		for number := 1; ; number++ {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, fileError(err))
				return
			}
			record, err := parseRecord(strings.TrimSuffix(line, "\n"))
			if err != nil {
				yield(nil, &Error{
					Code:    ErrDataLoss,
					Message: fmt.Sprintf("%s: line %d: %v", path, number, err),
					cause:   err,
				})
				return
			}
			if !yield(record, nil) {
				return
			}
		}
	}
}

func fileError(err error) error {
	code := ErrUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code = ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		code = ErrPermissionDenied
	}
	return &Error{Code: code, Message: err.Error(), cause: err}
}

// parseRecord reads {"loss": 1.5, "step": 1}. It is JSON but for NaN and Infinity,
// which encoding/json doesn't read.
func parseRecord(line string) (*Scalars, error) {
	rest, opened := strings.CutPrefix(line, "{")
	rest, closed := strings.CutSuffix(rest, "}")
	if !opened || !closed {
		return nil, fmt.Errorf("is no record: %q", line)
	}
	record := NewScalars()
	for rest != "" {
		end := endOfString(rest)
		var name string
		if err := json.Unmarshal([]byte(rest[:end]), &name); err != nil {
			return nil, fmt.Errorf("has no name at %q", rest)
		}
		number, after, _ := strings.Cut(strings.TrimPrefix(rest[end:], ": "), ", ")
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: must be a number, is %q", name, number)
		}
		if err := record.Add(name, value); err != nil {
			return nil, err
		}
		rest = after
	}
	return record, nil
}

// endOfString returns the length of the JSON string that text begins with; 0 if
// it doesn't.
func endOfString(text string) int {
	if text == "" || text[0] != '"' {
		return 0
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}
