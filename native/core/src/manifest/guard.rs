//! JSON from hands that are not trusted: its size, depth and keys are looked at before any of it
//! is believed.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess};

use crate::refusal::{Refusal, Rule};
use hot_patch_beam::text::printable;

/// A manifest of the most files that an archive may have takes about three.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The schema has five levels.
const DEEPEST: usize = 16;

/// Reads the entry `name` as a `T`; `schema` is the number that it must give, if it has one.
pub(super) fn read<T: DeserializeOwned>(
    name: &str,
    bytes: &[u8],
    schema: Option<u32>,
) -> Result<T, Refusal> {
    let refuse = |rule, detail: String| Refusal::entry(rule, name.as_bytes(), detail);
    if bytes.len() > MOST_BYTES {
        let detail = format!("has {} bytes; the limit is {MOST_BYTES}", bytes.len());
        return Err(refuse(Rule::ManifestTooBig, detail));
    }
    walk(bytes).map_err(|(rule, detail)| refuse(rule, detail))?;
    check_schema(bytes, schema).map_err(|detail| refuse(Rule::ManifestSchema, detail))?;
    serde_json::from_slice(bytes).map_err(|error| {
        let text = printable(error.to_string().as_bytes());
        let unknown = text.starts_with("unknown field");
        let rule = if unknown { Rule::ManifestUnknownField } else { Rule::ManifestMalformed };
        refuse(rule, format!("does not keep the schema: {text}"))
    })
}

/// Of a newer schema nothing else is known: its fields would all be called unknown.
fn check_schema(bytes: &[u8], known: Option<u32>) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<serde_json::Number>,
    }
    let Some(known) = known else { return Ok(()) };
    // What is wrong with the rest is said by those who read it.
    let Ok(Head { schema: Some(schema) }) = serde_json::from_slice(bytes) else { return Ok(()) };
    match schema.as_u64() {
        Some(number) if number == u64::from(known) => Ok(()),
        _ => Err(format!("is written by schema {schema}; this version reads schema {known}")),
    }
}

/// Goes through all of it without keeping any.
fn walk(bytes: &[u8]) -> Result<(), (Rule, String)> {
    let problem = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let guard = Guard { levels: DEEPEST, problem: &problem };
    let walked = guard.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (walked, problem.into_inner()) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(problem)) => Err(problem),
        (Err(error), None) => {
            let text = printable(error.to_string().as_bytes());
            Err((Rule::ManifestMalformed, format!("is no JSON: {text}")))
        }
    }
}

#[derive(Clone, Copy)]
struct Guard<'p> {
    levels: usize,
    problem: &'p RefCell<Option<(Rule, String)>>,
}

impl Guard<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Guard { levels, ..self }),
            None => {
                let detail = format!("is nested more than {DEEPEST} levels deep");
                Err(self.stop(Rule::ManifestTooDeep, detail))
            }
        }
    }

    fn stop<E: Error>(self, rule: Rule, detail: String) -> E {
        let error = E::custom(&detail);
        self.problem.replace(Some((rule, detail)));
        error
    }
}

impl<'de> DeserializeSeed<'de> for Guard<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Guard<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while elements.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut keys = HashSet::new();
        while let Some(key) = pairs.next_key::<String>()? {
            if keys.contains(&key) {
                // The rest is of no interest, but must not be read as another problem.
                pairs.next_value::<IgnoredAny>()?;
                let detail = format!("has the field \"{}\" twice", printable(key.as_bytes()));
                return Err(self.stop(Rule::ManifestDuplicate, detail));
            }
            keys.insert(key);
            pairs.next_value_seed(below)?;
        }
        Ok(())
    }
}
