//! Drawing a model. On a narrow terminal columns go, the least needed first.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Row as Cells, Table, Wrap},
};

use super::model::{Instance, Job, Model, Row};

/// A column: its heading, its width, how wide the screen has to be for it, and what it shows.
type Column = (&'static str, u16, u16, fn(&Row) -> String);

const COLUMNS: [Column; 10] = [
    ("COLLECTION", 18, 0, |row| row.name.clone()),
    ("LEADS", 8, 70, leads),
    ("PHASE", 11, 44, |row| row.phase.replace('_', " ")),
    ("LAG", 9, 0, |row| row.lag_seconds.map_or_else(unknown, seconds)),
    ("BEHIND", 9, 100, |row| row.lag_events.map_or_else(unknown, |events| count(events as f64))),
    ("EVENTS/s", 9, 58, |row| row.applied_per_second.map_or_else(unknown, count)),
    ("ROWS/s", 8, 90, |row| row.written_per_second.map_or_else(unknown, count)),
    ("GAPS", 6, 36, |row| row.gaps.map_or_else(unknown, |gaps| count(gaps as f64))),
    ("PARKED", 7, 36, |row| row.parked.map_or_else(unknown, |parked| count(parked as f64))),
    ("OPLOG", 8, 80, |row| row.oplog_headroom_seconds.map_or_else(unknown, seconds)),
];

/// Below so many columns the URL of an instance is left out.
const WIDE: u16 = 70;

/// A frame for a terminal.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let keys = area.height.saturating_sub(1);
    let body = Rect { height: keys, ..area };
    all(frame, body, model);
    let held = if model.is_held { "  HELD, as it was: p goes on" } else { "" };
    let line = Line::from(format!("q quit  p hold{held}")).style(Modifier::REVERSED);
    frame.render_widget(line, Rect { y: area.y + keys, height: area.height.min(1), ..area });
}

/// A frame that stays.
pub(super) fn draw_text(frame: &mut Frame<'_>, model: &Model) {
    all(frame, frame.area(), model);
}

/// What a buffer holds, line by line.
pub(super) fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    };
    buffer.content.chunks(width).map(line).collect()
}

fn all(frame: &mut Frame<'_>, mut area: Rect, model: &Model) {
    if model.instances.is_empty() {
        frame.render_widget(Line::from("asking …"), area);
        return;
    }
    for instance in &model.instances {
        heading(frame, &mut area, instance);
        collections(frame, &mut area, instance);
    }
    let waits: Vec<Line<'_>> = model.instances.iter().flat_map(complaints).collect();
    if !waits.is_empty() {
        titled(frame, &mut area, "What needs attention", waits);
    }
    if !model.jobs.is_empty() {
        titled(frame, &mut area, "Jobs", model.jobs.iter().map(job).collect());
    }
}

/// Takes so many lines off the top of what is left.
fn take(area: &mut Rect, height: usize) -> Rect {
    let height = u16::try_from(height).unwrap_or(u16::MAX).min(area.height);
    let taken = Rect { height, ..*area };
    *area = Rect { y: area.y + height, height: area.height - height, ..*area };
    taken
}

fn heading(frame: &mut Frame<'_>, area: &mut Rect, instance: &Instance) {
    let name = instance.name.as_deref().unwrap_or(&instance.url);
    let mut line = vec![Span::from(name.to_owned()).style(Modifier::BOLD)];
    if area.width >= WIDE {
        let version = instance.version.as_deref().map(|version| format!("  {version}"));
        line.push(Span::from(format!("{}  {}", version.unwrap_or_default(), instance.url)));
    }
    frame.render_widget(Line::from(line), take(area, 1));
    if let Some(why) = &instance.complaint {
        let said = format!("does not answer, trying again: {why}");
        let height = said.chars().count().div_ceil(usize::from(area.width).max(1));
        let said = Paragraph::new(said).style(Color::Red).wrap(Wrap { trim: true });
        frame.render_widget(said, take(area, height));
    }
}

fn collections(frame: &mut Frame<'_>, area: &mut Rect, instance: &Instance) {
    let shown: Vec<&Column> =
        COLUMNS.iter().filter(|(_, _, least, _)| *least <= area.width).collect();
    let widths = shown.iter().map(|(_, width, ..)| Constraint::Length(*width));
    let head = Cells::new(shown.iter().map(|(title, ..)| *title)).style(Modifier::DIM);
    let rows = instance.collections.iter().map(|row| {
        let style = match (&instance.complaint, is_well(row)) {
            (Some(_), _) => Style::from(Modifier::DIM),
            (None, true) => Style::default(),
            (None, false) => Style::from(Color::Yellow),
        };
        Cells::new(shown.iter().map(|(_, _, _, cell)| cell(row))).style(style)
    });
    let table = Table::new(rows, widths).header(head).column_spacing(1);
    frame.render_widget(table, take(area, instance.collections.len() + 1));
    take(area, 1);
}

fn titled(frame: &mut Frame<'_>, area: &mut Rect, title: &str, lines: Vec<Line<'_>>) {
    frame.render_widget(Line::from(title.to_owned()).style(Modifier::BOLD), take(area, 1));
    let width = usize::from(area.width).max(1);
    // A word that does not fit in a line may cost one more.
    let height = lines.iter().map(|line| line.width().div_ceil(width) + line.width() / width);
    let text = take(area, height.map(|height| height.max(1)).sum());
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), text);
    take(area, 1);
}

