package grapnel

/*
#include <grapnel/grapnel.h>
*/
import "C"

import "strconv"

// A Stage is a point of a run at which hooks act. A hook acts at those whose
// method it has: see [Hook].
//
//	Setup                           once per Runner, when all is built
//	BeforeRun                       each Train, Val, Test
//	AfterLoadCheckpoint             before anything of it is applied
//	AfterRestore                    when all of it is
//	BeforeTrain
//	  BeforeTrainEpoch              trained by iteration: once, round the whole run
//	    BeforeTrainIter
//	    BeforeOptimizerStep         if this iteration steps
//	    AfterOptimizerStep
//	    AfterTrainIter              Run.Iter doesn't count this one yet
//	  AfterTrainEpoch               Run.Epoch doesn't either; Run.Iter does
//	  BeforeVal                     if a validation is due
//	    BeforeValEpoch
//	      BeforeValIter
//	      AfterValIter
//	    AfterValEpoch               with the metrics
//	  AfterVal
//	AfterTrain
//	AfterRun                        however the call ends
//
// BeforeTest to AfterTest are as BeforeVal to AfterVal, BeforeExport and
// AfterExport round the writing of a model's own file, BeforeSaveCheckpoint and
// AfterSaveCheckpoint round that of a checkpoint. OnError comes in place of the
// rest up to AfterRun if anything failed, or the run was cut short.
type Stage int32

const (
	Setup                Stage = C.GRAPNEL_SETUP
	BeforeRun            Stage = C.GRAPNEL_BEFORE_RUN
	AfterLoadCheckpoint  Stage = C.GRAPNEL_AFTER_LOAD_CHECKPOINT
	AfterRestore         Stage = C.GRAPNEL_AFTER_RESTORE
	BeforeTrain          Stage = C.GRAPNEL_BEFORE_TRAIN
	BeforeTrainEpoch     Stage = C.GRAPNEL_BEFORE_TRAIN_EPOCH
	BeforeTrainIter      Stage = C.GRAPNEL_BEFORE_TRAIN_ITER
	BeforeOptimizerStep  Stage = C.GRAPNEL_BEFORE_OPTIMIZER_STEP
	AfterOptimizerStep   Stage = C.GRAPNEL_AFTER_OPTIMIZER_STEP
	AfterTrainIter       Stage = C.GRAPNEL_AFTER_TRAIN_ITER
	AfterTrainEpoch      Stage = C.GRAPNEL_AFTER_TRAIN_EPOCH
	BeforeVal            Stage = C.GRAPNEL_BEFORE_VAL
	BeforeValEpoch       Stage = C.GRAPNEL_BEFORE_VAL_EPOCH
	BeforeValIter        Stage = C.GRAPNEL_BEFORE_VAL_ITER
	AfterValIter         Stage = C.GRAPNEL_AFTER_VAL_ITER
	AfterValEpoch        Stage = C.GRAPNEL_AFTER_VAL_EPOCH
	AfterVal             Stage = C.GRAPNEL_AFTER_VAL
	BeforeTest           Stage = C.GRAPNEL_BEFORE_TEST
	BeforeTestEpoch      Stage = C.GRAPNEL_BEFORE_TEST_EPOCH
	BeforeTestIter       Stage = C.GRAPNEL_BEFORE_TEST_ITER
	AfterTestIter        Stage = C.GRAPNEL_AFTER_TEST_ITER
	AfterTestEpoch       Stage = C.GRAPNEL_AFTER_TEST_EPOCH
	AfterTest            Stage = C.GRAPNEL_AFTER_TEST
	BeforeSaveCheckpoint Stage = C.GRAPNEL_BEFORE_SAVE_CHECKPOINT
	AfterSaveCheckpoint  Stage = C.GRAPNEL_AFTER_SAVE_CHECKPOINT
	BeforeExport         Stage = C.GRAPNEL_BEFORE_EXPORT
	AfterExport          Stage = C.GRAPNEL_AFTER_EXPORT
	AfterTrain           Stage = C.GRAPNEL_AFTER_TRAIN
	OnError              Stage = C.GRAPNEL_ON_ERROR
	AfterRun             Stage = C.GRAPNEL_AFTER_RUN

	numStages = AfterRun + 1
)

// A stage's name is that of the method that a hook has for it.
var stageNames = [numStages]string{
	Setup:                "Setup",
	BeforeRun:            "BeforeRun",
	AfterLoadCheckpoint:  "AfterLoadCheckpoint",
	AfterRestore:         "AfterRestore",
	BeforeTrain:          "BeforeTrain",
	BeforeTrainEpoch:     "BeforeTrainEpoch",
	BeforeTrainIter:      "BeforeTrainIter",
	BeforeOptimizerStep:  "BeforeOptimizerStep",
	AfterOptimizerStep:   "AfterOptimizerStep",
	AfterTrainIter:       "AfterTrainIter",
	AfterTrainEpoch:      "AfterTrainEpoch",
	BeforeVal:            "BeforeVal",
	BeforeValEpoch:       "BeforeValEpoch",
	BeforeValIter:        "BeforeValIter",
	AfterValIter:         "AfterValIter",
	AfterValEpoch:        "AfterValEpoch",
	AfterVal:             "AfterVal",
	BeforeTest:           "BeforeTest",
	BeforeTestEpoch:      "BeforeTestEpoch",
	BeforeTestIter:       "BeforeTestIter",
	AfterTestIter:        "AfterTestIter",
	AfterTestEpoch:       "AfterTestEpoch",
	AfterTest:            "AfterTest",
	BeforeSaveCheckpoint: "BeforeSaveCheckpoint",
	AfterSaveCheckpoint:  "AfterSaveCheckpoint",
	BeforeExport:         "BeforeExport",
	AfterExport:          "AfterExport",
	AfterTrain:           "AfterTrain",
	OnError:              "OnError",
	AfterRun:             "AfterRun",
}

// String returns the stage's name: "AfterTrainIter".
func (s Stage) String() string {
	if s >= 0 && s < numStages {
		return stageNames[s]
	}
	return "stage " + strconv.Itoa(int(s))
}

// A Mode says which loop runs.
type Mode int32

const (
	ModeTrain Mode = C.GRAPNEL_TRAIN
	ModeVal   Mode = C.GRAPNEL_VAL
	ModeTest  Mode = C.GRAPNEL_TEST
)

// String returns the name: "train".
func (m Mode) String() string {
	switch m {
	case ModeTrain:
		return "train"
	case ModeVal:
		return "val"
	case ModeTest:
		return "test"
	default:
		return "mode " + strconv.Itoa(int(m))
	}
}

// A StopAt says where training ends that is asked to stop.
type StopAt int32

const (
	// StopAfterEpoch ends it after the epoch that is going on, validation
	// included; where it is counted in iterations, after the iteration.
	StopAfterEpoch StopAt = C.GRAPNEL_STOP_AFTER_EPOCH
	// StopNow ends it after the iteration that is going on, and saves.
	StopNow StopAt = C.GRAPNEL_STOP_NOW
)
