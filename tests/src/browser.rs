//! A real Chromium without a window, driven by the DevTools protocol over pipes: JSON messages that end with a zero byte, read by the
//! browser from descriptor 3 and written to descriptor 4.

use crate::PATIENCE;
use anyhow::{Context, ensure};
use base64::Engine;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Connects the descriptors, and becomes the browser.
const START: &str = "exec \"$0\" \"$@\" 3<\"$PIPE_IN\" 4>\"$PIPE_OUT\"";

/// A running browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    next: u64,
    /// Methods and parameters of what it told without being asked.
    events: Vec<(String, Value)>,
    _dir: tempfile::TempDir,
}

/// Where Chromium is, if it is installed.
pub fn chromium() -> Option<PathBuf> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

impl Browser {
    /// Starts it with an empty page.
    ///
    /// # Errors
    /// It does not start, or does not answer.
    pub fn start(program: &Path) -> anyhow::Result<Browser> {
        let dir = tempfile::tempdir()?;
        let (pipe_in, pipe_out) = (dir.path().join("in"), dir.path().join("out"));
        ensure!(Command::new("mkfifo").args([&pipe_in, &pipe_out]).status()?.success(), "mkfifo failed");
        let child = Command::new("/bin/sh")
            .args(["-c", START])
            .arg(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-extensions", "--hide-scrollbars"])
            .args(["--remote-debugging-pipe", "--lang=en-GB"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .env("PIPE_IN", &pipe_in)
            .env("PIPE_OUT", &pipe_out)
            .env("HOME", dir.path())
            // its sockets stay when it is killed: they go with the folder
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?)
            .spawn()?;
        // each waits for the other end, in the order of the command above
        let to = File::options().write(true).open(&pipe_in)?;
        let out = BufReader::new(File::open(&pipe_out)?);
        let (told, from) = mpsc::channel();
        std::thread::spawn(move || {
            for message in out.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if told.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Browser { child, to, from, session: String::new(), next: 0, events: Vec::new(), _dir: dir };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut message =
                self.from.recv_timeout(left).with_context(|| format!("no answer to {method}"))?;
            if message["id"] == self.next {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].take());
            }
            if let Some(event) = message["method"].as_str() {
                self.events.push((event.to_owned(), message["params"].clone()));
            }
        }
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let opened = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        self.wait(
            &format!("{url} is loaded"),
            "document.readyState === 'complete' && location.href !== 'about:blank'",
        )
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// It throws.
    pub fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// It never is.
    pub fn wait(&mut self, what: &str, expression: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // in the middle of a navigation there is nothing to be asked
        while !self.evaluate(expression).is_ok_and(|value| value == true) {
            if Instant::now() > deadline {
                let text = self.evaluate("document.body.innerText")?;
                anyhow::bail!("waited in vain: {what}; the page: {text}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Size of the page in pixels.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn size(&mut self, width: u32, height: u32) -> anyhow::Result<()> {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", params).map(drop)
    }

    /// Light or dark.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn scheme(&mut self, scheme: &str) -> anyhow::Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] })).map(drop)
    }

    /// Writes what is seen as a PNG.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn screenshot(&mut self, file: &Path) -> anyhow::Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let bytes = base64::prelude::BASE64_STANDARD.decode(shot["data"].as_str().context("no picture")?)?;
        std::fs::write(file, bytes).with_context(|| file.display().to_string())
    }

    /// What went wrong in the page: errors, refused resources, dialogs that a script has opened.
    pub fn troubles(&self) -> Vec<String> {
        let is_trouble = |(method, params): &&(String, Value)| match method.as_str() {
            "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" => true,
            "Log.entryAdded" => params["entry"]["level"] == "error",
            _ => false,
        };
        self.events.iter().filter(is_trouble).map(|(method, params)| format!("{method}: {params}")).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // asked, it ends all of its processes
        let _ = self.call("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
