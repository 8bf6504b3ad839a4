//! PostgreSQL's own strings, names and comments.

use proptest::prelude::*;

use super::super::{Dialect, Reading, Shown, Statement};

/// In every planted secret, and nowhere else.
const MARK: &str = "Q7";

const fn reading(backslash: Option<bool>) -> Reading {
    Reading { dialect: Dialect::Postgres, backslash, ascii_safe: true }
}

/// standard_conforming_strings is on.
const USUAL: Reading = reading(Some(false));

fn read(sql: &str, reading: Reading) -> String {
    Statement::new(sql.as_bytes(), true, Shown::Sanitized, reading).text.expect("it is asked for").into()
}

fn text(sql: &str) -> String {
    read(sql, USUAL)
}

#[test]
fn literals_of_each_form_are_hidden() {
    let cases = [
        (r"SELECT 'it''s', 'C:\', E'it\'s', e'\\'", "SELECT ?, ?, ?, ?"),
        ("SELECT $$it's$$, $a$ $b$ $$ $a$, $1, $23", "SELECT ?, ?, $1, $23"),
        ("SELECT U&'d\\0061t' UESCAPE '!', B'01', X'1f', N'n'", "SELECT ? UESCAPE ?, ?, ?, ?"),
        ("SELECT 1.5e-3, .5, -7, a-7, 0x1F, 1_000", "SELECT ?, ?, ?, a-?, ?, ?"),
        ("SELECT 1$$it's$$, 'a'", "SELECT ??, ?"),
        ("SELECT $1$$it's$$, 'a'", "SELECT $1?, ?"),
        ("SELECT 1e$$it's$$, 'a'", "SELECT ?..."),
        ("SELECT a$b$, 'x', a$b$ FROM t$", "SELECT a$b$, ?, a$b$ FROM t$"),
        ("SELECT '1'::int, DATE '2020-01-01', '{1}'::int[]", "SELECT ?::int, DATE ?, ?::int[]"),
        ("DO $body$ BEGIN PERFORM 'x'; END $body$ LANGUAGE plpgsql", "DO ? LANGUAGE plpgsql"),
        ("SELECT 'first'\n  'second'", "SELECT ? ?"),
    ];
    for (sql, expected) in cases {
        assert_eq!(text(sql), expected);
    }
}

