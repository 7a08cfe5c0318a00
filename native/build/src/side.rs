//! One of the two builds: its applications and their files, by names that both sides share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Error;
use crate::release::{self, Facts};
use crate::tree::{Content, Files, parts};
use hot_patch_core::appup::Value;

/// What a file is, whatever version its application has and wherever the build keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A file of an application, such as `ebin/x.beam`.
    Of { application: String, below: String },
    /// A consolidated protocol.
    Consolidated(String),
    /// What the release is started with, such as `sys.config`.
    Settings(String),
    /// Any other file beside these.
    OfRelease(String),
}

impl Key {
    /// The module that it is the file of.
    pub(crate) fn module(&self) -> Option<&str> {
        let file = match self {
            Key::Of { below, .. } => below.strip_prefix("ebin/")?,
            Key::Consolidated(file) => file,
            Key::Settings(_) | Key::OfRelease(_) => return None,
        };
        file.strip_suffix(".beam").filter(|name| !name.contains('/'))
    }

    /// Whether it is of this application.
    fn is_of(&self, name: &str) -> bool {
        matches!(self, Key::Of { application, .. } if application == name)
    }
}

/// An application.
#[derive(Debug)]
pub(crate) struct Application {
    /// Its folder, `my_app` or `my_app-1.2.0`.
    pub(crate) folder: String,
    pub(crate) version: Option<String>,
}

/// A build.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) applications: BTreeMap<String, Application>,
    pub(crate) files: BTreeMap<Key, Content>,
    pub(crate) facts: Facts,
    /// The files of the runtime system that it has of its own, by their paths below its folder.
    pub(crate) runtime: BTreeMap<String, Content>,
    /// The folder of consolidated protocols, as an archive names it.
    pub(crate) consolidated: Option<String>,
    /// The applications that lie among the files of the release, and not in `lib`.
    pub(crate) shelved: BTreeSet<String>,
}

impl Side {
    /// `running` is the version that counts, where the build boots another.
    pub(crate) fn new(files: Files, root: &Path, running: Option<&str>) -> Result<Self, Error> {
        let (booting, facts) = facts(&files, running)?;
        let mut side = Side {
            applications: BTreeMap::new(),
            files: BTreeMap::new(),
            facts,
            runtime: BTreeMap::new(),
            consolidated: None,
            shelved: BTreeSet::new(),
        };
        for (path, content) in files {
            side.add(&path, content, booting.as_deref(), root)?;
        }
        side.read_versions()?;
        Ok(side)
    }

    pub(crate) fn is_release(&self) -> bool {
        self.facts.release.is_some()
    }

    pub(crate) fn version(&self, application: &str) -> Option<&str> {
        self.applications.get(application)?.version.as_deref()
    }

    /// The modules that a system of this build can run, by name.
    pub(crate) fn modules(&self) -> BTreeMap<&str, &Content> {
        // Consolidated protocols come last, so they take the place of the others.
        self.files.iter().filter_map(|(key, content)| Some((key.module()?, content))).collect()
    }

    /// What the resource file of an application says of one thing; none where that cannot be read.
    pub(crate) fn property(&self, application: &str, name: &str) -> Option<Value> {
        let below = format!("ebin/{application}.app");
        let key = Key::Of { application: application.to_owned(), below };
        release::property(&self.files.get(&key)?.read().ok()?, name)
    }

    /// The files of an application, by their paths below its folder.
    pub(crate) fn of(&self, name: &str) -> BTreeMap<&str, &Content> {
        let mut own = BTreeMap::new();
        for (key, content) in &self.files {
            match key {
                Key::Of { below, .. } if key.is_of(name) => {
                    own.insert(below.as_str(), content);
                }
                _ => {}
            }
        }
        own
    }

    fn add(
        &mut self,
        path: &str,
        content: Content,
        booting: Option<&str>,
        root: &Path,
    ) -> Result<(), Error> {
        let current = |version: &str| booting.is_none_or(|booting| booting == version);
        match parts(path)[..] {
            // A release has them beside its boot script.
            ["lib", _, "consolidated", file] if booting.is_none() => {
                let folder = path.strip_prefix("lib/").and_then(|path| path.rsplit_once('/'));
                self.add_consolidated(folder.unwrap_or_default().0, file, content);
            }
            ["releases", version, "consolidated", file] if current(version) => {
                self.add_consolidated(&format!("releases/{version}/consolidated"), file, content);
            }
            ["consolidated", file] => self.add_consolidated("consolidated", file, content),
            ["releases", version, file @ ("sys.config" | "vm.args" | "runtime.exs" | "env.sh")]
                if current(version) =>
            {
                self.files.insert(Key::Settings(file.to_owned()), content);
            }
            ["releases", version, "lib", folder, ..] if booting == Some(version) => {
                self.add_shelved(folder, path, content, root)?;
            }
            ["releases", version, ..] if booting == Some(version) => {
                let below = below(path).to_owned();
                self.files.insert(Key::OfRelease(below), content);
            }
            ["bin", script] => self.add_script(script, content, booting),
            ["lib", folder, ..] => self.add_of(folder, path, content, root)?,
            [folder, _, ..] if self.is_own_runtime(folder) => {
                let below = path.split_once('/').unwrap_or_default().1.to_owned();
                self.runtime.insert(below, content);
            }
            _ => {}
        }
        Ok(())
    }

