//! Terms from text, within bounds.

use super::value::Value;

/// The largest text, in bytes.
const MOST_BYTES: usize = 1024 * 1024;

/// How deep terms may be nested: reading recurses this deep.
const DEPTH: u32 = 64;

/// The longest atom, in characters: that of the VM.
const LONGEST_ATOM: usize = 255;

/// Why a text is no term.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The text is too long.
    #[error("the text has more than {MOST_BYTES} bytes")]
    TooLong,
    /// Terms are nested too deep.
    #[error("the term at byte {0} is nested deeper than {DEPTH}")]
    TooDeep(usize),
    /// Something else is expected.
    #[error("{what} is expected at byte {at}")]
    Expected {
        /// What.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

impl Value {
    /// Reads the text of one term, without a dot behind it: of what Erlang's own parser takes,
    /// what is a constant without pids, ports, references and funs.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let (mut reader, value) = first(text)?;
        reader.end(value)
    }

    /// The one term of a file, as `file:consult` reads it: in UTF-8, or in Latin-1 where a comment in
    /// its first two lines says so, with the dot behind it. A file without that is taken too.
    pub fn consult(bytes: &[u8]) -> Result<Self, SyntaxError> {
        if bytes.len() > MOST_BYTES {
            return Err(SyntaxError::TooLong);
        }
        match str::from_utf8(bytes) {
            Ok(text) => term(text),
            Err(_) if says_latin1(bytes) => {
                term(&bytes.iter().copied().map(char::from).collect::<String>())
            }
            Err(error) => {
                Err(SyntaxError::Expected { what: "text in UTF-8", at: error.valid_up_to() })
            }
        }
    }
}

/// By the letters of the encoding's name, as `epp` finds it behind `coding`.
fn says_latin1(bytes: &[u8]) -> bool {
    let start = bytes.splitn(3, |byte| *byte == b'\n').take(2);
    start.filter(|line| line.trim_ascii_start().starts_with(b"%")).any(|line| {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        let named = line.split_once("coding").map(|(_, rest)| rest.trim_start());
        named
            .and_then(|rest| rest.strip_prefix([':', '=']))
            .is_some_and(|name| name.trim_start().starts_with("latin-1"))
    })
}

/// One term, with or without a dot behind it.
pub(super) fn term(text: &str) -> Result<Value, SyntaxError> {
    let (mut reader, value) = first(text)?;
    reader.taken(".");
    reader.end(value)
}

