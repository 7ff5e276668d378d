//! Owners of packs that are slow, forgetful and of many minds.

use super::*;
use logferry_footprint::Remembered;

/// Answers packs until no more come.
pub(super) async fn own(
    mut packs: mpsc::Receiver<Incoming>,
    ledger: SharedLedger,
    mut random: StdRng,
    tasks: TaskTracker,
    crash: CancellationToken,
) {
    while let Some(incoming) = packs.recv().await {
        let ticket = incoming.pack.header.id;
        assert_eq!(incoming.pack.body, vec![ticket as u8; body_bytes(ticket)], "pack {ticket} came through");
        let calm = ledger.lock().expect("ledger").calm;
        if !calm && random.random_bool(0.05) {
            sleep(milliseconds(&mut random, 0..15_000)).await;
        }
        let delay = match random.random_range(0..10) {
            _ if calm => 0..50,
            0 => 0..20_000,
            1..4 => 0..1_000,
            _ => 0..20,
        };
        let delay = milliseconds(&mut random, delay);
        let (noted, crash) = (ledger.clone(), crash.clone());
        let choice = if calm { 99 } else { random.random_range(0..100) };
        spawn(&tasks, &ledger, async move {
            if crash.run_until_cancelled(sleep(delay)).await.is_some() {
                answer(incoming, choice, &noted);
            }
        });
    }
}

fn answer(incoming: Incoming, choice: u64, ledger: &Mutex<Ledger>) {
    let (ticket, mut ledger) = (incoming.pack.header.id, ledger.lock().expect("ledger"));
    let answer = match choice {
        0..8 => Answer::Busy { retry_ms: choice * 50 },
        // Dropped.
        8..12 => return,
        // Again and again, until it is given up.
        _ if ticket.is_multiple_of(40) => {
            ledger.rejected.insert(ticket);
            Answer::Rejected { reason: "bad_body".to_owned() }
        }
        12 => {
            // Damaged on the way, once.
            ledger.rejected.insert(ticket);
            Answer::Rejected { reason: "bad_crc".to_owned() }
        }
        13 => {
            ledger.conflicting.insert(ticket);
            Answer::Conflict(Remembered::default())
        }
        _ if ledger.durable.insert(ticket) => Answer::Ok,
        _ => Answer::Duplicate,
    };
    incoming.answer.send(answer);
}
