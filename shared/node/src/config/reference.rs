//! All settings of a program as a commented TOML file, for `--help-config` and the documentation.

use super::{ProgramConfig, Setting};
use std::fmt::Write;

/// Every table and setting of `C` with help, type and default, as TOML with comments. It is a valid file when the
/// settings that have no default are filled in.
pub fn render_reference<C: ProgramConfig>() -> String {
    let mut text = String::new();
    for (table, settings) in C::tables() {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "[{table}]");
        settings.iter().for_each(|setting| render_setting(&mut text, setting));
    }
    text
}

fn render_setting(text: &mut String, setting: &Setting) {
    for line in setting.help.lines() {
        let _ = writeln!(text, "# {}", line.trim());
    }
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
