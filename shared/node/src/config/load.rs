//! Reading a configuration file: every mistake with its place, what is expected and the nearest known key.

use super::{ProgramConfig, Setting, plain_types};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// What is wrong with a configuration, with file, line and what to do; one problem per line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A configuration file is written by people; what is larger was given by mistake (a log file, say).
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Reads and checks a configuration file. Unknown keys name the file, the line and the nearest known key.
pub fn load<C: ProgramConfig>(path: &Path) -> Result<C, ConfigError> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| ConfigError(format!("{name}: {error}")))?;
    parse(&name, &text)
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "no such file; name an existing one with --config FILE, or write one from the output of --help-config"
                .to_owned()
        }
        _ => format!("cannot be read: {error}"),
    })?;
    if metadata.is_dir() {
        return Err("is a folder; name the TOML file in it".to_owned());
    }
    if metadata.len() > CONFIG_BYTES_MAX {
        return Err(format!("is larger than {CONFIG_BYTES_MAX} bytes, so it is no configuration file"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        format!("is no text: the byte at offset {} is not UTF-8", error.utf8_error().valid_up_to())
    })
}

/// The same for text; `name` stands for the file in errors.
pub fn parse<C: ProgramConfig>(name: &str, text: &str) -> Result<C, ConfigError> {
    let (root, syntax) = DeTable::parse_recoverable(text);
    let mut problems = Problems { file: name, text, found: Vec::new() };
    for error in &syntax {
        problems.add(error.span().unwrap_or(0..0), plain_types(error.message()));
    }
    problems.give_up_if_any()?;

    check_tables(root.get_ref(), &with_tables_within(C::tables()), &mut problems);
    problems.give_up_if_any()?;

    let config = C::deserialize(toml::Deserializer::from(root.clone())).map_err(|error| {
        problems.add(error.span().unwrap_or(0..0), plain_types(error.message()));
        problems.take_error()
    })?;
    config.validate().map_err(|message| problems.of_validation(root.get_ref(), &message))?;
    Ok(config)
}

/// What was found wrong, with its place in the file.
struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<(usize, String)>,
}

impl Problems<'_> {
    fn add(&mut self, span: Range<usize>, message: String) {
        self.found.push((span.start, message));
    }

    fn give_up_if_any(&mut self) -> Result<(), ConfigError> {
        if self.found.is_empty() { Ok(()) } else { Err(self.take_error()) }
    }

    fn take_error(&mut self) -> ConfigError {
        self.found.sort_by_key(|(at, _)| *at); // tables come in alphabetical order
        let lines: Vec<String> =
            self.found.iter().map(|(at, message)| format!("{}: {message}", self.place(*at))).collect();
        ConfigError(lines.join("\n"))
    }

    /// `FILE:LINE:COLUMN`, both from 1, columns in characters.
    fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.file)
    }

    /// Messages of `validate` begin with `table.key`; where the file has that key, its line is named too.
    fn of_validation(&self, root: &DeTable<'_>, message: &str) -> ConfigError {
        let mut problems: Vec<_> = message.lines().map(|line| (place_of_key(root, line), line)).collect();
        problems.sort_by_key(|(at, _)| *at); // what has no place first
        let told = problems.into_iter().map(|(at, line)| match at {
            Some(at) => format!("{}: {line}", self.place(at)),
            None => format!("{}: {line}", self.file),
        });
        ConfigError(told.collect::<Vec<_>>().join("\n"))
    }
}

/// Where the value of the `table.key` that `message` begins with stands; the table itself if the key is absent. Of an array of tables with
/// several entries the one whose `name` the message has in quotes; nothing, if it does not say which entry is meant.
fn place_of_key(root: &DeTable<'_>, message: &str) -> Option<usize> {
    let word = message.split(|c: char| c.is_whitespace() || c == ':').next()?;
    let (table, key) = word.split_once('.')?;
    let (table_key, value) = root.iter().find(|(name, _)| name.get_ref() == table)?;
    let table = match value.get_ref() {
        DeValue::Table(table) => table,
        DeValue::Array(array) if array.len() == 1 => array.iter().next()?.get_ref().as_table()?,
        DeValue::Array(array) => {
            let mut entries = array.iter().filter_map(|entry| entry.get_ref().as_table());
            let table = entries.find(|table| is_named_in(table, message))?;
            return place_within(table, key).or_else(|| place_within(table, "name"));
        }
        _ => return None,
    };
    Some(place_within(table, key).unwrap_or(table_key.span().start))
}

fn is_named_in(table: &DeTable<'_>, message: &str) -> bool {
    let name =
        table.iter().find(|(key, _)| key.get_ref() == "name").and_then(|(_, name)| name.get_ref().as_str());
    name.is_some_and(|name| message.contains(&format!("\"{name}\"")))
}

/// Where `key` stands in a table, or as much of a `table.key` as is there.
fn place_within(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (name, rest) = key.split_once('.').map_or((key, None), |(name, rest)| (name, Some(rest)));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    let inner = rest.zip(value.get_ref().as_table()).and_then(|(rest, table)| place_within(table, rest));
    Some(inner.unwrap_or(key.span().start))
}

