//! Random lives of a sender and its receivers, with real shells over pipes that cut, delay, slice and swallow: no pack is lost, none
//! is settled in a way that no receiver's owner said, and everything ends.

mod owner;
mod weather;

use super::*;
use crate::sender::{self, SenderOptions};
use crate::{Outcome, Settled, clock, connection};
use logferry_node::config::{Interval, Mode, SendSettings};
use owner::own;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use weather::Weather;

const LIVES: Range<u64> = 0..700;
const LIVES_LONG: Range<u64> = 0..30_000;
const STREAMS: u128 = 4;
/// How long everything goes wrong, and how long it may take to recover from it.
const STORM: Duration = seconds(40);
const RECOVERY_MAX: Duration = seconds(400);

/// What owners have said of packs, by ticket; written down before it is said.
#[derive(Default)]
struct Ledger {
    durable: HashSet<u64>,
    rejected: HashSet<u64>,
    conflicting: HashSet<u64>,
    /// Settled or withdrawn.
    ended: HashSet<u64>,
    calm: bool,
    /// Ends of connections by their reason, for whoever wants to know whether enough went wrong.
    ends: BTreeMap<&'static str, u64>,
    panics: u64,
}

type SharedLedger = Arc<Mutex<Ledger>>;

fn spawn(tasks: &TaskTracker, ledger: &SharedLedger, task: impl Future<Output = ()> + Send + 'static) {
    let watch = Watch(ledger.clone());
    tasks.spawn(async move {
        task.await;
        drop(watch);
    });
}

/// Notes the panic of a task, which would end in silence.
struct Watch(SharedLedger);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).panics += 1;
        }
    }
}

/// One life of a receiving node.
#[derive(Clone)]
struct Host {
    shared: Arc<Shared>,
    budget: Budget,
    stop: CancellationToken,
    /// Cuts all connections and drops all packs, at once.
    crash: CancellationToken,
}

struct World {
    random: StdRng,
    ledger: SharedLedger,
    hosts: Arc<Mutex<Vec<Host>>>,
    old_hosts: Vec<Host>,
    sender: Arc<sender::Shared>,
    settled: mpsc::UnboundedReceiver<Settled>,
    stop: CancellationToken,
    tasks: TaskTracker,
    next_ticket: u64,
}

/// Sizes from nothing to more than a whole window, always the same for a ticket.
fn body_bytes(ticket: u64) -> usize {
    let most = if ticket.is_multiple_of(10) { 60_000 } else { 5_000 };
    (ticket * 7_919 % most) as usize
}

