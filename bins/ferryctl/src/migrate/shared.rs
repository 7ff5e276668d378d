//! What all roles have: the tables `[node]`, `[listen]` and `[send]`, and the remarks at the head and the end.

use super::draft::Draft;
use super::ini::{Entry, Ini};
use std::path::{Path, PathBuf};
use toml::Value;

/// Where legacy programs keep their state, beside themselves.
const LEGACY_VAR: &str = "var";
/// The most connections to a target that a sender of ours has.
const CONNECTIONS_MAX: u64 = 64;
/// Sections that every node has.
const COMMON: [&str; 2] = ["logAgent", "monitor"];

/// Where a role stands among those of its file, which may all run on one host.
#[derive(Clone)]
pub(super) struct Place {
    /// Name of its configuration and its folder: `outputter`, or `outputter-fcollector` if there are several.
    pub(super) name: String,
    /// Roles of the file before it,
    pub(super) before: u16,
    /// and those of them that become the same program.
    pub(super) alike_before: u16,
}

/// The legacy file, of which keys are taken one by one.
pub(super) struct Source<'a> {
    role: &'static str,
    sections: &'static [&'static str],
    ini: Ini,
    file: &'a Path,
    folder: PathBuf,
    protocol: &'a str,
    place: Place,
    /// Outputs that not every build has are not written as comments.
    pub(super) with_features: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        role: &'static str,
        sections: &'static [&'static str],
        args: &'a super::Args,
        ini: Ini,
        place: Place,
        with_features: bool,
    ) -> Source<'a> {
        let absolute = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        Source {
            role,
            sections,
            ini,
            file: &args.file,
            folder,
            protocol: &args.protocol,
            place,
            with_features,
        }
    }

    /// A key of the role's section, or of another one.
    pub(super) fn take(&mut self, section: &str, key: &str) -> Option<String> {
        self.ini.take(section, key).map(|entry| entry.value).filter(|value| !value.is_empty())
    }

    pub(super) fn has(&self, section: &str) -> bool {
        self.ini.has(section)
    }

    /// A folder of its own where a program of ours keeps things.
    pub(super) fn folder(&self) -> String {
        format!("/var/lib/logferry/{}", self.place.name)
    }

    /// A path of the legacy file; a relative one is taken from the folder of that file.
    pub(super) fn path(&self, text: &str) -> String {
        // `join` keeps an absolute path.
        self.folder.join(text).display().to_string()
    }

    /// The head, and `[node]` of a program of ours.
    pub(super) fn begin(&mut self, program: &str) -> Draft {
        let mut draft = Draft::default();
        let (file, role) = (self.file.display(), self.role);
        draft.remark(&format!("{program}.toml, made of {file} (role {role}) by `ferryctl migrate-config`."));
        draft.remark("Relative paths were taken from the folder of that file. docs/legacy.md says in which order to move over.");
        draft.table("[node]");
        draft.remark("name = \"…\"    # default: the host name. Legacy nodes are known by their address.");
        draft.set("var_dir", self.folder());
        let port = match program {
            "tailer" => 9311,
            "collector" => 9312,
            "outputter" => 9313,
            _ => 9314,
        };
        draft.set_with(
            "admin",
            format!("127.0.0.1:{}", port + 10 * self.place.alike_before),
            "admin: /metrics, /healthz and /readyz, of which the legacy nodes had none.",
        );
        self.monitor(&mut draft);
        self.logging(&mut draft);
        draft
    }

    fn monitor(&mut self, draft: &mut Draft) {
        let log_addr = self.take("logAgent", "tcp_addr");
        if let Some(addr) = self.take("monitor", "mon_addr").or(log_addr) {
            draft.set_with(
                "monitor",
                address(&addr),
                "monitor: gets warnings and errors, too; a legacy one does as well.",
            );
        }
        if let Some(port) = self.take("monitor", "hb_port") {
            let shared = address(&port);
            match next_port(&shared, self.place.before) {
                Some(own) if own != shared => draft.set_with(
                    "heartbeat",
                    own,
                    &format!(
                        "heartbeat: hb_port was {port} for all roles of the file; several on one host need a port each."
                    ),
                ),
                Some(own) => draft.set("heartbeat", own),
                None => draft.remark(&format!("heartbeat: hb_port was {port:?}; set one that no other node of the host has.")),
            }
        }
    }

    fn logging(&mut self, draft: &mut Draft) {
        if let Some(level) = self.take("logAgent", "local_level") {
            let ours = match level.to_ascii_lowercase().as_str() {
                "debug" => "debug",
                "warn" | "warning" => "warn",
                "error" => "error",
                _ => "info",
            };
            draft.set_with("log_level", ours, &format!("log_level: local_level was {level:?}."));
        }
        if let Some(dir) = self.take("logAgent", "local_dir") {
            draft.remark(&format!(
                "No counterpart: local_dir = {dir:?}. A program of ours logs to standard error, which systemd keeps in its journal."
            ));
        }
        if let Some(level) = self.take("logAgent", "tcp_level") {
            draft.remark(&format!(
                "No counterpart: tcp_level = {level:?}. Warnings and errors go to the monitor, others do not."
            ));
        }
    }

    /// `[listen]`, for legacy peers as well.
    pub(super) fn listen(&mut self, draft: &mut Draft, section: &str, default: &str) {
        let listen = self.take(section, "listen");
        draft.table("[listen]");
        if listen.is_none() && self.place.alike_before > 0 {
            draft.remark(&format!(
                "addr: {default} is the default of several roles of the file; on one host each needs its own."
            ));
        }
        draft.set("addr", address(listen.as_deref().unwrap_or(default)));
        draft.set_with(
            "v1",
            true,
            "v1: takes packs of legacy nodes beside those of ours. A pack is on the disk before it is answered \"ok\".",
        );
        let footprint = self.path(&format!("{LEGACY_VAR}/footprint.json"));
        let why = "v1_footprint: what the legacy node had seen is not stored again. It saves the file when it ends, so stop it first.";
        draft.remark(why);
        if Path::new(&footprint).is_file() {
            draft.set("v1_footprint", footprint);
        } else {
            draft.remark(&format!(
                "It is not at {footprint}; copy it to node.var_dir, or say where it is: v1_footprint = \"…\""
            ));
        }
    }

    /// `[send]`.
    pub(super) fn send(&mut self, draft: &mut Draft, section: &str) {
        let to = self.take(section, "send_to").unwrap_or_default();
        let to: Vec<Value> =
            to.split([',', ' ']).filter(|addr| !addr.is_empty()).map(|addr| address(addr).into()).collect();
        let mode = if to.len() > 1 { "failover" } else { "single" };
        draft.table("[send]");
        draft.set("to", Value::Array(to));
        draft.set_with(
            "mode",
            mode,
            "mode: failover is primary and backup, and goes back to the primary as soon as that is healthy.",
        );
        let why = match self.protocol {
            "v1" => {
                "protocol: v1 reaches legacy nodes, and ours with listen.v1; take v2 (faster, with checksums) once the target is one of ours."
            }
            _ => "protocol: v2 reaches nodes of ours only.",
        };
        draft.set_with("protocol", self.protocol, why);
        if let Some(senders) = self.take(section, "senders") {
            match senders.parse::<u64>() {
                Ok(number @ 1..) if self.protocol == "v1" => {
                    let number = i64::try_from(number.min(CONNECTIONS_MAX)).unwrap_or(1);
                    draft.set_with("v1_connections", number, &format!("v1_connections: senders was {senders}."));
                }
                _ => draft.remark(&format!(
                    "No counterpart: senders = {senders}. One connection of protocol v2 has many packs on their way (send.window)."
                )),
            }
        }
    }

    /// The end: keys that were not understood.
    pub(super) fn finish(self, mut draft: Draft) -> String {
        let sections: Vec<&str> = self.sections.iter().chain(&COMMON).copied().collect();
        let rest: Vec<&Entry> = self.ini.rest(&sections).collect();
        if !rest.is_empty() {
            draft.remark("");
            for Entry { section, key, value, line } in rest {
                draft.remark(&format!("No counterpart (line {line}): [{section}] {key} = {value}"));
            }
        }
        draft.finish()
    }
}

/// `1302`, `:1302` and `host:1302` as `host:port`.
pub(super) fn address(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix(':').unwrap_or(text) {
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("0.0.0.0:{port}"),
        _ => text.to_owned(),
    }
}

/// An address with a port some numbers on; none where there is no such port.
fn next_port(address: &str, by: u16) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    Some(format!("{host}:{}", port.parse::<u16>().ok()?.checked_add(by)?))
}
