//! The digits: any way to train them is the same run, in its weights, and in what a hook sees.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use trials::digits::{train, Outcome, Plan};

fn data_dir() -> PathBuf {
    match env::var_os("GRAPNEL_DIGITS_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/digits"),
    }
}

fn outcome(name: &str, steps: Option<u64>, resume: bool, mixture: bool) -> Outcome {
    let work_dir = env::temp_dir().join(format!("grapnel_digits_{}_{name}", process::id()));
    let plan = Plan { data_dir: &data_dir(), work_dir: &work_dir, steps, resume, mixture };
    let outcome = train(&plan).unwrap();
    fs::remove_dir_all(&work_dir).unwrap();
    outcome
}

fn accuracy(outcome: &Outcome) -> &str {
    let line = outcome.metrics.lines().find(|line| line.contains("accuracy/top1")).unwrap();
    line.trim()
}

#[test]
fn any_way_to_train_is_the_same_run() {
    let at_once = outcome("at_once", Some(0), false, false);
    for line in [
        "setup epoch 0 of 3 iter 0 of 69",
        "before_train_iter epoch 2 of 3",
        "  train/loss 0x",
        "  saved extra_2",
        "  accuracy/top1 0x",
        "after_val epoch 3 of 3 iter 69 of 69 mode 1 training 0",
    ] {
        assert!(at_once.trace.contains(line), "{line}");
    }
    assert!(at_once.weights.starts_with(b"1.weight"));
    assert!(accuracy(&at_once).starts_with("accuracy/top1 0x1."), "{}", at_once.metrics);

    assert_eq!(outcome("by_steps", None, false, false), at_once);
    assert_eq!(outcome("mixed", Some(23), false, false), at_once);
    let resumed = outcome("resumed", Some(30), true, false);
    assert_eq!(resumed.weights, at_once.weights);
    assert_eq!(resumed.metrics, at_once.metrics);
    assert!(resumed.trace.contains("  loaded 0x"));
    assert_eq!(outcome("evaluated", Some(30), false, true).weights, at_once.weights);
}
