//! What can be asked from outside, by name. The NIF and the port both come through here, so that
//! a request is added once and answers the same in both.
//!
//! | request | blobs | options | reply |
//! |---|---|---|---|
//! | `read_archive` | the archive | the limits, see [`Options`] | a composition or a refusal |
//! | `shadow` | the modules | `{suffix, helper}`, two binaries | a list of shadows |
//! | `closed_shadow` | the modules | the same | the same: shadows of which all that leads out goes through the helper |
//! | `encode_json` | the encoded term | any | the JSON |
//! | `sign` | the archive, the signature as JSON | the limits | the archive with it |
//! | `analyse` | modules before the change, modules after it | `{count before, names that go or rest, pairs compiled with, down}` | an [`analysis`] |
//! | `appup` | modules of both builds | `{count before, application, {from, to}, restart}` | the text, a binary |
//! | `instructions` | the texts of instructions | any | `{ok, list}` or `{error, text}`, see [`appup`] |
//! | `funs` | for each module two versions, the old and the new | any | a list, for each `{ok, [{index, old uniq, arity, free variables}] of the old, of the new, [{old index, new index}]}` or `{error, text}`, see [`funs`](crate::funs) |
//! | `leads` | modules | functions, a list of `{module, name, arity}` with binaries | a list, for each `{[{module, name, arity}], [why some is not known]}`, see [`calls`](crate::calls) |
//! | `finding_names` | none | any | a list of `{name, severity, meaning, next step}`, all binaries |
//!
//! A new request takes an arm in `dispatch`, a line above, and, if what it gives is no
//! [`Term`], a variant of [`Reply`]. What its reply holds of atoms must be known to the one who
//! decodes it.
//!
//! Blobs are bytes from hands that are not trusted. Options are one encoded term from our own side.
//! The reply is one encoded term (see [`reply`](crate::reply)).

mod arguments;
mod comparison;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::analysis::{self, Kind};
use crate::appup::{self, Appup};
use crate::calls;
use crate::failure::Failure;
use crate::funs;
use crate::json;
use crate::options::Options;
use crate::read;
use crate::reply::Reply;
use crate::signing;
use arguments::Arguments;
use comparison::Comparison;
use hot_patch_beam::Stop;
use hot_patch_beam::etf::Term;
use hot_patch_beam::shadow;

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is to be done.
    pub name: &'a str,
    /// What it is to be done to.
    pub blobs: &'a [&'a [u8]],
    /// How, as an encoded term.
    pub options: &'a [u8],
}

/// Carries out a request and gives the reply to `take`, whose result is returned. A panic becomes
/// a failure; `take` is then called once more.
pub fn run<R>(request: &Request<'_>, stop: &Stop, take: impl Fn(Reply<'_>) -> R) -> R {
    let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(request, stop, &take)));
    let failure = match outcome {
        Ok(Ok(taken)) => return taken,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::Internal(words(panic.as_ref())),
    };
    take((&failure).into())
}

fn dispatch<R>(
    request: &Request<'_>,
    stop: &Stop,
    take: &impl Fn(Reply<'_>) -> R,
) -> Result<R, Failure> {
    let arguments = Arguments::read(request)?;
    match request.name {
        "read_archive" => {
            let options: Options = arguments.limits()?;
            let outcome = read::read_until(stop, arguments.blob()?, &options);
            unless(stop)?;
            Ok(take((&outcome).into()))
        }
        "shadow" | "closed_shadow" => {
            let naming = arguments.naming(request.name == "closed_shadow")?;
            let shadows = shadow::make_until(stop, request.blobs, &naming);
            unless(stop)?;
            Ok(take(shadows.as_slice().into()))
        }
        "encode_json" => Ok(take(Reply::Json(&json::to_json(arguments.blob()?)))),
        "sign" => {
            let signing = signing::sign_archive(stop, arguments.two()?, &arguments.limits()?);
            unless(stop)?;
            Ok(take((&signing).into()))
        }
        "analyse" => {
            let comparison = Comparison::read(&arguments)?;
            let analysis = analysis::analyse_until(stop, &comparison.request());
            unless(stop)?;
            Ok(take(Reply::Term(&analysis.term())))
        }
        "appup" => {
            let text = Appup::between_until(stop, &comparison::builds(&arguments)?).to_string();
            unless(stop)?;
            Ok(take(Reply::Term(&Term::Binary(text.as_bytes()))))
        }
        "instructions" => {
            let texts = request.blobs.iter().map(|text| std::str::from_utf8(text));
            let texts: Vec<&str> = texts.collect::<Result<_, _>>().map_err(|error| {
                Failure::BadRequest(format!("an instruction is no UTF-8: {error}"))
            })?;
            let read = appup::read(&texts);
            Ok(appup::with_term(&read, |term| take(Reply::Term(term))))
        }
        "funs" => {
            let renewals = funs::renewals_until(stop, &arguments.pairs()?);
            unless(stop)?;
            Ok(funs::with_term(&renewals, |term| take(Reply::Term(term))))
        }
        "leads" => {
            let leads = calls::leads_until(stop, request.blobs, &arguments.functions()?);
            unless(stop)?;
            Ok(calls::with_term(&leads, |term| take(Reply::Term(term))))
        }
        "finding_names" => Ok(take(Reply::Term(&finding_names()))),
        name => Err(Failure::Unknown(hot_patch_beam::text::printable(name.as_bytes()))),
    }
}

fn finding_names() -> Term<'static> {
    let row = |kind: &Kind| {
        let texts = [kind.name(), kind.severity().name(), kind.what(), kind.next_step()];
        Term::Tuple(texts.map(|text| Term::Binary(text.as_bytes())).into())
    };
    Term::List(Kind::ALL.iter().map(row).collect(), None)
}

fn unless(stop: &Stop) -> Result<(), Failure> {
    if stop.is_raised() { Err(Failure::Cancelled) } else { Ok(()) }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
