//! `top`: the nodes that the monitor knows, live in the terminal.

use crate::registry::{From, ask, node_row, one_line};
use crate::{Output, Verdict, human};
use logferry_monitor::registry::State;
use logferry_monitor::web::{AlertsView, NodeView};
use logferry_node::config::Interval;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Longest that a key waits to be seen.
const KEY_WAIT_MAX: Duration = Duration::from_millis(100);
const COLUMNS: [(&str, u16); 9] = [
    ("STATE", 7),
    ("ROLE", 10),
    ("NAME", 24),
    ("WAITING", 11),
    ("RATE", 13),
    ("SPOOL", 11),
    ("UPTIME", 9),
    ("SEEN", 12),
    ("PROBLEMS", 0),
];
/// Places of these columns in a row of `ferryctl nodes`.
const PLACES: [usize; 9] = [0, 1, 2, 4, 5, 6, 7, 8, 10];

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    from: From,
    /// Time between two looks.
    #[arg(long, default_value = "1s")]
    interval: Interval,
}

/// What is on the screen.
#[derive(Default)]
struct View {
    nodes: Vec<NodeView>,
    alerts: AlertsView,
    error: Option<String>,
    /// Rows that are scrolled away.
    above: usize,
}

/// Until `q`.
pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    if !std::io::stdout().is_terminal() {
        writeln!(output.err, "error: top needs a terminal; `ferryctl nodes` prints the same once")?;
        return Ok(Verdict::Usage);
    }
    // the first answer before the screen is taken: a wrong address is said as elsewhere
    let mut view = View { nodes: ask(&args.from, "/api/nodes", &[])?, ..View::default() };
    let mut terminal = ratatui::try_init()?;
    let outcome = show(args, &mut view, &mut terminal);
    ratatui::restore();
    outcome.map(|()| Verdict::Fine)
}

fn show(args: &Args, view: &mut View, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
    let mut look_at = Instant::now();
    loop {
        if Instant::now() >= look_at {
            view.look(&args.from);
            look_at = Instant::now() + args.interval.0;
        }
        terminal.draw(|frame| draw(frame, view))?;
        let wait = look_at.saturating_duration_since(Instant::now()).min(KEY_WAIT_MAX);
        if event::poll(wait)?
            && let Event::Key(key) = event::read()?
        {
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => view.above += 1,
                KeyCode::Up | KeyCode::Char('k') => view.above = view.above.saturating_sub(1),
                _ => {}
            }
        }
        view.above = view.above.min(view.nodes.len().saturating_sub(1));
    }
}

impl View {
    /// What is not answered leaves what was true last, and says so.
    fn look(&mut self, from: &From) {
        let asked = ask(from, "/api/nodes", &[])
            .and_then(|nodes| Ok((nodes, ask(from, "/api/alerts", &[("limit", "0".to_owned())])?)));
        match asked {
            Ok((nodes, alerts)) => (self.nodes, self.alerts, self.error) = (nodes, alerts, None),
            Err(error) => self.error = Some(format!("{error:#}")),
        }
    }

    fn sums(&self) -> String {
        let of_tier = |tier: &str| {
            let nodes = || self.nodes.iter().filter(|node| node.tier == tier && node.state != State::Left);
            let rate = nodes().filter_map(|node| node.rate_bytes).fold(0, u64::saturating_add);
            format!("{} {tier}s {}/s", nodes().count(), human::bytes(rate))
        };
        ["tailer", "collector", "outputter"].map(of_tier).join("  →  ")
    }
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let lines = Layout::vertical([Constraint::Length(2), Constraint::Min(3), Constraint::Length(1)]);
    let [head, body, foot] = lines.areas(frame.area());
    let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let second = match (&view.error, view.alerts.open.first()) {
        (Some(error), _) => Line::styled(one_line(&format!("this is what was true last: {error}")), bad),
        (None, Some(first)) => {
            let text = format!(
                "{} open alerts: {}, {}: {}",
                view.alerts.open.len(),
                first.kind,
                first.subject,
                first.text
            );
            Line::styled(one_line(&text), bad)
        }
        (None, None) => Line::raw("no open alerts"),
    };
    frame.render_widget(Paragraph::new(vec![Line::from(Span::raw(view.sums())), second]), head);
    let widths =
        COLUMNS.map(|(_, width)| if width == 0 { Constraint::Fill(1) } else { Constraint::Length(width) });
    let header = Row::new(COLUMNS.map(|(name, _)| name)).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = view.nodes.iter().skip(view.above).take(body.height.into()).map(row);
    frame.render_widget(Table::new(rows, widths).header(header), body);
    frame.render_widget(Paragraph::new("q ends, ↑ and ↓ scroll"), foot);
}

fn row(node: &NodeView) -> Row<'static> {
    let texts = node_row(node);
    let cells = PLACES.map(|place| Cell::from(texts.get(place).cloned().unwrap_or_default()));
    let color = match node.state {
        State::Silent => Color::Red,
        State::Left => Color::DarkGray,
        State::Up if node.ready == Some(false) || !node.problems.is_empty() => Color::Yellow,
        State::Up => Color::Reset,
    };
    Row::new(cells).style(Style::new().fg(color))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const NODES: &str = r#"[{"id":"b","name":"out-1\u001b[31m","role":"outputter","tier":"outputter","addr":"10.0.0.8:4000","host":"h",
        "state":"silent","since_ms":0,"version":"","seen_ms":null,"lag":null,"lag_bytes":1536,"lag_s":null,"rate_bytes":2048,
        "rate_lines":null,"spool_bytes":null,"spool_packs":null,"uptime_s":60,"ready":null,"problems":["no answer"],"last_error":null}]"#;

    #[test]
    fn a_screen_shows_nodes_and_sums_and_texts_command_no_terminal() {
        let mut view = View { nodes: serde_json::from_str(NODES).expect("nodes"), ..View::default() };
        for (width, height) in [(120, 10), (20, 3), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
            terminal.draw(|frame| draw(frame, &view)).expect("drawn");
            let text = terminal.backend().to_string();
            assert!(!text.contains('\u{1b}'));
            if width == 120 {
                for shown in
                    ["SILENT", "out-1", "1.5 KiB", "1 outputters 2.0 KiB/s", "no answer", "no open alerts"]
                {
                    assert!(text.contains(shown), "{shown} is missing in\n{text}");
                }
            }
        }
        let huge = NodeView { rate_bytes: Some(u64::MAX), ..view.nodes[0].clone() };
        view.nodes.extend([huge.clone(), huge]);
        assert!(view.sums().contains("3 outputters 16384.0 PiB/s"), "{}", view.sums());
        view.error = Some("no monitor answers".into());
        let mut terminal = Terminal::new(TestBackend::new(80, 5)).expect("a screen");
        terminal.draw(|frame| draw(frame, &view)).expect("drawn");
        assert!(terminal.backend().to_string().contains("this is what was true last"));
    }
}
