//! What a `.rel` file and its neighbours say of a release.

use hot_patch_core::appup::{Start, Value};
use hot_patch_core::manifest::Release;

/// What is known of a release.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) release: Option<Release>,
    /// The OTP release, from the version of the runtime system.
    pub(crate) otp: Option<String>,
    /// The version of the runtime system.
    pub(crate) erts: Option<String>,
    /// Applications and their versions.
    pub(crate) applications: Vec<(String, String)>,
    /// How each of them is started, in the order of the file. None if the file is no such term.
    pub(crate) starts: Option<Vec<Listed>>,
}

/// An application of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) start: Start,
}

impl Listed {
    /// Its folder's name.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// The version in `releases/start_erl.data`: the one that boots.
pub(crate) fn booting(start_erl: &[u8]) -> Option<String> {
    str::from_utf8(start_erl).ok()?.split_whitespace().nth(1).map(str::to_owned)
}

/// Reads a `.rel` file: `{release,{"name","vsn"},{erts,"13.1"},[{app,"vsn"},...]}.`
pub(crate) fn read(rel: &[u8]) -> Facts {
    let Ok(text) = str::from_utf8(rel) else { return Facts::default() };
    let pairs = pairs(text);
    let erts = pairs.iter().find(|(name, _)| name == "erts").map(|(_, version)| version.as_str());
    Facts {
        release: named(text),
        otp: erts.and_then(otp),
        erts: erts.map(str::to_owned),
        starts: starts(text),
        applications: pairs.into_iter().filter(|(name, _)| name != "erts").collect(),
    }
}

/// The last part of the term, read as Erlang would.
fn starts(text: &str) -> Option<Vec<Listed>> {
    let Value::Tuple(parts) = Value::parse(text.trim_end().strip_suffix('.')?).ok()? else {
        return None;
    };
    let [_, _, _, Value::List(applications)] = parts.as_slice() else { return None };
    applications.iter().map(listed).collect()
}

/// `{app,"1.0"}`, with how it is started and what it includes behind that or not.
fn listed(value: &Value) -> Option<Listed> {
    let Value::Tuple(parts) = value else { return None };
    let [Value::Atom(name), Value::String(version), rest @ ..] = parts.as_slice() else {
        return None;
    };
    let start = match rest.first() {
        Some(Value::Atom(start)) => Start::named(start)?,
        _ => Start::default(),
    };
    Some(Listed { name: name.clone(), version: version.clone(), start })
}

/// The version that an application resource file gives.
pub(crate) fn version(app: &[u8]) -> Option<String> {
    let text = str::from_utf8(app).ok()?;
    pairs(text).into_iter().find(|(name, _)| name == "vsn").map(|(_, version)| version)
}

/// What a resource file says of one thing, as `mod` or `applications`.
pub(crate) fn property(app: &[u8], name: &str) -> Option<Value> {
    let text = str::from_utf8(app).ok()?;
    let Value::Tuple(parts) = Value::parse(text.trim_end().strip_suffix('.')?).ok()? else {
        return None;
    };
    let [_, _, Value::List(properties)] = parts.as_slice() else { return None };
    properties.iter().find_map(|property| match property {
        Value::Tuple(pair) => match pair.as_slice() {
            [Value::Atom(key), value] if key == name => Some(value.clone()),
            _ => None,
        },
        _ => None,
    })
}

/// The name and the version that stand behind `{release,`.
fn named(text: &str) -> Option<Release> {
    let (_, rest) = text.split_once("{release")?;
    let mut strings = rest.split('"');
    let name = strings.nth(1)?.to_owned();
    let version = strings.nth(1)?.to_owned();
    Some(Release { name, version })
}

/// Every `{atom,"string"` of a text of Erlang terms.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, rest) = part.split_once(',')?;
        let (string, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        let name = name.trim().trim_matches('\'');
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '@' | '.');
        (!name.is_empty() && name.chars().all(plain)).then(|| (name.to_owned(), string.to_owned()))
    };
    text.split('{').filter_map(pair).collect()
}

/// Since OTP 17 the runtime system's major version is twelve less.
fn otp(erts: &str) -> Option<String> {
    let major: u32 = erts.split('.').next()?.parse().ok()?;
    Some((major + 12).to_string())
}

#[cfg(test)]
mod tests {
    use super::{booting, read, version};

    #[test]
    fn reads_what_release_tools_write() {
        let rel = b"%% coding: utf-8\n{release,{\"exchange\",\"1.0.0\"},\n {erts,\"13.1.5\"},\n \
            [{kernel,\"8.5.3\"},\n  {exchange,\"1.0.0\",permanent}]}.\n";
        let facts = read(rel);
        let release = facts.release.unwrap();
        assert_eq!((release.name.as_str(), release.version.as_str()), ("exchange", "1.0.0"));
        assert_eq!(facts.otp.as_deref(), Some("25"));
        let exchange = ("exchange".to_owned(), "1.0.0".to_owned());
        assert!(facts.applications.contains(&exchange), "{:?}", facts.applications);
        assert_eq!(booting(b"13.1.5 1.0.0\n").as_deref(), Some("1.0.0"));
        let starts = facts.starts.unwrap();
        let found = starts.iter().map(|one| (one.name.as_str(), one.start.name()));
        assert!(found.eq([("kernel", "permanent"), ("exchange", "permanent")]));
    }

    #[test]
    fn reads_how_applications_are_started() {
        let rel = b"{release,{\"a\",\"1\"},{erts,\"13\"},[{kernel,\"8\"},{iex,\"1.14\",none},\
            {b,\"2\",temporary,[c]},{d,\"3\",[e]}]}.";
        let starts = read(rel).starts.unwrap();
        let found: Vec<_> = starts.iter().map(|one| one.start.name()).collect();
        assert_eq!(found, ["permanent", "none", "temporary", "permanent"]);
        assert_eq!(read(b"{release,{\"a\",\"1\"},{erts,\"13\"},[{kernel,8}]}.").starts, None);
    }

    #[test]
    fn reads_the_version_of_an_application() {
        let app =
            b"{application,jiffy,\n [{description,\"JSON Decoder/Encoder.\"},\n  {vsn,\"1.1.1\"},\
            {modules,[jiffy]}]}.";
        assert_eq!(version(app).as_deref(), Some("1.1.1"));
        assert_eq!(version(b"no term"), None);
    }
}
