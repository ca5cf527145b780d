package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"time"

	"grapnel.dev/grapnel"
)

const (
	// Images of one request to predict.
	maxPredictImages = 256
	// How long a prediction may wait for others.
	predictTimeout = 10 * time.Second
)

// A service answers requests.
type service struct {
	trainer *trainer
	samples *sampleLog
	metrics *metrics
	log     *slog.Logger
}

// A handler returns what is to be answered as JSON.
type handler func(http.ResponseWriter, *http.Request) (any, error)

func (s *service) newServer() *http.Server {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]handler{
		"POST /samples": s.postSamples,
		"POST /predict": s.postPredict,
		"GET /progress": s.getProgress,
		"GET /healthz":  s.getHealth,
	} {
		mux.Handle(pattern, s.answer(pattern, handle))
	}
	mux.HandleFunc("GET /metrics", s.getMetrics)
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      40 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// answer writes what handle returns as JSON, and counts it.
func (s *service) answer(pattern string, handle handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		answer, err := handle(w, r)
		status := http.StatusOK
		if err != nil {
			status = statusOf(err)
			answer = map[string]string{"error": err.Error()}
			if status == http.StatusInternalServerError {
				s.log.Error("request failed", "request", pattern, "error", err)
			}
		}
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer) // The client may be gone.
		s.metrics.count(pattern, status, time.Since(begin))
	})
}

func statusOf(err error) int {
	var bad *badRequest
	switch {
	case errors.As(err, &bad):
		return bad.status
	case errors.Is(err, errFull):
		return http.StatusInsufficientStorage
	case errors.Is(err, grapnel.ErrFailedPrecondition), // There are no weights yet.
		errors.Is(err, grapnel.ErrDeadlineExceeded), errors.Is(err, grapnel.ErrCanceled),
		errors.Is(err, errUnhealthy):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// postSamples answers when the samples are on the disk.
func (s *service) postSamples(w http.ResponseWriter, r *http.Request) (any, error) {
	body, samples, err := readRequest(w, r, maxRecordSamples)
	if err != nil {
		return nil, err
	}
	if err := readLabels(body.Labels, samples); err != nil {
		return nil, err
	}
	total, err := s.samples.append(samples)
	if err != nil {
		return nil, err
	}
	return map[string]int{"samples": total}, nil
}

type prediction struct {
	Class         int       `json:"class"`
	Probabilities []float64 `json:"probabilities"`
}

func (s *service) postPredict(w http.ResponseWriter, r *http.Request) (any, error) {
	body, samples, err := readRequest(w, r, maxPredictImages)
	if err != nil {
		return nil, err
	}
	if body.Labels != nil {
		return nil, bad("labels: are not for a prediction")
	}
	ctx, cancel := context.WithTimeout(r.Context(), predictTimeout)
	defer cancel()
	outputs, err := s.trainer.predict(ctx, samples)
	if err != nil {
		return nil, err
	}
	predictions := make([]prediction, len(outputs))
	for i, output := range outputs {
		predictions[i] = newPrediction(output)
	}
	return map[string]any{"predictions": predictions}, nil
}

// newPrediction makes probabilities of a network's output.
func newPrediction(logits []float32) prediction {
	p := prediction{Probabilities: make([]float64, len(logits))}
	for class, logit := range logits {
		if logit > logits[p.Class] {
			p.Class = class
		}
	}
	sum := 0.0
	for class, logit := range logits {
		p.Probabilities[class] = math.Exp(float64(logit - logits[p.Class]))
		sum += p.Probabilities[class]
	}
	for class := range p.Probabilities {
		p.Probabilities[class] /= sum
	}
	return p
}

func (s *service) getProgress(http.ResponseWriter, *http.Request) (any, error) {
	return s.trainer.now(), nil
}

var errUnhealthy = errors.New("training has ended")

// getHealth fails where a restart may help.
func (s *service) getHealth(http.ResponseWriter, *http.Request) (any, error) {
	state := s.trainer.now().State
	if state == stateFailed || state == stateStopped {
		return nil, errUnhealthy
	}
	return map[string]string{"state": state}, nil
}

func (s *service) getMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = s.metrics.writeTo(w, s.trainer.now())
}
