//! Small curves of a node's last hour, as inline SVG: no script draws them.

use super::view::bytes;
use crate::registry::{SAMPLE_MS, SAMPLES_MAX, Sample};
use maud::{Markup, html};

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 48.0;
/// Room for the stroke.
const MARGIN: f64 = 2.0;

/// What a curve is drawn of.
type Figure = fn(&Sample) -> u64;

/// Rate, lag and spool of the last hour.
pub(super) fn curves(samples: &[Sample], now_ms: i64) -> Markup {
    let figures: [(&str, &str, Figure); 3] = [
        ("Rate", "/s", |sample| sample.rate_bytes),
        ("Waiting", "", |sample| sample.lag_bytes),
        ("Spool", "", |sample| sample.spool_bytes),
    ];
    html! {
        section aria-labelledby="hour" {
            h2 #hour { "The last hour" }
            @if samples.is_empty() { p { "Nothing was told yet." } }
            @else {
                div.curves { @for (name, unit, figure) in figures { (curve(name, unit, samples, figure, now_ms)) } }
            }
        }
    }
}

fn curve(name: &str, unit: &str, samples: &[Sample], figure: Figure, now_ms: i64) -> Markup {
    let most = samples.iter().map(figure).max().unwrap_or(0);
    let latest = samples.last().map_or(0, figure);
    let words =
        format!("{name}: now {}{unit}, at most {}{unit} in the last hour", bytes(latest), bytes(most));
    html! {
        figure {
            figcaption { strong { (name) } " " (bytes(latest)) (unit) small { " · at most " (bytes(most)) (unit) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(words) preserveAspectRatio="none" {
                line.base x1="0" x2=(WIDTH) y1=(HEIGHT - MARGIN) y2=(HEIGHT - MARGIN) {}
                @for part in parts(samples) {
                    polyline points=(points(part, figure, most, now_ms)) {}
                }
            }
        }
    }
}

/// Runs of samples without a gap: where nothing was told, nothing is drawn.
fn parts(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    samples.chunk_by(|one, next| next.unix_ms - one.unix_ms <= 2 * SAMPLE_MS)
}

fn points(samples: &[Sample], figure: Figure, most: u64, now_ms: i64) -> String {
    let span = SAMPLE_MS as f64 * SAMPLES_MAX as f64;
    let point = |unix_ms: i64, value: u64| {
        let x = WIDTH * (1.0 - ((now_ms - unix_ms) as f64 / span).clamp(0.0, 1.0));
        let share = if most == 0 { 0.0 } else { value as f64 / most as f64 };
        format!("{x:.1},{:.1}", HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN))
    };
    let mut points: Vec<String> =
        samples.iter().map(|sample| point(sample.unix_ms, figure(sample))).collect();
    // the last one goes on to its end, so that a single one is seen, too
    points.extend(
        samples
            .last()
            .map(|last| point((last.unix_ms + SAMPLE_MS).min(now_ms.max(last.unix_ms)), figure(last))),
    );
    points.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_stay_in_their_frame_and_gaps_are_gaps() {
        let sample =
            |minute: i64, rate_bytes| Sample { unix_ms: minute * 60_000, rate_bytes, ..Sample::default() };
        let samples = [sample(0, 5), sample(1, u64::MAX), sample(30, 0)];
        assert_eq!(parts(&samples).count(), 2);
        for part in parts(&samples) {
            for point in points(part, |sample| sample.rate_bytes, u64::MAX, 40 * 60_000).split(' ') {
                let (x, y) = point.split_once(',').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
        assert!(curves(&samples, 40 * 60_000).into_string().matches("<polyline").count() == 6);
    }
}
