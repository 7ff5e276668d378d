//! Asking a running tailer for a repull, and watching it: `logferry-tailer repull` on the host, `ferryctl repull` from anywhere.

mod watch;

use super::request::{Progress, Request};
use crate::config::TailerConfig;
use anyhow::{Context, bail};
use clap::Parser;
use logferry_durable::lock_dir;
use logferry_node::admin::{ADDR_FILE, read_token};
use logferry_node::cli::USAGE_STATUS;
use logferry_node::config;
use logferry_pack::Hour;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest time in which all of a long answer comes.
const READ_MAX: Duration = Duration::from_secs(24 * 3600);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What to ship again, on a command line.
#[derive(clap::Args, Clone, Debug)]
pub struct What {
    /// Hour, YYYYMMDDHH in the time zone of the host.
    #[arg(long, value_parser = parse_hour)]
    pub hour: Option<Hour>,
    /// Name of the source; all sources without it.
    #[arg(long)]
    pub source: Option<String>,
    /// File, as the host knows it.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Bytes of the file: the first, and the one after the last.
    #[arg(long, value_name = "FROM-TO", value_parser = parse_range, requires = "file")]
    pub range: Option<(u64, u64)>,
    /// Put the hour in the place of what the store has of it, because the store's file is damaged.
    #[arg(long, requires = "hour", conflicts_with = "file")]
    pub replace: bool,
    /// Put it there even if it has fewer lines, because a filter or another setting leaves lines out now.
    #[arg(long, requires = "replace")]
    pub fewer_lines: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl What {
    /// As the tailer wants it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn request(&self) -> anyhow::Result<Request> {
        let Self { hour, source, file, range, replace, fewer_lines, .. } = self.clone();
        let request = Request { source, hour, file, range, replace, fewer_lines };
        request.check().map_err(anyhow::Error::msg)?;
        Ok(request)
    }
}

#[derive(Parser)]
#[command(name = "logferry-tailer repull", version)]
#[command(about = "Asks the tailer that runs on this host to ship an hour, a file or a byte range again.")]
#[command(
    after_help = "The store writes only what it lacks; with --replace it puts what is shipped in the place of its own file.\nExit status: 0 all is in the store, 1 something is not, 2 wrong usage."
)]
struct Cli {
    /// Configuration file of the tailer.
    #[arg(long, value_name = "FILE", default_value = "/etc/logferry/tailer.toml")]
    config: PathBuf,
    #[command(flatten)]
    what: What,
}

/// `logferry-tailer repull …`; `args` begin with the word `repull`.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let outcome = cli.what.request().and_then(|request| Ok((request, on_this_host(&cli.config)?)));
    let outcome = match outcome {
        Ok((request, node)) => node.repull(&request, cli.what.json, &mut io::stdout().lock()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            return ExitCode::from(USAGE_STATUS);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            if is_mistake(&error) { ExitCode::from(USAGE_STATUS) } else { ExitCode::FAILURE }
        }
    }
}

/// The node says that what it was asked for makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mistake(String);

/// Whether an error of [`RunningNode`] is a mistake of whoever asked: a source that is none, an hour that is none.
pub fn is_mistake(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Mistake>())
}

/// The tailer with this configuration, which must be running: only one process may have its `var_dir`.
fn on_this_host(config: &Path) -> anyhow::Result<RunningNode> {
    let settings = config::load::<TailerConfig>(config)?.node;
    let var_dir = &settings.var_dir;
    let addr = match std::fs::read_to_string(var_dir.join(ADDR_FILE)) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound && is_running(var_dir) => {
            bail!(
                "the tailer runs, but has no admin address: set admin in [node] of {} and restart it",
                config.display()
            )
        }
        Err(_) => bail!("the tailer is not running ({}): start it and ask again", var_dir.display()),
    };
    if !is_running(var_dir) {
        bail!("the tailer is not running ({}): start it and ask again", var_dir.display());
    }
    let token = match settings.token_file.as_str() {
        "" => None,
        file => Some(read_token(Path::new(file))?),
    };
    Ok(RunningNode { addr, token })
}

