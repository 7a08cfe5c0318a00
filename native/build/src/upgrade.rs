//! The next version of a release: whole folders of the applications that change, what belongs to the
//! release itself, and by digest what both versions have in common.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use hot_patch_beam::ChunkId;
use hot_patch_beam::digest;
use hot_patch_core::appup::Value;
use hot_patch_core::archive;
use hot_patch_core::manifest::{Application, Hex, Shared, Upgrade, folder_digest};
use hot_patch_core::workers;

use crate::changes::Change;
use crate::compare::Compared;
use crate::error::Error;
use crate::names::some;
use crate::pair::{Pair, is_same_code};
use crate::progress::Progress;
use crate::release::Listed;
use crate::request::Request;
use crate::shelf::Shelf;
use crate::side::{Key, Side};
use crate::system::is_system;
use crate::tree::Content;

/// Two versions of one release, and nothing that says that the one that runs is to be repaired.
pub(crate) fn is_meant(from: &Side, to: &Side, request: &Request) -> bool {
    let versions = from.facts.release.as_ref().zip(to.facts.release.as_ref());
    request.modules.is_none()
        && !request.in_place
        && versions.is_some_and(|(old, new)| old.name == new.name && old.version != new.version)
}

/// Both releases, as far as an upgrade goes by their `.rel` files.
struct Releases<'s> {
    from: &'s Side,
    to: &'s Side,
    /// The version of the new one.
    version: &'s str,
    old_erts: &'s str,
    erts: &'s str,
    /// Their applications, each behind those that it needs.
    old: Vec<&'s Listed>,
    new: Vec<&'s Listed>,
    /// What comes beside a folder of the same name.
    shelf: Shelf<'s>,
}

/// What a file of the runtime system is called in both builds does not matter: it is only carried.
static RUNTIME: Key = Key::OfRelease(String::new());

