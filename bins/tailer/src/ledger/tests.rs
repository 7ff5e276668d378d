//! Tests of the ledger: what survives a crash, and the bytes of its records.

use super::looks::FileLook;
use super::record::Tail;
use super::record::{Cut, KeptCut, Record};
use super::stream::{Entry, Fate};
use super::*;
use crate::identity::FileKey;
use jiff::civil::date;
use jiff::tz::TimeZone;
use logferry_durable::RecoveryReport;
use proptest::prelude::*;
use std::path::Path;

fn hour(number: i8) -> Hour {
    let at = date(2026, 11, 21).at(number, 0, 0, 0).to_zoned(TimeZone::UTC).expect("a time");
    crate::hour::of(&at).expect("an hour")
}
fn head(text: &str) -> Head {
    Head::finished(text.as_bytes()).expect("a head")
}
fn key(inode: u64) -> FileKey {
    FileKey { device: 1, inode, born_ns: 5 }
}
fn meet(ledger: &mut Ledger, inode: u64, first: u64) -> StreamId {
    let meeting = Meeting { source: "app", path: b"/log/app", key: key(inode), head: head("first\n"), first };
    ledger.meet(&meeting)
}
fn fresh() -> Ledger {
    Ledger::recover("web-1", &Recovered::default())
}
fn replayed(snapshot: Option<Vec<u8>>, records: &[Vec<u8>]) -> Ledger {
    let recovered = Recovered { snapshot, records: records.to_vec(), report: RecoveryReport::default() };
    Ledger::recover("web-1", &recovered)
}
fn cut_and_send(ledger: &mut Ledger, stream: StreamId, span: u64) -> (Cut, u64) {
    let cut = ledger.cut(stream, span, 7, 1, hour(13)).expect("a known stream");
    (cut, ledger.send(stream, cut.offset).expect("a known pack"))
}

#[test]
fn the_frontier_moves_over_what_is_acknowledged_without_a_gap() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let tickets: Vec<u64> = (0..3).map(|_| cut_and_send(&mut ledger, stream, 10).1).collect();
    let frontier = |ledger: &Ledger| ledger.stream(stream).expect("known").frontier;
    ledger.settle(tickets[1], Verdict::Taken);
    assert_eq!(frontier(&ledger), 0);
    ledger.settle(tickets[0], Verdict::Duplicate);
    assert_eq!(frontier(&ledger), 20);
    ledger.settle(tickets[2], Verdict::Quarantined);
    assert_eq!(frontier(&ledger), 30);
    assert_eq!(ledger.settle(tickets[2], Verdict::Taken), Effect::Stale);
}

#[test]
fn until_something_new_is_taken_one_pack_goes_at_a_time() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let may_send = |ledger: &Ledger| ledger.stream(stream).expect("known").may_send();
    let (_, first) = cut_and_send(&mut ledger, stream, 10);
    assert!(!may_send(&ledger));
    ledger.settle(first, Verdict::Duplicate);
    let (_, second) = cut_and_send(&mut ledger, stream, 10);
    assert!(!may_send(&ledger));
    ledger.settle(second, Verdict::Taken);
    cut_and_send(&mut ledger, stream, 10);
    assert!(may_send(&ledger));
}

#[test]
fn numbers_count_on_in_each_hour_and_have_no_holes() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let ids = |ledger: &mut Ledger, at: Hour| ledger.cut(stream, 1, 0, 1, at).expect("known").id;
    assert_eq!([ids(&mut ledger, hour(1)), ids(&mut ledger, hour(1)), ids(&mut ledger, hour(2))], [1, 2, 1]);
    let records = ledger.take_records();
    let mut again = replayed(None, &records);
    assert_eq!(ids(&mut again, hour(1)), 3);
    // The packs are lost with the file, but may have arrived: their numbers are not given to other lines.
    assert_eq!(again.orphan(stream), 4);
    let other = meet(&mut again, 2, 0);
    assert_eq!(again.cut(other, 1, 0, 1, hour(1)).expect("known").id, 4);
}

#[test]
fn a_generation_gets_an_id_that_was_not_used_for_the_file() {
    let mut ledger = fresh();
    let first = meet(&mut ledger, 1, 0);
    let second = meet(&mut ledger, 1, 0);
    assert_ne!(first, second);
    assert!(ledger.stream(first).expect("known").orphan);
    ledger.finish(first);
    let third = meet(&mut ledger, 1, 0);
    assert!(third != first && third != second);
    let other_file = meet(&mut ledger, 2, 0);
    assert_eq!(ledger.stream(other_file).expect("known").met.generation, 0);
    let records = ledger.take_records();
    assert_eq!(replayed(None, &records).current(key(1)), Some(third));
}

