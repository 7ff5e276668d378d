//! A small program and a store for tests.

use logferry_etl::columns::Columns;
use logferry_etl::format::Format;
use logferry_etl::hour::HourKey;
use logferry_etl::job::{Job, JobError, Recipe};
use logferry_etl::lists::Lists;
use logferry_etl::program::{Line, LineProgram, Outcome};
use logferry_etl::publish::{DoneMark, Store};
use logferry_etl::tables::Bounds;
use logferry_etl::{Cell, Record};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// Lines are `NAME=VALUE` separated by spaces; `drop` is dropped, what has no `=` fails.
pub(crate) struct Pairs;

impl LineProgram for Pairs {
    fn run(&mut self, line: Line<'_>) -> Outcome {
        if line.text == "drop" {
            return Outcome::Dropped;
        }
        let pair = |text: &str| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), Cell::Text(value.to_owned())))
        };
        match line.text.split(' ').map(pair).collect::<Option<Record>>() {
            Some(record) => Outcome::Record(record),
            None => Outcome::Rejected("not a list of pairs".to_owned()),
        }
    }
}

/// Wide bounds.
pub(crate) const BOUNDS: Bounds = Bounds { memory_bytes: 1 << 20, open_max: 64, files_max: 1000 };

pub(crate) fn recipe(columns: &str, format: Format) -> Recipe {
    let columns = Columns::parse("columns.json", columns).unwrap();
    Recipe { format, columns, bounds: BOUNDS, rejected_percent_max: 50 }
}

pub(crate) fn key(host: &str) -> HourKey {
    HourKey::new("access", host, Some("2026112113".parse().unwrap())).unwrap()
}

/// Makes the tables of `host` of the lines in `text`.
pub(crate) fn run(
    store: &Store,
    recipe: &Recipe,
    lists: &Lists,
    host: &str,
    text: &str,
) -> Result<DoneMark, JobError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let job = Job {
        key: key(host),
        paths: vec![file.path().to_owned()],
        lines_min: 0,
        roots: Vec::new(),
        committed: BTreeMap::new(),
    };
    job.run(store, recipe, &mut Pairs, lists, &mut |_| ControlFlow::Continue(()))
}

/// Rows below `dir` of a store: `(folder, row)`, sorted. Reads TSV.
#[allow(dead_code)] // not by every test
pub(crate) fn rows(
    disk: &dyn logferry_durable::Disk,
    files: &[std::path::PathBuf],
    dir: &Path,
) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "tsv")) {
        let folder = path.parent().unwrap().strip_prefix(dir).unwrap().display().to_string();
        let text = String::from_utf8(disk.read(path).unwrap()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "a torn row in {}", path.display());
        rows.extend(text.lines().map(|line| (folder.clone(), line.to_owned())));
    }
    rows.sort();
    rows
}
