//! Words for strace, and what its output says: how often each thread made each call, and what became of a descriptor.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Calls that change what is on a disk or on the wire, as the programs may make them.
pub const CALLS: [&str; 17] = [
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "sendto",
    "sendmsg",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "ftruncate",
    "fallocate",
    "mkdir",
];
/// Calls that make durable.
pub const SYNCS: [&str; 2] = ["fsync", "fdatasync"];

/// Words before a program's own: strace writes `calls` to `trace`, and does what `inject` says (see strace(1)). The program stays the
/// direct child (`-D`), so that a kill hits it and not strace. Injections count the calls of each thread by themselves.
pub fn words(trace: &Path, calls: &[&str], inject: Option<&str>) -> Vec<String> {
    let calls = format!("trace={}", calls.join(","));
    let mut words: Vec<String> =
        ["strace", "-D", "-f", "-qq", "-o", &trace.display().to_string(), "-e", &calls]
            .map(str::to_owned)
            .to_vec();
    words.extend(inject.into_iter().flat_map(|inject| ["-e".to_owned(), format!("inject={inject}")]));
    words
}

/// One line of a trace: a call that begins, or the result of one that began earlier.
struct Line<'a> {
    thread: &'a str,
    call: &'a str,
    begins: bool,
    /// Its first argument, if that is a number.
    descriptor: Option<u32>,
    injected: bool,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (thread, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    let injected = line.ends_with("(INJECTED)");
    if let Some(resumed) = rest.strip_prefix("<... ") {
        let call = resumed.split(' ').next()?;
        return Some(Line { thread, call, begins: false, descriptor: None, injected });
    }
    let (call, arguments) = rest.split_once('(')?;
    let digits = arguments.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(arguments.len());
    Some(Line { thread, call, begins: true, descriptor: arguments[..digits].parse().ok(), injected })
}

/// For each call the largest number of times that one thread made it.
pub fn counts(trace: &str) -> BTreeMap<String, u64> {
    let mut by_thread: HashMap<(&str, &str), u64> = HashMap::new();
    for line in trace.lines().filter_map(parse).filter(|line| line.begins) {
        *by_thread.entry((line.thread, line.call)).or_default() += 1;
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, call), count) in by_thread {
        let most = counts.entry(call.to_owned()).or_default();
        *most = count.max(*most);
    }
    counts
}

/// Descriptors whose fsync failed by injection and that were written to or synced again afterwards, in words. The trace must have
/// `close`.
pub fn trusted_after_failure(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, u32> = HashMap::new();
    let mut failed: BTreeMap<u32, &str> = BTreeMap::new();
    let mut trusted = Vec::new();
    for (text, line) in trace.lines().filter_map(|text| Some((text, parse(text)?))) {
        if let (true, Some(descriptor)) = (line.begins, line.descriptor) {
            begun.insert(line.thread, descriptor);
            if line.call == "close" {
                failed.remove(&descriptor);
            } else if let Some(failure) = failed.get(&descriptor) {
                trusted.push(format!("{failure}\n{text}"));
            }
        }
        if line.injected
            && SYNCS.contains(&line.call)
            && let Some(descriptor) = begun.get(line.thread)
        {
            failed.insert(*descriptor, text);
        }
    }
    trusted
}

/// Whether a call was made to fail.
pub fn was_injected(trace: &str) -> bool {
    trace.lines().any(|line| line.ends_with("(INJECTED)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "7 fdatasync(3) = 0\n8 fdatasync(4 <unfinished ...>\n7 fdatasync(3) = 0\n\
        8 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n7 write(3, \"x\", 1) = 1\n";

    #[test]
    fn calls_are_counted_for_each_thread() {
        assert_eq!(counts(TRACE), BTreeMap::from([("fdatasync".to_owned(), 2), ("write".to_owned(), 1)]));
    }

    #[test]
    fn a_descriptor_is_not_to_be_used_after_its_fsync_failed() {
        assert!(was_injected(TRACE) && trusted_after_failure(TRACE).is_empty());
        let again = format!("{TRACE}7 fdatasync(4) = 0\n");
        assert_eq!(trusted_after_failure(&again).len(), 1);
        let closed = format!("{TRACE}8 close(4) = 0\n7 fdatasync(4) = 0\n");
        assert!(trusted_after_failure(&closed).is_empty());
    }
}
