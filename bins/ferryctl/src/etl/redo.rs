//! `etl redo`: a running outputter makes the tables of an hour again.

use crate::{Output, Verdict, status};
use anyhow::Context;
use logferry_node::admin::read_token;
use logferry_outputter::hours::redo::{Queued, Request};
use logferry_tailer::repull::client::RunningNode;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Admin address of the outputter, "host:port", or its var_dir on this machine.
    #[arg(long, value_name = "ADDR")]
    admin: String,
    /// File with the outputter's token in its first line ([node] token_file).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Source of the hour; none for hours of legacy nodes.
    #[arg(long, default_value = "")]
    source: String,
    /// Host of the hour.
    #[arg(long)]
    host: String,
    /// The hour, YYYYMMDDHH.
    #[arg(long)]
    hour: String,
}

pub(crate) fn redo(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let Ok(hour) = args.hour.parse() else {
        writeln!(output.err, "error: --hour {:?}: expected YYYYMMDDHH, such as 2026112013", args.hour)?;
        return Ok(Verdict::Usage);
    };
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let node = RunningNode { addr: status::resolve(&args.admin)?, token };
    let request = Request { source: args.source.clone(), host: args.host.clone(), hour };
    let text = node.ask("POST", "/etl/redo", Some(&serde_json::to_string(&request)?))?;
    let queued: Queued = serde_json::from_str(&text)
        .with_context(|| format!("{} does not answer as an outputter does", node.addr))?;
    writeln!(output.out, "{}: its tables are made again, of {}", queued.hour, queued.files.join(", "))?;
    Ok(Verdict::Fine)
}
