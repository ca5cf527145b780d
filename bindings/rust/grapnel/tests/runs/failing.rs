//! Callbacks that fail, as an error and as a panic.

use std::error::Error as _;
use std::fmt;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use grapnel::{Builder, CallbackResult, Code, Error};

use super::TempDir;

#[derive(Debug, PartialEq)]
pub struct Planned(pub i32);

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "as planned, number {}", self.0)
    }
}

impl std::error::Error for Planned {}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Error,
    Panic,
}

impl Way {
    pub fn go(self) -> CallbackResult {
        match self {
            Way::Error => Err(Planned(3).into()),
            Way::Panic => panic!("as planned, {}", std::hint::black_box(4)),
        }
    }
}

/// The error is the user's own, or his panic.
pub fn check(way: Way, error: Error, part: &str) {
    assert!(error.message().contains(part), "{error}: {part}");
    match way {
        Way::Error => {
            assert_eq!(error.code(), Code::Unknown, "{error}");
            assert!(error.message().ends_with("as planned, number 3"), "{error}");
            assert!(!error.is_panic());
            let source = error.source().expect("it has a source");
            assert_eq!(source.downcast_ref::<Planned>(), Some(&Planned(3)));
        }
        Way::Panic => {
            assert_eq!(error.code(), Code::Internal, "{error}");
            assert!(error.message().ends_with("panicked: as planned, 4"), "{error}");
            assert!(error.is_panic());
            assert!(error.source().is_none());
            let payload = error.into_panic().unwrap();
            let caught = catch_unwind(AssertUnwindSafe(|| resume_unwind(payload))).unwrap_err();
            assert_eq!(caught.downcast_ref::<String>().unwrap(), "as planned, 4");
        }
    }
}

/// Trains in both ways.
pub fn fails(part: &str, add: impl Fn(Builder, Way) -> Builder, without: fn(&TempDir) -> Builder) {
    for way in [Way::Error, Way::Panic] {
        let dir = TempDir::new();
        let made = add(without(&dir), way).build();
        let error = made.and_then(|mut runner| runner.train()).unwrap_err();
        check(way, error, part);
    }
}
