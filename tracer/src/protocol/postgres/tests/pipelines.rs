//! Several commands before one Sync, and errors among them.

use super::*;

const ONE: &str = "INSERT INTO one VALUES ($1)";
const TWO: &str = "INSERT INTO two VALUES ($1)";
const THREE: &str = "INSERT INTO three VALUES ($1)";

#[test]
fn each_execute_is_a_command() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[unnamed(ONE), unnamed(TWO), unnamed(THREE), sync()].concat());
    for _ in 0..3 {
        dialogue.received(&executed("INSERT 0 1", 0));
    }
    assert_eq!(dialogue.commands.len(), 2, "the last one ends with the commit");
    dialogue.received(&ready());
    let commands = dialogue.take();
    assert_eq!(told(&commands), [("EXECUTE", ONE, ""), ("EXECUTE", TWO, ""), ("EXECUTE", THREE, "")]);
    assert!(commands.iter().all(|command| command.affected_rows == Some(1)));
    assert!(commands.windows(2).all(|pair| pair[0].end_ns < pair[1].end_ns));
    dialogue.clean();
}

#[test]
fn what_follows_an_error_is_skipped() {
    // The error comes before or after the rest was sent.
    for late in [false, true] {
        let mut dialogue = Dialogue::connected();
        let rest = [unnamed(THREE), sync()].concat();
        dialogue.sent(&[unnamed(ONE), unnamed(TWO), if late { Vec::new() } else { rest.clone() }].concat());
        dialogue.received(&executed("INSERT 0 1", 0));
        dialogue.received(&[message(b'1', b""), message(b'2', b""), error("23505")].concat());
        if late {
            dialogue.sent(&rest);
        }
        dialogue.received(&ready());
        let commands = dialogue.take();
        let expected = [("EXECUTE", ONE, ""), ("EXECUTE", TWO, "23505"), ("EXECUTE", THREE, "skipped")];
        assert_eq!(told(&commands), expected, "late: {late}");
        // The next batch is as if nothing had been.
        dialogue.sent(&[unnamed(ONE), sync()].concat());
        dialogue.received(&[executed("INSERT 0 1", 0), ready()].concat());
        assert_eq!(told(&dialogue.take()), [("EXECUTE", ONE, "")]);
        dialogue.clean();
    }
}

#[test]
fn a_parse_that_fails_is_the_failure_of_its_command() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[parse("s", ONE), message(b'H', b"")].concat());
    dialogue.received(&error("42601"));
    assert_eq!(told(&dialogue.take()), [("PARSE", ONE, "42601")]);
    // Skipped, as it was sent before the Sync.
    dialogue.sent(&[parse("t", TWO), bind("", "t"), execute(""), sync()].concat());
    dialogue.received(&ready());
    assert_eq!(told(&dialogue.take()), [("EXECUTE", TWO, "skipped")]);
    dialogue.sent(&[bind("", "t"), execute(""), sync()].concat());
    dialogue.received(&[error("26000"), ready()].concat());
    assert_eq!(told(&dialogue.take()), [("EXECUTE", "", "26000")], "it was never prepared");
    dialogue.clean();
}

#[test]
fn answers_that_are_flushed_end_their_commands() {
    let mut dialogue = Dialogue::connected();
    dialogue.sent(&[unnamed(ONE), unnamed(TWO), message(b'H', b"")].concat());
    dialogue.received(&executed("INSERT 0 1", 0));
    dialogue.received(&executed("INSERT 0 1", 0));
    assert_eq!(dialogue.take().len(), 2);
    dialogue.sent(&sync());
    dialogue.received(&ready());
    assert_eq!(dialogue.one().name, "SYNC");
    dialogue.clean();
}

#[test]
fn an_answer_before_the_record_of_its_command_is_its_answer() {
    let mut dialogue = Dialogue::connected();
    let (sent, offsets) = ([unnamed(ONE), sync()].concat(), dialogue.offsets);
    let reply = [executed("INSERT 0 1", 0), ready()].concat();
    let chunk = |direction, offset, data: &'static [u8], start_ns, end_ns| Chunk {
        direction,
        offset,
        len: data.len() as u64,
        data,
        start_ns,
        end_ns,
    };
    let mut out = Vec::new();
    let received = chunk(Direction::Received, offsets[0], reply.leak(), 100_100, 100_200);
    dialogue.tracker.feed(received, 0, &mut out);
    assert!(out.is_empty());
    dialogue.tracker.feed(chunk(Direction::Sent, offsets[1], sent.leak(), 100_000, 100_300), 9, &mut out);
    assert_eq!((out[0].tag, out[0].affected_rows, out[0].end_ns), (9, Some(1), 100_200));
    dialogue.clean();
}
