//! The file output: log files and header lines, exactly once, by group commit.

pub mod template;