#[test]
fn a_conflict_that_agrees_keeps_what_is_on_its_way() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let (first, ticket) = cut_and_send(&mut ledger, stream, 10);
    let (second, on_its_way) = cut_and_send(&mut ledger, stream, 10);
    assert_eq!(ledger.settle(ticket, Verdict::Conflict(Remembered::default())), Effect::Conflict(stream));
    assert!(!ledger.stream(stream).expect("known").may_send());
    let covered = Entry { cut: Cut { span: 4, ..first }, fate: Fate::Acked };
    let rest = Entry { cut: Cut { offset: 4, span: 6, ..first }, fate: Fate::Unsent };
    let kept = Entry { cut: second, fate: Fate::InFlight(on_its_way) };
    ledger.agree(stream, Tail { offset: 0, span: 4, sum: 1 }, vec![covered, rest, kept]);
    let state = ledger.stream(stream).expect("known");
    assert_eq!((state.frontier, state.next_unsent(), state.in_flight()), (4, Some(rest.cut), 1));
    assert_eq!(ledger.settle(on_its_way, Verdict::Taken), Effect::Settled(stream));
    let records = ledger.take_records();
    let again = replayed(None, &records);
    let again = again.stream(stream).expect("known");
    assert_eq!((again.frontier, again.cut_end(), again.next_unsent()), (4, 20, Some(rest.cut)));
}

#[test]
fn a_frontier_far_ahead_takes_the_packs_below_it_along() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let (cut, ticket) = cut_and_send(&mut ledger, stream, 10);
    ledger.settle(ticket, Verdict::Conflict(Remembered::default()));
    let tail = Tail { offset: 90, span: 10, sum: 1 };
    ledger.agree(stream, tail, vec![Entry { cut, fate: Fate::Acked }]);
    let state = ledger.stream(stream).expect("known");
    assert_eq!((state.frontier, state.cut_end(), state.tail), (100, 100, Some(tail)));
    ledger.close_hour("app", hour(13));
    assert_eq!(ledger.next_mark().map(|mark| mark.id), Some(cut.id), "the number was not used");
}

#[test]
fn a_new_generation_takes_the_packs_along_or_leaves_them() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let (_, first) = cut_and_send(&mut ledger, stream, 10);
    ledger.settle(first, Verdict::Taken);
    let (second, ticket) = cut_and_send(&mut ledger, stream, 10);
    ledger.settle(ticket, Verdict::Conflict(Remembered::default()));
    let kept = ledger.regenerate(stream, 10, true).expect("known");
    let state = ledger.stream(kept).expect("known");
    assert_eq!((state.met.first, state.next_unsent(), state.met.generation), (10, Some(second), 1));
    let left = ledger.regenerate(kept, 0, false).expect("known");
    assert_eq!(ledger.stream(left).expect("known").cut_end(), 0);
    let records = ledger.take_records();
    let again = replayed(None, &records);
    assert_eq!(again.current(key(1)), Some(left));
    assert_eq!(again.streams().count(), 1);
}

#[test]
fn what_is_missing_in_a_damaged_log_is_cut_anew_and_nothing_starts_at_the_end() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    for _ in 0..3 {
        ledger.cut(stream, 10, 7, 1, hour(13));
    }
    let mut records = ledger.take_records();
    records.remove(2);
    records.push(vec![99, 1, 2, 3]);
    let again = replayed(None, &records);
    assert!(again.is_suspect() && again.is_source_started("app"));
    assert_eq!(again.undecodable(), 1);
    assert_eq!(again.stream(stream).expect("known").cut_end(), 10);
}

#[test]
fn the_bytes_of_records_stay_the_same() {
    let stream = StreamId(0x11);
    let cut = Cut { offset: 300, span: 10, sum: 7, lines: 2, hour: hour(13), id: 1 };
    let bytes = |record: &Record| encode(record).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(bytes(&Record::SourceStarted("app".into())), "010003617070");
    assert_eq!(bytes(&Record::Finished(stream)), "010611");
    let frontier = Record::Frontier { stream, frontier: 5, tail: None };
    assert_eq!(bytes(&frontier), "0103110500");
    let mark = Mark { source: "a".into(), hour: hour(1), id: 2, done: true, stream, first: 0, offset: 9 };
    assert_eq!(bytes(&Record::Marked(mark)), "01070161e58890c6070201110009");
    let taken = Record::MarkTaken { source: "a".into(), hour: hour(1), id: 2 };
    assert_eq!(bytes(&taken), "01080161e58890c60702");
    let recut = Record::Recut { stream, frontier: 300, cuts: vec![KeptCut { cut, acked: true }] };
    assert_eq!(decode(&encode(&recut)), Some(recut));
}

