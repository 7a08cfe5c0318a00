//! What the parent says and what it is told, in External Term Format.
//!
//! ```text
//! from the parent   {request, Id, Name, Options, [Blob]}     Blob = binary | {path, Path, Most}
//!                   {cancel, Id}
//! to the parent     {hello, Protocol, Version}               first of all
//!                   {reply, Id, Reply}                       one for each request, in any order
//!                   {broken, Text}                           the last word
//! ```
//!
//! `Id` is a number of 32 bits without sign that no other request in flight has. `Name`, `Options`
//! and the blobs are those of `hot_patch_core::requests`, as binaries; `Reply` is its reply, an
//! encoded term in a binary. Of a file that is named instead of sent no more than `Most` bytes are
//! read. A request that is cancelled is answered too, if only by saying so.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::panic::catch_unwind;
use std::path::PathBuf;

use erlang_term::RawTerm;
use hot_patch_beam::etf;

/// The version of the protocol; a parent that speaks another must not go on.
pub const PROTOCOL: u8 = 1;

/// Options with the paths of a whole build may have many parts; depth is ours to say.
const LIMITS: etf::Limits = etf::Limits { depth: 8, terms: 1_000_000 };

/// From the parent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Do this.
    Call(Call),
    /// Nobody waits for that any more.
    Cancel(u32),
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub id: u32,
    /// What is to be done.
    pub name: String,
    /// How, as an encoded term.
    pub options: Vec<u8>,
    /// To what.
    pub blobs: Vec<Blob>,
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub enum Blob {
    /// The bytes themselves.
    Bytes(Vec<u8>),
    /// A file, of which no more is read than this.
    File(PathBuf, u64),
}

/// The parent said something that is not in the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// It is no term.
    #[error("a frame is no term: {0}")]
    Term(#[from] etf::DecodeError),
    /// It is a term.
    #[error("a frame is neither a request nor a cancel")]
    Unknown,
}

/// Reads a message.
pub fn decode(frame: &[u8]) -> Result<Message, ProtocolError> {
    // erlang-term ends the process when terms are nested deeply, and panics at atoms that are not
    // ASCII and at signs that are none. The parent sends no such terms, but a broken frame is to be
    // answered, not died of.
    etf::decode(frame, LIMITS)?;
    match catch_unwind(|| RawTerm::from_bytes(frame)) {
        Ok(Ok(term)) => message(term).ok_or(ProtocolError::Unknown),
        Ok(Err(_)) | Err(_) => Err(ProtocolError::Unknown),
    }
}

fn message(term: RawTerm) -> Option<Message> {
    let mut parts = tuple(term)?.into_iter();
    let message = match atom(&parts.next()?)? {
        "cancel" => Message::Cancel(number(&parts.next()?)?),
        "request" => Message::Call(Call {
            id: number(&parts.next()?)?,
            name: String::from_utf8(binary(parts.next()?)?).ok()?,
            options: binary(parts.next()?)?,
            blobs: list(parts.next()?)?.into_iter().map(blob).collect::<Option<_>>()?,
        }),
        _ => return None,
    };
    parts.next().is_none().then_some(message)
}

fn blob(term: RawTerm) -> Option<Blob> {
    if let RawTerm::Binary(bytes) = term {
        return Some(Blob::Bytes(bytes));
    }
    let mut parts = tuple(term)?.into_iter();
    let ("path", path, most) = (atom(&parts.next()?)?, parts.next()?, parts.next()?) else {
        return None;
    };
    let path = PathBuf::from(OsString::from_vec(binary(path)?));
    parts.next().is_none().then_some(Blob::File(path, number(&most)?))
}

fn tuple(term: RawTerm) -> Option<Vec<RawTerm>> {
    match term {
        RawTerm::SmallTuple(parts) => Some(parts),
        _ => None,
    }
}

fn list(term: RawTerm) -> Option<Vec<RawTerm>> {
    match term {
        RawTerm::Nil => Some(Vec::new()),
        // A tail other than the empty list comes as a last part that is none of ours.
        RawTerm::List(parts) => Some(parts),
        _ => None,
    }
}

