//! SQL of all kinds with secrets in its literals and comments, as it has to be written in each SQL mode.

use std::path::Path;
use std::process::{Command, Stdio};

use tracer_tests::{MariaDb, Secrets};

pub const MODES: [&str; 3] = ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"];
pub const CHARSETS: [&str; 2] = ["utf8mb4", "gbk"];

/// Texts; `{}` is a literal of a random form with a secret in it.
const STATEMENTS: &[&str] = &[
    "SELECT b FROM t WHERE a = {} AND b = {}",
    "SELECT {}, {} AS x, CONCAT({}, {}) FROM t WHERE a IN ({}, {}, {}) ORDER BY {}",
    "INSERT INTO t VALUES ({}, {}), ({}, {})",
    "INSERT INTO t (a, b) SELECT {}, b FROM t WHERE b LIKE {} ON DUPLICATE KEY UPDATE a = {}",
    "REPLACE INTO t SET a = {}, b = {}",
    "UPDATE t SET a = {}, b = {} WHERE a = {}",
    "DELETE FROM t WHERE a BETWEEN {} AND {}",
    "SELECT JSON_EXTRACT(a, {}), JSON_SET({}, {}, {}) FROM t",
    "SELECT a FROM t WHERE a = {} UNION SELECT {} INTO @x",
    "WITH x AS (SELECT {} AS a) SELECT a FROM x WHERE a <> {}",
    "SELECT /* {} */ 1 -- {}\n, {} # {}\n",
    "SELECT 1 /*!99999 {} */, {} /*M!999999 , {} */ /*+ {} */",
    "SELECT a /*!50000 , {} */ FROM t WHERE a = {} AND b = {}",
    "SET @x = {}, @y = {}",
    "SET @@session.init_connect = {}",
    "SET NAMES {}",
    "CREATE USER {} IDENTIFIED BY {}",
    "CREATE USER u@h IDENTIFIED VIA mysql_native_password USING {} OR unix_socket",
    "ALTER USER u IDENTIFIED WITH mysql_native_password AS {} REQUIRE SUBJECT {}",
    "GRANT SELECT ON none.* TO u@h IDENTIFIED BY {}",
    "SET PASSWORD FOR u@h = PASSWORD({})",
    "SET PASSWORD = {}",
    "CHANGE MASTER 'c' TO MASTER_HOST={}, MASTER_USER={}, MASTER_PASSWORD={}",
    "CREATE SERVER s FOREIGN DATA WRAPPER none OPTIONS (USER {}, PASSWORD {}, HOST {})",
    "CREATE TABLE u (a INT) ENGINE=FEDERATED CONNECTION={} COMMENT={}",
    "PREPARE s FROM {}",
    "EXECUTE IMMEDIATE {}",
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {}",
    "LOAD DATA INFILE {} INTO TABLE t FIELDS TERMINATED BY {}",
    "SELECT a FROM t INTO OUTFILE {}",
    "CALL nothing({}, {})",
    "DO SLEEP({})",
    "KILL USER {}",
    "SHOW TABLES LIKE {}",
    "SHOW VARIABLES WHERE Variable_name = {}",
    "EXPLAIN SELECT a FROM t WHERE a = {}",
    "SELECT AES_DECRYPT({}, {}), ENCODE({}, {})",
    "SELECT DATE {}, TIMESTAMP{}, INTERVAL {} DAY",
    "ALTER TABLE t COMMENT = {}",
    "CREATE TABLE IF NOT EXISTS v (a TEXT DEFAULT {} COMMENT {})",
    "INSTALL PLUGIN none SONAME {}",
    "BINLOG {}",
    "XA START {}",
    "BEGIN NOT ATOMIC SELECT {}; SET sql_mode = @@sql_mode; SELECT {}; END",
    "SELECT a FROM t WHERE a = {} AND",
    "SELEKT {} FROM {}",
    "SELECT a FROM t WHERE a = 'unfinished {",
];

/// A literal with a secret in it, of a random form, that the server reads as one in the mode.
fn literal(secrets: &mut Secrets, mode: &str) -> String {
    let secret = secrets.word();
    let escapes = mode != "NO_BACKSLASH_ESCAPES";
    let path = if escapes { format!(r"C:\\{secret}\\") } else { format!(r"C:\{secret}\") };
    match secrets.below(14) {
        0 => format!("'{secret}'"),
        1 => format!("'it''s {secret}'"),
        2 if escapes => format!(r"'it\'s {secret}'"),
        2 => format!(r"'it''s \{secret}'"),
        3 => format!("'{path}'"),
        4 => format!("'{secret}', '{path}', '{secret}'"),
        5 if mode == "ANSI_QUOTES" => format!("'\"{secret}'"),
        5 => format!("\"{secret} '' \"\" {secret}\""),
        6 => format!("N'{secret}'"),
        7 => format!("_utf8mb4'{secret}'"),
        8 => format!("'{secret} /* {secret}' '*/ -- {secret} # {secret}'"),
        9 => format!("'; SELECT {secret}; `{secret}` \" {secret}'"),
        10 => format!("0x{}", hex(&secret)),
        11 => format!("X'{}'", hex(&secret)),
        12 => format!("'é{secret}中'"),
        _ => format!("-1.5e3, '{secret}\t{secret}'"),
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Texts in a mode, the first of which chooses it.
pub fn texts(secrets: &mut Secrets, mode: &str, count: usize) -> Vec<String> {
    let mut texts =
        vec![format!("SET sql_mode = '{mode}'"), "CREATE TABLE IF NOT EXISTS t (a TEXT, b TEXT)".to_owned()];
    for index in 0..count {
        let template = STATEMENTS[index % STATEMENTS.len()];
        let mut parts = template.split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            text.push_str(&literal(secrets, mode));
            text.push_str(part);
        }
        // What is cut off in the middle of a literal.
        if let Some(start) = text.strip_suffix('{') {
            text = format!("{start}{}", secrets.word());
        }
        texts.push(text);
    }
    texts
}

/// The same by the command-line client, in a character set, with a password on its command line.
pub fn mariadb(secrets: &mut Secrets, server: &MariaDb, mode: &str, charset: &str, folder: &Path) {
    let script = folder.join("script");
    let mut bytes = Vec::new();
    // Each is one command: a text may have semicolons in it.
    bytes.extend_from_slice(b"DELIMITER ;;;\n");
    // The client would wait for the end of a literal.
    for text in texts(secrets, mode, 150).iter().filter(|text| !text.contains("unfinished")) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(b"\n;;;\n");
        if charset == "gbk" {
            // Characters whose second half is a backslash or a backtick.
            let (one, two) = (secrets.word(), secrets.word());
            for second in [b'\\', b'`'] {
                bytes.extend_from_slice(b"SELECT '\xd5");
                bytes.push(second);
                bytes.extend_from_slice(format!("', '{one}', ' {two}'\n;;;\n").as_bytes());
            }
        }
    }
    std::fs::write(&script, bytes).expect("there is room for it");
    let client = server.client();
    let status = Command::new(&client[0])
        .args(&client[1..])
        .args([
            "--force",
            "--batch",
            &format!("--default-character-set={charset}"),
            &format!("--init-command=SET @x = '{}'", secrets.word()),
        ])
        .stdin(std::fs::File::open(&script).expect("it was written"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // Most statements fail, on purpose.
    status.expect("the client starts");
}