/// What a file of the archive is made of.
enum Wanted<'s> {
    /// It comes; whether it is only put on disk.
    Comes { pair: Pair<'s>, data: bool },
    /// A module of the former release that the new one does not have.
    Goes(Pair<'s>),
}

/// Compares two releases.
pub(crate) fn compare(
    from: &Side,
    to: &Side,
    request: &Request,
    significant: &[ChunkId],
    progress: &Progress,
) -> Result<Compared, Error> {
    if !request.config.is_empty() {
        let text = "an upgrade brings the configuration of its release: put into its sys.config or \
                    runtime.exs what is given as --config";
        return Err(Error::NoUpgrade(text.to_owned()));
    }
    let mut releases = Releases::new(from, to)?;
    let shared = releases.shared();
    progress.begin(shared.len());
    let shared = each(&shared, progress, |listed| releases.share(listed, significant))?;
    let (same, other): (Vec<_>, Vec<_>) =
        shared.into_iter().partition(|(_, different)| different.is_empty());
    let folders: Vec<Shared> = same.into_iter().map(|(folder, _)| folder).collect();
    if !other.is_empty() {
        releases.put_beside(&other)?;
    }
    releases.check_boot()?;
    let wanted = releases.wanted();
    progress.begin(progress.get().1 + wanted.len());
    let mut changes = each(&wanted, progress, |one| one.change(&releases.shelf, significant))?;
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    let files = changes.iter().filter(|change| change.after.is_some());
    let files = files.map(|change| change.path.clone());
    let upgrade = Upgrade {
        to: releases.version.to_owned(),
        erts: releases.erts.to_owned(),
        applications: releases.applications(),
        shared: folders,
        files: files.filter(|path| !path.starts_with("lib/")).collect(),
        relup: None,
        remarks: Vec::new(),
    };
    let mut notes = notes(&upgrade, releases.old_erts);
    notes.extend(releases.beside());
    let by_restart = releases.needs_restart();
    Ok(Compared { count: wanted.len(), changes, notes, upgrade: Some(upgrade), by_restart })
}

/// On all processors, in order.
fn each<T: Sync, R: Send>(
    all: &[T],
    progress: &Progress,
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let step = |_: &mut (), one: &T| {
        progress.unless_stopped()?;
        let result = work(one);
        progress.step();
        result
    };
    let ((), results) = workers::in_order(workers::processors(), all, || (), || (), step)?;
    Ok(results)
}

impl<'s> Releases<'s> {
    fn new(from: &'s Side, to: &'s Side) -> Result<Self, Error> {
        let listed = |side: &'s Side| side.facts.starts.as_ref().ok_or_else(|| unreadable(side));
        let (old, new) = (listed(from)?, listed(to)?);
        let erts = |side: &'s Side| side.facts.erts.as_deref().ok_or_else(|| unreadable(side));
        let (old_erts, erts) = (erts(from)?, erts(to)?);
        if old_erts != erts && to.runtime.is_empty() {
            return Err(Error::NoUpgrade(format!(
                "{} runs on ERTS {old_erts} and {} on ERTS {erts}, and there is no erts-{erts} in it: \
                 another runtime system comes with its release (include_erts: true, by mix hot_patch.build and not by \
                 mix hot_patch.deploy, which sends none), or both are built on the same Erlang/OTP",
                named(from),
                named(to)
            )));
        }
        let release = to.facts.release.as_ref().ok_or_else(|| unreadable(to))?;
        let mut releases = Releases {
            from,
            to,
            version: &release.version,
            old_erts,
            erts,
            old: in_order(from, old),
            new: in_order(to, new),
            shelf: Shelf { version: &release.version, folders: BTreeSet::new() },
        };
        // In `lib` there is another of the same name.
        let folders =
            releases.new.iter().filter(|one| releases.is_shelved(one)).map(|one| one.folder());
        releases.shelf.folders = folders.collect();
        Ok(releases)
    }

    /// Whether one of the same version lies among the files of its release in either of them.
    fn is_shelved(&self, listed: &Listed) -> bool {
        self.to.shelved.contains(&listed.name)
            || (self.from.shelved.contains(&listed.name)
                && Self::version(&self.old, &listed.name) == Some(listed.version.as_str()))
    }

    /// Applications that are not the same in both releases, though their version is: where nodes are
    /// restarted for the new one they come beside those of before.
    fn put_beside(&mut self, other: &[(Shared, Vec<String>)]) -> Result<(), Error> {
        if !self.needs_restart() {
            let different: Vec<String> =
                other.iter().flat_map(|(_, files)| files.clone()).collect();
            return Err(same_version(&different));
        }
        let folders = other.iter().filter_map(|(shared, _)| shared.path.strip_prefix("lib/"));
        self.shelf.folders.extend(folders.map(str::to_owned));
        Ok(())
    }

    /// Whether no node takes it while it runs.
    fn needs_restart(&self) -> bool {
        self.old_erts != self.erts || self.applications().iter().any(is_of_system)
    }

    /// Whether the new release can boot what comes beside a folder of the same name.
    fn check_boot(&self) -> Result<(), Error> {
        let Some(boot) = self.to.files.get(&Key::OfRelease("start.boot".to_owned())) else {
            return Ok(());
        };
        match self.shelf.unnamed(&boot.read()?) {
            None => Ok(()),
            Some(folder) => Err(Error::NoUpgrade(format!(
                "{folder} is another in both releases, though its version is the same, and the start.boot of the new \
                 release does not name its folder, so that it could not boot another: raise the version, \
                 or build both releases with the same build of it"
            ))),
        }
    }

    /// What the one who builds it should know of these.
    fn beside(&self) -> Option<String> {
        let folders: Vec<&str> = self.shelf.folders.iter().map(String::as_str).collect();
        (!folders.is_empty()).then(|| {
            format!(
                "other code under the same version, as another compiler makes it: {}. It comes into releases/{}/lib, beside \
                 what runs, and the new release boots from there. Build the next upgrade --from a copy of what a \
                 node has then",
                some(&folders),
                self.version
            )
        })
    }

    fn version(listed: &[&'s Listed], name: &str) -> Option<&'s str> {
        listed.iter().find(|one| one.name == name).map(|one| one.version.as_str())
    }

    /// Those of both releases that are not the same in both.
    fn applications(&self) -> Vec<Application> {
        let comes = self.new.iter().map(|one| Application {
            name: one.name.clone(),
            from: Self::version(&self.old, &one.name).map(str::to_owned),
            to: Some(one.version.clone()),
            start: Some(one.start),
        });
        // Who needs another goes first.
        let goes =
            self.old.iter().rev().filter(|one| Self::version(&self.new, &one.name).is_none());
        let goes = goes.map(|one| Application {
            name: one.name.clone(),
            from: Some(one.version.clone()),
            to: None,
            start: None,
        });
        comes.chain(goes).filter(|one| one.from != one.to).collect()
    }

    /// Those of one version in both, as far as the release has their folders: others are the host's.
    fn shared(&self) -> Vec<&'s Listed> {
        let is_same = |one: &&&Listed| {
            !self.is_shelved(one)
                && Self::version(&self.old, &one.name) == Some(one.version.as_str())
                && [self.from, self.to].iter().all(|side| side.applications.contains_key(&one.name))
        };
        self.new.iter().filter(is_same).copied().collect()
    }

    /// The folder of an application that both releases have, and what is not the same in it.
    fn share(
        &self,
        listed: &Listed,
        significant: &[ChunkId],
    ) -> Result<(Shared, Vec<String>), Error> {
        let (old, new) = (self.from.of(&listed.name), self.to.of(&listed.name));
        let mut digests = Vec::new();
        let mut different = Vec::new();
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        for below in names {
            let pair = Pair {
                key: &Key::OfRelease(String::new()),
                path: format!("{}-{}/{below}", listed.name, listed.version),
                moved_from: None,
                before: old.get(below).copied(),
                after: new.get(below).copied(),
            };
            if let Some(content) = pair.before {
                digests.push((below.to_owned(), digest::sha256(&content.read()?)));
            }
            let matters = match (pair.before, pair.after) {
                (Some(_), Some(_)) => true,
                (Some(_), None) => runs(below) && !self.is_stranger(&listed.name, below),
                _ => runs(below),
            };
            if matters && !pair.is_same(significant)? {
                different.push(pair.path);
            }
        }
        let path = format!("lib/{}-{}", listed.name, listed.version);
        Ok((Shared { path, sha256: Hex(folder_digest(&mut digests)) }, different))
    }

    /// Whether it is the file of a module that the new release's application does not name as its own:
    /// systools puts no such file into a tarball.
    fn is_stranger(&self, application: &str, below: &str) -> bool {
        let Some(module) = below.strip_prefix("ebin/").and_then(|file| file.strip_suffix(".beam"))
        else {
            return false;
        };
        match self.to.property(application, "modules") {
            Some(Value::List(own)) => {
                !own.iter().any(|one| matches!(one, Value::Atom(name) if name == module))
            }
            _ => false,
        }
    }

    fn wanted(&self) -> Vec<Wanted<'s>> {
        let before = self.from.modules();
        let mut wanted = self.comes(&before);
        if self.needs_restart() {
            // Nothing leaves memory before all does.
            return wanted;
        }
        let after = self.to.modules();
        for key in self.from.files.keys() {
            let Some(module) = key.module().filter(|name| !after.contains_key(name)) else {
                continue;
            };
            // Of a protocol only what runs.
            let runs = before.get(module).copied();
            let is_it = |content: &&Content| runs.is_some_and(|runs| std::ptr::eq(runs, *content));
            let content = self.from.files.get(key).filter(is_it);
            if let (Some(path), Some(content)) = (self.former_path(key), content) {
                let before = Some(content);
                wanted.push(Wanted::Goes(Pair {
                    key,
                    path,
                    moved_from: None,
                    before,
                    after: None,
                }));
            }
        }
        wanted
    }

    /// All files of what is new, each with the module that runs until then.
    fn comes(&self, before: &BTreeMap<&str, &'s Content>) -> Vec<Wanted<'s>> {
        let mut found = Vec::new();
        for (key, content) in &self.to.files {
            let Some(path) = self.path(key).filter(|path| !archive::is_of_mac(path)) else {
                continue;
            };
            let runs = key.module().and_then(|module| before.get(module).copied());
            found.push(Pair { key, path, moved_from: None, before: runs, after: Some(content) });
        }
        let paths: Vec<String> = found.iter().map(|pair| pair.path.clone()).collect();
        let paths: HashSet<&str> = paths.iter().map(String::as_str).collect();
        let upgrade = self.bare();
        let runtime = self.runtime();
        let comes = found.into_iter().map(|pair| {
            let data = upgrade.is_data(&pair.path, &paths);
            Wanted::Comes { pair, data }
        });
        comes.chain(runtime).collect()
    }

    /// The runtime system, where it is another.
    fn runtime(&self) -> Vec<Wanted<'s>> {
        if self.old_erts == self.erts {
            return Vec::new();
        }
        let runtime = self.to.runtime.iter().map(|(below, content)| {
            let path = format!("erts-{}/{below}", self.erts);
            let after = Some(content);
            let pair = Pair { key: &RUNTIME, path, moved_from: None, before: None, after };
            Wanted::Comes { pair, data: true }
        });
        runtime.collect()
    }

    /// What says which files are data.
    fn bare(&self) -> Upgrade {
        Upgrade {
            to: self.version.to_owned(),
            erts: self.erts.to_owned(),
            applications: Vec::new(),
            shared: Vec::new(),
            files: Vec::new(),
            relup: None,
            remarks: Vec::new(),
        }
    }

    /// Where a file of the new release is in it, if it is carried.
    fn path(&self, key: &Key) -> Option<String> {
        match key {
            Key::Of { application, below } => {
                let version = Self::version(&self.new, application)?;
                let folder = format!("{application}-{version}");
                if self.shelf.folders.contains(&folder) {
                    return Some(format!("{}/{below}", self.shelf.path(&folder)));
                }
                let changes = Self::version(&self.old, application) != Some(version);
                changes.then(|| format!("lib/{folder}/{below}"))
            }
            Key::Consolidated(file) => {
                Some(format!("releases/{}/consolidated/{file}", self.version))
            }
            Key::Settings(file) | Key::OfRelease(file) => {
                Some(format!("releases/{}/{file}", self.version))
            }
        }
    }

    /// Where a module of the former release is in it, if its application changes.
    fn former_path(&self, key: &Key) -> Option<String> {
        match key {
            Key::Of { application, below } => {
                let version = Self::version(&self.old, application)?;
                let changes = Self::version(&self.new, application) != Some(version);
                changes.then(|| format!("lib/{application}-{version}/{below}"))
            }
            Key::Consolidated(file) => {
                Some(format!("{}/{file}", self.from.consolidated.as_deref()?))
            }
            Key::Settings(_) | Key::OfRelease(_) => None,
        }
    }
}

impl Wanted<'_> {
    fn change(&self, shelf: &Shelf, significant: &[ChunkId]) -> Result<Change, Error> {
        let (pair, data) = match self {
            Wanted::Comes { pair, data } => (pair, *data),
            Wanted::Goes(pair) => (pair, false),
        };
        let read = |content: Option<&Content>| {
            let Some(content) = content else { return Ok(None) };
            if !data {
                return pair.read(content, significant).map(Some);
            }
            let mut build = content.plain()?;
            if matches!(pair.key, Key::OfRelease(_)) {
                build.bytes = shelf.rewritten(&pair.path, build.bytes.into()).into_owned();
            }
            Ok(Some(build))
        };
        let before = if data { None } else { read(pair.before)? };
        let after = read(pair.after)?;
        let module =
            |build: &Option<crate::Build>| build.as_ref().and_then(|one| one.module.clone());
        let unchanged = is_same_code(module(&before).as_deref(), module(&after).as_deref());
        let path = pair.path.clone();
        Ok(Change { path, moved_from: None, before, after, picked: false, unchanged })
    }
}

