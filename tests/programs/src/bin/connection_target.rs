//! A process that asks Redis in every way that a socket can be named and used. Each command is `KIND ADDRESS COUNT`, where the address
//! is `IP:PORT` or the path of a Unix socket. COUNT GETs are sent, of keys that begin with the kind; the answer is the number of the child
//! process that took part, 0 without one. A child lives as long as its parent.
//!
//! `exec NUMBER ADDRESS COUNT` as arguments of the program is what `executed` starts in a child.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};

use anyhow::{Context as _, Result, bail, ensure};
use io_uring::{IoUring, opcode, squeue, types};
use serde_json::json;
use tracer_test_programs::{converse, number};

/// The server has no keys.
const NOTHING: &[u8] = b"$-1\r\n";
/// What would be taken for Redis if it passed a socket.
const DECOY: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The kind of the current command, for the keys.
static KIND: Mutex<String> = Mutex::new(String::new());
/// Number of the last child.
static CHILD: AtomicU32 = AtomicU32::new(0);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, fd, address, count] = arguments.as_slice()
        && mode == "exec"
    {
        set_kind("executed");
        decoy_at(fd.parse()?)?;
        single(&connect(address)?, count.parse()?)?;
        println!("done");
        // The end of the parent.
        std::io::stdin().read_line(&mut String::new())?;
        return Ok(());
    }
    converse(|kind, arguments| {
        let address = *arguments.first().context("an address is missing")?;
        let count = number(arguments, 1)?;
        let connection = connect(address)?;
        set_kind(kind);
        CHILD.store(0, Ordering::Relaxed);
        match kind {
            "single" => single(&connection, count)?,
            "clone" => cloned(&connection, count)?,
            "early" => early(&connection, count)?,
            "duplicates" => duplicates(connection, count)?,
            "reused" => reused(address, count)?,
            "forked" => forked(&connection, count)?,
            "passed" => passed(connection, count)?,
            "taken" => taken(&connection, count)?,
            "executed" => executed(&connection, address, count)?,
            "stranger" => stranger(&connection, count)?,
            "messages" => messages(&connection, count)?,
            "vectors" => vectors(&connection, count)?,
            "many-vectors" => many_vectors(&connection, count)?,
            "addressed" => addressed(&connection, count)?,
            "zerocopy" => zerocopy(&connection, count)?,
            "peeked" => peeked(&connection, count)?,
            "thrown-away" => thrown_away(&connection, count)?,
            "partial" => partial(&connection, count)?,
            "sendfile" => unseen(&connection, count, sendfile)?,
            "splice" => unseen(&connection, count, splice)?,
            "uring" => uring(&connection, count)?,
            "unanswered" => unanswered(connection, count)?,
            _ => bail!("unknown command"),
        }
        Ok(json!(CHILD.load(Ordering::Relaxed)))
    })
}

fn set_kind(kind: &str) {
    *KIND.lock().expect("no panic") = kind.to_owned();
}

fn connect(address: &str) -> Result<OwnedFd> {
    if address.starts_with('/') {
        return Ok(UnixStream::connect(address)?.into());
    }
    Ok(TcpStream::connect(address)?.into())
}

fn get(id: usize) -> Vec<u8> {
    let key = format!("{}:{id}", KIND.lock().expect("no panic"));
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
}

/// What a call says: a number, or an error in `errno`.
fn checked(result: isize) -> Result<usize> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error().into())
}

/// `write` and `read` on the very descriptor.
fn send(fd: RawFd, bytes: &[u8]) -> Result<()> {
    // SAFETY: the buffer is live and as long as it says.
    ensure!(checked(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })? == bytes.len());
    Ok(())
}

fn receive(fd: RawFd, replies: usize) -> Result<()> {
    let mut got = 0;
    while got < replies * NOTHING.len() {
        let mut buffer = [0_u8; 65_536];
        // SAFETY: the buffer is live and as long as it says.
        let len = checked(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })?;
        ensure!(len > 0, "the server closed the connection");
        got += len;
    }
    ensure!(got == replies * NOTHING.len());
    Ok(())
}

fn single(connection: &OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    for id in 0..count {
        send(fd, &get(id))?;
        receive(fd, 1)?;
    }
    Ok(())
}

