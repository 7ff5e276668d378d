//! The documentation has an example of every setting.

use logferry_node::config::render_reference;
use logferry_tailer::config::TailerConfig;
use std::collections::BTreeSet;

/// Names of settings in TOML, without those of their tables.
fn names(text: &str) -> BTreeSet<&str> {
    let before_value = text.lines().filter_map(|line| Some(line.split_once(" =")?.0.trim()));
    before_value.filter(|name| !name.starts_with('#')).filter_map(|name| name.rsplit('.').next()).collect()
}

#[test]
fn each_setting_of_the_tailer_has_an_example() {
    let reference = render_reference::<TailerConfig>();
    let docs =
        concat!(include_str!("../../../../docs/tailing.md"), include_str!("../../../../docs/repull.md"));
    let shown = names(docs);
    let missing: Vec<&str> = names(&reference).into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "no example in docs/tailing.md: {missing:?}");
}
