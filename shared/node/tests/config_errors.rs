//! Every mistake in a configuration file is named with file, line, column, what is expected and the nearest key.

use logferry_node::config::{
    self, ByteSize, ConfigError, NodeSettings, ProgramConfig, SendSettings, Setting, Settings, rules,
};
use logferry_node::settings;

settings! {
    /// `[[source]]`.
    pub struct SourceSettings {
        /// Name.
        pub name: String = String::new(),
        /// Parts that belong together.
        pub parts [table]: PartSettings = PartSettings::default(),
    }
}
settings! {
    /// `[source.parts]`.
    pub struct PartSettings {
        /// Where one begins.
        pub start: String = "here".to_owned(),
        /// How long one is.
        pub length: u64 = 7 => rules::between(1, 9),
    }
}
settings! {
    /// `[pack]`.
    pub struct PackSettings {
        /// Level of the codec.
        pub level: i32 = 1 => rules::between(1, 19),
        /// Most bytes of lines in one pack.
        pub max_bytes: ByteSize = ByteSize::mib(1),
        /// Most lines in one pack; 0: no limit.
        pub max_lines: u64 = 0,
        /// Nothing by default.
        pub note: Option<String> = None,
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    node: NodeSettings,
    source: Vec<SourceSettings>,
    pack: PackSettings,
    send: SendSettings,
}
impl ProgramConfig for Config {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![
            ("node", NodeSettings::SETTINGS),
            ("[source]", SourceSettings::SETTINGS),
            ("pack", PackSettings::SETTINGS),
            ("send", SendSettings::SETTINGS),
        ]
    }
    fn validate(&self) -> Result<(), String> {
        match self.pack.max_lines {
            5 => Err("source.parts.start: cannot be\nsource.parts.length: nor this".to_owned()),
            7 => Err("pack.max_lines: 7 is unlucky, take 8\nsend.to is missing: name a target".to_owned()),
            _ => Ok(()),
        }
    }
}

fn errors(text: &str) -> String {
    let error: ConfigError = config::parse::<Config>("t.toml", text).expect_err(text);
    error.to_string()
}

#[test]
fn an_unknown_key_names_its_place_the_nearest_key_and_all_keys() {
    assert_eq!(
        errors("[pack]\nlevel = 1\n\n  max_byte = \"1MiB\"\n"),
        "t.toml:4:3: unknown key \"max_byte\" in [pack]; did you mean \"max_bytes\"? \
         (known: level, max_bytes, max_lines, note)"
    );
}

#[test]
fn an_unknown_key_without_a_near_one_lists_the_known() {
    assert_eq!(
        errors("[[source]]\nname = \"a\"\n[[source]]\ncolour = 1\n"),
        "t.toml:4:1: unknown key \"colour\" in [[source]] (known: name, parts)"
    );
}

#[test]
fn keys_of_a_table_within_a_table_are_known_too() {
    let source = |rest: &str| format!("[[source]]\nname = \"a\"\n{rest}");
    let parse = |rest: &str| {
        config::parse::<Config>("t.toml", &source(rest)).map(|config| config.source[0].parts.length)
    };
    assert_eq!(parse("parts.length = 3\n").expect("dotted"), 3);
    assert_eq!(parse("parts = { length = 3 }\n").expect("inline"), 3);
    assert_eq!(parse("[source.parts]\nlength = 3\n").expect("on its own"), 3);
    assert_eq!(parse("").expect("default"), 7);
    assert_eq!(
        errors(&source("[source.parts]\nstrat = \"x\"\n")),
        "t.toml:4:1: unknown key \"strat\" in [source.parts]; did you mean \"start\"? (known: start, length)"
    );
    assert_eq!(
        errors(&source("parts.length = 10\n")),
        "t.toml:3:16: source.parts.length: 10 is out of range, expected 1 to 9"
    );
    assert_eq!(errors(&source("parts = 3\n")), "t.toml:3:9: expected a table [source.parts], found integer");
    assert_eq!(
        errors(&source("length = 3\n")),
        "t.toml:3:1: unknown key \"length\" in [[source]]; it belongs under [source.parts] (known: name, parts)"
    );
    assert_eq!(
        errors(&source("parts.start = \"x\"\n[pack]\nmax_lines = 5\n")),
        "t.toml:3:1: source.parts.length: nor this\nt.toml:3:7: source.parts.start: cannot be"
    );
}

#[test]
fn a_key_of_another_table_is_sent_there() {
    assert_eq!(
        errors("[pack]\nwindow = \"1MiB\"\n"),
        "t.toml:2:1: unknown key \"window\" in [pack]; it belongs under [send] \
         (known: level, max_bytes, max_lines, note)"
    );
}

#[test]
fn an_unknown_table_names_the_nearest_table_and_all_tables() {
    assert_eq!(
        errors("[packs]\nlevel = 1\n"),
        "t.toml:1:2: unknown table [packs]; did you mean [pack]? (known: [node], [[source]], [source.parts], [pack], [send])"
    );
}

#[test]
fn a_key_outside_of_tables_is_told_where_it_belongs() {
    assert_eq!(
        errors("level = 1\nfoo = 2\n"),
        "t.toml:1:1: key \"level\" stands outside of any table; put it under [pack]\n\
         t.toml:2:1: key \"foo\" stands outside of any table"
    );
}

