use super::*;
use crate::pool::simulation::pack;
use logferry_pack::{Codec, Header, Name, Ours, Pack, PackIdentity, StreamId};

const WIDE: TargetLimits = TargetLimits {
    window: u64::MAX,
    pack_bytes_max: u64::MAX,
    header_bytes_max: u64::MAX,
    one_of_stream: false,
};

fn pool(mode: Mode, targets: usize) -> Pool {
    let names: Vec<String> = (0..targets).map(|number| format!("collector-{number}:1302")).collect();
    Pool::new(mode, &names, u64::MAX)
}

/// Takes all that a target may be sent: keys and tickets.
fn send_all(pool: &mut Pool, target: usize) -> Vec<u64> {
    std::iter::from_fn(|| pool.next_transmit(target)).map(|transmit| transmit.pack.ticket).collect()
}

fn settled(pool: &mut Pool) -> Vec<u64> {
    pool.take_settled().into_iter().map(|settled| settled.ticket).collect()
}

#[test]
fn a_lost_target_hands_its_packs_over_at_once_and_in_order() {
    let (mut pool, now) = (pool(Mode::Failover, 2), Instant::now());
    (0..4).for_each(|ticket| pool.submit(pack(ticket, 7), now));
    pool.target_up(0, WIDE);
    pool.target_up(1, WIDE);
    assert_eq!(send_all(&mut pool, 0), [0, 1, 2, 3]);
    pool.answered(0, 1, Answer::Ok, now);
    pool.target_down(0);
    assert_eq!(send_all(&mut pool, 1), [0, 2, 3]);
    assert_eq!(settled(&mut pool), [1]);
}

#[test]
fn a_stream_goes_back_to_the_primary_when_the_second_has_answered() {
    let (mut pool, now) = (pool(Mode::Failover, 2), Instant::now());
    pool.target_up(1, WIDE);
    pool.submit(pack(0, 7), now);
    pool.submit(pack(1, 7), now);
    assert_eq!(send_all(&mut pool, 1), [0, 1]);
    pool.target_up(0, WIDE);
    pool.submit(pack(2, 7), now);
    pool.submit(pack(3, 8), now);
    assert_eq!(send_all(&mut pool, 0), [3], "a stream with nothing in flight moves at once");
    pool.answered(1, 1, Answer::Ok, now);
    assert_eq!((send_all(&mut pool, 0), send_all(&mut pool, 1)), (vec![], vec![]));
    pool.answered(1, 0, Answer::Duplicate, now);
    assert_eq!((send_all(&mut pool, 0), send_all(&mut pool, 1)), (vec![2], vec![]));
}

#[test]
fn a_busy_pack_holds_its_stream_and_no_other() {
    let (mut pool, now) = (pool(Mode::Single, 1), Instant::now());
    pool.target_up(0, WIDE);
    pool.submit(pack(0, 7), now);
    pool.submit(pack(1, 7), now);
    assert_eq!(send_all(&mut pool, 0), [0, 1]);
    pool.answered(0, 0, Answer::Busy { retry_ms: 100 }, now);
    pool.submit(pack(2, 7), now);
    pool.submit(pack(3, 8), now);
    assert_eq!(send_all(&mut pool, 0), [3]);
    let later = pool.deadline().expect("a retry");
    assert_eq!(later, now + Duration::from_millis(100));
    pool.time(later);
    assert_eq!(send_all(&mut pool, 0), [0, 2]);
}

#[test]
fn a_rejected_pack_is_sent_three_times_before_it_is_given_up() {
    let (mut pool, mut now) = (pool(Mode::Single, 1), Instant::now());
    pool.target_up(0, WIDE);
    pool.submit(pack(0, 7), now);
    for _ in 0..3 {
        assert_eq!(settled(&mut pool), [0u64; 0]);
        assert_eq!(send_all(&mut pool, 0), [0]);
        pool.answered(0, 0, Answer::Rejected { reason: "bad_crc".to_owned() }, now);
        now = pool.deadline().unwrap_or(now);
        pool.time(now);
    }
    assert_eq!((settled(&mut pool), send_all(&mut pool, 0)), (vec![0], vec![]));
}

#[test]
fn busy_at_a_lost_target_is_no_reason_to_wait_at_the_next() {
    let (mut pool, now) = (pool(Mode::Failover, 2), Instant::now());
    pool.target_up(0, WIDE);
    pool.target_up(1, WIDE);
    pool.submit(pack(0, 7), now);
    assert_eq!(send_all(&mut pool, 0), [0]);
    pool.answered(0, 0, Answer::Busy { retry_ms: 10_000 }, now);
    pool.target_draining(0);
    assert_eq!(send_all(&mut pool, 1), [0]);
    assert_eq!(pool.deadline(), None);
}

#[test]
fn the_window_of_a_target_counts_withdrawn_packs_until_they_are_answered() {
    let (mut pool, now) = (pool(Mode::Single, 1), Instant::now());
    pool.target_up(0, TargetLimits { window: 250, ..WIDE });
    (0..3).for_each(|ticket| pool.submit(pack(ticket, 7), now));
    assert_eq!(send_all(&mut pool, 0), [0, 1]);
    assert_eq!(pool.withdraw().iter().map(|pack| pack.ticket).collect::<Vec<_>>(), [0, 1, 2]);
    (3..6).for_each(|ticket| pool.submit(pack(ticket, 7), now));
    assert_eq!(send_all(&mut pool, 0), [0u64; 0]);
    assert_eq!(pool.take_wakes().count(), 1);
    pool.answered(0, 0, Answer::Ok, now);
    assert_eq!(pool.take_wakes().collect::<Vec<_>>(), [0]);
    assert_eq!(send_all(&mut pool, 0), [3]);
    assert_eq!(settled(&mut pool), [0u64; 0]);
}

