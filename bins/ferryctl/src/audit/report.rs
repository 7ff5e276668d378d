//! An audit for people.

use super::{Compared, Difference, NotAudited, Place};
use std::io::{self, Write};

pub(super) fn print(compared: &[Compared], out: &mut dyn Write) -> io::Result<()> {
    let (audited, others): (Vec<&Compared>, Vec<&Compared>) =
        compared.iter().partition(|source| source.not_audited.is_none());
    if !audited.is_empty() {
        writeln!(out, "{}", table(&audited))?;
    }
    for source in audited {
        let name = format!("{} {} {}", source.node, source.source, source.hour);
        for difference in &source.differences {
            writeln!(out, "{name}: {}", sentence(difference))?;
        }
        if source.differences_more > 0 {
            writeln!(out, "{name}: … and {} more", source.differences_more)?;
        }
        for problem in &source.problems {
            writeln!(out, "{name}: NOT COMPARED: {problem}")?;
        }
    }
    for Compared { node, source, hour, not_audited, .. } in others {
        match not_audited {
            Some(NotAudited::Unknown) => writeln!(
                out,
                "{source}: not audited: the store has {node} {source} {hour}, and this tailer has no source of that name. Audit it with the \
                 tailer that ships it (--admin), or, if none can be asked (a --stdin job, a source that is no more), leave it out: \
                 --leave-out {source}"
            )?,
            Some(NotAudited::LeftOut) => writeln!(out, "{source}: left out, not audited")?,
            Some(NotAudited::Input) | None => writeln!(out, "{source}: input, not audited")?,
        }
    }
    Ok(())
}

fn table(compared: &[&Compared]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["SOURCE", "EQUAL", "SIDE", "LINES", "BYTES", "SUM"]);
    for source in compared {
        let equal = match (source.equal, source.problems.is_empty()) {
            (true, true) => "yes",
            (false, true) => "NO",
            (_, false) => "UNKNOWN",
        };
        for (side, totals) in [("host", source.host), ("store", source.store)] {
            let (name, equal) = if side == "host" { (source.source.as_str(), equal) } else { ("", "") };
            let (lines, bytes) = (totals.lines.to_string(), totals.bytes.to_string());
            table.add_row([name, equal, side, &lines, &bytes, &totals.sum_text()]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn sentence(difference: &Difference) -> String {
    match difference {
        Difference::Missing { host } => format!("MISSING at the store: {}", at(host)),
        Difference::Doubled { store } => format!("DOUBLED at the store: {}", at(store)),
        Difference::Different { host, store } => {
            format!("DIFFERENT: the host has {}, the store has others there: {}", at(host), at(store))
        }
        Difference::Foreign { store } => format!("FOREIGN: the host does not have {}", at(store)),
        Difference::AbsentAtStore { file, host } => {
            let places: Vec<String> = host.iter().map(at).collect();
            format!("ABSENT at the store: there is no {}; the host has {}", file.display(), places.join(", "))
        }
        Difference::AbsentAtHost => "ABSENT at the host: it knows nothing of the hour".to_owned(),
        Difference::Unreadable { what } => format!("UNREADABLE at the store: {what}"),
        Difference::Totals => "DIFFERENT: there are too many lines to compare one by one".to_owned(),
    }
}

fn at(place: &Place) -> String {
    let lines = if place.lines == 1 { "line" } else { "lines" };
    format!("{} {lines}, bytes {}-{} of {}", place.lines, place.from, place.to, place.file.display())
}
