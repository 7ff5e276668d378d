//! Many nodes, and long texts: what is kept of them is bounded in bytes, not only in number.

use super::*;

fn crowd(count: usize, named: impl Fn(usize) -> Identity) -> Registry {
    let mut registry = Registry::new(Options { nodes_max: count, ..options() });
    for second in [0, 10] {
        for number in 0..count {
            registry.heartbeat(&named(number), status(10), at(second)).expect("taken");
        }
    }
    registry
}

#[test]
fn of_many_namesakes_twenty_are_named_and_all_are_counted() {
    let long = "ü".repeat(255);
    let namesake =
        |number| Identity { host: long.clone(), port: 0, ..ours(&format!("{number:05}"), &long, 0) };
    let mut registry = crowd(2_000, namesake);
    let changes = registry.tick(at(11));
    let [Change::Error(entry)] = &changes[..] else { panic!("{} changes", changes.len()) };
    assert!(entry.text.contains("2000 nodes"), "{}", entry.text);
    assert!(entry.text.chars().count() <= said::TEXT_CHARS_MAX + 1);
    assert!(registry.nodes().all(|node| node.twin.as_ref().is_some_and(|twin| twin.contains("1999 nodes"))));
    let bytes: usize = registry.nodes().filter_map(|node| node.twin.as_ref()).map(String::len).sum();
    assert!(bytes < 2_000 * 2_100, "{bytes} bytes");

    let short = |number| ours(&format!("{number:05}"), "web-1", 0);
    let mut registry = crowd(100, short);
    registry.tick(at(11));
    let twin = registry.node("00007").and_then(|node| node.twin.clone()).expect("it has namesakes");
    assert_eq!(twin.matches("instance").count(), 20, "{twin}");
    assert!(!twin.contains("instance 00007)"), "{twin}");
}

#[test]
fn as_many_nodes_at_one_address_are_told_in_a_text_of_bounded_length() {
    let there = |number| Identity {
        host: "h".repeat(255),
        ..ours(&format!("{number:05}"), &format!("web-{number}"), 4000)
    };
    let mut registry = crowd(500, there);
    let changes = registry.tick(at(11));
    let [Change::Error(entry)] = &changes[..] else { panic!("{} changes", changes.len()) };
    assert!(entry.text.contains("500 nodes") && entry.text.chars().count() <= said::TEXT_CHARS_MAX + 1);
    assert!(
        registry.nodes().all(|node| node.rivals.as_ref().is_some_and(|rivals| rivals.contains("499 nodes")))
    );
}

#[test]
fn figures_of_a_heartbeat_with_endless_names_are_left_out() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 0);
    let figures = (0..500).map(|number| (format!("{number:03}{}", "x".repeat(number * 100)), 7)).collect();
    registry.heartbeat(&node, NodeStatus { figures, ..status(10) }, at(0)).expect("taken");
    let kept = &registry.node("a1").and_then(|node| node.status.as_ref()).expect("a status").figures;
    assert_eq!(kept.iter().collect::<Vec<_>>(), [(&"000".to_owned(), &7)]);
}
