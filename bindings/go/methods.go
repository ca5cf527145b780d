package grapnel

import (
	"cmp"
	"reflect"
	"strings"
)

// Hooks, models, data and streams have optional methods, which are found by
// asking for interfaces. One that isn't quite right would be passed over in
// silence: here it is an error.

// checkMethods returns an error if object has one of the methods, of which it is
// known if it has them all as they must be.
func checkMethods(object any, hasAll bool, methods ...string) error {
	if hasAll {
		return nil
	}
	t := reflect.TypeOf(object)
	for _, method := range methods {
		name, _, _ := strings.Cut(method, "(")
		if _, ok := t.MethodByName(name); ok {
			return invalid("%T has a method %s, and must have %s", object, name,
				strings.Join(methods, " and "))
		}
		if t.Kind() == reflect.Pointer || t.Name() == "" {
			continue
		}
		if _, ok := reflect.PointerTo(t).MethodByName(name); ok {
			return invalid("%T has a method %s with a pointer receiver: give a pointer, &%s{...}", object,
				name, t.Name())
		}
	}
	return nil
}

func checkState(object any) error {
	_, isStateful := object.(stateful)
	return checkMethods(object, isStateful, "SaveState() ([]byte, error)",
		"LoadState([]byte) error")
}

func checkDataset(dataset Dataset) error {
	_, hasBatch := dataset.(batchGetter)
	_, hasSafe := dataset.(concurrentSafe)
	return cmp.Or(
		checkMethods(dataset, hasBatch, "GetBatch([]int64, *Tensors) error"),
		checkMethods(dataset, hasSafe, "ConcurrentSafe() bool"),
	)
}

func checkModel(model Model) error {
	_, hasBuffers := model.(buffered)
	_, hasVal := model.(valStepper)
	_, hasWritten := model.(tensorsWritten)
	_, hasTraining := model.(trainingSetter)
	_, hasExport := model.(exporter)
	return cmp.Or(
		checkMethods(model, hasBuffers, "Buffers() *Tensors"),
		checkMethods(model, hasVal, "ValStep(batch, predictions *Tensors, losses *Scalars) error"),
		checkMethods(model, hasWritten, "TensorsWritten() error"),
		checkMethods(model, hasTraining, "SetTraining(bool)"),
		checkMethods(model, hasExport, "ExportModel(string) error"),
	)
}
