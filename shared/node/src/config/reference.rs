//! All settings of a program as a commented TOML file, for `--help-config` and the documentation.

use super::load::within;
use super::{ProgramConfig, Setting};
use std::fmt::Write;

/// Every table and setting of `C` with help, type and default, as TOML with comments. It is a valid file when the
/// settings that have no default are filled in.
pub fn render_reference<C: ProgramConfig>() -> String {
    let mut text = String::new();
    for (table, settings) in C::tables() {
        render_table(&mut text, table, "", settings);
    }
    text
}

/// A table, and behind it those within it: TOML takes what comes after a `[table.inner]` for a part of that.
fn render_table(text: &mut String, table: &str, help: &str, settings: &[Setting]) {
    if !text.is_empty() {
        text.push('\n');
    }
    render_help(text, help);
    let _ = writeln!(text, "[{table}]");
    settings
        .iter()
        .filter(|setting| setting.table.is_none())
        .for_each(|setting| render_setting(text, setting));
    for setting in settings {
        if let Some(inner) = setting.table {
            render_table(text, &within(table, setting.name), setting.help, inner);
        }
    }
}

fn render_help(text: &mut String, help: &str) {
    for line in help.lines() {
        let _ = writeln!(text, "# {}", line.trim());
    }
}

fn render_setting(text: &mut String, setting: &Setting) {
    render_help(text, setting.help);
    let default = (setting.default)();
    let _ = match default.is_empty() {
        true => writeln!(text, "# {} = …  # {}", setting.name, plain_kind(setting.kind)),
        false => writeln!(text, "{} = {default}  # {}", setting.name, plain_kind(setting.kind)),
    };
}

/// A Rust type in an operator's words; types without an entry are enums and speak through their help.
fn plain_kind(kind: &str) -> String {
    let kind: String = kind.chars().filter(|c| !c.is_whitespace()).collect();
    let kind = kind.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>')).unwrap_or(&kind);
    match kind.rsplit("::").next().unwrap_or(kind) {
        "ByteSize" => "size",
        "Interval" => "time",
        "String" => "text",
        "PathBuf" => "path",
        "bool" => "true or false",
        "u64" | "u32" | "u16" | "u8" | "usize" => "number, 0 or more",
        "i64" | "i32" => "number",
        "f64" | "f32" => "decimal number",
        _ if kind.starts_with("Vec<") => "list",
        _ => "word",
    }
    .to_owned()
}
