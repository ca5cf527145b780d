package grapnel

/*
#include "callbacks.h"
*/
import "C"

import (
	"cmp"
	"fmt"
	"reflect"
	"unsafe"
)

// A Hook acts at stages of a run. It acts at those whose method it has, each of
// them called as its [Stage]:
//
//	func (h *myHook) AfterTrainIter(run *grapnel.Run) error
//
// Stages that it has no method for cost nothing. An error ends the run, and
// comes out of the call that ran it: errors.Is finds it. At OnError it is logged
// only. Methods come one at a time, from inside of the call on the Runner, on its
// goroutine or another one: so they use the Run that they are handed, and not the
// Runner.
//
// Optional is
//
//	Priority() grapnel.Priority // In which order hooks act. PriorityNormal if it isn't there.
//
// and, both or none, for stages that are chosen when the hook is made, of which
// there is no method then:
//
//	Stages() []grapnel.Stage
//	OnStage(run *grapnel.Run) error // Run.Stage tells which.
//
// and, both or none, for what is kept in checkpoints:
//
//	SaveState() ([]byte, error)
//	LoadState(state []byte) error
//
// LoadState gets what SaveState gave, and nothing if the checkpoint has none.
// Both are called for evaluations too: one that is cut short, and one between
// two steps, leave the state as it was before. Of several ranks the state of rank
// 0 is kept, and all get it.
type Hook interface {
	// Name returns what the hook is called: unique in the run. It is the key of
	// its state in checkpoints.
	Name() string
}

// A Priority orders the hooks of a stage: 0 acts first, 100 last.
type Priority int32

const (
	PriorityHighest     Priority = 0
	PriorityVeryHigh    Priority = 10
	PriorityHigh        Priority = 30
	PriorityAboveNormal Priority = 40
	PriorityNormal      Priority = 50
	PriorityBelowNormal Priority = 60
	PriorityLow         Priority = 70
	PriorityVeryLow     Priority = 90
	PriorityLowest      Priority = 100
)

// HookFunc makes a hook that calls f at each of the stages.
func HookFunc(name string, f func(*Run) error, stages ...Stage) Hook {
	return &funcHook{name, f, stages}
}

type funcHook struct {
	name   string
	f      func(*Run) error
	stages []Stage
}

func (h *funcHook) Name() string           { return h.name }
func (h *funcHook) Stages() []Stage        { return h.stages }
func (h *funcHook) OnStage(run *Run) error { return h.f(run) }

// WithPriority makes a hook act in another order.
func WithPriority(hook Hook, priority Priority) Hook {
	return &prioritized{hook, priority}
}

type prioritized struct {
	Hook
	priority Priority
}

// staged acts at stages of its choice.
type staged interface {
	Stages() []Stage
	OnStage(run *Run) error
}

// stateful is what keeps something in checkpoints.
type stateful interface {
	SaveState() ([]byte, error)
	LoadState(state []byte) error
}

// hookSlot is a hook as it is called.
type hookSlot struct {
	acts   [numStages]func(*Run) error // nil at stages that it has no method for.
	run    Run
	name   string
	state  stateful // Or nil.
	errors *callbackErrors
}

var hookSlots slots[hookSlot]

// newHookSlot looks, once, at which stages a hook acts.
func newHookSlot(hook Hook, returned *callbackErrors) (*hookSlot, Priority, error) {
	hook, priority := unwrapped(hook)
	switch it := hook.(type) {
	case nil:
		return nil, 0, invalid("hook: is nil")
	case badHook:
		return nil, 0, it.err
	case *nativeHook:
		return nil, 0, invalid("hook %q: is of C: its priority is that of its callbacks", it.name)
	}
	slot := &hookSlot{name: hook.Name(), errors: returned}
	slot.run.errors = returned
	if err := slot.addMethods(hook); err != nil {
		return nil, 0, within(fmt.Sprintf("hook %q", slot.name), err)
	}
	return slot, priority, nil
}

func unwrapped(hook Hook) (Hook, Priority) {
	switch it := hook.(type) {
	case *prioritized:
		inner, _ := unwrapped(it.Hook)
		return inner, it.priority
	case interface{ Priority() Priority }:
		return hook, it.Priority()
	default:
		return hook, PriorityNormal
	}
}

