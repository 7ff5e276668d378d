//! How far `etl run` is: a bar on a terminal, a line now and then elsewhere.

use crate::human;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use logferry_etl::counts::Counts;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The bar, or the lines.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    bytes: u64,
    told: Instant,
}

impl Bar {
    /// For files of `bytes` together.
    pub(crate) fn new(bytes: u64) -> Bar {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
            let style = "{bar:30} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}";
            // The template is a constant: the default stands in if it were bad.
            bar.with_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Bar { bar, bytes, told: Instant::now() }
    }

    /// `taken` bytes are done, and that is what became of their lines.
    pub(crate) fn show(&mut self, taken: u64, counts: &Counts, err: &mut dyn Write) {
        if let Some(bar) = &self.bar {
            bar.set_message(summary(counts));
            bar.set_position(taken);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            // Nobody reads it: no reason to stop.
            let _ =
                writeln!(err, "{} of {}: {}", human::bytes(taken), human::bytes(self.bytes), summary(counts));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `120 lines, 100 rows, 12 dropped, 8 rejected`.
pub(crate) fn summary(counts: &Counts) -> String {
    let dropped = counts.dropped_program + counts.dropped_host + counts.dropped_ip + counts.blank;
    format!("{} lines, {} rows, {dropped} dropped, {} rejected", counts.lines, counts.rows, counts.rejected)
}
