//! Hours whose lines are spread over several files: whether their marks tell of the lines of all these.

use super::finisher::Committed;
use super::retention::Candidate;
use super::shell::{FinishThread, are_told};
use crate::file::layout::Layout;
use crate::hours::fact::HourKey;
use crate::hours::other_files::{FilesByHour, names_with_any_stream};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

/// What is told of the hours of some files.
pub(super) struct Told<'a> {
    /// Lines that their marks tell.
    pub(super) marks: &'a BTreeMap<&'a HourKey, Vec<u64>>,
    /// All files that may have lines of them, where an hour may have several.
    pub(super) others: &'a FilesByHour,
}

/// The files of an hour go together: its mark goes with the first of them.
pub(super) fn as_old_as_their_hours(files: &mut [Candidate]) {
    let mut newest: HashMap<String, i64> = HashMap::new();
    for file in files.iter() {
        for name in names_with_any_stream(&file.path) {
            let last_ms = newest.entry(name).or_insert(file.last_ms);
            *last_ms = file.last_ms.max(*last_ms);
        }
    }
    for file in files {
        let of_hour = names_with_any_stream(&file.path).filter_map(|name| newest.get(&name).copied());
        file.last_ms = of_hour.max().unwrap_or(file.last_ms);
    }
}

impl FinishThread {
    /// All files that may have lines of these hours, if those may have several.
    ///
    /// # Errors
    /// The committer does not answer.
    pub(super) fn others_of<'a>(&self, hours: impl Iterator<Item = &'a HourKey>) -> io::Result<FilesByHour> {
        let Some(files_of) = &self.files_of else { return Ok(FilesByHour::new()) };
        let hours: BTreeSet<HourKey> = hours.cloned().collect();
        let unknown =
            || io::Error::new(io::ErrorKind::TimedOut, "the output is busy, and its files are not known");
        files_of(&hours).ok_or_else(unknown)
    }

    /// Whether each hour of a file has a mark that tells of all its lines: those of its other files, too, because lines that came late to one
    /// of them are no more than all that the mark tells.
    pub(super) fn are_all_told(&self, path: &str, layout: &Layout, told: &Told<'_>) -> io::Result<bool> {
        if !are_told(&layout.hours, told.marks) {
            return Ok(false);
        }
        for (hour, lines) in &layout.hours {
            let mut lines = *lines;
            let others = told.others.get(hour).into_iter().flatten().filter(|(other, _)| other != path);
            for (other, _) in others {
                // Nobody knows what one has that is not to be written to.
                let Some(lengths) = self.committed().lengths(other) else { return Ok(false) };
                let of_other = self.finisher.layout(other, lengths)?.hours;
                lines = lines.saturating_add(of_other.get(hour).copied().unwrap_or(0));
            }
            if !are_told(&BTreeMap::from([(hour.clone(), lines)]), told.marks) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_hour_are_as_old_as_the_newest_of_them() {
        let file = |hour: u32, stream: u128, last_ms: i64| Candidate {
            path: format!("access/web-1_{hour}_{stream:032x}"),
            last_ms,
            bytes: 1,
            bytes_there: 1,
        };
        let plain = Candidate { path: "access/web-1".into(), ..file(0, 0, 3) };
        let mut files = vec![file(10, 1, 5), file(10, 2, 7), file(11, 1, 6), plain.clone()];
        as_old_as_their_hours(&mut files);
        assert_eq!(files, [file(10, 1, 7), file(10, 2, 7), file(11, 1, 6), plain]);
    }
}
