// A service that learns to read digits from samples that are posted to it, and
// reads digits meanwhile. README.md says how to use it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"grapnel.dev/grapnel"
)

// Exit codes.
const (
	exitStopped = 0 // By a signal, with all that was learned saved.
	exitFailed  = 1
	exitUsage   = 2 // A flag, the config or the work_dir is wrong.
)

type flags struct {
	addr, workDir, config string
	grace, refresh        time.Duration
	replicas              int
	passes                int64
}

func readFlags() (f flags, err error) {
	flag.StringVar(&f.addr, "addr", "127.0.0.1:8080", "where to listen; port 0 is any free one")
	flag.StringVar(&f.workDir, "work-dir", "work_dirs/go_service", "for samples, checkpoints, logs")
	flag.StringVar(&f.config, "config", "", "a RunnerConfig in text; default: service.textproto")
	flag.DurationVar(&f.grace, "grace", 10*time.Second, "how long stopping may take")
	flag.DurationVar(&f.refresh, "refresh", time.Second, "between newer weights for predictions")
	flag.IntVar(&f.replicas, "replicas", runtime.NumCPU(), "predictions at the same time")
	flag.Int64Var(&f.passes, "passes", 30, "over the same samples, then wait for more; 0: go on")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return f, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case f.grace <= 0:
		return f, fmt.Errorf("--grace: must be > 0, is %v", f.grace)
	case f.refresh <= 0:
		return f, fmt.Errorf("--refresh: must be > 0, is %v", f.refresh)
	case f.replicas < 1:
		return f, fmt.Errorf("--replicas: must be >= 1, is %d", f.replicas)
	case f.passes < 0:
		return f, fmt.Errorf("--passes: must be >= 0, is %d", f.passes)
	}
	return f, nil
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	grapnel.SetLogger(log)
	flags, err := readFlags()
	if err != nil {
		log.Error("bad command line", "error", err)
		os.Exit(exitUsage)
	}
	os.Exit(run(flags, log))
}

func run(flags flags, log *slog.Logger) (exitCode int) {
	// The first signal stops; once it has come, a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)

	samples, listener, trainer, err := open(flags, log)
	if err != nil {
		log.Error("can't start", "error", err)
		return exitUsage
	}
	service := &service{trainer: trainer, samples: samples, metrics: newMetrics(), log: log}
	if err := serve(ctx, service, listener, flags.grace); err != nil {
		log.Error("failed", "error", err)
		return exitFailed
	}
	trainer.close()
	if err := samples.close(); err != nil {
		log.Error("failed", "error", err)
		return exitFailed
	}
	log.Info("stopped")
	return exitStopped
}

func open(flags flags, log *slog.Logger) (*sampleLog, net.Listener, *trainer, error) {
	config, err := readConfig(flags.config, flags.workDir)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := os.MkdirAll(flags.workDir, 0o755); err != nil {
		return nil, nil, nil, err
	}
	samples, dropped, err := openSampleLog(filepath.Join(flags.workDir, "samples"))
	if err != nil {
		return nil, nil, nil, err
	}
	if dropped > 0 {
		log.Warn("dropped a record that was not whole, and not acknowledged", "bytes", dropped)
	}
	listener, err := net.Listen("tcp", flags.addr)
	if err != nil {
		return nil, nil, nil, errors.Join(err, samples.close())
	}
	fmt.Printf("listening on %v\n", listener.Addr())
	return samples, listener, &trainer{
		config:   config,
		samples:  samples,
		log:      log,
		refresh:  flags.refresh,
		replicas: flags.replicas,
		passes:   flags.passes,
		progress: progress{State: stateWaiting},
	}, nil
}

// serve trains and answers until ctx is done; then no more requests are
// accepted, those that are being answered are brought to their end, and what was
// learned is saved, all within grace.
func serve(ctx context.Context, service *service, on net.Listener, grace time.Duration) error {
	trained := make(chan struct{})
	go func() {
		defer close(trained)
		service.trainer.run(ctx)
	}()
	server := service.newServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(on) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	service.log.Info("stopping", "grace", grace)
	deadline, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	shut := make(chan error, 1)
	go func() { shut <- server.Shutdown(deadline) }()
	select {
	case <-trained:
	case <-deadline.Done():
		return fmt.Errorf("training did not stop within %v", grace)
	}
	if err := <-shut; err != nil {
		return fmt.Errorf("requests were not answered within %v: %w", grace, err)
	}
	return nil
}
