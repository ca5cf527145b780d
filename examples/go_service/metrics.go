package main

import (
	"bytes"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"
)

// Upper bounds of the histogram of times, in seconds.
var bounds = [...]float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5}

// metrics counts requests. Any goroutine may use it.
type metrics struct {
	mu       sync.Mutex
	requests map[string]*requestMetrics
}

type requestMetrics struct {
	statuses map[int]int64
	buckets  [len(bounds) + 1]int64 // Not cumulative.
	count    int64
	seconds  float64
}

func newMetrics() *metrics { return &metrics{requests: map[string]*requestMetrics{}} }

func (m *metrics) count(request string, status int, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	it := m.requests[request]
	if it == nil {
		it = &requestMetrics{statuses: map[int]int64{}}
		m.requests[request] = it
	}
	it.statuses[status]++
	it.buckets[sort.SearchFloat64s(bounds[:], took.Seconds())]++
	it.count++
	it.seconds += took.Seconds()
}

// writeTo writes Prometheus' text format.
func (m *metrics) writeTo(w io.Writer, p progress) (int64, error) {
	var out bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, value any) {
		family(name, kind, help)
		fmt.Fprintf(&out, "%s %v\n", name, value)
	}
	one("service_train_iter", "gauge", "Completed iterations of the training.", p.Iter)
	one("service_predictor_iter", "gauge", "The iteration whose weights predict.", p.PredictorIter)
	one("service_samples", "gauge", "Samples that were posted.", p.Samples)
	if p.Loss != nil && p.LearningRate != nil {
		one("service_train_loss", "gauge", "Loss of the last iteration.", *p.Loss)
		one("service_train_learning_rate", "gauge", "Of the last iteration.", *p.LearningRate)
	}
	family("service_state", "gauge", "1 for what the training does.")
	fmt.Fprintf(&out, "service_state{state=%q} 1\n", p.State)

	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.requests))
	for name := range m.requests {
		names = append(names, name)
	}
	sort.Strings(names)
	family("service_requests_total", "counter", "Answers, by HTTP status.")
	for _, name := range names {
		for status, count := range m.requests[name].statuses {
			fmt.Fprintf(&out, "service_requests_total{request=%q,status=\"%d\"} %d\n", name, status,
				count)
		}
	}
	const seconds = "service_request_seconds"
	family(seconds, "histogram", "From a request's headers to its answer.")
	for _, name := range names {
		it := m.requests[name]
		sum := int64(0)
		for i, bound := range bounds {
			sum += it.buckets[i]
			fmt.Fprintf(&out, "%s_bucket{request=%q,le=\"%v\"} %d\n", seconds, name, bound, sum)
		}
		fmt.Fprintf(&out, "%s_bucket{request=%q,le=\"+Inf\"} %d\n", seconds, name, it.count)
		fmt.Fprintf(&out, "%s_sum{request=%q} %v\n", seconds, name, it.seconds)
		fmt.Fprintf(&out, "%s_count{request=%q} %d\n", seconds, name, it.count)
	}
	return out.WriteTo(w)
}