/// Whether a process has the lock of its folder.
fn is_running(var_dir: &Path) -> bool {
    var_dir.is_dir() && lock_dir(var_dir).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn parse_hour(text: &str) -> Result<Hour, String> {
    text.parse().map_err(|_| "expected YYYYMMDDHH, such as 2026112013".to_owned())
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let range =
        || Some(text.split_once('-')?).and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    range().filter(|(from, to)| from < to).ok_or_else(|| "expected FROM-TO, such as 0-4096".to_owned())
}

/// A node at its admin endpoint.
#[derive(Clone)]
pub struct RunningNode {
    /// Address, `host:port`.
    pub addr: String,
    /// Its token.
    pub token: Option<String>,
}

impl RunningNode {
    /// Asks for a repull and watches it to its end, with its progress on stderr and its result in `out`. Whether all that was asked for
    /// is in the store.
    ///
    /// # Errors
    /// The node cannot be asked, or was restarted meanwhile.
    pub fn repull(&self, request: &Request, json: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
        let body = serde_json::to_string(request)?;
        let begun: Progress = serde_json::from_str(&self.ask("POST", "/repull", Some(&body))?)
            .with_context(|| format!("{} does not answer as a tailer does", self.addr))?;
        let ended = watch::to_the_end(begun, |id| {
            let text = self.ask("GET", &format!("/repull/{id}"), None).with_context(|| {
                format!("repull {id} was interrupted: what was shipped stays; ask again for the rest, nothing is written twice")
            })?;
            Ok(serde_json::from_str(&text)?)
        })?;
        watch::report(&ended, json, out)?;
        Ok(ended.is_complete())
    }

    /// One request; the text of its answer.
    ///
    /// # Errors
    /// The node is not there, or refuses.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> anyhow::Result<String> {
        let mut answer = self.call(method, path, body, ANSWER_MAX)?;
        Ok(answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?)
    }

    /// An answer that may take hours, to be read as it comes.
    ///
    /// # Errors
    /// The node is not there, or refuses.
    pub fn read(&self, path: &str) -> anyhow::Result<impl BufRead + use<>> {
        let answer = self.call("GET", path, None, READ_MAX)?;
        Ok(BufReader::new(answer.into_body().into_reader()))
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        longest: Duration,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(longest))
            .timeout_connect(Some(ANSWER_MAX))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .into();
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answered = match body {
            Some(body) => {
                agent.run(request.header("Content-Type", "application/json").body(body.to_owned())?)
            }
            None => agent.run(request.body(())?),
        };
        let mut response = answered.with_context(|| format!("{} cannot be asked", self.addr))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        let error = serde_json::from_str::<serde_json::Value>(&text).ok();
        let error = error.and_then(|value| Some(value["error"].as_str()?.to_owned())).unwrap_or(text);
        let error = format!("{} answers {status}: {}", self.addr, error.trim());
        if status == ureq::http::StatusCode::BAD_REQUEST {
            return Err(Mistake(error).into());
        }
        bail!("{error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_hours_are_read_as_they_are_written() {
        assert_eq!(parse_range("0-4096"), Ok((0, 4096)));
        for bad in ["", "5", "5-", "-5", "9-9", "9-3", "a-b", "1-2-3"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
        assert!(parse_hour("2026112013").is_ok() && parse_hour("20261120").is_err());
    }

    #[test]
    fn a_tailer_that_does_not_run_is_said_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("tailer.toml");
        let var_dir = folder.path().join("var");
        let text = format!(
            "[node]\nvar_dir = {var_dir:?}\n[[source]]\nname = \"a\"\npath = \"/a\"\n[send]\nto = [\"127.0.0.1:1\"]\n"
        );
        std::fs::write(&config, text).expect("written");
        let error = |what: &str| {
            let error = on_this_host(&config).err().expect("an error").to_string();
            assert!(error.contains(what), "{error}");
        };
        error("is not running");
        std::fs::create_dir(&var_dir).expect("a folder");
        // left behind by one that was killed
        std::fs::write(var_dir.join(ADDR_FILE), "127.0.0.1:1\n").expect("written");
        error("is not running");
        let lock = lock_dir(&var_dir).expect("free");
        assert_eq!(on_this_host(&config).expect("it runs").addr, "127.0.0.1:1");
        std::fs::remove_file(var_dir.join(ADDR_FILE)).expect("removed");
        error("no admin address");
        drop(lock);
    }
}
