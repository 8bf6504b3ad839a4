//! Literals stay hidden however the server reads the text: in every SQL mode and character set, behind every comment, and
//! wherever the text is cut off.

use proptest::prelude::*;

use super::super::{Dialect, Reading, Shown, Statement};

/// In every planted secret, and nowhere else.
const MARK: &str = "Q7";

fn shown(sql: &[u8], reading: Reading) -> String {
    format!("{:?}", Statement::new(sql, true, Shown::Sanitized, reading))
}

fn text(sql: &str, reading: Reading) -> String {
    Statement::new(sql.as_bytes(), true, Shown::Sanitized, reading).text.expect("it is asked for").into()
}

const fn reading(backslash: Option<bool>, ascii_safe: bool) -> Reading {
    Reading { dialect: Dialect::MySql, backslash, ascii_safe }
}

const READINGS: [Reading; 6] = [
    reading(None, false),
    reading(None, true),
    reading(Some(true), false),
    reading(Some(true), true),
    reading(Some(false), false),
    reading(Some(false), true),
];

#[test]
fn a_backslash_is_an_escape_or_not_or_the_text_ends() {
    let sql = r"SELECT b FROM t WHERE a = 'C:\' AND b = 'secret'";
    assert_eq!(text(sql, reading(Some(false), false)), "SELECT b FROM t WHERE a = ? AND b = ?");
    assert_eq!(text(sql, reading(None, true)), "SELECT b FROM t WHERE a = ?...");
    let sql = r"SELECT 'it\'s', a";
    assert_eq!(text(sql, reading(Some(true), false)), "SELECT ?, a");
    assert_eq!(text(sql, reading(None, true)), "SELECT ?...");
    // Both ways to read these are the same.
    let sql = r"SELECT 'C:\\', 'a\nb\\\\', a";
    for reading in READINGS {
        assert_eq!(text(sql, reading), "SELECT ?, ?, a");
    }
}

