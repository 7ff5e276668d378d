//! What comes before the database is known, what was kept while the monitor was away, and where a node has left.

use super::*;

#[test]
fn a_farewell_that_comes_before_the_database_is_one() {
    for who in [ours("a1", "web-1", 4000), legacy(4000)] {
        let mut registry = Registry::new(options());
        let changes = registry.unregister(&who, at(0));
        assert!(matches!(&changes[..], [Change::Node(row)] if row.state == State::Left), "{changes:?}");
        let stored =
            NodeRow { id: who.id(), registered_ms: 7, version: who.version.clone(), ..row_by_hand(4000) };
        registry.restore(vec![stored], Vec::new(), at(1));
        registry.set_restored();
        assert!(kinds(&registry.tick(at(100))).is_empty());
        assert_eq!((state(&registry, &who.id()), registry.probes().len()), (State::Left, 0));
        assert_eq!(registry.node(&who.id()).expect("known").row.registered_ms, 7);
        assert_eq!(registry.unregister(&ours("b2", "web-2", 4001), at(101)), [], "nobody knows it");
    }
}

#[test]
fn what_a_node_kept_while_the_monitor_was_away_is_taken_and_what_strangers_say_beyond_is_told() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 0);
    registry.heartbeat(&node, status(10), at(10_000)).expect("taken");
    let mut taken = 0;
    for second in (0..10_000).step_by(100) {
        let reported = registry.report(&node, "ERROR", "disk full", at(second).unix_ms, at(10_001));
        taken += u32::from(matches!(reported, Reported::Store(_)));
    }
    assert_eq!(taken, 100);
    let stranger = ours("stranger", "web-2", 0);
    for _ in 0..50 {
        registry.report(&stranger, "ERROR", "disk full", at(10_001).unix_ms, at(10_001));
    }
    let changes = registry.tick(at(10_014));
    let [Change::Error(entry)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((entry.kind.as_str(), entry.node.as_str()), ("left out", ""));
    assert!(entry.text.starts_with("45 more messages"), "{}", entry.text);
}

#[test]
fn a_row_added_by_hand_at_the_address_of_a_node_that_left_is_probed() {
    for left in [ours("a1", "web-1", 4000), legacy(4000)] {
        let mut registry = Registry::new(options());
        registry.register(&left, at(0)).expect("taken");
        registry.unregister(&left, at(1));
        assert_eq!(registry.adopt(vec![row_by_hand(4000)], at(2)), []);
        assert_eq!(registry.probes().len(), 1, "{left:?}");
    }
}

#[test]
fn legacy_nodes_do_not_share_a_limit_before_the_database_has_said_who_is_one() {
    let mut registry = Registry::new(options());
    let report = |registry: &mut Registry, who: &Identity| {
        matches!(registry.report(who, "ERROR", "disk full", at(1).unix_ms, at(1)), Reported::Store(_))
    };
    for port in 1..=8 {
        let taken = (0..10).filter(|_| report(&mut registry, &legacy(port))).count();
        assert_eq!(taken, 5, "port {port}");
    }
    let beyond = (9..100).filter(|port| report(&mut registry, &legacy(*port))).count();
    assert_eq!(beyond, 5, "no more have their own than there may be nodes");
    registry.set_restored();
    let after = (200..300).filter(|port| report(&mut registry, &legacy(*port))).count();
    assert_eq!(after, 0, "it is known that they are no nodes");
    let changes = registry.tick(at(100));
    let [Change::Error(entry)] = &changes[..] else { panic!("{changes:?}") };
    assert!(entry.text.starts_with("226 more messages"), "{}", entry.text);
}

#[test]
fn errors_of_the_queue_that_the_database_has_already_are_not_shown_twice() {
    let mut registry = Registry::new(options());
    let entry = |text: &str| ErrorEntry { text: text.into(), ..ErrorEntry::default() };
    let shown = |registry: &Registry| registry.errors().map(|error| error.text.clone()).collect::<Vec<_>>();
    (1..=4).for_each(|number| registry.keep_queued(number, entry(&format!("queued {number}"))));
    registry.keep(entry("new"));
    assert_eq!(shown(&registry).len(), 5);
    assert!(registry.has_older_errors(), "the database has not been asked yet");
    // a kill has come between the database's answer and the queue's mark
    registry.forget_queued_up_to(2);
    registry.restore(Vec::new(), ["old", "queued 1", "queued 2"].map(entry).to_vec(), at(0));
    registry.set_restored();
    assert_eq!(shown(&registry), ["old", "queued 1", "queued 2", "queued 3", "queued 4", "new"]);
    assert!(!registry.has_older_errors());
    (0..95).for_each(|_| registry.keep(entry("later")));
    assert!(registry.has_older_errors(), "the first one is left out");
}
