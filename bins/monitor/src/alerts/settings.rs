//! `[alert]` and `[[alert.webhook]]`.

use super::conditions::KINDS;
use logferry_node::config::{ByteSize, Interval, rules};
use serde::{Deserialize, Serialize};

logferry_node::settings! {
    /// `[alert]`: what is told to webhooks and in the history, when it begins and when it is over.
    pub struct AlertSettings {
        /// How long something must be so, or be over, before it is told.
        pub hold: Interval = Interval::secs(15),
        /// A node is silent.
        pub silent: bool = true,
        /// Something has waited at a node for this long; "0s" is off.
        pub lag: Interval = Interval::secs(600),
        /// More than this waits at a node; "0B" is off.
        pub lag_bytes: ByteSize = ByteSize(0),
        /// A spool holds more than this; "0B" is off.
        pub spool: ByteSize = ByteSize::gib(1),
        /// An hour is not complete this long after it is over; "0s" is off.
        pub hour: Interval = Interval::secs(2 * 3600),
        /// A quarantine or dead-letter folder is not empty.
        pub set_aside: bool = true,
        /// Less than this many hundredths of a node's disk are free; 0 is off.
        pub disk_free: u64 = 5 => rules::between(0, 99),
        /// How long the history is kept in the database.
        pub keep: Interval = Interval::secs(90 * 24 * 3600) => rules::at_least(Interval::secs(60)),
        /// [[alert.webhook]], any number: url = "https://…", name (in the history; default: host of the url), format = "json" or "slack",
        /// kinds = ["node silent", …] (default: all), token_file (its first line goes along as "Authorization: Bearer …"), ca_file
        /// (PEM; who may vouch for the server, default: those that browsers know).
        pub webhook: Vec<WebhookSettings> = Vec::new(),
    }
}

/// One entry of `[[alert.webhook]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// `http://…` or `https://…`.
    pub url: String,
    /// What it is called in the history; empty: the host of the URL.
    #[serde(default)]
    pub name: String,
    /// What the body looks like.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Which kinds of alerts it gets; empty: all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// File whose first line is the token that goes along; empty: none.
    #[serde(default)]
    pub token_file: String,
    /// File with the certificates, in PEM, of those who may vouch for the server; empty: those that browsers know.
    #[serde(default)]
    pub ca_file: String,
}

/// What the body of a webhook looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    /// All that is known, as JSON.
    #[default]
    Json,
    /// A text, as Slack, Mattermost and others take it.
    Slack,
}

impl WebhookSettings {
    /// What it is called.
    pub fn label(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let after = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let host = after.split(['/', '?', '#']).next().unwrap_or_default();
        host.rsplit('@').next().unwrap_or_default().to_owned()
    }
}

impl AlertSettings {
    /// What single settings cannot say of each other.
    ///
    /// # Errors
    /// What is wrong, with the key.
    pub fn validate(&self) -> Result<(), String> {
        let mut labels = std::collections::HashSet::new();
        rules::all(self.webhook.iter().map(|webhook| {
            let unknown = webhook.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str()));
            rules::all([
                rules::ensure(
                    webhook.url.starts_with("http://") || webhook.url.starts_with("https://"),
                    || {
                        format!(
                            "alert.webhook: url of {:?} must begin with http:// or https://",
                            webhook.label()
                        )
                    },
                ),
                unknown.map_or(Ok(()), |kind| {
                    let known = KINDS.join("\", \"");
                    Err(format!("alert.webhook: kinds has {kind:?}, which is none of \"{known}\""))
                }),
                rules::ensure(labels.insert(webhook.label()), || {
                    format!("alert.webhook: two are called {:?}: give them names", webhook.label())
                }),
            ])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_called_by_their_host_and_never_by_what_is_secret_in_the_url() {
        let of = |url: &str| WebhookSettings { url: url.into(), ..WebhookSettings::default() };
        assert_eq!(of("https://user:secret@hooks.example:8443/T0/secret?x=1").label(), "hooks.example:8443");
        let mut settings =
            AlertSettings { webhook: vec![of("https://a/1"), of("https://a/2")], ..AlertSettings::default() };
        assert!(settings.validate().expect_err("two of one name").contains("give them names"));
        settings.webhook[0].name = "ops".into();
        assert_eq!(settings.validate(), Ok(()));
        settings.webhook[0].kinds = vec!["node silnt".into()];
        assert!(settings.validate().expect_err("no such kind").contains("node silent"));
        settings.webhook[0] = of("ftp://a");
        assert!(settings.validate().is_err());
    }
}
