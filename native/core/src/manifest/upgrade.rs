//! What an archive says that takes the system to the next version of its release.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::hex::Hex;
use super::line::is_line;
use super::{MANIFEST, Manifest};
use crate::appup::Start;
use crate::archive;
use crate::refusal::{Refusal, Rule};
use hot_patch_beam::digest::{self, Sha256Sum};
use hot_patch_beam::text::printable;

/// The longest version, in bytes: it is part of names of folders.
const LONGEST_VERSION: usize = 100;

/// The longest name of an application, in bytes.
const LONGEST_NAME: usize = 100;

/// The longest path that is looked at here, in bytes.
const LONGEST_PATH: u32 = 1024;

/// The longest remark, in bytes.
pub const LONGEST_REMARK: usize = 1_000;
/// The most remarks.
pub const MOST_REMARKS: usize = 1_000;

/// From the manifest's release to another version of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The version to which it leads.
    pub to: String,
    /// The version of the runtime system that the new release runs on.
    pub erts: String,
    /// The applications that are not the same in both: those of the new release in the order in
    /// which it starts them, then those that are gone, in the order in which they stop.
    pub applications: Vec<Application>,
    /// The folders that the new release has in common with the former one.
    #[serde(default)]
    pub shared: Vec<Shared>,
    /// The files of the archive that belong to the release itself, and to no application.
    pub files: Vec<String>,
    /// Which ways are as the release's own `relup` says; none where no release has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relup: Option<Relup>,
    /// Where the instructions are from, and what of them is done otherwise than their authors have
    /// written it: in sentences, for those who apply it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Which ways are as a `relup` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relup {
    /// The way to the new release.
    pub up: bool,
    /// The way back.
    pub down: bool,
}

/// An application in both releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Its version in the former release; none if that has it not.
    pub from: Option<String>,
    /// Its version in the new release; none if that has it not.
    pub to: Option<String>,
    /// How the new release starts it.
    #[serde(rename = "type")]
    pub start: Option<Start>,
}

/// The folder of an application that is the same in both releases, and is not carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// `lib/NAME-VERSION`.
    pub path: String,
    /// What [`folder_digest`] gives for it.
    pub sha256: Hex<32>,
}

impl Application {
    /// Its folder in the new release.
    pub fn folder(&self) -> Option<String> {
        self.to.as_ref().map(|version| format!("lib/{}-{version}", self.name))
    }
}

impl Upgrade {
    /// Whether a file of the archive is only put on disk, though it may be written like a module:
    /// modules are loaded from an application's `ebin`, and a protocol from where it is
    /// consolidated.
    pub fn is_data(&self, path: &str, files: &HashSet<&str>) -> bool {
        let consolidated = |file: &str| format!("releases/{}/consolidated/{file}", self.to);
        match path.split('/').collect::<Vec<_>>()[..] {
            ["lib", _, "ebin", file] => files.contains(consolidated(file).as_str()),
            [_, _, "consolidated", file] => path != consolidated(file),
            _ => true,
        }
    }
}

/// The digest of a folder: of its files, by their paths below it, each path with a zero byte and
/// the SHA-256 of the file behind it.
pub fn folder_digest(files: &mut [(String, Sha256Sum)]) -> Sha256Sum {
    files.sort_unstable();
    let mut all = Vec::new();
    for (path, sha256) in files {
        all.extend_from_slice(path.as_bytes());
        all.push(0);
        all.extend_from_slice(sha256);
    }
    digest::sha256(&all)
}

/// Checks what an upgrade says, and that its files lie where those of such an upgrade do: in new
/// folders, and in nothing else.
pub(super) fn check(manifest: &Manifest) -> Result<(), Refusal> {
    let Some(upgrade) = &manifest.upgrade else { return Ok(()) };
    versions(manifest, upgrade)?;
    remarks(upgrade)?;
    applications(upgrade)?;
    shared(upgrade)?;
    places(manifest, upgrade)?;
    needed(manifest, upgrade)?;
    removed(manifest, upgrade)
}

fn refuse<T>(detail: String) -> Result<T, Refusal> {
    Err(Refusal::entry(Rule::ManifestUpgrade, MANIFEST.as_bytes(), detail))
}

fn versions(manifest: &Manifest, upgrade: &Upgrade) -> Result<(), Refusal> {
    let Some(release) = &manifest.release else {
        return refuse("is an upgrade and names no \"release\" that it starts from".to_owned());
    };
    let versions = [&release.version, &upgrade.to, &upgrade.erts];
    if let Some(version) = versions.into_iter().find(|version| !is_version(version)) {
        return refuse(format!("has the version \"{}\", which is none", shown(version)));
    }
    if release.version == upgrade.to {
        return refuse(format!("leads from {0} to {0}", shown(&upgrade.to)));
    }
    if !manifest.config.is_empty() {
        return refuse("is an upgrade and has \"config\": the release brings its own".to_owned());
    }
    Ok(())
}

fn remarks(upgrade: &Upgrade) -> Result<(), Refusal> {
    if upgrade.remarks.len() > MOST_REMARKS {
        return refuse(format!("has more than {MOST_REMARKS} remarks"));
    }
    match upgrade.remarks.iter().find(|remark| !is_line(remark, LONGEST_REMARK)) {
        None => Ok(()),
        Some(_) => {
            refuse(format!("has a remark that is no line of at most {LONGEST_REMARK} bytes"))
        }
    }
}