/// One thread writes on a clone of the connection and another one reads on the original.
fn cloned(connection: &OwnedFd, count: usize) -> Result<()> {
    let writer = connection.try_clone()?;
    let (answered, go_on) = mpsc::channel();
    let thread = std::thread::spawn(move || -> Result<()> {
        for id in 0..count {
            send(writer.as_raw_fd(), &get(id))?;
            go_on.recv()?;
        }
        Ok(())
    });
    for _ in 0..count {
        receive(connection.as_raw_fd(), 1)?;
        answered.send(())?;
    }
    thread.join().expect("no panic")
}

/// The first reply of the connection is read by one thread while another one is still in the call that sent the command: the
/// server answers the first of two commands when it has begun to read the second, which is long.
fn early(connection: &OwnedFd, count: usize) -> Result<()> {
    const LONG: usize = 64 << 20;
    let key = format!("{}:1:", KIND.lock().expect("no panic"));
    let mut commands = get(0);
    commands.extend(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}", key.len() + LONG).bytes());
    commands.resize(commands.len() + LONG, b'x');
    commands.extend(b"\r\n");
    let writer = connection.try_clone()?;
    let thread = std::thread::spawn(move || send(writer.as_raw_fd(), &commands));
    receive(connection.as_raw_fd(), 1)?;
    ensure!(!thread.is_finished(), "the reply did not come before the send had ended");
    receive(connection.as_raw_fd(), 1)?;
    thread.join().expect("no panic")?;
    (2..count).try_for_each(|id| {
        send(connection.as_raw_fd(), &get(id))?;
        receive(connection.as_raw_fd(), 1)
    })
}

/// Every kind of duplicate, used in turns and closed one after the other.
fn duplicates(connection: OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    let made = |fd: libc::c_int| -> Result<OwnedFd> {
        let fd = checked(fd as isize)? as RawFd;
        // SAFETY: the kernel has given the descriptor just now, to nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: plain numbers go in; nothing has the numbers 200 and 201.
    let mut all = unsafe {
        vec![
            made(libc::dup(fd))?,
            made(libc::dup2(fd, 200))?,
            made(libc::dup3(fd, 201, libc::O_CLOEXEC))?,
            made(libc::fcntl(fd, libc::F_DUPFD, 100))?,
            made(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100))?,
        ]
    };
    all.insert(0, connection);
    for id in 0..count {
        send(all[id % all.len()].as_raw_fd(), &get(id))?;
        receive(all[(id + 1) % all.len()].as_raw_fd(), 1)?;
        if all.len() > 1 && id % (count / 8) == count / 8 - 1 {
            all.remove(0);
        }
    }
    Ok(())
}

/// A file gets the number of an old connection, which went in every way that there is.
fn reused(address: &str, count: usize) -> Result<()> {
    for id in 0..count {
        let connection = connect(address)?;
        single(&connection, 1)?;
        let fd = connection.into_raw_fd();
        // SAFETY: the descriptor is ours, and closed or replaced once.
        unsafe {
            match id % 3 {
                0 => ensure!(libc::close(fd) == 0),
                1 => ensure!(libc::syscall(libc::SYS_close_range, fd, fd, 0) == 0),
                _ => {}
            }
        }
        decoy_at(fd)?;
    }
    Ok(())
}

/// A file and a pipe with this number, through which passes what looks like Redis.
fn decoy_at(fd: RawFd) -> Result<()> {
    let file = memory()?;
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors; then plain numbers, and `fd` belongs to nobody else.
    unsafe {
        ensure!(libc::dup2(file.as_raw_fd(), fd) == fd);
        send(fd, DECOY)?;
        libc::lseek(fd, 0, libc::SEEK_SET);
        ensure!(libc::read(fd, [0_u8; 64].as_mut_ptr().cast(), 64) == DECOY.len() as isize);
        ensure!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) == 0);
        ensure!(libc::dup3(pipe[1], fd, libc::O_CLOEXEC) == fd);
        send(fd, DECOY)?;
        for fd in [pipe[0], pipe[1], fd] {
            ensure!(libc::close(fd) == 0);
        }
    }
    Ok(())
}

/// A file in memory, with a number that nothing else gets.
fn memory() -> Result<OwnedFd> {
    // SAFETY: a C string and plain numbers go in; the descriptors are new.
    unsafe {
        let fd = libc::memfd_create(c"decoy".as_ptr(), libc::MFD_CLOEXEC);
        let file = checked(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 300) as isize)?;
        libc::close(fd);
        Ok(OwnedFd::from_raw_fd(file as RawFd))
    }
}

