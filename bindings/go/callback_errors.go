package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
)

// callbackErrors keeps what the callbacks of one run returned. A status carries
// a code and a text through C; here the error is found again that they are of.
type callbackErrors struct {
	mu     sync.Mutex
	recent [8]callbackError // A ring: most errors don't come back, as a log's.
	next   int
}

type callbackError struct {
	message string
	err     error
}

// status makes what a callback returns to C.
func (c *callbackErrors) status(err error) *C.grapnel_status {
	if err == nil {
		return nil
	}
	message := messageOf(err)
	c.mu.Lock()
	c.recent[c.next] = callbackError{message, err}
	c.next = (c.next + 1) % len(c.recent)
	c.mu.Unlock()
	return newStatus(codeOf(err), message)
}

// take makes an error of a status, which it destroys, with what a callback
// returned as its cause. The library puts text around a callback's, and keeps
// it.
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
	for i := range c.recent { // The newest first.
		n := len(c.recent)
		it := &c.recent[(c.next-1-i+2*n)%n]
		if it.err != nil && strings.Contains(err.Message, it.message) {
			err.cause = it.err
			break
		}
	}
	return err
}

// guard calls a callback of the user's, and makes what C gets of its error or
// panic. what names the callback, for people.
//
// C code lies below on the stack, and must see the call return. A panic is
// recovered. runtime.Goexit can't be: nothing makes a goroutine that exits
// return to its caller. It would unwind C, locks held, and leave the process in
// pieces, so the process ends here, with words.
func (c *callbackErrors) guard(what string, callback func() error) (status *C.grapnel_status) {
	returned := false
	defer func() {
		if !returned {
			status = c.status(panicked(what, recover()))
		}
	}()
	err := callback()
	returned = true
	return c.status(err)
}

// panicked makes an error of what recover returned in a callback that didn't
// return: nil, since Go 1.21, only for runtime.Goexit.
func panicked(what string, value any) error {
	if value != nil {
		return &Error{
			Code:    ErrInternal,
			Message: fmt.Sprint("panic: ", value),
			cause:   &PanicError{value, debug.Stack()},
		}
	}
	stack := debug.Stack()
	go func() { // Elsewhere, where nobody recovers it.
		panic(fmt.Sprintf("grapnel: %s called runtime.Goexit, as testing.T.FailNow and Fatal do: "+
			"a callback must return, or panic\n\n%s", what, stack))
	}()
	select {}
}
