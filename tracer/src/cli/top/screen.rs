//! What `tracer top` shows, and what the keys change. Knows no terminal: it draws into a frame.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};

use crate::export::top::{Blocker, Board, Figures};
use crate::model::TraceId;

/// Blockers that are shown at most.
const MAX_BLOCKERS: usize = 5;
/// Columns of a trace's lines; what is longer is cut at the screen's edge.
const TRACE_WIDTH: usize = 400;

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Rate,
    Errors,
    P50,
    P90,
    P99,
    Max,
    Waited,
    Name,
}

impl Order {
    const ALL: [Self; 8] =
        [Self::Rate, Self::Errors, Self::P50, Self::P90, Self::P99, Self::Max, Self::Waited, Self::Name];

    fn title(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Max => "max",
            Self::Waited => "waited",
            Self::Name => "name",
        }
    }

    fn sort(self, figures: &mut [Figures]) {
        // The name last, so that equal rows do not change places.
        figures.sort_by(|a, b| (&a.service, &a.operation).cmp(&(&b.service, &b.operation)));
        match self {
            Self::Rate => figures.sort_by(|a, b| b.rate.total_cmp(&a.rate)),
            Self::Errors => figures.sort_by_key(|row| Reverse(row.errors)),
            Self::P50 => figures.sort_by_key(|row| Reverse(row.p50)),
            Self::P90 => figures.sort_by_key(|row| Reverse(row.p90)),
            Self::P99 => figures.sort_by_key(|row| Reverse(row.p99)),
            Self::Max => figures.sort_by_key(|row| Reverse(row.max)),
            Self::Waited => figures.sort_by_key(|row| Reverse(row.waited)),
            Self::Name => {}
        }
    }
}

/// What a key asks of the loop around the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing more.
    Stay,
    /// The end.
    Quit,
}

/// The state of the screen.
#[derive(Debug)]
pub struct Screen {
    order: Order,
    filter: String,
    /// Keys go into the filter.
    typing: bool,
    paused: bool,
    all: Vec<Figures>,
    /// Those that pass the filter, in order.
    rows: Vec<Figures>,
    blockers: Vec<Blocker>,
    selected: TableState,
    /// An open trace and the first line of it that is shown.
    trace: Option<(String, u16)>,
    /// What the agent said last.
    news: String,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            order: Order::Rate,
            filter: String::new(),
            typing: false,
            paused: false,
            all: Vec::new(),
            rows: Vec::new(),
            blockers: Vec::new(),
            selected: TableState::new().with_selected(0),
            trace: None,
            news: String::new(),
        }
    }
}

impl Screen {
    /// Takes the newest figures, unless it is paused.
    pub fn refresh(&mut self, board: &Board, news: String) {
        self.news = news;
        if !self.paused {
            (self.all, self.blockers) = board.figures();
        }
        self.arrange();
    }

