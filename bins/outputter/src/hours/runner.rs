//! Runs hooks and asks for repulls, each on a thread of its own, for as long as it may take.

use super::books::Wanted;
use super::fact::HourKey;
use super::hooks::{DueHook, HookKind};
use super::report::HourReport;
use super::repull;
use crate::config::{HoursSettings, RepullSettings};
use crate::finish::{LogFiles, Pasts, Plan};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a running command is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// A hook of a complete hour.
    Hook(DueHook, Box<HourReport>),
    /// What a tailer is to be asked for.
    Repull(Box<Wanted>),
}

/// What became of it; the error is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A hook.
    Hook(DueHook, Result<(), String>),
    /// A repull.
    Repull(Box<Wanted>, Result<(), String>),
}

/// What keeps complete hours in order to do something with them; asked again until it has taken the hour durably.
pub trait HourSink: Send + Sync {
    /// Takes an hour, whose files are below `data`; `Ok` when it is on the disk. The error is for people.
    fn take(&self, report: &HourReport, data: &Path) -> Result<(), String>;
    /// Whether it has taken an hour and still needs its files.
    fn holds(&self, key: &HourKey) -> bool;
    /// From now on log files can be read: they are recovered.
    fn follow(&self, _files: LogFiles) {}
}

/// How to do it.
#[derive(Clone)]
pub struct Runner {
    /// `[hours]`.
    pub hours: HoursSettings,
    /// `[repull]`.
    pub repull: RepullSettings,
    /// `[file] dir`.
    pub dir: PathBuf,
    /// `[etl]`.
    pub etl: Option<Arc<dyn HourSink>>,
    /// `[finish]`: where the lines of log files are.
    pub plan: Option<Plan>,
}

impl Runner {
    /// Does it; blocks.
    pub fn run(&self, job: Job) -> Ended {
        match job {
            Job::Hook(hook, mut report) => {
                if let Some(plan) = &self.plan {
                    match plan.files_now(&report.files, &mut Pasts::default()) {
                        Ok(files) => report.files = files,
                        Err(error) => return Ended::Hook(hook, Err(error.to_string())),
                    }
                }
                let outcome = match hook.kind {
                    HookKind::Command => self.run_command(&report),
                    HookKind::Webhook => self.call_webhook(&report),
                    HookKind::Etl => self.etl.as_ref().map_or(Ok(()), |etl| etl.take(&report, &self.data())),
                };
                Ended::Hook(hook, outcome)
            }
            Job::Repull(wanted) => {
                let outcome = repull::ask(&self.repull, &wanted);
                Ended::Repull(wanted, outcome)
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("log_data")
    }

    fn call_webhook(&self, report: &HourReport) -> Result<(), String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(self.hours.hook_timeout.0))
            .proxy(None)
            // to where a redirection leads the hour would not be sent along
            .max_redirects(0)
            .http_status_as_error(false)
            .build()
            .into();
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", self.hours.webhook);
        let body = serde_json::to_string(report).map_err(|error| failed(&error))?;
        let request = agent.post(&self.hours.webhook).content_type("application/json");
        let answer = request.send(body).map_err(|error| failed(&error))?;
        if answer.status().is_success() { Ok(()) } else { Err(failed(&format!("HTTP {}", answer.status()))) }
    }

