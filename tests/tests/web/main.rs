//! The browser view in a real browser: each view on real recordings, hostile spans, who is let in, a live session and its end.

mod browser;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use thirtyfour::Key;
use tracer_tests::pipeline::{Load, Pipeline};
use tracer_tests::{Agent, RedisServer, Target, program, require_root, waits};

use browser::{Browser, View};

/// Everything of the file has been read.
const LOADED: &str = "document.querySelector('.source').dataset.loading === 'false'";

/// Goes to another view of a page that is open.
fn go(browser: &Browser, hash: &str) {
    browser.value(&format!("location.hash = '{hash}'"));
}

/// Records a small service at a Redis server.
fn recorded(folder: &Path, orders: usize) -> PathBuf {
    let server = RedisServer::start();
    let recording = folder.join("orders.recording");
    let mut command = Command::new(program("order_target"));
    let mut target = Target::spawn(command.arg(server.address()));
    let mut recorder = Command::new(program("tracer"))
        .args(["record", "-p", &target.pid().to_string(), "-o"])
        .arg(&recording)
        .stderr(Stdio::piped())
        .spawn()
        .expect("tracer starts");
    let mut said = BufReader::new(recorder.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("Ctrl-C ends") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("tracer writes UTF-8"), 0, "tracer ended");
    }
    target.ask(&format!("orders {orders}"));
    assert!(target.end().success());
    assert!(recorder.wait().expect("it is our child").success());
    recording
}

/// A file of spans: each is trace, number, parent and name, in the order of time.
fn written(folder: &Path, name: &str, spans: &[(u8, u8, u8, &str)]) -> PathBuf {
    let mut list = Vec::new();
    for (at, (trace, id, parent, name)) in spans.iter().enumerate() {
        let parent = if *parent == 0 { String::new() } else { format!("{parent:02x}").repeat(8) };
        list.push(json!({
            "traceId": format!("{trace:02x}").repeat(16), "spanId": format!("{id:02x}").repeat(8), "parentSpanId": parent,
            "name": name, "kind": 1, "startTimeUnixNano": (1_767_323_045_000_000_000u64 + at as u64 * 1000).to_string(),
            "endTimeUnixNano": (1_767_323_045_000_500_000u64 + at as u64 * 1000).to_string(),
            "attributes": [{ "key": name, "value": { "stringValue": name } }],
        }));
    }
    let service =
        json!([{ "key": "service.name", "value": { "stringValue": spans.first().map_or("", |span| span.3) } }]);
    let request =
        json!({ "resourceSpans": [{ "resource": { "attributes": service }, "scopeSpans": [{ "spans": list }] }] });
    let path = folder.join(name);
    std::fs::write(&path, format!("{request}\n")).expect("it can be written");
    path
}

/// A plain request: status line, headers and body.
fn request(url: &str, head: &str) -> String {
    let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an address");
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "{head}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers with text");
    answer
}

