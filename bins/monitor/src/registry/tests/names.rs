//! Nodes that say the same of themselves.

use super::*;

#[test]
fn two_nodes_of_one_name_are_two_and_reported_once_when_both_live() {
    let mut registry = Registry::new(options());
    let (one, other) = (ours("a1", "web-1", 0), ours("b2", "web-1", 0));
    registry.heartbeat(&one, status(10), at(0)).expect("taken");
    registry.heartbeat(&other, status(10), at(5)).expect("taken");
    assert!(registry.tick(at(6)).is_empty(), "the one may have been replaced by the other");
    registry.heartbeat(&one, status(10), at(10)).expect("taken");
    registry.heartbeat(&other, status(10), at(15)).expect("taken");
    let changes = registry.tick(at(16));
    assert_eq!(kinds(&changes), ["same name"]);
    assert!(
        matches!(&changes[0], Change::Error(entry) if entry.text.contains("instance a1") && entry.text.contains("instance b2"))
    );
    assert!(registry.tick(at(17)).is_empty());
    assert_eq!(registry.nodes().count(), 2);
    assert!(registry.nodes().all(|node| node.twin.is_some()));
}

#[test]
fn a_node_that_was_restarted_elsewhere_is_no_twin_of_what_it_was() {
    let mut registry = Registry::new(options());
    registry.heartbeat(&ours("a1", "web-1", 0), status(10), at(0)).expect("taken");
    for second in 5..20 {
        registry.heartbeat(&ours("b2", "web-1", 0), status(10), at(second)).expect("taken");
        assert!(registry.tick(at(second)).is_empty());
    }
}

/// Two containers on two hosts may have one address.
#[test]
fn two_nodes_that_say_one_address_are_both_kept_told_of_once_and_not_probed() {
    let mut registry = Registry::new(options());
    let one = ours("a1", "web-1", 4000);
    let other = Identity { host: "web-2".into(), peer: "10.0.0.8".into(), ..ours("b2", "web-2", 4000) };
    let mut told = Vec::new();
    for second in (0..200).step_by(10) {
        let changes = registry.heartbeat(&one, status(10), at(second)).expect("taken");
        let changes =
            [changes, registry.heartbeat(&other, status(10), at(second + 1)).expect("taken")].concat();
        assert!(!changes.iter().any(|change| matches!(change, Change::Forgotten(_))), "{changes:?}");
        told.extend(registry.tick(at(second + 2)));
    }
    assert_eq!(kinds(&told), ["same address"]);
    let Change::Error(entry) = &told[0] else { panic!("{told:?}") };
    for part in ["web-1", "web-2", "from 10.0.0.7", "from 10.0.0.8", "10.0.0.7:4000"] {
        assert!(entry.text.contains(part), "{}", entry.text);
    }
    assert!(registry.probes().is_empty());
    // an answer is nobody's: the one that has gone is silent although the other answers
    registry.probed("b2", Ok(()), at(201));
    let mut changes = Vec::new();
    for second in (210..300).step_by(10) {
        registry.heartbeat(&one, status(10), at(second)).expect("taken");
        changes.extend(registry.tick(at(second + 1)));
    }
    assert_eq!(kinds(&changes), ["no heart-beat"]);
    assert_eq!((state(&registry, "a1"), state(&registry, "b2")), (State::Up, State::Silent));
    assert!(registry.probes().is_empty(), "the other would answer for it");
}

#[test]
fn nodes_of_one_name_at_one_address_are_told_of_once_over_restarts_and_again_when_they_were_apart() {
    let mut registry = Registry::new(options());
    let one = ours("a1", "web-1", 4000);
    let other = Identity { host: "web-2".into(), peer: "10.0.0.8".into(), ..ours("b2", "web-1", 4000) };
    fn meet(registry: &mut Registry, one: &Identity, other: &Identity, from: u64) -> Vec<Change> {
        let mut told = Vec::new();
        for second in (from..from + 60).step_by(10) {
            registry.heartbeat(one, status(10), at(second)).expect("taken");
            registry.heartbeat(other, status(10), at(second + 1)).expect("taken");
            told.extend(registry.tick(at(second + 2)));
        }
        told
    }
    assert_eq!(kinds(&meet(&mut registry, &one, &other, 0)), ["same address", "same name"]);
    // the other is away for a while
    registry.unregister(&other, at(60));
    registry.tick(at(61));
    assert_eq!(meet(&mut registry, &one, &other, 70), [], "nothing has changed");
    let (rows, errors) = (
        registry.nodes().map(|node| node.row.clone()).collect::<Vec<_>>(),
        registry.errors().cloned().collect::<Vec<_>>(),
    );
    for nodes_come_first in [false, true] {
        let mut restarted = Registry::new(options());
        if nodes_come_first {
            restarted.register(&one, at(200)).expect("taken");
            restarted.register(&other, at(200)).expect("taken");
        }
        restarted.restore(rows.clone(), errors.clone(), at(200));
        assert_eq!(meet(&mut restarted, &other, &one, 201), [], "it was told before the restart");
        assert!(restarted.nodes().all(|node| node.twin.is_some() && node.rivals.is_some()));
        let apart = Identity { name: "web-2".into(), port: 4001, ..other.clone() };
        assert!(kinds(&meet(&mut restarted, &one, &apart, 300)).is_empty());
        let told = meet(&mut restarted, &one, &other, 400);
        assert_eq!(kinds(&told), ["same address", "same name"], "it was in order meanwhile");
    }
}
