//! What a `.rel` file and its neighbours say of a release.

use hot_patch_core::manifest::Release;

/// What is known of a release.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) release: Option<Release>,
    /// The OTP release, from the version of the runtime system.
    pub(crate) otp: Option<String>,
    /// Applications and their versions.
    pub(crate) applications: Vec<(String, String)>,
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
        applications: pairs.into_iter().filter(|(name, _)| name != "erts").collect(),
    }
}

/// The version that an application resource file gives.
pub(crate) fn version(app: &[u8]) -> Option<String> {
    let text = str::from_utf8(app).ok()?;
    pairs(text).into_iter().find(|(name, _)| name == "vsn").map(|(_, version)| version)
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