#[test]
fn names_and_operators_are_shown() {
    let cases = [
        (r#"SELECT "a""b"."C d" FROM "T" x"#, r#"SELECT "a""b"."C d" FROM "T" x"#),
        (r#"SELECT U&"d\0061t" FROM t"#, "SELECT ? FROM t"),
        ("SELECT a @> '{}', b ? 'k', c ?| d, e #>> '{a}', @ f", "SELECT a @> ?, b ? ?, c ?| d, e #>> ?, @ f"),
        ("SELECT a FROM t WHERE b IN ($1, $2,$3)", "SELECT a FROM t WHERE b IN ($1)"),
        ("INSERT INTO t VALUES ($1, $2), ($3, $4) RETURNING a", "INSERT INTO t VALUES ($1, $2), ... RETURNING a"),
    ];
    for (sql, expected) in cases {
        assert_eq!(text(sql), expected);
    }
}

#[test]
fn comments_nest_and_lines_end_at_a_carriage_return_too() {
    assert_eq!(text("SELECT a /* x /* 'y */ z */ , b --c\r, d"), "SELECT a , b , d");
    assert_eq!(text("SELECT a--b\n, c"), "SELECT a , c");
    assert_eq!(text("SELECT a /* never /* closed */ secret"), "SELECT a");
    assert_eq!(text("/*!40101 secret */ SELECT a # b"), "SELECT a # b");
}

#[test]
fn a_backslash_is_an_escape_or_not_or_the_text_ends() {
    let sql = r"SELECT a FROM t WHERE b = 'C:\' AND c = 'secret'";
    assert_eq!(text(sql), "SELECT a FROM t WHERE b = ? AND c = ?");
    assert_eq!(read(sql, reading(None)), "SELECT a FROM t WHERE b = ?...");
    assert_eq!(read(r"SELECT 'it\'s', a", reading(Some(true))), "SELECT ?, a");
    // What goes on with an escape string has escapes as well.
    for known in [None, Some(false), Some(true)] {
        let shown = read("SELECT E'a'\n'b\\', secret, '\\\\'", reading(known));
        assert!(!shown.contains("secret"), "{known:?}: {shown}");
    }
}

#[test]
fn credentials_are_never_shown() {
    for sql in [
        "ALTER ROLE u PASSWORD 'hunter2'",
        "CREATE ROLE u LOGIN ENCRYPTED PASSWORD 'hunter2' VALID UNTIL 'hunter2'",
        "CREATE USER u PASSWORD hunter2",
        "ALTER USER MAPPING FOR u SERVER s OPTIONS (SET password 'hunter2')",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2' PUBLICATION p",
        "SELECT dblink_connect('host=h password=hunter2')",
        "COPY t FROM PROGRAM 'curl -u u:hunter2 h'",
        "DO $$ BEGIN EXECUTE 'hunter2'; END $$",
        "SET app.token = hunter2",
    ] {
        for shown in [Shown::Full, Shown::Sanitized] {
            let text = Statement::new(sql.as_bytes(), true, shown, USUAL).text.expect("it is asked for");
            assert!(!text.contains("hunter2"), "{sql}: {text}");
        }
    }
}

/// A piece of a text, and what is in it.
#[derive(Clone, Debug)]
enum Part {
    Sql(&'static str),
    Standard(Vec<&'static str>),
    Escape(Vec<&'static str>),
    Dollar(&'static str, Vec<&'static str>),
    Comment(Vec<&'static str>),
    Line(Vec<&'static str>),
}

fn part() -> impl Strategy<Value = Part> {
    let sql = [
        "SELECT ",
        "FROM ",
        "t ",
        ", ",
        "WHERE a = ",
        "(",
        ") ",
        "; ",
        "\"n\" ",
        "$1 ",
        "12 ",
        "x$y ",
        "::text ",
        "é ",
    ];
    let pieces = || {
        let plain = ["'", "\"", "\\", "$", "$$", "$a$", "--", "\n", ";", " ", "é", "Q7a", "Q7b9", ",", "("];
        prop::collection::vec(prop::sample::select(plain.to_vec()), 0..8)
    };
    prop_oneof![
        3 => prop::sample::select(sql.to_vec()).prop_map(Part::Sql),
        2 => pieces().prop_map(Part::Standard),
        2 => pieces().prop_map(Part::Escape),
        2 => (prop::sample::select(vec!["$$", "$tag$", "$_1$"]), pieces()).prop_map(|(tag, pieces)| Part::Dollar(tag, pieces)),
        1 => pieces().prop_map(Part::Comment),
        1 => pieces().prop_map(Part::Line),
    ]
}

/// Writes the text as a client would that knows whether `\` escapes.
fn write(parts: &[Part], backslash: bool) -> String {
    let mut sql = String::new();
    for part in parts {
        match part {
            Part::Sql(text) => sql.push_str(text),
            Part::Standard(pieces) | Part::Escape(pieces) => {
                let escape = matches!(part, Part::Escape(_));
                sql.push_str(if escape { " E'" } else { "'" });
                for piece in pieces {
                    match *piece {
                        "'" => sql.push_str("''"),
                        "\\" if escape || backslash => sql.push_str("\\\\"),
                        other => sql.push_str(other),
                    }
                }
                sql.push('\'');
                // Two strings side by side would be one.
                sql.push_str(" , ");
            }
            Part::Dollar(tag, pieces) => {
                let inside = pieces.concat();
                let open = format!(" {tag}{inside}");
                // The string must not end before its end.
                if !format!("{inside}{tag}").starts_with(tag) && inside.find(tag).is_none() && !inside.ends_with('$') {
                    sql.push_str(&format!("{open}{tag} "));
                }
            }
            Part::Comment(pieces) => sql.push_str(&format!("/* {} */ ", pieces.concat())),
            Part::Line(pieces) => sql.push_str(&format!("-- {}\n", pieces.concat().replace('\n', " "))),
        }
    }
    sql
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_planted_secret_is_shown(
        parts in prop::collection::vec(part(), 1..12),
        backslash: bool,
        is_known: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let sql = write(&parts, backslash);
        let sql = cut.map_or(sql.as_bytes(), |cut| &sql.as_bytes()[..cut.index(sql.len() + 1)]);
        let known = reading(is_known.then_some(backslash));
        let statement = Statement::new(sql, cut.is_none(), Shown::Sanitized, known);
        let shown = format!("{statement:?}");
        prop_assert!(!shown.contains(MARK), "{}\n{}", String::from_utf8_lossy(sql), shown);
    }

    #[test]
    fn any_bytes_are_read_and_bounded(sql in prop::collection::vec(any::<u8>(), 0..3000), complete: bool) {
        let statement = Statement::new(&sql, complete, Shown::Sanitized, reading(None));
        prop_assert!(statement.text.is_none_or(|text| text.len() <= 2048));
        prop_assert!(statement.summary.is_none_or(|summary| summary.len() <= 255));
    }
}
