use proptest::prelude::*;

use super::{Dialect, Reading, Shown, Statement};

mod postgres;
mod quoting;

/// The usual: `\` escapes, UTF-8.
const USUAL: Reading = Reading { dialect: Dialect::MySql, backslash: Some(true), ascii_safe: true };

fn text(sql: &str) -> String {
    Statement::new(sql.as_bytes(), true, Shown::Sanitized, USUAL).text.expect("it is asked for").into()
}

fn summary(sql: &str) -> String {
    Statement::new(sql.as_bytes(), true, Shown::Sanitized, USUAL).summary.unwrap_or_default().into()
}

#[test]
fn literals_are_hidden() {
    let cases = [
        ("SELECT * FROM orders WHERE id = 42", "SELECT * FROM orders WHERE id = ?"),
        ("SELECT 'it''s', \"a\"\"b\", 'c\\'d'", "SELECT ?, ?, ?"),
        ("SELECT 0xFF, x'4D', X'4d', b'01', 0b01, N'n'", "SELECT ?, ?, ?, ?, ?, ?"),
        ("SELECT 1.5e-3, .5, -7, a-7, a - 7, (-7), +1", "SELECT ?, ?, ?, a-?, a - ?, (?), ?"),
        ("SELECT `a``b`.`c d` FROM `t`", "SELECT `a``b`.`c d` FROM `t`"),
        ("SELECT DATE '2020-01-01', TIMESTAMP'2020-01-01 00:00:00'", "SELECT DATE ?, TIMESTAMP?"),
        ("SELECT _utf8mb4'secret' COLLATE x", "SELECT _utf8mb4? COLLATE x"),
        ("SELECT @a, @@session.x, ?", "SELECT @a, @@session.x, ?"),
        ("SELECT a.1, 5- -5, 5--5", "SELECT a?, ?- ?, ?..."),
    ];
    for (sql, expected) in cases {
        assert_eq!(text(sql), expected);
    }
}

#[test]
fn comments_are_gone_whoever_executes_them() {
    assert_eq!(text("SELECT /* secret */ 1 -- secret\n, 2 # secret"), "SELECT ? , ?");
    assert_eq!(text("/*!40101 SET NAMES 'utf8' */ SELECT/*M!100201 hidden*/ 1 /*!50000 + 'hidden' */"), "SELECT ?");
    assert_eq!(text("SELECT /*+ HINT(1) */ a"), "SELECT a");
    assert_eq!(text("SELECT a /* never closed"), "SELECT a");
}

#[test]
fn lists_are_one() {
    assert_eq!(
        text("SELECT 1 FROM t WHERE a IN (1, 2,3) AND b IN ('x')"),
        "SELECT ? FROM t WHERE a IN (?) AND b IN (?)"
    );
    assert_eq!(text("a IN (?, ?, -1)"), "a IN (?)");
    assert_eq!(text("a IN (1, b, 2)"), "a IN (?, b, ?)");
    assert_eq!(text("a IN (SELECT 1, 2 FROM t)"), "a IN (SELECT ?, ? FROM t)");
    assert_eq!(
        text("INSERT INTO t (a, b) VALUES (1, f('x')), (2, 'y'),(3, (4)) ON DUPLICATE KEY UPDATE a = VALUES(a), b = 1"),
        "INSERT INTO t (a, b) VALUES (?, f(?)), ... ON DUPLICATE KEY UPDATE a = VALUES(a), b = ?"
    );
}

