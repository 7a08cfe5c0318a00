//! The results of the core as one Erlang term each. That of [`read_archive`](crate::read_archive):
//!
//! ```text
//! {:ok, %{sha256: <<_::256>>, size: integer, files: [file], load: load, left_out: [binary],
//!         manifest: manifest | nil, signature: json | nil}}
//! {:refused, %{rule: atom, entry: binary | nil, message: binary}}
//!
//! file = %{path: binary, size: integer, crc32: integer, sha256: <<_::256>>, bytes: binary,
//!          executable: boolean, kind: :other | :beam | :damaged, rule: binary | nil,
//!          reason: binary | nil,
//!          beam: beam | nil}
//! beam = %{module: binary, md5: <<_::128>>, vsn: binary | nil, attributes: binary,
//!          exports: [{binary, arity}], imports: [{binary, binary, arity}],
//!          behaviours: [binary], chunks: [{binary, size}], on_load: boolean, load_nif: boolean,
//!          needs_otp: integer | nil, compiler: binary | nil, compressed: boolean, load: load}
//! load = %{atoms: integer, functions: integer, literal_words: integer, added_literals: integer,
//!          memory: integer}
//! manifest = %{bytes: binary, content: json}
//! json = JSON as maps with binaries as keys, lists, binaries, integers, true, false, nil
//! ```
//!
//! That of [`shadow::make`](hot_patch_beam::shadow::make), a list in the order of the modules:
//!
//! ```text
//! {:ok, %{name: binary, bytes: binary, lambdas: boolean, by_name: boolean, effect: nil | binary,
//!         makes_funs: boolean}} | {:error, binary}
//! ```
//!
//! That of [`json::to_json`](crate::json::to_json), and of signing a patch:
//! `{:ok, binary} | {:error, binary}`. That of an
//! analysis is said in [`analysis`](crate::analysis), that of the other requests in
//! [`requests`](crate::requests). That of a request that could not be carried out:
//! `{:failed, kind, message}`, with the kind an atom and the message a binary.
//!
//! `rule` is the name of the rule that a damaged file breaks, `load` what a module takes, or all
//! together, in the VM that loads them: see [`Load`].
//!
//! `vsn` and `attributes` are encoded terms themselves, so that no atom is made from them before
//! the archive is accepted. Decode with `:erlang.binary_to_term(reply, [:safe])`.

use std::borrow::Cow;
use std::fmt::Display;

use crate::composition::{Composition, File, Kind};
use crate::failure::Failure;
use crate::json::JsonError;
use crate::manifest::Declared;
use crate::refusal::Refusal;
use crate::signing::SignError;
use hot_patch_beam::etf::{Count, Sink, Term, Write};
use hot_patch_beam::shadow::{Reason, Shadow};
use hot_patch_beam::{Export, Import, Load, Module};
use serde::Serialize;
use serde_json::Value;

/// The outcome of reading an archive.
pub type Outcome<'a> = Result<Composition<'a>, Refusal>;

/// The outcome of making shadows.
pub type Shadows = [Result<Shadow, Reason>];

/// The outcome of signing a patch.
pub type Signing = Result<Vec<u8>, SignError>;

/// What is to be encoded.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// An archive was read.
    Archive(&'a Outcome<'a>),
    /// Shadows were made.
    Shadows(&'a Shadows),
    /// JSON was made.
    Json(&'a Result<Vec<u8>, JsonError>),
    /// A patch was signed.
    Signed(&'a Signing),
    /// What has a form of its own, such as an analysis.
    Term(&'a Term<'a>),
    /// The request could not be carried out.
    Failed(&'a Failure),
}

impl<'a> From<&'a Signing> for Reply<'a> {
    fn from(signing: &'a Signing) -> Self {
        Reply::Signed(signing)
    }
}

impl<'a> From<&'a Outcome<'a>> for Reply<'a> {
    fn from(outcome: &'a Outcome<'a>) -> Self {
        Reply::Archive(outcome)
    }
}

impl<'a> From<&'a Failure> for Reply<'a> {
    fn from(failure: &'a Failure) -> Self {
        Reply::Failed(failure)
    }
}

impl<'a> From<&'a Shadows> for Reply<'a> {
    fn from(shadows: &'a Shadows) -> Self {
        Reply::Shadows(shadows)
    }
}

/// The size of the encoded reply.
pub fn encoded_len<'a>(reply: impl Into<Reply<'a>>) -> usize {
    let mut count = Count::default();
    write(&mut count, reply.into());
    count.0
}

