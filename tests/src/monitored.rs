//! A relay whose nodes speak to a monitor.

use crate::{Program, Relay, RelayOptions};
use logferry_node::monitor::message::{self, Fields};
use std::path::Path;

/// See the module. The monitor runs, the relay is not started yet.
pub struct Monitored {
    /// The relay.
    pub relay: Relay,
    /// The monitor, `monitor-1`.
    pub monitor: Program,
}

impl Monitored {
    /// Starts the monitor with `config` behind its `[listen]`, and tells all nodes of it.
    pub fn new(test: &str, options: &RelayOptions, config: &str) -> Monitored {
        let mut relay = Relay::new(test, options);
        let listen = "[listen]\naddr = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n";
        let mut monitor =
            Program::new(relay.dir.path(), "monitor-1", "logferry-monitor", &format!("{listen}{config}"));
        monitor.start_and_wait();
        let addr = read(&monitor.var_dir.join("listen.addr"));
        let told = format!(
            "admin = \"127.0.0.1:0\"\nmonitor = \"{addr}\"\nheartbeat = \"127.0.0.1:0\"\nheartbeat_interval = \"200ms\"\n"
        );
        for program in relay.programs() {
            let text = std::fs::read_to_string(&program.config).expect("configuration");
            std::fs::write(&program.config, text.replace("admin = \"127.0.0.1:0\"\n", &told))
                .expect("written");
        }
        Monitored { relay, monitor }
    }

    /// Address of a page.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", read(&self.monitor.var_dir.join("http.addr")))
    }

    /// What the monitor answers, as text.
    pub fn get(&self, path: &str) -> String {
        let mut answer = ureq::get(self.url(path)).call().expect("the monitor answers");
        answer.body_mut().read_to_string().expect("a body")
    }

    /// What the monitor answers, as JSON.
    pub fn api(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.get(path)).expect("JSON")
    }

    /// Sends messages as a node does; each is taken.
    pub fn tell(&self, messages: &[Fields]) {
        let addr = read(&self.monitor.var_dir.join("listen.addr"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(addr).await.expect("connected");
            for one in messages {
                message::write(&mut stream, one).await.expect("sent");
                let answer = message::read(&mut stream).await.expect("read").expect("an answer");
                assert_eq!(answer["err"], "0", "{answer:?}");
            }
        });
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).expect("an address").trim().to_owned()
}
