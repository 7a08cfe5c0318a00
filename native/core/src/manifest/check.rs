//! What a manifest says must make sense.

use std::collections::{BTreeMap, HashSet};

use super::instructions;
use super::line::{hides, is_line};
use super::upgrade;
use super::{Change, MANIFEST, Manifest, Version};
use crate::appup::Value;
use crate::archive;
use crate::refusal::{Refusal, Rule};
use hot_patch_beam::text::printable;

/// The longest line, such as a name or a version, in bytes.
const LONGEST_LINE: usize = 255;

/// The longest text that may have several lines.
const LONGEST_TEXT: usize = 10_000;

/// The longest text of an Erlang term.
const LONGEST_TERM: usize = 64 * 1024;

/// The most settings of applications, and the most bytes of their values.
const MOST_SETTINGS: usize = 1_000;
const MOST_CONFIG_BYTES: usize = 256 * 1024;

/// The most modules of another patch that one can want to run.
const MOST_NEEDED: usize = 10_000;

fn refuse<T>(rule: Rule, detail: String) -> Result<T, Refusal> {
    Err(Refusal::entry(rule, MANIFEST.as_bytes(), detail))
}

/// Checks everything that can be seen without the archive.
pub(super) fn values(manifest: &Manifest) -> Result<(), Refusal> {
    lines(manifest)?;
    terms(manifest)?;
    paths(manifest)?;
    changes(manifest)?;
    names(manifest)?;
    config(manifest)?;
    follows(manifest)?;
    upgrade::check(manifest)?;
    instructions::check(manifest)
}

/// What has to run before is another patch's: what this one brings cannot be a condition of it.
fn follows(manifest: &Manifest) -> Result<(), Refusal> {
    let Some(follows) = &manifest.follows else { return Ok(()) };
    let brought: HashSet<&str> =
        manifest.files.iter().filter_map(|file| file.module.as_ref()).map(|m| &*m.name).collect();
    if !is_name(&follows.name) || follows.modules.is_empty() || follows.modules.len() > MOST_NEEDED
    {
        let detail = format!(
            "has a \"follows\" that is not a patch's name and 1 to {MOST_NEEDED} modules that it brings"
        );
        return refuse(Rule::ManifestMalformed, detail);
    }
    for module in &follows.modules {
        if !is_line(&module.name, LONGEST_LINE) {
            let detail = format!(
                "has a \"follows.modules.name\" that is no line of at most {LONGEST_LINE} bytes"
            );
            return refuse(Rule::ManifestMalformed, detail);
        }
        if brought.contains(&*module.name) {
            let name = printable(module.name.as_bytes());
            let detail = format!("wants {name} to run before, and brings it itself");
            return refuse(Rule::ManifestMalformed, detail);
        }
    }
    Ok(())
}

fn lines(manifest: &Manifest) -> Result<(), Refusal> {
    if !is_name(&manifest.name) {
        return refuse(
            Rule::ManifestMalformed,
            "has a \"name\" that is not 1 to 64 letters, digits, `.`, `_` or `-`".to_owned(),
        );
    }
    let built = &manifest.built_with;
    let release = manifest.release.as_ref();
    let mut named = vec![
        ("release.name", release.map(|release| &release.name)),
        ("release.version", release.map(|release| &release.version)),
        ("built_with.otp", built.otp.as_ref()),
        ("built_with.elixir", built.elixir.as_ref()),
        ("built_with.hot_patch", built.hot_patch.as_ref()),
        ("author", manifest.author.as_ref()),
    ];
    for change in &manifest.config {
        named.extend([("config.application", Some(&change.application))]);
        named.extend([("config.key", Some(&change.key))]);
    }
    for finding in &manifest.accepted_findings {
        named.extend([("accepted_findings.rule", Some(&finding.rule))]);
        named.extend([("accepted_findings.module", finding.module.as_ref())]);
        named.extend([("accepted_findings.reason", finding.reason.as_ref())]);
    }
    for (field, value) in named {
        if value.is_some_and(|value| !is_line(value, LONGEST_LINE)) {
            let detail =
                format!("has a \"{field}\" that is no line of at most {LONGEST_LINE} bytes");
            return refuse(Rule::ManifestMalformed, detail);
        }
    }
    text(manifest)
}

