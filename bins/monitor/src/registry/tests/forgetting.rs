//! What an operator takes out.

use super::*;

fn registry() -> Registry {
    let mut registry = Registry::new(options());
    for (instance, name, port) in [("a1", "web-1", 0), ("b2", "web-1", 4000), ("c3", "web-22", 4001)] {
        registry.heartbeat(&ours(instance, name, port), status(10), at(0)).expect("taken");
    }
    registry
}

#[test]
fn a_node_is_found_by_its_id_before_its_address_before_its_name() {
    let mut registry = registry();
    registry.heartbeat(&ours("d4", "a1", 0), status(10), at(0)).expect("taken");
    registry.heartbeat(&ours("e5", "10.0.0.7:4001", 0), status(10), at(0)).expect("taken");
    for (name, id) in [("a1", "a1"), ("a1", "d4"), ("10.0.0.7:4001", "c3"), ("web-1", "b2")] {
        let (forgotten, change) = registry.forget_called(name, true).expect("found");
        assert_eq!(forgotten.id, id, "{name}");
        assert!(matches!(change, Change::Forgotten(row) if row.id == id));
    }
    assert_eq!(registry.nodes().map(|node| node.row.id.as_str()).collect::<Vec<_>>(), ["e5"]);
}

#[test]
fn what_is_unclear_or_lives_stays() {
    let mut registry = registry();
    let refused = registry.forget_called("web-1", true).expect_err("two");
    let NotForgotten::Ambiguous { namesakes, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(namesakes.len(), 2);
    assert!(namesakes[0].starts_with("a1: tailer web-1 ("), "{namesakes:?}");
    let refused = registry.forget_called("web-23", true).expect_err("none");
    assert_eq!(refused.to_string(), "no node is called \"web-23\"; did you mean \"web-22\"?");
    assert_eq!(registry.forget_called("", true).expect_err("none").to_string(), "no node is called \"\"");
    assert!(matches!(registry.forget_called("c3", false), Err(NotForgotten::Alive(_))));
    assert_eq!(registry.nodes().count(), 3);
    registry.unregister(&ours("c3", "web-22", 4001), at(1));
    assert_eq!(registry.forget_called("c3", false).expect("it has left").0.state, State::Left);
}

#[test]
fn the_database_brings_nobody_back_who_was_forgotten_before_it_was_read() {
    let mut registry = registry();
    let (_, change) = registry.forget_called("c3", true).expect("found");
    let Change::Forgotten(row) = change.clone() else { panic!("{change:?}") };
    registry.not_stored(vec![change]);
    registry.restore(vec![row], Vec::new(), at(1));
    assert!(registry.node("c3").is_none());
    assert!(matches!(&registry.take_owed()[..], [Change::Forgotten(_)]));
}
