//! `tracer top` in a real terminal: tmux draws it, and says what stands on the screen.

use std::process::Command;

use tempfile::TempDir;
use tracer_tests::secrets::assert_none;
use tracer_tests::{RedisServer, Secrets, Target, program, require_root, wait_for};

/// A tmux server of its own with one window of 80 by 24.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    fn start(command: &[&str]) -> Self {
        let terminal = Self { folder: TempDir::new().expect("a temporary folder") };
        let started = terminal
            .tmux()
            .args(["new-session", "-d", "-x", "80", "-y", "24"])
            .args(command)
            .status()
            .expect("tmux is installed; `cargo xtask test` installs it");
        assert!(started.success());
        // The screen stays after the program's end.
        assert!(terminal.tmux().args(["set-option", "remain-on-exit", "on"]).status().expect("tmux runs").success());
        terminal
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.folder.path().join("socket")).env("TERM", "xterm").env_remove("TMUX");
        tmux
    }

    fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, keys: &[&str]) {
        assert!(self.tmux().arg("send-keys").args(keys).status().expect("tmux runs").success());
    }

    /// The first screen that has all of these.
    fn wait_for(&self, texts: &[&str]) -> String {
        wait_for(&format!("{texts:?} on the screen"), || {
            let screen = self.screen();
            texts.iter().all(|text| screen.contains(text)).then_some(screen)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.tmux().arg("kill-server").status();
    }
}

#[test]
fn operations_are_shown_sorted_filtered_and_opened() {
    require_root();
    let server = RedisServer::start();
    let mut target = Target::start("redis_target");
    let tracer = program("tracer");
    let pid = target.pid().to_string();
    let terminal = Terminal::start(&[tracer.to_str().expect("the path is UTF-8"), "top", "-p", &pid]);
    terminal.wait_for(&["tracer top", "no spans in the last ten seconds"]);
    target.ask(&format!("sync {} 5000", server.address()));

    let screen = terminal.wait_for(&["GET", "HSET", "HGETALL", "INCR"]);
    println!("{screen}");
    let head = screen.lines().nth(1).expect("a line of titles");
    for title in ["SERVICE", "OPERATION", "RATE/S", "ERR", "P50", "P90", "P99", "MAX", "WAITED", "SERVED"] {
        assert!(head.contains(title), "{screen}");
    }
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(screen.lines().any(|line| line.starts_with("redis_target") && line.contains("GET")), "{screen}");

    terminal.press(&["p"]);
    terminal.wait_for(&["PAUSED"]);
    terminal.press(&["s"]);
    terminal.wait_for(&["by errors"]);
    terminal.press(&["/", "h", "g", "e", "t", "Enter"]);
    let filtered = terminal.wait_for(&["/hget", "1 operations", "HGETALL"]);
    assert!(!filtered.contains("INCR"), "{filtered}");
    terminal.press(&["Enter"]);
    let trace = terminal.wait_for(&["trace ", "db.query.text=HGETALL", "Esc back"]);
    println!("{trace}");
    terminal.press(&["Escape"]);
    terminal.wait_for(&["SERVICE", "HGETALL"]);
    terminal.press(&["q"]);
    // Back on the ordinary screen, with the balance.
    let end = terminal.wait_for(&["spans for top", "Pane is dead"]);
    assert!(!end.contains("SERVICE"), "{end}");
    assert!(target.end().success());
}

#[test]
fn secrets_are_not_on_the_screen() {
    require_root();
    let server = RedisServer::start();
    let mut secrets = Secrets::new(5);
    let mut target = Target::start("secret_target");
    let commands = ["AUTH {} {}\r\n", "SET {} {}\r\n", "ACL SETUSER {} on >{}\r\n", "{} {}\r\n"];
    let calls: Vec<Vec<u8>> = commands.iter().map(|command| secrets.fill(command).into_bytes()).collect();
    let list = TempDir::new().expect("a temporary folder");
    let path = list.path().join("list");
    std::fs::write(&path, serde_json::to_vec(&calls).expect("JSON")).expect("there is room for it");
    let tracer = program("tracer");
    let pid = target.pid().to_string();
    let terminal = Terminal::start(&[tracer.to_str().expect("the path is UTF-8"), "top", "-p", &pid]);
    terminal.wait_for(&["no spans in the last ten seconds"]);
    target.ask(&format!("raw {} {}", server.address(), path.display()));
    assert_none("the list", &terminal.wait_for(&["AUTH", "SET", "ACL SETUSER", "_OTHER"]));
    terminal.press(&["p"]);
    terminal.wait_for(&["PAUSED"]);
    for name in ["auth", "set", "acl", "_other"] {
        terminal.press(&["/"]);
        name.chars().for_each(|letter| terminal.press(&[&letter.to_string()]));
        terminal.press(&["Enter"]);
        terminal.wait_for(&[&format!("/{name}")]);
        terminal.press(&["Enter"]);
        assert_none("a trace", &terminal.wait_for(&["trace ", "Esc back"]));
        terminal.press(&["Escape"]);
        terminal.wait_for(&["SERVICE"]);
        // The next filter begins with nothing. An Escape with a key right behind it would be another key.
        terminal.press(&["/", "Escape"]);
        wait_for("no filter", || {
            let screen = terminal.screen();
            (screen.contains("q quit") && !screen.contains(&format!("/{name}"))).then_some(())
        });
    }
    terminal.press(&["q"]);
    assert_none("the end", &terminal.wait_for(&["spans for top", "Pane is dead"]));
}
