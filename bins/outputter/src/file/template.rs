//! The path template of log files: parsed once, expanded per pack, and never a way out of the folder.

use logferry_pack::StreamId;
use std::fmt;

/// Placeholders a template may hold.
pub const PLACEHOLDERS: [&str; 6] = ["source", "host", "hour", "day", "ip", "stream"];

/// Longest component of a path in bytes: what file systems take (255), less room for the suffix of a file that is being
/// rewritten beside the old one.
pub const COMPONENT_BYTES_MAX: usize = 255 - 15;

/// `~` and the digits of the hash of a shortened component.
const HASH_SUFFIX_BYTES: usize = 33;

/// A cut between two characters can fall this much before the limit.
const CHARACTER_SLACK_BYTES: usize = 3;

/// Most components of a path below the folder.
pub const COMPONENTS_MAX: usize = 16;

/// A parsed template: components, each a run of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    components: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Source,
    Host,
    Hour,
    Day,
    Ip,
    Stream,
}

/// What a template is filled with. Packs of legacy nodes have no host, source and stream: the address then
/// stands for the host.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// Source name.
    pub source: Option<&'a str>,
    /// Host name.
    pub host: Option<&'a str>,
    /// Address of the host, as the header has it: not trusted.
    pub ip: &'a str,
    /// `YYYYMMDDHH` as a number.
    pub hour: u32,
    /// Stream.
    pub stream: Option<StreamId>,
}

/// Why a template is no good.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadTemplate {
    /// `{what}` is no placeholder.
    #[error("unknown placeholder {{{0}}}; known are {{source}} {{host}} {{hour}} {{day}} {{ip}} {{stream}}")]
    Unknown(String),
    /// A brace without its partner.
    #[error("a brace without its partner in {0:?}")]
    Brace(String),
    /// Nothing that tells files apart, or an unsafe literal.
    #[error("{0}")]
    Unsafe(String),
}

/// Why a pack has no path: its names do not fit a file system. The reason label is for the sender.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}: {path:?}")]
pub struct BadPath {
    /// `path_unsafe`.
    pub reason: &'static str,
    /// What the template expanded to, shortened.
    pub path: String,
}

impl Template {
    /// Parses `{source}/{host}_{hour}` and the like. No two names may be in one component: a name may hold whatever is between them.
    pub fn parse(text: &str) -> Result<Template, BadTemplate> {
        let components = text.split('/').map(parse_component).collect::<Result<Vec<_>, _>>()?;
        if text.starts_with('/') || components.iter().any(Vec::is_empty) {
            return Err(BadTemplate::Unsafe(format!("{text:?} must be a relative path without empty parts")));
        }
        if components.len() > COMPONENTS_MAX {
            return Err(BadTemplate::Unsafe(format!("{text:?} has more than {COMPONENTS_MAX} parts")));
        }
        let literal = |component: &Vec<Piece>| match component.as_slice() {
            [Piece::Literal(text)] => !is_safe(text),
            _ => false,
        };
        if components.iter().any(literal) || text.contains('\0') {
            return Err(BadTemplate::Unsafe(format!("{text:?} holds a part that could leave the folder")));
        }
        let is_ambiguous = |component: &Vec<Piece>| {
            let names = [Piece::Source, Piece::Host, Piece::Ip];
            names.iter().filter(|name| component.contains(name)).count() > 1
        };
        if components.iter().any(is_ambiguous) {
            return Err(BadTemplate::Unsafe(format!(
                "{text:?} has two names between the same slashes, so two sources could share a file (source \"a_b\" of host \"c\", \
                 and \"a\" of \"b_c\"): put a / between them"
            )));
        }
        Ok(Template { components })
    }

    /// Whether each hour of each source of a host has exactly one file of its own.
    pub fn keeps_hours_apart(&self) -> bool {
        self.has_files_of_one_hour() && !self.spreads_hours()
    }

    /// Whether each stream has files of its own.
    pub fn spreads_hours(&self) -> bool {
        self.has(&Piece::Stream)
    }

    /// Whether no file has lines of more than one hour of one source of a host; an hour may have several files.
    pub fn has_files_of_one_hour(&self) -> bool {
        [Piece::Source, Piece::Host, Piece::Hour].iter().all(|piece| self.has(piece))
    }

    fn has(&self, piece: &Piece) -> bool {
        self.components.iter().flatten().any(|other| other == piece)
    }

