//! From the text of a path to its parts, and from parts to glob and regular expression.

use super::{Field, Part};
use regex::bytes::Regex;

/// What is wrong with a path.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PatternError {
    /// `<%Y…` without `>`.
    #[error("the time pattern \"{0}\" has no closing \">\"")]
    Open(String),
    /// A directive that is not known.
    #[error("\"{0}\" is not known in a time pattern, expected %Y %y %m %d %j %H or %M")]
    Directive(String),
    /// The year cannot be told.
    #[error("the time pattern has no year: add %Y or %y")]
    NoYear,
    /// The day cannot be told.
    #[error("the time pattern has no day: add %m and %d, or %j")]
    NoDay,
    /// Minutes without hours.
    #[error("the time pattern has %M without %H")]
    MinuteWithoutHour,
    /// Wildcards that are none.
    #[error("the wildcards are wrong: {0}")]
    Glob(String),
}

impl Field {
    fn of(letter: char) -> Option<Field> {
        Some(match letter {
            'Y' => Field::Year,
            'y' => Field::YearOfCentury,
            'm' => Field::Month,
            'd' => Field::Day,
            'j' => Field::DayOfYear,
            'H' => Field::Hour,
            'M' => Field::Minute,
            _ => return None,
        })
    }

    pub(super) fn digits(self) -> usize {
        match self {
            Field::Year => 4,
            Field::DayOfYear => 3,
            _ => 2,
        }
    }
}

/// Takes a path apart, and checks that its directives tell a time.
pub(super) fn parts(path: &str) -> Result<Vec<Part>, PatternError> {
    let mut parts = Vec::new();
    let mut rest = path;
    while let Some(open) = rest.find('<') {
        let (before, from) = rest.split_at(open);
        let inside = match from.find('>') {
            Some(close) => &from[1..close],
            None if from.contains('%') => return Err(PatternError::Open(from.to_owned())),
            None => break,
        };
        if !inside.contains('%') {
            // A name with angle brackets, not a pattern.
            push_glob(&mut parts, &rest[..=open]);
            rest = &rest[open + 1..];
            continue;
        }
        push_glob(&mut parts, before);
        directives(inside, &mut parts)?;
        rest = &from[inside.len() + 2..];
    }
    push_glob(&mut parts, rest);
    check(&parts)?;
    Ok(parts)
}

/// Pieces side by side become one, so that a class is in one piece.
fn push_glob(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Glob(before)) => before.push_str(text),
        _ => parts.push(Part::Glob(text.to_owned())),
    }
}

fn directives(inside: &str, parts: &mut Vec<Part>) -> Result<(), PatternError> {
    let mut text = String::new();
    let mut letters = inside.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let directive = letters.next();
        let field = directive.and_then(Field::of).ok_or_else(|| {
            PatternError::Directive(directive.map_or("%".to_owned(), |letter| format!("%{letter}")))
        })?;
        if !text.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut text)));
        }
        parts.push(Part::Field(field));
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text));
    }
    Ok(())
}

fn check(parts: &[Part]) -> Result<(), PatternError> {
    let has = |field| parts.contains(&Part::Field(field));
    if !parts.iter().any(|part| matches!(part, Part::Field(_))) {
        return Ok(());
    }
    if !has(Field::Year) && !has(Field::YearOfCentury) {
        return Err(PatternError::NoYear);
    }
    let has_day = has(Field::DayOfYear) || (has(Field::Month) && has(Field::Day));
    if !has_day {
        return Err(PatternError::NoDay);
    }
    if has(Field::Minute) && !has(Field::Hour) {
        return Err(PatternError::MinuteWithoutHour);
    }
    Ok(())
}

/// The glob of the parts, `fill` standing in for directives.
pub(super) fn glob(parts: &[Part], fill: impl Fn(Field) -> String) -> String {
    parts
        .iter()
        .map(|part| match part {
            Part::Glob(text) => text.clone(),
            Part::Literal(text) => glob::Pattern::escape(text),
            Part::Field(field) => fill(*field),
        })
        .collect()
}

/// The expression that a whole path matches, with a group for each directive.
pub(super) fn regex(parts: &[Part]) -> Result<Regex, PatternError> {
    let body: String = parts
        .iter()
        .map(|part| match part {
            Part::Glob(text) => glob_to_regex(text),
            Part::Literal(text) => regex::escape(text),
            Part::Field(field) => format!("([0-9]{{{}}})", field.digits()),
        })
        .collect();
    Regex::new(&format!("(?s-u)^{body}$")).map_err(|error| PatternError::Glob(error.to_string()))
}

fn glob_to_regex(glob: &str) -> String {
    let mut regex = String::new();
    let mut rest = glob;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**/") {
            regex.push_str("(?:.*/)?");
            rest = after;
            continue;
        }
        rest = &rest[letter.len_utf8()..];
        match letter {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => match class(rest) {
                Some((class, after)) => {
                    regex.push_str(&class);
                    rest = after;
                }
                // The glob is refused for it.
                None => regex.push_str("\\["),
            },
            letter => regex.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4]))),
        }
    }
    regex
}

/// A class after its `[`, and what comes behind it. A `]` right at the start belongs to the class.
fn class(rest: &str) -> Option<(String, &str)> {
    let (not, body) = match rest.strip_prefix('!') {
        Some(body) => ("^", body),
        None => ("", rest),
    };
    let first = body.chars().next()?.len_utf8();
    let end = first + body[first..].find(']')?;
    let letters: String = body[..end]
        .chars()
        .map(|letter| if "\\[]^&~".contains(letter) { format!("\\{letter}") } else { letter.to_string() })
        .collect();
    Some((format!("[{not}{letters}]"), &body[end + 1..]))
}
