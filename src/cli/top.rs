//! `alluvium top`: how the daemons are, live, in a terminal. It asks each instance over HTTP. Without a terminal it
//! prints one frame as text.

mod asking;
mod model;
mod view;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use ratatui::{
    DefaultTerminal, Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use reqwest::Url;
use serde_json::json;

use super::{CommandResult, Globals, http, output};
use crate::{
    config::Expect,
    time::{SystemTime, Time},
};
use asking::Asking;
use model::Model;

/// How long a key is waited for at once. The end of the command waits as long.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// How wide one frame is that goes to no terminal.
const TEXT_WIDTH: u16 = 120;
/// And how high: what does not fit is left out.
const TEXT_HEIGHT: u16 = 200;

#[derive(Args, Debug)]
pub(super) struct Top {
    /// Where an instance serves HTTP; may be given several times [default: `http.listen` of the configuration]
    #[arg(long = "url", value_name = "URL", value_parser = address)]
    urls: Vec<Url>,
    /// A token that may read, where the daemon asks for one
    #[arg(long, env = "ALLUVIUM_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the token, as its only line: other users of this machine see what the command line holds
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// A file with the certificates, in PEM, of who may have signed an instance's [default: those that this machine
    /// trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How often to look
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = interval)]
    interval: Duration,
    /// Print one frame as text and end; as it does where standard output is no terminal
    #[arg(long)]
    once: bool,
}

fn address(text: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|error| {
        format!("{error}; it begins with http:// or https://, such as http://127.0.0.1:8750")
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(200)..=Duration::from_secs(3600);
    let complaint = || "it has to be from 200ms to 1h".to_owned();
    allowed.contains(&interval).then_some(interval).ok_or_else(complaint)
}

/// None of the instances has answered.
#[derive(Debug, thiserror::Error)]
#[error("no daemon answers: {0}; see that one runs there, or give its address with --url")]
struct NobodyAnswers(String);

impl Top {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        let urls = match self.urls.is_empty() {
            false => self.urls.clone(),
            true => {
                vec![Url::parse(&http::own(&globals.load(Expect::Connection)?.http))?]
            }
        };
        let token = match &self.token_file {
            Some(file) => Some(http::token(file)?),
            None => self.token.clone(),
        };
        let asking = Asking::new(urls, token.as_deref(), self.ca.as_deref())?;
        let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
        if self.once || globals.json || !has_terminal {
            if !self.once && !globals.json {
                output::note("this is no terminal: one frame, as with --once");
            }
            return self.once(&asking, globals).await;
        }
        let mut screen = Screen::open()?;
        self.live(&asking, &mut screen.0).await
    }

    /// One frame. Rates need two looks.
    async fn once(&self, asking: &Asking, globals: &Globals) -> CommandResult {
        let mut model = Model::default();
        model.look(asking.all().await, Instant::now());
        if model.is_anybody_there() {
            SystemTime::new().sleep(self.interval.min(Duration::from_secs(1))).await;
            model.look(asking.all().await, Instant::now());
        }
        if globals.json {
            output::json(&json!(model))?;
        } else {
            output::line(text(&model)?)?;
        }
        match model.is_anybody_there() {
            true => Ok(()),
            false => Err(NobodyAnswers(model.complaints().join("; ")).into()),
        }
    }

    async fn live(&self, asking: &Asking, terminal: &mut DefaultTerminal) -> CommandResult {
        let mut model = Model::default();
        let mut looks = tokio::time::interval(self.interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut keys = Box::pin(next_key());
        let mut answers = None;
        loop {
            terminal.draw(|frame| view::draw(frame, &model))?;
            tokio::select! {
                biased;
                key = &mut keys => {
                    match key?.and_then(meaning) {
                        Some(Wish::Quit) => return Ok(()),
                        Some(Wish::Pause) => model.is_held = !model.is_held,
                        None => {}
                    }
                    keys = Box::pin(next_key());
                }
                // An instance that hangs does not hold up the keys.
                seen = async { Some(answers.as_mut()?.await) }, if answers.is_some() => {
                    answers = None;
                    if let Some(seen) = seen && !model.is_held {
                        model.look(seen, Instant::now());
                    }
                }
                _ = looks.tick(), if answers.is_none() => answers = Some(Box::pin(asking.all())),
            }
        }
    }
}

enum Wish {
    Quit,
    Pause,
}

/// What a key asks for. In a terminal that hands on every key Ctrl-C is one as well.
fn meaning(key: KeyEvent) -> Option<Wish> {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        _ => None,
    }
}

/// The next key, or none within a moment. Another size is drawn like no key.
async fn next_key() -> io::Result<Option<KeyEvent>> {
    let waiting = tokio::task::spawn_blocking(|| {
        if !event::poll(KEY_WAIT)? {
            return Ok(None);
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => Ok(Some(key)),
            _ => Ok(None),
        }
    });
    waiting.await.map_err(io::Error::other)?
}

/// The terminal while it is ours. It is given back however this ends: by a return, a signal, which drops the
/// command, or a panic, for which the library has a hook.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whoever has gone wants no terminal back.
        drop(ratatui::try_restore());
    }
}

/// A frame as text.
fn text(model: &Model) -> io::Result<String> {
    let mut terminal =
        Terminal::new(TestBackend::new(TEXT_WIDTH, TEXT_HEIGHT)).map_err(io::Error::other)?;
    terminal.draw(|frame| view::draw_text(frame, model)).map_err(io::Error::other)?;
    Ok(view::lines(terminal.backend().buffer()).join("\n").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_told_how_it_begins() {
        assert!(address("127.0.0.1:8750").unwrap_err().contains("begins with http://"));
        assert!(address("http://127.0.0.1:8750").is_ok());
    }
}