fn first(text: &str) -> Result<(Reader<'_>, Value), SyntaxError> {
    if text.len() > MOST_BYTES {
        return Err(SyntaxError::TooLong);
    }
    let mut reader = Reader { text, at: 0 };
    let value = reader.term(DEPTH)?;
    Ok((reader, value))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn term(&mut self, depth: u32) -> Result<Value, SyntaxError> {
        self.space();
        let depth = depth.checked_sub(1).ok_or(SyntaxError::TooDeep(self.at))?;
        match self.rest().chars().next() {
            Some('\'') => {
                let name = self.quoted('\'')?;
                self.atom(&name)
            }
            Some('"') => self.quoted('"').map(Value::String),
            Some('{') => self.sequence("{", "}", depth).map(Value::Tuple),
            // In Erlang an empty string is the empty list, and the other way round.
            Some('[') => self.sequence("[", "]", depth).map(Value::List),
            Some('<') => self.binary(),
            Some('#') => self.map(depth),
            Some('-' | '+' | '0'..='9') => self.number(),
            Some(first) if first.is_lowercase() => {
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '@');
                let name = self.while_(is_part);
                self.atom(name)
            }
            _ => Err(self.expected("a term")),
        }
    }

    fn end(&mut self, value: Value) -> Result<Value, SyntaxError> {
        self.space();
        if self.rest().is_empty() { Ok(value) } else { Err(self.expected("the end")) }
    }

    fn atom(&self, name: &str) -> Result<Value, SyntaxError> {
        if name.chars().count() > LONGEST_ATOM {
            return Err(self.expected("an atom of at most 255 characters"));
        }
        Ok(Value::atom(name))
    }

    fn sequence(&mut self, from: &str, to: &str, depth: u32) -> Result<Vec<Value>, SyntaxError> {
        let mut values = Vec::new();
        self.taken(from);
        if self.taken(to) {
            return Ok(values);
        }
        loop {
            values.push(self.term(depth)?);
            if self.taken(to) {
                return Ok(values);
            }
            self.required(",")?;
        }
    }

    fn map(&mut self, depth: u32) -> Result<Value, SyntaxError> {
        let mut pairs = Vec::new();
        self.required("#{")?;
        if self.taken("}") {
            return Ok(Value::Map(pairs));
        }
        loop {
            let key = self.term(depth)?;
            self.required("=>")?;
            pairs.push((key, self.term(depth)?));
            if self.taken("}") {
                return Ok(Value::Map(pairs));
            }
            self.required(",")?;
        }
    }

    fn binary(&mut self) -> Result<Value, SyntaxError> {
        self.required("<<")?;
        if self.taken(">>") {
            return Ok(Value::Binary(String::new()));
        }
        self.space();
        if !self.rest().starts_with('"') {
            return self.bytes();
        }
        let text = self.quoted('"')?;
        if !self.taken("/utf8") && !text.is_ascii() {
            return Err(self.expected("/utf8"));
        }
        self.required(">>")?;
        Ok(Value::Binary(text))
    }

    /// What follows `<<`, where it is numbers.
    fn bytes(&mut self) -> Result<Value, SyntaxError> {
        let mut bytes = Vec::new();
        loop {
            self.space();
            let digits = self.digits()?;
            let byte = digits.parse().map_err(|_| self.expected("a byte, from 0 to 255"))?;
            bytes.push(byte);
            if self.taken(">>") {
                return Ok(Value::Bytes(bytes));
            }
            self.required(",")?;
        }
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let sign = if self.rest().starts_with('-') { "-" } else { "" };
        self.at += usize::from(self.rest().starts_with(['-', '+']));
        let whole = self.digits()?;
        let fraction = self.rest().strip_prefix('.');
        if !fraction.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            return Ok(Value::Integer(format!("{sign}{whole}")));
        }
        self.at += 1;
        let mut text = format!("{sign}{whole}.{}", self.digits()?);
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            let minus = if self.rest().starts_with('-') { "-" } else { "" };
            self.at += usize::from(self.rest().starts_with(['-', '+']));
            text += &format!("e{minus}{}", self.digits()?);
        }
        // Erlang has no other floats.
        if !text.parse().is_ok_and(f64::is_finite) {
            return Err(self.expected("a float of 64 bits"));
        }
        Ok(Value::Float(text))
    }

    fn digits(&mut self) -> Result<&'t str, SyntaxError> {
        match self.while_(|c| c.is_ascii_digit()) {
            "" => Err(self.expected("a digit")),
            digits => Ok(digits),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, SyntaxError> {
        let mut text = String::new();
        if self.next() != Some(quote) {
            return Err(self.expected("a quote"));
        }
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(c) => text.push(c),
                None => return Err(self.expected("a closing quote")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, SyntaxError> {
        let unknown = |reader: &Self| reader.expected("a known escape");
        Ok(match self.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('s') => ' ',
            Some('e') => '\u{1b}',
            Some('b') => '\u{8}',
            Some('d') => '\u{7f}',
            Some('f') => '\u{c}',
            Some('v') => '\u{b}',
            Some(first @ '0'..='7') => self.octal(first).ok_or_else(|| unknown(self))?,
            Some('x') => {
                self.required("{")?;
                let digits = self.while_(|c| c.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                let code = code.ok_or_else(|| unknown(self))?;
                self.required("}")?;
                code
            }
            Some(c @ ('\\' | '\'' | '"')) => c,
            _ => return Err(unknown(self)),
        })
    }

    /// One to three octal digits, of which the first is taken.
    fn octal(&mut self, first: char) -> Option<char> {
        let mut code = first.to_digit(8)?;
        for _ in 0..2 {
            let Some(digit) = self.rest().chars().next().and_then(|c| c.to_digit(8)) else { break };
            self.at += 1;
            code = code * 8 + digit;
        }
        char::from_u32(code)
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn while_(&mut self, is_part: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Steps over white space and comments.
    fn space(&mut self) {
        loop {
            self.while_(char::is_whitespace);
            if !self.rest().starts_with('%') {
                return;
            }
            self.while_(|c| c != '\n');
        }
    }

    fn taken(&mut self, token: &str) -> bool {
        self.space();
        let there = self.rest().starts_with(token);
        self.at += if there { token.len() } else { 0 };
        there
    }

    fn required(&mut self, token: &'static str) -> Result<(), SyntaxError> {
        if self.taken(token) { Ok(()) } else { Err(self.expected(token)) }
    }

    fn expected(&self, what: &'static str) -> SyntaxError {
        SyntaxError::Expected { what, at: self.at }
    }
}
