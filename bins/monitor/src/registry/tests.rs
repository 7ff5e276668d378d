mod away;
mod crowds;
mod forgetting;
mod names;
mod succession;

use super::*;
use logferry_node::monitor::message::fields;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn options() -> Options {
    Options {
        nodes_max: 8,
        errors_per_minute: 5,
        errors_shown: 100,
        hours_max: 100,
        forget_after: Duration::from_secs(3_600),
        grace: Duration::from_secs(30),
        probe_max: Duration::from_secs(41),
    }
}

fn at(second: u64) -> Now {
    Now {
        unix_ms: 1_700_000_000_000 + i64::try_from(second).expect("small") * 1000,
        tick: Duration::from_secs(second),
    }
}

fn legacy(port: u16) -> Identity {
    let message =
        fields([("ip", "10.0.0.7"), ("hostname", "web-1"), ("role", "tail"), ("port", &port.to_string())]);
    Identity::of(&message, "10.0.0.9").expect("clear")
}

fn ours(instance: &str, name: &str, port: u16) -> Identity {
    Identity {
        ip: "10.0.0.7".into(),
        port,
        role: "tailer".into(),
        host: "web-1".into(),
        name: name.into(),
        version: "0.1.0".into(),
        instance: instance.into(),
        peer: "10.0.0.7".into(),
    }
}

pub(super) fn row_by_hand(port: u16) -> NodeRow {
    NodeRow {
        id: format!("10.0.0.7:{port}"),
        ip: "10.0.0.7".into(),
        port,
        role: "tail".into(),
        name: "web-1".into(),
        host: "web-1".into(),
        version: String::new(),
        state: State::Up,
        since_ms: 0,
        registered_ms: 0,
    }
}

fn refused() -> Result<(), ProbeError> {
    Err(ProbeError { text: "connection refused".into(), is_refused: true })
}

fn status(every_s: u64) -> NodeStatus {
    NodeStatus { ready: true, every_ms: every_s * 1000, ..NodeStatus::default() }
}

fn state(registry: &Registry, id: &str) -> State {
    registry.nodes().find(|node| node.row.id == id).expect("the node").row.state
}

fn kinds(changes: &[Change]) -> Vec<&str> {
    fn kind(change: &Change) -> Option<&str> {
        match change {
            Change::Error(entry) => Some(entry.kind.as_str()),
            _ => None,
        }
    }
    changes.iter().filter_map(kind).collect()
}

#[test]
fn a_legacy_node_that_stops_answering_is_recorded_once_and_once_when_it_is_back() {
    let mut registry = Registry::new(options());
    let node = legacy(4000);
    assert_eq!(registry.register(&node, at(0)).expect("taken").len(), 1);
    assert_eq!(registry.register(&node, at(1)), Ok(vec![]));
    let probe = Probe { id: "10.0.0.7:4000".into(), ip: "10.0.0.7".into(), port: 4000, is_slow: false };
    assert_eq!(registry.probes(), [probe]);
    assert!(registry.probed("10.0.0.7:4000", Ok(()), at(30)).is_empty());
    let changes = registry.probed("10.0.0.7:4000", Err("connection refused".into()), at(60));
    assert_eq!(kinds(&changes), ["no heart-beat"]);
    for round in 3..10 {
        assert!(
            registry.probed("10.0.0.7:4000", Err("connection refused".into()), at(round * 30)).is_empty()
        );
        assert!(registry.tick(at(round * 30 + 1)).is_empty());
    }
    assert_eq!(state(&registry, "10.0.0.7:4000"), State::Silent);
    assert_eq!(kinds(&registry.probed("10.0.0.7:4000", Ok(()), at(330))), ["heart-beat"]);
    assert_eq!(state(&registry, "10.0.0.7:4000"), State::Up);
    assert_eq!(registry.errors().count(), 2);
}

#[test]
fn a_node_without_a_port_is_silent_when_its_heartbeats_stop() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 0);
    registry.heartbeat(&node, status(10), at(0)).expect("taken");
    assert!(registry.probes().is_empty());
    assert!(registry.tick(at(25)).is_empty());
    let changes = registry.tick(at(40));
    assert_eq!(kinds(&changes), ["no heart-beat"]);
    assert!(registry.tick(at(50)).is_empty());
    let changes = registry.heartbeat(&node, status(10), at(60)).expect("taken");
    assert_eq!(kinds(&changes), ["heart-beat"]);
}

