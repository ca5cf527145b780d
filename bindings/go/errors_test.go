package grapnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"grapnel.dev/grapnel"
)

func TestAnErrorIsItsCode(t *testing.T) {
	_, err := grapnel.OpenCheckpoint(t.TempDir() + "/none")
	wantError(t, err, grapnel.ErrNotFound, "none")
	if errors.Is(err, grapnel.ErrInvalidArgument) {
		t.Error("it is another code too")
	}
	var failed *grapnel.Error
	if !errors.As(fmt.Errorf("mine: %w", err), &failed) || failed.Code != grapnel.ErrNotFound {
		t.Errorf("got %v", failed)
	}
}

func TestCodesHaveWords(t *testing.T) {
	if got := grapnel.ErrDataLoss.String(); got != "data loss" {
		t.Errorf("got %q", got)
	}
	if got := grapnel.ErrUnauthenticated.Error(); got != "grapnel: unauthenticated" {
		t.Errorf("got %q", got)
	}
	if got := grapnel.Code(99).String(); got != "code 99" {
		t.Errorf("got %q", got)
	}
}

func TestErrorfWraps(t *testing.T) {
	err := grapnel.Errorf(grapnel.ErrUnavailable, "a try: %w", io.ErrUnexpectedEOF)
	wantError(t, err, io.ErrUnexpectedEOF, "grapnel: a try: unexpected EOF")
	wantError(t, err, grapnel.ErrUnavailable, "")
}

// An error of a callback goes through C, and is found again.
func TestACallbacksErrorComesBack(t *testing.T) {
	mine := errors.New("the shelf is empty")
	for _, test := range []struct {
		returned error
		code     grapnel.Code
	}{
		{mine, grapnel.ErrUnknown},
		{fmt.Errorf("wrapped: %w", mine), grapnel.ErrUnknown},
		{grapnel.Errorf(grapnel.ErrDataLoss, "%w", mine), grapnel.ErrDataLoss},
		{errors.Join(mine, grapnel.ErrUnavailable), grapnel.ErrUnavailable},
		{errors.Join(mine, context.DeadlineExceeded), grapnel.ErrDeadlineExceeded},
		{errors.Join(mine, fs.ErrNotExist), grapnel.ErrNotFound},
		{errors.Join(mine, fs.ErrPermission), grapnel.ErrPermissionDenied},
		{fmt.Errorf("\xff\x00: %w", mine), grapnel.ErrUnknown},
	} {
		noLeaks(t)
		runner := newLine(t, grapnel.HookFunc("shelf", func(run *grapnel.Run) error {
			if run.Iter() < 3 {
				return nil
			}
			return test.returned
		}, grapnel.AfterTrainIter))
		err := runner.Train(background)
		wantError(t, err, mine, "the shelf is empty")
		wantError(t, err, test.code, `hook "shelf"`)
		// The run isn't lost.
		if iter := must[int64](t)(runner.Iter()); iter != 3 {
			t.Errorf("got iteration %d, want 3", iter)
		}
	}
}

type emptyError struct{}

func (emptyError) Error() string { return "" }

func TestAnErrorWithoutATextComesBack(t *testing.T) {
	runner := newLine(t, grapnel.HookFunc("mute", func(*grapnel.Run) error { return emptyError{} },
		grapnel.BeforeTrain))
	wantError(t, runner.Train(background), emptyError{}, "emptyError")
}

// The newest of several that are kept is that which ended the run.
func TestErrorsAreNotMixedUp(t *testing.T) {
	first, second := errors.New("the error"), errors.New("the error, again")
	next := first
	runner := newLine(t, grapnel.HookFunc("fails", func(*grapnel.Run) error { return next },
		grapnel.AfterTrainIter))
	wantError(t, runner.Train(background), first, "the error")
	next = second
	err := runner.Train(background)
	wantError(t, err, second, "the error, again")
	if errors.Is(err, first) {
		t.Error("it is the error of before too")
	}
}
