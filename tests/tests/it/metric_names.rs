//! What `deploy/` asks Prometheus for is what the programs export.

use logferry_tests::monitored::Monitored;
use logferry_tests::{Program, RelayOptions, append, wait_until};
use std::collections::BTreeSet;
use std::path::Path;

/// All names of ours in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("logferry_"));
    words.map(str::to_owned).collect()
}

fn metrics(program: &Program) -> String {
    let addr = program.admin().expect("an address");
    let mut answer = ureq::get(format!("http://{addr}/metrics")).call().expect("answered");
    answer.body_mut().read_to_string().expect("a body")
}

#[test]
fn rules_and_dashboard_ask_for_what_is_exported() {
    let mut scene = Monitored::new("metric-names", &RelayOptions::default(), "");
    scene.relay.start();
    append(&scene.relay.log_files[0], b"a line\n");
    wait_until("the line is stored", || scene.relay.stored(0) == b"a line\n");
    wait_until("the nodes are known", || scene.api("/api/nodes").as_array().map(Vec::len) == Some(3));
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let files = ["prometheus/logferry.rules.yml", "grafana/logferry.json"];
    let mut asked: BTreeSet<String> = BTreeSet::new();
    for file in files {
        asked.extend(names(&std::fs::read_to_string(deploy.join(file)).expect(file)));
    }
    assert!(asked.len() > 10, "{asked:?}");
    let exported = || {
        let relay = &scene.relay;
        let programs = [&relay.tailer, &relay.collectors[0], &relay.outputter, &scene.monitor];
        programs.into_iter().flat_map(|program| names(&metrics(program))).collect::<BTreeSet<String>>()
    };
    let mut unknown = Vec::new();
    wait_until("what is asked for is exported", || {
        let exported = exported();
        unknown = asked.difference(&exported).cloned().collect();
        unknown.iter().all(|name| name.ends_with("_total"))
    });
    // counters of failures are there once something has failed: the programs must know them at least
    let mut sources = String::new();
    ["bins", "shared"].iter().for_each(|folder| read_sources(&deploy.join("..").join(folder), &mut sources));
    for name in unknown {
        assert!(sources.contains(&format!("\"{name}\"")), "{name} is exported by no program");
    }
}

fn read_sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}
