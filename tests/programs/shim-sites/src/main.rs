//! A service with the shim that obeys one command per line.
//!
//! `flows ADDRESS N`: N orders on 16 tokio tasks without any scope, and a GET at a Redis server for each; answers with the trace of
//! each order.
//! `messages N`: N messages there and back. `filter`: from now on, the system calls of an optimised probe kill the process.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tracer_shim::{Context, Message as _, Span};

/// An order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Order {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What is traded.
    #[prost(string, tag = "2")]
    pub symbol: String,
}

const TASKS: u64 = 16;

fn main() {
    tracer_shim::init("shim-sites", &[]);
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("the test writes UTF-8");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["flows", address, count] => println!("[{}]", flows(address, number(count))),
            ["messages", count] => println!("{}", messages(number(count))),
            ["filter"] => {
                filter();
                println!("true");
            }
            _ => panic!("unknown command {line:?}"),
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

/// What comes in from a sender that starts a trace for each order.
fn incoming(id: u64) -> Vec<u8> {
    let _root = Span::with_parent(Context::NONE, "order").entered();
    Order { id, symbol: "ACME".to_owned() }.encode_to_vec()
}

fn flows(address: &str, count: u64) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let mut connection = TcpStream::connect(address).expect("a Redis server listens there");
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    let mut buffer = [0; 4096];
                    for id in (task..count).step_by(TASKS as usize) {
                        let order = Order::decode(incoming(id).as_slice()).expect("a message");
                        let trace = Context::current().trace_id().to_string();
                        tokio::task::yield_now().await;
                        let key = format!("order:{}", order.id);
                        write!(connection, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).expect("it reads");
                        assert!(connection.read(&mut buffer).expect("it answers") > 0);
                        tokio::task::yield_now().await;
                        order.encode_to_vec();
                        seen.push(format!("[\"{key}\", \"{trace}\"]"));
                    }
                    seen.join(", ")
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.expect("no panic"));
        }
        all.join(", ")
    })
}

fn messages(count: u64) -> u64 {
    for id in 0..count {
        let bytes = Order { id, symbol: String::new() }.encode_to_vec();
        assert_eq!(Order::decode(bytes.as_slice()).expect("a message").id, id);
    }
    count
}

/// Kills whoever calls `uretprobe` (335) or `uprobe` (336), and lets pass everything else.
fn filter() {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // Loads the number of the call (offset 0 of `struct seccomp_data`), compares, returns.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, 335),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 336),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives through the calls, which copy it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}
