//! Which lines are missing, doubled or different. Pure.

use super::host::Told;
use super::{Difference, Place};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

/// Lines on either side that are compared one by one; about 100 bytes of memory each.
pub(crate) const LINES_MAX: u64 = 5_000_000;
/// Differences that are told.
pub(crate) const TOLD_MAX: usize = 100;

/// A run of lines on one side: indexes of the first and after the last.
type Run = (usize, usize);

/// Compares. Lines of a host's files may stand anywhere in the store's file.
pub(crate) fn compare(host: &[(PathBuf, Vec<Told>)], store_path: &Path, store: &[Told]) -> Vec<Difference> {
    let all: Vec<(usize, Told)> = host
        .iter()
        .enumerate()
        .flat_map(|(file, (_, lines))| lines.iter().map(move |line| (file, *line)))
        .collect();
    let mut places: HashMap<(u64, u64), VecDeque<usize>> = HashMap::new();
    for (index, (_, length, hash)) in store.iter().enumerate() {
        places.entry((*hash, *length)).or_default().push_back(index);
    }
    let mut host_of: Vec<Option<usize>> = vec![None; store.len()];
    let mut is_missing = vec![false; all.len()];
    for (index, (_, (_, length, hash))) in all.iter().enumerate() {
        match places.get_mut(&(*hash, *length)).and_then(VecDeque::pop_front) {
            Some(place) => host_of[place] = Some(index),
            None => is_missing[index] = true,
        }
    }
    let known: BTreeSet<(u64, u64)> = all.iter().map(|(_, (_, length, hash))| (*hash, *length)).collect();
    let is_doubled = |index: usize| known.contains(&(store[index].2, store[index].1));
    // Where a missing run begins, by the index of its first line.
    let ends_run = |index: usize| index == 0 || !is_missing[index - 1] || all[index - 1].0 != all[index].0;
    let mut missing: BTreeMap<usize, Run> =
        runs(all.len(), |index| is_missing[index], ends_run).into_iter().map(|run| (run.0, run)).collect();
    let starts_kind = |index: usize| {
        index == 0 || host_of[index - 1].is_some() || is_doubled(index - 1) != is_doubled(index)
    };
    let mut found = Vec::new();
    let host_place = |run: Run| {
        let (first, last) = (all[run.0], all[run.1 - 1]);
        let (from, to, lines) = (first.1.0, last.1.0 + last.1.1, (run.1 - run.0) as u64);
        Place { file: host[first.0].0.clone(), from, to, lines }
    };
    for run in runs(store.len(), |index| host_of[index].is_none(), starts_kind) {
        let (first, last) = (store[run.0], store[run.1 - 1]);
        let (file, lines) = (store_path.to_owned(), (run.1 - run.0) as u64);
        let place = Place { file, from: first.0, to: last.0 + last.1, lines };
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
        letters.bytes().enumerate().map(|(index, letter)| (index as u64 * 3, 3, u64::from(letter))).collect()
    }

    fn told(host: &[&str], store: &str) -> Vec<String> {
        let files: Vec<(PathBuf, Vec<Told>)> = host
            .iter()
            .enumerate()
            .map(|(file, letters)| (format!("f{file}").into(), lines(letters)))
            .collect();
        let text = |place: &Place| format!("{}:{}-{}", place.file.display(), place.from / 3, place.to / 3);
        let difference = |difference: &Difference| match difference {
            Difference::Missing { host } => format!("missing {}", text(host)),
            Difference::Doubled { store } => format!("doubled {}", text(store)),
            Difference::Different { host, store } => format!("different {} {}", text(host), text(store)),
            Difference::Foreign { store } => format!("foreign {}", text(store)),
            other => format!("{other:?}"),
        };
        compare(&files, Path::new("s"), &lines(store)).iter().map(difference).collect()
    }

    #[test]
    fn equal_lines_in_another_order_are_no_difference() {
        assert_eq!(told(&["abc", "xyz"], "xabyzc"), [""; 0]);
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        assert_eq!(told(&["abcdef"], "abdef"), ["missing f0:2-3"]);
        assert_eq!(told(&["abcdef"], "abc"), ["missing f0:3-6"]);
        assert_eq!(told(&["abcdef"], "abccdef"), ["doubled s:3-4"]);
        assert_eq!(told(&["abcdef"], "abXdef"), ["different f0:2-3 s:2-3"]);
        assert_eq!(told(&["abcdef"], "Xbcdef"), ["different f0:0-1 s:0-1"]);
        assert_eq!(told(&["abcdef"], "abcdefX"), ["foreign s:6-7"]);
        assert_eq!(told(&["abc", "def"], ""), ["missing f0:0-3", "missing f1:0-3"]);
    }

    #[test]
    fn faults_beside_one_another_are_told_apart() {
        assert_eq!(
            told(&["abcdef"], "aXbbdf"),
            ["foreign s:1-2", "doubled s:3-4", "missing f0:2-3", "missing f0:4-5"]
        );
        assert_eq!(told(&["abcdef"], "XYcdefabX"), ["foreign s:0-2", "foreign s:8-9"]);
    }
}
