//! What the connection says of how its SQL is to be read, and when that is no longer sure.

use super::*;

/// The same with the mode NO_BACKSLASH_ESCAPES.
const OK_NO_ESCAPES: &[u8] = b"\x00\x02\x00\x02\x02\x00\x00";
const EOF_NO_ESCAPES: &[u8] = b"\xfe\x00\x00\x02\x02";
const END_NO_ESCAPES: &[u8] = b"\xfe\x00\x00\x02\x02\x00\x00";
/// One literal to a server whose `\` escapes, two and a name to another one.
const ONE: &str = r"SELECT 'a\', secret, '";
/// The other way round.
const TWO: &str = r"SELECT 'a\', 'secret'";

fn shown(dialogue: &mut Dialogue, sql: &str) -> String {
    dialogue.take();
    dialogue.query(sql, &packet(1, NO_TABLE));
    let command = dialogue.one();
    text(&command).to_owned()
}

#[test]
fn the_status_of_a_reply_says_whether_a_backslash_escapes() {
    for capabilities in [0, DEPRECATE_EOF] {
        let rows = |end: &[u8]| {
            if capabilities == 0 {
                packets(1, &[b"\x01", COLUMN, EOF, b"\x011", end])
            } else {
                packets(1, &[b"\x01", COLUMN, b"\x011", end])
            }
        };
        let (end, no_escapes) = if capabilities == 0 { (EOF, EOF_NO_ESCAPES) } else { (END, END_NO_ESCAPES) };
        for (reply, sql, expected) in [
            (packet(1, OK), ONE, "SELECT ?"),
            (rows(end), ONE, "SELECT ?"),
            (packet(1, OK_NO_ESCAPES), TWO, "SELECT ?, ?"),
            (rows(no_escapes), TWO, "SELECT ?, ?"),
        ] {
            let mut dialogue = Dialogue::connected(capabilities);
            dialogue.query("SELECT 1", &reply);
            assert_eq!(shown(&mut dialogue, sql), expected);
        }
    }
}

#[test]
fn what_is_not_known_is_not_guessed() {
    // Nothing was said yet; the connection was open before; the last statement failed; one is still under way.
    let mut dialogue = Dialogue::connected(0);
    assert_eq!(shown(&mut dialogue, TWO), "SELECT ?...");
    let mut dialogue = Dialogue::connected(0);
    dialogue.query("SELECT 1", &packet(1, OK_NO_ESCAPES));
    assert_eq!(shown(&mut dialogue, TWO), "SELECT ?, ?");
    assert_eq!(shown(&mut dialogue, TWO), "SELECT ?...", "it ended with an error");
    dialogue.query("SELECT 1", &packet(1, OK_NO_ESCAPES));
    dialogue.take();
    dialogue.sent(&packet(0, b"\x03SET sql_mode = ''"));
    dialogue.sent(&packet(0, &[b"\x03", TWO.as_bytes()].concat()));
    dialogue.received(&packet(1, OK));
    dialogue.received(&packet(1, OK));
    assert_eq!(text(&dialogue.take()[1]), "SELECT ?...");
    // Bytes of a reply are missing.
    dialogue.query("SELECT 1", &packet(1, OK_NO_ESCAPES));
    dialogue.lost(Direction::Received, 11);
    dialogue.query("SELECT 1", &packet(1, OK));
    dialogue.take();
    dialogue.query(TWO, &packet(1, OK));
    assert!(dialogue.take().iter().all(|command| text(command) != "SELECT ?, ?"));
}

#[test]
fn utf8_is_believed_until_something_may_have_changed_it() {
    let name = "SELECT `é` FROM t";
    let fresh = || {
        let mut dialogue = Dialogue::connected(0);
        assert_eq!(shown(&mut dialogue, name), name);
        dialogue
    };
    fresh();
    for sql in [
        "SET NAMES gbk",
        "SET CHARACTER SET gbk",
        "SET character_set_client = gbk",
        "SET @@session.character_set_client = gbk",
        "SET SESSION `character_set_client` = gbk",
        "EXECUTE IMMEDIATE 'SET NAMES gbk'",
        "PREPARE s FROM 'SET NAMES gbk'",
        "CALL change_it()",
        "/*!40101 SET NAMES gbk */",
        r"SELECT 'in doubt \' SET NAMES gbk",
    ] {
        let mut dialogue = fresh();
        dialogue.query(sql, &packet(1, OK));
        assert_eq!(shown(&mut dialogue, name), "SELECT ?...", "{sql}");
    }
    let mut dialogue = fresh();
    dialogue.query(&format!("SELECT '{}'; SET NAMES gbk", "x".repeat(20_000)), &packet(1, OK));
    assert_eq!(shown(&mut dialogue, name), "SELECT ?...", "the end of the text was not seen");
    // GBK from the beginning: the collation in the login.
    let mut dialogue = Dialogue::new(false);
    dialogue.received(&greeting("8.0.36"));
    let mut answer = login(0);
    answer[4 + 8] = 28;
    dialogue.sent(&answer);
    dialogue.received(&packet(2, OK));
    assert_eq!(shown(&mut dialogue, name), "SELECT ?...");
}