fn binary(term: RawTerm) -> Option<Vec<u8>> {
    match term {
        RawTerm::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

/// OTP 25 writes atoms in Latin-1, later releases in UTF-8.
fn atom(term: &RawTerm) -> Option<&str> {
    match term {
        RawTerm::SmallAtom(name) | RawTerm::Atom(name) | RawTerm::AtomDeprecated(name) => {
            Some(name)
        }
        _ => None,
    }
}

fn number<N>(term: &RawTerm) -> Option<N>
where
    N: TryFrom<u64>,
{
    let value = match term {
        RawTerm::SmallInt(value) => u64::from(*value),
        RawTerm::Int(value) => u64::try_from(*value).ok()?,
        RawTerm::SmallBigInt(value) | RawTerm::LargeBigInt(value) => u64::try_from(value).ok()?,
        _ => return None,
    };
    N::try_from(value).ok()
}

/// The first frame.
pub fn hello() -> Vec<u8> {
    RawTerm::SmallTuple(vec![
        RawTerm::SmallAtom("hello".to_owned()),
        RawTerm::SmallInt(PROTOCOL),
        RawTerm::Binary(env!("CARGO_PKG_VERSION").into()),
    ])
    .to_bytes()
}

/// The last frame.
pub fn broken(text: &str) -> Vec<u8> {
    RawTerm::SmallTuple(vec![RawTerm::SmallAtom("broken".to_owned()), RawTerm::Binary(text.into())])
        .to_bytes()
}

/// What stands before the bytes of a reply in its frame. Its size is always the same, so that the
/// parent can tell whose it is without decoding, and without copying, the reply.
pub fn reply_head(id: u32, size: u32) -> Vec<u8> {
    let mut head = b"\x83h\x03w\x05replyn\x04\0".to_vec();
    head.extend(id.to_le_bytes());
    head.push(b'm');
    head.extend(size.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `term_to_binary({request, 7, <<"x">>, <<131,106>>, [<<"PK">>, {path, <<"/a">>, 9000000000}]})`
    /// of OTP 25.
    const REQUEST: &[u8] = b"\x83h\x05d\0\x07requesta\x07m\0\0\0\x01xm\0\0\0\x02\x83jl\0\0\0\x02m\
        \0\0\0\x02PKh\x03d\0\x04pathm\0\0\0\x02/an\x05\0\0\x1aq\x18\x02j";

    #[test]
    fn a_request_is_read() {
        let Ok(Message::Call(call)) = decode(REQUEST) else { panic!("{:?}", decode(REQUEST)) };
        assert_eq!((call.id, call.name.as_str(), call.options.as_slice()), (7, "x", &b"\x83j"[..]));
        let file = Blob::File("/a".into(), 9_000_000_000);
        assert_eq!(call.blobs, [Blob::Bytes(b"PK".to_vec()), file]);
    }

    #[test]
    fn a_cancel_is_read() {
        let frame = b"\x83h\x02w\x06cancelb\0\0\x01\0";
        assert_eq!(decode(frame).unwrap(), Message::Cancel(256));
    }

    #[test]
    fn whatever_else_comes_is_an_error() {
        for cut in 0..REQUEST.len() {
            assert!(decode(REQUEST.get(..cut).unwrap()).is_err());
        }
        let nested: Vec<u8> = [&b"\x83"[..], &b"h\x01".repeat(100_000), b"j"].concat();
        assert!(matches!(decode(&nested), Err(ProtocolError::Term(_))));
        // Found by fuzzing: erlang-term panics at these, an atom in Latin-1 and a sign that is none.
        for frame in [&b"\x83h\x02d\0\x06c\x83ncela\x07"[..], b"\x83h\x02w\x06canceln\x01\x02\x07"]
        {
            assert!(matches!(decode(frame), Err(ProtocolError::Unknown)));
        }
        let more = [REQUEST, b"j"].concat();
        assert!(decode(&more).is_err());
        assert!(decode(b"\x83h\x02w\x06cancelb\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn the_head_of_a_reply_is_a_term_with_its_bytes() {
        let frame = [reply_head(u32::MAX, 2).as_slice(), b"ab"].concat();
        let term = etf::decode(&frame, LIMITS).unwrap();
        assert_eq!(term.to_string(), "{'reply',4294967295,<<\"ab\">>}");
    }
}