fn text(manifest: &Manifest) -> Result<(), Refusal> {
    let text = manifest.text.as_deref().unwrap_or_default();
    if text.len() > LONGEST_TEXT || text.chars().any(|c| c != '\n' && hides(c)) {
        let detail =
            format!("has a \"text\" that is no plain text of at most {LONGEST_TEXT} bytes");
        return refuse(Rule::ManifestMalformed, detail);
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= 64
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Values and versions are read by those who use them; here they are only bounded.
fn terms(manifest: &Manifest) -> Result<(), Refusal> {
    let instructions = manifest.instructions.up.iter().chain(&manifest.instructions.down);
    let values = manifest.config.iter().map(|change| &change.value);
    let versions = manifest.files.iter().filter_map(|file| file.module.as_ref()).flat_map(|m| {
        [m.brings.vsn.as_ref(), m.replaces.as_ref().and_then(|version| version.vsn.as_ref())]
    });
    let needed = manifest.follows.iter().flat_map(|follows| &follows.modules);
    let versions = versions.flatten().chain(needed.filter_map(|one| one.version.vsn.as_ref()));
    for term in instructions.chain(values).chain(versions) {
        if term.is_empty() || term.len() > LONGEST_TERM {
            let detail =
                format!("has the text of a term that is empty or longer than {LONGEST_TERM} bytes");
            return refuse(Rule::ManifestMalformed, detail);
        }
    }
    Ok(())
}

/// Keys and values become atoms and terms where the patch is accepted: they must be readable,
/// and not too many, before anybody does that.
fn config(manifest: &Manifest) -> Result<(), Refusal> {
    let changes = &manifest.config;
    if changes.len() > MOST_SETTINGS {
        let detail = format!("has more than {MOST_SETTINGS} settings");
        return refuse(Rule::ManifestConfig, detail);
    }
    if changes.iter().map(|change| change.value.len()).sum::<usize>() > MOST_CONFIG_BYTES {
        let detail = format!("has settings of more than {MOST_CONFIG_BYTES} bytes");
        return refuse(Rule::ManifestConfig, detail);
    }
    for change in changes {
        let of = format!(
            "{} of {}",
            printable(change.key.as_bytes()),
            printable(change.application.as_bytes())
        );
        if let Err(error) = Value::parse(&change.value) {
            let detail = format!("has for {of} a value that is no constant Erlang term: {error}");
            return refuse(Rule::ManifestConfig, detail);
        }
    }
    Ok(())
}

fn paths(manifest: &Manifest) -> Result<(), Refusal> {
    let files = manifest.files.iter().map(|file| &file.path);
    let removed = manifest.removed.iter().map(|file| &file.path);
    let mut seen = HashSet::new();
    for path in files.chain(removed) {
        // Removed files are no entries of the archive, so nobody else looks at their names.
        let longest = u32::try_from(LONGEST_TERM).unwrap_or(u32::MAX);
        if let Err(refusal) = archive::check_name(path.as_bytes(), longest) {
            let name = printable(path.as_bytes());
            let detail = format!(
                "has the path \"{name}\", which no entry may have ({})",
                refusal.rule.name()
            );
            return refuse(Rule::ManifestMalformed, detail);
        }
        if !seen.insert(path) {
            let detail = format!("names \"{}\" twice", printable(path.as_bytes()));
            return refuse(Rule::ManifestDuplicate, detail);
        }
    }
    Ok(())
}

fn changes(manifest: &Manifest) -> Result<(), Refusal> {
    for removed in &manifest.removed {
        // What a file of the archive is shows when it is read; this one is not there.
        let file = removed.path.rsplit('/').next().unwrap_or_default();
        let module = removed.module.as_ref().map(|module| module.name.as_str());
        if file.strip_suffix(".beam") != module {
            let path = printable(removed.path.as_bytes());
            let detail = format!("removes \"{path}\" as something else than its name says");
            return refuse(Rule::ManifestMalformed, detail);
        }
    }
    for module in manifest.files.iter().filter_map(|file| file.module.as_ref()) {
        if (module.change == Change::Replace) != module.replaces.is_some() {
            let detail = format!(
                "gives {} a version that it replaces without \"change\": \"replace\", or the reverse",
                printable(module.name.as_bytes())
            );
            return refuse(Rule::ManifestMalformed, detail);
        }
    }
    Ok(())
}

/// Each module once, unless it moves, and the load order made of them.
fn names(manifest: &Manifest) -> Result<(), Refusal> {
    let brought = once(manifest.files.iter().filter_map(|file| {
        let module = file.module.as_ref()?;
        Some((&module.name, module.replaces.as_ref()))
    }))?;
    let removed = once(manifest.removed.iter().filter_map(|file| {
        let module = file.module.as_ref()?;
        Some((&module.name, Some(&module.replaces)))
    }))?;
    for (name, version) in &removed {
        // One that moves takes the place of what it was in its former place, and of nothing else.
        if brought.get(name).is_some_and(|replaced| replaced != version) {
            let detail = format!(
                "removes {0}, and brings it without saying that it replaces the version removed",
                printable(name.as_bytes())
            );
            return refuse(Rule::ManifestMalformed, detail);
        }
    }
    let mut ordered = HashSet::new();
    for name in &manifest.load_order {
        let shown = printable(name.as_bytes());
        if !(brought.contains_key(name) || removed.contains_key(name)) {
            let detail = format!("has {shown} in its load order, and no file of that module");
            return refuse(Rule::ManifestMalformed, detail);
        }
        if !ordered.insert(name) {
            let detail = format!("has {shown} twice in its load order");
            return refuse(Rule::ManifestDuplicate, detail);
        }
    }
    Ok(())
}

/// Modules by their names, each with the version it takes the place of.
fn once<'m>(
    modules: impl Iterator<Item = (&'m String, Option<&'m Version>)>,
) -> Result<BTreeMap<&'m String, Option<&'m Version>>, Refusal> {
    let mut found = BTreeMap::new();
    for (name, replaces) in modules {
        if found.insert(name, replaces).is_some() {
            let detail = format!("names the module {} twice", printable(name.as_bytes()));
            return refuse(Rule::ManifestDuplicate, detail);
        }
    }
    Ok(found)
}