    /// The facts are in the environment, so that a shell script needs nothing to read them.
    fn run_command(&self, report: &HourReport) -> Result<(), String> {
        let Some((program, arguments)) = self.hours.on_complete.split_first() else { return Ok(()) };
        let files = report.files.iter().map(|path| self.data().join(path).display().to_string());
        let mark = report.mark.as_ref().map(|mark| self.dir.join(mark).display().to_string());
        let child = Command::new(program)
            .args(arguments)
            .env("LOGFERRY_HOST", &report.host)
            .env("LOGFERRY_SOURCE", &report.source)
            .env("LOGFERRY_HOUR", &report.hour)
            .env("LOGFERRY_PACKS", report.packs.to_string())
            .env("LOGFERRY_LINES", report.lines.to_string())
            .env("LOGFERRY_BYTES", report.bytes.to_string())
            .env("LOGFERRY_FIRST", &report.first)
            .env("LOGFERRY_LAST", &report.last)
            .env("LOGFERRY_FILES", files.collect::<Vec<_>>().join("\n"))
            .env("LOGFERRY_MARK", mark.unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A group of its own, so that all that it started ends with it.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        wait(child, self.hours.hook_timeout.0).map_err(|error| format!("{program}: {error}"))
    }
}

fn wait(mut child: Child, timeout: Duration) -> Result<(), String> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) if started.elapsed() < timeout => std::thread::sleep(LOOK_INTERVAL),
            Ok(None) => {
                end(&mut child)
                    .map_err(|error| format!("did not end in time, and cannot be ended: {error}"))?;
                return Err(format!("did not end within {timeout:?}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn end(child: &mut Child) -> io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let killed = group.map_or(Ok(()), |group| kill_process_group(group, Signal::KILL));
    killed.or_else(|_| child.kill())?;
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::report::HourState;
    use super::*;
    use logferry_node::config::Interval;

    fn report() -> HourReport {
        HourReport {
            host: "web-1".into(),
            source: "access".into(),
            hour: "2026112013".into(),
            state: HourState::Complete,
            packs: 3,
            total: Some(3),
            lines: 17,
            bytes: 400,
            first: String::new(),
            last: String::new(),
            files: vec!["access/web-1_2026112013".into()],
            mark: Some("received/access/web-1_2026112013_17".into()),
            missing: Vec::new(),
            missing_bytes: Vec::new(),
            repulls: 0,
            vague: false,
        }
    }

    fn runner(on_complete: &[&str], timeout: Interval) -> Runner {
        let hours = HoursSettings {
            on_complete: on_complete.iter().map(|word| (*word).to_owned()).collect(),
            hook_timeout: timeout,
            ..HoursSettings::default()
        };
        Runner { hours, repull: RepullSettings::default(), dir: "/data".into(), etl: None, plan: None }
    }

    #[test]
    fn a_command_gets_the_facts_of_the_hour_and_its_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!(
            "printf '%s ' \"$LOGFERRY_SOURCE\" \"$LOGFERRY_HOST\" \"$LOGFERRY_HOUR\" \"$LOGFERRY_LINES\" \
             \"$LOGFERRY_FILES\" \"$LOGFERRY_MARK\" > {}",
            out.display()
        );
        runner(&["sh", "-c", &script], Interval::secs(60)).run_command(&report()).unwrap();
        assert_eq!(
            std::fs::read_to_string(out).unwrap(),
            "access web-1 2026112013 17 /data/log_data/access/web-1_2026112013 \
             /data/received/access/web-1_2026112013_17 "
        );
        let error = runner(&["sh", "-c", "exit 3"], Interval::secs(60)).run_command(&report()).unwrap_err();
        assert!(error.contains("exit status: 3"), "{error}");
        let error = runner(&["/no/such/program"], Interval::secs(60)).run_command(&report()).unwrap_err();
        assert!(error.contains("cannot start /no/such/program"), "{error}");
    }

    #[test]
    fn a_hook_is_not_told_of_a_part_of_its_files_while_the_others_are_away() {
        use crate::file::headers::{Finished, Place, finished_line};
        use crate::finish::FinishSettings;
        let dir = tempfile::tempdir().unwrap();
        let [log_data, headers, archive] =
            ["log_data", "headers", "archive"].map(|name| dir.path().join(name));
        let files = report().files;
        for folder in [&log_data, &headers] {
            std::fs::create_dir_all(folder.join(&files[0]).parent().unwrap()).unwrap();
        }
        std::fs::write(log_data.join(&files[0]), "late\n").unwrap();
        let finished = Place::File(archive.join(&files[0]).display().to_string());
        let line = finished_line(&Finished { place: finished, data: 1, bytes: 1, crc: None });
        std::fs::write(headers.join(&files[0]), line).unwrap();
        let settings = FinishSettings { dir: archive.clone(), ..FinishSettings::default() };
        let plan = Plan::new(&settings, &log_data, crate::file::archive::Form::Lines).unwrap();
        let runner = Runner { plan: Some(plan), ..runner(&["true"], Interval::secs(60)) };
        let run = || {
            let hour = 2026112013.try_into().unwrap();
            let key = HourKey { source: "access".into(), host: "web-1".into(), hour };
            let hook = DueHook { key, kind: HookKind::Command, extent: Default::default() };
            let Ended::Hook(_, outcome) = runner.run(Job::Hook(hook, Box::new(report()))) else { panic!() };
            outcome
        };
        let error = run().unwrap_err();
        assert!(error.contains("is its disk mounted?"), "{error}");
        std::fs::create_dir_all(archive.join(".logferry")).unwrap();
        assert_eq!(run(), Ok(()));
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_with_all_that_it_started() {
        let begin = Instant::now();
        let runner = runner(&["sh", "-c", "sleep 600 & sleep 600"], Interval::ms(50));
        let error = runner.run_command(&report()).unwrap_err();
        assert!(error.contains("did not end within 50ms"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
}
