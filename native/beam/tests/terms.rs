//! Erlang terms: decoding within bounds, encoding.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use hot_patch_beam::etf::{DecodeError, Limits, Term, decode, encode};
use support::random::Random;

const LIMITS: Limits = Limits { depth: 100, terms: 10_000 };

/// One term of every kind that is accepted: `{1, -1, 1 bsl 70, -(1 bsl 40), 1.5, a, 'ü', "ab",
/// <<"ab">>, <<5:3>>, [a|b], [[]], #{a => 1}}`.
const EVERY_KIND: &[u8] = b"\x83h\x0da\x01b\xff\xff\xff\xffn\x09\0\0\0\0\0\0\0\0\0\x40n\x06\x01\
    \0\0\0\0\0\x01F\x3f\xf8\0\0\0\0\0\0w\x01aw\x02\xc3\xbck\0\x02abm\0\0\0\x02abM\0\0\0\x01\x03\xa0\
    l\0\0\0\x01w\x01aw\x01bl\0\0\0\x01jjt\0\0\0\x01w\x01aa\x01";

/// `depth` tuples around an empty list.
fn nested(depth: usize) -> Vec<u8> {
    [&b"\x83"[..], &b"h\x01".repeat(depth), b"j"].concat()
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let term = decode(EVERY_KIND, LIMITS).unwrap();
    assert_eq!(encode(&term), EVERY_KIND);
    let text = "{1,-1,an integer of 9 bytes,-1099511627776,1.5,'a','ü',\"ab\",<<\"ab\">>,\
        a bitstring of 1 bytes,['a'|'b'],[[]],#{'a' => 1}}";
    assert_eq!(term.to_string(), text);
}

#[test]
fn old_encodings_are_understood() {
    let float = format!("{:<31}", "1.50000000000000000000e+00").replace(' ', "\0");
    let old = [&b"\x83h\x04c"[..], float.as_bytes(), b"d\0\x01\xfcs\x01ah\0"].concat();
    let new = b"\x83h\x04F\x3f\xf8\0\0\0\0\0\0w\x02\xc3\xbcw\x01ah\0";
    assert_eq!(encode(&decode(&old, LIMITS).unwrap()), new);
    assert_eq!(decode(b"\x83n\x02\0\x01\0", LIMITS), Ok(Term::Integer(1)));
    assert_eq!(decode(b"\x83l\0\0\0\0w\x01a", LIMITS), decode(b"\x83w\x01a", LIMITS));
}

#[test]
fn depth_is_bounded() {
    let limits = Limits { depth: 100, terms: 10_000_000 };
    assert!(decode(&nested(100), limits).is_ok());
    assert_eq!(decode(&nested(101), limits), Err(DecodeError::TooDeep(100)));
    assert_eq!(decode(&nested(2_000_000), limits), Err(DecodeError::TooDeep(100)));
    for head in [&b"l\0\0\0\x01"[..], b"l\0\0\0\x01j", b"t\0\0\0\x01", b"t\0\0\0\x01j"] {
        let bomb = [&b"\x83"[..], &head.repeat(1_000_000)].concat();
        assert_eq!(decode(&bomb, limits), Err(DecodeError::TooDeep(100)));
    }
}

#[test]
fn counts_are_bounded() {
    for huge in [
        &b"\x83l\xff\xff\xff\xff"[..],
        b"\x83i\xff\xff\xff\xff",
        b"\x83t\xff\xff\xff\xff",
        b"\x83m\xff\xff\xff\xff",
        b"\x83M\xff\xff\xff\xff\x01",
        b"\x83o\xff\xff\xff\xff\0",
        b"\x83k\xff\xff",
        b"\x83v\xff\xff",
    ] {
        assert_eq!(decode(huge, LIMITS), Err(DecodeError::Truncated(huge.len())));
    }
    let many = [&b"\x83l\0\0\x27\x10"[..], &b"j".repeat(10_001)].concat();
    assert_eq!(decode(&many, LIMITS), Err(DecodeError::TooMany(10_000)));
}

#[test]
fn what_is_no_plain_term_is_refused() {
    assert_eq!(decode(b"", LIMITS), Err(DecodeError::NoTerm));
    assert_eq!(decode(b"\x82j", LIMITS), Err(DecodeError::NoTerm));
    assert_eq!(decode(b"\x83jj", LIMITS), Err(DecodeError::TrailingBytes(1)));
    assert_eq!(decode(b"\x83P\0\0\0\x01x", LIMITS), Err(DecodeError::Compressed));
    assert_eq!(decode(b"\x83w\x01\xff", LIMITS), Err(DecodeError::Atom(1)));
    assert_eq!(decode(b"\x83F\x7f\xf0\0\0\0\0\0\0", LIMITS), Err(DecodeError::Float(1)));
    assert_eq!(decode(b"\x83M\0\0\0\0\x03", LIMITS), Err(DecodeError::Bits(1)));
    // Pids, ports, references, funs.
    for tag in [88, 89, 90, 102, 103, 112, 113, 114, 120] {
        assert_eq!(decode(&[131, tag, 0, 0], LIMITS), Err(DecodeError::Tag { tag, at: 1 }));
    }
}

#[test]
fn cuts_and_mutations_never_panic() {
    for size in 0..EVERY_KIND.len() {
        assert!(decode(&EVERY_KIND[..size], LIMITS).is_err());
    }
    let mut random = Random(3);
    for _ in 0..100_000 {
        let bytes = random.mutate(EVERY_KIND);
        if let Ok(term) = decode(&bytes, LIMITS) {
            let again = encode(&term);
            assert_eq!(decode(&again, LIMITS).as_ref(), Ok(&term));
        }
    }
}
