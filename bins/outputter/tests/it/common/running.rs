//! An outputter in this process behind a real listener, on real files, and a client that sends it packs.

use super::identity;
use logferry_link::{
    Budget, HopStamp, Outcome, Outgoing, Receiver, ReceiverOptions, Sender, SenderOptions, Settled,
};
use logferry_node::config::{Interval, ListenSettings, NodeSettings, SendSettings};
use logferry_outputter::FileSettings;
use logferry_outputter::figures::Figures;
use logferry_outputter::file::commit;
use logferry_outputter::file::order::OrderFigures;
use logferry_outputter::file::output::FileOutput;
use logferry_outputter::file::store::Folders;
use logferry_pack::{Limits, Pack};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// An outputter in this process.
pub struct Running {
    pub addr: String,
    pub figures: Arc<Figures>,
    pub order_figures: Box<dyn Fn() -> OrderFigures + Send>,
    pub stop: CancellationToken,
    pub ended: tokio::task::JoinHandle<()>,
}

pub async fn start(dir: &Path, settings: impl FnOnce(&mut FileSettings)) -> Running {
    let mut file = FileSettings { dir: dir.join("out"), ..FileSettings::default() };
    settings(&mut file);
    let stop = CancellationToken::new();
    let (var_dir, token) = (dir.join("var"), stop.clone());
    let figures = Arc::new(Figures::default());
    let (limits, own_figures) = (Limits::default(), figures.clone());
    let starting =
        move || FileOutput::start(&file, &var_dir, limits, &token, own_figures, None, false).unwrap();
    let output = tokio::task::spawn_blocking(starting).await.unwrap();
    let listen = ListenSettings { addr: "127.0.0.1:0".into(), ..ListenSettings::default() };
    let budget = Budget::new(listen.memory.0);
    let options = ReceiverOptions::new(&listen, &NodeSettings::default(), "outputter", budget);
    let receiver = Receiver::bind(options).await.unwrap();
    let (order, addr) = (output.order(), receiver.local_addr());
    let (packs, packs_taken) = mpsc::channel(16);
    let receiving = tokio::spawn(receiver.run(packs, stop.clone()));
    let (token, hops) = (stop.clone(), HopStamp::new(addr.ip(), jiff::tz::TimeZone::UTC));
    let ended = tokio::spawn(async move {
        output.run(packs_taken, hops, token).await;
        receiving.await.unwrap();
    });
    let order_figures = Box::new(move || commit::lock(&order).figures());
    Running { addr: addr.to_string(), figures, order_figures, stop, ended }
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.ended).await.expect("stops within 10 s").unwrap();
    }
}

/// A tailer's end of the link.
pub struct Client {
    sender: Sender,
    settled: mpsc::UnboundedReceiver<Settled>,
    tickets: u64,
    _stop: tokio_util::sync::DropGuard,
}

impl Client {
    pub fn new(addr: &str) -> Client {
        let stop = CancellationToken::new();
        let backoff_max = Interval::ms(300);
        let settings = SendSettings { to: vec![addr.to_owned()], backoff_max, ..SendSettings::default() };
        let options = SenderOptions { settings, node: "web-1".into(), role: "tailer" };
        let (sender, settled) = Sender::start(options, stop.clone());
        Client { sender, settled, tickets: 0, _stop: stop.drop_guard() }
    }

    pub async fn submit(&mut self, pack: &Pack) {
        self.tickets += 1;
        let (header, body) = (pack.encode_header(), pack.body.clone());
        let stream = identity(pack).stream;
        self.sender.submit(Outgoing { ticket: self.tickets, stream, apart: false, header, body }).await;
    }

    pub async fn outcome(&mut self) -> Outcome {
        tokio::time::timeout(TIMEOUT, self.settled.recv()).await.expect("an answer in time").unwrap().outcome
    }

    pub async fn deliver(&mut self, packs: impl Iterator<Item = &Pack>) -> Vec<Outcome> {
        let mut count = 0;
        for pack in packs {
            self.submit(pack).await;
            count += 1;
        }
        let mut outcomes = Vec::new();
        for _ in 0..count {
            outcomes.push(self.outcome().await);
        }
        outcomes
    }
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

pub fn folders_in(dir: &Path) -> Folders {
    Folders::new(&dir.join("out"))
}
