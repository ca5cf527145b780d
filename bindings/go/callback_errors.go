package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// callbackErrors keeps what the callbacks of one run returned. A status carries
// a code and a text through C; here the error is found again that they are of.
// nil keeps nothing.
type callbackErrors struct {
	runner uint32 // The number of the run: see slots.

	mu   sync.Mutex
	kept []callbackError // The newest last.
	any  atomic.Bool     // There are some in kept.
}

type callbackError struct {
	message string
	err     error
	ofData  bool // Of a dataset or stream, which works ahead of the calls.
}

// maxKept is more than workers can have failed ahead, and not for ever.
const maxKept = 1024

// status makes what a callback returns to C.
func (c *callbackErrors) status(err error) *C.grapnel_status { return c.keep(err, false) }

func (c *callbackErrors) keep(err error, ofData bool) *C.grapnel_status {
	if err == nil {
		return nil
	}
	code, message := codeOf(err), messageOf(err) // Calls methods of the user's.
	if c != nil {
		c.mu.Lock()
		if len(c.kept) == maxKept {
			c.kept = slices.Delete(c.kept, 0, maxKept/2)
		}
		c.kept = append(c.kept, callbackError{message, err, ofData})
		c.any.Store(true)
		c.mu.Unlock()
	}
	return newStatus(code, message)
}

// forget lets go of what belongs to earlier calls: a call begins.
func (c *callbackErrors) forget() {
	if !c.any.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(it callbackError) bool { return !it.ofData })
	c.any.Store(len(c.kept) > 0)
}

// take makes an error of a status, which it destroys, with what a callback
// returned as its cause.
func (c *callbackErrors) take(status *C.grapnel_status) error {
	if status == nil {
		return nil
	}
	err := c.read(status)
	C.grapnel_status_destroy(status)
	return err
}

// read is take for a status that somebody else owns.
func (c *callbackErrors) read(status *C.grapnel_status) *Error {
	err := read(status)
	c.mu.Lock()
	defer c.mu.Unlock()
	longest := -1
	for _, it := range slices.Backward(c.kept) {
		if len(it.message) > longest && endsWith(err.Message, it.message) {
			err.cause, longest = it.err, len(it.message)
		}
	}
	return err
}

// endsWith reports whether a message is a callback's, or that behind text of the
// library's: "hook \"mine\": AfterTrainIter: " and the like.
func endsWith(message, callbacks string) bool {
	before, found := strings.CutSuffix(message, callbacks)
	return found && (before == "" || strings.HasSuffix(before, ": "))
}

// guard calls a callback of the user's, and makes what C gets of its error or
// panic. what names the callback, for people.
//
// C code lies below on the stack, and must see the call return. A panic is
// recovered, one of the error's own methods too. runtime.Goexit can't be: nothing
// makes a goroutine that exits return to its caller. It would unwind C, locks
// held, and leave the process in pieces, so the process ends here, with words.
func (c *callbackErrors) guard(what string, callback func() error) *C.grapnel_status {
	return c.guarded(what, false, callback)
}

// guardData is guard for a dataset or a stream.
func (c *callbackErrors) guardData(what string, callback func() error) *C.grapnel_status {
	return c.guarded(what, true, callback)
}

func (c *callbackErrors) guarded(what string, ofData bool,
	callback func() error) (status *C.grapnel_status) {
	returned := false
	defer func() {
		if !returned {
			status = c.keep(panicked(what, recover()), ofData)
		}
	}()
	status = c.keep(callback(), ofData)
	returned = true
	return status
}

// panicked makes an error of what recover returned in a callback that didn't
// return: nil, since Go 1.21, only for runtime.Goexit.
func panicked(what string, value any) error {
	stack := debug.Stack()
	if value != nil {
		return &Error{
			Code:    ErrInternal,
			Message: "panic: " + textOfPanic(value),
			cause:   &PanicError{value, stack},
		}
	}
	go func() { // Elsewhere, where nobody recovers it.
		panic(fmt.Sprintf("grapnel: %s called runtime.Goexit, as testing.T.FailNow and Fatal do: "+
			"a callback must return, or panic\n\n%s", what, stack))
	}()
	select {}
}

// textOfPanic survives a value that can't be printed: whose Error panics with
// itself, for example.
func textOfPanic(value any) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("a %T that can't be printed", value)
		}
	}()
	return fmt.Sprint(value)
}
