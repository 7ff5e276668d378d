//! What recovery finds, and what is found wrong later.

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
