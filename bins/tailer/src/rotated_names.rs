//! What the names of a file and of its copies have in common, so that one is looked up by the other and not among all that begin alike.

use crate::unpack::plain_path;
use std::path::Path;

/// What stands between a name and the number or time of a rotation, and within that.
pub const SEPARATORS: [char; 5] = ['.', '-', '_', '+', ':'];

/// Whether this is, between two separators, part of the number or time of a rotation.
pub fn is_stamp_part(part: &str) -> bool {
    part.is_empty()
        || part.starts_with(|first: char| first.is_ascii_digit())
        || ["old", "bak", "prev"].contains(&part)
}

/// The name of a file, before it was compressed.
pub fn plain_name(path: &Path) -> Option<String> {
    plain_path(path).file_name().map(|name| name.to_string_lossy().into_owned())
}

/// What the name of every copy of a file begins with: its own without the number of a rotation and without its ending.
pub fn root_of(name: &str) -> &str {
    let base = match name.rsplit_once('.') {
        Some((base, number)) if is_stamp_part(number) => base,
        _ => name,
    };
    base.rsplit_once('.').map_or(base, |(stem, _)| stem)
}

/// The [`root_of`] every file that one of this name may be a copy of; the longest first.
pub fn roots_of_copy(name: &str) -> impl Iterator<Item = &str> {
    let inside = name.char_indices().rev().filter(|(_, letter)| SEPARATORS.contains(letter));
    std::iter::once(name).chain(inside.map(|(at, _)| &name[..at]))
}

/// Names of files that one of this name may be a copy of, if nothing but a number or time was added: `app.log.1` and `app-1.log` are of
/// `app.log`.
pub fn originals_of(name: &str) -> impl Iterator<Item = String> {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    roots_of_copy(name).flat_map(move |root| {
        let with_ending = ending.map(|ending| format!("{root}.{ending}")).filter(|own| own != name);
        std::iter::once(root.to_owned()).chain(with_ending)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_of_a_copy_are_named_by_what_a_rotation_adds() {
        let of = |name: &str, own: &str| originals_of(name).any(|original| original == own);
        assert!(
            of("app.log.1", "app.log") && of("app.log-20261121", "app.log") && of("app-1.log", "app.log")
        );
        assert!(!of("app10.log", "app1.log") && originals_of("app.log.1").count() <= 6);
    }
}