    /// Sorts and filters; the selection stays inside.
    fn arrange(&mut self) {
        let filter = self.filter.to_lowercase();
        let matches = |row: &Figures| {
            row.service.to_lowercase().contains(&filter) || row.operation.to_lowercase().contains(&filter)
        };
        self.rows = self.all.iter().filter(|row| matches(row)).cloned().collect();
        self.order.sort(&mut self.rows);
        let last = self.rows.len().saturating_sub(1);
        self.selected.select(Some(self.selected.selected().unwrap_or(0).min(last)));
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent, board: &Board) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            self.arrange();
        } else if self.trace.is_some() {
            self.scroll(key.code);
        } else {
            return self.command(key.code, board);
        }
        Wish::Stay
    }

    fn command(&mut self, code: KeyCode, board: &Board) -> Wish {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('p') | KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('s') | KeyCode::Right => self.turn_order(1),
            KeyCode::Char('S') | KeyCode::Left => self.turn_order(Order::ALL.len() - 1),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Up | KeyCode::Char('k') => self.selected.select_previous(),
            KeyCode::Down | KeyCode::Char('j') => self.selected.select_next(),
            KeyCode::Home => self.selected.select_first(),
            KeyCode::End => self.selected.select_last(),
            KeyCode::Enter => self.open(board),
            _ => {}
        }
        self.arrange();
        Wish::Stay
    }

    fn turn_order(&mut self, by: usize) {
        let at = Order::ALL.iter().position(|order| *order == self.order).unwrap_or(0);
        self.order = Order::ALL[(at + by) % Order::ALL.len()];
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn open(&mut self, board: &Board) {
        let row = self.selected.selected().and_then(|index| self.rows.get(index));
        let Some(slowest) = row.map(|row| row.slowest).filter(|trace| *trace != TraceId([0; 16])) else { return };
        let text = board.trace(slowest, TRACE_WIDTH);
        let text = if text.is_empty() { format!("trace {slowest} is no longer kept") } else { text };
        self.trace = Some((text, 0));
    }

    fn scroll(&mut self, code: KeyCode) {
        let Some((text, first)) = &mut self.trace else { return };
        let last = u16::try_from(text.lines().count()).unwrap_or(u16::MAX).saturating_sub(1);
        match code {
            KeyCode::Up | KeyCode::Char('k') => *first = first.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => *first = (*first + 1).min(last),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => self.trace = None,
            _ => {}
        }
    }

    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let blockers = u16::try_from(self.blockers.len().min(MAX_BLOCKERS)).unwrap_or(0);
        let [head, middle, blamed, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(if blockers > 0 && self.trace.is_none() { blockers + 1 } else { 0 }),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.draw_head(frame, head);
        match &self.trace {
            Some((text, first)) => {
                let lines: Vec<Line<'_>> = text.lines().map(Line::raw).collect();
                frame.render_widget(Paragraph::new(lines).scroll((*first, 0)), middle);
            }
            None => {
                self.draw_rows(frame, middle);
                self.draw_blockers(frame, blamed);
            }
        }
        self.draw_foot(frame, foot);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let rate: f64 = self.rows.iter().map(|row| row.rate).sum();
        let mut text =
            format!("tracer top  {} operations  {} spans/s  by {}", self.rows.len(), short(rate), self.order.title());
        if !self.filter.is_empty() || self.typing {
            text.push_str(&format!("  /{}{}", self.filter, if self.typing { "_" } else { "" }));
        }
        if self.paused {
            text.push_str("  PAUSED");
        }
        frame.render_widget(Line::raw(text).bold(), area);
    }

    fn draw_rows(&mut self, frame: &mut Frame<'_>, area: Rect) {
        const TITLES: [&str; 10] =
            ["SERVICE", "OPERATION", "RATE/S", "ERR", "P50", "P90", "P99", "MAX", "WAITED", "SERVED"];
        // In columns of 80 the names share what the figures leave.
        let widths = [
            Constraint::Fill(2),
            Constraint::Fill(3),
            Constraint::Length(6),
            Constraint::Length(4),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(6),
            Constraint::Length(6),
        ];
        let right = |text: String| Cell::new(Line::raw(text).right_aligned());
        let rows = self.rows.iter().map(|row| {
            let split = |time: Option<u64>| right(time.map(time_short).unwrap_or_default());
            let style = if row.errors > 0 { Style::new().red() } else { Style::new() };
            Row::new([
                Cell::new(printable(&row.service)),
                Cell::new(printable(&row.operation)),
                right(short(row.rate)),
                right(row.errors.to_string()),
                right(time_short(row.p50)),
                right(time_short(row.p90)),
                right(time_short(row.p99)),
                right(time_short(row.max)),
                split(row.waited),
                split(row.served),
            ])
            .style(style)
        });
        let titles = TITLES.iter().enumerate().map(|(index, title)| match index {
            0 | 1 => Cell::new(*title),
            _ => right((*title).to_owned()),
        });
        let table =
            Table::new(rows, widths).header(Row::new(titles).underlined()).row_highlight_style(Style::new().reversed());
        frame.render_stateful_widget(table, area, &mut self.selected);
        if self.rows.is_empty() {
            let below = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
            frame.render_widget(Paragraph::new("no spans in the last ten seconds").dim(), below);
        }
    }

    fn draw_blockers(&self, frame: &mut Frame<'_>, area: Rect) {
        let lines: Vec<Line<'_>> = self
            .blockers
            .iter()
            .take(MAX_BLOCKERS)
            .map(|one| {
                let whose = if one.service.is_empty() { String::new() } else { format!(" of {}", one.service) };
                let waited = time_short(one.total);
                Line::raw(printable(&format!(
                    "{waited:>6}  {} commands waited for {}{whose}",
                    one.waiting, one.command
                )))
            })
            .collect();
        let block = Block::new().title(Line::raw("who held Redis").bold());
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let keys = match (&self.trace, self.typing) {
            (Some(_), _) => "Esc back  ↑↓ scroll",
            (None, true) => "Enter keep  Esc clear",
            (None, false) => "q quit  s sort  / filter  p pause  ↑↓ select  Enter slowest trace",
        };
        let text = if self.news.is_empty() { keys.to_owned() } else { format!("{keys}  | {}", printable(&self.news)) };
        frame.render_widget(Line::raw(text).dim(), area);
    }
}

/// Names come from the targets: nothing in them may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Three digits, for people: `0.4`, `12`, `3.1k`.
fn short(number: f64) -> String {
    match number {
        ..9.95 => format!("{number:.1}"),
        ..999.5 => format!("{number:.0}"),
        ..9_950.0 => format!("{:.1}k", number / 1e3),
        ..999_500.0 => format!("{:.0}k", number / 1e3),
        _ => format!("{:.1}M", number / 1e6),
    }
}

/// A duration in five columns: `870ns`, `1.2us`, `37ms`.
fn time_short(ns: u64) -> String {
    let value = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..999_500 => (value / 1e3, "us"),
        999_500..999_500_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

#[cfg(test)]
mod tests;
