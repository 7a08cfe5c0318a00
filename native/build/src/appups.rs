//! What the authors of an application have written down for the way to its next version, in its
//! `.appup`.

use hot_patch_core::appup::Value;

use crate::error::Error;
use crate::side::{Key, Side};

/// The beginning of one that `mix hot_patch.relup` has made: no author has written it.
const MADE: &[u8] = b"%% Made by mix hot_patch.relup";

/// What it says of one way between two versions of an application.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) script: Option<Vec<Value>>,
    /// Whether some are there for versions that are named by a pattern, which is not read here.
    pub(crate) by_pattern: bool,
}

/// What the file of an application in the new release says of the version in the former one.
pub(crate) fn written(to: &Side, name: &str, from: &str, is_up: bool) -> Result<Written, Error> {
    let below = format!("ebin/{name}.appup");
    let key = Key::Of { application: name.to_owned(), below };
    let Some(content) = to.files.get(&key) else { return Ok(Written::default()) };
    let bytes = content.read()?;
    if bytes.starts_with(MADE) {
        return Ok(Written::default());
    }
    let unreadable = |why: String| Error::NoUpgrade(format!("{name}.appup: {why}"));
    let term = Value::consult(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let Value::Tuple(parts) = term else { return Err(unreadable(FORM.to_owned())) };
    let [_, Value::List(up), Value::List(down)] = parts.as_slice() else {
        return Err(unreadable(FORM.to_owned()));
    };
    let scripts = if is_up { up } else { down };
    Ok(Written {
        script: script(scripts, from).map(<[Value]>::to_vec),
        by_pattern: up.iter().chain(down).any(is_by_pattern),
    })
}

const FORM: &str = "it is no {Vsn, [{UpFrom, Instructions}], [{DownTo, Instructions}]}";

fn script<'v>(scripts: &'v [Value], version: &str) -> Option<&'v [Value]> {
    scripts.iter().find_map(|script| match script {
        Value::Tuple(pair) => match pair.as_slice() {
            [Value::String(of), Value::List(instructions)] if of == version => {
                Some(instructions.as_slice())
            }
            _ => None,
        },
        _ => None,
    })
}

fn is_by_pattern(script: &Value) -> bool {
    matches!(script, Value::Tuple(pair) if matches!(pair.first(), Some(Value::Binary(_))))
}