#[test]
fn each_view_shows_a_recording() {
    require_root();
    let folder = TempDir::new().expect("a temporary folder");
    let view = View::start(&recorded(folder.path(), 50), &[]);
    let browser = Browser::start();
    browser.open(&view.url);
    browser.until(LOADED);
    browser.until("document.querySelectorAll('.list tbody tr').length >= 50");
    assert_eq!(browser.value("location.search"), "", "the token does not stay in the address");
    assert!(browser.text().contains("process Order"), "{}", browser.text());

    // By keyboard: to the search, a name, Enter.
    browser.press("/");
    browser.until("document.activeElement.name === 'service'");
    browser.press_key(Key::Tab);
    browser.press("GET");
    browser.press_key(Key::Enter);
    browser.until("location.hash === '#traces?name=GET'");
    browser.until("document.querySelector('.list').innerText.includes('span that fits')");
    assert_eq!(browser.value("document.querySelectorAll('.list tbody tr').length"), 50);
    // The bars of the histogram have all of them.
    let bars = "[...document.querySelectorAll('.bars button')].map((bar) => +bar.title.match(/: ([0-9,]+) trace/)[1])";
    assert_eq!(browser.value(&format!("{bars}.reduce((a, b) => a + b, 0)")), 50);
    browser.click(".bars button:not([disabled])");
    browser.until("location.hash.includes('min=') && location.hash.includes('max=')");
    go(&browser, "#traces?min=never");
    browser.until("document.querySelector('.gone').innerText.includes('1.5ms')");
    go(&browser, "#traces?name=no+such+span");
    browser.until("document.querySelector('.empty').innerText === 'No trace fits.'");

    // A trace: its spans, the critical path, one span chosen by keyboard, and a link to it.
    go(&browser, "#traces?name=decode+Order");
    browser.until("document.querySelectorAll('.list tbody tr').length === 50");
    browser.click(".list tbody a");
    browser.until("document.querySelectorAll('.row').length >= 4");
    for name in ["decode Order", "process Order", "SET", "GET", "encode Report"] {
        assert!(browser.text().contains(name), "{name} in {}", browser.text());
    }
    browser.until("document.querySelectorAll('.row.critical .path').length >= 3");
    browser.value("document.querySelector('.rows').focus()");
    browser.press_key(Key::End);
    browser.until("document.querySelector('.details h2').innerText !== ''");
    browser.until("location.hash.includes('?span=')");
    let link = browser.value("location.href").as_str().expect("a text").to_owned();
    let chosen = browser.value("document.querySelector('.details h2').innerText");
    browser.press_key(Key::Escape);
    browser.until("!document.querySelector('.details')");
    // Left goes to the parent and closes it.
    browser.press_key(Key::End);
    browser.press_key(Key::Left);
    browser.press_key(Key::Left);
    browser.until("document.querySelector('.mark').innerText === '▸' || document.body.innerText.includes('▸')");
    browser.open("about:blank");
    browser.open(&link);
    browser.until("document.querySelector('.details h2').innerText !== ''");
    assert_eq!(browser.value("document.querySelector('.details h2').innerText"), chosen);
    // What is downloaded is a file that can be viewed again.
    let download = "(async () => { for (const as of ['otlp', 'jaeger', 'perfetto']) { const id = location.hash.slice(7, 39); \
                    const answer = await fetch(`api/trace/${id}/download?as=${as}`); \
                    window[as] = [answer.headers.get('content-disposition'), await answer.text()]; } window.done = true; })()";
    browser.value(&format!("{download} && true"));
    browser.until("window.done");
    assert!(browser.value("window.otlp[0]").as_str().is_some_and(|name| name.contains(".otlp.json")));
    let again = folder.path().join("again.jsonl");
    std::fs::write(&again, browser.value("window.otlp[1]").as_str().expect("a text")).expect("it can be written");
    let spans = browser.value("JSON.parse(window.jaeger[1]).data[0].spans.length");
    assert!(browser.value("JSON.parse(window.perfetto[1]).traceEvents.length").as_u64() > spans.as_u64());

    go(&browser, "#map");
    browser.until("document.querySelectorAll('.node').length >= 2");
    assert!(browser.text().contains("redis 127.0.0.1:"), "{}", browser.text());
    go(&browser, "#latency?service=order_target&name=SET");
    browser.until("document.querySelectorAll('.heat rect').length > 0 && document.querySelector('tr.chosen')");
    go(&browser, "#redis");
    browser.until("document.body.innerText.includes('100 commands')");
    go(&browser, "#health");
    browser.until("document.body.innerText.includes('holds')");
    assert!(browser.text().contains("Nothing was lost."), "{}", browser.text());

    let view = View::start(&again, &[]);
    browser.open(&view.url);
    browser.until("document.querySelectorAll('.list tbody tr').length === 1");
    browser.until(&format!("document.querySelector('.list tbody').innerText.includes('{spans}')"));
}

#[test]
fn who_made_whom_wait_is_a_matrix_and_a_time_line() {
    require_root();
    let server = RedisServer::start();
    server.ask("DEBUG POPULATE 300000");
    let url = format!("redis://{}", server.address());
    let outcome = waits::beside_gets(&url, true, |blocker| {
        blocker.ask("run 5 KEYS *");
    });
    let folder = TempDir::new().expect("a temporary folder");
    let spans = folder.path().join("spans.jsonl");
    std::fs::write(&spans, &outcome.exported).expect("it can be written");
    let view = View::start(&spans, &[]);
    let browser = Browser::start();
    browser.open(&format!("{}#redis", view.url));
    browser.until(LOADED);
    browser.until("document.querySelector('.matrix')");
    let matrix = browser.value("document.querySelector('.matrix').innerText");
    let matrix = matrix.as_str().expect("a text");
    assert!(matrix.contains("getter") && matrix.contains("blocker"), "{matrix}");
    browser.until("[...document.querySelectorAll('.moment .bar')].some((bar) => bar.title.startsWith('KEYS'))");
    browser.click(".moment a");
    browser.until("document.querySelector('.rows')");
}

