//! `quarantine list` and `quarantine send`: packs that a node could not deliver, and another try.

mod send;

use crate::{Output, Verdict, human};
use anyhow::Context;
use bytes::Bytes;
use logferry_node::quarantine::{FOLDER, Sidecar};
use logferry_pack::{BadPack, Header, Limits, Pack};
pub(crate) use send::{SendArgs, send};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// A node's var_dir, or the quarantine folder in it.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

/// As wide as what a node may have refused.
const LIMITS: Limits = crate::pack_inspect::LIMITS;

/// A file of the quarantine.
struct Quarantined {
    path: PathBuf,
    bytes: u64,
    /// What the `.json` beside it says; a node that was killed may have left none.
    sidecar: Option<Sidecar>,
}

#[derive(Serialize)]
struct Row {
    file: String,
    time: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    bytes: u64,
    /// Of the pack, as far as its header can be read.
    host: Option<String>,
    source: Option<String>,
    hour: Option<String>,
    id: Option<u64>,
    lines: Option<u64>,
    /// Why it is no sound pack; nothing when it is one, and may be sent again.
    fault: Option<String>,
}

pub(crate) fn list(args: &ListArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let files = quarantined(&args.dir)?;
    let rows: Vec<Row> = files.iter().map(Row::new).collect::<anyhow::Result<_>>()?;
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&rows)?)?;
    } else {
        if !rows.is_empty() {
            writeln!(output.out, "{}", table(&rows))?;
        }
        let bytes = human::bytes(rows.iter().map(|row| row.bytes).sum());
        writeln!(output.out, "{}: {} files, {bytes}", args.dir.display(), rows.len())?;
    }
    Ok(if rows.is_empty() { Verdict::Fine } else { Verdict::Problem })
}

/// All files of the quarantine, oldest first.
fn quarantined(dir: &Path) -> anyhow::Result<Vec<Quarantined>> {
    let inner = dir.join(FOLDER);
    let folder = if inner.is_dir() { inner.as_path() } else { dir };
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let bytes = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let sidecar = std::fs::read(path.with_extension("json")).ok();
        let sidecar = sidecar.and_then(|text| serde_json::from_slice(&text).ok());
        files.push(Quarantined { path, bytes, sidecar });
    }
    // Names begin with the time.
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

impl Quarantined {
    /// The pack in it, or what is wrong with it.
    fn pack(&self) -> anyhow::Result<Result<Pack, BadPack>> {
        let bytes =
            std::fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(Pack::parse(Bytes::from(bytes), &LIMITS).and_then(|pack| match sound(&pack) {
            Ok(()) => Ok(pack),
            Err(fault) => Err(fault),
        }))
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Checks the body, too.
fn sound(pack: &Pack) -> Result<(), BadPack> {
    logferry_pack::Decompressor::new().decompress(pack, &LIMITS, &mut Vec::new())
}

impl Row {
    fn new(file: &Quarantined) -> anyhow::Result<Row> {
        let (header, fault) = match file.pack()? {
            Ok(pack) => (Some(pack.header), None),
            Err(fault) => (None, Some(fault.to_string())),
        };
        let ours = header.as_ref().and_then(|header| header.ours.as_ref());
        let of_header = |value: fn(&Header) -> String| header.as_ref().map(value);
        let sidecar = file.sidecar.as_ref();
        Ok(Row {
            file: file.name(),
            time: sidecar.map(|sidecar| sidecar.time.clone()),
            reason: sidecar.map(|sidecar| sidecar.reason.clone()),
            note: sidecar.map(|sidecar| sidecar.note.clone()),
            bytes: file.bytes,
            host: ours.map(|ours| ours.host.to_string()).or_else(|| of_header(|header| header.ip.clone())),
            source: ours.map(|ours| ours.source.to_string()),
            hour: of_header(|header| header.hour.to_string()),
            id: header.as_ref().map(|header| header.id),
            lines: header.as_ref().map(|header| header.lines),
            fault,
        })
    }
}

fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["FILE", "REASON", "BYTES", "HOST", "SOURCE", "HOUR", "ID", "LINES", "PACK"]);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    for row in rows {
        table.add_row([
            row.file.clone(),
            text(&row.reason),
            human::bytes(row.bytes),
            text(&row.host),
            text(&row.source),
            text(&row.hour),
            number(row.id),
            number(row.lines),
            row.fault.clone().unwrap_or_else(|| "sound".to_owned()),
        ]);
    }
    table
}
