//! Redis commands that hold secrets, in every form in which they can be sent.

use std::path::Path;
use std::process::{Command, Stdio};

use tracer_tests::{RedisServer, Secrets};

/// Words of commands; `{}` is a secret. None of them changes what the others meet: the server refuses most.
const COMMANDS: &[&str] = &[
    "AUTH {}",
    "auth {} {}",
    "AuTh default {}",
    "AUTH {} {} {}",
    "HELLO 3 AUTH {} {}",
    "HELLO 2 auth default {} SETNAME {}",
    "HELLO {}",
    "AUHT {}",
    "AUTH{} x",
    "{}",
    "{} {}",
    "CLIENT SETNAME {}",
    "CLIENT SETINFO LIB-NAME {}",
    "CLIENT {}",
    "ACL SETUSER {} on >{} <{} ~{}",
    "ACL SETUSER someone #{}",
    "ACL GETUSER {}",
    "ACL DRYRUN {} AUTH {}",
    "acl deluser {}",
    "CONFIG SET masterauth {}",
    "CONFIG SET masteruser {} tls-key-file-pass {}",
    "CONFIG GET {}",
    "MIGRATE 127.0.0.1 1 {} 0 1 AUTH {}",
    "MIGRATE 127.0.0.1 1 k 0 1 COPY REPLACE AUTH2 {} {} KEYS {}",
    "SENTINEL SET {} auth-pass {}",
    "EVAL return_{} 0 {}",
    "EVAL return{} 1 {} {}",
    "EVALSHA {} 0 {}",
    "FCALL {} 0 {}",
    "FUNCTION LOAD {}",
    "SCRIPT LOAD {}",
    "SCRIPT {}",
    "DEBUG OBJECT {}",
    "FAILOVER TO {} 1",
    "REPLICAOF {} {}",
    "MODULE LOADEX /no/{} CONFIG p {} ARGS {}",
    "MODULE LOAD {}",
    "REPLCONF listening-port {}",
    "COMMAND GETKEYS AUTH {} {}",
    "SET {} {} EX {}",
    "SET k {} NX GET",
    "MSET {} {} {} {}",
    "GET {}",
    "HSET {} {} {}",
    "LPUSH k {}",
    "XADD s MAXLEN ~ 5 * {} {}",
    "XREAD STREAMS {} {}",
    "SORT {} BY {} GET {}",
    "PUBLISH {} {}",
    "OBJECT ENCODING {}",
    "SELECT {}",
    "INCRBY {} {}",
    "GEOADD {} {} {} {}",
    "ZADD {} GT {} {}",
    "FT.SEARCH {} {}",
    "FOO.bar {}",
    "FOO.{} {}",
    "RESTORE {} 0 {}",
    "XGROUP CREATE {} {} $",
    "PFADD {} {}",
];

fn array(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The bytes of the write calls of one connection. Of `kind` 0 each call has a command, of 1 all are pipelined and cut anywhere,
/// of 2 they are inline commands, cut anywhere.
pub fn calls(secrets: &mut Secrets, kind: usize) -> Vec<Vec<u8>> {
    let mut commands = Vec::new();
    for round in 0..3 {
        if round == 1 {
            commands.push(b"MULTI".to_vec());
        }
        commands.extend(COMMANDS.iter().map(|command| secrets.fill(command).into_bytes()));
        if round == 1 {
            commands.push(b"EXEC".to_vec());
        }
    }
    if kind == 2 {
        // A value longer than a record, and an unbalanced quote, behind which the server hears no more.
        commands.push(secrets.fill("SET \"{} '{}\" '{}'").into_bytes());
        commands.push(secrets.fill("AUTH \"{}").into_bytes());
        let bytes: Vec<u8> = commands.iter().flat_map(|command| [command.as_slice(), b"\r\n"].concat()).collect();
        // By the first line it is clear that this is Redis: `AUTH` is a word of other protocols too.
        return std::iter::once(b"CLIENT ID\r\n".to_vec()).chain(cut(secrets, &bytes)).collect();
    }
    let long = secrets.fill(&"{} ".repeat(1_200)).into_bytes();
    let mut requests: Vec<Vec<u8>> = commands
        .iter()
        .map(|command| array(&command.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>()))
        .collect();
    for name in ["AUTH", "SET", "AUHT", "EVAL"] {
        requests.push(array(&[name.into(), long.clone(), long.clone()]));
    }
    // Looks like commands in the middle of a value.
    let inner = array(&[secrets.word().into_bytes(), secrets.word().into_bytes()]);
    requests.push(array(&[b"SET".to_vec(), b"k".to_vec(), [b"\r\n".as_slice(), &inner].concat()]));
    if kind == 0 { requests } else { cut(secrets, &requests.concat()) }
}

/// In pieces of random lengths, some of one byte.
fn cut(secrets: &mut Secrets, mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let longest = [1, 10, 200, 40_000][secrets.below(4)];
        let (piece, rest) = bytes.split_at((1 + secrets.below(longest)).min(bytes.len()));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces
}

/// The same commands by redis-cli, which is given some on its own command line and environment as well.
pub fn redis_cli(secrets: &mut Secrets, server: &RedisServer, folder: &Path) {
    let port = server.port().to_string();
    let script = folder.join("commands");
    let lines: Vec<String> = COMMANDS.iter().map(|command| secrets.fill(command)).collect();
    std::fs::write(&script, lines.join("\n")).expect("there is room for it");
    let run = |command: &mut Command| {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.expect("redis-cli is installed; `cargo xtask test` installs it");
    };
    let input = std::fs::File::open(&script).expect("it was written");
    run(Command::new("redis-cli").args(["-p", &port]).stdin(input));
    for command in ["PING", "AUTH {}", "SET k {}"] {
        let command = secrets.fill(command);
        let mut client = Command::new("redis-cli");
        client.args(["-p", &port, "--no-auth-warning", "--user", &secrets.word(), "-a", &secrets.word()]);
        run(client.env("REDISCLI_AUTH", secrets.word()).args(command.split(' ')).stdin(Stdio::null()));
    }
}