#[test]
fn nothing_that_a_target_says_becomes_a_part_of_the_page() {
    let folder = TempDir::new().expect("a temporary folder");
    let markup = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>";
    let long = "long ".repeat(2_000_000);
    let path = written(
        folder.path(),
        "hostile.jsonl",
        &[
            (1, 1, 0, markup),
            (1, 2, 1, "\u{202e}backwards\u{0007}\u{1b}[31m"),
            (1, 3, 1, &long),
            // Parents in a ring, and a span that is its own parent.
            (2, 4, 5, "ring a"),
            (2, 5, 4, "ring b"),
            (2, 6, 6, "itself"),
            (2, 6, 4, "the same id"),
            (3, 7, 9, "__proto__"),
        ],
    );
    let mut broken = std::fs::OpenOptions::new().append(true).open(&path).expect("it is there");
    writeln!(broken, "{{\"resourceSpans\": 7}}\nnonsense").expect("it can be written");
    let view = View::start(&path, &[]);
    let browser = Browser::start();
    browser.open(&view.url);
    browser.until(LOADED);
    browser.until("document.querySelectorAll('.list tbody tr').length === 3");
    assert!(browser.text().contains(markup), "it is text: {}", browser.text());
    go(&browser, &format!("#trace/{}?span={}", "01".repeat(16), "03".repeat(8)));
    browser.until("document.querySelectorAll('.row').length === 3 && document.querySelector('.details')");
    assert!(browser.text().contains("10,000,000 bytes"), "the large attribute is cut");
    assert!(browser.text().len() < 100_000);
    go(&browser, &format!("#trace/{}", "02".repeat(16)));
    browser.until("document.querySelectorAll('.row').length === 4");
    go(&browser, &format!("#trace/{}", "03".repeat(16)));
    browser.until("document.querySelector('.row').innerText.includes('__proto__')");
    for hash in ["#map", "#latency", "#redis", "#health", "#no-such-view", "#trace/zz", "#trace/"] {
        go(&browser, hash);
        browser.until("document.querySelector('main').innerText !== ''");
    }
    go(&browser, "#health");
    browser.until("document.body.innerText.includes('lines_malformed')");
    assert_eq!(browser.value("typeof window.hacked"), "undefined");
    assert_eq!(browser.value("document.querySelectorAll('main img, main script').length"), 0);
    // Even a mistake of the page could not make markup of a text.
    let refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } })()";
    assert_eq!(browser.value(refused), true);
}

