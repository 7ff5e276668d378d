//! What is lost for good in a life, and what its tailer says of it: `lost_bytes` counts nothing that was not at risk, and all that was
//! seen before it was taken away.

use super::life::{Kind, Life};
use std::os::unix::fs::MetadataExt;

impl Life<'_> {
    /// Reads what the tailer counts as lost; to be called before its process ends, because the next one counts from 0.
    pub(super) fn note_lost(&mut self) {
        if self.tailer.is_started() {
            self.lost_max = self.lost_max.max(self.tailer.figure("lost_bytes"));
        }
    }

    /// Nothing is counted that was not at risk.
    ///
    /// # Errors
    /// More is counted.
    pub(super) fn counts_no_more_than_was_at_risk(&mut self) -> Result<(), String> {
        self.note_lost();
        // Of a file that was cut when no more than a common header was read of it nobody can tell the copy, which is shipped all the same.
        if !self.shape.header.is_empty() {
            return Ok(());
        }
        let most: usize = self.risked.iter().map(|content| self.contents[*content].bytes.len()).sum();
        if self.lost_max > most as u64 {
            let (lost, risked) = (self.lost_max, &self.risked);
            return Err(format!(
                "{lost} bytes counted as lost; at risk were {most}, of the contents {risked:?}"
            ));
        }
        Ok(())
    }

    /// Takes bytes away, while no tailer runs, that the tailer has seen and the next tier has not: all of them are to be counted, and
    /// the file named.
    ///
    /// # Errors
    /// They are not.
    pub(super) fn lose(&mut self) -> Result<(), String> {
        self.trace.push("lose".to_owned());
        self.catch_up()?;
        self.wait_for("all is acknowledged", |life| life.tailer.figure("caught_up") == 1)?;
        // A last line without an end may be given up at any moment with its file: then nobody can tell by the lag what is seen.
        if self.tailer.figure("lag_bytes") > 0 {
            return Ok(());
        }
        let (path, content) = self.open_live();
        self.silence();
        let before = self.contents[content].bytes.len();
        self.write_lines(&path, content);
        let written = (self.contents[content].bytes.len() - before) as u64;
        self.wait_for("the lines are seen", |life| life.tailer.figure("lag_bytes") >= written)?;
        self.stop();
        self.at_risk(content);
        let has_other_name = std::fs::metadata(&path).is_ok_and(|metadata| metadata.nlink() > 1);
        if has_other_name {
            std::fs::write(&path, "").expect("truncated");
            self.renew(path.clone());
        } else {
            std::fs::remove_file(&path).expect("removed");
            self.live = None;
            self.names += usize::from(self.kind == Kind::Link);
        }
        self.start();
        self.wait_for(&format!("{written} bytes are counted"), |life| {
            life.tailer.figure("lost_bytes") >= written
        })?;
        // By the path that leads to it.
        let name = match self.kind {
            Kind::Link => "current".to_owned(),
            _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let is_named = |line: &str| line.contains("ERROR") && line.contains(&name);
        if !self.tailer.log_text().lines().any(is_named) {
            return Err(self.told(format!("{name} is not named as the file whose bytes are lost")));
        }
        self.speak();
        Ok(())
    }
}
