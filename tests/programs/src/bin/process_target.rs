//! A process that forks, runs other programs and loses its main thread on command, and works in between.
//!
//! `work ADDRESS N` is N rounds of an encode, a GET and a decode; `threads ADDRESS N M` the same in M threads, and `timed ADDRESS
//! SECONDS` says how long rounds took. `unanswered ADDRESS N` sends N GETs and never reads a reply. The others do the same in another process, and answer when it
//! has ended: `fork ADDRESS N` in a child, `daemon ADDRESS N` in a grandchild whose parent has ended, `spawn ADDRESS N` in a
//! child that runs this program anew, `fork_as PID ADDRESS N` in a child that has this number, `spawned N` runs N programs that do
//! nothing. `leave` ends the main thread and `execute`
//! runs this program anew from a thread that is not the main one; the conversation goes on in both.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use redis::{Client, Commands as _, Connection};
use serde_json::{Value, json};
use tracer_test_programs::messages::{Order, order};
use tracer_test_programs::{converse, number};

/// Bytes of one call of `unanswered`.
const PART: usize = 32 * 1024;

fn main() -> Result<()> {
    if let [_, address, rounds] = std::env::args().collect::<Vec<_>>().as_slice() {
        return work(address, rounds.parse()?);
    }
    // The conversation is held by another thread, so that the main one can end.
    let (leave, left) = mpsc::channel();
    let conversation = std::thread::spawn(move || {
        converse(|command, arguments| obey(command, arguments, &leave)).expect("the test asks for what there is");
        std::process::exit(0);
    });
    match left.recv() {
        // SAFETY: nothing on this thread's stack is used by another one, and the system call ends this thread only.
        Ok(()) => unsafe { libc::syscall(libc::SYS_exit, 0) },
        Err(_) => conversation.join().map_err(|_| anyhow::anyhow!("the conversation panicked"))?,
    };
    Ok(())
}

fn obey(command: &str, arguments: &[&str], leave: &mpsc::Sender<()>) -> Result<Value> {
    let address = arguments.first().copied().unwrap_or_default();
    match command {
        "work" => {
            work(address, number(arguments, 1)?)?;
            Ok(json!(std::process::id()))
        }
        "threads" => {
            let (rounds, threads) = (number(arguments, 1)?, number(arguments, 2)?);
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(address, rounds))).collect();
                threads.into_iter().all(|thread| thread.join().is_ok_and(|done| done.is_ok()))
            })
            .then(|| json!(threads))
            .context("a thread failed")
        }
        "unanswered" => {
            let mut connection = TcpStream::connect(address)?;
            let gets: Vec<u8> = (0..number(arguments, 1)?)
                .flat_map(|id| {
                    let key = format!("unanswered:{id}");
                    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
                })
                .collect();
            for part in gets.chunks(PART) {
                connection.write_all(part)?;
            }
            // It stays open until the process ends.
            std::mem::forget(connection);
            Ok(json!(true))
        }
        "timed" => timed(address, Duration::from_secs(number(arguments, 1)? as u64)),
        "leave" => {
            leave.send(())?;
            // It is gone once it is a zombie.
            while !std::fs::read_to_string("/proc/self/stat")?.contains(") Z ") {
                std::thread::yield_now();
            }
            Ok(json!(true))
        }
        "execute" => Err(Command::new(std::env::current_exe()?).exec()).context("execve"),
        "fork" => {
            let rounds = number(arguments, 1)?;
            wait(fork(|| work(address, rounds))?)
        }
        "fork_as" => {
            let (pid, address) = (number(arguments, 0)?, arguments.get(1).context("an address is missing")?);
            let rounds = number(arguments, 2)?;
            // Others fork too: the number may be theirs for a moment.
            for _ in 0..100_000 {
                // The kernel's next process number is the first free one above this.
                std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
                let is_it = move || std::process::id() as usize == pid;
                let child = fork(move || if is_it() { work(address, rounds) } else { Ok(()) })?;
                wait(child)?;
                if child as usize == pid {
                    return Ok(json!(child));
                }
            }
            bail!("the number {pid} is not given again")
        }
        "daemon" => {
            let rounds = number(arguments, 1)?;
            let (end, mut open) = std::io::pipe().context("a pipe")?;
            let middle = fork(move || {
                fork(move || {
                    let done = work(address, rounds);
                    write!(open, "{}", std::process::id())?;
                    done
                })?;
                Ok(())
            })?;
            wait(middle)?;
            let said = std::io::read_to_string(end)?;
            Ok(json!(said.parse::<u32>()?))
        }
        "spawn" => {
            let rounds = number(arguments, 1)?.to_string();
            let mut child = Command::new(std::env::current_exe()?).args([address, &rounds]).spawn()?;
            ensure!(child.wait()?.success());
            Ok(json!(child.id()))
        }
        "spawned" => {
            for _ in 0..number(arguments, 0)? {
                ensure!(Command::new("/bin/true").status()?.success());
            }
            Ok(json!(true))
        }
        _ => bail!("unknown command"),
    }
}

fn work(address: &str, rounds: usize) -> Result<()> {
    let mut connection = Client::open(format!("redis://{address}/"))?.get_connection()?;
    for id in 0..rounds as u64 {
        round(&mut connection, id)?;
    }
    Ok(())
}

fn round(connection: &mut Connection, id: u64) -> Result<()> {
    let bytes = encode(id);
    connection.get::<_, Option<String>>(format!("key:{id}"))?;
    ensure!(decode(&bytes)?.id == id);
    Ok(())
}

/// Rounds for so long, and how long they took.
fn timed(address: &str, duration: Duration) -> Result<Value> {
    let mut connection = Client::open(format!("redis://{address}/"))?.get_connection()?;
    let (begin, mut took) = (Instant::now(), Vec::new());
    while begin.elapsed() < duration {
        let (id, start) = (took.len() as u64, Instant::now());
        round(&mut connection, id)?;
        took.push(start.elapsed().as_nanos() as u64);
    }
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() - 1) * percent / 100];
    Ok(json!({ "rounds": took.len(), "p50_ns": percentile(50), "p99_ns": percentile(99), "max_ns": percentile(100) }))
}

#[inline(never)]
fn encode(id: u64) -> Vec<u8> {
    order(id).encode_to_vec()
}

#[inline(never)]
fn decode(bytes: &[u8]) -> Result<Order> {
    Ok(Order::decode(bytes)?)
}

/// The number of a child that does `work` and ends.
fn fork(work: impl FnOnce() -> Result<()>) -> Result<i32> {
    // SAFETY: the child only does what a single thread may: other threads of this program wait on channels and hold no lock.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        0 => {
            let code = i32::from(work().is_err());
            // SAFETY: the call has no preconditions.
            unsafe { libc::_exit(code) }
        }
        child => Ok(child),
    }
}

fn wait(child: i32) -> Result<Value> {
    let mut status = 0;
    // SAFETY: the pointer is to a live local, and the child is ours.
    ensure!(unsafe { libc::waitpid(child, &raw mut status, 0) } == child && status == 0, "the child failed");
    Ok(json!(child))
}