#[test]
fn a_node_whose_port_cannot_be_reached_is_up_while_its_heartbeats_come() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 4000);
    registry.heartbeat(&node, status(10), at(0)).expect("taken");
    assert!(registry.probed("a1", Err("firewall".into()), at(5)).is_empty());
    assert_eq!(state(&registry, "a1"), State::Up);
    assert_eq!(kinds(&registry.tick(at(60))), ["no heart-beat"]);
}

#[test]
fn a_node_that_unregisters_has_left_and_is_not_probed_nor_reported() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 4000);
    registry.heartbeat(&node, status(10), at(0)).expect("taken");
    let changes = registry.unregister(&node, at(1));
    assert!(matches!(&changes[..], [Change::Node(row)] if row.state == State::Left), "{changes:?}");
    assert!(registry.probes().is_empty());
    assert!(registry.tick(at(100)).is_empty());
    assert!(registry.unregister(&node, at(101)).is_empty());
    assert!(kinds(&registry.register(&node, at(200)).expect("taken")).is_empty());
    assert_eq!(state(&registry, "a1"), State::Up);
    registry.unregister(&node, at(300));
    assert!(matches!(&registry.tick(at(4_000))[..], [Change::Forgotten(row)] if row.id == "a1"));
    assert_eq!(registry.nodes().count(), 0);
}

#[test]
fn reports_of_a_node_are_limited_and_the_rest_is_counted() {
    let mut registry = Registry::new(options());
    let (noisy, quiet) = (ours("a1", "web-1", 0), ours("b2", "web-2", 0));
    for node in [&noisy, &quiet] {
        registry.heartbeat(node, status(10), at(0)).expect("taken");
    }
    let stored = |registry: &mut Registry, node: &Identity, second| {
        let now = at(second);
        matches!(registry.report(node, "ERROR", "disk full", now.unix_ms, now), Reported::Store(_))
    };
    let passed = (0..100).filter(|_| stored(&mut registry, &noisy, 1)).count();
    assert_eq!(passed, 5);
    assert!(stored(&mut registry, &quiet, 1));
    let changes = registry.tick(at(14));
    assert!(
        matches!(&changes[..], [Change::Error(entry)] if entry.text.starts_with("95 more")),
        "{changes:?}"
    );
    assert!(stored(&mut registry, &noisy, 14));
}

#[test]
fn rows_added_by_hand_are_probed_and_those_deleted_by_hand_are_not_any_more() {
    let mut registry = Registry::new(options());
    let row = row_by_hand;
    registry.register(&legacy(4000), at(0)).expect("taken");
    assert!(registry.adopt(vec![row(4000), row(4001), row(4002)], at(1)).is_empty());
    assert_eq!(registry.probes().len(), 3);
    assert_eq!(registry.adopt(vec![row(4001)], at(2)), [Change::Forgotten(row(4002))]);
    let ports: Vec<u16> = registry.probes().iter().map(|probe| probe.port).collect();
    assert_eq!(ports, [4000, 4001], "a node that has registered is not forgotten for a row");
}

#[test]
fn a_node_without_an_instance_yields_its_address_to_one_that_has_one() {
    let mut registry = Registry::new(options());
    registry.register(&legacy(4000), at(0)).expect("taken");
    let changes = registry.heartbeat(&ours("a1", "web-1", 4000), status(10), at(1)).expect("taken");
    assert!(matches!(&changes[..], [Change::Forgotten(_), Change::Node(_)]), "{changes:?}");
    assert_eq!(registry.nodes().count(), 1);
}

#[test]
fn what_could_not_be_stored_is_given_back_again() {
    let mut registry = Registry::new(options());
    let changes = registry.register(&legacy(4000), at(0)).expect("taken");
    registry.not_stored(changes.clone());
    assert!(matches!(&registry.register(&legacy(4000), at(1)).expect("taken")[..], [Change::Node(_)]));
    registry.not_stored(changes.clone());
    assert!(matches!(&registry.tick(at(2))[..], [Change::Node(_)]));
    assert!(registry.tick(at(3)).is_empty());
}

