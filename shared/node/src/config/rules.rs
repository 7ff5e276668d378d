//! Checks for single settings, used after `=>` in [`settings!`](crate::settings). Each says what is expected.

use super::ByteSize;
use crate::priority::IoPriority;
use std::fmt::Display;

/// Applies a rule; fixes the rule's argument type for the macro, so that closures need no annotation.
pub fn keep<T: ?Sized>(value: &T, rule: impl FnOnce(&T) -> Result<(), String>) -> Result<(), String> {
    rule(value)
}

/// All that several checks find, one problem a line. For checks that do not need one another's success.
pub fn all(checks: impl IntoIterator<Item = Result<(), String>>) -> Result<(), String> {
    let problems: Vec<String> = checks.into_iter().filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// `problem`, unless `is_right`.
pub fn ensure(is_right: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(problem()) }
}

/// `low ..= high`.
pub fn between<T: PartialOrd + Display>(low: T, high: T) -> impl FnOnce(&T) -> Result<(), String> {
    move |value| match *value >= low && *value <= high {
        true => Ok(()),
        false => Err(format!("{value} is out of range, expected {low} to {high}")),
    }
}

/// `low` or more.
pub fn at_least<T: PartialOrd + Display>(low: T) -> impl FnOnce(&T) -> Result<(), String> {
    move |value| match *value >= low {
        true => Ok(()),
        false => Err(format!("{value} is too small, expected {low} or more")),
    }
}

/// 0, which stands for no limit, or `low` or more.
pub fn none_or_at_least(low: ByteSize) -> impl FnOnce(&ByteSize) -> Result<(), String> {
    move |value| match value.0 == 0 || *value >= low {
        true => Ok(()),
        false => Err(format!("{value} is too small, expected {low} or more, or 0 for no limit")),
    }
}

/// One of a few words.
pub fn one_of(words: &'static [&'static str]) -> impl FnOnce(&String) -> Result<(), String> {
    move |value| match words.contains(&value.as_str()) {
        true => Ok(()),
        false => Err(format!("\"{value}\" is not known, expected one of \"{}\"", words.join("\", \""))),
    }
}

/// `"host:port"`. The host is resolved when it is used, not here: a name server may be away.
pub fn address(value: &String) -> Result<(), String> {
    let bad = || Err(format!("\"{value}\" is no address, expected \"host:port\" such as \"127.0.0.1:9311\""));
    let Some((host, port)) = value.rsplit_once(':') else { return bad() };
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_ipv6 || host.contains(char::is_whitespace) || port.parse::<u16>().is_err() {
        return bad();
    }
    Ok(())
}

/// `"host:port"` or `""`.
pub fn address_or_empty(value: &String) -> Result<(), String> {
    if value.is_empty() { Ok(()) } else { address(value) }
}

/// A list of `"host:port"`.
#[expect(clippy::ptr_arg, reason = "a rule takes a reference to the declared type")]
pub fn addresses(values: &Vec<String>) -> Result<(), String> {
    values.iter().try_for_each(address)
}

/// A name that can be one component of a path, or `""`.
pub fn node_name(value: &String) -> Result<(), String> {
    let bad = value.len() > 255
        || value == "."
        || value == ".."
        || value.contains(|c: char| c == '/' || c.is_control());
    match bad {
        true => Err(format!(
            "{value:?} cannot be a name, expected up to 255 bytes without \"/\" and control characters, not \".\" or \"..\""
        )),
        false => Ok(()),
    }
}

/// `"Local"` or an IANA time zone.
pub fn time_zone(value: &String) -> Result<(), String> {
    if value == "Local" || jiff::tz::TimeZone::get(value).is_ok() {
        return Ok(());
    }
    Err(format!(
        "\"{value}\" is no time zone, expected \"Local\" or an IANA name such as \"Europe/Berlin\" or \"UTC\""
    ))
}

/// A class and level of the kernel's I/O scheduler, or `""`.
pub fn io_priority(value: &String) -> Result<(), String> {
    if value.is_empty() || IoPriority::parse(value).is_some() {
        return Ok(());
    }
    Err(format!(
        "\"{value}\" is no priority for the disk, expected \"idle\", or \"best-effort:0\" to \"best-effort:7\""
    ))
}

/// A filter for log events.
pub fn log_filter(value: &String) -> Result<(), String> {
    tracing_subscriber::EnvFilter::try_new(value).map(|_| ()).map_err(|error| {
        format!("\"{value}\" is no log filter ({error}), expected such as \"info\" or \"info,logferry_link=debug\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_host_and_port() {
        for good in ["127.0.0.1:0", "collector-a:1302", "[::1]:9311", "0.0.0.0:65535"] {
            assert_eq!(address(&good.to_owned()), Ok(()), "{good}");
        }
        for bad in ["", "9311", ":9311", "host", "host:", "host:65536", "::1:80", "a b:1", "host:http"] {
            assert!(address(&bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_include_their_ends_and_say_them() {
        assert_eq!(between(1, 9)(&1), Ok(()));
        assert_eq!(between(1, 9)(&9), Ok(()));
        assert_eq!(between(1, 9)(&10), Err("10 is out of range, expected 1 to 9".to_owned()));
        assert_eq!(at_least(1)(&0), Err("0 is too small, expected 1 or more".to_owned()));
    }

    #[test]
    fn names_that_would_leave_a_folder_are_refused() {
        for bad in ["a/b", ".", "..", "a\0b", "a\nb", &"x".repeat(256)] {
            assert!(node_name(&bad.to_owned()).is_err(), "{bad:?}");
        }
        assert_eq!(node_name(&"web-1".to_owned()), Ok(()));
    }

    #[test]
    fn time_zones_and_filters_are_looked_up() {
        assert_eq!(time_zone(&"Europe/Berlin".to_owned()), Ok(()));
        assert!(time_zone(&"Mars/Olympus".to_owned()).is_err());
        assert_eq!(log_filter(&"info,logferry_link=debug".to_owned()), Ok(()));
        assert!(log_filter(&"info,logferry_link=loud".to_owned()).is_err());
    }
}