    /// relx writes the version into the script that starts a release, `bin/NAME-VSN`, of which
    /// `bin/NAME` is a copy. It comes among the files of the release, by the name of the latter.
    fn add_script(&mut self, script: &str, content: Content, booting: Option<&str>) {
        let name = booting.and_then(|version| script.strip_suffix(version)?.strip_suffix('-'));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.files.insert(Key::OfRelease(format!("bin/{name}")), content);
        }
    }

    /// Of several it is that which the release names.
    fn is_own_runtime(&self, folder: &str) -> bool {
        folder
            .strip_prefix("erts-")
            .is_some_and(|version| Some(version) == self.facts.erts.as_deref())
    }

    fn add_consolidated(&mut self, folder: &str, file: &str, content: Content) {
        if file.ends_with(".beam") {
            self.consolidated = Some(folder.to_owned());
            self.files.insert(Key::Consolidated(file.to_owned()), content);
        }
    }

    fn add_of(
        &mut self,
        folder: &str,
        path: &str,
        content: Content,
        root: &Path,
    ) -> Result<(), Error> {
        let (name, version) = match folder.split_once('-') {
            Some((name, version)) => (name, Some(version)),
            None => (folder, None),
        };
        if self.is_of_the_past(name, version) {
            return Ok(());
        }
        let application = self.applications.entry(name.to_owned()).or_insert_with(|| Application {
            folder: folder.to_owned(),
            version: version.map(str::to_owned),
        });
        if application.folder != folder {
            let one = application.folder.clone();
            let (root, other) = (root.to_owned(), folder.to_owned());
            return Err(Error::TwoVersions { root, one, other });
        }
        let below = below(path).to_owned();
        self.files.insert(Key::Of { application: name.to_owned(), below }, content);
        Ok(())
    }

    /// It boots from there, whatever is in `lib`, whose files come first.
    fn add_shelved(
        &mut self,
        folder: &str,
        path: &str,
        content: Content,
        root: &Path,
    ) -> Result<(), Error> {
        let name = folder.split_once('-').map_or(folder, |(name, _)| name);
        if self.shelved.insert(name.to_owned()) {
            self.applications.remove(name);
            self.files.retain(|key, _| !key.is_of(name));
        }
        let below = below(path);
        self.add_of(folder, below, content, root)
    }

    /// After an upgrade the older version's folder is still there.
    fn is_of_the_past(&self, name: &str, version: Option<&str>) -> bool {
        let booting = self.facts.applications.iter().find(|(other, _)| other == name);
        matches!((booting, version), (Some((_, booting)), Some(version)) if booting != version)
    }

    /// In `_build` the folders do not say them.
    fn read_versions(&mut self) -> Result<(), Error> {
        for (name, application) in &mut self.applications {
            let below = format!("ebin/{name}.app");
            let resource = self.files.get(&Key::Of { application: name.clone(), below });
            if let (None, Some(resource)) = (&application.version, resource) {
                application.version = release::version(&resource.read()?);
            }
        }
        Ok(())
    }
}

/// A path below the first two of its folders.
fn below(path: &str) -> &str {
    path.splitn(3, '/').nth(2).unwrap_or_default()
}

/// The version that boots, and what its `.rel` says.
fn facts(files: &Files, running: Option<&str>) -> Result<(Option<String>, Facts), Error> {
    let start = files.iter().find(|(path, _)| path == "releases/start_erl.data");
    let booting = match (running, start) {
        (Some(running), _) => Some(running.to_owned()),
        (None, Some((_, content))) => release::booting(&content.read()?),
        (None, None) => None,
    };
    let described: Vec<(&str, &Content)> = files
        .iter()
        .filter_map(|(path, content)| match parts(path)[..] {
            ["releases", _, "start_clean.rel" | "no_dot_erlang.rel"] => None,
            ["releases", version, file] if file.ends_with(".rel") => Some((version, content)),
            _ => None,
        })
        .filter(|(version, _)| booting.as_deref().is_none_or(|booting| booting == *version))
        .collect();
    match described.as_slice() {
        [(version, content), ..] => {
            Ok((Some(booting.unwrap_or((*version).to_owned())), release::read(&content.read()?)))
        }
        [] => Ok((booting, Facts::default())),
    }
}