#[test]
fn an_hour_is_closed_by_a_pack_without_lines_that_has_the_next_number() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    let (cut, ticket) = cut_and_send(&mut ledger, stream, 10);
    assert_eq!(ledger.unsettled_hours("app"), BTreeSet::from([hour(13)]));
    ledger.settle(ticket, Verdict::Taken);
    assert!(ledger.unsettled_hours("app").is_empty() && ledger.unsettled_hours("other").is_empty());
    ledger.close_hour("app", hour(13));
    let mark = ledger.next_mark().expect("a done pack");
    assert_eq!((mark.id, mark.done, mark.stream, mark.offset), (2, true, stream, cut.end()));
    // Journaled and not taken: it is sent again, the very same.
    let records = ledger.take_records();
    let mut again = replayed(None, &records);
    assert_eq!(again.next_mark(), Some(mark.clone()));
    let ticket = again.send_mark(&mark).expect("a ticket");
    assert_eq!((again.next_mark(), again.unsettled()), (None, 1));
    let snapshot = again.snapshot();
    assert_eq!(replayed(Some(snapshot), &[]).next_mark(), Some(mark));
    assert_eq!(again.settle(ticket, Verdict::Taken), Effect::MarkSettled);
    assert_eq!(again.settle(ticket, Verdict::Taken), Effect::Stale);
    let mut later = replayed(Some(again.snapshot()), &[]);
    assert!(later.next_mark().is_none() && later.hours().is_closed("app", hour(13)));
    assert_eq!(later.cut(stream, 1, 0, 1, hour(13)).expect("known").id, 3, "late lines count on");
    later.close_hour("app", hour(13));
    assert_eq!(later.next_mark().map(|mark| (mark.id, mark.done)), Some((4, true)));
}

#[test]
fn numbers_that_were_given_back_are_settled_before_an_hour_is_closed() {
    let mut ledger = fresh();
    let stream = meet(&mut ledger, 1, 0);
    for _ in 0..3 {
        ledger.cut(stream, 10, 7, 1, hour(13));
    }
    assert_eq!(ledger.orphan(stream), 30);
    let records = ledger.take_records();
    let mut again = replayed(None, &records);
    again.close_hour("app", hour(13));
    let marks: Vec<(u64, bool)> = again.marks.keys().map(|mark| (mark.id, mark.done)).collect();
    assert_eq!(marks, [(1, false), (2, false), (3, false), (4, true)]);
}

#[test]
fn a_snapshot_of_the_version_before_is_read() {
    // One source, no streams, its hour 2026112113 with number 2 given and 1 given back.
    let hour_bytes = postcard::to_stdvec(&hour(13)).expect("encoded");
    let mut bytes = vec![1, 1, 3, b'a', b'p', b'p', 0, 1, 3, b'a', b'p', b'p', 1];
    bytes.extend(hour_bytes);
    bytes.extend([2, 1, 1]);
    let ledger = replayed(Some(bytes), &[]);
    assert!(!ledger.is_suspect() && ledger.is_source_started("app"));
    assert_eq!((ledger.hours().next("app", hour(13)), ledger.hours().last("app", hour(13))), (3, 2));
    assert_eq!(ledger.hours().next_without_lines("app", hour(13)), 1);
    assert_eq!(ledger.hours().open("app").collect::<Vec<_>>(), [hour(13)]);
}

/// A life of two streams with crashes. What is sent was journaled before; what was journaled without being sent may
/// be lost.
#[derive(Clone, Debug)]
enum Step {
    Cut(usize, u64, bool),
    Settle(usize),
    Snapshot,
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..2, 1u64..50, any::<bool>()).prop_map(|(which, span, send)| Step::Cut(which, span, send)),
        4 => (0usize..20).prop_map(Step::Settle),
        1 => Just(Step::Snapshot),
        1 => (0usize..20).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

struct Life {
    ledger: Ledger,
    snapshot: Option<Vec<u8>>,
    records: Vec<Vec<u8>>,
    durable: usize,
    on_the_way: Vec<(StreamId, Cut, u64)>,
}

impl Life {
    fn commit(&mut self) {
        let records = self.ledger.take_records();
        self.records.extend(records);
        self.durable = self.records.len();
    }

