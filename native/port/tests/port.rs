//! The program as a VM meets it: frames in, frames out.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use hot_patch_beam::etf::{self, Limits, Term};

/// An archive of the stored file `a.txt` with the content `hi`, made by Python's `zipfile`.
const GOOD: &[u8] =
    b"PK\x03\x04\x14\0\0\0\0\0\0\0!\0\xac*\x93\xd8\x02\0\0\0\x02\0\0\0\x05\0\0\0a.txthiPK\x01\
    \x02\x14\x03\x14\0\0\0\0\0\0\0!\0\xac*\x93\xd8\x02\0\0\0\x02\0\0\0\x05\0\0\0\0\0\0\0\0\0\
    \0\0\x80\x01\0\0\0\0a.txtPK\x05\x06\0\0\0\0\x01\0\x01\x003\0\0\0%\0\0\0\0\0";

struct Port {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Port {
    /// Starts the program and reads its first frame.
    fn start(args: &[&str]) -> Self {
        Port::start_with(args, Stdio::null())
    }

    /// The same with a standard error of its own.
    fn start_with(args: &[&str], error: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hot_patch"))
            .arg("port")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(error)
            .spawn()
            .expect("it starts");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut port = Port { child, input, output };
        assert!(port.frame().unwrap().starts_with(b"\x83h\x03w\x05helloa\x01"));
        port
    }

    fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.input.write_all(&[&length, frame].concat()).unwrap();
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.output.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.output.read_exact(&mut frame).unwrap();
        Some(frame)
    }

    /// The number of the next reply, and the reply as the Erlang shell would show it.
    fn reply(&mut self) -> Option<(i64, String)> {
        let limits = Limits { depth: 64, terms: 1_000_000 };
        let frame = self.frame()?;
        let Term::Tuple(parts) = etf::decode(&frame, limits).unwrap() else { panic!("no tuple") };
        match parts.as_slice() {
            [_, Term::Integer(id), Term::Binary(reply)] => {
                Some((*id, etf::decode(reply, limits).unwrap().to_string()))
            }
            other => panic!("no reply: {other:?}"),
        }
    }

    /// Closes the input and reads what still comes.
    fn end(mut self) -> (Vec<(i64, String)>, ExitStatus) {
        drop(std::mem::replace(&mut self.input, Port::nowhere()));
        let mut replies = Vec::new();
        while let Some(reply) = self.reply() {
            replies.push(reply);
        }
        (replies, self.child.wait().unwrap())
    }

