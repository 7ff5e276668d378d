//! Names that may become a component of a path.

use crate::{BadPack, NameFault};
use std::fmt;

/// A host or source name that is safe as one component of a path: 1 to 255 bytes of UTF-8, no `/`, NUL or
/// control character, not `.` or `..`.
///
/// Characters that change the direction of writing or break lines are refused with the control characters: they
/// would make a listing show another name than the one on disk.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// Longest name, in bytes: what Linux file systems take as one component.
const NAME_BYTES_MAX: usize = 255;

impl Name {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`BadPack::BadName`] with what is wrong.
    pub fn new(text: impl Into<String>) -> Result<Name, BadPack> {
        Name::for_key("name", text.into())
    }

    /// Checks `text`, which is the value of `key`.
    pub(crate) fn for_key(key: &'static str, text: String) -> Result<Name, BadPack> {
        match fault(&text) {
            Some(fault) => Err(BadPack::BadName { key, fault }),
            None => Ok(Name(text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn fault(text: &str) -> Option<NameFault> {
    match text {
        "" => Some(NameFault::Empty),
        "." | ".." => Some(NameFault::Dots),
        _ if text.len() > NAME_BYTES_MAX => Some(NameFault::TooLong),
        _ if text.contains('/') => Some(NameFault::Slash),
        _ if text.contains('\0') => Some(NameFault::Nul),
        _ if text.chars().any(hides) => Some(NameFault::Control),
        _ => None,
    }
}

fn hides(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl TryFrom<String> for Name {
    type Error = BadPack;
    fn try_from(text: String) -> Result<Name, BadPack> {
        Name::new(text)
    }
}

impl std::str::FromStr for Name {
    type Err = BadPack;
    fn from_str(text: &str) -> Result<Name, BadPack> {
        Name::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(text: &str) -> NameFault {
        match Name::new(text) {
            Err(BadPack::BadName { fault, .. }) => fault,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn names_that_people_use_are_taken() {
        for text in
            ["web-1", "10.0.0.7", "fe80::1", "access.log", "...", "Zürich", "a b", "%2e%2e", &"x".repeat(255)]
        {
            assert_eq!(Name::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_that_could_leave_a_folder_or_hide_are_refused() {
        assert_eq!(fault_of(""), NameFault::Empty);
        assert_eq!(fault_of("."), NameFault::Dots);
        assert_eq!(fault_of(".."), NameFault::Dots);
        assert_eq!(fault_of("/etc"), NameFault::Slash);
        assert_eq!(fault_of("../../etc/passwd"), NameFault::Slash);
        assert_eq!(fault_of("web\0"), NameFault::Nul);
        assert_eq!(fault_of("web\n1"), NameFault::Control);
        assert_eq!(fault_of("web\u{7f}"), NameFault::Control);
        assert_eq!(fault_of("web\u{202e}gol"), NameFault::Control);
        assert_eq!(fault_of(&"x".repeat(256)), NameFault::TooLong);
        assert_eq!(fault_of(&"ü".repeat(128)), NameFault::TooLong);
    }
}
