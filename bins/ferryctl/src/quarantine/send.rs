//! Sends the sound packs of a quarantine as back-filled ones: the store writes what it lacks of them, and no more.

use super::{Quarantined, quarantined};
use crate::{Output, Verdict};
use anyhow::Context;
use logferry_link::{Outcome, Outgoing, Sender, SenderOptions, Settled};
use logferry_node::config::{Interval, Mode, SendSettings};
use logferry_pack::StreamId;
use std::path::PathBuf;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

#[derive(clap::Args)]
pub(crate) struct SendArgs {
    /// A node's var_dir, or the quarantine folder in it.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A collector or an outputter, "host:port".
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// Only files with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Give up when nothing was answered for this time.
    #[arg(long, default_value = "60s")]
    timeout: Interval,
}

/// What became of the files.
#[derive(Default)]
struct Totals {
    delivered: u64,
    kept: u64,
}

pub(crate) fn send(args: &SendArgs, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    logferry_node::config::rules::address(&args.to).map_err(|error| anyhow::anyhow!("--to {error}"))?;
    let mut files = quarantined(&args.dir)?;
    if let Some(reason) = &args.reason {
        files.retain(|file| file.sidecar.as_ref().is_some_and(|sidecar| sidecar.reason == *reason));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let totals = runtime.block_on(send_all(args, files, output))?;
    writeln!(output.err, "{} delivered, {} kept", totals.delivered, totals.kept)?;
    Ok(if totals.kept == 0 { Verdict::Fine } else { Verdict::Problem })
}

async fn send_all(
    args: &SendArgs,
    files: Vec<Quarantined>,
    output: &mut Output<'_>,
) -> anyhow::Result<Totals> {
    let settings = SendSettings { to: vec![args.to.clone()], mode: Mode::Single, ..Default::default() };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    // Whoever receives knows two kinds of peers; what a tool sends was made by a tailer.
    let options = SenderOptions { settings, node: "ferryctl".to_owned(), role: "tailer" };
    let (sender, mut settled) = Sender::start(options, stop);
    let mut totals = Totals::default();
    for (ticket, file) in (1..).zip(files) {
        let mut pack = match file.pack()? {
            Ok(pack) => pack,
            Err(fault) => {
                writeln!(output.err, "{}: kept, no sound pack: {fault}", file.name())?;
                totals.kept += 1;
                continue;
            }
        };
        pack.header.repull = true;
        // Over protocol v2 nobody takes packs as legacy nodes make them.
        pack.adopt(&super::LIMITS)?;
        let stream = pack.header.ours.as_ref().map_or(StreamId(0), |ours| ours.identity.stream);
        let outgoing =
            Outgoing { ticket, stream, apart: false, header: pack.encode_header(), body: pack.body };
        // One at a time: no more than one pack is in memory, and the next answer is its own.
        sender.submit(outgoing).await;
        let answer = next_answer(args, &sender, &mut settled).await?;
        finish(&file, &answer.outcome, &mut totals, output)?;
    }
    Ok(totals)
}

async fn next_answer(
    args: &SendArgs,
    sender: &Sender,
    settled: &mut UnboundedReceiver<Settled>,
) -> anyhow::Result<Settled> {
    match tokio::time::timeout(args.timeout.0, settled.recv()).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => anyhow::bail!("the link to {} ended", args.to),
        Err(_) => {
            let cause = sender.health().last_error.unwrap_or_else(|| "it is busy".to_owned());
            anyhow::bail!("no answer from {} within {}: {cause}", args.to, args.timeout)
        }
    }
}

/// Deletes what was delivered, and says why something was not.
fn finish(
    file: &Quarantined,
    outcome: &Outcome,
    totals: &mut Totals,
    output: &mut Output<'_>,
) -> anyhow::Result<()> {
    let kept = match outcome {
        Outcome::Ok | Outcome::Duplicate => None,
        Outcome::Rejected { reason } => Some(format!("refused: {reason}")),
        Outcome::Conflict(_) => Some("the store has other bytes in its place".to_owned()),
    };
    match kept {
        Some(why) => {
            totals.kept += 1;
            writeln!(output.err, "{}: kept, {why}", file.name())?;
        }
        None => {
            totals.delivered += 1;
            std::fs::remove_file(&file.path)
                .with_context(|| format!("{} was delivered, but cannot be deleted", file.path.display()))?;
            // There may be none.
            let _ = std::fs::remove_file(file.path.with_extension("json"));
            let already = if *outcome == Outcome::Duplicate { ", the store had it already" } else { "" };
            writeln!(output.out, "{}: delivered{already}", file.name())?;
        }
    }
    Ok(())
}