    fn nowhere() -> ChildStdin {
        let mut other = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let input = other.stdin.take().unwrap();
        other.wait().unwrap();
        input
    }
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    [&b"m"[..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn path(path: &Path, most: u8) -> Vec<u8> {
    let name = binary(path.to_str().unwrap().as_bytes());
    [&b"h\x03d\0\x04path"[..], &name, &[b'a', most]].concat()
}

fn request(id: u8, name: &str, options: &[u8], blob: &[u8]) -> Vec<u8> {
    [
        &b"\x83h\x05d\0\x07requesta"[..],
        &[id],
        &binary(name.as_bytes()),
        &binary(options),
        b"l\0\0\0\x01",
        blob,
        b"j",
    ]
    .concat()
}

/// 10 MB of archive, 100 entries, 100 MB unpacked, names of 255 bytes; of modules 65,536 atoms and
/// functions, 200,000 of all, 16 million words of literals, 1,000 deep, 10,000 added, 256 MB and 512 MB
/// of memory; no chunks.
const OPTIONS: &[u8] = b"\x83h\x06b\0\x98\x96\x80adb\x05\xf5\xe1\0a\xff\
    h\x09b\0\x01\0\0b\0\x03\x0d\x40b\0\x01\0\0b\0\x03\x0d\x40\
    b\x01\0\0\0b\0\0\x03\xe8b\0\0\x27\x10b\x10\0\0\0b\x20\0\0\0j";

fn read(id: u8, archive: &[u8]) -> Vec<u8> {
    request(id, "read_archive", OPTIONS, &binary(archive))
}

fn cancel(id: u8) -> Vec<u8> {
    [&b"\x83h\x02w\x06cancela"[..], &[id]].concat()
}

/// A list of as many empty lists, as an encoded term: small, and large in memory.
fn wide(count: u32) -> Vec<u8> {
    [&b"\x83l"[..], &count.to_be_bytes(), &vec![b'j'; count as usize + 1]].concat()
}

#[test]
fn several_requests_in_flight_are_all_answered_also_when_the_input_has_closed() {
    let mut port = Port::start(&["--workers=3"]);
    for id in 0..40 {
        port.send(&read(id, if id % 2 == 0 { GOOD } else { b"no zip" }));
    }
    let (mut replies, status) = port.end();
    assert_eq!(status.code(), Some(0));
    replies.sort();
    assert_eq!(replies.len(), 40);
    for (expected, (id, reply)) in (0..).zip(&replies) {
        assert_eq!(*id, expected);
        let begin = if id % 2 == 0 { "{'ok'," } else { "{'refused'," };
        assert!(reply.starts_with(begin), "{reply}");
    }
}

#[test]
fn the_end_of_the_input_is_the_end() {
    let (replies, status) = Port::start(&[]).end();
    assert_eq!((replies.len(), status.code()), (0, Some(0)));
}

#[test]
fn a_request_that_waits_can_be_cancelled() {
    let mut port = Port::start(&["--workers=1"]);
    let long = request(1, "encode_json", b"\x83j", &binary(&wide(2_000_000)));
    port.send(&[long, Vec::new()].concat());
    port.send(&read(2, GOOD));
    port.send(&cancel(2));
    // Never asked for: no harm.
    port.send(&cancel(77));
    let (replies, status) = port.end();
    assert_eq!(status.code(), Some(0));
    assert!(replies.iter().any(|(id, reply)| *id == 1 && reply.starts_with("{'ok'")));
    let second = replies.iter().find(|(id, _)| *id == 2).map(|(_, reply)| reply.as_str());
    assert_eq!(second, Some("{'failed','cancelled',<<\"it was cancelled\">>}"));
}

#[test]
fn a_file_is_read_as_its_bytes_are() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("by_path.zip");
    fs::write(&file, GOOD).unwrap();
    let mut port = Port::start(&[]);
    port.send(&read(1, GOOD));
    let (_, expected) = port.reply().unwrap();
    port.send(&request(2, "read_archive", OPTIONS, &path(&file, 255)));
    assert_eq!(port.reply(), Some((2, expected)));
    // No more is read than the parent allows.
    port.send(&request(3, "read_archive", OPTIONS, &path(&file, 50)));
    assert!(port.reply().unwrap().1.contains("'truncated'"));
    for (missing, why) in [
        (folder.join("nowhere.zip"), "no such file or directory"),
        (folder.to_owned(), "illegal operation on a directory"),
        ("/dev/zero".into(), "invalid argument"),
    ] {
        port.send(&request(4, "read_archive", OPTIONS, &path(&missing, 50)));
        let failed = format!("{{'failed','file',<<\"{why}\">>}}");
        assert_eq!(port.reply(), Some((4, failed)));
    }
}

#[test]
fn what_cannot_be_asked_is_answered_and_the_program_goes_on() {
    let mut port = Port::start(&[]);
    port.send(&request(1, "format_disk", b"\x83j", &binary(b"")));
    assert!(port.reply().unwrap().1.contains("'unknown_request'"));
    port.send(&request(2, "read_archive", b"\x83j", &binary(GOOD)));
    assert!(port.reply().unwrap().1.contains("'bad_request'"));
    port.send(&request(3, "read_archive", b"nonsense", &binary(GOOD)));
    assert!(port.reply().unwrap().1.contains("'bad_request'"));
    port.send(&read(4, GOOD));
    assert!(port.reply().unwrap().1.starts_with("{'ok',"));
}

#[test]
fn a_parent_that_breaks_the_protocol_is_told_and_left() {
    for (frame, why) in [
        (&b"\x83h\x01a\x01"[..], "neither a request nor a cancel"),
        (b"no term", "no term"),
        (&vec![0; 2000], "limit is 1000"),
    ] {
        let mut port = Port::start(&["--max-frame=1000"]);
        // The program may end before it has read all.
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let _ = port.input.write_all(&[&length, frame].concat());
        let last = port.frame().unwrap();
        let text = String::from_utf8_lossy(&last).into_owned();
        assert!(last.starts_with(b"\x83h\x02w\x06broken") && text.contains(why), "{text}");
        assert!(port.frame().is_none());
        assert_eq!(port.child.wait().unwrap().code(), Some(3));
    }
}

/// It may write no file, also where a file is what it says its last words to.
#[test]
fn a_panic_that_is_caught_is_answered_whatever_standard_error_is() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let log = fs::File::create(folder.join("standard_error.log")).unwrap();
    for error in [Stdio::null(), log.into()] {
        let mut port = Port::start_with(&[], error);
        // The reader of terms panics at this frame.
        port.send(b"\x83h\x02d\0\x06c\x83ncela\x07");
        assert!(port.frame().unwrap().starts_with(b"\x83h\x02w\x06broken"));
        assert!(port.frame().is_none());
        assert_eq!(port.child.wait().unwrap().code(), Some(3));
    }
    assert_eq!(fs::read(folder.join("standard_error.log")).unwrap(), b"");
}

/// Somebody may put one in the place of a file at any time.
#[test]
fn a_pipe_that_is_named_as_a_file_keeps_nobody_waiting() {
    let fifo = Path::new(env!("CARGO_TARGET_TMPDIR")).join("by_path.fifo");
    let _ = fs::remove_file(&fifo);
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut port = Port::start(&["--workers=1"]);
    port.send(&request(1, "read_archive", OPTIONS, &path(&fifo, 50)));
    port.send(&read(2, GOOD));
    let failed = "{'failed','file',<<\"invalid argument\">>}".to_owned();
    assert_eq!(port.reply(), Some((1, failed)));
    assert!(port.reply().unwrap().1.starts_with("{'ok',"));
}

#[test]
fn memory_is_capped_by_the_system() {
    let archive = |id| read(id, GOOD);
    let mut port = Port::start(&["--memory=100000000", "--workers=1"]);
    port.send(&archive(1));
    assert!(port.reply().unwrap().1.starts_with("{'ok',"));
    // Four million terms take more than the cap, and there is no way on: the program ends, and
    // with it nothing else.
    port.send(&request(2, "encode_json", b"\x83j", &binary(&wide(4_000_000))));
    let (replies, status) = port.end();
    let refused = replies.iter().any(|(_, reply)| reply.contains("no memory"));
    assert!(status.signal() == Some(6) || refused, "{status:?} {replies:?}");
}

#[test]
fn a_parent_that_does_not_read_is_not_read_from_either() {
    // Small ones, so that it makes no difference which of them find the queue full: all the answers
    // together are more than a pipe holds, and so is what is asked.
    let count = 100_000;
    let mut port = Port::start(&["--workers=2"]);
    let mut input = std::mem::replace(&mut port.input, Port::nowhere());
    let (done, all_sent) = std::sync::mpsc::channel();
    let parent = std::thread::spawn(move || {
        let list = [&b"\x83l"[..], &8_u32.to_be_bytes(), &b"a\x07".repeat(8), b"j"];
        let frame = request(1, "encode_json", b"\x83j", &binary(&list.concat()));
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let message = [&length, frame.as_slice()].concat();
        for _ in 0..count {
            input.write_all(&message).unwrap();
        }
        drop(input);
        done.send(()).unwrap();
    });
    let stuck = all_sent.recv_timeout(std::time::Duration::from_secs(2));
    assert!(stuck.is_err(), "all of it was taken in while nothing was read");
    let (replies, status) = port.end();
    parent.join().unwrap();
    assert_eq!((replies.len(), status.code()), (count, Some(0)));
}