#[test]
fn summaries_name_operations_and_tables() {
    let cases = [
        ("SELECT * FROM orders o WHERE id = 1", "SELECT orders"),
        ("select a, b from `shop`.`orders` as o, items i where x", "SELECT shop.orders items"),
        ("SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (y)", "SELECT a b c"),
        ("INSERT INTO orders (id) VALUES (1)", "INSERT orders"),
        ("INSERT IGNORE orders SELECT * FROM customers", "INSERT orders SELECT customers"),
        ("REPLACE LOW_PRIORITY INTO t VALUES (1)", "REPLACE t"),
        ("UPDATE orders SET a = 1 WHERE b = (SELECT max(c) FROM d)", "UPDATE orders SELECT d"),
        ("DELETE FROM orders WHERE 1", "DELETE orders"),
        ("SELECT EXTRACT(YEAR FROM d), TRIM('a' FROM b) FROM t", "SELECT t"),
        ("SELECT * FROM (SELECT a FROM t) x", "SELECT SELECT t"),
        ("(SELECT a FROM t) UNION (SELECT b FROM u)", "SELECT t SELECT u"),
        ("SELECT 1 FROM t UNION ALL SELECT 2 FROM u", "SELECT t SELECT u"),
        ("WITH x AS (SELECT a FROM t) SELECT * FROM x", "SELECT t SELECT x"),
        ("WITH x AS (DELETE FROM t RETURNING a) INSERT INTO u SELECT a FROM x", "DELETE t INSERT u SELECT x"),
        ("SELECT a FROM t WHERE a IS DISTINCT FROM b", "SELECT t"),
        ("COPY t (a, b) FROM STDIN", "COPY t"),
        ("COPY (SELECT a FROM t) TO STDOUT", "COPY SELECT t"),
        ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "MERGE t"),
        ("CALL do_it(1, 'x')", "CALL do_it"),
        ("SET NAMES utf8mb4", "SET"),
        ("CREATE TABLE IF NOT EXISTS t (id INT)", "CREATE TABLE t"),
        ("TRUNCATE TABLE t", "TRUNCATE t"),
        ("SELECT a INTO @x FROM t FOR UPDATE", "SELECT t"),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE secret_column = 1", "INSERT t"),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "LOAD TABLE t"),
        ("BEGIN; SELECT 1 FROM t; COMMIT;", "BEGIN SELECT t COMMIT"),
        ("SELECT 'FROM secret'", "SELECT"),
        ("'secret'", ""),
        ("gibberish from secret", ""),
    ];
    for (sql, expected) in cases {
        assert_eq!(summary(sql), expected, "{sql}");
    }
}

#[test]
fn a_use_and_several_statements_are_seen() {
    let statement = Statement::new(b"SELECT 1; USE `other`; ;", true, Shown::Sanitized, USUAL);
    assert_eq!((statement.count, statement.uses.as_deref()), (2, Some("other")));
}

#[test]
fn credentials_are_hidden_even_when_all_is_shown() {
    let sql = b"CREATE USER 'a' IDENTIFIED BY 'secret'";
    assert_eq!(Statement::new(sql, true, Shown::Full, USUAL).text.as_deref(), Some("CREATE USER ?..."));
    assert_eq!(Statement::new(b"SELECT 'x'", true, Shown::Full, USUAL).text.as_deref(), Some("SELECT 'x'"));
    assert_eq!(Statement::new(b"SELECT 'x'", true, Shown::Off, USUAL).text, None);
}

#[test]
fn what_is_cut_off_says_so() {
    assert_eq!(Statement::new(b"SELECT 'abc", false, Shown::Sanitized, USUAL).text.as_deref(), Some("SELECT ?..."));
    let long = format!("SELECT {}", "column_name, ".repeat(10_000));
    let statement = Statement::new(long.as_bytes(), true, Shown::Sanitized, USUAL);
    let text = statement.text.expect("it is asked for");
    assert!(text.len() <= 2048 && text.ends_with("..."), "{}", text.len());
    let tables: Vec<String> = (0..100).map(|index| format!("table_{index}")).collect();
    let summary = summary(&format!("SELECT 1 FROM {}", tables.join(", ")));
    assert!(summary.len() <= 255 && summary.starts_with("SELECT table_0 ") && tables.contains(&last_word(&summary)));
}

fn last_word(text: &str) -> String {
    text.rsplit(' ').next().unwrap_or_default().to_owned()
}

proptest! {
    #[test]
    fn any_bytes_are_read_and_bounded(sql in proptest::collection::vec(any::<u8>(), 0..3000), complete: bool) {
        for shown in [Shown::Off, Shown::Sanitized, Shown::Full] {
            let statement = Statement::new(&sql, complete, shown, USUAL);
            prop_assert!(statement.text.is_none_or(|text| text.len() <= 2048));
            prop_assert!(statement.summary.is_none_or(|summary| summary.len() <= 255));
        }
    }

    #[test]
    fn a_string_is_never_shown(
        secret in "[a-zA-Z0-9 ;,()]{1,40}",
        quote in "['\"]",
        before in "(SELECT|INSERT INTO t VALUES \\(|a IN \\(1,|x = |USE |FROM )",
        cut in 0_usize..60,
    ) {
        let marked = format!("Q7{secret}");
        let sql = format!("{before} {quote}{marked}{quote} FROM t");
        let cut = cut.min(sql.len());
        for sql in [sql.as_bytes(), &sql.as_bytes()[..cut]] {
            let statement = Statement::new(sql, false, Shown::Sanitized, USUAL);
            let shown = format!("{:?}", statement);
            prop_assert!(!shown.contains("Q7"), "{}", shown);
        }
    }
}
