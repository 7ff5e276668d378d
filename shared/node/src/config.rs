//! Configuration: TOML files read into structs that [`settings!`](crate::settings) declares, so that name, type,
//! default, check and help of a setting stand in one place.
//!
//! [`load`] reads a file and lists all that is wrong with it, with lines; [`render_reference`] prints every setting
//! as a commented file; [`rules`] are the checks that declarations use.

mod load;
mod reference;
pub mod rules;
mod tables;
mod units;

pub use load::{ConfigError, load, nearest, parse};
pub use reference::render_reference;
pub use tables::{ListenSettings, Mode, NodeSettings, Protocol, SendSettings, SpoolSettings};
pub use units::{ByteSize, Interval};

use serde::de::DeserializeOwned;
use toml::de::ValueDeserializer;

/// One declared setting, for help, documentation, checks and the nearest-key hint.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key.
    pub name: &'static str,
    /// Rust type, which carries the unit (`ByteSize`, `Interval`).
    pub kind: &'static str,
    /// Default as TOML; empty when the setting has none.
    pub default: fn() -> String,
    /// Help text: the doc comment.
    pub help: &'static str,
    /// Whether a value has the right type and keeps the rule of the setting; the error says what is expected.
    pub check: fn(ValueDeserializer<'_>) -> Result<(), String>,
    /// The settings in it, where it is a table within its table.
    pub table: Option<&'static [Setting]>,
}

/// A table of settings.
pub trait Settings {
    /// Declared settings, in order.
    const SETTINGS: &'static [Setting];
}

/// A program's whole configuration.
pub trait ProgramConfig: DeserializeOwned {
    /// Tables and their settings: `("node", NodeSettings::SETTINGS)`, `("[source]", …)` for an array of tables.
    fn tables() -> Vec<(&'static str, &'static [Setting])>;
    /// Checks that need more than one setting; errors begin with the key (`send.to is missing: …`) and say what to
    /// do. All that is wrong, one problem a line ([`rules::all`]): nobody wants to start a program once for each mistake.
    fn validate(&self) -> Result<(), String>;
    /// What is looked at when somebody asks for a check, and keeps no program from starting: files that are read again and again while
    /// it runs.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Declares a table of settings once: doc comment = help, type = unit, value = default, and after `=>` a rule that
/// values must keep (see [`config::rules`](crate::config::rules)). A setting marked `[table]` is a table of settings within the
/// table: its type is declared by the same macro.
///
/// ```
/// use logferry_node::config::{ByteSize, rules};
/// logferry_node::settings! {
///     /// Table `[x]`.
///     pub struct XSettings {
///         /// How much.
///         pub bytes_max: ByteSize = ByteSize::mib(1) => rules::between(ByteSize::kib(4), ByteSize::gib(1)),
///         /// How many; 0: no limit.
///         pub lines_max: u64 = 0,
///         /// `[x.inner]`.
///         pub inner [table]: InnerSettings = InnerSettings::default(),
///     }
/// }
/// logferry_node::settings! {
///     /// Table `[x.inner]`.
///     pub struct InnerSettings {
///         /// How often.
///         pub times: u64 = 3,
///     }
/// }
/// assert_eq!(XSettings::default().bytes_max.0, 1 << 20);
/// ```
#[macro_export]
macro_rules! settings {
    ($(#[doc = $struct_doc:literal])* pub struct $name:ident {
        $($(#[doc = $doc:literal])* pub $field:ident $([$table:ident])? : $kind:ty = $default:expr $(=> $rule:expr)?,)*
    }) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[doc = $doc])* pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self { $name { $($field: $default,)* } }
        }
        impl $crate::config::Settings for $name {
            const SETTINGS: &'static [$crate::config::Setting] = &[$(
                $crate::config::Setting {
                    name: stringify!($field),
                    kind: stringify!($kind),
                    default: || { let value: $kind = $default; $crate::config::as_toml(&value) },
                    help: concat!($($doc, "\n"),*),
                    check: |input| {
                        let _value: $kind = $crate::config::read_value(input)?;
                        $($crate::config::rules::keep(&_value, $rule)?;)?
                        Ok(())
                    },
                    table: $crate::config::first(&[$($crate::config::$table::<$kind>())?]),
                },
            )*];
        }
    };
}

/// The settings of a type: what `[table]` means in [`settings!`](crate::settings).
pub const fn table<T: Settings>() -> &'static [Setting] {
    T::SETTINGS
}

/// The first, if there is one.
pub const fn first(tables: &[&'static [Setting]]) -> Option<&'static [Setting]> {
    match tables {
        [table, ..] => Some(*table),
        [] => None,
    }
}

/// A default as TOML text; empty for what TOML cannot say (`None`).
pub fn as_toml<T: serde::Serialize>(value: &T) -> String {
    toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default()
}

/// One value of a declared type; the error is for people.
pub fn read_value<T: DeserializeOwned>(input: ValueDeserializer<'_>) -> Result<T, String> {
    T::deserialize(input).map_err(|error| plain_types(error.message()))
}

/// serde speaks of Rust's types, operators think in numbers.
fn plain_types(message: &str) -> String {
    let mut text = message.trim().to_owned();
    for rust in ["usize", "u64", "u32", "u16", "u8", "isize", "i64", "i32"] {
        let plain = if rust.starts_with('u') { "a whole number, 0 or more" } else { "a whole number" };
        text = text.replace(&format!("expected {rust}"), &format!("expected {plain}"));
    }
    text
}