fn milliseconds(random: &mut StdRng, range: Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let (mode, targets) = match random.random_range(0..3) {
            0 => (Mode::Single, 1),
            1 => (Mode::Failover, 2),
            _ => (Mode::LoadBalance, 3),
        };
        let mut settings = SendSettings { mode, ..SendSettings::default() };
        settings.to = (0..targets).map(|number| format!("target-{number}:1")).collect();
        settings.window.0 = random.random_range(3_000..30_000);
        settings.ack_timeout = Interval(seconds(random.random_range(2..15)));
        settings.write_timeout = Interval(seconds(5));
        settings.ping_interval = Interval(seconds(random.random_range(2..10)));
        let (settled_in, settled) = mpsc::unbounded_channel();
        let options = SenderOptions { settings, node: "client".to_owned(), role: "tailer" };
        let mut world = World {
            random,
            ledger: Arc::default(),
            hosts: Arc::default(),
            old_hosts: Vec::new(),
            sender: Arc::new(sender::Shared::new(options, settled_in)),
            settled,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            next_ticket: 1,
        };
        for number in 0..targets {
            let host = world.new_host();
            world.hosts.lock().expect("hosts").push(host);
            let connections = world.keep_connecting(number);
            spawn(&world.tasks, &world.ledger, connections);
        }
        world
    }

    fn fork(&mut self) -> StdRng {
        StdRng::from_rng(&mut self.random)
    }

    fn new_host(&mut self) -> Host {
        let mut settings = ListenSettings::default();
        settings.window.0 = self.random.random_range(3_000..30_000);
        settings.frame_timeout = Interval(seconds(self.random.random_range(3..20)));
        let budget = Budget::new(self.random.random_range(3_000..20_000));
        let node = NodeSettings::default();
        let (packs_in, packs) = mpsc::channel(2);
        let stop = CancellationToken::new();
        let options = ReceiverOptions::new(&settings, &node, "collector", budget.clone());
        let shared = Arc::new(Shared::new(options, packs_in, stop.clone()));
        let crash = CancellationToken::new();
        let owner = own(packs, self.ledger.clone(), self.fork(), self.tasks.clone(), crash.clone());
        let ends = crash.clone();
        let until_the_crash = async move { ends.run_until_cancelled(owner).await.unwrap_or_default() };
        spawn(&self.tasks, &self.ledger, until_the_crash);
        Host { shared, budget, stop, crash }
    }

    /// Plays `target::keep_connected` over pipes.
    fn keep_connecting(&mut self, number: usize) -> impl Future<Output = ()> + Send + 'static {
        let (sender, hosts, stop) = (self.sender.clone(), self.hosts.clone(), self.stop.clone());
        let (ledger, tasks, mut random) = (self.ledger.clone(), self.tasks.clone(), self.fork());
        async move {
            loop {
                sleep(milliseconds(&mut random, 1..600)).await;
                if stop.is_cancelled() {
                    return;
                }
                let host = hosts.lock().expect("hosts")[number].clone();
                let calm = ledger.lock().expect("ledger").calm;
                let (ours, proxy_here) = tokio::io::duplex(random.random_range(1..4_000));
                let (proxy_there, theirs) = tokio::io::duplex(random.random_range(1..4_000));
                let (reader, writer) = tokio::io::split(theirs);
                let addr = "192.0.2.1:7".parse().expect("an address");
                spawn(&tasks, &ledger, receiver::serve(reader, writer, addr, host.shared.clone()));
                let weather = if calm { Weather::calm() } else { Weather::random(&mut random) };
                let proxy = weather.pass(proxy_here, proxy_there, StdRng::from_rng(&mut random));
                let until_the_crash =
                    async move { host.crash.run_until_cancelled(proxy).await.unwrap_or_default() };
                spawn(&tasks, &ledger, until_the_crash);
                let (reader, writer) = tokio::io::split(ours);
                let hello_until = clock::now() + seconds(5);
                let attempt = connection::run(reader, writer, &sender, number, hello_until, &stop).await;
                *ledger.lock().expect("ledger").ends.entry(attempt.end.reason()).or_default() += 1;
            }
        }
    }

    async fn run(mut self) -> BTreeMap<&'static str, u64> {
        let storm_ends = Instant::now() + STORM;
        while Instant::now() < storm_ends {
            sleep(milliseconds(&mut self.random, 0..400)).await;
            match self.random.random_range(0..100) {
                0..80 => self.submit(),
                80..82 => self.withdraw(),
                82..88 => self.replace_host(),
                _ => {}
            }
            self.take_settled();
        }
        self.ledger.lock().expect("ledger").calm = true;
        let all = self.next_ticket as usize - 1;
        let recovery = async {
            while self.ledger.lock().expect("ledger").ended.len() < all {
                let settled = self.settled.recv().await.expect("a sender");
                self.settle(settled);
            }
        };
        timeout(RECOVERY_MAX, recovery).await.expect("all is settled in the end");
        self.end().await
    }

    fn submit(&mut self) {
        let pack =
            outgoing(self.next_ticket, self.random.random_range(0..STREAMS), body_bytes(self.next_ticket));
        let (now, ticket) = (clock::now(), self.next_ticket);
        self.next_ticket += u64::from(self.sender.update(|pool| {
            let room = pool.has_room(pack.bytes());
            room.then(|| pool.submit(pack, now)).is_some()
        }));
        assert!(ticket <= self.next_ticket);
    }

    fn withdraw(&mut self) {
        let withdrawn = self.sender.update(crate::pool::Pool::withdraw);
        self.take_settled();
        let mut ledger = self.ledger.lock().expect("ledger");
        for pack in withdrawn {
            assert!(ledger.ended.insert(pack.ticket), "{} ended twice", pack.ticket);
        }
    }

    /// A crash, or a stop that lets answers go out.
    fn replace_host(&mut self) {
        let host = self.new_host();
        let number = self.random.random_range(0..self.hosts.lock().expect("hosts").len());
        let old = std::mem::replace(&mut self.hosts.lock().expect("hosts")[number], host);
        match self.random.random_bool(0.5) {
            true => old.crash.cancel(),
            false => old.stop.cancel(),
        }
        self.old_hosts.push(old);
    }

    fn take_settled(&mut self) {
        while let Ok(settled) = self.settled.try_recv() {
            self.settle(settled);
        }
    }

    fn settle(&mut self, Settled { ticket, outcome }: Settled) {
        let mut ledger = self.ledger.lock().expect("ledger");
        let said = match &outcome {
            Outcome::Ok | Outcome::Duplicate => ledger.durable.contains(&ticket),
            Outcome::Rejected { .. } => ledger.rejected.contains(&ticket),
            Outcome::Conflict(_) => ledger.conflicting.contains(&ticket),
        };
        assert!(said, "{ticket} is settled as {outcome:?}, which nobody said");
        assert!(ledger.ended.insert(ticket), "{ticket} ended twice");
    }

    /// Everybody stops: all tasks end, and all memory is given back.
    async fn end(mut self) -> BTreeMap<&'static str, u64> {
        assert_eq!(self.sender.update(|pool| pool.figures().unsettled_packs), 0);
        self.stop.cancel();
        self.old_hosts.append(&mut self.hosts.lock().expect("hosts"));
        // Dropped here, so that owners hear that no more packs come.
        let close = |host: Host| {
            host.stop.cancel();
            host.budget
        };
        let budgets: Vec<Budget> = self.old_hosts.drain(..).map(close).collect();
        self.tasks.close();
        timeout(RECOVERY_MAX, self.tasks.wait()).await.expect("all tasks end");
        assert!(budgets.iter().all(|budget| budget.used() == 0), "memory is held by nobody");
        assert!(self.settled.try_recv().is_err(), "a pack was settled after its end");
        let ledger = std::mem::take(&mut *self.ledger.lock().expect("ledger"));
        assert_eq!(ledger.panics, 0, "tasks panicked");
        ledger.ends
    }
}