    fn step(&mut self, step: &Step, streams: &[StreamId]) {
        match step {
            Step::Cut(which, span, send) => {
                let stream = streams[*which];
                let Some(cut) = self.ledger.cut(stream, *span, *span as u32, 1, hour(13)) else { return };
                if *send && self.ledger.stream(stream).and_then(Stream::next_unsent) == Some(cut) {
                    let ticket = self.ledger.send(stream, cut.offset).expect("just cut");
                    self.commit();
                    self.on_the_way.push((stream, cut, ticket));
                }
            }
            Step::Settle(index) if !self.on_the_way.is_empty() => {
                let (_, _, ticket) = self.on_the_way.remove(index % self.on_the_way.len());
                self.ledger.settle(ticket, Verdict::Taken);
            }
            Step::Settle(_) => {}
            Step::Snapshot => {
                self.commit();
                self.snapshot = Some(self.ledger.snapshot());
                self.records.clear();
                self.durable = 0;
            }
            Step::Crash(lucky) => {
                let records = self.ledger.take_records();
                self.records.extend(records);
                self.records.truncate(self.durable + lucky);
                self.ledger = replayed(self.snapshot.clone(), &self.records);
                self.durable = self.records.len();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn after_any_crash_the_same_packs_are_cut_again(steps in steps()) {
        let mut ledger = fresh();
        let streams = [meet(&mut ledger, 1, 0), meet(&mut ledger, 2, 100)];
        let mut life = Life { ledger, snapshot: None, records: vec![], durable: 0, on_the_way: vec![] };
        life.commit();
        for step in &steps {
            life.step(step, &streams);
            let crashed = matches!(step, Step::Crash(_));
            for (stream, cut, _) in &life.on_the_way {
                let state = life.ledger.stream(*stream).expect("known");
                let entry = state.entries.iter().find(|entry| entry.cut.offset == cut.offset);
                prop_assert_eq!(entry.map(|entry| entry.cut), Some(*cut), "a pack on its way is known");
            }
            for stream in streams {
                let state = life.ledger.stream(stream).expect("known");
                let mut at = state.frontier;
                for entry in &state.entries {
                    prop_assert_eq!(entry.cut.offset, at);
                    at = entry.cut.end();
                }
            }
            if crashed {
                // Packs on their way are sent again.
                let again = std::mem::take(&mut life.on_the_way);
                for (stream, cut, _) in again {
                    let ticket = life.ledger.send(stream, cut.offset).expect("known");
                    life.on_the_way.push((stream, cut, ticket));
                }
            }
        }
    }
}

#[test]
fn the_last_generation_of_a_file_is_the_current_one_in_whatever_order_they_were_kept() {
    let mut ledger = fresh();
    let generations: Vec<StreamId> = (0..3).map(|_| meet(&mut ledger, 1, 0)).collect();
    // Its file was replaced once more, and has nothing that is known yet.
    ledger.orphan(generations[2]);
    for rotated in 0..3 {
        let mut snapshot = decode_snapshot(&ledger.snapshot()).expect("a snapshot");
        snapshot.streams.sort_by_key(|stream| generations.iter().position(|id| *id == stream.met.stream));
        snapshot.streams.rotate_left(rotated);
        let again = replayed(Some(encode_snapshot(&snapshot)), &[]);
        assert_eq!(again.current(key(1)), Some(generations[2]));
        let is_orphan = |id: &StreamId| again.stream(*id).expect("known").orphan;
        assert_eq!(generations.iter().map(is_orphan).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(again.orphans().count(), 2);
    }
}

#[test]
fn generations_whose_files_are_looked_for_are_no_orphans_after_a_restart() {
    let mut ledger = fresh();
    let looked_for = [0, 1].map(|_| {
        let stream = meet(&mut ledger, 1, 0);
        ledger.rehome(stream, FileKey::NOWHERE, b"/log/app");
        stream
    });
    let snapshot = ledger.snapshot();
    let records = ledger.take_records();
    for again in [replayed(Some(snapshot), &[]), replayed(None, &records)] {
        assert!(looked_for.iter().all(|id| again.stream(*id).is_some_and(|stream| !stream.orphan)));
        assert_eq!(again.orphans().count(), 0);
    }
}

#[test]
fn a_compressed_file_is_owed_over_restarts_until_it_is_settled_what_it_is() {
    let look = FileLook { size: 10, changed_ns: 20 };
    let owed = |inode| Owed::new("app", key(inode), Path::new("/log/app.log.1.gz"), look);
    let mut ledger = fresh();
    let gone = meet(&mut ledger, 50, 0);
    (1..=5).for_each(|inode| ledger.owe(owed(inode)));
    ledger.content_known(key(1), look);
    assert!(ledger.tell_missed(key(2), look));
    meet(&mut ledger, 3, 0);
    ledger.rehome(gone, key(4), b"/log/app.log.1.gz");
    ledger.looks_for_missed(Some(7));
    let snapshot = ledger.snapshot();
    let records = ledger.take_records();
    for again in [replayed(Some(snapshot), &[]), replayed(None, &records)] {
        let left: Vec<&Owed> = again.owed_of("app").collect();
        assert_eq!(left, [&owed(5)]);
        assert_eq!(left[0].path(), Path::new("/log/app.log.1.gz"));
        assert!(again.owes(key(5)) && again.owed_of("other").next().is_none());
        assert_eq!((again.known_look(key(1)), again.missed_since()), (Some(look), Some(7)));
    }
    ledger.looks_for_missed(None);
    assert_eq!(replayed(Some(ledger.snapshot()), &[]).missed_since(), None);
}
