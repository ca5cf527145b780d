//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

pub const USAGE: &str = "usage: rust_train DATA_DIR [--work-dir DIR] [--resume] [FIELD=VALUE ...]

  DATA_DIR        where the digits are: examples/digits
  --work-dir DIR  where checkpoints and loss.csv go; work_dirs/rust_train unless said
  --resume        go on from the newest checkpoint there, if there is one
  FIELD=VALUE     changes the config: train_cfg.max_epochs=20";

#[derive(Debug, PartialEq)]
pub struct Arguments {
    pub data_dir: PathBuf,
    pub work_dir: String,
    pub resume: bool,
    pub assignments: Vec<String>,
}

impl Arguments {
    /// Those of the process; `None` if help is asked for.
    pub fn parse() -> Result<Option<Arguments>, lexopt::Error> {
        parse(lexopt::Parser::from_env())
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Arguments>, lexopt::Error> {
    let mut data_dir: Option<OsString> = None;
    let mut work_dir = "work_dirs/rust_train".to_owned();
    let mut resume = false;
    let mut assignments = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("work-dir") => work_dir = parser.value()?.string()?,
            Long("resume") => resume = true,
            Value(value) if data_dir.is_none() => data_dir = Some(value),
            Value(value) => assignments.push(value.string()?),
            _ => return Err(argument.unexpected()),
        }
    }
    // loss.csv would not go there.
    if assignments.iter().any(|assignment| assignment.starts_with("work_dir=")) {
        return Err("work_dir: is set by --work-dir".into());
    }
    let data_dir = data_dir.ok_or("DATA_DIR is missing")?.into();
    Ok(Some(Arguments { data_dir, work_dir, resume, assignments }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Arguments>, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_may_stand_anywhere() {
        let expected = Arguments {
            data_dir: "data".into(),
            work_dir: "work".to_owned(),
            resume: true,
            assignments: vec!["a.b=1".to_owned(), "c=2".to_owned()],
        };
        let arguments = ["--work-dir=work", "data", "a.b=1", "--resume", "c=2"];
        assert_eq!(parsed(&arguments), Ok(Some(expected)));
    }

    #[test]
    fn help_comes_before_what_is_missing() {
        assert_eq!(parsed(&["--help"]), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (arguments, expected) in [
            (&[][..], "DATA_DIR is missing"),
            (&["data", "--resum"], "invalid option '--resum'"),
            (&["data", "--work-dir"], "missing argument for option '--work-dir'"),
            (&["data", "work_dir=there"], "work_dir: is set by --work-dir"),
        ] {
            assert_eq!(parsed(arguments), Err(expected.to_owned()), "{arguments:?}");
        }
    }
}