#[test]
fn there_are_never_more_nodes_than_may_be_and_texts_are_cut() {
    let mut registry = Registry::new(options());
    for port in 1..=8 {
        registry.register(&legacy(port), at(0)).expect("taken");
    }
    assert_eq!(registry.register(&legacy(9), at(0)), Err(Refusal::TooMany(8)));
    let long = "<script>".repeat(2_000);
    let message = fields([("ip", "not an ip"), ("hostname", &long), ("role", &long), ("port", "1")]);
    let who = Identity::of(&message, "10.0.0.9").expect("clear");
    assert_eq!((who.ip.as_str(), who.name.chars().count(), who.role.chars().count()), ("10.0.0.9", 256, 65));
    assert!(Identity::of(&fields([("ip", "10.0.0.7")]), "10.0.0.9").is_err());
}

#[test]
fn ids_that_differ_in_blanks_at_the_end_are_one_as_columns_compare_them() {
    let id = |instance: &str| {
        Identity::of(&fields([("instance", instance), ("port", "7")]), "10.0.0.9").expect("clear").id()
    };
    assert_eq!([id("a1 "), id("a1\t"), id("  ")], ["a1", "a1", "10.0.0.9:7"]);
    assert_ne!(id(" a1"), id("a1"));
}

/// Random messages, probes and times against what must hold after each.
#[test]
fn whatever_comes_states_change_only_with_records_and_everything_is_bounded() {
    let trial = logferry_trial::trial!();
    for seed in trial.seeds("lives of a registry", 0..300) {
        simulate(&mut StdRng::seed_from_u64(seed));
    }
}

fn simulate(rng: &mut StdRng) {
    let mut registry = Registry::new(options());
    // what a reader of the stored rows would believe
    let mut stored: BTreeMap<String, NodeRow> = BTreeMap::new();
    let (mut second, mut silences) = (0, BTreeMap::<String, i64>::new());
    for _ in 0..300 {
        second += rng.random_range(0..20);
        let number = rng.random_range(0..12_u16);
        // some instances say that they are at the address of others
        let port = if number % 3 == 0 { 0 } else { 4000 + number / 2 };
        let mut who = match rng.random_bool(0.5) {
            true => legacy(4000 + number),
            false => ours(&format!("i{number}"), &format!("n{}", number % 3), port),
        };
        if rng.random_bool(0.5) {
            who.host = "web-2".into();
        }
        let what = rng.random_range(0..6);
        let changes = match what {
            0 => registry.register(&who, at(second)).unwrap_or_default(),
            1 | 2 => registry.heartbeat(&who, status(10), at(second)).unwrap_or_default(),
            3 => registry.unregister(&who, at(second)),
            4 => {
                let outcome = [Ok(()), Err("no answer".into()), refused()];
                let outcome = outcome[rng.random_range(0..3)].clone();
                registry.probed(&who.id(), outcome, at(second))
            }
            _ => registry.tick(at(second)),
        };
        for change in changes {
            match change {
                Change::Node(row) => drop(stored.insert(row.id.clone(), row)),
                Change::Forgotten(row) => {
                    stored.remove(&row.id);
                    silences.remove(&row.id);
                }
                Change::Error(entry) if entry.kind == "no heart-beat" => {
                    let count = silences.entry(entry.node.clone()).or_default();
                    *count += 1;
                    assert_eq!(*count, 1, "silent twice without having been heard: {entry:?}");
                }
                Change::Error(_) | Change::Hour(_) | Change::Alert(_) | Change::AddressLeft(_) => {}
            }
        }
        for node in registry.nodes().filter(|node| node.row.state != State::Silent) {
            silences.remove(&node.row.id);
        }
        let now: BTreeMap<String, NodeRow> =
            registry.nodes().map(|node| (node.row.id.clone(), node.row.clone())).collect();
        assert_eq!(now, stored, "what is stored is what is known");
        assert!(now.len() <= 8 && registry.errors().count() <= 100);
        for node in registry.nodes().filter(|node| node.is_legacy()) {
            let came = node.lives().map(|(came, _)| came);
            for other in registry.nodes().filter(|other| other.row.id != node.row.id) {
                let is_beside = other.address() == node.address();
                assert!(
                    !is_beside || other.lives().map(|(_, heard)| heard) <= came,
                    "a node of ours speaks there"
                );
                let is_succeeded = node.row.state == State::Up && other.row.state == State::Silent;
                assert!(!is_beside || !is_succeeded || what < 5, "it is what has become of the other");
            }
        }
    }
}

