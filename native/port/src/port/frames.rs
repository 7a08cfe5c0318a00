//! Frames: four bytes of length, highest first, and as many bytes.

use std::io::{self, ErrorKind, Read, Write};

use super::protocol::ProtocolError;

/// What came is not what the protocol says.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {size} bytes came; the limit is {limit}")]
    TooLarge { size: u32, limit: u32 },
    #[error("there is no memory for a frame of {0} bytes")]
    OutOfMemory(u32),
    #[error("the input ended inside a frame")]
    Truncated,
    #[error("the input cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// The next frame, or none at the end of the input.
pub(super) fn read(input: &mut impl Read, limit: u32) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    match read_up_to(input, &mut length)? {
        0 => return Ok(None),
        4 => (),
        _ => return Err(FrameError::Truncated),
    }
    let size = u32::from_be_bytes(length);
    if size > limit {
        return Err(FrameError::TooLarge { size, limit });
    }
    let wanted = size as usize;
    let mut frame = Vec::new();
    frame.try_reserve_exact(wanted).map_err(|_| FrameError::OutOfMemory(size))?;
    if input.take(size.into()).read_to_end(&mut frame)? < wanted {
        return Err(FrameError::Truncated);
    }
    Ok(Some(frame))
}

/// Fills `buffer` as far as the input goes.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes one frame made of `parts`.
pub(super) fn write(output: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    let size = u32::try_from(size).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    output.write_all(&size.to_be_bytes())?;
    for part in parts {
        output.write_all(part)?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[b"one", b"", b"two"]).unwrap();
        write(&mut bytes, &[]).unwrap();
        let mut input = bytes.as_slice();
        assert_eq!(read(&mut input, 6).unwrap().as_deref(), Some(&b"onetwo"[..]));
        assert_eq!(read(&mut input, 6).unwrap().as_deref(), Some(&b""[..]));
        assert!(read(&mut input, 6).unwrap().is_none());
    }

    #[test]
    fn a_length_is_no_reason_to_take_memory() {
        let limit = read(&mut &b"\xff\xff\xff\xff"[..], 1000);
        assert!(matches!(limit, Err(FrameError::TooLarge { size: u32::MAX, limit: 1000 })));
        let cut = read(&mut &b"\0\0\0\x09abc"[..], 1000);
        assert!(matches!(cut, Err(FrameError::Truncated)));
        assert!(matches!(read(&mut &b"\0\0"[..], 1000), Err(FrameError::Truncated)));
    }
}
