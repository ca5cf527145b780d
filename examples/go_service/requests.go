package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
)

// Bytes of a request's body.
const maxBody = 2 << 20

// A request is the body of POST /predict and, with labels, of POST /samples.
// Elements are pointers because encoding/json takes null for a number, and says
// nothing.
type request struct {
	Images [][]*float32 `json:"images"`
	Labels []*int64     `json:"labels"`
}

// A badRequest is the client's fault.
type badRequest struct {
	status  int
	message string
}

func (e *badRequest) Error() string { return e.message }

func bad(format string, args ...any) error {
	return &badRequest{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// readRequest reads a body, and images of it. Errors are badRequests, which
// name the field.
func readRequest(w http.ResponseWriter, r *http.Request, maxImages int) (request, []sample, error) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	var body request
	if err := decoder.Decode(&body); err != nil {
		return body, nil, unreadable(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return body, nil, bad("body: there is more behind the object")
	}
	samples, err := readImages(body.Images, maxImages)
	return body, samples, err
}

func readImages(images [][]*float32, maxImages int) ([]sample, error) {
	if len(images) == 0 || len(images) > maxImages {
		return nil, bad("images: must be 1 to %d, are %d", maxImages, len(images))
	}
	samples := make([]sample, len(images))
	for i, image := range images {
		if len(image) != numPixels {
			return nil, bad("images[%d]: must have %d numbers, has %d", i, numPixels, len(image))
		}
		for j, pixel := range image {
			if pixel == nil {
				return nil, bad("images[%d][%d]: must be a number, is null", i, j)
			}
			if *pixel < 0 || *pixel > maxPixel {
				return nil, bad("images[%d][%d]: must be >= 0 and <= %d, is %v", i, j, maxPixel,
					*pixel)
			}
			samples[i].pixels[j] = *pixel
		}
	}
	return samples, nil
}

// readLabels sets the labels of the samples.
func readLabels(labels []*int64, samples []sample) error {
	if len(labels) != len(samples) {
		return bad("labels: must be one for each of %d images, are %d", len(samples), len(labels))
	}
	for i, label := range labels {
		if label == nil {
			return bad("labels[%d]: must be a number, is null", i)
		}
		if *label < 0 || *label >= numClasses {
			return bad("labels[%d]: must be >= 0 and < %d, is %d", i, numClasses, *label)
		}
		samples[i].label = uint8(*label)
	}
	return nil
}

// unreadable says what is wrong with a body that isn't what was asked for.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return &badRequest{http.StatusRequestEntityTooLarge,
			fmt.Sprintf("body: must have at most %d bytes", tooLarge.Limit)}
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			field = "body"
		}
		return bad("%s: must be %s, got %s at byte %d", field, kindOf(wrongType.Type),
			wrongType.Value, wrongType.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return bad("body: is not a whole JSON object")
	default:
		return bad("body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Float32:
		return "a number"
	case reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "an array"
	default:
		return "an object"
	}
}