/// What has to happen in all lives together, so that they prove something: ends of connections, and packs that were sent back.
const ENDS: [&str; 8] =
    ["ack_timeout", "bye", "closed", "hello_timeout", "lost", "silent", "stopped", "write_stalled"];
const SENT_BACK: [&str; 3] = ["no_memory", "slow_pack", "stopping"];

#[test]
fn no_pack_is_lost_none_is_settled_that_was_not_and_everything_ends() {
    let (trial, counters) = (logferry_trial::trial!(), Counters::install());
    let lives = if logferry_trial::long_run() { LIVES_LONG } else { LIVES };
    let (mut ends, mut count): (BTreeMap<&str, u64>, _) = (BTreeMap::new(), 0);
    for seed in trial.seeds("lives of a sender and its receivers", lives.clone()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let life = runtime.expect("a runtime").block_on(async { World::new(seed).run().await });
        life.into_iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
        count += 1;
    }
    let sent_back = counters.of("logferry_link_sent_back_total");
    println!("{ends:?}, sent back {sent_back:?}");
    if count >= lives.end {
        assert!(ENDS.iter().all(|end| ends.contains_key(end)), "{ends:?}");
        assert_eq!(sent_back.iter().map(|(reason, _)| &reason[..]).collect::<Vec<_>>(), SENT_BACK);
    }
}
