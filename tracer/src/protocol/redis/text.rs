//! The text of a command that may be shown.
//!
//! The semantic conventions show keys and fields; here values of arguments stay home unless a flag asks for them, and keys
//! are values. What is shown is the vocabulary of the commands: name, subcommand and option words, in their places. An
//! argument in the place of an option that happens to be an option word looks like one.

use super::table::{Info, Keys, REST};
use smol_str::SmolStr;

/// Longest text; a longer one ends in `...`.
const MAX_TEXT: usize = 255;
/// Longest argument that is shown.
pub(super) const MAX_ARG: usize = 64;
/// More hidden arguments in a row than this are collapsed, so that the texts of one command stay few.
const MAX_RUN: u32 = 4;

/// How much of a command its span shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryText {
    /// Nothing.
    Off,
    /// Names and option words; every other argument is `?`: `SET ? ? EX ?`, `MSET ? ? ...`.
    #[default]
    Sanitized,
    /// Keys too: `SET order:1 ? EX ?`.
    WithKeys,
    /// Everything but credentials, long arguments cut.
    Full,
}

/// Builds the text while the arguments pass.
#[derive(Debug, Default)]
pub(super) struct Text {
    mode: QueryText,
    text: String,
    /// Hidden arguments not written yet.
    run: u32,
    /// Operands of an option still to come.
    operands: u8,
    /// Options may still come.
    options: bool,
    /// Positions of keys that only the arguments tell: from, to (exclusive).
    keys: (u32, u32),
    full: bool,
}

impl Text {
    pub(super) fn new(mode: QueryText) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Begins with the name.
    pub(super) fn begin(&mut self, name: &str) {
        (self.run, self.operands, self.options, self.keys, self.full) = (0, 0, true, (0, 0), false);
        self.text.clear();
        if self.mode != QueryText::Off {
            self.text.push_str(name);
        }
    }

    /// A subcommand.
    pub(super) fn word(&mut self, word: &[u8]) {
        if self.mode != QueryText::Off {
            self.show(word, word.len() as u64);
        }
    }

    /// The argument at `index` of `total`, of which `arg` is the start. True when it is an option word.
    pub(super) fn arg(
        &mut self,
        info: Option<&'static Info>,
        index: u32,
        total: u32,
        arg: &[u8],
        len: u64,
    ) -> Option<&'static str> {
        let option = info.and_then(|info| self.option(info, index, total, arg, len));
        if self.mode == QueryText::Off || self.full {
            return option;
        }
        if option.is_some() || self.visible(info, index, total) {
            self.show(arg, len);
        } else {
            self.run += 1;
        }
        option
    }

    /// The finished text.
    pub(super) fn finish(&mut self) -> Option<SmolStr> {
        if self.mode == QueryText::Off {
            return None;
        }
        self.flush();
        Some(self.text.as_str().into())
    }

    fn option(&mut self, info: &'static Info, index: u32, total: u32, arg: &[u8], len: u64) -> Option<&'static str> {
        if let Keys::Counted { count, .. } = info.keys
            && index == u32::from(count)
        {
            let count = crate::protocol::resp::number(arg).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
            self.keys = (index + 1, (index + 1).saturating_add(count));
        }
        if !self.options || info.options.words.is_empty() || index < u32::from(info.options.from).max(self.keys.1) {
            return None;
        }
        let word = info
            .options
            .words
            .iter()
            .find(|(word, _)| word.len() as u64 == len && word.as_bytes().eq_ignore_ascii_case(arg));
        match word {
            // `MAXLEN ~ 1000`: the operand of MAXLEN is still to come.
            Some((word @ ("~" | "="), _)) if self.operands > 0 => return Some(word),
            _ if self.operands > 0 => {
                self.operands -= 1;
                return None;
            }
            Some((word, REST)) => {
                self.options = false;
                if let Keys::Streams = info.keys {
                    self.keys = (index + 1, index + 1 + (total - index - 1) / 2);
                }
                return Some(word);
            }
            Some((word, operands)) => {
                self.operands = *operands;
                return Some(word);
            }
            None => self.options = !info.options.leading,
        }
        None
    }

    fn visible(&self, info: Option<&Info>, index: u32, total: u32) -> bool {
        // What is not in the table may be a mistyped AUTH.
        let Some(info) = info.filter(|info| !info.secret) else { return false };
        match self.mode {
            QueryText::Off | QueryText::Sanitized => false,
            QueryText::Full => true,
            QueryText::WithKeys => match info.keys {
                Keys::None => false,
                Keys::Range { first, last, step } => {
                    let (first, step) = (u32::from(first), u32::from(step.max(1)));
                    let last =
                        if last < 0 { total.saturating_sub(u32::from(last.unsigned_abs())) } else { last as u32 };
                    (first..=last).contains(&index) && (index - first).is_multiple_of(step)
                }
                Keys::Counted { extra, .. } => {
                    (extra > 0 && index == u32::from(extra)) || (self.keys.0..self.keys.1).contains(&index)
                }
                Keys::Streams => (self.keys.0..self.keys.1).contains(&index),
            },
        }
    }

    fn show(&mut self, arg: &[u8], len: u64) {
        self.flush();
        self.push(" ");
        let shown = &arg[..arg.len().min(MAX_ARG)];
        if shown.iter().all(|byte| byte.is_ascii_graphic()) && !shown.is_empty() {
            // Graphic ASCII is UTF-8.
            self.push(std::str::from_utf8(shown).unwrap_or("?"));
        } else {
            let escaped = format!("\"{}\"", String::from_utf8_lossy(shown).escape_debug());
            self.push(&escaped);
        }
        if len > shown.len() as u64 {
            self.push("...");
        }
    }

    fn flush(&mut self) {
        if self.run > MAX_RUN {
            self.push(" ? ? ...");
        } else {
            for _ in 0..self.run {
                self.push(" ?");
            }
        }
        self.run = 0;
    }

    fn push(&mut self, piece: &str) {
        if self.full {
            return;
        }
        self.text.push_str(piece);
        if self.text.len() > MAX_TEXT {
            let mut end = MAX_TEXT - 3;
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
            self.text.truncate(end);
            self.text.push_str("...");
            self.full = true;
        }
    }
}
