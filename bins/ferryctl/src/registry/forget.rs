//! `nodes --forget`: nodes that are gone for good.

use super::{Answer, From, asked, one_line};
use crate::{Output, Verdict};
use anyhow::Context;
use logferry_monitor::registry::Forgotten;
use logferry_monitor::web::{Refused, query_text};

/// Each name is judged by itself; the worst of them is the exit status.
pub(super) fn forget(
    from: &From,
    names: &[String],
    force: bool,
    output: &mut Output<'_>,
) -> anyhow::Result<Verdict> {
    let (mut verdict, mut forgotten) = (Verdict::Fine, Vec::new());
    for name in names {
        match ask(from, name, force)? {
            Ok(node) => forgotten.push(node),
            Err(refused) => verdict = verdict.and(complain(name, &refused, output)?),
        }
    }
    if from.json {
        writeln!(output.out, "{}", serde_json::to_string_pretty(&forgotten)?)?;
        return Ok(verdict);
    }
    for node in &forgotten {
        let [id, role, name, addr] =
            [&node.id, &node.role, &node.name, &node.addr].map(|text| one_line(text));
        let (state, note) = (node.state.word(), one_line(&node.note));
        writeln!(output.out, "{name} ({role} at {addr}, id {id}, was {state}) is forgotten; {note}")?;
    }
    Ok(verdict)
}

fn ask(from: &From, name: &str, force: bool) -> anyhow::Result<Result<Forgotten, Refused>> {
    let path = format!("/api/nodes/{}", query_text(name));
    let Answer { addr, code, body, .. } =
        asked(from, &path, |agent, url| agent.delete(url).query("force", force.to_string()))?;
    let unlike = || format!("{addr} answered {code}, but not as a monitor does that can forget nodes");
    match code {
        200 => serde_json::from_str(&body).with_context(unlike).map(Ok),
        _ => serde_json::from_str(&body).with_context(unlike).map(Err),
    }
}

fn complain(name: &str, refused: &Refused, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let hint = if refused.reason == "alive" { " (--force)" } else { "" };
    writeln!(output.err, "error: {}: {}{hint}", one_line(name), one_line(&refused.error))?;
    for namesake in &refused.namesakes {
        writeln!(output.err, "  {}", one_line(namesake))?;
    }
    Ok(match refused.reason.as_str() {
        "unknown" | "ambiguous" => Verdict::Usage,
        _ => Verdict::Problem,
    })
}
