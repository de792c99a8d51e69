//! What a run shows while it trains: a bar in a terminal, now and then a line elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bullet_nn::train::{Callback, Evaluation, Flow, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{clock, count, note, number};

/// Time between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(5);

/// Shows a run on standard error.
pub(crate) struct Screen {
    kind: Kind,
}

enum Kind {
    Quiet,
    Lines(Option<Instant>),
    Bar(Option<ProgressBar>),
}

impl Screen {
    /// A bar if standard error is a terminal, else lines; only warnings if `quiet`.
    pub(crate) fn new(quiet: bool) -> Screen {
        let kind = match quiet {
            true => Kind::Quiet,
            false if std::io::stderr().is_terminal() => Kind::Bar(None),
            false => Kind::Lines(None),
        };
        Screen { kind }
    }

    /// A line that stays, above the bar if there is one.
    fn print(&self, line: String) {
        match &self.kind {
            Kind::Bar(Some(bar)) => bar.println(line),
            Kind::Quiet | Kind::Lines(_) | Kind::Bar(None) => note(line),
        }
    }
}

fn new_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:26}] {pos}/{len}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style.progress_chars("=> "))
}

fn speed(p: &Progress) -> String {
    format!("loss {}  {} tokens/s  ETA {}", number(p.loss, 3), count(p.tokens_per_second), clock(p.eta))
}

impl Callback for Screen {
    fn on_step(&mut self, step: u64, steps: u64) -> Flow {
        if let Kind::Bar(bar) = &mut self.kind {
            bar.get_or_insert_with(|| new_bar(steps)).set_position(step);
        }
        Flow::Continue
    }

    fn on_log(&mut self, p: &Progress) -> Flow {
        match &mut self.kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => {
                bar.get_or_insert_with(|| new_bar(p.steps)).set_message(speed(p));
            }
            Kind::Lines(last) => {
                if p.step == p.steps || last.is_none_or(|t| t.elapsed() >= INTERVAL) {
                    *last = Some(Instant::now());
                    note(format_args!("step {}/{}  {}", p.step, p.steps, speed(p)));
                }
            }
        }
        Flow::Continue
    }

    fn on_eval(&mut self, e: &Evaluation) -> Flow {
        if !matches!(self.kind, Kind::Quiet) {
            let (loss, bits) = (number(e.loss, 3), number(e.bits_per_byte, 3));
            let best = if e.best { "  (best so far)" } else { "" };
            self.print(format!("step {}  validation loss {loss}  {bits} bits/byte{best}", e.step));
        }
        Flow::Continue
    }

    fn on_warning(&mut self, message: &str) {
        self.print(format!("warning: {message}"));
    }

    fn on_end(&mut self, _: &bullet_nn::train::Report) {
        if let Kind::Bar(Some(bar)) = &self.kind {
            // `finish` would show a stopped run as a whole one.
            bar.abandon();
        }
    }
}