#[test]
fn files_without_spans_and_other_files() {
    let folder = TempDir::new().expect("a temporary folder");
    let empty = folder.path().join("empty.jsonl");
    std::fs::write(&empty, "").expect("it can be written");
    let view = View::start(&empty, &[]);
    let browser = Browser::start();
    browser.open(&view.url);
    browser.until(LOADED);
    for hash in ["#traces", "#map", "#latency"] {
        go(&browser, hash);
        browser.until("document.querySelector('.empty').innerText.startsWith('There are no spans yet')");
    }
    go(&browser, "#redis");
    browser.until("document.querySelector('.empty').innerText.startsWith('There are no Redis commands')");
    go(&browser, "#health");
    browser.until("document.body.innerText.includes('Nothing was lost.')");
    // Also where dark is preferred, and in a small window, nothing is cut off at the side.
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), true);

    let refused = |arguments: &[&str]| {
        let output = Command::new(program("tracer")).arg("view").args(arguments).output().expect("tracer runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let other = folder.path().join("other");
    std::fs::write(&other, "hello\n").expect("it can be written");
    let said = refused(&[&other.display().to_string(), "--web", "127.0.0.1:0"]);
    assert!(said.contains("tracer record") && said.contains("--export file:"), "{said}");
    let said = refused(&[&empty.display().to_string(), "--web", "0.0.0.0:0"]);
    assert!(said.contains("--web-token"), "{said}");
    let said = refused(&[&empty.display().to_string(), "--web", "127.0.0.1:0", "--web-token", "short"]);
    assert!(said.contains("at least 16"), "{said}");
    let taken = view.url.split('/').nth(2).expect("an address").to_owned();
    let said = refused(&[&empty.display().to_string(), "--web", &taken]);
    assert!(said.contains(&taken) && said.contains("--web"), "{said}");
}

#[test]
fn only_who_has_the_token_is_let_in() {
    let folder = TempDir::new().expect("a temporary folder");
    let view = View::start(&written(folder.path(), "spans.jsonl", &[(1, 1, 0, "secret-span")]), &[]);
    let (address, token) =
        view.url.strip_prefix("http://").and_then(|rest| rest.split_once("/?token=")).expect("an address with a token");
    let port = address.rsplit(':').next().expect("a port");
    let ask = |head: &str| request(&view.url, head);
    let paths = [
        "/",
        "/page.js",
        "/api/summary",
        "/api/traces",
        "/api/map",
        "/api/health",
        "/api/redis",
        "/api/operations",
        "/no",
    ];
    let wrong = token.replace(|c: char| c.is_ascii_digit(), "a");
    for path in paths {
        for way in [
            format!("GET {path} HTTP/1.1\r\nHost: {address}"),
            format!("GET {path}?token= HTTP/1.1\r\nHost: {address}"),
            format!("GET {path}?token={wrong} HTTP/1.1\r\nHost: {address}"),
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nCookie: tracer-{port}={wrong}"),
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nCookie: tracer-1={token}"),
        ] {
            let answer = ask(&way);
            assert!(answer.starts_with("HTTP/1.1 401"), "{way}: {answer}");
            assert!(!answer.contains("secret-span") && !answer.to_lowercase().contains("set-cookie"), "{answer}");
        }
        // DNS rebinding: a name of somebody else, with everything else right.
        let answer = ask(&format!("GET {path}?token={token} HTTP/1.1\r\nHost: evil.example:{port}"));
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    }
    let answer = ask(&format!("POST /api/summary?token={token} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0"));
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = ask(&format!("GET /?token={token} HTTP/1.1\r\nHost: {address}")).to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("httponly; samesite=strict"), "{answer}");
    assert!(answer.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{answer}");
    let answer = ask(&format!("GET /api/traces HTTP/1.1\r\nHost: localhost:{port}\r\nCookie: tracer-{port}={token}"));
    assert!(answer.contains("secret-span"), "{answer}");

    // In a browser: another token, then the right one.
    let browser = Browser::start();
    browser.open(&view.url.replace(token, &wrong));
    assert!(browser.text().contains("the address that it has printed"), "{}", browser.text());
    browser.open(&view.url);
    browser.until("document.body.innerText.includes('secret-span')");
    // Another agent at the same place does not know the token of this one.
    browser.value("document.cookie = 'x=y'");
    assert_eq!(browser.value("document.cookie"), "x=y", "a script does not see the token");
}

#[test]
fn a_live_session_is_shown_and_its_end_too() {
    require_root();
    let pipeline = Pipeline::start(&tracer_tests::pipeline::SERVICES);
    let agent = Agent::run(&["-e", &pipeline.glob(), "--web", "127.0.0.1:0", "--memory-budget", "100000000"]);
    let url = agent.said().split_whitespace().find(|word| word.starts_with("http://")).expect("an address").to_owned();
    let browser = Browser::start();
    browser.open(&url);
    browser.until(LOADED);
    assert_eq!(pipeline.send(Load { count: 50, rate: 100, burst: 0, first: 1 })["filled"], 50);
    browser.until("document.querySelectorAll('.list tbody tr').length >= 50");
    // An order is one trace of four services, and the page shows the hops between them.
    go(&browser, "#traces?service=counter&sort=largest");
    browser.until("document.querySelectorAll('.list tbody tr').length >= 50");
    browser.click(".list tbody a");
    browser.until("document.querySelectorAll('.row .hop').length >= 5");
    for service in tracer_tests::pipeline::SERVICES {
        assert!(browser.text().contains(service), "{service} in {}", browser.text());
    }
    go(&browser, "#map");
    browser.until("document.querySelectorAll('.node.service').length >= 4");
    for edge in ["messages", "calls", "commands"] {
        browser.until(&format!("document.querySelector('.edge.{edge}')"));
    }
    go(&browser, "#health");
    browser.until("document.body.innerText.includes('4 processes are traced.')");
    browser.click("header button");
    browser.until("document.querySelector('header button').innerText === 'Go on'");
    let outcome = agent.stop();
    outcome.assert_complete();
    browser.until("document.querySelector('.gone').innerText.includes('tracer has ended')");
    assert!(browser.text().contains("4 processes are traced."), "what is known stays: {}", browser.text());
    pipeline.end();
}

/// Spans of a file as large as the page keeps, each with what a Redis command has.
fn million(path: &Path) {
    const LINES: u64 = 500;
    const SPANS: u64 = 2_000;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("it can be written"));
    for line in 0..LINES {
        let mut spans = String::new();
        for at in 0..SPANS {
            let number = line * SPANS + at + 1;
            let (trace, place) = (number / 20 + 1, number % 20);
            let parent = if place == 0 { String::new() } else { format!("{:016x}", number - place) };
            let start = 1_767_323_045_000_000_000 + number * 10_000;
            let end = start + 50_000 + (number * 7_919) % 3_000_000;
            let comma = if at == 0 { "" } else { "," };
            write!(
                spans,
                "{comma}{{\"traceId\":\"{trace:032x}\",\"spanId\":\"{number:016x}\",\"parentSpanId\":\"{parent}\",\
                 \"name\":\"GET\",\"kind\":3,\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{end}\",\"attributes\":[\
                 {{\"key\":\"db.system.name\",\"value\":{{\"stringValue\":\"redis\"}}}},\
                 {{\"key\":\"db.query.text\",\"value\":{{\"stringValue\":\"GET key:{number}\"}}}},\
                 {{\"key\":\"server.address\",\"value\":{{\"stringValue\":\"127.0.0.1\"}}}},\
                 {{\"key\":\"network.peer.port\",\"value\":{{\"intValue\":\"6379\"}}}}]}}"
            )
            .expect("a String takes all");
        }
        let resource = r#"{"attributes":[{"key":"service.name","value":{"stringValue":"svc"}}]}"#;
        writeln!(file, "{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"spans\":[{spans}]}}]}}]}}")
            .expect("there is room for it");
    }
}

