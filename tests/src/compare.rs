//! Compares what was written with what arrived, and says what kind of difference there is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// All of an output folder's `log_data/` files for `host` and `source`, one hour after another.
pub fn stored(output: &Path, source: &str, host: &str) -> Vec<u8> {
    files(output, source, host).iter().flat_map(|path| std::fs::read(path).unwrap_or_default()).collect()
}

/// How many bytes [`stored`] would give.
pub fn stored_len(output: &Path, source: &str, host: &str) -> u64 {
    let length = |path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    files(output, source, host).iter().map(length).sum()
}

fn files(output: &Path, source: &str, host: &str) -> Vec<PathBuf> {
    let folder = output.join("log_data").join(source);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    let prefix = format!("{host}_");
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
    paths.sort();
    paths
}

/// Panics unless both are the same bytes; the message counts lines lost, doubled, foreign and torn.
#[track_caller]
pub fn assert_identical(written: &[u8], stored: &[u8]) {
    assert!(written == stored, "{}", difference(written, stored));
}

/// What differs, in words.
pub fn difference(written: &[u8], stored: &[u8]) -> String {
    let at = written.iter().zip(stored).position(|(a, b)| a != b).unwrap_or(written.len().min(stored.len()));
    let mut counts: HashMap<&[u8], i64> = HashMap::new();
    written.split(|byte| *byte == b'\n').for_each(|line| *counts.entry(line).or_default() += 1);
    stored.split(|byte| *byte == b'\n').for_each(|line| *counts.entry(line).or_default() -= 1);
    let lost: i64 = counts.values().filter(|count| **count > 0).sum();
    let extra: i64 = -counts.values().filter(|count| **count < 0).sum::<i64>();
    let show = |bytes: &[u8]| {
        let from = at.saturating_sub(60).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..(at + 60).min(bytes.len())]).into_owned()
    };
    format!(
        "written {} bytes, stored {} bytes; first difference at byte {at}; {lost} lines lost, {extra} lines doubled, \
         foreign or torn\nwritten: {:?}\nstored:  {:?}",
        written.len(),
        stored.len(),
        show(written),
        show(stored)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_tells_lost_from_doubled() {
        assert!(difference(b"a\nb\n", b"a\n").contains("1 lines lost, 0 lines doubled"));
        assert!(difference(b"a\nb\n", b"a\nb\nb\n").contains("0 lines lost, 1 lines doubled"));
        assert!(
            difference(b"a\nb\n", b"b\na\n").contains("first difference at byte 0; 0 lines lost, 0 lines")
        );
    }
}
