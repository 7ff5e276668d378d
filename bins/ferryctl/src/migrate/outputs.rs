//! Roles that store: `fcollector`, `etlcollector` and `mgocollector` become outputters; and the monitor.

use super::draft::Draft;
use super::shared::{Source, address};
use std::fmt::Write;

const LISTEN: &str = "1306";

pub(super) fn files(mut source: Source<'_>) -> String {
    let mut draft = source.begin("outputter");
    source.listen(&mut draft, "fcollector", LISTEN);
    let dir = source.take("fcollector", "save_dir");
    file_table(&source, &mut draft, dir);
    source.finish(draft)
}

fn file_table(source: &Source<'_>, draft: &mut Draft, dir: Option<String>) {
    draft.table("[file]");
    draft.set_with(
        "dir",
        // an outputter whose one output this build does not have says none
        dir.map_or_else(|| format!("{}/store", source.folder()), |dir| source.path(&dir)),
        "dir: save_dir. log_data/, headers/ and received/ look as before for packs of legacy nodes; what is there stays as it is. \
         Books of hours that are not complete (log_received.json) are not taken over: they follow from the header files.",
    );
}

pub(super) fn etl(mut source: Source<'_>) -> String {
    const SECTION: &str = "etlcollector";
    let mut draft = source.begin("outputter");
    source.listen(&mut draft, SECTION, LISTEN);
    let dir = source.take(SECTION, "save_dir");
    let tables = source.path(&format!("{}/etl", dir.as_deref().unwrap_or("etl")));
    file_table(&source, &mut draft, dir);
    draft.remark("");
    draft.remark(
        "Tables of complete hours need an outputter that was built with --features etl (docs/storing.md).",
    );
    draft.is_comment = !source.with_features;
    draft.table("[etl]");
    draft.set("dir", tables);
    draft.set_with(
        "program",
        "/etc/logferry/etl/access.vrl",
        "program: what the legacy node derived from a line was fixed; here it is a program. deploy/etl/ has one for access logs, with its tests.",
    );
    for (theirs, ours) in [
        ("columns_file", "columns"),
        ("spider_list", "spider_list"),
        ("hosts_white_list", "hosts_white_list"),
        ("ip_black_list", "ip_black_list"),
    ] {
        if let Some(file) = source.take(SECTION, theirs) {
            draft.set(ours, source.path(&file));
        }
    }
    draft.set_with("format", "tsv", "format: parquet, tsv or ndjson.");
    draft.is_comment = false;
    source.finish(draft)
}

pub(super) fn mongodb(mut source: Source<'_>) -> String {
    const SECTION: &str = "mgocollector";
    let mut draft = source.begin("outputter");
    source.listen(&mut draft, SECTION, LISTEN);
    let with_features = source.with_features;
    if !with_features {
        draft.remark("");
        draft.remark("[file] is here because an outputter needs an output; remove it, or keep the lines beside the documents.");
        file_table(&source, &mut draft, None);
    }
    draft.remark("");
    draft.remark("Documents need an outputter that was built with --features mongodb (docs/storing.md).");
    draft.is_comment = !with_features;
    draft.table("[mongodb]");
    let mongos = source.take(SECTION, "mongos").unwrap_or_else(|| "localhost:27017".to_owned());
    let mongos: Vec<&str> = mongos.split([',', ' ']).filter(|host| !host.is_empty()).collect();
    let uri = mongos.join(",");
    draft.set("uri", if uri.starts_with("mongodb") { uri } else { format!("mongodb://{uri}") });
    draft.set("database", source.take(SECTION, "db").unwrap_or_else(|| "logs".to_owned()));
    draft.set("collection", source.take(SECTION, "collection").unwrap_or_else(|| "lines".to_owned()));
    let upsert = source
        .take(SECTION, "upsert")
        .is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    draft.set_with(
        "mode",
        if upsert { "upsert" } else { "insert" },
        "mode: upsert merges the documents of one transaction_id, as before; with insert a pack that comes twice changes nothing any more.",
    );
    draft.set("key", "transaction_id");
    draft.set("format", "logd_transaction");
    for (theirs, ours) in [("savers", "savers"), ("bulk_size", "bulk_size")] {
        match source.take(SECTION, theirs).map(|text| text.parse::<i64>().map_err(|_| text)) {
            Some(Ok(number)) => draft.set(ours, number),
            Some(Err(text)) => {
                draft.remark(&format!("{theirs} = {text:?} is no number: the default is used."))
            }
            None => {}
        }
    }
    draft.set_with("write_concern", "2", "write_concern: 2, as before; majority is the default here.");
    draft.remark("Documents that failed and lie as JSON files beside the legacy node are not taken over: let it store them before it ends.");
    draft.is_comment = false;
    source.finish(draft)
}

pub(super) fn monitor(mut source: Source<'_>) -> String {
    let mut draft = source.begin("monitor");
    draft.table("[listen]");
    let port = source.take("receiver", "recv_port").unwrap_or_else(|| "4040".to_owned());
    draft.set_with("addr", address(&port), "addr: nodes, legacy ones too.");
    draft.set_with("http", "127.0.0.1:8080", "http: the page; the legacy monitor had none.");
    draft.table("[database]");
    let mut take = |key: &str| source.take("receiver", key);
    let (host, port) = (take("db_host"), take("db_port").unwrap_or_else(|| "3306".to_owned()));
    let (user, password, database) = (take("db_uname"), take("db_passwd"), take("db_db"));
    draft.remark("url: the legacy tables stay as they are and go on being filled; tables of ours are added (deploy/sql).");
    match (host, user, database) {
        (Some(host), Some(user), Some(database)) => {
            let password = password.map(|password| format!(":{}", percent(&password))).unwrap_or_default();
            draft.set("url", format!("mysql://{}{password}@{host}:{port}/{}", percent(&user), percent(&database)));
        }
        _ => draft.remark("[receiver] does not say db_host, db_uname and db_db: without url a SQLite file in var_dir is used."),
    }
    if let Some(charset) = source.take("receiver", "db_charset") {
        draft.remark(&format!("No counterpart: db_charset = {charset}. The connection is utf8mb4."));
    }
    if let Some(text) = source.take("heart_beat", "check_interval") {
        draft.table("[check]");
        match text.parse::<u64>() {
            Ok(seconds) => draft.set("interval", format!("{seconds}s")),
            Err(_) => draft.remark(&format!(
                "check_interval = {text:?} is no number of seconds: the default of interval is used."
            )),
        }
    }
    source.finish(draft)
}

/// A part of a URL.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}