#[test]
fn a_report_that_could_not_be_stored_does_not_count_against_its_node() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 0);
    registry.heartbeat(&node, status(10), at(0)).expect("taken");
    for who in [&node, &ours("stranger", "web-2", 0)] {
        for _ in 0..100 {
            let reported = registry.report(who, "ERROR", "disk full", 0, at(1));
            assert!(matches!(reported, Reported::Store(_)), "{reported:?}");
            registry.report_not_stored(who);
        }
    }
}

#[test]
fn a_node_that_was_set_up_anew_on_its_host_takes_the_place_of_what_it_was() {
    let mut registry = Registry::new(options());
    registry.heartbeat(&ours("a1", "web-1", 4000), status(10), at(0)).expect("taken");
    let anew = ours("b2", "web-1", 4000);
    registry.heartbeat(&anew, status(10), at(5)).expect("taken");
    assert_eq!(registry.nodes().count(), 2, "nobody knows yet that the first has gone");
    let changes = registry.heartbeat(&anew, status(10), at(40)).expect("taken");
    assert!(matches!(&changes[..], [Change::Forgotten(row)] if row.id == "a1"), "{changes:?}");
    registry.tick(at(41));
    assert_eq!(registry.probes().len(), 1);
}

#[test]
fn a_port_that_answered_and_refuses_now_tells_at_once_that_its_node_has_gone_and_once_alone() {
    let mut registry = Registry::new(options());
    let node = ours("a1", "web-1", 4000);
    registry.heartbeat(&node, status(10), at(0)).expect("taken");
    assert!(registry.probed("a1", refused(), at(1)).is_empty(), "it never answered: a firewall may refuse");
    assert!(registry.probed("a1", Ok(()), at(6)).is_empty());
    assert!(registry.probed("a1", Err("no answer".into()), at(11)).is_empty(), "it speaks: a pause");
    assert_eq!(kinds(&registry.probed("a1", refused(), at(16))), ["no heart-beat"]);
    assert_eq!(kinds(&registry.heartbeat(&node, status(10), at(17)).expect("taken")), ["heart-beat"]);
    for second in (20..200).step_by(10) {
        assert!(registry.probed("a1", refused(), at(second)).is_empty(), "it lives, so its port is closed");
        assert!(kinds(&registry.heartbeat(&node, status(10), at(second + 1)).expect("taken")).is_empty());
        assert!(registry.tick(at(second + 2)).is_empty());
    }
}

#[test]
fn a_node_whose_probe_never_ends_is_silent_when_its_heartbeats_are_overdue() {
    let mut registry = Registry::new(options());
    registry.heartbeat(&ours("a1", "web-1", 4000), status(10), at(0)).expect("taken");
    assert!(registry.probed("a1", Ok(()), at(1)).is_empty());
    assert!(registry.tick(at(41)).is_empty(), "its next probe may be on its way");
    assert_eq!(kinds(&registry.tick(at(43))), ["no heart-beat"]);
}

#[test]
fn a_node_that_answers_probes_but_sends_no_heartbeats_is_up_and_its_figures_are_not_of_now() {
    let mut registry = Registry::new(options());
    registry.heartbeat(&ours("a1", "web-1", 4000), status(2), at(0)).expect("taken");
    for second in (0..300).step_by(30) {
        assert!(registry.probed("a1", Ok(()), at(second)).is_empty());
        assert!(registry.tick(at(second + 29)).is_empty());
    }
    let node = registry.node("a1").expect("known");
    assert!(node.status_of_now(at(5)).is_some() && node.overdue(at(5)).is_none());
    assert!(node.status_of_now(at(290)).is_none());
    assert_eq!(node.overdue(at(290)), Some(Duration::from_secs(290)));
}

#[test]
fn a_node_of_ours_behind_a_firewall_does_not_turn_silent_because_the_monitor_was_restarted() {
    let mut registry = Registry::new(options());
    let stored = NodeRow { id: "a1".into(), version: "0.1.0".into(), registered_ms: 7, ..row_by_hand(4000) };
    registry.restore(vec![stored], Vec::new(), at(0));
    assert!(registry.probed("a1", Err("no answer".into()), at(1)).is_empty());
    assert!(
        kinds(&registry.heartbeat(&ours("a1", "web-1", 4000), status(10), at(9)).expect("taken")).is_empty()
    );
    assert!(registry.tick(at(31)).is_empty());
}