/// Encodes the reply into `out`; false if it does not have [`encoded_len`] bytes.
#[must_use]
pub fn encode_into<'a>(reply: impl Into<Reply<'a>>, out: &mut [u8]) -> bool {
    let mut slots = Slots { rest: out, overflow: false };
    write(&mut slots, reply.into());
    slots.rest.is_empty() && !slots.overflow
}

/// Encodes the reply.
pub fn encode<'a>(reply: impl Into<Reply<'a>>) -> Vec<u8> {
    let reply = reply.into();
    let mut out = Vec::with_capacity(encoded_len(reply));
    write(&mut out, reply);
    out
}

/// A buffer of a fixed size, filled from the front.
struct Slots<'a> {
    rest: &'a mut [u8],
    overflow: bool,
}

impl Sink for Slots<'_> {
    fn put(&mut self, bytes: &[u8]) {
        match std::mem::take(&mut self.rest).split_at_mut_checked(bytes.len()) {
            Some((slot, rest)) => {
                slot.copy_from_slice(bytes);
                self.rest = rest;
            }
            None => self.overflow = true,
        }
    }
}

fn write(out: &mut impl Write, reply: Reply<'_>) {
    out.version();
    match reply {
        Reply::Archive(outcome) => write_outcome(out, outcome),
        Reply::Shadows(shadows) => out.list(shadows, write_shadow),
        Reply::Json(json) => write_result(out, json, |out, json| out.binary(json)),
        Reply::Signed(signing) => write_result(out, signing, |out, zip| out.binary(zip)),
        Reply::Term(term) => out.term(term),
        Reply::Failed(failure) => write_failure(out, failure),
    }
}

fn write_result<W: Write, T, E: Display>(
    out: &mut W,
    result: &Result<T, E>,
    write: impl Fn(&mut W, &T),
) {
    out.small_tuple(2);
    match result {
        Ok(value) => {
            out.small_atom("ok");
            write(out, value);
        }
        Err(reason) => {
            out.small_atom("error");
            out.binary(reason.to_string().as_bytes());
        }
    }
}

fn write_failure(out: &mut impl Write, failure: &Failure) {
    out.small_tuple(3);
    out.small_atom("failed");
    out.small_atom(failure.kind());
    out.binary(failure.to_string().as_bytes());
}

fn write_outcome(out: &mut impl Write, outcome: &Outcome<'_>) {
    out.small_tuple(2);
    match outcome {
        Ok(composition) => {
            out.small_atom("ok");
            write_composition(out, composition);
        }
        Err(refusal) => {
            out.small_atom("refused");
            write_refusal(out, refusal);
        }
    }
}

fn write_shadow(out: &mut impl Write, shadow: &Result<Shadow, Reason>) {
    out.small_tuple(2);
    match shadow {
        Ok(shadow) => {
            out.small_atom("ok");
            out.map(6);
            out.small_atom("name");
            out.binary(shadow.name.as_bytes());
            out.small_atom("bytes");
            out.binary(&shadow.bytes);
            out.small_atom("lambdas");
            out.boolean(shadow.lambdas);
            out.small_atom("by_name");
            out.boolean(shadow.by_name);
            out.small_atom("effect");
            match &shadow.effects.first {
                Some(effect) => out.binary(effect.as_bytes()),
                None => out.small_atom("nil"),
            }
            out.small_atom("makes_funs");
            out.boolean(shadow.effects.funs);
        }
        Err(reason) => {
            out.small_atom("error");
            out.binary(reason.to_string().as_bytes());
        }
    }
}

fn write_refusal(out: &mut impl Write, refusal: &Refusal) {
    out.map(3);
    out.small_atom("rule");
    out.small_atom(refusal.rule.name());
    out.small_atom("entry");
    out.optional_binary(refusal.entry.as_ref().map(String::as_bytes));
    out.small_atom("message");
    out.binary(refusal.message.as_bytes());
}

fn write_composition(out: &mut impl Write, composition: &Composition<'_>) {
    out.map(7);
    out.small_atom("sha256");
    out.binary(&composition.sha256);
    out.small_atom("size");
    out.unsigned(composition.size);
    out.small_atom("files");
    out.list(&composition.files, write_file);
    out.small_atom("load");
    write_load(out, composition.load);
    out.small_atom("left_out");
    out.list(&composition.left_out, |out, path| out.binary(path.as_bytes()));
    out.small_atom("manifest");
    match &composition.manifest {
        Some(declared) => write_declared(out, declared),
        None => out.small_atom("nil"),
    }
    out.small_atom("signature");
    out.term(&json_term(&json(&composition.signature)));
}

