package process

import (
	"sync"
	"syscall"
)

// FillThreadPool makes Go have n threads at least, which it keeps: those that it
// makes later are no finding then.
func FillThreadPool(n int) error {
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		return err
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	var begun, ended sync.WaitGroup
	for range n {
		begun.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			begun.Done()
			var b [1]byte
			_, _ = syscall.Read(pipe[0], b[:]) // Blocks, and its thread with it.
		}()
	}
	begun.Wait()
	if _, err := syscall.Write(pipe[1], make([]byte, n)); err != nil {
		return err
	}
	ended.Wait()
	return nil
}
