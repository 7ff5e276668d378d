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
    }
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
    assert_eq!(registry.probes(), [("10.0.0.7:4000".to_owned(), "10.0.0.7".to_owned(), 4000)]);
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
fn two_nodes_of_one_name_are_two_and_reported_once_when_both_live() {
    let mut registry = Registry::new(options());
    let (one, other) = (ours("a1", "web-1", 0), ours("b2", "web-1", 0));
    registry.heartbeat(&one, status(10), at(0)).expect("taken");
    registry.heartbeat(&other, status(10), at(5)).expect("taken");
    assert!(registry.tick(at(6)).is_empty(), "the one may have been replaced by the other");
    registry.heartbeat(&one, status(10), at(10)).expect("taken");
    registry.heartbeat(&other, status(10), at(15)).expect("taken");
    assert_eq!(kinds(&registry.tick(at(16))), ["same name", "same name"]);
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

#[test]
fn reports_of_a_node_are_limited_and_the_rest_is_counted() {
    let mut registry = Registry::new(options());
    let (noisy, quiet) = (ours("a1", "web-1", 0), ours("b2", "web-2", 0));
    for node in [&noisy, &quiet] {
        registry.heartbeat(node, status(10), at(0)).expect("taken");
    }
    let stored = |registry: &mut Registry, node: &Identity, second| {
        matches!(registry.report(node, "ERROR", "disk full", 0, at(second)), Reported::Store(_))
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
    let row = |port: u16| NodeRow {
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
    };
    registry.register(&legacy(4000), at(0)).expect("taken");
    registry.adopt(vec![row(4000), row(4001), row(4002)], at(1));
    assert_eq!(registry.probes().len(), 3);
    registry.adopt(vec![row(4001)], at(2));
    let ports: Vec<u16> = registry.probes().iter().map(|probe| probe.2).collect();
    assert_eq!(ports, [4000, 4001], "a node that has registered is not forgotten for a row");
}

#[test]
fn an_address_belongs_to_whoever_spoke_from_it_last() {
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
    registry.not_stored(&changes);
    assert!(matches!(&registry.register(&legacy(4000), at(1)).expect("taken")[..], [Change::Node(_)]));
    registry.not_stored(&changes);
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
    let (mut second, mut silences) = (0, BTreeMap::<(String, u16), i64>::new());
    for _ in 0..300 {
        second += rng.random_range(0..20);
        let number = rng.random_range(0..12_u16);
        let who = if rng.random_bool(0.5) {
            legacy(4000 + number)
        } else {
            ours(
                &format!("i{number}"),
                &format!("n{}", number % 3),
                if number % 2 == 0 { 0 } else { 4000 + number },
            )
        };
        let changes = match rng.random_range(0..6) {
            0 => registry.register(&who, at(second)).unwrap_or_default(),
            1 | 2 => registry.heartbeat(&who, status(10), at(second)).unwrap_or_default(),
            3 => registry.unregister(&who, at(second)),
            4 => {
                let outcome = if rng.random_bool(0.5) { Ok(()) } else { Err("refused".to_owned()) };
                registry.probed(&who.id(), outcome, at(second))
            }
            _ => registry.tick(at(second)),
        };
        for change in changes {
            match change {
                Change::Node(row) => drop(stored.insert(row.id.clone(), row)),
                Change::Forgotten(row) => {
                    stored.remove(&row.id);
                    silences.remove(&(row.ip, row.port));
                }
                Change::Error(entry) if entry.kind == "no heart-beat" && entry.port > 0 => {
                    let count = silences.entry((entry.ip.clone(), entry.port)).or_default();
                    *count += 1;
                    assert_eq!(*count, 1, "silent twice without having been heard: {entry:?}");
                }
                Change::Error(_) | Change::Hour(_) | Change::Alert(_) => {}
            }
        }
        for node in registry.nodes().filter(|node| node.row.state != State::Silent) {
            silences.remove(&(node.row.ip.clone(), node.row.port));
        }
        let now: BTreeMap<String, NodeRow> =
            registry.nodes().map(|node| (node.row.id.clone(), node.row.clone())).collect();
        assert_eq!(now, stored, "what is stored is what is known");
        assert!(now.len() <= 8 && registry.errors().count() <= 100);
        let mut addresses: Vec<_> =
            now.values().filter(|row| row.port > 0).map(|row| (&row.ip, row.port)).collect();
        let count = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), count, "an address has one node");
    }
}