fn is_well(row: &Row) -> bool {
    row.last_error.is_none()
        && row.compaction_stands.is_none()
        && !matches!(row.phase.as_str(), "paused" | "refused")
        && row.gaps.unwrap_or_default() + row.parked.unwrap_or_default() == 0
}

/// What needs attention of an instance, in words.
fn complaints(instance: &Instance) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for row in &instance.collections {
        let mut say = |what: String| lines.push(Line::from(format!("{}: {what}", row.name)));
        if row.phase == "paused" {
            say("it is paused (`alluvium resume` lets it go on)".into());
        }
        if let Some(gaps) = row.gaps.filter(|gaps| *gaps > 0) {
            say(format!("{gaps} documents wait behind a gap (`alluvium gap list`)"));
        }
        if let Some(parked) = row.parked.filter(|parked| *parked > 0) {
            say(format!("{parked} documents are parked (`alluvium quarantine list`)"));
        }
        if let Some(error) = &row.last_error {
            say(error.clone());
        }
        if let Some(why) = &row.compaction_stands {
            say(format!("nothing is compacted: {why}"));
        }
    }
    lines
}

fn job(job: &Job) -> Line<'static> {
    let document = job.document.as_ref().map_or_else(String::new, |id| format!(" {id}"));
    let progress = match (job.done, job.total) {
        (Some(done), Some(total)) => format!("  {done} of {total}"),
        (Some(done), None) if done > 0 => format!("  {done}"),
        _ => String::new(),
    };
    let error = job.error.as_ref().map_or_else(String::new, |error| format!("  {error}"));
    let (state, kind, collection) = (&job.state, &job.kind, &job.collection);
    Line::from(format!("{state:<9} {kind} {collection}{document}{progress}{error}"))
}

fn leads(row: &Row) -> String {
    match (row.parts, row.role.as_deref()) {
        (Some((led, all)), Some(_)) => format!("{led} of {all}"),
        (_, Some("leader")) => "yes".into(),
        (_, Some(_)) => "no".into(),
        (_, None) => unknown(),
    }
}

fn unknown() -> String {
    "?".into()
}

fn seconds(seconds: f64) -> String {
    match seconds {
        _ if seconds.abs() < 120.0 => format!("{seconds:.0} s"),
        _ if seconds.abs() < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3_600.0),
    }
}

fn count(count: f64) -> String {
    match count {
        _ if count < 10_000.0 => format!("{count:.0}"),
        _ if count < 1e7 => format!("{:.0} k", count / 1e3),
        _ => format!("{:.0} M", count / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn model() -> Model {
        let games = Row {
            name: "games".into(),
            role: Some("leader".into()),
            phase: "tailing".into(),
            lag_seconds: Some(0.0),
            lag_events: Some(3),
            applied_per_second: Some(1234.4),
            written_per_second: Some(50_000.0),
            gaps: Some(1),
            parked: Some(0),
            oplog_headroom_seconds: Some(86_400.0),
            ..Row::default()
        };
        let users = Row {
            name: "users".into(),
            role: Some("standby".into()),
            phase: "standing_by".into(),
            ..Row::default()
        };
        let well = Instance {
            url: "http://a:8750".into(),
            name: Some("pod-0-abcdef".into()),
            version: Some("0.1.0".into()),
            collections: vec![games, users],
            ..Instance::default()
        };
        let away = Instance {
            url: "http://b:8750".into(),
            complaint: Some("Connection refused".into()),
            ..Instance::default()
        };
        let job = Job {
            kind: "verify".into(),
            collection: "games".into(),
            document: None,
            state: "running".into(),
            done: Some(5),
            total: Some(10),
            error: None,
        };
        Model { instances: vec![well, away], jobs: vec![job], is_held: false }
    }

    fn drawn(width: u16, height: u16, model: &Model) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        lines(terminal.backend().buffer())
    }

    #[test]
    fn everything_is_in_sight_on_a_wide_terminal() {
        let wanted = "\
pod-0-abcdef  0.1.0  http://a:8750
COLLECTION         LEADS    PHASE       LAG       BEHIND    EVENTS/s  ROWS/s   GAPS   PARKED  OPLOG
games              yes      tailing     0 s       3         1234      50 k     1      0       24 h
users              no       standing by ?         ?         ?         ?        ?      ?       ?

http://b:8750  http://b:8750
does not answer, trying again: Connection refused
COLLECTION         LEADS    PHASE       LAG       BEHIND    EVENTS/s  ROWS/s   GAPS   PARKED  OPLOG

What needs attention
games: 1 documents wait behind a gap (`alluvium gap list`)

Jobs
running   verify games  5 of 10

q quit  p hold";
        assert_eq!(drawn(110, 16, &model()).join("\n"), wanted);
    }

    #[test]
    fn a_narrow_terminal_keeps_what_matters_and_none_is_too_small() {
        let narrow = drawn(40, 20, &model());
        assert_eq!(narrow[0], "pod-0-abcdef");
        let columns: Vec<&str> = narrow[1].split_whitespace().collect();
        assert_eq!(columns, ["COLLECTION", "LAG", "GAPS", "PARKED"]);
        assert!(narrow.iter().any(|line| line.contains("Connection refused")), "{narrow:?}");
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 1)] {
            drawn(width, height, &model());
        }
    }

    #[test]
    fn a_frame_that_is_held_says_so() {
        let held = Model { is_held: true, ..model() };
        assert!(drawn(80, 10, &held)[9].contains("HELD"), "{:?}", drawn(80, 10, &held));
        assert_eq!(drawn(80, 3, &Model::default())[0], "asking …");
    }
}
