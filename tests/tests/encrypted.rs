//! Encrypted connections are not passed over in silence. Against a real redis-server, MariaDB and PostgreSQL with TLS.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tracer_tests::redis::free_port;
use tracer_tests::{Agent, MariaDb, Outcome, Postgres, RedisServer, require_root};

/// An address of this host that only the test with a usual port uses.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 77, 0, 1)), 6380);

fn client(server: SocketAddr) -> Vec<String> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    ["redis-cli", "--tls", "--insecure", "-h", &host, "-p", &port].map(str::to_owned).to_vec()
}

fn trace(command: &[String]) -> Outcome {
    let arguments: Vec<&str> = ["--"].into_iter().chain(command.iter().map(String::as_str)).collect();
    let outcome = Agent::start(&arguments).wait();
    assert_eq!(outcome.code, Some(0), "{}", outcome.said);
    assert_eq!(outcome.stats["balanced"], true, "{:#}", outcome.stats);
    outcome
}

/// Lines about an encrypted connection.
fn said(outcome: &Outcome) -> Vec<&str> {
    outcome.said.lines().filter(|line| line.contains("is encrypted (TLS)")).collect()
}

#[test]
fn an_encrypted_connection_to_redis_is_a_loss_and_said_once() {
    require_root();
    let server = RedisServer::start_with_tls(USUAL);
    let before = server.command_calls();
    let outcome = trace(&[client(USUAL), ["-r", "20", "GET", "key"].map(str::to_owned).to_vec()].concat());
    assert_eq!(server.command_calls()["get"], before.get("get").unwrap_or(&0) + 20, "the client did talk to it");
    assert_eq!(outcome.spans.len(), 0);
    assert_eq!(outcome.count("/kernel/tls_connections"), 1, "{:#}", outcome.stats);
    assert_eq!(outcome.count("/lost/redis_connections_encrypted"), 1, "{:#}", outcome.stats);
    let said = said(&outcome);
    assert!(said.len() == 1 && said[0].contains("(redis-cli): its connection to 127.77.0.1:6380"), "{said:?}");
}

#[test]
fn an_encrypted_connection_to_another_port_is_not_said_to_be_redis() {
    require_root();
    let address = (std::net::Ipv4Addr::LOCALHOST, free_port()).into();
    let server = RedisServer::start_with_tls(address);
    let outcome = trace(&[client(address), ["-r", "20", "GET", "key"].map(str::to_owned).to_vec()].concat());
    assert_eq!(server.command_calls()["get"], 20);
    assert_eq!(outcome.count("/kernel/tls_connections"), 1, "{:#}", outcome.stats);
    assert_eq!(outcome.stats["lost"], serde_json::json!({}));
    let said = said(&outcome);
    assert!(said.len() == 1 && said[0].ends_with("if it speaks Redis, its commands are not seen"), "{said:?}");
}

#[test]
fn a_connection_that_was_encrypted_before_is_known_by_its_next_bytes() {
    require_root();
    for probe in ["auto", "syscalls"] {
        let address = (std::net::Ipv4Addr::LOCALHOST, free_port()).into();
        let _server = RedisServer::start_with_tls(address);
        let command = client(address);
        let mut client = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli starts");
        let mut asks = client.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(client.stdout.take().expect("it is piped")).lines();
        let mut ask = || {
            writeln!(asks, "PING").expect("it runs");
            assert_eq!(answers.next().expect("an answer").expect("UTF-8"), "PONG");
        };
        ask();
        let agent = Agent::run(&["-p", &client.id().to_string(), "--socket-probe", probe]);
        ask();
        ask();
        let outcome = agent.stop();
        drop((asks, answers));
        assert!(client.wait().expect("it is our child").success());
        assert_eq!(outcome.count("/kernel/tls_connections"), 1, "{:#}", outcome.stats);
        assert_eq!(said(&outcome).len(), 1, "{}", outcome.said);
    }
}

#[test]
fn an_encrypted_connection_to_mariadb_is_a_loss() {
    require_root();
    let server = MariaDb::start_with_tls();
    let mut command: Vec<String> = server.client().into_iter().filter(|argument| argument != "--skip-ssl").collect();
    command.extend(["--ssl", "--execute", "SHOW STATUS LIKE 'Ssl_cipher'"].map(str::to_owned));
    let outcome = trace(&command);
    assert!(outcome.printed.contains("TLS_"), "it is encrypted: {:?}", outcome.printed);
    assert_eq!(outcome.spans.len(), 0);
    assert_eq!(outcome.count("/lost/mysql_connections_encrypted"), 1, "{:#}", outcome.stats);
    let said = said(&outcome);
    assert!(said.len() == 1 && said[0].ends_with("its commands are not seen"), "{}", outcome.said);
}

#[test]
fn an_encrypted_connection_to_postgres_is_a_loss() {
    require_root();
    let server = Postgres::start_with_tls();
    let url = format!("{}?sslmode=require", server.url());
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let command = ["psql", "--no-psqlrc", "--tuples-only", &url, "--command", sql].map(str::to_owned);
    let outcome = trace(&command);
    assert_eq!(outcome.printed.trim(), "t", "it is encrypted");
    assert_eq!(outcome.spans.len(), 0);
    assert_eq!(outcome.count("/lost/postgresql_connections_encrypted"), 1, "{:#}", outcome.stats);
    let said = said(&outcome);
    assert!(said.len() == 1 && said[0].ends_with("its commands are not seen"), "{}", outcome.said);
}