    /// Path below the folder, `/` between components. A component longer than [`COMPONENT_BYTES_MAX`] is shortened: its beginning,
    /// `~`, and 32 hex digits of its XXH3-128, so that two long names never share a file; neither does a name that looks like
    /// a shortened one, because it is shortened too. Fails when a component could leave the folder.
    pub fn expand(&self, fields: &Fields<'_>) -> Result<String, BadPath> {
        let mut path = String::with_capacity(64);
        let mut component = String::with_capacity(64);
        for pieces in &self.components {
            component.clear();
            expand_component(pieces, fields, &mut component);
            if component.is_empty() {
                continue;
            }
            if !is_safe(&component) {
                return Err(bad(&component));
            }
            shorten(&mut component);
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&component);
        }
        if path.is_empty() { Err(bad(&path)) } else { Ok(path) }
    }
}

fn parse_component(text: &str) -> Result<Vec<Piece>, BadTemplate> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal_len = rest.find(['{', '}']).unwrap_or(rest.len());
        if literal_len > 0 {
            pieces.push(Piece::Literal(rest[..literal_len].to_owned()));
            rest = &rest[literal_len..];
            continue;
        }
        let Some((name, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            return Err(BadTemplate::Brace(text.to_owned()));
        };
        pieces.push(match name {
            "source" => Piece::Source,
            "host" => Piece::Host,
            "hour" => Piece::Hour,
            "day" => Piece::Day,
            "ip" => Piece::Ip,
            "stream" => Piece::Stream,
            unknown => return Err(BadTemplate::Unknown(unknown.to_owned())),
        });
        rest = after;
    }
    Ok(pieces)
}

/// A placeholder that expands to nothing takes the literal after it along (the one before it, if it is the last
/// piece), so that `{source}_{hour}` without a source is `2026112101`, not `_2026112101`.
fn expand_component(pieces: &[Piece], fields: &Fields<'_>, out: &mut String) {
    let mut skip_literal = false;
    let mut literal_from = None;
    for (at, piece) in pieces.iter().enumerate() {
        let before = out.len();
        match piece {
            Piece::Literal(text) if skip_literal => skip_literal = text.is_empty(),
            Piece::Literal(text) => {
                literal_from = Some(before);
                out.push_str(text);
            }
            placeholder => {
                push_field(placeholder, fields, out);
                let vanished = out.len() == before;
                skip_literal = vanished;
                if let (true, true, Some(from)) = (vanished, at + 1 == pieces.len(), literal_from) {
                    out.truncate(from);
                }
                literal_from = None;
            }
        }
    }
}

