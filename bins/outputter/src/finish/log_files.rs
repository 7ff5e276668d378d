//! Where the lines of log files are now, and how far they are committed, for whoever reads them while the output goes on.

use super::pasts::Pasts;
use super::settings::Plan;
use crate::file::retire::Request;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the committer, which answers between two groups.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The log files of an output that is recovered.
#[derive(Clone, Debug)]
pub struct LogFiles {
    plan: Plan,
    requests: Sender<Request>,
}

impl LogFiles {
    /// They are finished by `plan`, and `requests` go to their committer.
    pub fn new(plan: Plan, requests: Sender<Request>) -> LogFiles {
        LogFiles { plan, requests }
    }

    /// Files that have the lines of a log file now, oldest lines first; none where it is not known.
    ///
    /// # Errors
    /// As [`Plan::files_now`].
    pub fn now(&self, log_file: &Path) -> io::Result<Vec<PathBuf>> {
        let Some(name) = self.name(log_file) else {
            if log_file.starts_with(self.plan.dir()) && !log_file.try_exists()? {
                self.plan.check_dir(log_file)?;
            }
            return Ok(Vec::new());
        };
        let files = self.plan.files_now(&[name], &mut Pasts::default())?;
        Ok(files.into_iter().map(|file| self.plan.log_data.join(file)).collect())
    }

    /// Bytes of a log file that are committed: behind them may be half a pack. `None` for files that nobody writes to.
    ///
    /// # Errors
    /// It is not known now: the committer is busy or has ended, or the file is not to be written to.
    pub fn committed(&self, log_file: &Path) -> io::Result<Option<u64>> {
        let Some(name) = self.name(log_file) else { return Ok(None) };
        let unknown = |kind: io::ErrorKind, why: &str| {
            let file = log_file.display();
            io::Error::new(kind, format!("it is not known what is committed of {file}: {why}"))
        };
        let ended = || unknown(io::ErrorKind::Interrupted, "the output has ended");
        let (answer, answered) = bounded(1);
        self.requests.send(Request::Lengths(name.clone(), answer)).map_err(|_| ended())?;
        match answered.recv_timeout(ANSWER_MAX) {
            Ok(Some(lengths)) => Ok(Some(lengths.data)),
            Ok(None) if self.plan.log_data.with_file_name("headers").join(name).try_exists()? => {
                Err(unknown(io::ErrorKind::Other, "it is not to be written to"))
            }
            Ok(None) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(unknown(io::ErrorKind::TimedOut, "the output is busy")),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    /// Its path below the folder, as the output knows it.
    fn name(&self, log_file: &Path) -> Option<String> {
        let below = log_file.strip_prefix(&self.plan.log_data).ok()?.to_str()?;
        below.strip_suffix(self.plan.form.suffix()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::FinishSettings;
    use super::*;
    use crate::file::archive::Form;

    #[test]
    fn what_is_committed_is_unknown_when_nobody_answers_and_of_no_matter_of_what_is_no_log_file() {
        let dir = tempfile::tempdir().unwrap();
        let [log_data, headers] = ["log_data", "headers"].map(|name| dir.path().join(name));
        [&log_data, &headers].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        std::fs::write(headers.join("h"), "").unwrap();
        let (requests, asked) = bounded(0);
        let plan = Plan::new(&FinishSettings::default(), &log_data, Form::Lines).unwrap();
        let files = LogFiles::new(plan, requests);
        let committer = std::thread::spawn(move || {
            for _ in 0..2 {
                let Ok(Request::Lengths(_, answer)) = asked.recv() else { panic!("what is asked") };
                answer.send(None).unwrap();
            }
            // It ends when it was asked once more.
            drop(asked.recv());
        });
        let committed = |path: &Path| files.committed(path).map_err(|error| error.kind());
        assert_eq!(committed(&log_data.join("h")), Err(io::ErrorKind::Other));
        assert_eq!(committed(&log_data.join("h.gz")), Ok(None));
        assert_eq!(committed(&dir.path().join("elsewhere")), Ok(None));
        assert_eq!(committed(&log_data.join("h")), Err(io::ErrorKind::Interrupted));
        committer.join().unwrap();
        assert_eq!(committed(&log_data.join("h")), Err(io::ErrorKind::Interrupted));
    }
}