fn write_declared(out: &mut impl Write, declared: &Declared) {
    out.map(2);
    out.small_atom("bytes");
    out.binary(&declared.bytes);
    out.small_atom("content");
    out.term(&json_term(&json(&declared.manifest)));
}

/// What was read from JSON can be written as such.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// JSON as a term. The depth is that of a schema, so this ends.
pub fn json_term(value: &Value) -> Term<'_> {
    match value {
        Value::Null => Term::Atom(Cow::Borrowed("nil")),
        Value::Bool(true) => Term::Atom(Cow::Borrowed("true")),
        Value::Bool(false) => Term::Atom(Cow::Borrowed("false")),
        // There are no other numbers in what is written here.
        Value::Number(number) => Term::Integer(number.as_i64().unwrap_or_default()),
        Value::String(text) => Term::Binary(text.as_bytes()),
        Value::Array(elements) => Term::List(elements.iter().map(json_term).collect(), None),
        Value::Object(fields) => {
            let field = |(key, value)| (Term::Binary(String::as_bytes(key)), json_term(value));
            Term::Map(fields.iter().map(field).collect())
        }
    }
}

fn write_file(out: &mut impl Write, file: &File<'_>) {
    // path, size, crc32, sha256, bytes, executable, kind, rule, reason, beam
    out.map(10);
    out.small_atom("path");
    out.binary(file.path.as_bytes());
    out.small_atom("size");
    out.unsigned(file.bytes.len() as u64);
    out.small_atom("crc32");
    out.unsigned(file.crc32.into());
    out.small_atom("sha256");
    out.binary(&file.sha256);
    out.small_atom("bytes");
    out.binary(&file.bytes);
    out.small_atom("executable");
    out.boolean(file.executable);
    let (kind, fault, module) = match &file.kind {
        Kind::Other => ("other", None, None),
        Kind::Beam(module) => ("beam", None, Some(module)),
        Kind::Damaged(fault) => ("damaged", Some(fault), None),
    };
    out.small_atom("kind");
    out.small_atom(kind);
    out.small_atom("rule");
    out.optional_binary(fault.map(|fault| fault.rule.as_bytes()));
    out.small_atom("reason");
    out.optional_binary(fault.map(|fault| fault.reason.as_bytes()));
    out.small_atom("beam");
    match module {
        Some(module) => write_module(out, module),
        None => out.small_atom("nil"),
    }
}

fn write_module(out: &mut impl Write, module: &Module) {
    out.map(14);
    out.small_atom("module");
    out.binary(module.name().as_bytes());
    out.small_atom("md5");
    out.binary(&module.md5);
    out.small_atom("vsn");
    out.optional_binary(module.vsn.as_deref());
    out.small_atom("attributes");
    out.binary(&module.attributes);
    out.small_atom("exports");
    out.list(module.exports(), write_export);
    out.small_atom("imports");
    out.list(module.imports(), write_import);
    out.small_atom("behaviours");
    out.list(&module.behaviours, |out, name| out.binary(name.as_bytes()));
    out.small_atom("chunks");
    out.list(&module.chunks, |out, chunk| {
        out.small_tuple(2);
        out.binary(&chunk.id);
        out.unsigned(chunk.size);
    });
    out.small_atom("on_load");
    out.boolean(module.on_load);
    out.small_atom("load_nif");
    out.boolean(module.load_nif);
    out.small_atom("needs_otp");
    match module.needs_otp {
        Some(release) => out.unsigned(release.into()),
        None => out.small_atom("nil"),
    }
    out.small_atom("compiler");
    out.optional_binary(module.compiler.as_ref().map(String::as_bytes));
    out.small_atom("compressed");
    out.boolean(module.compressed);
    out.small_atom("load");
    write_load(out, module.load);
}

fn write_load(out: &mut impl Write, load: Load) {
    out.map(5);
    for (key, value) in [
        ("atoms", load.atoms),
        ("functions", load.functions),
        ("literal_words", load.literal_words),
        ("added_literals", load.added_literals),
        ("memory", load.memory),
    ] {
        out.small_atom(key);
        out.unsigned(value);
    }
}

fn write_export(out: &mut impl Write, export: Export<'_>) {
    out.small_tuple(2);
    out.binary(export.function.as_bytes());
    out.unsigned(export.arity.into());
}

fn write_import(out: &mut impl Write, import: Import<'_>) {
    out.small_tuple(3);
    out.binary(import.module.as_bytes());
    out.binary(import.function.as_bytes());
    out.unsigned(import.arity.into());
}