#[test]
fn double_quotes_are_strings_or_names() {
    let sql = r#"SELECT "a\" , secret, " FROM t"#;
    assert_eq!(text(sql, reading(Some(true), true)), "SELECT ?...");
    assert_eq!(text(r#"SELECT "a""b" FROM t"#, reading(None, false)), "SELECT ? FROM t");
}

#[test]
fn a_statement_may_change_how_the_next_one_is_read() {
    let sql = r"SET sql_mode = 'NO_BACKSLASH_ESCAPES'; SELECT 'C:\', 'secret'";
    assert_eq!(text(sql, reading(Some(true), true)), "SET sql_mode = ?; SELECT ?...");
}

#[test]
fn the_second_half_of_a_character_is_no_escape_and_no_backtick() {
    // GBK: one character, then the end of the string.
    let sql = b"SELECT '\x81\\', 'secret'";
    for known in [Some(true), None] {
        assert!(!shown(sql, reading(known, false)).contains("secret"));
    }
    assert!(!shown(b"SELECT '\x81`' FROM `a\x81`, 'secret', `b` c", reading(Some(true), false)).contains("secret"));
    assert!(!shown(b"SELECT \x81` FROM t WHERE a = 'secret' OR b = `", reading(Some(true), false)).contains("secret"));
    assert_eq!(text("SELECT 'é\\'', `é` FROM `é`", reading(Some(true), true)), "SELECT ?, `é` FROM `é`");
}

#[test]
fn a_comment_that_some_servers_execute_ends_in_one_place_or_the_text_does() {
    for sql in [
        "SELECT 1 /*!99999 ' */ , 'secret', ' */",
        "SELECT 1 /*!99999 \" */ , 'secret', \" */",
        "SELECT 1 /*!99999 # */ , 'secret'\n */ , a",
        "SELECT 1 /*!50000 '*/', 'secret', '*/ */",
        "SELECT 1 /* a /* b */ secret */",
        "SELECT 1 /*! a /* b */ secret */",
        "SELECT 1 /*! secret",
        "SELECT 1 --secret",
        "SELECT `unfinished FROM secret",
        "SELECT `a' , secret, '`",
        "SELECT ‘secret’ FROM t",
    ] {
        for reading in READINGS {
            let shown = shown(sql.as_bytes(), reading);
            assert!(!shown.contains("secret"), "{sql} {reading:?}: {shown}");
        }
    }
}

#[test]
fn statements_of_credentials_end_where_those_begin() {
    let full =
        |sql: &str| Statement::new(sql.as_bytes(), true, Shown::Full, reading(Some(true), true)).text.map(String::from);
    for sql in [
        "CREATE USER 'u'@'h' IDENTIFIED BY 'hunter2'",
        "CREATE USER u IDENTIFIED BY hunter2",
        "ALTER USER u IDENTIFIED VIA mysql_native_password USING 'hunter2'",
        "GRANT ALL ON *.* TO u IDENTIFIED WITH x AS 'hunter2' REQUIRE SSL",
        "SET PASSWORD FOR u = PASSWORD('hunter2')",
        "SET PASSWORD = hunter2",
        "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='hunter2'",
        "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD=\"hunter2\"",
        "START SLAVE USER='u' PASSWORD='hunter2'",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'hunter2')",
        "CREATE TABLE t (a INT) ENGINE=FEDERATED CONNECTION='mysql://u:hunter2@h/db'",
        "PREPARE s FROM 'SET PASSWORD = ''hunter2'''",
        "EXECUTE IMMEDIATE 'GRANT ALL ON *.* TO u IDENTIFIED BY ''hunter2'''",
        "SET @pw = 'hunter2'",
        "SELECT AES_DECRYPT(a, 'hunter2') FROM t",
        "INSERT INTO users (name, `password`) VALUES ('u', 'hunter2')",
        "UPDATE mysql.user SET authentication_string = 'hunter2'",
        "SELECT 1; SET PASSWORD = 'hunter2'",
        "/*!50000 CREATE USER u IDENTIFIED BY 'hunter2' */",
        "SELECT 1 /*! , PASSWORD('hunter2') */",
        "INSTALL PLUGIN x SONAME 'hunter2'",
        "BINLOG 'hunter2'",
        "'hunter2'",
    ] {
        let text = full(sql).expect("it is asked for");
        assert!(!text.contains("hunter2"), "{sql}: {text}");
    }
    assert_eq!(full("SELECT 'a' FROM authors").as_deref(), Some("SELECT 'a' FROM authors"));
    assert_eq!(
        text("SELECT password FROM users WHERE id = 1", reading(Some(true), true)),
        "SELECT password FROM users WHERE id = ?"
    );
}

/// How a server reads a text.
#[derive(Clone, Copy, Debug)]
struct Server {
    escapes: bool,
    ansi_quotes: bool,
    /// Characters may end in a byte of ASCII.
    pairs: bool,
}

/// A piece of a literal, as its value has it.
#[derive(Clone, Debug)]
enum Piece {
    Plain(&'static str),
    Secret(String),
    /// A character whose second byte is a backslash or a backtick.
    Pair(u8),
}

/// A piece of a text.
#[derive(Clone, Debug)]
enum Part {
    Sql(&'static str),
    String { quote: u8, doubled: bool, prefix: &'static str, pieces: Vec<Piece> },
    Comment { open: &'static str, pieces: Vec<Piece>, close: &'static str },
    Number(u32),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let plain =
        ["'", "\"", "`", "\\", "\\\\", "é", "€", "/*", "#", "-- ", ";", "\n", " ", "a", ",", "?", "(", "/", "!", "\0"];
    prop::collection::vec(
        prop_oneof![
            4 => prop::sample::select(plain.to_vec()).prop_map(Piece::Plain),
            2 => "[A-Za-z0-9]{1,6}".prop_map(|word| Piece::Secret(format!("{MARK}{word}"))),
            1 => prop::sample::select(vec![b'\\', b'`', b'A']).prop_map(Piece::Pair),
        ],
        0..8,
    )
}

fn part() -> impl Strategy<Value = Part> {
    let sql = [
        "SELECT ",
        " FROM ",
        "t ",
        ", ",
        " WHERE a = ",
        "(",
        ")",
        " IN (",
        "; ",
        "INSERT INTO t VALUES (",
        "`n` ",
        "USE ",
        "SET a = ",
        " AND é = ",
        "\\",
        "?",
    ];
    let quote = prop::sample::select(vec![b'\'', b'"']);
    let prefix = prop::sample::select(vec!["", "", "N", "x", "_utf8mb4 ", "@"]);
    let comment = prop::sample::select(vec![
        ("/* ", " */"),
        ("/*!99999 ", " */"),
        ("/*M!999999 ", "*/"),
        ("-- ", "\n"),
        ("# ", "\n"),
        ("/*+ ", "*/"),
    ]);
    prop_oneof![
        4 => prop::sample::select(sql.to_vec()).prop_map(Part::Sql),
        4 => (quote, any::<bool>(), prefix, pieces())
            .prop_map(|(quote, doubled, prefix, pieces)| Part::String { quote, doubled, prefix, pieces }),
        2 => (comment, pieces()).prop_map(|((open, close), pieces)| Part::Comment { open, pieces, close }),
        1 => (0_u32..1000).prop_map(Part::Number),
    ]
}

/// Writes the text as a client would that knows how the server reads.
fn write(parts: &[Part], server: Server) -> Vec<u8> {
    let mut sql = Vec::new();
    for part in parts {
        match part {
            Part::Sql(text) => sql.extend_from_slice(text.as_bytes()),
            Part::Number(number) => sql.extend_from_slice(format!("{number} ").as_bytes()),
            Part::String { quote, doubled, prefix, pieces } => {
                sql.extend_from_slice(prefix.as_bytes());
                sql.push(*quote);
                // Names in double quotes have no escapes.
                let escapes = server.escapes && !(server.ansi_quotes && *quote == b'"');
                for piece in pieces {
                    quoted(piece, *quote, *doubled || !escapes, escapes, server.pairs, &mut sql);
                }
                sql.push(*quote);
            }
            Part::Comment { open, pieces, close } => {
                sql.extend_from_slice(open.as_bytes());
                for piece in pieces {
                    // What ends it is not in it.
                    if !matches!(piece, Piece::Plain("\n" | "/*")) {
                        quoted(piece, 0, false, false, server.pairs, &mut sql);
                    }
                }
                sql.extend_from_slice(close.as_bytes());
            }
        }
    }
    sql
}

fn quoted(piece: &Piece, quote: u8, doubled: bool, escapes: bool, pairs: bool, sql: &mut Vec<u8>) {
    let text = match piece {
        Piece::Plain(text) => text,
        Piece::Secret(text) => text.as_str(),
        Piece::Pair(second) => {
            if pairs {
                sql.extend_from_slice(&[0x81, *second]);
            }
            return;
        }
    };
    for byte in text.bytes() {
        match byte {
            // In these character sets it would take the next byte with it.
            0x80.. if pairs => {}
            b'\\' if escapes => sql.extend_from_slice(b"\\\\"),
            _ if byte == quote && doubled => sql.extend_from_slice(&[quote, quote]),
            _ if byte == quote => sql.extend_from_slice(&[b'\\', quote]),
            _ => sql.push(byte),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_planted_secret_is_shown(
        parts in prop::collection::vec(part(), 1..12),
        escapes: bool,
        ansi_quotes: bool,
        pairs: bool,
        is_known: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let sql = write(&parts, Server { escapes, ansi_quotes, pairs });
        let sql = cut.map_or(sql.as_slice(), |cut| &sql[..cut.index(sql.len() + 1)]);
        let known = Reading { dialect: Dialect::MySql, backslash: is_known.then_some(escapes), ascii_safe: is_known && !pairs };
        for (reading, mode) in [(known, Shown::Sanitized), (Reading::default(), Shown::Sanitized), (known, Shown::Off)] {
            let shown = format!("{:?}", Statement::new(sql, cut.is_none(), mode, reading));
            prop_assert!(!shown.contains(MARK), "{}\n{}", String::from_utf8_lossy(sql), shown);
        }
    }
}
