//! The documentation has an example of every setting, and says of every metric what it counts.

use logferry_node::config::{ProgramConfig, Setting};
use logferry_tailer::config::TailerConfig;
use std::collections::BTreeSet;
use std::path::Path;

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    std::fs::read_to_string(docs.join(name)).expect(name)
}

/// Settings as `table.key`.
fn settings(table: &str, settings: &[Setting], into: &mut BTreeSet<String>) {
    for setting in settings {
        let name = format!("{}.{}", table.trim_matches(['[', ']']), setting.name);
        match setting.table {
            Some(inner) => self::settings(&name, inner, into),
            None => _ = into.insert(name),
        }
    }
}

/// What the examples of a page set, as `table.key`.
fn examples(page: &str) -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    let (mut table, mut is_example) = (String::new(), false);
    for line in page.lines() {
        match line.trim() {
            fence if fence.starts_with("```") => {
                is_example = fence == "```toml";
                table.clear();
            }
            header if is_example && header.starts_with('[') => {
                let name = header.split(']').next().unwrap_or_default();
                table = name.trim_start_matches('[').to_owned();
            }
            set if is_example && !set.starts_with('#') => {
                let key =
                    set.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.contains(['"', ' ']));
                shown.extend(key.map(|key| format!("{table}.{key}")));
            }
            _ => {}
        }
    }
    shown
}

#[test]
fn each_setting_of_the_tailer_has_an_example_in_its_own_table() {
    let mut all = BTreeSet::new();
    TailerConfig::tables().into_iter().for_each(|(table, some)| settings(table, some, &mut all));
    assert!(all.contains("source.multiline.start") && all.contains("repull.rate"), "{all:?}");
    let shown: BTreeSet<String> =
        ["tailing.md", "repull.md"].into_iter().flat_map(|name| examples(&page(name))).collect();
    let missing: Vec<&String> = all.difference(&shown).collect();
    assert!(missing.is_empty(), "no example in docs/tailing.md or docs/repull.md: {missing:?}");
}

/// Names of the tailer's metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("logferry_tailer_"));
    words.map(str::to_owned).collect()
}

fn metrics_of_sources(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            metrics_of_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.extend(metrics(&std::fs::read_to_string(&path).expect("a source")));
        }
    }
}

#[test]
fn each_metric_of_the_tailer_is_in_the_table_of_all_and_no_other() {
    let mut exported = BTreeSet::new();
    metrics_of_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut exported);
    assert!(!exported.contains("logferry_tailer_"), "a name that is put together cannot be looked for");
    let tailing = page("tailing.md");
    let (_, table) = tailing.split_once("### All metrics").expect("a table");
    let (table, _) = table.split_once("\n## ").expect("an end");
    let told = metrics(table);
    let missing: Vec<&String> = exported.difference(&told).collect();
    assert!(missing.is_empty(), "not in docs/tailing.md: {missing:?}");
    let unknown: Vec<String> = metrics(&tailing).difference(&exported).cloned().collect();
    assert!(unknown.is_empty(), "exported by nobody: {unknown:?}");
}
