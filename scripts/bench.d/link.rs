//! The parts of scripts/bench that must not be slower than what they measure: a link with a delay that counts, a plain
//! HTTP client, and readers. The standard library alone, compiled by `rustc -O`; scripts/bench.d/bench.py drives it.
//!
//! ```text
//! link proxy <host:port>                               prints its own port, then obeys lines on standard input:
//!     rtt <milliseconds> | rate <bytes a second, 0: any> | take (prints connections, requests, bytes up, bytes down)
//! link raw <host:port> <path> <bytes> <connections> <bytes a request>    seconds
//! link sequential <file>                               seconds bytes
//! link random <file> <tasks> <reads of each> <seed>    seconds p50 p99 (milliseconds) reads
//! link files <folder>                                  seconds bytes files
//! link touch <MiB>                                    has so much memory in use once
//! link drop <file or folder> ...                       takes the files' pages out of the page cache
//! ```

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What is moved at once, in bytes.
const CHUNK: usize = 256 << 10;
/// What one direction of a connection holds at most, in bytes: a receive window that no bandwidth here fills at 100 ms.
const WINDOW: usize = 64 << 20;
const POSIX_FADV_DONTNEED: i32 = 4;

unsafe extern "C" {
    fn posix_fadvise(file: i32, offset: i64, len: i64, advice: i32) -> i32;
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["proxy", upstream] => proxy(upstream),
        ["raw", server, path, size, connections, part] => {
            raw(server, path, number(size), number(connections), number(part))
        }
        ["sequential", file] => sequential(Path::new(file)),
        ["random", file, tasks, reads, seed] => random(Path::new(file), number(tasks), number(reads), number(seed)),
        ["files", folder] => files(Path::new(folder)),
        ["touch", mebibytes] => touch(number(mebibytes)),
        ["drop", paths @ ..] => paths.iter().try_for_each(|path| drop_pages(Path::new(path))),
        _ => Err(io::Error::other("see the head of link.rs for what can be asked")),
    };
    if let Err(error) = done {
        eprintln!("link {}: {error}", words.join(" "));
        std::process::exit(1);
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

// The link.

#[derive(Default)]
struct Link {
    rtt_micros: AtomicU64,
    /// Bytes a second towards the client, 0 for any.
    rate: AtomicU64,
    /// When the link is free again, at that rate.
    busy_until: Mutex<Option<Instant>>,
    connections: AtomicU64,
    requests: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Link {
    fn half(&self) -> Duration {
        Duration::from_micros(self.rtt_micros.load(Relaxed) / 2)
    }

    /// When bytes that are sent now have left, all connections together.
    fn sent(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return now;
        }
        let mut busy = self.busy_until.lock().unwrap();
        let begin = busy.map_or(now, |until| until.max(now));
        let end = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *busy = Some(end);
        end
    }
}

fn proxy(upstream: &str) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let link = Arc::new(Link::default());
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let (accepting, upstream) = (Arc::clone(&link), upstream.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (link, upstream) = (Arc::clone(&accepting), upstream.clone());
            std::thread::spawn(move || connection(&link, client, &upstream));
        }
    });
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["rtt", milliseconds] => link.rtt_micros.store(number(milliseconds) * 1000, Relaxed),
            ["rate", bytes] => link.rate.store(number(bytes), Relaxed),
            ["take"] => {
                let take = |counter: &AtomicU64| counter.swap(0, Relaxed);
                println!(
                    "{} {} {} {}",
                    take(&link.connections),
                    take(&link.requests),
                    take(&link.up),
                    take(&link.down)
                );
                io::stdout().flush()?;
            }
            _ => return Err(io::Error::other(format!("not understood: {line}"))),
        }
    }
    Ok(())
}

