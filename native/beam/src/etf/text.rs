//! Terms as text that Erlang reads: for the versions of modules in a manifest.

use std::fmt::Write;

use super::{Limits, Term, decode};

/// Far above what a `vsn` is.
const LIMITS: Limits = Limits { depth: 32, terms: 1_000 };

/// The longest integer that is written out, in bytes.
const LONGEST_INTEGER: usize = 64;

/// The text of an encoded term. None for one that has no text here: functions, floats, maps,
/// and what is larger than any version of a module.
pub fn encoded_to_text(etf: &[u8]) -> Option<String> {
    to_text(&decode(etf, LIMITS).ok()?)
}

/// The text of a term: integers in decimal, atoms always quoted, lists of printable ASCII
/// characters as strings, other lists and tuples element by element, binaries as their bytes.
/// There is one text for a term, so that texts can be compared.
pub fn to_text(term: &Term<'_>) -> Option<String> {
    let mut text = String::new();
    put(&mut text, term)?;
    Some(text)
}

fn put(text: &mut String, term: &Term<'_>) -> Option<()> {
    match term {
        Term::Integer(value) => write!(text, "{value}").ok(),
        Term::Big(value) if value.digits.len() <= LONGEST_INTEGER => {
            text.push_str(&value.to_decimal());
            Some(())
        }
        Term::Atom(name) => {
            quoted(text, '\'', name.chars());
            Some(())
        }
        Term::Bytes(bytes) if !bytes.is_empty() && bytes.iter().all(|byte| is_printable(*byte)) => {
            quoted(text, '"', bytes.iter().copied().map(char::from));
            Some(())
        }
        Term::Bytes(bytes) => numbers(text, '[', bytes, ']'),
        Term::Binary(bytes) => {
            text.push('<');
            numbers(text, '<', bytes, '>')?;
            text.push('>');
            Some(())
        }
        Term::List(elements, None) => match bytes(elements) {
            Some(bytes) => put(text, &Term::Bytes(&bytes)),
            None => all(text, '[', elements, ']'),
        },
        Term::Tuple(elements) => all(text, '{', elements, '}'),
        Term::Big(_) | Term::Float(_) | Term::List(_, Some(_)) | Term::Bits(..) | Term::Map(_) => {
            None
        }
    }
}

/// A list of bytes that was encoded element by element; the empty list is one.
fn bytes(elements: &[Term<'_>]) -> Option<Vec<u8>> {
    let byte = |element: &Term<'_>| match element {
        Term::Integer(value) => u8::try_from(*value).ok(),
        _ => None,
    };
    elements.iter().map(byte).collect()
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn quoted(text: &mut String, quote: char, characters: impl Iterator<Item = char>) {
    text.push(quote);
    for c in characters {
        if c == quote || c == '\\' {
            text.push('\\');
        }
        text.push(c);
    }
    text.push(quote);
}

fn numbers(text: &mut String, open: char, bytes: &[u8], close: char) -> Option<()> {
    text.push(open);
    for (index, byte) in bytes.iter().enumerate() {
        write!(text, "{}{byte}", if index == 0 { "" } else { "," }).ok()?;
    }
    text.push(close);
    Some(())
}

fn all(text: &mut String, open: char, elements: &[Term<'_>], close: char) -> Option<()> {
    text.push(open);
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        put(text, element)?;
    }
    text.push(close);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Term, to_text};

    #[test]
    fn one_text_for_a_term() {
        let atom = |name| Term::Atom(Cow::Borrowed(name));
        for (term, text) in [
            (Term::Integer(-7), Some("-7")),
            (atom("it's"), Some("'it\\'s'")),
            (Term::Bytes(b"1.2.0"), Some("\"1.2.0\"")),
            (Term::Bytes(b"\x01\x02"), Some("[1,2]")),
            (Term::Bytes(b""), Some("[]")),
            (Term::Binary(b"\x00a"), Some("<<0,97>>")),
            (
                Term::List(vec![Term::Tuple(vec![atom("a"), Term::Integer(1)])], None),
                Some("[{'a',1}]"),
            ),
            (Term::List(vec![Term::Integer(97)], None), Some("\"a\"")),
            (Term::List(vec![Term::Integer(256)], None), Some("[256]")),
            (Term::List(vec![], None), Some("[]")),
            (Term::Float(1.5), None),
        ] {
            assert_eq!(to_text(&term).as_deref(), text);
        }
    }
}