/// The applications of a release in the order in which it starts them: as its `.rel` file has them, but
/// each behind those that its resource file names.
fn in_order<'s>(side: &'s Side, listed: &'s [Listed]) -> Vec<&'s Listed> {
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    // Each waits on the stack for those that it needs; one that was seen is not waited for again, so
    // that a circle ends.
    let mut stack: Vec<(&Listed, bool)> = listed.iter().rev().map(|one| (one, false)).collect();
    while let Some((one, waited)) = stack.pop() {
        if waited {
            order.push(one);
        } else if seen.insert(one.name.as_str()) {
            stack.push((one, true));
            let needed = needed(side, &one.name);
            let needs = |other: &&Listed| needed.contains(&other.name);
            stack.extend(listed.iter().rev().filter(needs).map(|other| (other, false)));
        }
    }
    order
}

fn needed(side: &Side, name: &str) -> Vec<String> {
    let Some(Value::List(names)) = side.property(name, "applications") else { return Vec::new() };
    let name = |value: Value| match value {
        Value::Atom(name) => Some(name),
        _ => None,
    };
    names.into_iter().filter_map(name).collect()
}

/// What the one who builds it should know.
fn notes(upgrade: &Upgrade, old_erts: &str) -> Vec<String> {
    let mut notes = system(upgrade);
    if upgrade.erts != old_erts {
        notes.push(format!(
            "it brings ERTS {} in place of ERTS {old_erts}: no node takes that while it runs, apply it \
             with restart: :rolling",
            upgrade.erts
        ));
    }
    notes
}