fn applications(upgrade: &Upgrade) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for application in &upgrade.applications {
        let name = shown(&application.name);
        let versions = [&application.from, &application.to];
        if !is_application(&application.name) {
            return refuse(format!("has \"{name}\", which is no name of an application"));
        }
        if versions.into_iter().flatten().any(|version| !is_version(version)) {
            return refuse(format!("gives {name} a version that is none"));
        }
        if application.from == application.to {
            return refuse(format!("names {name}, which does not change"));
        }
        if application.to.is_some() != application.start.is_some() {
            return refuse(format!("has for {name} a \"type\" without a \"to\", or the reverse"));
        }
        if !seen.insert(&application.name) {
            return refuse(format!("names the application {name} twice"));
        }
    }
    Ok(())
}

fn shared(upgrade: &Upgrade) -> Result<(), Refusal> {
    let mut seen: HashSet<String> =
        upgrade.applications.iter().filter_map(Application::folder).collect();
    for folder in &upgrade.shared {
        let below = folder.path.strip_prefix("lib/").unwrap_or_default();
        let plain = !below.is_empty() && !below.contains('/');
        if !plain || archive::check_name(folder.path.as_bytes(), LONGEST_PATH).is_err() {
            let path = shown(&folder.path);
            return refuse(format!("shares \"{path}\", which is no folder of an application"));
        }
        if !seen.insert(folder.path.clone()) {
            return refuse(format!("has the folder \"{}\" twice", shown(&folder.path)));
        }
    }
    Ok(())
}

/// Each file is in the folder of an application that comes, in that of the new release, or in that of
/// its runtime system.
fn places(manifest: &Manifest, upgrade: &Upgrade) -> Result<(), Refusal> {
    let folders: HashSet<String> =
        upgrade.applications.iter().filter_map(Application::folder).collect();
    let own = [format!("releases/{}/", upgrade.to), format!("erts-{}/", upgrade.erts)];
    let of_release: BTreeSet<&str> = upgrade.files.iter().map(String::as_str).collect();
    if of_release.len() != upgrade.files.len() {
        return refuse("names a file of the release twice".to_owned());
    }
    let mut found = BTreeSet::new();
    for path in manifest.files.iter().map(|file| file.path.as_str()) {
        if own.iter().any(|folder| path.starts_with(folder)) {
            found.insert(path);
        } else if !folder(path).is_some_and(|folder| folders.contains(folder)) {
            return refuse(format!(
                "has \"{}\", which is in no folder that comes with the upgrade",
                shown(path)
            ));
        }
    }
    match found.symmetric_difference(&of_release).next() {
        None => Ok(()),
        Some(path) => {
            refuse(format!("names other files of the release than it has, as \"{}\"", shown(path)))
        }
    }
}

/// The first two parts of a path.
fn folder(path: &str) -> Option<&str> {
    let (end, _) = path.match_indices('/').nth(1)?;
    path.get(..end)
}

/// Without these files the release cannot start.
fn needed(manifest: &Manifest, upgrade: &Upgrade) -> Result<(), Refusal> {
    let files: HashSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    let release = manifest.release.as_ref().map(|release| release.name.as_str());
    let of_release = ["start.boot".to_owned(), format!("{}.rel", release.unwrap_or_default())];
    let of_release = of_release.map(|file| format!("releases/{}/{file}", upgrade.to));
    let resources = upgrade.applications.iter().filter_map(|application| {
        Some(format!("{}/ebin/{}.app", application.folder()?, application.name))
    });
    match of_release.into_iter().chain(resources).find(|file| !files.contains(file.as_str())) {
        None => Ok(()),
        Some(file) => refuse(format!("has no \"{}\", by which it starts", shown(&file))),
    }
}

/// What goes leaves memory only, and only what the former release had.
fn removed(manifest: &Manifest, upgrade: &Upgrade) -> Result<(), Refusal> {
    let from = manifest.release.as_ref().map(|release| release.version.as_str());
    let consolidated = format!("releases/{}/consolidated/", from.unwrap_or_default());
    let folders: HashSet<String> = upgrade
        .applications
        .iter()
        .filter_map(|one| Some(format!("lib/{}-{}/ebin/", one.name, one.from.as_ref()?)))
        .collect();
    for file in &manifest.removed {
        let at = file.path.rfind('/').map_or(0, |at| at + 1);
        let parent = file.path.get(..at).unwrap_or_default();
        let known = parent == consolidated || folders.contains(parent);
        if file.module.is_none() || !known {
            return refuse(format!(
                "removes \"{}\", which is no module of an application that changes",
                shown(&file.path)
            ));
        }
    }
    Ok(())
}

/// Plain enough for the name of a folder, whatever the file system.
fn is_version(version: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~');
    is_line(version, LONGEST_VERSION)
        && version.chars().all(plain)
        && version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !version.ends_with('.')
}

fn is_application(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '@');
    is_line(name, LONGEST_NAME)
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn shown(text: &str) -> String {
    printable(text.as_bytes())
}
