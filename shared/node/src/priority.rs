//! Priority of the process for the processor and for the disk, so that a relay never disturbs its host.
//!
//! On Linux both belong to a thread and are inherited by the threads it starts: they are set before there are others.

use crate::config::NodeSettings;
use std::process::{Command, Stdio};

/// A class of the kernel's I/O scheduler, as `ionice` numbers them, with its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoPriority {
    /// 0 is the first to be served, 7 the last.
    BestEffort(u8),
    /// Only while nobody else wants the disk.
    Idle,
}

impl IoPriority {
    /// Reads `"idle"`, `"best-effort"` (the kernel's usual level, 4) and `"best-effort:0"` to `"best-effort:7"`.
    pub(crate) fn parse(text: &str) -> Option<IoPriority> {
        match text.split_once(':') {
            None if text == "idle" => Some(IoPriority::Idle),
            None if text == "best-effort" => Some(IoPriority::BestEffort(4)),
            Some(("best-effort", level)) => {
                level.parse().ok().filter(|level| *level <= 7).map(IoPriority::BestEffort)
            }
            _ => None,
        }
    }

    fn arguments(self) -> Vec<String> {
        match self {
            IoPriority::Idle => vec!["-c3".to_owned()],
            IoPriority::BestEffort(level) => vec!["-c2".to_owned(), format!("-n{level}")],
        }
    }
}

/// Sets what `[node]` asks for; gives what could not be set, to be logged once there is a log. Call while the process
/// has one thread.
pub(crate) fn apply(settings: &NodeSettings) -> Vec<String> {
    let mut troubles = Vec::new();
    if settings.nice != 0
        && let Err(error) = rustix::process::setpriority_process(None, settings.nice)
    {
        troubles.push(format!("node.nice = {} cannot be set: {error}", settings.nice));
    }
    if let Some(priority) = IoPriority::parse(&settings.ioprio)
        && let Err(error) = set_io_priority(priority)
    {
        troubles.push(format!("node.ioprio = \"{}\" cannot be set: {error}", settings.ioprio));
    }
    troubles
}

/// By the system's own tool: there is no safe call for it, and it is done once.
fn set_io_priority(priority: IoPriority) -> Result<(), String> {
    let output = Command::new("ionice")
        .args(priority.arguments())
        .arg("-p")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ionice (package util-linux) does not start: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_levels_are_read_and_others_refused() {
        assert_eq!(IoPriority::parse("idle"), Some(IoPriority::Idle));
        assert_eq!(IoPriority::parse("best-effort"), Some(IoPriority::BestEffort(4)));
        assert_eq!(IoPriority::parse("best-effort:7"), Some(IoPriority::BestEffort(7)));
        for bad in ["", "best-effort:8", "best-effort:", "idle:1", "realtime", "realtime:0", "Idle"] {
            assert_eq!(IoPriority::parse(bad), None, "{bad}");
        }
    }
}
