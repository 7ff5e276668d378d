//! Where the lines of log files are now, and how far they are committed, for whoever reads them while the output goes on.

use super::pasts::Pasts;
use super::settings::Plan;
use crate::file::retire::Request;
use crossbeam_channel::{Sender, bounded};
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
    pub fn now(&self, log_file: &Path) -> Vec<PathBuf> {
        let Some(name) = self.name(log_file) else { return Vec::new() };
        let files = self.plan.files_now(&[name], &mut Pasts::default());
        files.into_iter().map(|file| self.plan.log_data.join(file)).collect()
    }

    /// Bytes of a log file that are committed: behind them may be half a pack. `None` for files that nobody writes to, and where nobody knows.
    pub fn committed(&self, log_file: &Path) -> Option<u64> {
        let (answer, answered) = bounded(1);
        self.requests.send(Request::Lengths(self.name(log_file)?, answer)).ok()?;
        answered.recv_timeout(ANSWER_MAX).ok()?.map(|lengths| lengths.data)
    }

    /// Its path below the folder, as the output knows it.
    fn name(&self, log_file: &Path) -> Option<String> {
        let below = log_file.strip_prefix(&self.plan.log_data).ok()?.to_str()?;
        below.strip_suffix(self.plan.form.suffix()).map(str::to_owned)
    }
}
