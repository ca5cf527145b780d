//! Errors of the library, and of callbacks.

use std::any::Any;
use std::sync::Mutex;
use std::{error, fmt};

use grapnel_sys as sys;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error, as callbacks may return it; `?` makes it of what a callback calls.
pub type BoxError = Box<dyn error::Error + Send + Sync + 'static>;

/// What a callback returns. An error ends the call that it was part of, whose own error has it as
/// its [`source`](error::Error::source).
pub type CallbackResult<T = ()> = std::result::Result<T, BoxError>;

/// What kind of error it is: absl's and gRPC's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// Stopped from outside.
    Cancelled,
    /// Of no other kind; a callback's own.
    Unknown,
    /// A field of the config or its value, an argument, a shape.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// There is no such file, checkpoint or tensor.
    NotFound,
    /// There is one of that name.
    AlreadyExists,
    /// The system refused.
    PermissionDenied,
    /// No memory, or no room.
    ResourceExhausted,
    /// Not now.
    FailedPrecondition,
    /// Another run trains in this work_dir.
    Aborted,
    /// Beyond the end.
    OutOfRange,
    /// There is nothing of the kind.
    Unimplemented,
    /// A mistake of the library's, or a panic in a callback.
    Internal,
    /// Try again later.
    Unavailable,
    /// A damaged checkpoint.
    DataLoss,
    /// Nobody said who is asking.
    Unauthenticated,
}

const CODES: [(sys::grapnel_code, Code); 16] = [
    (sys::GRAPNEL_CANCELLED, Code::Cancelled),
    (sys::GRAPNEL_UNKNOWN, Code::Unknown),
    (sys::GRAPNEL_INVALID_ARGUMENT, Code::InvalidArgument),
    (sys::GRAPNEL_DEADLINE_EXCEEDED, Code::DeadlineExceeded),
    (sys::GRAPNEL_NOT_FOUND, Code::NotFound),
    (sys::GRAPNEL_ALREADY_EXISTS, Code::AlreadyExists),
    (sys::GRAPNEL_PERMISSION_DENIED, Code::PermissionDenied),
    (sys::GRAPNEL_RESOURCE_EXHAUSTED, Code::ResourceExhausted),
    (sys::GRAPNEL_FAILED_PRECONDITION, Code::FailedPrecondition),
    (sys::GRAPNEL_ABORTED, Code::Aborted),
    (sys::GRAPNEL_OUT_OF_RANGE, Code::OutOfRange),
    (sys::GRAPNEL_UNIMPLEMENTED, Code::Unimplemented),
    (sys::GRAPNEL_INTERNAL, Code::Internal),
    (sys::GRAPNEL_UNAVAILABLE, Code::Unavailable),
    (sys::GRAPNEL_DATA_LOSS, Code::DataLoss),
    (sys::GRAPNEL_UNAUTHENTICATED, Code::Unauthenticated),
];

impl Code {
    /// One that this crate doesn't know is [`Code::Unknown`].
    pub(crate) fn from_c(code: sys::grapnel_code) -> Code {
        CODES.iter().find(|(c, _)| *c == code).map_or(Code::Unknown, |(_, code)| *code)
    }

    pub(crate) fn to_c(self) -> sys::grapnel_code {
        CODES.iter().find(|(_, code)| *code == self).map_or(sys::GRAPNEL_UNKNOWN, |(c, _)| *c)
    }
}

/// What a callback failed with.
pub(crate) enum Cause {
    Error(BoxError),
    Panic(Mutex<Box<dyn Any + Send>>),
}

struct Inner {
    code: Code,
    message: String,
    cause: Option<Cause>,
}

/// Why a call failed: a [`Code`], and a message that names the field, file or tensor.
///
/// If a callback failed, [`source`](error::Error::source) is the error that it returned; if it
/// panicked, the panic can be [taken](Error::into_panic) and resumed:
///
/// ```
/// # fn f(mut runner: grapnel::Runner) {
/// if let Err(error) = runner.train() {
///     match error.into_panic() {
///         Ok(panic) => std::panic::resume_unwind(panic),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # }
/// ```
pub struct Error(Box<Inner>);

impl Error {
    /// One of your own, for a callback that wants a code to be kept.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error(Box::new(Inner { code, message: message.into(), cause: None }))
    }

    pub(crate) fn with_cause(mut self, cause: Option<Cause>) -> Error {
        self.0.cause = cause;
        self
    }

    /// What kind of error it is.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What happened and where.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether a callback panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0.cause, Some(Cause::Panic(_)))
    }

    /// What a callback panicked with, for [`std::panic::resume_unwind`]; else the error itself.
    pub fn into_panic(mut self) -> std::result::Result<Box<dyn Any + Send>, Error> {
        match self.0.cause.take() {
            Some(Cause::Panic(payload)) => {
                Ok(payload.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
            }
            cause => Err(self.with_cause(cause)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("code", &self.0.code).field("message", &self.0.message);
        match &self.0.cause {
            None => {}
            Some(Cause::Error(source)) => {
                debug.field("source", source);
            }
            Some(Cause::Panic(_)) => {
                debug.field("panic", &true);
            }
        }
        debug.finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.cause {
            Some(Cause::Error(source)) => Some(&**source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_number() {
        for (number, code) in CODES {
            assert_eq!(Code::from_c(number), code);
            assert_eq!(code.to_c(), number);
        }
        assert_eq!(Code::from_c(77), Code::Unknown);
    }

    #[test]
    fn an_error_is_not_a_panic() {
        let error = Error::new(Code::NotFound, "no");
        assert!(!error.is_panic());
        assert_eq!(error.into_panic().unwrap_err().message(), "no");
    }
}