/// Runs something in a child, and fails if it fails.
fn in_child(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (mut done, mut tell) = pipe()?;
    let (life, parent) = pipe()?;
    // SAFETY: this process has one thread now, and the child ends without running what belongs to the parent.
    let child = unsafe { libc::fork() };
    if child == 0 {
        live(life, parent, &mut tell, work().is_ok());
    }
    drop(tell);
    // Closed by the end of this process.
    std::mem::forget(parent);
    let mut good = [0];
    done.read_exact(&mut good)?;
    ensure!(good == [1], "the child failed");
    CHILD.store(child.cast_unsigned(), Ordering::Relaxed);
    Ok(())
}

/// Says how it went, and waits for the end of the parent.
fn live(mut life: PipeReader, parent: PipeWriter, tell: &mut PipeWriter, good: bool) -> ! {
    drop(parent);
    let _ = tell.write_all(&[u8::from(good)]);
    let _ = life.read(&mut [0]);
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

/// Half of the GETs in a child that has inherited the connection.
fn forked(connection: &OwnedFd, count: usize) -> Result<()> {
    in_child(|| single(connection, count / 2))?;
    single(connection, count - count / 2)
}

/// A child gets the connection by message (`SCM_RIGHTS`): for a while nobody has a descriptor of it.
fn passed(connection: OwnedFd, count: usize) -> Result<()> {
    let (here, there) = UnixStream::pair()?;
    let mut hand_over = Message::new();
    hand_over.control[..3].copy_from_slice(&[
        // `cmsg_len`, then level and type.
        size_of::<libc::cmsghdr>() as u64 + 4,
        libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32,
        connection.as_raw_fd() as u64,
    ]);
    // SAFETY: the header and what it points to live.
    ensure!(checked(unsafe { libc::sendmsg(here.as_raw_fd(), &hand_over.header(), 0) })? == 1);
    drop(connection);
    in_child(|| {
        let mut taken = Message::new();
        let mut header = taken.header();
        // SAFETY: the header and what it points to live.
        ensure!(checked(unsafe { libc::recvmsg(there.as_raw_fd(), &raw mut header, 0) })? == 1);
        // SAFETY: the kernel has written one message with one descriptor, which is new.
        single(&unsafe { OwnedFd::from_raw_fd(taken.control[2] as RawFd) }, count)
    })
}

/// One byte and room for a control message with one descriptor.
struct Message {
    byte: u8,
    part: libc::iovec,
    control: [u64; 3],
}

impl Message {
    fn new() -> Self {
        Self { byte: 0, part: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 }, control: [0; 3] }
    }

    fn header(&mut self) -> libc::msghdr {
        self.part.iov_base = (&raw mut self.byte).cast();
        // SAFETY: an all-zero header is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut self.part;
        header.msg_iovlen = 1;
        header.msg_control = self.control.as_mut_ptr().cast();
        header.msg_controllen = size_of::<libc::cmsghdr>() + 8;
        header
    }
}

/// A child takes the connection out of its parent (`pidfd_getfd`).
fn taken(connection: &OwnedFd, count: usize) -> Result<()> {
    let (parent, fd) = (std::process::id(), connection.as_raw_fd());
    in_child(|| {
        // SAFETY: plain numbers go in; the descriptors are new.
        let connection = unsafe {
            libc::close(fd);
            let process = checked(libc::syscall(libc::SYS_pidfd_open, parent, 0) as isize)?;
            OwnedFd::from_raw_fd(checked(libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0) as isize)? as RawFd)
        };
        single(&connection, count)
    })
}

/// A child runs this program anew: the kernel closes the connection, and its number is used again.
fn executed(connection: &OwnedFd, address: &str, count: usize) -> Result<()> {
    single(connection, 1)?;
    let fd = connection.as_raw_fd().to_string();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["exec", &fd, address, &(count - 1).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Closed by the end of this process.
    std::mem::forget(child.stdin.take());
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut said)?;
    ensure!(said == "done\n", "the child failed");
    CHILD.store(child.id(), Ordering::Relaxed);
    Ok(())
}

/// A program that is not traced uses the connection in between: its GETs are not seen, those before and after are.
fn stranger(connection: &OwnedFd, count: usize) -> Result<()> {
    single(connection, count / 2)?;
    let mut command = Command::new("sh");
    command.args(["-c", "printf '*1\\r\\n$4\\r\\nPING\\r\\n' >&0; head -c 7 >/dev/null"]);
    ensure!(command.stdin(connection.try_clone()?).status()?.success());
    single(connection, count - count / 2)
}

