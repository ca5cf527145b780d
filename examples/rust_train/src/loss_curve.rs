//! The hook: the loss of each iteration and its moving average, as a CSV file.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use grapnel::{CallbackResult, Hook, Run, Stage, Stages, State};

const HEADER: &str = "iter,loss,average\n";

/// How much the newest loss counts in the average.
const WEIGHT: f64 = 0.05;

/// Writes loss.csv, a line an iteration. Checkpoints have the average, and how much of the file
/// there was: a run that is resumed cuts off what came later, and leaves the same file as one that
/// was never stopped.
pub struct LossCurve {
    path: PathBuf,
    /// Open while the run trains.
    file: Option<File>,
    /// The file's size in bytes.
    size: u64,
    /// NaN before the first iteration.
    average: f64,
}

impl LossCurve {
    pub fn new(work_dir: impl AsRef<Path>) -> LossCurve {
        let path = work_dir.as_ref().join("loss.csv");
        LossCurve { path, file: None, size: 0, average: f64::NAN }
    }

    fn open(&mut self) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        // Shorter than it was: somebody has deleted it.
        self.size = self.size.min(file.metadata()?.len());
        file.set_len(self.size)?;
        file.seek(SeekFrom::End(0))?;
        self.file = Some(file);
        if self.size == 0 {
            self.append(HEADER)?;
        }
        Ok(())
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes())?;
            self.size += line.len() as u64;
        }
        Ok(())
    }

    fn named(&self, error: io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

impl Hook for LossCurve {
    fn stages(&self) -> Stages {
        Stage::BeforeTrain | Stage::AfterTrainIter
    }

    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult {
        if stage == Stage::BeforeTrain {
            return Ok(self.open().map_err(|error| self.named(error))?);
        }
        let loss = run.log_vars()?.get("loss").ok_or("the model has no loss")?;
        self.average = if self.average.is_nan() {
            loss
        } else {
            self.average + WEIGHT * (loss - self.average)
        };
        // A number of the run's log, too.
        run.add_scalar("train/average", self.average)?;
        let line = format!("{},{loss},{}\n", run.iter() + 1, self.average);
        Ok(self.append(&line).map_err(|error| self.named(error))?)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

impl State for LossCurve {
    fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult {
        to.extend(self.size.to_le_bytes());
        to.extend(self.average.to_le_bytes());
        Ok(())
    }

    fn load(&mut self, from: &[u8]) -> CallbackResult {
        // A checkpoint of a run without this hook has nothing.
        if from.is_empty() {
            return Ok(());
        }
        let (size, average) = from.split_at_checked(8).ok_or("state: is cut short")?;
        self.size = u64::from_le_bytes(size.try_into()?);
        self.average = f64::from_le_bytes(average.try_into()?);
        Ok(())
    }
}
