//! What was built as one Erlang term, for those who ask from Elixir:
//!
//! ```text
//! {:ok, %{zip: binary, manifest: json, notes: [binary], compared: integer, analysis: binary,
//!         refusal: binary | nil}} | {:error, binary}
//! ```
//!
//! `json` is as in [`hot_patch_core::reply`]; `analysis` is what
//! [`Analysis::encode`](hot_patch_core::analysis::Analysis::encode) gives.

use std::borrow::Cow;

use hot_patch_beam::etf::Term;
use hot_patch_core::reply::json_term;

use crate::Built;

/// The outcome of building a patch; what went wrong, in words.
pub type Building = Result<Built, String>;

/// Gives the term to `take`, whose result is returned.
pub fn with_term<R>(building: &Building, take: impl FnOnce(&Term<'_>) -> R) -> R {
    match building {
        Err(reason) => take(&Term::Tuple(vec![atom("error"), text(reason)])),
        Ok(built) => {
            // It was read from JSON, or is made of what can be.
            let manifest = serde_json::to_value(&built.manifest).unwrap_or_default();
            let (analysis, refusal) = (built.analysis.encode(), built.refusal());
            let fields = [
                ("zip", Term::Binary(&built.zip)),
                ("manifest", json_term(&manifest)),
                ("notes", Term::List(built.notes.iter().map(|note| text(note)).collect(), None)),
                ("compared", Term::Integer(i64::try_from(built.compared).unwrap_or(i64::MAX))),
                ("analysis", Term::Binary(&analysis)),
                ("refusal", refusal.as_deref().map_or_else(|| atom("nil"), text)),
            ];
            let map = Term::Map(fields.map(|(key, value)| (atom(key), value)).into());
            take(&Term::Tuple(vec![atom("ok"), map]))
        }
    }
}

fn atom(name: &'static str) -> Term<'static> {
    Term::Atom(Cow::Borrowed(name))
}

fn text(text: &str) -> Term<'_> {
    Term::Binary(text.as_bytes())
}