fn connection(link: &Arc<Link>, client: TcpStream, upstream: &str) {
    let accepted = Instant::now();
    let Ok(server) = TcpStream::connect(upstream) else { return };
    link.connections.fetch_add(1, Relaxed);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    // The handshake takes a round trip before the first byte may go.
    let ready = accepted + link.half() * 2;
    let upwards = Arc::clone(link);
    std::thread::spawn(move || {
        let mut last = Vec::new();
        let counted = Arc::clone(&upwards);
        carry(&upwards, client, server, move |bytes| {
            counted.up.fetch_add(bytes.len() as u64, Relaxed);
            counted.requests.fetch_add(requests(&mut last, bytes), Relaxed);
            (Instant::now() + counted.half()).max(ready + counted.half())
        });
    });
    let counted = Arc::clone(link);
    carry(link, server_too, client_too, move |bytes| {
        counted.down.fetch_add(bytes.len() as u64, Relaxed);
        counted.sent(bytes.len()) + counted.half()
    });
}

/// Requests that begin in these bytes; `last` holds what may be the beginning of a request line's end.
fn requests(last: &mut Vec<u8>, bytes: &[u8]) -> u64 {
    const END: &[u8] = b" HTTP/1.1\r\n";
    last.extend_from_slice(bytes);
    let found = last.windows(END.len()).filter(|window| *window == END).count();
    last.drain(..last.len().saturating_sub(END.len() - 1));
    found as u64
}

#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    changed: Condvar,
}

#[derive(Default)]
struct PipeState {
    queue: VecDeque<(Instant, Vec<u8>, usize)>,
    held: usize,
    spare: Vec<Vec<u8>>,
    over: bool,
}

