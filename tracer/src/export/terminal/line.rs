//! One line of output: clipped to a width, coloured, and without anything a target could do to the terminal.

use std::fmt::Write;

use unicode_width::UnicodeWidthChar;

/// How a piece of text looks where colours are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Red,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[31m",
        }
    }
}

/// A line being written.
pub(super) struct Line<'a> {
    out: &'a mut String,
    /// Columns left; the last one is kept for the mark of a clipped line.
    left: usize,
    colour: bool,
}

impl<'a> Line<'a> {
    pub(super) fn start(out: &'a mut String, width: usize, colour: bool) -> Self {
        Self { out, left: width, colour }
    }

    /// Appends as much as fits.
    pub(super) fn put(&mut self, style: Style, text: &str) {
        if self.left == 0 || text.is_empty() {
            return;
        }
        let coloured = self.colour && style != Style::Plain;
        if coloured {
            self.out.push_str(style.code());
        }
        for c in text.chars() {
            if !self.put_char(c) {
                break;
            }
        }
        if coloured {
            self.out.push_str("\x1b[0m");
        }
    }

    /// Appends text in a column of this width, clipped or filled up with spaces.
    pub(super) fn column(&mut self, style: Style, text: &str, width: usize) {
        let mut cell = String::new();
        let mut column = Line { out: &mut cell, left: width + 1, colour: false };
        column.put(Style::Plain, text);
        let filling = column.left.saturating_sub(1);
        cell.extend(std::iter::repeat_n(' ', filling));
        self.put(style, &cell);
    }

    pub(super) fn end(self) {
        self.out.push('\n');
    }

    /// False when the line is full.
    fn put_char(&mut self, c: char) -> bool {
        let mut escaped = String::new();
        let (text, width) = match safe_width(c) {
            Some(width) => (None, width),
            None => {
                write!(escaped, "{}", c.escape_unicode()).expect("a String takes everything");
                (Some(&escaped), escaped.len())
            }
        };
        if width >= self.left {
            self.out.push('…');
            self.left = 0;
            return false;
        }
        self.left -= width;
        match text {
            Some(text) => self.out.push_str(text),
            None => self.out.push(c),
        }
        true
    }
}

/// Columns of a character, `None` for one that a terminal would obey or hide.
fn safe_width(c: char) -> Option<usize> {
    // Marks that reorder text, and what has no width of its own, could make a line show what is not in it.
    c.width().filter(|&width| width > 0)
}
