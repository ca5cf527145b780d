// Package process looks at the process that it is in.
package process

import (
	"fmt"
	"os"
	"time"
)

// ResidentBytes returns how much of its memory is in use.
func ResidentBytes() (int64, error) {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(statm), &total, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}

// Threads returns how many OS threads it has.
func Threads() (int, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	return len(tasks), err
}

// Settled returns a number once it is at most that of before, or what it is when
// time is up: what ends does so in its own time.
func Settled(before int, count func() int, wait time.Duration) int {
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		if now := count(); now <= before || time.Now().After(end) {
			return now
		}
	}
}
