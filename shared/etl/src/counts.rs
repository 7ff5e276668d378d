//! What became of the lines of an hour.

use serde::{Deserialize, Serialize};

/// Lines by what became of them. `lines` is the sum of `rows`, the three `dropped_*`, `rejected` and `blank`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Read.
    pub lines: u64,
    /// Written into tables.
    pub rows: u64,
    /// Dropped by the program.
    pub dropped_program: u64,
    /// Dropped because their host is not on the white list.
    pub dropped_host: u64,
    /// Dropped because their address is on the black list.
    pub dropped_ip: u64,
    /// Written into the reject file.
    pub rejected: u64,
    /// Without a character.
    pub blank: u64,
    /// Rows that were marked as a spider's.
    pub spiders: u64,
    /// Lines with bytes that are no UTF-8, each replaced by U+FFFD.
    pub mended: u64,
    /// Bytes read, newlines included, decompressed.
    pub bytes: u64,
}

impl Counts {
    /// By name, for metrics and progress lines.
    pub fn by_name(&self) -> [(&'static str, u64); 10] {
        [
            ("lines", self.lines),
            ("rows", self.rows),
            ("dropped_program", self.dropped_program),
            ("dropped_host", self.dropped_host),
            ("dropped_ip", self.dropped_ip),
            ("rejected", self.rejected),
            ("blank", self.blank),
            ("spiders", self.spiders),
            ("mended", self.mended),
            ("bytes", self.bytes),
        ]
    }

    /// Adds those of another file.
    pub fn add(&mut self, other: &Counts) {
        self.lines += other.lines;
        self.rows += other.rows;
        self.dropped_program += other.dropped_program;
        self.dropped_host += other.dropped_host;
        self.dropped_ip += other.dropped_ip;
        self.rejected += other.rejected;
        self.blank += other.blank;
        self.spiders += other.spiders;
        self.mended += other.mended;
        self.bytes += other.bytes;
    }

    /// What came since `before`, an earlier state of the same counts.
    #[must_use]
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            lines: self.lines - before.lines,
            rows: self.rows - before.rows,
            dropped_program: self.dropped_program - before.dropped_program,
            dropped_host: self.dropped_host - before.dropped_host,
            dropped_ip: self.dropped_ip - before.dropped_ip,
            rejected: self.rejected - before.rejected,
            blank: self.blank - before.blank,
            spiders: self.spiders - before.spiders,
            mended: self.mended - before.mended,
            bytes: self.bytes - before.bytes,
        }
    }
}