// addMethods finds the methods, and refuses those that look like one and
// wouldn't be called.
func (s *hookSlot) addMethods(hook Hook) error {
	stage, isStaged := hook.(staged)
	state, _ := hook.(stateful)
	_, isPrioritized := hook.(interface{ Priority() Priority })
	if f, ok := hook.(*funcHook); ok && f.f == nil {
		return invalid("needs a function, is nil")
	}
	if err := cmp.Or(
		checkMethods(hook, isStaged, "Stages() []Stage", "OnStage(*Run) error"),
		checkState(hook),
		checkMethods(hook, isPrioritized, "Priority() Priority"),
	); err != nil {
		return err
	}
	s.state = state
	for stage, name := range stageNames {
		s.acts[stage] = stageMethods[stage](hook)
		if err := checkMethods(hook, s.acts[stage] != nil, name+"(*Run) error"); err != nil {
			return err
		}
	}
	if isStaged {
		for _, i := range stage.Stages() {
			if i < 0 || i >= numStages {
				return invalid("there is no %v", i)
			}
			if _, there := reflect.TypeOf(hook).MethodByName(stageNames[i]); there {
				return invalid("%T has a method %v, and its Stages has that stage too", hook, i)
			}
			s.acts[i] = stage.OnStage
		}
	}
	if s.stages() == 0 {
		return invalid("%T acts at no stage: it has no method as AfterTrainIter(*Run) error", hook)
	}
	return nil
}

// stages returns a bit for each stage that the hook acts at.
func (s *hookSlot) stages() (mask uint64) {
	for stage, act := range s.acts {
		if act != nil {
			mask |= 1 << stage
		}
	}
	return mask
}

// addHook gives a hook to options.
func addHook(options *C.grapnel_runner_options, hook Hook, returned *callbackErrors) error {
	if native, ok := hook.(*nativeHook); ok {
		return within(fmt.Sprintf("hook %q", native.name), native.add(options))
	}
	slot, priority, err := newHookSlot(hook, returned)
	if err != nil {
		return err
	}
	var hasState C.int32_t
	if slot.state != nil {
		hasState = 1
	}
	index := hookSlots.add(slot, returned.runner)
	p, n := chars(slot.name)
	status := C.grapnel_go_add_hook(options, p, n, C.uint64_t(slot.stages()), C.int32_t(priority),
		hasState, C.uintptr_t(index))
	if status != nil {
		hookSlots.remove(index) // Nothing is taken.
		return within(fmt.Sprintf("hook %q", slot.name), take(status))
	}
	return nil
}

// The one callback of every iteration, so without guard's closure.
//
//export grapnelGoOnStage
func grapnelGoOnStage(slot C.uintptr_t, stage C.grapnel_stage,
	run *C.grapnel_run) (status *C.grapnel_status) {
	s := hookSlots.get(uintptr(slot))
	s.run.c, s.run.stage = run, Stage(stage)
	returned := false
	defer func() {
		if !returned {
			status = s.failed(Stage(stage), panicked(s.what(Stage(stage)), recover()))
		}
		s.run.end()
	}()
	if err := s.acts[stage](&s.run); err != nil {
		status = s.failed(Stage(stage), err)
	}
	returned = true
	return status
}

// failed makes what C gets of an error. That of OnError is logged, and comes
// back nowhere.
func (s *hookSlot) failed(stage Stage, err error) *C.grapnel_status {
	if stage == OnError {
		return (*callbackErrors)(nil).status(err)
	}
	return s.errors.status(err)
}

func (s *hookSlot) what(stage Stage) string { return fmt.Sprintf("hook %q, %v,", s.name, stage) }

//export grapnelGoSaveHook
func grapnelGoSaveHook(slot C.uintptr_t, state *C.grapnel_bytes) *C.grapnel_status {
	s := hookSlots.get(uintptr(slot))
	return saveState(s.errors.guard, s.state, state)
}

//export grapnelGoLoadHook
func grapnelGoLoadHook(slot C.uintptr_t, state unsafe.Pointer, size C.size_t) *C.grapnel_status {
	s := hookSlots.get(uintptr(slot))
	return loadState(s.errors.guard, s.state, state, size)
}

//export grapnelGoDestroyHook
func grapnelGoDestroyHook(slot C.uintptr_t) { hookSlots.remove(uintptr(slot)) }