#[test]
fn single_and_double_brackets_are_told_apart() {
    assert_eq!(
        errors("[source]\nname = \"a\"\n"),
        "t.toml:1:2: [source] can be there several times: write [[source]] with double brackets"
    );
    assert_eq!(errors("[[pack]]\nlevel = 1\n"), "t.toml:1:3: [[pack]] can be there only once: write [pack]");
    assert_eq!(errors("pack = 3\n"), "t.toml:1:8: expected a table [pack], found integer");
    assert_eq!(errors("source = [3]\n"), "t.toml:1:11: expected a table [[source]], found integer");
}

#[test]
fn wrong_types_and_values_say_what_is_expected() {
    assert_eq!(
        errors("[pack]\nmax_lines = \"many\"\n"),
        "t.toml:2:13: pack.max_lines: invalid type: string \"many\", expected a whole number, 0 or more"
    );
    assert_eq!(
        errors("[pack]\nmax_bytes = \"1MB\"\n"),
        "t.toml:2:13: pack.max_bytes: \"1MB\" is not a size such as \"512KiB\", \"16MiB\" or \"1GiB\" \
         (units B, KiB, MiB, GiB, TiB), or a number of bytes"
    );
    assert_eq!(
        errors("[send]\nmode = \"failovr\"\n"),
        "t.toml:2:8: send.mode: unknown variant `failovr`, expected one of `single`, `failover`, `load_balance`"
    );
    assert_eq!(
        errors("[send]\nack_timeout = 10\n"),
        "t.toml:2:15: send.ack_timeout: invalid type: integer `10`, expected a time such as \"200ms\", \"10s\" \
         or \"1h\" (units ms, s, m, h, d)"
    );
}

#[test]
fn a_value_that_breaks_the_rule_of_its_setting_is_refused() {
    assert_eq!(
        errors("[pack]\nlevel = 20\n"),
        "t.toml:2:9: pack.level: 20 is out of range, expected 1 to 19"
    );
    assert_eq!(
        errors("[node]\nadmin = \"9311\"\n"),
        "t.toml:2:9: node.admin: \"9311\" is no address, expected \"host:port\" such as \"127.0.0.1:9311\""
    );
}

#[test]
fn all_mistakes_are_listed_in_the_order_of_the_file() {
    let lines = errors("[send]\nmode = 1\n[pack]\nlevle = 1\nmax_lines = -1\n[nod]\n");
    let places: Vec<&str> = lines.lines().map(|line| line.split(": ").next().expect("a place")).collect();
    assert_eq!(places, ["t.toml:2:8", "t.toml:4:1", "t.toml:5:13", "t.toml:6:2"]);
}

#[test]
fn broken_toml_names_the_line() {
    let text = errors("[pack]\nlevel = \n");
    assert!(text.starts_with("t.toml:2:"), "{text}");
}

#[test]
fn errors_of_validation_name_the_line_where_the_key_stands() {
    assert_eq!(
        errors("[pack]\n\nmax_lines = 7\n"),
        "t.toml: send.to is missing: name a target\nt.toml:3:1: pack.max_lines: 7 is unlucky, take 8"
    );
}

#[test]
fn a_missing_file_says_what_to_do() {
    let error = config::load::<Config>("/nonexistent/t.toml".as_ref()).expect_err("no file");
    assert_eq!(
        error.to_string(),
        "/nonexistent/t.toml: no such file; name an existing one with --config FILE, \
         or write one from the output of --help-config"
    );
}

#[test]
fn what_is_no_configuration_file_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = config::load::<Config>(dir.path()).expect_err("a folder").to_string();
    assert!(error.ends_with("is a folder; name the TOML file in it"), "{error}");
    let file = dir.path().join("t.toml");
    std::fs::write(&file, b"[pack]\n\xff").expect("written");
    let error = config::load::<Config>(&file).expect_err("no UTF-8").to_string();
    assert!(error.ends_with("is no text: the byte at offset 7 is not UTF-8"), "{error}");
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config: Config = config::parse("t.toml", "").expect("defaults");
    assert_eq!(config.pack.max_bytes, ByteSize::mib(1));
    assert_eq!(config.node.log_level, "info");
    assert!(config.source.is_empty() && config.send.to.is_empty());
}

#[test]
fn the_reference_is_a_file_that_loads_to_the_defaults() {
    let reference = config::render_reference::<Config>();
    let config: Config = config::parse("reference.toml", &reference).expect("the reference loads");
    assert_eq!(config.pack.max_bytes, ByteSize::mib(1));
    for setting in [NodeSettings::SETTINGS, PackSettings::SETTINGS, SendSettings::SETTINGS].concat() {
        assert!(reference.contains(&format!("{} = ", setting.name)), "{}", setting.name);
    }
    assert!(reference.contains(
        "# Parts that belong together.\n[source.parts]\n# Where one begins.\nstart = \"here\"  # text\n"
    ));
    assert!(
        reference.contains("# Most lines in one pack; 0: no limit.\nmax_lines = 0  # number, 0 or more\n")
    );
}
