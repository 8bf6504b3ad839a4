//! Attributes as texts, and the search for one.

use std::borrow::Cow;

use serde_json::{Value as Json, json};

use crate::model::{Attribute, Value};
use crate::web::store::Seen;

/// Bytes of a text that the page shows; a download has all of it.
const MAX_TEXT: usize = 4_096;

/// An attribute that is looked for: `key`, `key=value`, or `key~part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    key: &'a str,
    value: Match<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match<'a> {
    Anything,
    Equal(&'a str),
    Part(&'a str),
}

impl<'a> Wanted<'a> {
    /// `None` for an empty text.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (key, value) = match text.find(['=', '~']) {
            Some(at) if text[at..].starts_with('=') => (&text[..at], Match::Equal(&text[at + 1..])),
            Some(at) => (&text[..at], Match::Part(&text[at + 1..])),
            None => (text, Match::Anything),
        };
        (!text.is_empty()).then_some(Self { key, value })
    }

    /// Whether the span, or else its process, has it.
    pub fn fits(&self, seen: &Seen<'_>) -> bool {
        let has =
            |attributes: &[Attribute]| attributes.iter().any(|(key, value)| key == self.key && self.value_fits(value));
        has(&seen.span.attributes) || has(&seen.resource().attributes)
    }

    fn value_fits(&self, value: &Value) -> bool {
        match self.value {
            Match::Anything => true,
            Match::Equal(wanted) => text(value) == wanted,
            Match::Part(wanted) => text(value).contains(wanted),
        }
    }
}

/// A value as a person reads it.
pub fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Str(text) => Cow::Borrowed(text),
        Value::Int(number) => number.to_string().into(),
        Value::Float(number) => number.to_string().into(),
        Value::Bool(truth) => truth.to_string().into(),
        Value::List(texts) => texts.join(" ").into(),
    }
}

/// The beginning of a long text.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// Pairs of name and text. Of a long text there is the beginning and, as a third element, how many bytes it has.
pub fn pairs(attributes: &[Attribute]) -> Vec<Json> {
    let pair = |(key, value): &Attribute| {
        let text = text(value);
        match cut(&text) {
            short if short.len() < text.len() => json!([cut(key), short, text.len()]),
            short => json!([cut(key), short]),
        }
    };
    attributes.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::{MAX_TEXT, Match, Wanted, pairs};
    use crate::model::Value;

    #[test]
    fn the_three_ways_to_look_for_an_attribute() {
        let wanted = |text| Wanted::parse(text).map(|wanted| (wanted.key, wanted.value));
        assert_eq!(wanted("  "), None);
        assert_eq!(wanted("a.b"), Some(("a.b", Match::Anything)));
        assert_eq!(wanted("a=b~c=d"), Some(("a", Match::Equal("b~c=d"))));
        assert_eq!(wanted("a~b=c"), Some(("a", Match::Part("b=c"))));
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_its_length_is_told() {
        let long = "ü".repeat(MAX_TEXT);
        let pairs = pairs(&[("k".into(), Value::Str(long.clone().into())), ("n".into(), Value::Int(i64::MAX))]);
        assert_eq!(pairs[0][1].as_str().map(str::len), Some(MAX_TEXT));
        assert_eq!(pairs[0][2], long.len());
        assert_eq!(pairs[1], serde_json::json!(["n", "9223372036854775807"]));
    }
}
