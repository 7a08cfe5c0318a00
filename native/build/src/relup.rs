//! What the authors of a release have written down, or had `systools` write, for the way to it from
//! another and back: `releases/VERSION/relup`.

use hot_patch_core::appup::Value;

use crate::error::Error;
use crate::side::{Key, Side};

/// One way by a relup.
#[derive(Debug)]
pub(crate) struct Written {
    /// Where it is, for people.
    pub(crate) file: String,
    pub(crate) script: Vec<Value>,
}

/// What there is for one way.
#[derive(Debug)]
pub(crate) enum Found {
    /// The new release has no relup.
    None,
    /// It has one that does not have the way; why not, in words.
    Other(String),
    /// It has the way.
    Way(Written),
}

const FORM: &str = "it is no {Vsn, [{UpFrom, Text, Instructions}], [{DownTo, Text, Instructions}]}";

/// Where a release has it.
pub(crate) fn key() -> Key {
    Key::OfRelease("relup".to_owned())
}

/// What leads from the one release to the other, or back. As OTP's release handler looks for it: in
/// the new release, and, for one that leads to an older version, in the former.
pub(crate) fn find(from: &Side, to: &Side, is_up: bool) -> Result<Found, Error> {
    let [Some(former), Some(new)] = [from, to].map(version) else { return Ok(Found::None) };
    let found = way(to, former, is_up)?;
    if matches!(found, Found::Way(_)) {
        return Ok(found);
    }
    // One that has led here already is not read so strictly.
    match way(from, new, !is_up) {
        Ok(Found::Way(written)) => Ok(Found::Way(written)),
        _ => Ok(found),
    }
}

fn version(side: &Side) -> Option<&str> {
    side.facts.release.as_ref().map(|release| release.version.as_str())
}

/// The way in a release's relup from another version to its own, or from its own to that.
fn way(side: &Side, other: &str, is_to: bool) -> Result<Found, Error> {
    let Some(content) = side.files.get(&key()) else { return Ok(Found::None) };
    let own = version(side).unwrap_or_default();
    let file = format!("releases/{own}/relup");
    let unreadable = |why: &str| Error::NoUpgrade(format!("{file}: {why}"));
    let term = Value::consult(&content.read()?).map_err(|error| unreadable(&error.to_string()))?;
    let Value::Tuple(parts) = term else { return Err(unreadable(FORM)) };
    let [Value::String(of), Value::List(ups), Value::List(downs)] = parts.as_slice() else {
        return Err(unreadable(FORM));
    };
    if of != own {
        return Ok(Found::Other(format!("{file} is of {of}, and is not used")));
    }
    for script in if is_to { ups } else { downs } {
        let Value::Tuple(parts) = script else { return Err(unreadable(FORM)) };
        let [Value::String(version), _text, Value::List(script)] = parts.as_slice() else {
            return Err(unreadable(FORM));
        };
        if version == other {
            return Ok(Found::Way(Written { file, script: script.clone() }));
        }
    }
    let leads = if is_to { "lead from" } else { "lead back to" };
    Ok(Found::Other(format!("{file} does not {leads} {other}, and is not used for that")))
}