/// Moves bytes until one end closes; `due` says when they may arrive.
fn carry(link: &Link, mut from: TcpStream, mut to: TcpStream, mut due: impl FnMut(&[u8]) -> Instant + Send + 'static) {
    if link.rtt_micros.load(Relaxed) == 0 && link.rate.load(Relaxed) == 0 {
        let mut buffer = vec![0; CHUNK];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            due(&buffer[..len]);
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
        return;
    }
    let pipe = Arc::new(Pipe::default());
    let filled = Arc::clone(&pipe);
    let reader = from.try_clone();
    std::thread::spawn(move || {
        let Ok(mut from) = reader else { return };
        loop {
            let spare = filled.state.lock().unwrap().spare.pop();
            let mut buffer = spare.unwrap_or_else(|| vec![0; CHUNK]);
            let read = from.read(&mut buffer);
            let mut state = filled.state.lock().unwrap();
            match read {
                Ok(len @ 1..) if !state.over => {
                    let due = due(&buffer[..len]);
                    state.queue.push_back((due, buffer, len));
                    state.held += len;
                    filled.changed.notify_all();
                    while state.held > WINDOW && !state.over {
                        state = filled.changed.wait(state).unwrap();
                    }
                }
                _ => {
                    state.over = true;
                    filled.changed.notify_all();
                    return;
                }
            }
        }
    });
    loop {
        let mut state = pipe.state.lock().unwrap();
        while state.queue.is_empty() && !state.over {
            state = pipe.changed.wait(state).unwrap();
        }
        let Some((due, bytes, len)) = state.queue.pop_front() else { break };
        drop(state);
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        let written = to.write_all(&bytes[..len]);
        let mut state = pipe.state.lock().unwrap();
        state.held -= len;
        state.spare.push(bytes);
        pipe.changed.notify_all();
        if written.is_err() {
            state.over = true;
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}

// The ceiling.

/// Reads an object by ranges over so many connections, and throws it away.
fn raw(server: &str, path: &str, size: u64, connections: u64, part: u64) -> io::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let readers: Vec<_> = (0..connections)
        .map(|_| {
            let (server, path, next) = (server.to_owned(), path.to_owned(), Arc::clone(&next));
            std::thread::spawn(move || -> io::Result<u64> {
                let mut stream = TcpStream::connect(&server)?;
                stream.set_nodelay(true)?;
                let mut buffer = vec![0; CHUNK];
                let mut total = 0;
                loop {
                    let start = next.fetch_add(part, Relaxed);
                    if start >= size {
                        return Ok(total);
                    }
                    let end = (start + part).min(size) - 1;
                    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nRange: bytes={start}-{end}\r\n\r\n")?;
                    total += body(&mut stream, &mut buffer)?;
                }
            })
        })
        .collect();
    let mut total = 0;
    for reader in readers {
        total += reader.join().map_err(|_| io::Error::other("a reader panicked"))??;
    }
    if total != size {
        return Err(io::Error::other(format!("{total} bytes came of {size}")));
    }
    println!("{:.6}", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Reads one answer; gives the length of its body.
fn body(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    let mut head = Vec::new();
    let (mut have, length) = loop {
        let len = stream.read(buffer)?;
        if len == 0 {
            return Err(io::Error::other("the connection was closed"));
        }
        head.extend_from_slice(&buffer[..len]);
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
        if !text.starts_with("http/1.1 206") {
            return Err(io::Error::other(text));
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        break ((head.len() - end - 4) as u64, number(length.unwrap_or("").trim()));
    };
    while have < length {
        match stream.read(buffer)? {
            0 => return Err(io::Error::other("the answer broke off")),
            len => have += len as u64,
        }
    }
    Ok(length)
}

// Readers.

fn sequential(file: &Path) -> io::Result<()> {
    let mut buffer = vec![1; 1 << 20];
    let begin = Instant::now();
    let mut file = File::open(file)?;
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            len => total += len,
        }
    }
    println!("{:.6} {total}", begin.elapsed().as_secs_f64());
    Ok(())
}

fn random(file: &Path, tasks: u64, reads: u64, seed: u64) -> io::Result<()> {
    let pages = fs::metadata(file)?.len() / 4096;
    let start = Arc::new(Barrier::new(tasks as usize + 1));
    let readers: Vec<_> = (0..tasks)
        .map(|task| {
            let (file, start) = (File::open(file), Arc::clone(&start));
            std::thread::spawn(move || -> io::Result<Vec<Duration>> {
                let file = file?;
                let mut buffer = [0; 4096];
                let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(task << 32 | task);
                start.wait();
                let mut times = Vec::with_capacity(reads as usize);
                for _ in 0..reads {
                    // xorshift64 (Marsaglia 2003)
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let begin = Instant::now();
                    file.read_exact_at(&mut buffer, state % pages * 4096)?;
                    times.push(begin.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    start.wait();
    let begin = Instant::now();
    let mut times = Vec::new();
    for reader in readers {
        times.extend(reader.join().map_err(|_| io::Error::other("a reader panicked"))??);
    }
    let elapsed = begin.elapsed().as_secs_f64();
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{elapsed:.6} {:.4} {:.4} {}", at(50), at(99), times.len());
    Ok(())
}

fn files(folder: &Path) -> io::Result<()> {
    let begin = Instant::now();
    let mut names: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    names.sort();
    let mut total = 0;
    for name in &names {
        total += fs::read(name)?.len();
    }
    println!("{:.6} {total} {}", begin.elapsed().as_secs_f64(), names.len());
    Ok(())
}

/// Has the machine's memory ready: so much of it was just in use.
fn touch(mebibytes: u64) -> io::Result<()> {
    let mut memory = vec![0_u8; (mebibytes << 20) as usize];
    memory.iter_mut().step_by(4096).for_each(|page| *page = 1);
    std::hint::black_box(&memory);
    Ok(())
}

/// Dirty pages stay, so they are written out first.
fn drop_pages(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| drop_pages(&entry?.path()));
    }
    if !path.is_file() {
        return Ok(());
    }
    let file = File::open(path)?;
    let _ = file.sync_data();
    // Of the whole file.
    match unsafe { posix_fadvise(file.as_raw_fd(), 0, 0, POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