#[test]
fn a_pack_larger_than_the_window_goes_alone() {
    let (mut pool, now) = (pool(Mode::Single, 1), Instant::now());
    pool.target_up(0, TargetLimits { window: 10, ..WIDE });
    (0..2).for_each(|ticket| pool.submit(pack(ticket, 7), now));
    assert_eq!(send_all(&mut pool, 0), [0]);
    pool.answered(0, 0, Answer::Ok, now);
    assert_eq!(send_all(&mut pool, 0), [1]);
}

#[test]
fn a_pack_above_the_peers_limits_is_rejected_here_and_does_not_block() {
    let (mut pool, now) = (pool(Mode::Single, 1), Instant::now());
    pool.target_up(
        0,
        TargetLimits { pack_bytes_max: 150, header_bytes_max: 30, window: 1_000, one_of_stream: false },
    );
    pool.submit(Outgoing { body: bytes::Bytes::from(vec![0; 151]), ..pack(0, 7) }, now);
    pool.submit(Outgoing { header: bytes::Bytes::from(vec![0; 35]), ..pack(1, 7) }, now);
    pool.submit(Outgoing { header: bytes::Bytes::from(vec![0; 34]), ..pack(2, 7) }, now);
    assert_eq!(send_all(&mut pool, 0), [2]);
    let rejected =
        |ticket, reason: &str| Settled { ticket, outcome: Outcome::Rejected { reason: reason.to_owned() } };
    assert_eq!(pool.take_settled(), [rejected(0, "pack_too_large"), rejected(1, "header_too_large")]);
}

#[test]
fn sources_are_spread_and_only_those_of_a_lost_target_move() {
    let mut pool = pool(Mode::LoadBalance, 4);
    (0..4).for_each(|target| pool.target_up(target, WIDE));
    let before: Vec<_> =
        (0..400).map(|stream| pool.choose(target::hash(&[stream as u8, (stream >> 8) as u8]))).collect();
    (0..4).for_each(|target| {
        let share = before.iter().filter(|chosen| **chosen == Some(target)).count();
        assert!((60..140).contains(&share), "{share} of 400 sources at target {target}");
    });
    pool.target_down(2);
    for (stream, before) in before.iter().enumerate().filter(|(_, before)| **before != Some(2)) {
        assert_eq!(pool.choose(target::hash(&[stream as u8, (stream >> 8) as u8])), *before);
    }
    pool.target_up(2, WIDE);
    let after: Vec<_> =
        (0..400).map(|stream| pool.choose(target::hash(&[stream as u8, (stream >> 8) as u8]))).collect();
    assert_eq!(before, after);
}

#[test]
fn a_busy_pack_that_is_shipped_again_does_not_hinder_its_stream() {
    let (mut pool, now) = (pool(Mode::Single, 1), Instant::now());
    pool.target_up(0, WIDE);
    pool.submit(Outgoing { apart: true, ..pack(1, 7) }, now);
    let again = pool.next_transmit(0).expect("sent");
    pool.answered(0, again.key, Answer::Busy { retry_ms: 1_000 }, now);
    pool.submit(pack(2, 7), now);
    assert_eq!(pool.next_transmit(0).map(|sent| sent.pack.ticket), Some(2));
    pool.submit(Outgoing { apart: true, ..pack(3, 7) }, now);
    assert!(pool.next_transmit(0).is_none(), "those that are shipped again keep their order");
    pool.time(now + Duration::from_secs(1));
    assert_eq!(pool.next_transmit(0).map(|sent| sent.pack.ticket), Some(1));
}

/// Of a stream of a source of a host.
fn named(ticket: u64, stream: u128, source: &str, host: &str) -> Outgoing {
    let identity = PackIdentity { stream: StreamId(stream), offset: ticket, span: 1, sum: 0 };
    let ours = Ours {
        host: Name::new(host).expect("a name"),
        source: Name::new(source).expect("a name"),
        identity,
        first: 0,
        raw: 1,
        raw_sum: None,
        codec: Codec::None,
        crc: 0,
    };
    let header = Header {
        ip: "10.0.0.7".into(),
        hour: 2026112113.try_into().expect("an hour"),
        id: ticket + 1,
        lines: 1,
        done: false,
        repull: false,
        ours: Some(ours),
        origin_rest: Default::default(),
        hops: Vec::new(),
    };
    let body = bytes::Bytes::from_static(b"\n");
    let header = Pack { header, body: body.clone() }.encode_header();
    Outgoing { header, body, ..pack(ticket, stream) }
}

#[test]
fn all_streams_of_a_source_of_a_host_go_to_one_target_and_hosts_are_spread() {
    let (mut pool, now) = (pool(Mode::LoadBalance, 2), Instant::now());
    (0..2).for_each(|target| pool.target_up(target, WIDE));
    let mut sources_at = [0, 0];
    for host in 0..40 {
        let name = format!("web-{host}");
        for number in 0..20 {
            let ticket = host * 20 + number;
            let again = number % 5 == 0;
            let pack = named(ticket, u128::from(ticket) << 64 | 7, "access", &name);
            pool.submit(Outgoing { apart: again, ..pack }, now);
        }
        let sent = [0, 1].map(|target| send_all(&mut pool, target).len());
        assert!(sent.contains(&20) && sent.contains(&0), "{name}: {sent:?}");
        sources_at[usize::from(sent[1] > 0)] += 1;
    }
    assert!(sources_at.iter().all(|count| *count > 8), "{sources_at:?} of 40");
}
