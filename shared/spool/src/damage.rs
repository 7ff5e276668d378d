//! What is done about damage: copies of damaged ranges, records and segments that are given up, all counted.

use crate::books;
use crate::format::DamagedRange;
use crate::segment::{self, Segment};
use crate::spool::Spool;
use crate::window::{CHUNK_BYTES, Window};
use logferry_durable::{Disk, DiskFile};
use std::path::Path;

/// Subfolder for copies of what is damaged.
pub(crate) const FOLDER: &str = "damaged";
/// Copies that are kept; more damage is counted only.
const COPIES_MAX: usize = 1_000;
/// The copies take so much of the spool's cap at most.
const COPIES_PART: u64 = 8;

/// Names and bytes of the copies there are.
fn copies(disk: &dyn Disk, folder: &Path) -> (Vec<String>, u64) {
    let names = disk.list(folder).unwrap_or_default();
    let length = |name: &String| disk.open(&folder.join(name)).and_then(|file| file.len()).unwrap_or(0);
    let bytes = names.iter().map(length).sum();
    (names, bytes)
}

impl Spool {
    /// Copies a damaged range to `damaged/`, if the disk takes it and there is not too much already, and counts it.
    pub(crate) fn set_aside(&mut self, number: u64, range: DamagedRange, file: &dyn DiskFile) {
        self.damage.ranges += 1;
        self.damage.bytes += range.bytes;
        let segment = segment::name(number);
        tracing::error!(spool = %self.dir.display(), segment, at = range.at, bytes = range.bytes, "damaged range in the spool");
        let folder = self.dir.join(FOLDER);
        let name = format!("{number:016x}-{}-{}", range.at, range.bytes);
        let (names, bytes) = copies(&*self.disk, &folder);
        let is_there = names.contains(&name);
        if is_there || names.len() >= COPIES_MAX || bytes + range.bytes > self.options.bytes_max / COPIES_PART
        {
            return tracing::warn!(
                is_there,
                copies = names.len(),
                bytes,
                "the damaged range is not copied: empty the folder {FOLDER}"
            );
        }
        let copied = self.disk.create_dir_all(&folder).and_then(|()| {
            logferry_durable::replace_by(&*self.disk, &folder.join(name), |copy| {
                copy_range(file, range, copy)
            })
        });
        if let Err(error) = copied {
            tracing::error!(%error, "the damaged range could not be copied");
        }
    }

    /// A segment's file is gone: what was in it and had not arrived is lost. Gives back how many records that are.
    pub(crate) fn lose_segment(&mut self, index: usize) -> u64 {
        let Some(segment) = self.take_segment(index) else { return 0 };
        let (name, lost) = (segment::name(segment.number), segment.waiting());
        tracing::error!(
            spool = %self.dir.display(), segment = name, lost,
            "a segment of the spool was removed: its packs are lost here and have to be shipped again from the hosts"
        );
        self.damage.segments_lost += 1;
        self.damage.records_lost += lost;
        self.recount();
        if let Err(error) = self.keep_books() {
            books::warn(&self.dir, &error);
        }
        lost
    }

    /// A segment that could not be read, though tried again: its file is left where it is, and what was in it counts as lost.
    pub(crate) fn leave_alone(&mut self, index: usize) {
        let Some(segment) = self.take_segment(index) else { return };
        let (name, lost) = (segment::name(segment.number), segment.waiting());
        tracing::error!(
            spool = %self.dir.display(), segment = name, lost,
            "a segment of the spool cannot be read and is passed over: its file stays, and is tried again at the next start"
        );
        self.damage.records_lost += lost;
        self.left_alone.push(segment);
        self.recount();
    }

    /// Takes a segment off the list. What waited for a sync in it is given up.
    fn take_segment(&mut self, index: usize) -> Option<Segment> {
        if index + 1 == self.segments.len() {
            self.active = None;
        }
        let segment = self.segments.remove(index)?;
        self.forget_open_files(segment.number);
        Some(segment)
    }

    pub(crate) fn forget_open_files(&mut self, number: u64) {
        self.reader.take_if(|reader| reader.0 == number);
        self.indexes.retain(|index| index.0 != number);
    }

    /// Moves the file of a segment that is done to `damaged/`, because something in it could not be read.
    pub(crate) fn keep_file(&self, number: u64) -> std::io::Result<()> {
        let folder = self.dir.join(FOLDER);
        self.disk.create_dir_all(&folder)?;
        self.disk.rename(&self.path(number), &folder.join(segment::name(number)))?;
        self.disk.sync_dir(&folder)
    }

    /// Counts records and keys anew, from all segments, after some were lost.
    pub(crate) fn recount(&mut self) {
        self.pending.clear();
        for index in 0..self.segments.len() {
            // A segment that cannot be read now is not counted by key: its records are seen when it is read.
            if let Ok(index_found) = self.index_of(index) {
                self.count_keys(index, &index_found.records);
            }
        }
    }
}

fn copy_range(file: &dyn DiskFile, range: DamagedRange, copy: &dyn DiskFile) -> std::io::Result<()> {
    let end = range.at + range.bytes;
    let mut window = Window::new(file, end);
    let mut at = range.at;
    while at < end {
        let piece = window.get(at, CHUNK_BYTES);
        copy.append(&[piece])?;
        at += piece.len() as u64;
    }
    Ok(())
}
