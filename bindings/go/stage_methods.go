package grapnel

// stageMethods has, for each stage, what finds a hook's method for it: nil if
// there is none. Method values, as calls through reflection allocate.
var stageMethods = [numStages]func(Hook) func(*Run) error{
	Setup: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ Setup(*Run) error }); ok {
			return it.Setup
		}
		return nil
	},
	BeforeRun: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeRun(*Run) error }); ok {
			return it.BeforeRun
		}
		return nil
	},
	AfterLoadCheckpoint: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterLoadCheckpoint(*Run) error }); ok {
			return it.AfterLoadCheckpoint
		}
		return nil
	},
	AfterRestore: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterRestore(*Run) error }); ok {
			return it.AfterRestore
		}
		return nil
	},
	BeforeTrain: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeTrain(*Run) error }); ok {
			return it.BeforeTrain
		}
		return nil
	},
	BeforeTrainEpoch: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeTrainEpoch(*Run) error }); ok {
			return it.BeforeTrainEpoch
		}
		return nil
	},
	BeforeTrainIter: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeTrainIter(*Run) error }); ok {
			return it.BeforeTrainIter
		}
		return nil
	},
	BeforeOptimizerStep: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeOptimizerStep(*Run) error }); ok {
			return it.BeforeOptimizerStep
		}
		return nil
	},
	AfterOptimizerStep: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterOptimizerStep(*Run) error }); ok {
			return it.AfterOptimizerStep
		}
		return nil
	},
	AfterTrainIter: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterTrainIter(*Run) error }); ok {
			return it.AfterTrainIter
		}
		return nil
	},
	AfterTrainEpoch: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterTrainEpoch(*Run) error }); ok {
			return it.AfterTrainEpoch
		}
		return nil
	},
	BeforeVal: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeVal(*Run) error }); ok {
			return it.BeforeVal
		}
		return nil
	},
	BeforeValEpoch: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeValEpoch(*Run) error }); ok {
			return it.BeforeValEpoch
		}
		return nil
	},
	BeforeValIter: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeValIter(*Run) error }); ok {
			return it.BeforeValIter
		}
		return nil
	},
	AfterValIter: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterValIter(*Run) error }); ok {
			return it.AfterValIter
		}
		return nil
	},
	AfterValEpoch: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterValEpoch(*Run) error }); ok {
			return it.AfterValEpoch
		}
		return nil
	},
	AfterVal: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterVal(*Run) error }); ok {
			return it.AfterVal
		}
		return nil
	},
	BeforeTest: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeTest(*Run) error }); ok {
			return it.BeforeTest
		}
		return nil
	},
	BeforeTestEpoch: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeTestEpoch(*Run) error }); ok {
			return it.BeforeTestEpoch
		}
		return nil
	},
	BeforeTestIter: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeTestIter(*Run) error }); ok {
			return it.BeforeTestIter
		}
		return nil
	},
	AfterTestIter: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterTestIter(*Run) error }); ok {
			return it.AfterTestIter
		}
		return nil
	},
	AfterTestEpoch: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterTestEpoch(*Run) error }); ok {
			return it.AfterTestEpoch
		}
		return nil
	},
	AfterTest: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterTest(*Run) error }); ok {
			return it.AfterTest
		}
		return nil
	},
	BeforeSaveCheckpoint: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeSaveCheckpoint(*Run) error }); ok {
			return it.BeforeSaveCheckpoint
		}
		return nil
	},
	AfterSaveCheckpoint: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterSaveCheckpoint(*Run) error }); ok {
			return it.AfterSaveCheckpoint
		}
		return nil
	},
	BeforeExport: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ BeforeExport(*Run) error }); ok {
			return it.BeforeExport
		}
		return nil
	},
	AfterExport: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterExport(*Run) error }); ok {
			return it.AfterExport
		}
		return nil
	},
	AfterTrain: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterTrain(*Run) error }); ok {
			return it.AfterTrain
		}
		return nil
	},
	OnError: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ OnError(*Run) error }); ok {
			return it.OnError
		}
		return nil
	},
	AfterRun: func(hook Hook) func(*Run) error {
		if it, ok := hook.(interface{ AfterRun(*Run) error }); ok {
			return it.AfterRun
		}
		return nil
	},
}
