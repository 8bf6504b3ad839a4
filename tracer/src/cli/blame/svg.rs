//! The worst moment as a picture: a lane for each client of the server, with what it had the thread for, and below them
//! the commands that waited.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::{Report, duration, named};
use crate::trace::Wait;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 190.0;
const LANE: f64 = 26.0;
const TOP: f64 = 58.0;
/// Commands that are drawn waiting.
const MAX_WAITING: usize = 12;
/// Lanes of clients.
const MAX_CLIENTS: usize = 12;
/// Readable for the colour-blind (Okabe and Ito).
const COLOURS: [&str; 7] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442"];
const GREY: &str = "#999999";

/// Draws the worst moment of a report.
pub fn draw(report: &Report) -> String {
    let moments = report.moments();
    let Some(moment) = moments.first() else {
        return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"400\" height=\"40\">\
                <text x=\"10\" y=\"25\" font-family=\"sans-serif\">no command waited for another one</text></svg>\n"
            .to_owned();
    };
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = picture(&mut out, moment, &report.beside(moment));
    out
}

fn picture(out: &mut String, moment: &Wait, waits: &[&Wait]) -> std::fmt::Result {
    let (from, to) = (moment.start_ns, moment.end_ns.max(moment.start_ns + 1));
    let scale = (WIDTH - LEFT - 20.0) / (to - from) as f64;
    let x = |ns: u64| LEFT + ns.clamp(from, to).saturating_sub(from) as f64 * scale;
    let mut lanes: BTreeMap<String, Vec<(u64, u64, String)>> = BTreeMap::new();
    for (slot, who) in &moment.story {
        let (client, command) = named(slot, who.as_ref());
        lanes.entry(client).or_default().push((slot.start_ns, slot.end_ns, command));
    }
    let mut lanes: Vec<_> = lanes.into_iter().collect();
    // Who had the thread for longest comes first.
    let busy = |slots: &[(u64, u64, String)]| slots.iter().map(|(start, end, _)| end - start).sum::<u64>();
    lanes.sort_by_key(|(_, slots)| std::cmp::Reverse(busy(slots)));
    lanes.truncate(MAX_CLIENTS);
    let waits = groups(waits);
    let height = TOP + LANE * (lanes.len() + waits.len()) as f64 + 74.0;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    )?;
    writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>")?;
    let title = format!(
        "{} of {} took {}, of which it waited {}",
        moment.operation,
        moment.service,
        duration(to - from),
        duration(moment.split.queue_ns)
    );
    text(out, 10.0, 22.0, "start", "#000000", &title)?;
    text(out, 10.0, 46.0, "start", "#555555", &format!("who had {} meanwhile", moment.server))?;
    axis(out, to - from, height, &x, from)?;
    let mut y = TOP;
    let mut colours: Vec<String> = Vec::new();
    for (client, slots) in &lanes {
        text(out, LEFT - 8.0, y + 16.0, "end", "#000000", &clip(client, 26))?;
        for (start, end, command) in slots {
            let own = client == "(server)";
            let known = colours.iter().position(|other| other == command);
            let index = known.unwrap_or_else(|| {
                colours.push(command.clone());
                colours.len() - 1
            });
            let colour = if own { GREY } else { COLOURS[index % COLOURS.len()] };
            let (left, width) = (x(*start), (x(*end) - x(*start)).max(0.7));
            let title = escape(&format!("{client} {command}: {}", duration(end - start)));
            writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"><title>{title}</title></rect>",
                y + 3.0
            )?;
            let label = format!("{command} {}", duration(end - start));
            if width > 7.0 * label.chars().count() as f64 {
                text(out, left + 5.0, y + 16.0, "start", "#ffffff", &label)?;
            }
        }
        y += LANE;
    }
    y += 24.0;
    text(out, 10.0, y - 6.0, "start", "#555555", "waited")?;
    for (wait, count) in waits {
        let times = if count > 1 { format!("{count} x ") } else { String::new() };
        let label = format!("{} {times}{}", clip(&wait.service, 16), clip(&wait.operation, 10));
        text(out, LEFT - 8.0, y + 16.0, "end", "#000000", &label)?;
        let (left, width) = (x(wait.start_ns), (x(wait.end_ns) - x(wait.start_ns)).max(1.0));
        writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"18\" fill=\"#eeeeee\" stroke=\"#333333\"/>",
            y + 3.0
        )?;
        text(out, left + 5.0, y + 16.0, "start", "#333333", &format!("waits {}", duration(wait.split.queue_ns)))?;
        y += LANE;
    }
    writeln!(out, "</svg>")
}

/// The commands of one pipeline are one bar.
fn groups<'a>(waits: &[&'a Wait]) -> Vec<(&'a Wait, usize)> {
    let mut groups: Vec<(&Wait, usize)> = Vec::new();
    for &wait in waits {
        let same = |(other, _): &&mut (&Wait, usize)| {
            (&other.service, &other.operation, other.start_ns) == (&wait.service, &wait.operation, wait.start_ns)
        };
        let room = groups.len() < MAX_WAITING;
        match groups.iter_mut().find(same) {
            Some((_, count)) => *count += 1,
            None if room => groups.push((wait, 1)),
            None => {}
        }
    }
    groups
}

/// Four lines of time.
fn axis(out: &mut String, span: u64, height: f64, x: &impl Fn(u64) -> f64, from: u64) -> std::fmt::Result {
    for part in 0..=4u64 {
        let ns = span / 4 * part;
        let at = x(from + ns);
        writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
            TOP - 4.0,
            height - 22.0
        )?;
        let anchor = if part == 4 { "end" } else { "middle" };
        text(out, at, height - 8.0, anchor, "#555555", &duration(ns))?;
    }
    Ok(())
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, colour: &str, text: &str) -> std::fmt::Result {
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>", escape(text))
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Names come from targets: nothing of them is markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{clip, draw, escape};
    use crate::cli::blame::Report;

    #[test]
    fn names_are_no_markup() {
        assert_eq!(escape("<a b=\"c\">&\n"), "&lt;a b=&quot;c&quot;&gt;&amp;?");
        assert_eq!(clip("abcdef", 4), "abc…");
    }

    #[test]
    fn an_empty_report_is_a_picture_that_says_so() {
        assert!(draw(&Report::default()).contains("no command waited"));
    }
}
