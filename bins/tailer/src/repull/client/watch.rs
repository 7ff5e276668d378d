//! What the operator sees of a repull: a progress bar, or lines where stderr is no terminal; then what became of it.

use crate::repull::request::{Progress, State};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Asks until it is over.
pub(super) fn to_the_end(
    begun: Progress,
    ask: impl Fn(&str) -> anyhow::Result<Progress>,
) -> anyhow::Result<Progress> {
    let mut display = Display::new(&begun);
    let mut progress = begun;
    while !progress.is_over() {
        std::thread::sleep(ASK_EVERY);
        progress = ask(&progress.id)?;
        display.show(&progress);
    }
    display.end();
    Ok(progress)
}

enum Display {
    Bar(ProgressBar),
    Lines { began: Instant, next: Instant },
}

impl Display {
    fn new(begun: &Progress) -> Display {
        let now = Instant::now();
        if !io::stderr().is_terminal() {
            return Display::Lines { began: now, next: now + LINE_EVERY };
        }
        let bar = ProgressBar::new(0).with_prefix(begun.host.clone());
        let template = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Display::Bar(bar)
    }

    fn show(&mut self, progress: &Progress) {
        match self {
            Display::Bar(bar) => {
                bar.set_length(progress.bytes_total);
                bar.set_position(progress.bytes_done);
                bar.set_message(if progress.state == State::Waiting { "(waits for others)" } else { "" });
            }
            Display::Lines { began, next } if *next <= Instant::now() => {
                *next = Instant::now() + LINE_EVERY;
                let _ = writeln!(io::stderr(), "{}", line(progress, began.elapsed()));
            }
            Display::Lines { .. } => {}
        }
    }

    fn end(&mut self) {
        if let Display::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(progress: &Progress, elapsed: Duration) -> String {
    let (done, total) = (progress.bytes_done, progress.bytes_total);
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = if rate > 0.0 {
        format!(", {:.0} s left", (total - done.min(total)) as f64 / rate)
    } else {
        String::new()
    };
    format!(
        "{}: {} of {}, {}/s{left}",
        progress.host,
        HumanBytes(done),
        HumanBytes(total),
        HumanBytes(rate as u64)
    )
}

/// The result.
pub(super) fn report(progress: &Progress, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(progress)?)?;
        return Ok(());
    }
    let Progress { id, host, bytes_done, packs_taken, packs_there, .. } = progress;
    let end = if progress.state == State::Cancelled { "was cancelled" } else { "is over" };
    writeln!(
        out,
        "repull {id} of {host} {end}: {} shipped, {packs_taken} packs with something new, {packs_there} that were there",
        HumanBytes(*bytes_done)
    )?;
    for problem in &progress.problems {
        writeln!(out, "NOT SHIPPED: {problem}")?;
    }
    if progress.problems_more > 0 {
        writeln!(out, "… and {} more", progress.problems_more)?;
    }
    Ok(())
}
