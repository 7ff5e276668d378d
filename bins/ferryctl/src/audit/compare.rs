//! Which lines are missing, doubled or different. Pure.

use super::host::Told;
use super::{Difference, Place};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;

/// Lines on either side that are compared one by one; about 100 bytes of memory each.
pub(crate) const LINES_MAX: u64 = 5_000_000;
/// Differences that are told.
pub(crate) const TOLD_MAX: usize = 100;

/// A run of lines on one side: indexes of the first and after the last.
type Run = (usize, usize);

/// Compares. Lines of a host's files may stand anywhere in the store's file.
pub(crate) fn compare(host: &[(PathBuf, Vec<Told>)], store: &[(PathBuf, Vec<Told>)]) -> Vec<Difference> {
    let (all, stored) = (all_of(host), all_of(store));
    let mut places: HashMap<(u64, u64), VecDeque<usize>> = HashMap::new();
    for (index, (_, line)) in stored.iter().enumerate() {
        places.entry(line.content()).or_default().push_back(index);
    }
    let mut host_of: Vec<Option<usize>> = vec![None; stored.len()];
    let mut is_missing = vec![false; all.len()];
    for (index, (_, line)) in all.iter().enumerate() {
        match places.get_mut(&line.content()).and_then(VecDeque::pop_front) {
            Some(place) => host_of[place] = Some(index),
            None => is_missing[index] = true,
        }
    }
    let known: BTreeSet<(u64, u64)> = all.iter().map(|(_, line)| line.content()).collect();
    let is_doubled = |index: usize| known.contains(&stored[index].1.content());
    // Where a missing run begins, by the index of its first line.
    let ends_run = |index: usize| index == 0 || !is_missing[index - 1] || all[index - 1].0 != all[index].0;
    let mut missing: BTreeMap<usize, Run> =
        runs(all.len(), |index| is_missing[index], ends_run).into_iter().map(|run| (run.0, run)).collect();
    let starts_kind = |index: usize| {
        index == 0
            || host_of[index - 1].is_some()
            || is_doubled(index - 1) != is_doubled(index)
            || stored[index - 1].0 != stored[index].0
    };
    let mut found = Vec::new();
    let host_place = |run| place_of(host, &all, run);
    for run in runs(stored.len(), |index| host_of[index].is_none(), starts_kind) {
        let place = place_of(store, &stored, run);
        // What the host has behind the line that stands before the run.
        let behind = match run.0.checked_sub(1) {
            Some(before) => host_of[before].map(|index| index + 1),
            None => Some(0),
        };
        let instead = behind.and_then(|index| missing.remove(&index));
        found.push(match instead {
            _ if is_doubled(run.0) => {
                missing.extend(instead.map(|run| (run.0, run)));
                Difference::Doubled { store: place }
            }
            Some(instead) => Difference::Different { host: host_place(instead), store: place },
            None => Difference::Foreign { store: place },
        });
    }
    found.extend(missing.into_values().map(|run| Difference::Missing { host: host_place(run) }));
    found
}

/// Lines of all files, each with the index of its file.
fn all_of(files: &[(PathBuf, Vec<Told>)]) -> Vec<(usize, Told)> {
    let lines_of = |(file, (_, lines)): (usize, &(PathBuf, Vec<Told>))| {
        lines.iter().map(|line| (file, *line)).collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(lines_of).collect()
}

/// Where a run, which is of one file, stands.
fn place_of(files: &[(PathBuf, Vec<Told>)], all: &[(usize, Told)], run: Run) -> Place {
    let ((file, first), (_, last)) = (all[run.0], all[run.1 - 1]);
    Place { file: files[file].0.clone(), from: first.from, to: last.to, lines: (run.1 - run.0) as u64 }
}

/// Runs of indexes that are `meant`; a new one begins where `starts` says so.
fn runs(count: usize, meant: impl Fn(usize) -> bool, starts: impl Fn(usize) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for index in (0..count).filter(|index| meant(*index)) {
        match runs.last_mut() {
            Some(last) if last.1 == index && !starts(index) => last.1 += 1,
            _ => runs.push((index, index + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of three bytes, each letter a line of that hash.
    fn lines(letters: &str) -> Vec<Told> {
        let line = |(index, letter)| {
            let from = index as u64 * 3;
            Told { from, to: from + 3, length: 3, hash: u64::from(letter) }
        };
        letters.bytes().enumerate().map(line).collect()
    }

    fn files(name: &str, files: &[&str]) -> Vec<(PathBuf, Vec<Told>)> {
        let file = |(file, letters): (usize, &&str)| (format!("{name}{file}").into(), lines(letters));
        files.iter().enumerate().map(file).collect()
    }

    fn told(host: &[&str], store: &str) -> Vec<String> {
        told_of(host, &[store])
    }

    fn told_of(host: &[&str], store: &[&str]) -> Vec<String> {
        let text = |place: &Place| format!("{}:{}-{}", place.file.display(), place.from / 3, place.to / 3);
        let difference = |difference: &Difference| match difference {
            Difference::Missing { host } => format!("missing {}", text(host)),
            Difference::Doubled { store } => format!("doubled {}", text(store)),
            Difference::Different { host, store } => format!("different {} {}", text(host), text(store)),
            Difference::Foreign { store } => format!("foreign {}", text(store)),
            other => format!("{other:?}"),
        };
        compare(&files("f", host), &files("s", store)).iter().map(difference).collect()
    }

    #[test]
    fn equal_lines_in_another_order_are_no_difference() {
        assert_eq!(told(&["abc", "xyz"], "xabyzc"), [""; 0]);
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        assert_eq!(told(&["abcdef"], "abdef"), ["missing f0:2-3"]);
        assert_eq!(told(&["abcdef"], "abc"), ["missing f0:3-6"]);
        assert_eq!(told(&["abcdef"], "abccdef"), ["doubled s0:3-4"]);
        assert_eq!(told(&["abcdef"], "abXdef"), ["different f0:2-3 s0:2-3"]);
        assert_eq!(told(&["abcdef"], "Xbcdef"), ["different f0:0-1 s0:0-1"]);
        assert_eq!(told(&["abcdef"], "abcdefX"), ["foreign s0:6-7"]);
        assert_eq!(told(&["abc", "def"], ""), ["missing f0:0-3", "missing f1:0-3"]);
    }

    #[test]
    fn faults_beside_one_another_are_told_apart() {
        assert_eq!(
            told(&["abcdef"], "aXbbdf"),
            ["foreign s0:1-2", "doubled s0:3-4", "missing f0:2-3", "missing f0:4-5"]
        );
        assert_eq!(told(&["abcdef"], "XYcdefabX"), ["foreign s0:0-2", "foreign s0:8-9"]);
    }

    #[test]
    fn lines_may_stand_in_any_file_of_either_side_and_a_fault_ends_with_its_file() {
        assert_eq!(told_of(&["abc", "xyz"], &["xab", "yzc"]), [""; 0]);
        assert_eq!(told_of(&["abc"], &["abQ", "Rc"]), ["foreign s0:2-3", "foreign s1:0-1"]);
    }
}
