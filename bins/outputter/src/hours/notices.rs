//! What `/readyz` says of the books: hooks that fail, and hours of which nobody can know whether they are whole.

use super::books::Books;
use super::hooks::{Failing, HookKind, HookQueue};
use crate::figures::Figures;
use std::collections::BTreeMap;

/// Where hours are shown of which nobody knows whether they are whole.
const VAGUE: &str = "vague hours";

/// Whoever waits for what a hook does is to find out why it is not done.
pub fn tell_of_hooks(
    figures: &Figures,
    hooks: &HookQueue,
    kinds: &[HookKind],
    errors: &BTreeMap<HookKind, String>,
) {
    for kind in kinds {
        let subject = format!("hooks {}", kind.label());
        let Some(failing) = hooks.failing(*kind) else {
            figures.clear_notice(&subject);
            continue;
        };
        let Failing { waiting, failed, hour, failures } = failing;
        let error = errors.get(kind).map_or("", String::as_str);
        let text = format!(
            "hooks ({}): {failed} of {waiting} that wait have failed, that of {hour} {failures} times; the last error: {error}",
            kind.label()
        );
        figures.set_notice(&subject, text);
    }
}

/// No repull is asked for such hours any more, so somebody has to look.
pub fn tell_of_vague_hours(figures: &Figures, books: &Books) {
    let mut vague = books.vague();
    let Some(hour) = vague.next() else { return figures.clear_notice(VAGUE) };
    let text = format!(
        "of {} hours, such as {hour}, more streams or pieces came than are told apart: whether repulls have brought all of them is not \
         known, and no more are asked for; compare them with their hosts' files (ferryctl audit)",
        1 + vague.count()
    );
    if figures.set_notice(VAGUE, text.clone()) {
        tracing::warn!("{text}");
    }
}