/// The tables a program knows. A name in brackets is an array of tables, one with a dot a table within another.
type Known = [(String, &'static [Setting])];

fn with_tables_within(tables: Vec<(&'static str, &'static [Setting])>) -> Vec<(String, &'static [Setting])> {
    let mut all = Vec::new();
    let mut left: Vec<(String, &'static [Setting])> =
        tables.into_iter().rev().map(|(name, settings)| (name.to_owned(), settings)).collect();
    while let Some((name, settings)) = left.pop() {
        let within =
            settings.iter().filter_map(|setting| Some((within(&name, setting.name), setting.table?)));
        left.extend(within.collect::<Vec<_>>().into_iter().rev());
        all.push((name, settings));
    }
    all
}

pub(super) fn bare(table: &str) -> &str {
    table.trim_start_matches('[').trim_end_matches(']')
}

/// Name of a table within another.
pub(super) fn within(table: &str, name: &str) -> String {
    format!("{}.{name}", bare(table))
}

fn check_tables(root: &DeTable<'_>, known: &Known, problems: &mut Problems<'_>) {
    for (key, value) in root {
        let name = key.get_ref().as_ref();
        match known.iter().find(|(table, _)| bare(table) == name) {
            None => problems.add(key.span(), unknown_table(name, value.get_ref(), known)),
            Some((table, settings)) => check_shape(table, settings, key, value, known, problems),
        }
    }
}

fn unknown_table(name: &str, value: &DeValue<'_>, known: &Known) -> String {
    if !matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
        let homes = homes_of(name, known);
        let advice = if homes.is_empty() { String::new() } else { format!("; put it under {homes}") };
        return format!("key \"{name}\" stands outside of any table{advice}");
    }
    let names: Vec<String> = known.iter().map(|(table, _)| format!("[{table}]")).collect();
    let near = nearest(&plain(name), known.iter().map(|(table, _)| bare(table)))
        .and_then(|near| known.iter().find(|(table, _)| bare(table) == near))
        .map_or(String::new(), |(table, _)| format!("; did you mean [{table}]?"));
    format!("unknown table [{name}]{near} (known: {})", names.join(", "))
}

fn check_shape(
    table: &str,
    settings: &[Setting],
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    known: &Known,
    problems: &mut Problems<'_>,
) {
    let many = table.starts_with('[');
    match value.get_ref() {
        DeValue::Table(entries) if !many => check_keys(table, settings, entries, known, problems),
        DeValue::Array(list) if many => {
            for entry in list.iter() {
                match entry.get_ref() {
                    DeValue::Table(entries) => check_keys(table, settings, entries, known, problems),
                    other => problems
                        .add(entry.span(), format!("expected a table [{table}], found {}", other.type_str())),
                }
            }
        }
        DeValue::Table(_) => problems.add(
            key.span(),
            format!("[{}] can be there several times: write [{table}] with double brackets", bare(table)),
        ),
        DeValue::Array(_) => {
            problems.add(key.span(), format!("[[{table}]] can be there only once: write [{table}]"));
        }
        other => {
            problems.add(value.span(), format!("expected a table [{table}], found {}", other.type_str()))
        }
    }
}

fn check_keys(
    table: &str,
    settings: &[Setting],
    entries: &DeTable<'_>,
    known: &Known,
    problems: &mut Problems<'_>,
) {
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let Some(setting) = settings.iter().find(|setting| setting.name == name) else {
            problems.add(key.span(), unknown_key(name, table, settings, known));
            continue;
        };
        if let Some(inner) = setting.table {
            match value.get_ref() {
                DeValue::Table(entries) => check_keys(&within(table, name), inner, entries, known, problems),
                other => {
                    let (table, found) = (within(table, name), other.type_str());
                    problems.add(value.span(), format!("expected a table [{table}], found {found}"));
                }
            }
            continue;
        }
        if let Err(message) = (setting.check)(ValueDeserializer::from(value.clone())) {
            problems.add(value.span(), format!("{}.{name}: {message}", bare(table)));
        }
    }
}

fn unknown_key(name: &str, table: &str, settings: &[Setting], known: &Known) -> String {
    let homes = homes_of(name, known);
    let advice = match nearest(&plain(name), settings.iter().map(|setting| setting.name)) {
        _ if !homes.is_empty() => format!("; it belongs under {homes}"),
        Some(near) => format!("; did you mean \"{near}\"?"),
        None => String::new(),
    };
    let names: Vec<&str> = settings.iter().map(|setting| setting.name).collect();
    format!("unknown key \"{name}\" in [{table}]{advice} (known: {})", names.join(", "))
}

/// The tables that have a setting of just this name.
fn homes_of(name: &str, known: &Known) -> String {
    let homes: Vec<String> = known
        .iter()
        .filter(|(_, settings)| settings.iter().any(|setting| setting.name == name))
        .map(|(table, _)| format!("[{table}]"))
        .collect();
    homes.join(" or ")
}

/// As keys are written.
fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// The known word that `word` was probably meant to be: at most a third of it is different, or it is a beginning.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            let allowed = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
            *distance <= allowed || (word.len() >= 3 && candidate.starts_with(word))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