fn push_field(piece: &Piece, fields: &Fields<'_>, out: &mut String) {
    use fmt::Write;
    let written = match piece {
        Piece::Literal(literal) => out.write_str(literal),
        Piece::Source => out.write_str(fields.source.unwrap_or_default()),
        Piece::Host => out.write_str(fields.host.unwrap_or(fields.ip)),
        Piece::Ip => out.write_str(fields.ip),
        Piece::Hour => write!(out, "{:010}", fields.hour),
        Piece::Day => write!(out, "{:08}", fields.hour / 100),
        Piece::Stream => fields.stream.map_or(Ok(()), |stream| write!(out, "{stream}")),
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

fn is_safe(component: &str) -> bool {
    !matches!(component, "" | "." | "..")
        && !component.bytes().any(|byte| byte == b'/' || byte < 0x20 || byte == 0x7f)
}

/// Puts a hash of the whole name in the place of what is too much.
fn shorten(component: &mut String) {
    if component.len() <= COMPONENT_BYTES_MAX && !looks_shortened(component) {
        return;
    }
    let hash = xxhash_rust::xxh3::xxh3_128(component.as_bytes());
    let keep = (0..=COMPONENT_BYTES_MAX - HASH_SUFFIX_BYTES).rev().find(|at| component.is_char_boundary(*at));
    component.truncate(keep.unwrap_or(0));
    component.push_str(&format!("~{hash:032x}"));
}

fn looks_shortened(component: &str) -> bool {
    let is_as_long = component.len() >= COMPONENT_BYTES_MAX - CHARACTER_SLACK_BYTES;
    let suffix = component.as_bytes().get(component.len().saturating_sub(HASH_SUFFIX_BYTES)..);
    is_as_long
        && matches!(suffix, Some([b'~', digits @ ..]) if digits.iter().all(|digit| digit.is_ascii_hexdigit()))
}

fn bad(path: &str) -> BadPath {
    BadPath { reason: "path_unsafe", path: path.chars().take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str, source: &str, host: &str, ip: &str) -> Result<String, BadPath> {
        let name = |text| (!str::is_empty(text)).then_some(text);
        let fields = Fields {
            source: name(source),
            host: name(host),
            ip,
            hour: 2026112013,
            stream: Some(StreamId(0xab)),
        };
        Template::parse(template).unwrap().expand(&fields)
    }

    #[test]
    fn the_default_names_source_host_and_hour() {
        assert_eq!(
            expand("{source}/{host}_{hour}", "access", "web-1", "1.2.3.4").unwrap(),
            "access/web-1_2026112013"
        );
    }

    #[test]
    fn parts_that_expand_to_nothing_vanish() {
        assert_eq!(expand("{source}/{host}_{hour}", "", "", "1.2.3.4").unwrap(), "1.2.3.4_2026112013");
        assert_eq!(expand("{source}_{day}.log", "", "web-1", "").unwrap(), "20261120.log");
        assert_eq!(expand("x/{day}_{source}", "", "web-1", "").unwrap(), "x/20261120");
    }

    #[test]
    fn two_names_between_the_same_slashes_are_refused_because_two_pairs_could_be_one_file() {
        for text in ["{source}_{host}_{hour}", "{hour}/{host}-{source}", "a/{source}{ip}", "{host}_{ip}"] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains("put a / between them"), "{text}: {error}");
        }
        for text in ["{source}/{host}_{hour}", "{source}_{hour}/{host}", "{host}/{source}_{stream}"] {
            let of = |source, host| expand(text, source, host, "").unwrap();
            assert_ne!(of("a_b", "c"), of("a", "b_c"), "{text}");
        }
    }

    #[test]
    fn every_placeholder_expands() {
        let path = expand("{day}/{ip}/{stream}-{hour}.log", "a", "b", "::1").unwrap();
        assert_eq!(path, format!("20261120/::1/{:032x}-2026112013.log", 0xab));
    }

    #[test]
    fn unknown_placeholders_and_loose_braces_are_errors_with_the_known_list() {
        let error = Template::parse("{sauce}/{host}").unwrap_err();
        assert_eq!(error, BadTemplate::Unknown("sauce".into()));
        assert!(error.to_string().contains("{source} {host} {hour}"));
        for text in ["{host", "host}", "{{host}}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_cannot_leave_the_folder() {
        for text in ["", "/abs/{host}", "../{host}", "a/./{host}", "a//{host}", "{host}/", "a/../b"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_untrusted_address_cannot_leave_the_folder() {
        for ip in ["..", ".", "a/b", "../../etc/passwd", "/etc", "a\0b", "a\nb"] {
            assert_eq!(expand("{ip}/{host}", "a", "b", ip).unwrap_err().reason, "path_unsafe", "{ip:?}");
        }
    }

    #[test]
    fn a_component_longer_than_a_file_system_takes_is_shortened_and_stays_its_own() {
        let names = ["h".repeat(255), "h".repeat(254) + "i", "ä".repeat(127), "ä".repeat(126) + "ö"];
        let paths: Vec<String> =
            names.iter().map(|host| expand("{source}/{host}_{hour}", host, host, "").unwrap()).collect();
        for (at, path) in paths.iter().enumerate() {
            assert!(path.split('/').all(|component| component.len() <= COMPONENT_BYTES_MAX), "{path}");
            assert!(!paths[..at].contains(path), "{path}");
        }
        let literal = format!("{}{{host}}", "x".repeat(300));
        assert!(expand(&literal, "", "web-1", "").unwrap().len() <= COMPONENT_BYTES_MAX);
        let just_fits = "h".repeat(COMPONENT_BYTES_MAX);
        assert_eq!(expand("{host}", "", &just_fits, "").unwrap(), just_fits);
        // Files of a running system must be found again by a later version.
        let shortened = expand("{host}", "", &names[0], "").unwrap();
        assert_eq!(shortened, format!("{}~e6ead5cab3254c650927285441ead24f", "h".repeat(207)));
        // Somebody who calls a host like that does not get into the other one's file.
        let lookalike = expand("{host}", "", &shortened, "").unwrap();
        assert_ne!(lookalike, shortened);
        assert_eq!(lookalike.len(), COMPONENT_BYTES_MAX);
    }
}
