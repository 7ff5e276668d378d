//! One webhook: the request and what its answer means.

use super::{AlertRow, AlertState, WebhookFormat, WebhookSettings};
use crate::access;
use anyhow::Context;
use serde_json::json;
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Longest that a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// Changes that a text names; the others are counted.
const TEXT_CHANGES_MAX: usize = 20;

/// Why a request was in vain.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may be taken later.
    ForNow(String),
    /// It never will.
    ForGood(String),
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Webhook {
    pub(crate) label: String,
    url: String,
    format: WebhookFormat,
    token: Option<String>,
    tls: TlsConfig,
}

impl Webhook {
    /// Of the settings; reads the token and the certificates.
    pub(crate) fn new(settings: &WebhookSettings) -> anyhow::Result<Webhook> {
        let token = access::token_of(&settings.token_file).context("alert.webhook: token_file")?;
        let tls = match settings.ca_file.as_str() {
            "" => TlsConfig::default(),
            file => {
                let roots = roots_of(file).with_context(|| format!("alert.webhook: ca_file {file}"))?;
                TlsConfig::builder().root_certs(roots).build()
            }
        };
        let (label, url, format) = (settings.label(), settings.url.clone(), settings.format);
        Ok(Webhook { label, url, format, token, tls })
    }

    /// Posts the changes, all at once.
    pub(crate) async fn send(&self, monitor: &str, changes: Vec<AlertRow>) -> Result<(), Failure> {
        let body = match self.format {
            WebhookFormat::Json => json_body(monitor, &changes),
            WebhookFormat::Slack => json!({ "text": slack_text(monitor, &changes) }),
        };
        let webhook = self.clone();
        let posted = tokio::task::spawn_blocking(move || webhook.post(&body.to_string())).await;
        posted.unwrap_or_else(|error| Err(Failure::ForNow(error.to_string())))
    }

    fn post(&self, body: &str) -> Result<(), Failure> {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(REQUEST_MAX)).http_status_as_error(false);
        let agent: ureq::Agent = config.max_redirects(0).tls_config(self.tls.clone()).build().into();
        let mut request = agent.post(&self.url).header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        // the error may repeat the URL, which may be a secret
        let answer = request
            .send(body)
            .map_err(|error| Failure::ForNow(error.to_string().replace(&self.url, "URL")))?;
        match answer.status().as_u16() {
            200..300 => Ok(()),
            code @ (408 | 425 | 429 | 500..) => Err(Failure::ForNow(format!("it answered {code}"))),
            code => Err(Failure::ForGood(format!("it answered {code}"))),
        }
    }
}

fn roots_of(file: &str) -> anyhow::Result<RootCerts> {
    let bytes = std::fs::read(file)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item? {
            certificates.push(certificate);
        }
    }
    anyhow::ensure!(!certificates.is_empty(), "there is no certificate in it (PEM is expected)");
    Ok(RootCerts::new_with_certs(&certificates))
}

fn json_body(monitor: &str, changes: &[AlertRow]) -> serde_json::Value {
    let change = |row: &AlertRow| {
        json!({ "id": row.id, "unix_ms": row.unix_ms, "kind": row.kind, "subject": row.subject,
            "state": row.state, "text": row.text })
    };
    json!({ "monitor": monitor, "alerts": changes.iter().map(change).collect::<Vec<_>>() })
}

fn slack_text(monitor: &str, changes: &[AlertRow]) -> String {
    let line = |row: &AlertRow| {
        let mark = match row.state {
            AlertState::Raised => "🔴",
            AlertState::Resolved => "🟢 resolved:",
        };
        format!("{mark} *{}* {}: {}", row.kind, slack_escaped(&row.subject), slack_escaped(&row.text))
    };
    let mut lines: Vec<String> = changes.iter().take(TEXT_CHANGES_MAX).map(line).collect();
    if changes.len() > TEXT_CHANGES_MAX {
        lines.push(format!("and {} more", changes.len() - TEXT_CHANGES_MAX));
    }
    lines.push(format!("_{}_", slack_escaped(monitor)));
    lines.join("\n")
}

/// Texts of nodes must neither mention people (`<!channel>`) nor make links, nor break the line.
fn slack_escaped(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    one_line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str) -> AlertRow {
        AlertRow {
            id: 1,
            unix_ms: 2,
            kind: "lag".into(),
            subject: subject.into(),
            state: AlertState::Raised,
            text: "5 bytes wait".into(),
            delivery: Default::default(),
        }
    }

    #[test]
    fn texts_for_slack_mention_nobody_and_stay_short() {
        let text = slack_text("monitor-1", &[row("<!channel>\n&")]);
        assert_eq!(text, "🔴 *lag* &lt;!channel&gt; &amp;: 5 bytes wait\n_monitor-1_");
        let many = slack_text("m", &vec![row("x"); 50]);
        assert_eq!(many.lines().count(), TEXT_CHANGES_MAX + 2);
        assert!(many.contains("and 30 more"));
    }
}
