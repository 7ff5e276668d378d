//! A legacy node that is started where one of ours was killed a moment ago registers once: it must not be forgotten, nor take the place of one that lives.

use super::*;

fn row_of<'a>(changes: &'a [Change], id: &str) -> Option<&'a NodeRow> {
    changes.iter().find_map(|change| match change {
        Change::Node(row) if row.id == id => Some(row),
        _ => None,
    })
}

#[test]
fn a_legacy_node_at_the_address_of_one_of_ours_that_was_just_killed_is_stored_and_takes_its_place() {
    let mut registry = Registry::new(options());
    registry.heartbeat(&ours("a1", "web-1", 4000), status(10), at(0)).expect("taken");
    registry.probed("a1", Ok(()), at(1));
    let changes = registry.register(&legacy(4000), at(3)).expect("taken");
    assert!(row_of(&changes, "10.0.0.7:4000").is_some(), "it is told success: {changes:?}");
    let mut changes = Vec::new();
    for second in 4..40 {
        registry.probed("a1", Ok(()), at(second));
        changes.extend(registry.probed("10.0.0.7:4000", Ok(()), at(second)));
        changes.extend(registry.tick(at(second)));
    }
    assert_eq!(kinds(&changes), ["no heart-beat"], "of the one that was killed, and nothing of the other");
    assert!(changes.iter().any(|change| matches!(change, Change::Forgotten(row) if row.id == "a1")));
    assert_eq!(registry.nodes().count(), 1);
    assert_eq!((state(&registry, "10.0.0.7:4000"), registry.probes().len()), (State::Up, 1));
    assert_eq!(kinds(&registry.probed("10.0.0.7:4000", refused(), at(50))), ["no heart-beat"]);
}

#[test]
fn a_legacy_message_does_not_take_over_a_node_of_ours_that_lives() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 4000);
    registry.heartbeat(&node, status(10), at(0)).expect("taken");
    for second in (3..300).step_by(10) {
        registry.register(&legacy(4000), at(second)).expect("taken");
        assert!(kinds(&registry.tick(at(second))).is_empty());
        assert_eq!(state(&registry, "a1"), State::Up);
        let changes = registry.heartbeat(&node, status(10), at(second + 7)).expect("taken");
        assert!(
            matches!(&changes[..], [Change::Forgotten(row), Change::Node(own)]
            if row.id == "10.0.0.7:4000" && own.id == "a1"),
            "the row of the legacy table is its own again: {changes:?}"
        );
        assert!(kinds(&registry.tick(at(second + 8))).is_empty());
        assert_eq!((registry.nodes().count(), registry.probes().len()), (1, 1));
    }
    let mut unknown = Registry::new(options());
    unknown.heartbeat(&node, status(10), at(0)).expect("taken");
    assert!(unknown.unregister(&legacy(4000), at(1)).is_empty(), "a farewell in its name is nobody's");
    assert_eq!(unknown.nodes().count(), 1);
}
