//! `repull`: a tailer ships again what is asked for.

use crate::{Output, Verdict, status};
use anyhow::Context;
use logferry_node::admin::{Status, read_token};
use logferry_tailer::repull::client::{RunningNode, What, is_mistake};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the tailer's node.
    #[arg(long)]
    host: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    what: What,
}

/// How a node is reached.
#[derive(clap::Args)]
pub(crate) struct NodeArgs {
    /// Admin address of the tailer, "host:port", or its var_dir on this machine.
    #[arg(long, value_name = "ADDR")]
    admin: String,
    /// File with the node's token in its first line ([node] token_file).
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl NodeArgs {
    /// The node, which must have this name.
    pub(crate) fn find(&self, host: &str) -> anyhow::Result<RunningNode> {
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        let addr = status::resolve(&self.admin)?;
        let node = RunningNode { addr: addr.clone(), token };
        let status: Status = status::ask_status(&addr).with_context(|| format!("{addr} cannot be asked"))?;
        anyhow::ensure!(
            status.name == host && status.role == "tailer",
            "{addr} is the {} {}, not the tailer {host}",
            status.role,
            status.name
        );
        Ok(node)
    }
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let asked = args.what.request().and_then(|request| Ok((request, args.node.find(&args.host)?)));
    let (request, node) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            writeln!(output.err, "error: {error:#}")?;
            return Ok(Verdict::Usage);
        }
    };
    let is_complete = match node.repull(&request, args.what.json, output.out) {
        Err(error) if is_mistake(&error) => {
            writeln!(output.err, "error: {error:#}")?;
            return Ok(Verdict::Usage);
        }
        outcome => outcome?,
    };
    Ok(if is_complete { Verdict::Fine } else { Verdict::Problem })
}
