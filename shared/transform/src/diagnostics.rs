//! The compiler's findings as lines that an editor can jump to.

use vrl::diagnostic::{Diagnostic, DiagnosticList};

/// One paragraph for each error: `FILE:LINE:COLUMN: what`, the line itself with a mark under it, and what helps.
pub(crate) fn readable(name: &str, source: &str, found: &DiagnosticList) -> String {
    found
        .iter()
        .filter(|diagnostic| diagnostic.is_problem())
        .map(|diagnostic| paragraph(name, source, diagnostic))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `LINE:COLUMN` of a byte of `source`, both from 1, the column in characters.
pub(crate) fn place(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at.min(source.len())).unwrap_or(source);
    let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_begins..].chars().count() + 1)
}

fn paragraph(name: &str, source: &str, diagnostic: &Diagnostic) -> String {
    let message = diagnostic.message();
    let labels = diagnostic.labels();
    let first = labels.iter().find(|label| label.primary).or(labels.first());
    let mut text = match first {
        None => format!("{name}: {message}"),
        Some(label) => {
            let (line, column) = place(source, label.span.start());
            let shown = source.lines().nth(line - 1).unwrap_or("");
            let mark = format!("{}^ {}", " ".repeat(column - 1), label.message);
            format!("{name}:{line}:{column}: {message}\n    {shown}\n    {mark}")
        }
    };
    for label in labels.iter().filter(|label| Some(*label) != first) {
        text.push_str("\n    ");
        text.push_str(&label.message);
    }
    let notes = diagnostic.notes().iter().map(ToString::to_string).filter(|note| !note.trim().is_empty());
    for note in notes {
        text.push_str("\n    ");
        text.push_str(note.trim_end());
    }
    text
}
