package grapnel

import "strconv"

// A Code says what kind of error an [*Error] is. Values are those of
// google.rpc.Code. A Code is itself an error, to be asked for:
//
//	errors.Is(err, grapnel.ErrNotFound)
//
// More may come.
type Code int32

const (
	ErrCanceled           Code = 1
	ErrUnknown            Code = 2
	ErrInvalidArgument    Code = 3
	ErrDeadlineExceeded   Code = 4
	ErrNotFound           Code = 5
	ErrAlreadyExists      Code = 6
	ErrPermissionDenied   Code = 7
	ErrResourceExhausted  Code = 8
	ErrFailedPrecondition Code = 9
	ErrAborted            Code = 10 // Another run trains in the work_dir.
	ErrOutOfRange         Code = 11
	ErrUnimplemented      Code = 12
	ErrInternal           Code = 13
	ErrUnavailable        Code = 14
	ErrDataLoss           Code = 15 // A damaged checkpoint.
	ErrUnauthenticated    Code = 16
)

var codeNames = [...]string{
	"ok", "canceled", "unknown", "invalid argument", "deadline exceeded", "not found",
	"already exists", "permission denied", "resource exhausted", "failed precondition", "aborted",
	"out of range", "unimplemented", "internal", "unavailable", "data loss", "unauthenticated",
}

// String returns the code in words: "not found".
func (c Code) String() string {
	if c >= 0 && int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.Itoa(int(c))
}

// Error makes a Code an error.
func (c Code) Error() string { return "grapnel: " + c.String() }