#[test]
#[ignore = "a file of 400 MB: `cargo xtask test --full`"]
fn a_million_spans_are_searched_quickly() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("million.jsonl");
    million(&path);
    let browser = Browser::start();
    let start = std::time::Instant::now();
    let view = View::start(&path, &[]);
    browser.open(&view.url);
    browser.until("document.querySelector('.source') && document.querySelector('.list')");
    let first_paint = start.elapsed();
    browser.until(LOADED);
    eprintln!("first paint after {first_paint:?}, all read after {:?}", start.elapsed());
    assert!(first_paint.as_secs_f64() <= 2.0, "first paint after {first_paint:?}");
    let memory = std::fs::read_to_string(format!("/proc/{}/status", view.pid())).expect("it runs");
    eprintln!("{}", memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
    // Once all spans are in their traces.
    browser.value("window.timed = async (query) => { const start = performance.now(); \
                   const answer = await fetch('api/' + query); await answer.json(); return performance.now() - start; }, 1");
    for query in [
        "traces",
        "traces?service=svc&name=GET&min=1ms",
        "traces?attr=db.query.text~key:99999",
        "traces?attr=db.query.text%3DGET+key:777777&sort=longest",
        "operations",
        "map",
        "latency?service=svc&name=GET",
        "redis",
    ] {
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            browser
                .value(&format!("window.took = null, window.timed('{query}').then((took) => window.took = took), 1"));
            browser.until("window.took !== null");
            best = best.min(browser.value("window.took").as_f64().expect("milliseconds"));
        }
        eprintln!("{query}: {best:.0} ms");
        assert!(!query.starts_with("traces") || best <= 300.0, "{query} took {best:.0} ms");
    }
}
