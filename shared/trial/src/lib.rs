//! What tests of random operations share: the seed of a case, the number of cases, the figures that `scripts/test` lists at its end,
//! and the one command that replays a failure. A dev-dependency; no program uses it.
//!
//! The one noun is the [`Trial`]: made by [`trial!`] at the top of a test, it prints the command when the test panics,
//! and counts what the test did when it passes. Three environment variables steer it:
//!
//! | variable | meaning |
//! |---|---|
//! | `LOGFERRY_TEST_SEED` | run only the case of this seed |
//! | `LOGFERRY_TEST_CASES` | as many cases of each test of seeds |
//! | `LOGFERRY_TEST_LONG` | the long versions of `scripts/test --all` |
//! | `LOGFERRY_TEST_COUNTS` | file that takes a line `NUMBER WHAT` for all that was done |
//!
//! ```no_run
//! let trial = logferry_trial::trial!();
//! for seed in trial.seeds("sums", 0..100) {
//!     assert_eq!(seed + seed, 2 * seed, "prints the command with this seed");
//! }
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test talks to who runs it

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SEED: &str = "LOGFERRY_TEST_SEED";
const CASES: &str = "LOGFERRY_TEST_CASES";
const LONG: &str = "LOGFERRY_TEST_LONG";
const COUNTS: &str = "LOGFERRY_TEST_COUNTS";

/// Whether the long versions were asked for (`scripts/test --all`).
pub fn long_run() -> bool {
    std::env::var_os(LONG).is_some_and(|value| !value.is_empty())
}

/// One run of one test.
#[derive(Debug)]
pub struct Trial {
    package: &'static str,
    binary: &'static str,
    test: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Words before the command, of the case that runs now.
    settings: String,
    counts: BTreeMap<&'static str, u64>,
}

/// The [`Trial`] of the function that it stands in: `trial!()`.
#[macro_export]
macro_rules! trial {
    () => {{
        fn here() {}
        $crate::Trial::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_CRATE_NAME"),
            ::std::any::type_name_of_val(&here),
        )
    }};
}

impl Trial {
    /// Use [`trial!`]. `here` is the path of a function inside the test: `binary::module::test::here`.
    pub fn new(package: &'static str, binary: &'static str, here: &'static str) -> Trial {
        let path = here.trim_end_matches("::here").trim_end_matches("::{{closure}}");
        let test = path.split_once("::").map_or(path, |(_, test)| test);
        Trial { package, binary, test, state: Mutex::default() }
    }

    /// Name of the test, with its modules.
    pub fn name(&self) -> &'static str {
        self.test
    }

    /// The seed of a test that runs once: `default`, or the one to replay.
    pub fn seed(&self, default: u64) -> u64 {
        let seed = number(SEED).unwrap_or(default);
        self.replay_with(format!("{SEED}={seed}"));
        seed
    }

    /// The seeds of a test that runs once for each: `normal`, as many as asked for, or the one to replay. Each is counted as `what`.
    pub fn seeds(&self, what: &'static str, normal: Range<u64>) -> impl Iterator<Item = u64> {
        let seeds = match (number(SEED), number(CASES)) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(cases)) => normal.start..normal.start + cases,
            (None, None) => normal,
        };
        seeds.inspect(move |seed| {
            self.replay_with(format!("{SEED}={seed}"));
            self.count(what, 1);
        })
    }

    /// The case of this seed has failed: for tests that run several at a time, before they panic.
    pub fn failed_at(&self, seed: u64) {
        self.replay_with(format!("{SEED}={seed}"));
    }

    /// To be called for each input of a fuzz target: counts it, and remembers the seed that makes it.
    pub fn fuzz_case(&self) {
        self.count("fuzz cases", 1);
        let seed = bolero::with_context(|context| context.input.seed).flatten();
        if let Some(seed) = seed {
            self.replay_with(format!("BOLERO_RANDOM_SEED={seed} BOLERO_RANDOM_ITERATIONS=0"));
        }
    }

    /// What must stand before the command to replay what runs now: environment variables.
    pub fn replay_with(&self, settings: String) {
        self.state().settings = settings;
    }

    /// Adds to a figure of the list that `scripts/test` ends with.
    pub fn count(&self, what: &'static str, number: u64) {
        *self.state().counts.entry(what).or_default() += number;
    }

    /// The one command that runs again what runs now.
    pub fn command(&self) -> String {
        let Trial { package, binary, test, .. } = self;
        let target = match *binary == package.replace('-', "_") {
            true => "--lib".to_owned(),
            false => format!("--test {binary}"),
        };
        let (long, settings) =
            (if long_run() { "LOGFERRY_TEST_LONG=1 " } else { "" }, &self.state().settings);
        let space = if settings.is_empty() { "" } else { " " };
        format!("{long}{settings}{space}cargo test -p {package} {target} -- --exact {test} --nocapture")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: {}", self.command());
            return;
        }
        for (what, number) in &self.state().counts {
            println!("{}: {number} {what}", self.test);
            add_line(&format!("{number} {what}"));
        }
    }
}

/// Says loudly that a test could not do its work on this machine.
pub fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    add_line(&format!("SKIPPED {test}: {why}"));
}

/// The same for what must be there where everything is to run (`CI=true`, or `LOGFERRY_TEST_MUST=1` as `scripts/test` sets it): there the
/// test fails.
///
/// # Panics
/// There.
pub fn lacking(test: &str, what: &str) {
    let is = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value == wanted);
    assert!(!is("CI", "true") && !is("LOGFERRY_TEST_MUST", "1"), "{test} needs what is not there: {what}");
    skipped(test, what);
}

/// Good bytes made bad: two of `changes` (place, new value) at most are done, and one time in four all from `cut` on is left out.
pub fn spoiled(good: &[u8], changes: &[(u16, u8)], cut: u16) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, value) in changes.iter().take(2).filter(|_| !good.is_empty()) {
        bytes[usize::from(*at) % good.len()] = *value;
    }
    if cut.is_multiple_of(4) {
        bytes.truncate(usize::from(cut) % (good.len() + 1));
    }
    bytes
}

fn add_line(line: &str) {
    let Some(path) = std::env::var_os(COUNTS) else { return };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        eprintln!("{COUNTS}: {}: {error}", path.display());
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is needed")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_spoiled_as_told() {
        assert_eq!(crate::spoiled(b"abcd", &[(1, b'x'), (6, b'y'), (0, b'z')], 3), b"axyd");
        assert_eq!(crate::spoiled(b"abcd", &[], 8), b"abc");
        assert_eq!(crate::spoiled(b"", &[(1, 1)], 4), b"");
    }

    #[test]
    fn the_command_names_package_target_test_and_seed() {
        let trial = crate::trial!();
        trial.seed(7);
        assert!(trial.command().ends_with(
            "LOGFERRY_TEST_SEED=7 cargo test -p logferry-trial --lib -- --exact \
             tests::the_command_names_package_target_test_and_seed --nocapture"
        ));
        let trial =
            crate::Trial::new("logferry-tests", "exactly_once", "exactly_once::kills::{{closure}}::here");
        assert!(
            trial
                .command()
                .ends_with("cargo test -p logferry-tests --test exactly_once -- --exact kills --nocapture")
        );
    }
}
