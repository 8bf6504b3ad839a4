//! A source file as the rules see it: without its tests, wherever they stand.

use std::ops::RangeInclusive;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Code of one file.
pub struct Source {
    tokens: Vec<TokenTree>,
    tests: Vec<RangeInclusive<usize>>,
}

impl Source {
    /// Reads Rust.
    pub fn parse(text: &str) -> Result<Self> {
        let stream: TokenStream = text.parse().map_err(|error| anyhow!("this is no Rust: {error}"))?;
        let mut source = Self { tokens: Vec::new(), tests: Vec::new() };
        source.add(stream);
        Ok(source)
    }

    /// Whether a line, counted from 1, is of an item behind `#[cfg(test)]`.
    pub fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// Modules of this crate that the code names, each with its line: the `a` of `crate::a` and of `crate::{a, b}`.
    pub fn modules_used(&self) -> Vec<(usize, String)> {
        let mut used = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let rest = &self.tokens[index + 1..];
            let behind_path = index > 0 && is_punct(&self.tokens[index - 1], ':');
            if behind_path || !is_ident(token, "crate") || !rest.iter().take(2).all(|token| is_punct(token, ':')) {
                continue;
            }
            match rest.get(2) {
                Some(TokenTree::Ident(name)) => used.push((name.span().start().line, name.to_string())),
                Some(TokenTree::Group(group)) => used.extend(firsts(group.stream())),
                _ => {}
            }
        }
        used
    }

    /// All tokens in their order, groups opened; `use` groups stay whole as well.
    fn add(&mut self, stream: TokenStream) {
        let mut tokens = stream.into_iter().peekable();
        while let Some(token) = tokens.next() {
            if is_punct(&token, '#') && tokens.peek().is_some_and(is_cfg_test) {
                let start = token.span().start().line;
                let last = tokens.by_ref().find(|token| is_punct(token, ';') || is_braces(token));
                self.tests.push(start..=last.map_or(usize::MAX, |last| last.span().end().line));
                continue;
            }
            let inner = if let TokenTree::Group(group) = &token { Some(group.stream()) } else { None };
            self.tokens.push(token);
            if let Some(inner) = inner {
                self.add(inner);
            }
        }
    }
}

/// The first names of a list of paths.
fn firsts(list: TokenStream) -> Vec<(usize, String)> {
    let mut begins = true;
    let mut found = Vec::new();
    for token in list {
        if let (true, TokenTree::Ident(name)) = (begins, &token) {
            found.push((name.span().start().line, name.to_string()));
        }
        begins = is_punct(&token, ',');
    }
    found
}

fn is_cfg_test(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    group.stream().to_string().split_whitespace().collect::<String>() == "cfg(test)"
}

fn is_braces(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_ident(token: &TokenTree, wanted: &str) -> bool {
    matches!(token, TokenTree::Ident(name) if *name == wanted)
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn tests_are_left_out_and_what_stands_behind_them_is_not() {
        let text = "use crate::a::B;\n#[cfg(test)]\nmod tests { use crate::b::C; }\nfn f() { crate::c::d(); }\n";
        let source = Source::parse(text).expect("Rust");
        assert_eq!(source.modules_used(), [(1, "a".to_owned()), (4, "c".to_owned())]);
        assert!(source.is_test(2) && source.is_test(3) && !source.is_test(4));
    }

    #[test]
    fn lists_of_paths_and_comments() {
        let text = "//! [`crate::x`]\nuse crate::{\n    a::{B, C},\n    d,\n};\nconst TEXT: &str = \"crate::y\";\n";
        let used = Source::parse(text).expect("Rust").modules_used();
        assert_eq!(used, [(3, "a".to_owned()), (4, "d".to_owned())]);
    }
}
