package grapnel

/*
#include "callbacks.h"
*/
import "C"

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// logSlot is where lines of a log go.
type logSlot struct {
	logger *slog.Logger
}

var logSlots slots[logSlot]

var processLog struct {
	mu   sync.Mutex
	slot uintptr
}

// SetLogger sends what the library has to say outside of runs to logger, in
// place of stderr; nil goes back to stderr. Lines come on any goroutine, several
// at once. The log of a run is of its own: see [Options].
func SetLogger(logger *slog.Logger) {
	processLog.mu.Lock()
	defer processLog.mu.Unlock()
	old := processLog.slot
	processLog.slot = 0
	if logger != nil {
		processLog.slot = logSlots.add(&logSlot{logger: logger}, 0)
	}
	C.grapnel_go_set_log(C.uintptr_t(processLog.slot)) // Waits for lines on their way.
	if old != 0 {
		logSlots.remove(old)
	}
}

//export grapnelGoLog
func grapnelGoLog(slot C.uintptr_t, severity C.grapnel_severity, message *C.char, size C.size_t) {
	text := C.GoStringN(message, C.int(size))
	returned := false
	defer func() {
		if !returned { // A log has nobody to fail to.
			err := panicked("a log handler", recover())
			fmt.Fprintf(os.Stderr, "%v, in a log handler, at: %s\n", err, text)
		}
	}()
	logSlots.get(uintptr(slot)).logger.Log(context.Background(), levelOf(severity), text)
	returned = true
}

func levelOf(severity C.grapnel_severity) slog.Level {
	switch severity {
	case C.GRAPNEL_INFO:
		return slog.LevelInfo
	case C.GRAPNEL_WARNING:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func severityOf(level slog.Level) C.grapnel_severity {
	switch {
	case level < slog.LevelWarn:
		return C.GRAPNEL_INFO
	case level < slog.LevelError:
		return C.GRAPNEL_WARNING
	default:
		return C.GRAPNEL_ERROR
	}
}
