use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Screen, Wish, short, time_short};
use crate::export::top::{Blocker, Board, Figures};
use crate::model::TraceId;

fn figures(service: &str, operation: &str, rate: f64, p50: u64, waited: Option<u64>) -> Figures {
    Figures {
        service: service.to_owned(),
        operation: operation.to_owned(),
        rate,
        errors: u64::from(operation == "HSET"),
        p50,
        p90: 2 * p50,
        p99: 4 * p50,
        max: 40 * p50,
        waited,
        served: waited.map(|_| 2_000),
        slowest: TraceId([1; 16]),
    }
}

/// A screen with some rows, on which keys work as on a live one.
fn screen() -> Screen {
    let all = vec![
        figures("risk_control", "GET", 12_345.6, 41_000, Some(7_200_000)),
        figures("risk_control", "process RiskRequest", 499.7, 410_000, None),
        figures("msg_order_engine", "HSET", 0.4, 55_000, Some(0)),
        figures("evil\x1b[2J", "a very long operation\n", 99.0, 999, None),
    ];
    let blockers =
        vec![Blocker { command: "KEYS".into(), service: "reports".into(), waiting: 37, total: 1_234_000_000 }];
    // Paused, so that the rows stay.
    Screen { all, blockers, paused: true, ..Screen::default() }
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    terminal.draw(|frame| screen.draw(frame)).expect("memory takes everything");
    terminal.backend().to_string()
}

fn press(screen: &mut Screen, code: KeyCode) -> Wish {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE), &Board::default())
}

#[test]
fn it_fits_into_80_by_24() {
    let mut screen = screen();
    press(&mut screen, KeyCode::Null);
    insta::assert_snapshot!(drawn(&mut screen, 80, 24));
}

#[test]
fn every_size_can_be_drawn() {
    for (width, height) in [(1, 1), (20, 3), (40, 10), (200, 60)] {
        drawn(&mut screen(), width, height);
    }
}

#[test]
fn keys_sort_select_and_quit() {
    let mut screen = screen();
    let first = |screen: &Screen| screen.rows[0].operation.clone();
    press(&mut screen, KeyCode::Null);
    assert_eq!(first(&screen), "GET");
    press(&mut screen, KeyCode::Char('s'));
    assert_eq!(first(&screen), "HSET", "by errors");
    press(&mut screen, KeyCode::Right);
    assert_eq!(first(&screen), "process RiskRequest", "by p50");
    press(&mut screen, KeyCode::Left);
    press(&mut screen, KeyCode::Left);
    assert_eq!(first(&screen), "GET", "by rate again");
    for _ in 0..9 {
        press(&mut screen, KeyCode::Down);
    }
    assert_eq!(screen.selected.selected(), Some(3), "not beyond the last");
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Wish::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control_c, &Board::default()), Wish::Quit);
}

#[test]
fn the_filter_takes_letters_until_enter() {
    let mut screen = screen();
    press(&mut screen, KeyCode::Char('/'));
    for letter in "RisQ".chars() {
        press(&mut screen, KeyCode::Char(letter));
    }
    press(&mut screen, KeyCode::Backspace);
    assert!(drawn(&mut screen, 80, 24).contains("/Ris_"));
    press(&mut screen, KeyCode::Enter);
    assert_eq!(screen.rows.len(), 2);
    press(&mut screen, KeyCode::Char('/'));
    press(&mut screen, KeyCode::Esc);
    assert_eq!((screen.rows.len(), &*screen.filter), (4, ""));
}

#[test]
fn a_trace_opens_and_closes() {
    let mut screen = screen();
    press(&mut screen, KeyCode::Null);
    press(&mut screen, KeyCode::Enter);
    assert!(drawn(&mut screen, 80, 24).contains("is no longer kept"));
    assert_eq!(press(&mut screen, KeyCode::Esc), Wish::Stay);
    assert!(drawn(&mut screen, 80, 24).contains("SERVICE"));
}

#[test]
fn numbers_are_short() {
    assert_eq!(
        [0.04, 9.96, 123.4, 9_949.0, 12_345.0, 1_234_567.0].map(short),
        ["0.0", "10", "123", "9.9k", "12k", "1.2M"]
    );
    let times = [0, 999, 1_000, 9_960, 999_499, 1_500_000, 999_499_999, 61_000_000_000];
    assert_eq!(times.map(time_short), ["0ns", "999ns", "1.0us", "10us", "999us", "1.5ms", "999ms", "61s"]);
}
