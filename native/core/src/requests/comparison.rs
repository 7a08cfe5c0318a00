//! What modules before and after a change are compared by. The blobs are those before, then those
//! after; the options say how many come first.

use super::arguments::{Arguments, boolean, count, pair, text, texts};
use crate::analysis::{Builds, Request};
use crate::failure::Failure;

/// A request for an analysis: `{count, names | rest, [{name, name}], down}`.
pub(super) struct Comparison<'a> {
    before: &'a [&'a [u8]],
    after: &'a [&'a [u8]],
    /// None: all that are not there after it.
    deleted: Option<Vec<&'a str>>,
    compiled_with: Vec<(&'a str, &'a str)>,
    down: bool,
}

impl<'a> Comparison<'a> {
    pub(super) fn read(arguments: &Arguments<'a>) -> Result<Self, Failure> {
        let bad = || arguments.bad("takes {count, names or rest, pairs of names, down}");
        let [first, deleted, pairs, down] = arguments.tuple().ok_or_else(bad)?;
        let (before, after) = arguments.sides(count(first).ok_or_else(bad)?)?;
        let deleted = match deleted.as_atom() {
            Some("rest") => None,
            _ => Some(texts(deleted).ok_or_else(bad)?),
        };
        let pairs = pairs.as_list().ok_or_else(bad)?.iter().map(pair);
        let compiled_with = pairs.collect::<Option<_>>().ok_or_else(bad)?;
        let down = boolean(down).ok_or_else(bad)?;
        Ok(Comparison { before, after, deleted, compiled_with, down })
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            before: self.before,
            after: self.after,
            deleted: self.deleted.as_deref().unwrap_or_default(),
            whole: self.deleted.is_none(),
            compiled_with: &self.compiled_with,
            down: self.down,
        }
    }
}

/// A request for an appup: `{count, application, {from, to}, restart}`.
pub(super) fn builds<'a>(arguments: &Arguments<'a>) -> Result<Builds<'a>, Failure> {
    let bad = || arguments.bad("takes {count, application, {from, to}, restart}");
    let [first, application, versions, restart] = arguments.tuple().ok_or_else(bad)?;
    let (before, after) = arguments.sides(count(first).ok_or_else(bad)?)?;
    let (from, to) = pair(versions).ok_or_else(bad)?;
    Ok(Builds {
        application: text(application).ok_or_else(bad)?,
        versions: [from, to],
        modules: [before, after],
        restart: boolean(restart).ok_or_else(bad)?,
    })
}
