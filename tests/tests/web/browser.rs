//! A real Chromium without a window, and `tracer view` that it looks at.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use thirtyfour::{By, Capabilities, ChromiumLikeCapabilities as _, DesiredCapabilities, Key, WebDriver};
use tokio::runtime::Runtime;

use tracer_tests::redis::free_port;
use tracer_tests::{DEADLINE, program, wait_for};

/// A browser with one page; dropping it ends it.
pub struct Browser {
    runtime: Runtime,
    session: Option<WebDriver>,
    driver: Child,
    _folder: TempDir,
}

impl Browser {
    /// Starts one with a window of 1280 by 720.
    pub fn start() -> Self {
        // The client speaks no TLS here, but is built with it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = TempDir::new().expect("a temporary folder");
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed; `cargo xtask test` installs it");
        wait_for("chromedriver", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        let mut wanted = DesiredCapabilities::chrome();
        // Chromium's own sandbox refuses to run as root.
        let profile = format!("--user-data-dir={}", folder.path().display());
        for flag in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,720", &profile] {
            wanted.add_arg(flag).expect("a flag");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let session = WebDriver::new(format!("http://127.0.0.1:{port}"), Capabilities::from(wanted));
        let session = runtime.block_on(session).expect("Chromium starts");
        Self { runtime, session: Some(session), driver, _folder: folder }
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.session().goto(url)).expect("the page opens");
    }

    /// What an expression is in the page.
    pub fn value(&self, expression: &str) -> Value {
        let result = self.runtime.block_on(self.session().execute(format!("return ({expression});"), Vec::new()));
        let result = result.unwrap_or_else(|error| panic!("{expression}: {error}"));
        result.json().clone()
    }

    /// Waits until an expression is true in the page.
    pub fn until(&self, expression: &str) {
        let start = std::time::Instant::now();
        // An element that is not there yet makes an error of an expression.
        let tried = format!("(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()");
        while self.value(&tried) != Value::Bool(true) {
            assert!(start.elapsed() < DEADLINE, "waited too long for {expression} on:\n{}", self.text());
            std::thread::yield_now();
        }
    }

    /// All that can be read on the page.
    pub fn text(&self) -> String {
        self.value("document.body.innerText").as_str().expect("a text").to_owned()
    }

    /// Clicks on the first element of a CSS selector.
    pub fn click(&self, selector: &str) {
        let element = self.runtime.block_on(self.session().find(By::Css(selector)));
        let element = element.unwrap_or_else(|error| panic!("{selector}: {error}"));
        self.runtime.block_on(element.click()).unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Types into whatever has the focus.
    pub fn press(&self, keys: &str) {
        let typing = self.session().action_chain().send_keys(keys);
        self.runtime.block_on(typing.perform()).expect("the page takes keys");
    }

    /// The same with keys that have no character.
    pub fn press_key(&self, key: Key) {
        self.press(&key.value().to_string());
    }

    fn session(&self) -> &WebDriver {
        self.session.as_ref().expect("it is there until the end")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // The browser may be gone.
            let _ = self.runtime.block_on(session.quit());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A running `tracer view`; dropping it kills it.
pub struct View {
    child: Child,
    /// The address that it has printed.
    pub url: String,
}

impl View {
    /// Shows a file at a free port.
    pub fn start(file: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program("tracer"));
        command.arg("view").arg(file).args(["--web", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("tracer starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut url).expect("it writes UTF-8");
        assert!(url.starts_with("http://"), "{url:?}: {:?}", child.try_wait());
        Self { child, url: url.trim().to_owned() }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Either may fail because it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