/// Several messages in one call: `sendmmsg` and `recvmmsg`.
fn messages(connection: &OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    let mut id = 0;
    while id < count {
        let several = (count - id).min(3);
        let mut commands: Vec<Vec<u8>> = (id..id + several).map(get).collect();
        let mut parts: Vec<libc::iovec> = commands.iter_mut().map(|bytes| part(bytes)).collect();
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
        // SAFETY: the headers and what they point to live.
        let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), several as u32, 0) };
        ensure!(sent == several as i32, "sent {sent} of {several}");
        let mut got = 0;
        while got < several * NOTHING.len() {
            let mut bytes = [0; NOTHING.len()];
            let mut part = part(&mut bytes);
            let mut header = message(&mut part);
            // SAFETY: as above.
            ensure!(unsafe { libc::recvmmsg(fd, &raw mut header, 1, 0, std::ptr::null_mut()) } == 1);
            got += header.msg_len as usize;
        }
        id += several;
    }
    Ok(())
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: an all-zero header is a value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// `pwritev2` and `preadv2`, each command in two pieces.
fn vectors(connection: &OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    for id in 0..count {
        let mut bytes = get(id);
        let len = bytes.len();
        let (first, second) = bytes.split_at_mut(7);
        let parts = [part(first), part(second)];
        // SAFETY: the buffers live.
        ensure!(checked(unsafe { libc::pwritev2(fd, parts.as_ptr(), 2, -1, 0) })? == len);
        let (mut one, mut two) = ([0; 2], [0; 64]);
        let parts = [part(&mut one), part(&mut two)];
        // SAFETY: as above.
        ensure!(checked(unsafe { libc::preadv2(fd, parts.as_ptr(), 2, -1, 0) })? == NOTHING.len());
    }
    Ok(())
}

/// As many commands in one `writev` as the kernel takes.
fn many_vectors(connection: &OwnedFd, count: usize) -> Result<()> {
    let mut id = 0;
    while id < count {
        let several = (count - id).min(1024);
        let mut commands: Vec<Vec<u8>> = (id..id + several).map(get).collect();
        let len: usize = commands.iter().map(Vec::len).sum();
        let parts: Vec<libc::iovec> = commands.iter_mut().map(|bytes| part(bytes)).collect();
        // SAFETY: the buffers live.
        let sent = checked(unsafe { libc::writev(connection.as_raw_fd(), parts.as_ptr(), several as i32) })?;
        ensure!(sent == len, "sent {sent} of {len}");
        receive(connection.as_raw_fd(), several)?;
        id += several;
    }
    Ok(())
}

/// `sendto` with an address, which a connected stream ignores, and `recvfrom`.
fn addressed(connection: &OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    // SAFETY: an all-zero address is a value.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: there is room for an address of this length.
    ensure!(unsafe { libc::getpeername(fd, (&raw mut address).cast(), &raw mut len) } == 0);
    for id in 0..count {
        let bytes = get(id);
        // SAFETY: buffer and address live.
        let sent = unsafe { libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), 0, (&raw const address).cast(), len) };
        ensure!(checked(sent)? == bytes.len());
        received(fd, NOTHING.len(), 0)?;
    }
    Ok(())
}

/// `recv` of `len` bytes with `flags`.
fn received(fd: RawFd, len: usize, flags: libc::c_int) -> Result<()> {
    let mut buffer = [0_u8; 64];
    // SAFETY: there is room for `len` bytes.
    let got = checked(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), len.min(64), flags) })?;
    ensure!(got == len, "received {got} of {len}");
    Ok(())
}

/// The kernel sends from the program's own memory and gives notice on another queue.
fn zerocopy(connection: &OwnedFd, count: usize) -> Result<()> {
    let (fd, one) = (connection.as_raw_fd(), 1_i32);
    // SAFETY: an option of four bytes.
    ensure!(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const one).cast(), 4) } == 0);
    let commands: Vec<Vec<u8>> = (0..count).map(get).collect();
    for bytes in &commands {
        // SAFETY: the buffer lives until the end of the function.
        let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_ZEROCOPY) };
        ensure!(checked(sent)? == bytes.len());
        receive(fd, 1)?;
        let mut notice = Message::new();
        let mut header = notice.header();
        // SAFETY: the header and what it points to live. There may be no notice yet.
        unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    }
    Ok(())
}