#[test]
fn what_the_database_knew_of_a_node_counts_although_the_node_came_first() {
    let mut registry = Registry::new(options());
    let registered = registry.register(&ours("a1", "web-1", 4001), at(100)).expect("taken");
    assert!(matches!(&registered[..], [Change::Node(_)]), "{registered:?}");
    let stored = NodeRow { id: "a1".into(), registered_ms: 7, ..row_by_hand(4000) };
    registry.restore(vec![stored.clone()], Vec::new(), at(101));
    let node = registry.node("a1").expect("known");
    assert_eq!((node.row.registered_ms, node.row.port), (7, 4001));
    assert!(matches!(&registry.tick(at(102))[..], [Change::Node(row)] if row.registered_ms == 7));
    assert_eq!(registry.take_owed(), [Change::AddressLeft(stored)], "its old row would be probed for ever");
}

#[test]
fn a_node_that_moves_leaves_its_old_address() {
    let mut registry = Registry::new(options());
    registry.register(&ours("a1", "web-1", 4000), at(0)).expect("taken");
    let changes = registry.register(&ours("a1", "web-1", 4001), at(1)).expect("taken");
    assert!(
        matches!(&changes[..], [Change::AddressLeft(old), Change::Node(new)] if (old.port, new.port) == (4000, 4001)),
        "{changes:?}"
    );
}

#[test]
fn a_silent_node_that_comes_back_elsewhere_is_stored_where_it_is_alone() {
    let mut registry = Registry::new(options());
    for node in [ours("a1", "web-1", 4000), legacy(5000)] {
        registry.register(&node, at(0)).expect("taken");
        registry.probed(&node.id(), Ok(()), at(1));
        assert_eq!(kinds(&registry.probed(&node.id(), refused(), at(100))), ["no heart-beat"]);
    }
    let changes = registry.register(&ours("a1", "web-1", 4001), at(101)).expect("taken");
    let [Change::AddressLeft(left), Change::Node(row), Change::Error(again)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((left.port, row.port, row.state, again.port), (4000, 4001, State::Up, 4001));
    let changes = registry.register(&legacy(5000), at(102)).expect("taken");
    assert!(
        matches!(&changes[..], [Change::Node(row), Change::Error(_)] if row.state == State::Up),
        "{changes:?}"
    );
}

#[test]
fn changes_of_the_monitors_own_that_could_not_be_stored_are_given_back() {
    let mut registry = Registry::new(options());
    registry.register(&legacy(4000), at(0)).expect("taken");
    let silent = registry.probed("10.0.0.7:4000", Err("no answer".into()), at(30));
    registry.not_stored(silent.clone());
    let forgotten = registry.tick(at(4_000));
    assert!(matches!(&forgotten[..], [Change::Node(_), Change::Forgotten(_)]), "{forgotten:?}");
    registry.not_stored(forgotten.clone());
    assert_eq!(registry.take_owed(), [silent[1].clone(), forgotten[1].clone()]);
    registry.owe_again(vec![silent[1].clone(), forgotten[1].clone()]);
    registry.register(&legacy(4000), at(4_001)).expect("taken");
    assert_eq!(registry.take_owed(), [silent[1].clone()], "a node that is back is not forgotten");
}

#[test]
fn a_new_node_is_not_silent_before_it_could_be_probed_or_tell_its_first_status() {
    let mut registry = Registry::new(options());
    registry.heartbeat(&ours("a1", "web-1", 4000), status(1), at(0)).expect("taken");
    assert!(registry.tick(at(20)).is_empty(), "its first probe may be on its way");
    assert_eq!(kinds(&registry.tick(at(42))), ["no heart-beat"]);
    assert_eq!(
        kinds(&registry.heartbeat(&ours("a1", "web-1", 4000), status(1), at(50)).expect("taken")),
        ["heart-beat"]
    );
    assert!(registry.tick(at(70)).is_empty(), "the first probe since it is back may be on its way");
    let behind_a_firewall = ours("b2", "web-2", 4001);
    registry.register(&behind_a_firewall, at(100)).expect("taken");
    assert!(registry.probed("b2", Err("no answer".into()), at(101)).is_empty());
    assert!(kinds(&registry.heartbeat(&behind_a_firewall, status(10), at(103)).expect("taken")).is_empty());
    registry.register(&ours("c3", "web-3", 4002), at(200)).expect("taken");
    assert!(registry.probed("c3", Err("no answer".into()), at(201)).is_empty());
    assert_eq!(kinds(&registry.probed("c3", Err("no answer".into()), at(261))), ["no heart-beat"]);
}
