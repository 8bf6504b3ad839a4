//! Who waits for whom at servers that are not simply another process with a TCP port: behind a Unix socket, in a container, out
//! of the agent's reach.

use std::net::{Shutdown, TcpListener, TcpStream};

use tracer_tests::waits::{MS, SERVER, beside_gets, blamed, clients};
use tracer_tests::{Network, Outcome, RedisServer, Span, Translation, require_root};

/// Holds the server up for 100 ms, often: a GET has to come in the middle.
const SCRIPTS: [&str; 15] = ["lua 100"; 15];

/// What was traced of a service with long scripts, and another one that does GETs.
fn traced(url: &str, attaches: bool) -> Outcome {
    beside_gets(url, attaches, |blocker| {
        for script in SCRIPTS {
            blocker.ask(script);
        }
    })
}

/// Fails unless GETs waited for the scripts, and all of them say so. Returns them.
fn blame_the_script(outcome: &Outcome) -> Vec<&Span> {
    let waited = blamed(outcome, 75.0 * MS);
    assert!(!waited.is_empty(), "no GET waited: {:#}", outcome.stats);
    for (span, main) in &waited {
        assert_eq!(*main, ["EVAL", "blocker", "script"], "{span:?}");
    }
    waited.into_iter().map(|(span, _)| span).collect()
}

/// Fails unless each script has its server's span below its own.
fn has_server_spans(outcome: &Outcome) {
    let scripts = clients(outcome, "EVAL");
    assert_eq!(scripts.len(), SCRIPTS.len());
    for client in scripts {
        let below: Vec<&Span> =
            outcome.spans.iter().filter(|span| span.kind == SERVER && span.parent == client.id).collect();
        assert_eq!(below.len(), 1, "{client:?}");
        assert_eq!((below[0].service.as_str(), &below[0].trace), ("redis-server", &client.trace));
        assert!(below[0].nanos() as f64 >= 95.0 * MS, "{:?}", below[0]);
    }
}

#[test]
fn a_unix_socket_has_two_sides_as_well() {
    require_root();
    let server = RedisServer::start();
    let outcome = traced(&format!("redis+unix://{}", server.socket().display()), true);
    for span in blame_the_script(&outcome) {
        assert_eq!((span.attribute("network.transport"), span.attribute("server.port")), ("unix", ""));
        assert_eq!(span.attribute("tracer.redis.estimate"), "");
    }
    has_server_spans(&outcome);
}

#[test]
fn a_server_in_a_container_is_found_by_its_client() {
    require_root();
    let network = Network::start();
    let server = RedisServer::start_in_container(&network);
    let outcome = traced(&format!("redis://{}/", server.address()), true);
    for span in blame_the_script(&outcome) {
        assert_eq!(span.attribute("server.address"), network.there().to_string());
        assert_eq!(span.attribute("tracer.redis.estimate"), "");
    }
    has_server_spans(&outcome);
}

#[test]
fn a_server_out_of_reach_is_estimated_from_its_clients() {
    require_root();
    let server = RedisServer::start_as("somebody-elses");
    let outcome = traced(&format!("redis://{}/", server.address()), false);
    blame_the_script(&outcome);
    assert_eq!(outcome.spans.iter().filter(|span| span.kind == SERVER).count(), 0);
    assert_eq!(outcome.count("/agent/commands_served"), 0);
    assert!(outcome.count("/agent/commands_estimated") > 100);
    for span in &outcome.spans {
        let split = span.seconds("tracer.redis.queue").is_some();
        assert_eq!(span.attribute("tracer.redis.estimate"), if split { "true" } else { "" }, "{span:?}");
    }
    // Replies that the server sent together cannot be told apart, so not every script is known to have been the long one.
    let served = |span: &&Span| span.seconds("tracer.redis.service").is_some_and(|service| service >= 75.0 * MS);
    assert!(clients(&outcome, "EVAL").into_iter().any(|span| served(&span)), "{:#}", outcome.stats);
}

/// The address that clients use is not the one that the server has.
#[test]
fn a_server_behind_address_translation_is_found_by_the_clients_address() {
    const PORT: u16 = 16_379;
    require_root();
    let network = Network::start();
    let server = RedisServer::start_in_container(&network);
    let to = server.address().parse().expect("an address");
    let _translation = Translation::start(&network, PORT, to);
    let outcome = traced(&format!("redis://{}:{PORT}/", network.here()), true);
    for span in blame_the_script(&outcome) {
        let address = (span.attribute("server.address"), span.attribute("server.port"));
        assert_eq!(address, (network.here().to_string().as_str(), PORT.to_string().as_str()), "as the client knows it");
        assert_eq!(span.attribute("tracer.redis.estimate"), "");
    }
    has_server_spans(&outcome);
    assert!(outcome.said.contains("behind address translation"), "{}", outcome.said);
}

/// Nobody can tell which of a proxy's connections to the server carries whose command.
#[test]
fn a_proxy_before_the_server_is_named_and_waits_are_estimates() {
    require_root();
    let server = RedisServer::start();
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = proxy.local_addr().expect("it is bound");
    let to = server.address();
    std::thread::spawn(move || {
        for client in proxy.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect(&to).expect("the server listens");
            for (mut from, mut to) in [
                (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor")),
                (server, client),
            ] {
                std::thread::spawn(move || {
                    // An end of either side ends both.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    let outcome = traced(&format!("redis://{address}/"), false);
    assert_eq!(outcome.count("/agent/commands_served"), 0);
    assert!(outcome.count("/agent/commands_estimated") > 100);
    let line = outcome.said.lines().find(|line| line.contains(&address.to_string())).expect("it is said");
    assert!(line.contains(&format!("process {}", std::process::id())) && line.contains("estimated"), "{line}");
}