fn system(upgrade: &Upgrade) -> Vec<String> {
    let changed = upgrade.applications.iter().filter(|one| is_of_system(one));
    let changed: Vec<&str> = changed.map(|one| one.name.as_str()).collect();
    if changed.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{} change: what belongs to OTP, to Elixir or to HotPatch itself cannot change live. No node \
         takes this upgrade while it runs: build both releases with the same, or apply it with \
         restart: :rolling",
        some(&changed)
    )]
}

fn is_of_system(application: &Application) -> bool {
    is_system(&application.name) && application.from.is_some()
}

/// Whether a file of an application's folder is there for the system that runs. Others lie there
/// or do not, as the tool that made the release likes: a tarball of systools has no sources and no
/// include files.
fn runs(below: &str) -> bool {
    below.starts_with("priv/")
        || below.strip_prefix("ebin/").is_some_and(|file| !file.ends_with(".appup"))
}

fn unreadable(side: &Side) -> Error {
    Error::NoUpgrade(format!(
        "the .rel file of {} cannot be read: build the release again",
        named(side)
    ))
}

fn named(side: &Side) -> String {
    match &side.facts.release {
        Some(release) => format!("{} {}", release.name, release.version),
        None => "a build without a release".to_owned(),
    }
}

fn same_version(different: &[String]) -> Error {
    let different: Vec<&str> = different.iter().map(String::as_str).collect();
    Error::NoUpgrade(format!(
        "there are files that are not the same in both releases, though the version of the application is: {}. Nothing that \
         runs is overwritten by an upgrade: raise the version, or build both releases with the same \
         build of it",
        some(&different)
    ))
}
