//! An analysis as one encoded term:
//!
//! ```text
//! %{modules: [module], order: [[binary]], findings: [finding], stateless: boolean, steps: steps}
//!
//! module = %{module: binary, operation: :add | :replace | :delete, roles: [atom],
//!            functions: %{added: [binary], removed: [binary], changed: [binary]} | nil,
//!            exports_added: [binary], exports_removed: [binary], calls: [binary],
//!            callers: [binary], code_change: :absent | :keeps | :untouched | :touched,
//!            state_moves: boolean, pause: :none | :state | :supervisor, why: binary}
//! steps = %{first: [binary], why: [{binary, binary}], across: [binary], tied: [binary]}
//! finding = %{name: atom, severity: :info | :warning | :danger, module: binary,
//!             items: [binary], message: binary}
//! ```

use std::borrow::Cow;

use super::describe::{Functions, ModuleChange, Operation, Pause};
use super::finding::Finding;
use super::state::Conversion;
use super::{Analysis, Role, Steps};
use hot_patch_beam::etf::Term;

/// The term.
pub(super) fn term(analysis: &Analysis) -> Term<'_> {
    let order = analysis.order.iter().map(|group| texts(group));
    map([
        ("modules", list(analysis.modules.iter().map(module))),
        ("order", list(order)),
        ("findings", list(analysis.findings.iter().map(finding))),
        ("stateless", boolean(analysis.stateless)),
        ("steps", steps(&analysis.steps)),
    ])
}

fn steps(steps: &Steps) -> Term<'_> {
    map([
        ("first", texts(&steps.first)),
        ("why", list(steps.why.iter().map(pair))),
        ("across", texts(&steps.across)),
        ("tied", texts(&steps.tied)),
    ])
}

fn module(module: &ModuleChange) -> Term<'_> {
    map([
        ("module", text(&module.module)),
        ("operation", atom(operation(module.operation))),
        ("roles", list(module.roles.iter().map(|role: &Role| atom(role.name())))),
        ("functions", module.functions.as_ref().map_or_else(|| atom("nil"), functions)),
        ("exports_added", texts(&module.exports_added)),
        ("exports_removed", texts(&module.exports_removed)),
        ("calls", texts(&module.calls)),
        ("callers", texts(&module.callers)),
        ("code_change", atom(conversion(module.code_change))),
        ("state_moves", boolean(module.state_moves)),
        ("pause", atom(pause(module.pause))),
        ("why", text(module.why)),
    ])
}

fn pair((caller, called): &(String, String)) -> Term<'_> {
    Term::Tuple(vec![text(caller), text(called)])
}

fn functions(functions: &Functions) -> Term<'_> {
    map([
        ("added", texts(&functions.added)),
        ("removed", texts(&functions.removed)),
        ("changed", texts(&functions.changed)),
    ])
}

fn finding(finding: &Finding) -> Term<'_> {
    map([
        ("name", atom(finding.kind.name())),
        ("severity", atom(finding.severity().name())),
        ("module", text(&finding.module)),
        ("items", texts(&finding.items)),
        ("message", text(&finding.message)),
    ])
}

fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Add => "add",
        Operation::Replace => "replace",
        Operation::Delete => "delete",
    }
}

fn conversion(conversion: Conversion) -> &'static str {
    match conversion {
        Conversion::Absent => "absent",
        Conversion::Keeps => "keeps",
        Conversion::Untouched => "untouched",
        Conversion::Touched => "touched",
    }
}

fn pause(pause: Pause) -> &'static str {
    match pause {
        Pause::None => "none",
        Pause::State => "state",
        Pause::Supervisor => "supervisor",
    }
}

fn map<'a, const N: usize>(fields: [(&'a str, Term<'a>); N]) -> Term<'a> {
    Term::Map(fields.into_iter().map(|(key, value)| (atom(key), value)).collect())
}

fn list<'a>(terms: impl Iterator<Item = Term<'a>>) -> Term<'a> {
    Term::List(terms.collect(), None)
}

fn texts(texts: &[String]) -> Term<'_> {
    list(texts.iter().map(|one| text(one)))
}

fn text(text: &str) -> Term<'_> {
    Term::Binary(text.as_bytes())
}

fn atom(name: &str) -> Term<'_> {
    Term::Atom(Cow::Borrowed(name))
}

fn boolean(value: bool) -> Term<'static> {
    Term::Atom(Cow::Borrowed(if value { "true" } else { "false" }))
}
