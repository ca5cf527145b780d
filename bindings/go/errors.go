package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unsafe"
)

// An Error is what the library reports. Its message names the field, file or
// tensor that it is about.
//
// errors.Is finds its [Code]. Where the error came from a callback, such as a
// hook's, errors.Is and errors.As also find what the callback returned.
type Error struct {
	Code    Code
	Message string
	cause   error
}

// Errorf makes an error with a code, for callbacks that fail. The format may
// have %w, several too.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: err}
}

func (e *Error) Error() string { return "grapnel: " + e.message() }

// message is that of a nil *Error too, which is easily returned as an error.
func (e *Error) message() string {
	if e == nil {
		return "a nil *Error"
	}
	return e.Message
}

// Is reports whether target is the error's code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && e != nil && code == e.Code
}

// Unwrap returns what a callback returned, or nil.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// A PanicError is a panic in a callback. It ends the call that the callback was
// part of with an [*Error] that wraps it; find it with errors.As.
type PanicError struct {
	Value any    // What panic was called with.
	Stack []byte // Of the goroutine that panicked, as debug.Stack prints it.
}

func (e *PanicError) Error() string { return fmt.Sprint("panic: ", e.Value) }

// Unwrap returns Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var (
	// ErrBusy is the cause of an error where another call on the same Runner is
	// going on: in another goroutine, or the one that has called the callback that
	// asks. Its code is ErrFailedPrecondition.
	ErrBusy = errors.New("grapnel: another call on the runner is going on")

	// ErrClosed is the cause of an error where an object is used that is closed,
	// or that a callback was lent which has returned. Its code is
	// ErrFailedPrecondition.
	ErrClosed = errors.New("grapnel: it is closed, or was lent to a callback that has returned")
)

var errBusy = &Error{
	Code:    ErrFailedPrecondition,
	Message: "runner: another call on it is going on; in a callback use what it was handed",
	cause:   ErrBusy,
}

// gone is the error for something that is used too late.
func gone(what string) error {
	return &Error{
		Code:    ErrFailedPrecondition,
		Message: what + ": it is closed, or was lent to a callback that has returned",
		cause:   ErrClosed,
	}
}

// missing is the error for an object that isn't there.
func missing(what string) error { return invalid("%s: there is none, it is nil", what) }

func invalid(format string, args ...any) error {
	return &Error{Code: ErrInvalidArgument, Message: fmt.Sprintf(format, args...)}
}

// within says in front of an error of ours what it is about.
func within(name string, err error) error {
	mine, ok := err.(*Error)
	if !ok {
		return err
	}
	about := *mine
	about.Message = name + ": " + mine.Message
	return &about
}

// take makes an error of a status, which it destroys. Code and message travel in
// the status itself, so it doesn't matter on which thread the goroutine is.
func take(status *C.grapnel_status) error {
	if status == nil {
		return nil
	}
	err := read(status)
	C.grapnel_status_destroy(status)
	return err
}

// read is take for a status that somebody else owns.
func read(status *C.grapnel_status) *Error {
	return &Error{
		Code:    Code(C.grapnel_status_code(status)),
		Message: C.GoString(C.grapnel_status_message(status)),
	}
}

// codeOf returns the code that says most about a user's error: never that of no
// error, which would lose it.
func codeOf(err error) Code {
	var mine *Error
	var code Code
	switch {
	case errors.As(err, &mine) && mine != nil && mine.Code > 0:
		return mine.Code
	case errors.As(err, &code) && code > 0:
		return code
	case errors.Is(err, context.Canceled):
		return ErrCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return ErrDeadlineExceeded
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return ErrPermissionDenied
	default:
		return ErrUnknown
	}
}

// messageOf returns a user's error as C can carry it.
func messageOf(err error) string {
	text := ""
	if mine, ok := err.(*Error); ok {
		text = mine.message() // Without a second "grapnel:".
	} else {
		text = err.Error()
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if text == "" {
		return fmt.Sprintf("an error without a text, %T", err)
	}
	return text
}

func newStatus(code Code, message string) *C.grapnel_status {
	p, n := chars(message)
	return C.grapnel_status_create(C.grapnel_code(code), p, n)
}

// chars lends a string for the length of a call: no copy, no NUL.
func chars(s string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}

// bytesOf lends a slice for the length of a call.
func bytesOf(b []byte) (unsafe.Pointer, C.size_t) {
	return unsafe.Pointer(unsafe.SliceData(b)), C.size_t(len(b))
}