/// Each reply is looked at before it is taken.
fn peeked(connection: &OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    for id in 0..count {
        send(fd, &get(id))?;
        received(fd, NOTHING.len(), libc::MSG_PEEK | libc::MSG_WAITALL)?;
        receive(fd, 1)?;
    }
    Ok(())
}

/// The kernel throws every other reply away (`MSG_TRUNC`).
fn thrown_away(connection: &OwnedFd, count: usize) -> Result<()> {
    let fd = connection.as_raw_fd();
    for id in 0..count {
        send(fd, &get(id))?;
        if id % 2 == 0 { receive(fd, 1)? } else { received(fd, NOTHING.len(), libc::MSG_TRUNC)? }
    }
    Ok(())
}

/// More than the socket takes at once: some calls send a part of a command.
fn partial(connection: &OwnedFd, count: usize) -> Result<()> {
    let (fd, size) = (connection.as_raw_fd(), 4096_i32);
    // SAFETY: an option of four bytes.
    ensure!(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const size).cast(), 4) } == 0);
    let bytes: Vec<u8> = (0..count).flat_map(get).collect();
    let mut rest = &bytes[..];
    let reader = connection.try_clone()?;
    let thread = std::thread::spawn(move || receive(reader.as_raw_fd(), count));
    while !rest.is_empty() {
        // SAFETY: the buffer is live and as long as it says.
        let sent = unsafe { libc::send(fd, rest.as_ptr().cast(), rest.len(), libc::MSG_DONTWAIT) };
        match usize::try_from(sent) {
            Ok(sent) => rest = &rest[sent..],
            Err(_) => std::thread::yield_now(),
        }
    }
    thread.join().expect("no panic")
}

/// Every third GET goes into the socket without passing the program's memory.
fn unseen(connection: &OwnedFd, count: usize, pass: fn(RawFd, &[u8]) -> Result<()>) -> Result<()> {
    let fd = connection.as_raw_fd();
    for id in 0..count {
        if id % 3 == 2 {
            pass(fd, &get(id))?
        } else {
            send(fd, &get(id))?
        }
        receive(fd, 1)?;
    }
    Ok(())
}

fn sendfile(fd: RawFd, bytes: &[u8]) -> Result<()> {
    let mut file = File::from(memory()?);
    file.write_all(bytes)?;
    let mut from = 0;
    // SAFETY: plain numbers, and a place for an offset.
    ensure!(checked(unsafe { libc::sendfile(fd, file.as_raw_fd(), &raw mut from, bytes.len()) })? == bytes.len());
    Ok(())
}

fn splice(fd: RawFd, bytes: &[u8]) -> Result<()> {
    let (reader, mut writer) = pipe()?;
    writer.write_all(bytes)?;
    let none = std::ptr::null_mut();
    // SAFETY: plain numbers go in.
    let moved = unsafe { libc::splice(reader.as_raw_fd(), none, fd, none, bytes.len(), 0) };
    ensure!(checked(moved)? == bytes.len());
    Ok(())
}

/// By io_uring.
fn uring(connection: &OwnedFd, count: usize) -> Result<()> {
    let mut ring = IoUring::new(8)?;
    let fd = types::Fd(connection.as_raw_fd());
    let mut buffer = [0_u8; 64];
    for id in 0..count {
        let bytes = get(id);
        let sent = submit(&mut ring, &opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).build())?;
        ensure!(sent == bytes.len() as i32);
        let received = submit(&mut ring, &opcode::Recv::new(fd, buffer.as_mut_ptr(), 64).build())?;
        ensure!(received == NOTHING.len() as i32);
    }
    Ok(())
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Result<i32> {
    // SAFETY: the buffers live until the completion, which is waited for.
    unsafe { ring.submission().push(entry)? };
    ring.submit_and_wait(1)?;
    Ok(ring.completion().next().context("a completion")?.result())
}

/// Commands that the server never answers, because the connection is closed.
fn unanswered(connection: OwnedFd, count: usize) -> Result<()> {
    for _ in 0..count {
        send(connection.as_raw_fd(), b"*3\r\n$5\r\nBLPOP\r\n$7\r\nnothing\r\n$1\r\n0\r\n")?;
    }
    Ok(())
}
