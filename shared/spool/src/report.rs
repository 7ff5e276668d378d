//! What recovery finds, and what is found wrong later.

use std::fmt;

/// What recovery found: all that can be read was opened, damage was set aside.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SpoolReport {
    /// Records that wait; few of them may have arrived before a crash.
    pub records: u64,
    /// Segments without a good footer, whose bytes were all read.
    pub segments_scanned: u64,
    /// Bytes of records that were never promised, cut as a torn end.
    pub torn_bytes: u64,
    /// What is damaged or gone.
    pub damage: Damage,
    /// Segments that are gone.
    pub lost_segments: Vec<LostSegment>,
    /// Segments that were left where they are, because they could not be read or are of a newer version: name and reason.
    pub left_alone: Vec<(String, String)>,
    /// Why what was found could not be brought to the disk, if so. It is replayed all the same.
    pub unsecured: Option<String>,
}

impl fmt::Display for SpoolReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = if self.records == 1 { "pack waits" } else { "packs wait" };
        write!(formatter, "{} {wait}", self.records)?;
        if self.torn_bytes > 0 {
            write!(formatter, ", {} bytes of packs that were not written whole were cut", self.torn_bytes)?;
        }
        let Damage { ranges, bytes, segments_lost, records_lost } = self.damage;
        if ranges > 0 {
            let what = if ranges == 1 { "damaged range" } else { "damaged ranges" };
            write!(formatter, ", {ranges} {what} of {bytes} bytes")?;
        }
        if segments_lost > 0 || records_lost > 0 {
            let files = if segments_lost == 1 { "file is" } else { "files are" };
            let packs = if records_lost == 1 { "pack" } else { "packs" };
            write!(formatter, ", {segments_lost} {files} gone and {records_lost} {packs} lost")?;
        }
        for (name, reason) in &self.left_alone {
            write!(formatter, ", {name} was left alone: {reason}")?;
        }
        self.unsecured.iter().try_for_each(|reason| write!(formatter, ", not secured: {reason}"))
    }
}

/// What was found damaged or gone. The ranges were copied to the folder `damaged`, unless that holds too much already.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Damaged ranges in segments.
    pub ranges: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Segments that somebody removed.
    pub segments_lost: u64,
    /// Records that were promised, did not arrive, and are in neither.
    pub records_lost: u64,
}

impl Damage {
    /// Whether nothing is damaged or gone.
    pub fn is_none(&self) -> bool {
        *self == Damage::default()
    }
}

/// A segment that is gone although not all of it had arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSegment {
    /// Name of its file.
    pub name: String,
    /// Records in it that had not arrived, as far as the books know.
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_found_and_nothing_of_what_was_not() {
        let mut report = SpoolReport { records: 3, ..SpoolReport::default() };
        assert_eq!(report.to_string(), "3 packs wait");
        report.damage = Damage { ranges: 1, bytes: 70, segments_lost: 2, records_lost: 9 };
        report.left_alone = vec![("7.seg".into(), "of a newer version".into())];
        assert_eq!(
            report.to_string(),
            "3 packs wait, 1 damaged range of 70 bytes, 2 files are gone and 9 packs lost, 7.seg was left alone: of a newer version"
        );
        let damage = Damage { ranges: 2, bytes: 70, segments_lost: 1, records_lost: 1 };
        let report = SpoolReport { records: 1, damage, ..SpoolReport::default() };
        assert_eq!(
            report.to_string(),
            "1 pack waits, 2 damaged ranges of 70 bytes, 1 file is gone and 1 pack lost"
        );
    }
}
